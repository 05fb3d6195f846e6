//! A running IQ as Prometheus sees it.

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use super::binary;
use super::iq::{flood, lab, start};
use crate::lab::{Family, Flood, Kernloom, Lab, Stage, wait_until};
use crate::metrics::{Exposition, promtool};

const SOON: Duration = Duration::from_secs(30);

fn scrape(lab: &Lab) -> String {
    let url = "http://127.0.0.1:9798/metrics";
    lab.server()
        .net
        .run("curl", &["-sSf", "--max-time", "10", url])
        .unwrap()
}

/// A thousand clients that say half a sentence and stay.
fn slow_clients(lab: &Lab) -> Vec<TcpStream> {
    let connect = || {
        let mut client = TcpStream::connect("127.0.0.1:9798").unwrap();
        client.write_all(b"GET /metrics HT").unwrap();
        client
    };
    let net = &lab.server().net;
    net.enter(|| Ok((0..1_000).map(|_| connect()).collect()))
        .unwrap()
}

/// What the page tells once the attacker is free again; `quiet`: its series before the attack.
fn after_the_attack(lab: &Lab, quiet: usize) {
    let text = scrape(lab);
    let page = Exposition::read(&text).unwrap();
    let soft = [("kind", "escalate"), ("to", "RATE_SOFT")];
    assert!(
        page.value("kernloom_decisions_total", &soft) >= Some(1.0),
        "{text}"
    );
    let freed = [("kind", "release"), ("to", "OBSERVE")];
    wait_until(SOON, "the release in the metrics", || {
        let page = Exposition::read(&scrape(lab)).unwrap();
        Ok(page.value("kernloom_decisions_total", &freed) == Some(1.0))
    })
    .unwrap();
    let learns = [("mode", "learn")];
    assert_eq!(
        page.value("kernloom_graph_mode", &learns),
        Some(1.0),
        "{text}"
    );
    let candidates = [("state", "candidate")];
    assert!(
        page.value("kernloom_graph_edges", &candidates) > Some(0.0),
        "{text}"
    );
    // An attack makes no series.
    assert_eq!(page.len(), quiet);
    if let Some(said) = promtool(&text) {
        assert_eq!(said, "");
    }
}

#[test]
fn a_flood_is_seen_in_the_metrics_and_slow_clients_hold_nothing_up() {
    let Some(lab) = lab("metrics", 0) else {
        return;
    };
    let file = lab.dir().join("kernloom.prom");
    let textfile = format!("--metrics-textfile={}", file.display());
    let mut iq = start(
        &lab,
        &[
            "--dry-run=false",
            "--soft-ttl=3s",
            "--graph",
            "--metrics-listen=9798",
            &textfile,
        ],
    );
    let _slow = slow_clients(&lab);
    let mut quiet = 0;
    wait_until(SOON, "the first tick in the metrics", || {
        let page = Exposition::read(&scrape(&lab)).unwrap();
        quiet = page.len();
        Ok(page.value("kernloom_tick_duration_seconds_count", &[]) > Some(0.0))
    })
    .unwrap();
    let source = lab.source("evil", Family::V6).unwrap();
    let mut attack = flood(&lab, Flood::Syn6, 12_000);
    iq.wait_transition(SOON, &source, |step| step.to > Stage::Observe)
        .unwrap();
    let limit = [("reason", "limit"), ("verdict", "drop")];
    wait_until(SOON, "drops in the metrics", || {
        let page = Exposition::read(&scrape(&lab)).unwrap();
        Ok(page.value("kernloom_received_packets_total", &limit) > Some(0.0))
    })
    .unwrap();
    attack.finish(SOON).unwrap();
    iq.wait_transition(SOON, &source, |step| step.to == Stage::Observe)
        .unwrap();
    after_the_attack(&lab, quiet);
    let kept = std::fs::read_to_string(&file).unwrap();
    Exposition::read(&kept).unwrap();
    iq.check_running().unwrap();
}

#[test]
fn a_port_that_is_taken_is_the_worlds_fault_and_nothing_is_attached() {
    let Some(lab) = lab("taken", 0) else {
        return;
    };
    let listener = lab
        .server()
        .net
        .enter(|| Ok(std::net::TcpListener::bind("127.0.0.1:9798").unwrap()))
        .unwrap();
    let words = [
        "iq",
        "--profile=idp",
        "--iface",
        "eth0",
        "--metrics-listen",
        "9798",
    ];
    let said = Kernloom::ask(&lab, binary(), &words).unwrap();
    drop(listener);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(
        said.err
            .contains("--metrics-listen 127.0.0.1:9798: Address already in use"),
        "{said:?}"
    );
    let status = Kernloom::ask(&lab, binary(), &["shield", "status"]).unwrap();
    assert!(status.err.contains("nothing is loaded"), "{status:?}");
}
