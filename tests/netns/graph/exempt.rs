//! Under an enforced graph: whoever manages the host or is listed needs no edge, a stranger does.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::traffic::{Echo, PATIENCE, SHORT, serve, tcp, udp};
use super::{SOON, binary, decided, good, graph};
use crate::lab::{Host, Kernloom, Lab, Plan, wait_until};

fn both(host: &Host) -> [IpAddr; 2] {
    [host.v4.into(), host.v6.into()]
}

/// A whitelist and management addresses, of an IQ that enforces nothing itself.
fn judge(lab: &Lab, managed: &Host, listed: &Host) -> Kernloom {
    let path = lab.dir().join("whitelist.txt");
    std::fs::write(&path, format!("{}\n{}\n", listed.v4, listed.v6)).unwrap();
    let management = format!("--management={},{}", managed.v4, managed.v6);
    let whitelist = format!("--whitelist={}", path.display());
    let judge = [
        "--profile=idp",
        "--graph",
        "--interval=200ms",
        &management,
        &whitelist,
    ];
    let iq = Kernloom::iq(lab, binary(), &judge).unwrap();
    wait_until(SOON, "iq to answer", || {
        Ok(graph(lab, "readiness").code == Some(0))
    })
    .unwrap();
    iq
}

/// The verdict tells of the exemption, and 'graph deny' of the way in that it closes.
fn a_denial_is_told(lab: &Lab, managed: &Host) {
    for denied in both(managed) {
        let ask = ["shield", "verdict", &denied.to_string(), "--dport", "22"];
        let said = Kernloom::run(lab, binary(), &ask).unwrap();
        let exempt = format!("there is no {denied} -> tcp/22; its source is exempt\n");
        assert!(said.ends_with(&exempt), "{said}");
        let said = good(lab, &format!("deny {denied} tcp/22"));
        let warning = format!(
            "warning: {denied} -> tcp/22 is denied, and the management address {denied} with it; 'kernloom \
             graph allow {denied} tcp/22' takes that back\n"
        );
        assert!(said.contains(&warning), "{said}");
    }
}

#[test]
fn management_and_the_listed_need_no_edge_and_a_denial_counts_all_the_same() {
    let plan = Plan {
        clients: &["managed", "listed", "evil"],
        office_hosts: 0,
    };
    let Some(lab) = Lab::for_test("gexempt", &plan) else {
        return;
    };
    let [managed, listed, evil] =
        ["managed", "listed", "evil"].map(|name| lab.client(name).unwrap());
    let server = lab.server();
    let stop = Arc::new(AtomicBool::new(false));
    std::thread::scope(|scope| {
        let _end = Echo {
            stop: Arc::clone(&stop),
        };
        serve(scope, &server.net, &stop, &[22, 443], &[51_820]);
        let _iq = judge(&lab, managed, listed);
        good(&lab, "allow 10.0.0.5 tcp/443");
        good(&lab, "freeze --accept-risk");
        for denied in both(listed) {
            let said = decided(&lab, &format!("deny {denied} tcp/443"));
            assert_eq!(said, format!("denied: {denied} -> tcp/443\n"));
        }
        let said = good(&lab, "enforce --lease 10m");
        assert!(!said.contains("warning"), "{said}");
        for to in both(server) {
            for exempt in [managed, listed] {
                tcp(&exempt.net, to, 22, PATIENCE).unwrap();
                udp(&exempt.net, to, 51_820, 0, 100, PATIENCE).unwrap();
                udp(&exempt.net, to, 51_820, 0, 6_000, PATIENCE).unwrap();
            }
            tcp(&managed.net, to, 443, PATIENCE).unwrap();
            assert!(tcp(&listed.net, to, 443, SHORT).is_err(), "denied: {to}");
            for port in [22, 443] {
                assert!(tcp(&evil.net, to, port, SHORT).is_err(), "{to} {port}");
            }
        }
        wait_until(SOON, "the stranger's violation", || {
            Ok(good(&lab, "violations").contains(&evil.v6.to_string()))
        })
        .unwrap();
        let told = good(&lab, "violations");
        assert!(!told.contains(&format!("{} ", managed.v4)), "{told}");
        assert!(
            !told.contains(&format!("{} -> tcp/22", listed.v4)),
            "{told}"
        );
        a_denial_is_told(&lab, managed);
        for to in both(server) {
            assert!(tcp(&managed.net, to, 22, SHORT).is_err(), "denied: {to}");
        }
    });
}
