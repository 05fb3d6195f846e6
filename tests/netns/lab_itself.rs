//! The lab keeps what it promises: it carries real traffic, counts it, and leaves nothing behind.

use std::time::Duration;

use crate::lab::{
    Assault, Attack, Family, Flood, Lab, Load, LoadPlan, NAT, Plan, WebServer, leftovers,
};

const SOON: Duration = Duration::from_secs(30);

#[test]
fn benign_clients_share_one_address_per_family_and_lose_nothing() {
    let Some(lab) = Lab::for_test(
        "load",
        &Plan {
            clients: &[],
            office_hosts: 5,
        },
    ) else {
        return;
    };
    let _web = WebServer::start(&lab).unwrap();
    let plan = LoadPlan {
        first: 0,
        clients: 5,
        families: &[Family::V4, Family::V6],
        requests: 10,
        per_minute: 1200,
    };
    let mut load = Load::start(&lab, plan).unwrap();
    let tally = load.finish(SOON).unwrap();
    assert_eq!(
        (tally.sent, tally.answered, tally.lost),
        (100, 100, 0),
        "{tally:?}"
    );
    for family in [Family::V4, Family::V6] {
        assert_eq!(load.tally(Some(family)).answered, 50, "{family:?}");
    }
    let tracked = lab
        .client(NAT)
        .unwrap()
        .net
        .run("nft", &["list", "ruleset"])
        .unwrap();
    assert!(tracked.contains("masquerade"), "{tracked}");
    assert_eq!(lab.source(NAT, Family::V4).unwrap(), "10.77.1.2");
    assert_eq!(lab.source(NAT, Family::V6).unwrap(), "fd77:1::/64");
}

#[test]
fn every_packet_of_a_flood_reaches_the_server() {
    let Some(lab) = Lab::for_test(
        "floods",
        &Plan {
            clients: &["evil"],
            office_hosts: 0,
        },
    ) else {
        return;
    };
    for flood in [Flood::Syn4, Flood::Udp4, Flood::Syn6, Flood::Udp6] {
        let before = lab.server().net.device("eth0").unwrap().rx_packets;
        let assault = Assault::Flood {
            flood,
            packets: 2_000,
            gap: Duration::from_micros(200),
        };
        let mut attack = Attack::launch(&lab, "evil", assault).unwrap();
        attack.finish(SOON).unwrap();
        let sent = attack.sent().unwrap();
        let seen = lab.server().net.device("eth0").unwrap().rx_packets - before;
        assert_eq!(sent, 2_000, "{flood:?}");
        assert!(seen >= sent, "{flood:?}: {seen} of {sent} arrived");
    }
}

#[test]
fn a_scan_visits_every_port() {
    let Some(lab) = Lab::for_test(
        "scans",
        &Plan {
            clients: &["evil"],
            office_hosts: 0,
        },
    ) else {
        return;
    };
    for family in [Family::V4, Family::V6] {
        let before = lab.server().net.device("eth0").unwrap().rx_packets;
        let assault = Assault::Scan {
            technique: "-sS",
            family,
            ports: 1_000,
        };
        let mut attack = Attack::launch(&lab, "evil", assault).unwrap();
        attack.finish(SOON).unwrap();
        let sent = attack.sent().unwrap();
        let seen = lab.server().net.device("eth0").unwrap().rx_packets - before;
        assert!(
            sent >= 1_000 && seen >= 1_000,
            "{family:?}: sent {sent}, arrived {seen}"
        );
    }
}

#[test]
fn nothing_stays_behind() {
    let Some(lab) = Lab::for_test(
        "gone",
        &Plan {
            clients: &["one"],
            office_hosts: 1,
        },
    ) else {
        return;
    };
    let mine = |path: &std::path::PathBuf| path.to_string_lossy().ends_with("-gone-server");
    assert!(leftovers().iter().any(mine), "{:?}", leftovers());
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _web = WebServer::start(&lab).unwrap();
        let _sleeper = lab
            .client("one")
            .unwrap()
            .net
            .spawn("sleep", &["60"])
            .unwrap();
        let _lab = lab;
        panic!("a failing test");
    }));
    assert!(panicked.is_err());
    let gone = |path: &std::path::PathBuf| path.to_string_lossy().contains("-gone");
    assert!(!leftovers().iter().any(gone), "{:?}", leftovers());
}
