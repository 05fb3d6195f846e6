//! Every way nmap has of asking for ports, against a running IQ.

use super::iq::{SOON, start};
use crate::lab::{Assault, Attack, Family, Lab, Plan, Stage};

/// Most of these send nothing that opens a connection: the server's refusals give them away.
const TECHNIQUES: [(&str, &str, Family); 7] = [
    ("syn", "-sS", Family::V4),
    ("connect", "-sT", Family::V6),
    ("udp", "-sU", Family::V4),
    ("fin", "-sF", Family::V4),
    ("null", "-sN", Family::V6),
    ("xmas", "-sX", Family::V4),
    ("ack", "-sA", Family::V6),
];

#[test]
fn every_technique_of_scanning_is_limited_and_who_browses_is_not() {
    let clients: Vec<&str> = TECHNIQUES
        .iter()
        .map(|(client, ..)| *client)
        .chain(["visitor"])
        .collect();
    let plan = Plan {
        clients: &clients,
        office_hosts: 0,
    };
    let Some(lab) = Lab::for_test("scans", &plan) else {
        return;
    };
    let mut iq = start(&lab, &["--dry-run=false", "--soft-ttl=5s"]);
    for (client, technique, family) in TECHNIQUES {
        let scan = Assault::Scan {
            family,
            technique,
            ports: 800,
        };
        let source = lab.source(client, family).unwrap();
        let attack = Attack::launch(&lab, client, scan).unwrap();
        iq.wait_transition(SOON, &source, |step| step.to > Stage::Observe)
            .unwrap_or_else(|error| panic!("{technique}: {error}\n{}", iq.text()));
        drop(attack);
        // The server refuses nobody else meanwhile.
        let visitor = &lab.client("visitor").unwrap().net;
        let target = lab.server().v4.to_string();
        visitor
            .run("ping", &["-n", "-q", "-c1", "-W2", &target])
            .unwrap();
    }
    let visitor = lab.source("visitor", Family::V4).unwrap();
    iq.check_running().unwrap();
    assert!(!iq.text().contains(&format!("source={visitor} ")));
}
