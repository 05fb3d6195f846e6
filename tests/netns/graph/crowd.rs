//! Many commands at once, beside an IQ that starts, runs and says what is enforced.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::traffic::{SHORT, tcp};
use super::{SOON, binary, good, graph};
use crate::lab::{Kernloom, Lab, Plan, wait_until};

const JUDGE: [&str; 3] = ["--profile=idp", "--graph", "--graph-mode=frozen-enforce"];

fn lab(name: &str) -> Option<Lab> {
    let plan = Plan {
        clients: &["one"],
        office_hosts: 0,
    };
    let lab = Lab::for_test(name, &plan)?;
    good(&lab, "allow 10.0.0.5 tcp/443");
    good(&lab, "freeze --accept-risk");
    Some(lab)
}

#[test]
fn commands_keep_no_iq_from_starting_and_it_turns_none_away() {
    let Some(lab) = lab("gcrowd") else { return };
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let commands = [0; 2].map(|_| {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let said = graph(&lab, "show");
                    // One that is asked while it stops answers nobody.
                    assert!(
                        said.code == Some(0) || said.err.contains("asking the IQ"),
                        "{said:?}"
                    );
                }
            })
        });
        let starts: Vec<_> = (0..4)
            .map(|_| {
                let mut iq = Kernloom::iq(&lab, binary(), &JUDGE)?;
                iq.wait_line(SOON, "a tick every")?;
                let second =
                    Kernloom::ask(&lab, binary(), &["iq", "--iface=eth0", "--profile=idp"])?;
                let pid = format!("(pid {})", iq.process().pid());
                assert!(
                    second.code == Some(2) && second.err.contains(&pid),
                    "{second:?}"
                );
                iq.process().stop()
            })
            .collect();
        over.store(true, Ordering::Relaxed);
        for start in starts {
            start.unwrap();
        }
        for command in commands {
            command.join().unwrap();
        }
    });
    let _iq = Kernloom::iq(&lab, binary(), &JUDGE).unwrap();
    thread::scope(|scope| {
        for host in 0..40 {
            let lab = &lab;
            scope.spawn(move || good(lab, &format!("allow 10.0.1.{host} tcp/443")));
        }
    });
    let edges = good(&lab, "edges");
    assert_eq!(edges.matches("10.0.1.").count(), 40, "{edges}");
}

#[test]
fn a_dry_run_says_what_the_graph_drops_and_of_each_violation_once() {
    let Some(lab) = lab("gsays") else { return };
    let mut iq = Kernloom::iq(&lab, binary(), &JUDGE).unwrap();
    let mode =
        "dry run: iq enforces nothing; the graph is in frozen-enforce and drops what it lacks";
    iq.wait_line(SOON, mode).unwrap();
    let one = lab.client("one").unwrap();
    // The program reports the first, the second and the fourth of one CPU.
    for _ in 0..4 {
        assert!(tcp(&one.net, lab.server().v4, 22, SHORT).is_err());
    }
    let source = format!(" {} ", one.v4);
    wait_until(SOON, "two reports", || {
        let events = Kernloom::run(&lab, binary(), &["shield", "events"])?;
        Ok(events.matches(&source).count() >= 2)
    })
    .unwrap();
    let said = iq.text();
    let line = format!("violation: {} -> tcp/22", one.v4);
    assert_eq!(said.matches(&line).count(), 1, "{said}");
    iq.process().stop().unwrap();
    let mode = "stopping; iq holds nobody; the graph is in frozen-enforce and drops what it lacks";
    assert!(iq.text().contains(mode), "{}", iq.text());
}
