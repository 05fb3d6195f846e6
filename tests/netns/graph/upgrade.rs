//! A newer program in the place of one that enforces a graph: edges are enforced throughout.

use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use libbpf_rs::{MapCore, MapFlags, MapHandle};

use super::traffic::{Echo, PATIENCE, SHORT, io, serve, tcp, udp};
use super::{SOON, binary, counted, good, graph};
use crate::lab::{Assault, Attack, Flood, Kernloom, Lab, Namespace, Plan, wait_until};

/// What UDP got as far as a socket, or would have.
fn datagrams(net: &Namespace) -> u64 {
    let table = net.run("cat", &["/proc/net/snmp"]).unwrap();
    let values = table.lines().rfind(|line| line.starts_with("Udp: "));
    let columns = values.unwrap().split_whitespace().skip(1).take(2);
    columns.map(|value| value.parse::<u64>().unwrap()).sum()
}

fn lab(name: &str) -> Option<Lab> {
    let plan = Plan {
        clients: &["one", "evil"],
        office_hosts: 0,
    };
    Lab::for_test(name, &plan)
}

fn shield(lab: &Lab, words: &str) -> String {
    let words: Vec<&str> = ["shield"].into_iter().chain(words.split(' ')).collect();
    Kernloom::run(lab, binary(), &words).unwrap()
}

/// Attached with nobody but `one` allowed: towards udp/2049 and tcp/443, and from here to udp/5353.
fn enforced(lab: &Lab) {
    shield(
        lab,
        "attach eth0 --features graph --no-guard --sources 16384",
    );
    let one = lab.client("one").unwrap().v4;
    good(lab, &format!("allow {one} udp/2049 tcp/443"));
    good(lab, &format!("allow {one} udp/5353 --direction out"));
    good(lab, "freeze --accept-risk");
    good(lab, "enforce --lease 0");
}

/// An upgrade that takes the maps over, one that makes them anew, and one across layouts.
fn upgrades(lab: &Lab) -> [String; 3] {
    let same = shield(lab, "upgrade");
    let resized = shield(lab, "upgrade --sources 4096 --max-deny 1024");
    let layout = MapHandle::from_pinned_path(lab.bpffs().join("layout")).unwrap();
    let mut value = layout.lookup(&[0; 4], MapFlags::ANY).unwrap().unwrap();
    value[0] = 200;
    layout.update(&[0; 4], &value, MapFlags::ANY).unwrap();
    [same, resized, shield(lab, "upgrade")]
}

#[test]
fn an_upgrade_under_traffic_never_opens_an_edge_nor_cuts_one() {
    let Some(lab) = lab("gupgrade") else { return };
    let (server, one) = (lab.server(), lab.client("one").unwrap());
    let stop = Arc::new(AtomicBool::new(false));
    std::thread::scope(|scope| {
        let _end = Echo {
            stop: Arc::clone(&stop),
        };
        serve(scope, &server.net, &stop, &[443, 22], &[2_049]);
        enforced(&lab);
        let flood = Assault::Flood {
            flood: Flood::Udp4,
            packets: 400_000,
            gap: Duration::from_micros(100),
        };
        let before = datagrams(&server.net);
        let attack = Attack::launch(&lab, "evil", flood).unwrap();
        wait_until(SOON, "the flood to be dropped", || {
            Ok(counted(&lab, "edge-unknown") > 500)
        })
        .unwrap();
        let said = upgrades(&lab);
        let ends = ["kept\n", "start at zero\n", "start at zero\n"];
        for (said, end) in said.iter().zip(ends) {
            assert!(said.contains(end) && said.contains("eth0: changed over"));
        }
        assert!(said[2].starts_with("layout 200 became 3"), "{}", said[2]);
        let answered = 10;
        for _ in 0..answered {
            udp(&one.net, server.v4, 2_049, 0, 100, PATIENCE).unwrap();
        }
        wait_until(SOON, "the flood to go on", || {
            Ok(counted(&lab, "edge-unknown") > 500)
        })
        .unwrap();
        drop(attack);
        assert_eq!(datagrams(&server.net) - before, answered, "by the flood");
        tcp(&one.net, server.v4, 443, PATIENCE).unwrap();
        assert!(tcp(&one.net, server.v4, 22, SHORT).is_err());
        // What leaves is held to the graph by the new companion too.
        assert!(tcp(&server.net, one.v4, 22, SHORT).is_err());
        assert!(good(&lab, "show").contains("frozen-enforce"));
    });
}

#[test]
fn an_answer_that_was_asked_for_before_an_upgrade_arrives_after_it() {
    let Some(lab) = lab("ganswer") else { return };
    let (server, one) = (lab.server(), lab.client("one").unwrap());
    enforced(&lab);
    let bound = |net: &Namespace, port: u16| {
        let socket =
            net.enter(|| UdpSocket::bind(("0.0.0.0", port)).map_err(|e| io("binding", &e)));
        let socket = socket.unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    };
    let (asks, answers) = (bound(&server.net, 0), bound(&one.net, 5_353));
    asks.send_to(b"who?", (one.v4, 5_353)).unwrap();
    let (_, from) = answers.recv_from(&mut [0; 16]).unwrap();
    upgrades(&lab);
    answers.send_to(b"me", from).unwrap();
    asks.recv_from(&mut [0; 16]).unwrap();
    // From another port it answers nothing.
    asks.set_read_timeout(Some(SHORT)).unwrap();
    bound(&one.net, 5_354).send_to(b"me", from).unwrap();
    assert!(asks.recv_from(&mut [0; 16]).is_err());
}

#[test]
fn an_iq_whose_tables_were_replaced_ends_and_its_edges_stay_enforced() {
    let Some(lab) = lab("giq") else { return };
    let (server, one) = (lab.server(), lab.client("one").unwrap());
    let stop = Arc::new(AtomicBool::new(false));
    std::thread::scope(|scope| {
        let _end = Echo {
            stop: Arc::clone(&stop),
        };
        serve(scope, &server.net, &stop, &[443, 22], &[]);
        let judge = ["--profile=idp", "--graph", "--interval=200ms"];
        let mut iq = Kernloom::iq(&lab, binary(), &judge).unwrap();
        wait_until(SOON, "iq to answer", || {
            Ok(graph(&lab, "readiness").code == Some(0))
        })
        .unwrap();
        good(&lab, &format!("allow {} tcp/443", one.v4));
        good(&lab, "freeze --accept-risk");
        good(&lab, "enforce --lease 0");
        let closed = |when: &str| {
            tcp(&one.net, server.v4, 443, PATIENCE).unwrap();
            assert!(tcp(&one.net, server.v4, 22, SHORT).is_err(), "{when}");
        };
        closed("before");
        shield(&lab, "upgrade --sources 4096");
        closed("at once");
        let status = iq.process().wait(SOON).unwrap();
        assert_eq!(status.code(), Some(1), "{}", iq.text());
        closed("with no iq");
        let _iq = Kernloom::iq(&lab, binary(), &judge).unwrap();
        wait_until(SOON, "iq to answer", || {
            Ok(graph(&lab, "readiness").code == Some(0))
        })
        .unwrap();
        closed("with the next iq");
    });
}
