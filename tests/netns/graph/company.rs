//! A small company around one identity provider: learned, judged ready, frozen, enforced.
//!
//! The graph's clock runs 43 200 times as fast, so that a tick of 200 ms is 2.4 hours and a day 2 s.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::frames::{inject, odd_frames};
use super::people::{Company, SERVER};
use super::traffic::{Echo, Held, PATIENCE, SHORT, serve, tcp};
use super::{SOON, binary, counted, failed, good, graph};
use crate::lab::{Kernloom, Lab, Plan, wait_until};

#[test]
fn a_small_company_is_learned_frozen_and_enforced_and_no_lateral_move_succeeds() {
    let clients = ["app1", "app2", "db", "monitor", "backup", "dns", "evil"];
    let plan = Plan {
        clients: &clients,
        office_hosts: 0,
    };
    let Some(lab) = Lab::for_test("company", &plan) else {
        return;
    };
    let company = Company::of(&lab).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    std::thread::scope(|scope| {
        let _end = Echo {
            stop: Arc::clone(&stop),
        };
        serve(
            scope,
            &lab.server().net,
            &stop,
            &[443, 9_100, 22, 9_999],
            &[51_820, 2_049, 443],
        );
        serve(scope, &company.container, &stop, &[80], &[]);
        serve(scope, &company.host("db").net, &stop, &[5_432, 22], &[]);
        serve(scope, &company.host("dns").net, &stop, &[443], &[53, 123]);
        serve(scope, &company.host("evil").net, &stop, &[4_444], &[4_444]);
        serve(scope, &company.admin, &stop, &[5_514], &[]);
        serve(scope, &company.neighbour, &stop, &[5_514], &[]);
        live(&lab, &company);
    });
}

fn live(lab: &Lab, company: &Company) {
    let judge = [
        "--profile=idp",
        "--graph",
        "--graph-mode=learn",
        "--graph-clock=43200",
        "--interval=200ms",
    ];
    let mut iq = Kernloom::iq(lab, binary(), &judge).unwrap();
    learn(lab, company, &mut iq);
    freeze(lab);
    // A connection that was never learned, open at the moment of freezing.
    let mut early = Held::open(&company.host("monitor").net, (lab.server().v4, 9_999));
    early.is_served();
    observe(lab, company);
    enforce(lab, company, &mut early);
    attack(lab, company);
    decisions_count_at_once(lab, company);
    a_restart_opens_nothing_that_was_closed(lab, company, iq, &judge);
}

/// The company works until readiness says that little new is to be expected.
fn learn(lab: &Lab, company: &Company, iq: &mut Kernloom) {
    wait_until(SOON, "iq to answer", || {
        Ok(graph(lab, "readiness").code == Some(0))
    })
    .unwrap();
    assert_eq!(graph(lab, "enforce").code, Some(2), "nothing is frozen yet");
    assert!(good(lab, "readiness").contains("not ready"));
    let early = graph(lab, "freeze");
    assert_eq!(early.code, Some(2), "{early:?}");
    assert!(early.err.contains("--accept-risk"), "{early:?}");
    let mut rounds = 0;
    wait_until(SOON, "readiness", || {
        iq.check_running()?;
        let done = company.exchanges(rounds % 4 == 0);
        let lost = failed(&done);
        assert!(lost.is_empty(), "while learning: {lost:?}");
        rounds += 1;
        let readiness = good(lab, "readiness");
        Ok(rounds >= 16 && learned_days(&readiness) >= 8 && readiness.contains(": ready"))
    })
    .unwrap_or_else(|error| {
        let (readiness, edges) = (good(lab, "readiness"), good(lab, "edges"));
        panic!("{error}\n{readiness}\n{edges}")
    });
}

fn freeze(lab: &Lab) {
    let foreseen = good(lab, "freeze --dry-run");
    assert!(
        foreseen.contains("dry run: nothing was changed"),
        "{foreseen}"
    );
    let frozen = good(lab, "freeze");
    assert!(frozen.contains(" frozen in "), "{frozen}");
    assert!(
        !frozen.contains("10.77.8.2"),
        "the attacker taught nothing: {frozen}"
    );
}

fn observe(lab: &Lab, company: &Company) {
    good(lab, "observe");
    for (net, to) in [
        (&company.host("evil").net, lab.server().v4.into()),
        (&company.neighbour, IpAddr::from(SERVER)),
    ] {
        let probe = tcp(net, to, 22, PATIENCE);
        assert!(probe.is_ok(), "observing drops nothing: {probe:?}");
    }
    wait_until(SOON, "the violation to be told", || {
        let told = good(lab, "violations");
        Ok(told.contains("10.77.8.2") && told.contains("2001:db8:77::66"))
    })
    .unwrap();
}

fn enforce(lab: &Lab, company: &Company, early: &mut Held) {
    let enforced = good(lab, "enforce --lease 10m");
    assert!(enforced.contains("graph confirm"), "{enforced}");
    early.is_served();
    good(lab, "confirm");
    for round in 0..3 {
        let done = company.exchanges(round == 0);
        let (lost, violations) = (failed(&done), good(lab, "violations"));
        assert!(lost.is_empty(), "enforcing: {lost:?}\n{violations}");
    }
    early.is_served();
    let late = tcp(&company.host("monitor").net, lab.server().v4, 9_999, SHORT);
    assert!(late.is_err(), "and nobody else connects there");
}

fn attack(lab: &Lab, company: &Company) {
    let made = company.moves();
    let succeeded: Vec<_> = made
        .iter()
        .filter(|(_, tried)| tried.is_ok())
        .map(|(name, _)| name)
        .collect();
    let shown = good(lab, "show");
    assert!(
        succeeded.is_empty(),
        "lateral moves succeeded: {succeeded:?}\n{shown}"
    );
    nothing_odd_arrives(lab, company);
    // Neither the attacker nor anybody else was blocked for it.
    let policy = Kernloom::run(lab, binary(), &["shield", "deny", "list"]).unwrap();
    assert!(!policy.contains("10.77."), "{policy}");
    let done = company.exchanges(true);
    let lost = failed(&done);
    assert!(lost.is_empty(), "after the attack: {lost:?}");
}

fn a_restart_opens_nothing_that_was_closed(
    lab: &Lab,
    company: &Company,
    iq: Kernloom,
    judge: &[&str],
) {
    let (evil, app1, server) = (company.host("evil"), company.host("app1"), lab.server());
    good(lab, "enforce --lease 0");
    drop(iq);
    // With no IQ at all, the kernel goes on.
    assert!(tcp(&evil.net, server.v4, 22, SHORT).is_err());
    tcp(&app1.net, server.v4, 443, PATIENCE).unwrap();
    // And --graph-mode=learn on the command line of the next does not open what a command closed.
    let mut iq = Kernloom::iq(lab, binary(), judge).unwrap();
    wait_until(SOON, "iq to answer", || {
        Ok(graph(lab, "readiness").code == Some(0))
    })
    .unwrap();
    assert!(
        iq.text().contains("was put in force by command and stays"),
        "{}",
        iq.text()
    );
    assert!(tcp(&evil.net, server.v4, 22, SHORT).is_err());
    tcp(&app1.net, server.v4, 443, PATIENCE).unwrap();
    // Killed without a farewell: what was flushed is there, and the kernel still enforces.
    iq.process()
        .signal(nix::sys::signal::Signal::SIGKILL)
        .unwrap();
    wait_until(SOON, "iq to be gone", || Ok(iq.check_running().is_err())).unwrap();
    assert!(good(lab, "edges --state frozen").contains("tcp/443"));
    assert!(tcp(&evil.net, server.v4, 22, SHORT).is_err());
}

/// The number in "learned on 8 days".
fn learned_days(readiness: &str) -> u32 {
    let (_, rest) = readiness.split_once("learned on ").unwrap();
    rest.split(' ').next().unwrap().parse().unwrap()
}

fn nothing_odd_arrives(lab: &Lab, company: &Company) {
    let evil = company.host("evil");
    let filter = format!("ip host {} or ip6 host {}", evil.v4, evil.v6);
    let filter = format!(
        "(src host {} or src host {}) and ({filter}) and not icmp6 and not arp",
        evil.v4, evil.v6
    );
    let mut tap = lab
        .server()
        .net
        .spawn("tcpdump", &["-i", "eth0", "-nn", "-l", "-p", &filter])
        .unwrap();
    tap.wait_line(SOON, "tcpdump to listen", |line| {
        line.contains("listening on")
    })
    .unwrap();
    let before = counted(lab, "edge-");
    let mut sent = 0;
    for source in [evil.v4.into(), evil.v6.into()] {
        let frames = odd_frames(lab, source);
        sent += frames.len() as u64;
        inject(lab, &frames).unwrap();
    }
    wait_until(SOON, "every odd frame to be judged", || {
        Ok(counted(lab, "edge-") >= before + sent)
    })
    .unwrap();
    let seen: Vec<String> = tap
        .lines_from(0)
        .into_iter()
        .map(|line| line.text)
        .filter(|line| line.contains(" > "))
        .collect();
    assert!(seen.is_empty(), "odd frames reached the stack: {seen:?}");
}

fn decisions_count_at_once(lab: &Lab, company: &Company) {
    let (evil, server) = (company.host("evil"), lab.server());
    good(lab, &format!("allow {} tcp/443", evil.v4));
    tcp(&evil.net, server.v4, 443, PATIENCE).unwrap();
    good(lab, &format!("deny {} tcp/443", evil.v4));
    assert!(tcp(&evil.net, server.v4, 443, SHORT).is_err());
    good(lab, "thaw");
    // Denied is denied, in learning too.
    assert!(tcp(&evil.net, server.v4, 443, SHORT).is_err());
    tcp(&evil.net, server.v4, 22, PATIENCE).unwrap();
}
