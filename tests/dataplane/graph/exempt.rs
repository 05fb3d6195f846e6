//! Exemptions under an enforced graph: what it is silent about passes, what was denied does not.

use std::net::IpAddr;
use std::time::Duration;

use kernloom::dataplane::{Action, EdgeBy, Owner, Permits, Reason, Rule};
use kernloom::graph::{Direction, Edge, Mode, Peer};
use kernloom::model::Ktime;

use super::super::{Plane, families, ip};
use super::{permits, plane, rows, switch};
use crate::packet::{Frame, L4};

const EXEMPTING: [Owner; 2] = [Owner::Management, Owner::Iq];

fn exempt(plane: &Plane, source: IpAddr, owner: Owner, expires: Option<Ktime>) {
    let rule = Rule {
        action: Action::Allow,
        owner,
        expires,
    };
    plane.rule(&plane.tracked(source).to_string(), rule);
}

/// A graph with an edge of somebody else.
fn enforce(plane: &Plane, denied: &[Edge]) {
    let permits = Permits {
        denied: denied.iter().cloned().collect(),
        ..permits(&[super::own(plane, ip("10.9.9.9"), "tcp/443")])
    };
    switch(plane, Mode::Enforce, &permits);
}

fn violations(plane: &Plane) -> u32 {
    rows(plane).iter().map(|row| row.violations).sum()
}

#[test]
fn an_exempt_source_needs_no_edge_and_violates_none() {
    for source in families() {
        for owner in EXEMPTING {
            let plane = plane();
            enforce(&plane, &[]);
            assert_eq!(plane.syn(source), Reason::EdgeUnknown);
            assert_eq!(violations(&plane), 1);
            exempt(&plane, source, owner, None);
            for _ in 0..2 {
                assert_eq!(plane.syn(source), Reason::Allow, "{owner}");
            }
            let row = rows(&plane)[0];
            assert_eq!(
                (row.violations, row.packets),
                (1, 3),
                "counted, not held against it"
            );
            // What cannot be read, and what came without its beginning.
            let short = L4::Raw {
                proto: 6,
                payload: &[0, 22],
            };
            assert!(!plane.send(&Frame::new(source, short).build()).drops());
            let later = Frame::udp(source, 1, 2).fragment(7, 185, false);
            assert!(!plane.send(&later.build()).drops());
            plane.remove(&plane.tracked(source).to_string()).unwrap();
            assert_eq!(
                plane.syn(source),
                Reason::EdgeUnknown,
                "{owner}: nothing stays"
            );
            assert!(plane.send(&later.build()).drops());
        }
    }
}

#[test]
fn who_is_merely_allowed_or_limited_needs_an_edge() {
    for source in families() {
        let plane = plane();
        enforce(&plane, &[]);
        for owner in [Owner::Operator, Owner::Feed] {
            exempt(&plane, source, owner, None);
            assert_eq!(plane.syn(source), Reason::EdgeUnknown, "{owner}");
        }
        let limit = super::super::limit(1_000, 1_000, kernloom::model::LimitScope::All);
        let owner = Owner::Iq;
        let rule = Rule {
            action: limit,
            owner,
            expires: None,
        };
        plane.rule(&plane.tracked(source).to_string(), rule);
        assert_eq!(plane.syn(source), Reason::EdgeUnknown);
    }
}

#[test]
fn an_exemption_that_ended_opens_nothing() {
    for source in families() {
        let mut plane = plane();
        enforce(&plane, &[]);
        let end = plane.now + Duration::from_secs(60);
        exempt(&plane, source, Owner::Iq, Some(end));
        assert_eq!(plane.syn(source), Reason::Allow);
        plane.pass_time(Duration::from_secs(61));
        assert_eq!(plane.syn(source), Reason::EdgeUnknown);
    }
}

#[test]
fn what_was_denied_stays_so_for_the_exempt() {
    for source in families() {
        let plane = plane();
        exempt(&plane, source, Owner::Management, None);
        enforce(&plane, &[super::own(&plane, source, "tcp/443")]);
        assert_eq!(plane.syn(source), Reason::EdgeDenied);
        let beside = Frame::syn(source, 22).build();
        assert_eq!(plane.send(&beside), Reason::Allow);
    }
}

#[test]
fn observed_an_exempt_source_is_permitted() {
    for source in families() {
        let plane = plane();
        exempt(&plane, source, Owner::Management, None);
        switch(&plane, Mode::Observe, &permits(&[]));
        assert_eq!(plane.syn(source), Reason::Allow);
        assert_eq!(violations(&plane), 0);
        assert_eq!(plane.syn(ip("10.9.9.9")), Reason::EdgeObserved);
        assert_eq!(violations(&plane), 1);
    }
}

/// Of forwarded traffic no socket tells that what leaves is an answer.
#[test]
fn answers_to_the_exempt_leave_and_nothing_else_does() {
    for source in families() {
        let plane = plane();
        enforce(&plane, &[]);
        exempt(&plane, source, Owner::Management, None);
        let companion = plane.shield.companion().unwrap().unwrap();
        let leaves = |frame: Frame| !companion.drops(&frame.leaving().build()).unwrap();
        let answer = || Frame::udp(source, 53, 40_000);
        let accepts = || {
            let l4 = L4::Tcp {
                sport: 22,
                dport: 40_000,
                flags: 0x12,
            };
            Frame::new(source, l4)
        };
        assert!(!leaves(answer()) && !leaves(accepts()));
        plane.send(&Frame::udp(source, 40_000, 53).build());
        plane.send(&Frame::syn(source, 22).build());
        assert!(leaves(answer()) && leaves(accepts()));
        assert!(!leaves(Frame::udp(source, 53, 40_001)));
        assert!(
            !leaves(Frame::syn(source, 22)),
            "what this host opens needs an edge"
        );
    }
}

#[test]
fn a_probe_is_told_of_the_exemption() {
    for source in families() {
        let plane = plane();
        let denied = Edge {
            direction: Direction::In,
            peer: Peer::Source(plane.tracked(source)),
            service: "tcp/23".parse().unwrap(),
        };
        enforce(&plane, &[denied]);
        let ask = |port| {
            let frame = Frame::syn(source, port).build();
            let answer = plane.shield.probe(&frame, &plane.lock).unwrap();
            (answer.reason, answer.edge)
        };
        assert_eq!(ask(22), (Reason::EdgeUnknown, EdgeBy::Nothing));
        exempt(&plane, source, Owner::Management, None);
        assert_eq!(ask(22), (Reason::Allow, EdgeBy::Exempt));
        assert_eq!(ask(23).0, Reason::EdgeDenied);
        assert!(rows(&plane).is_empty(), "asking leaves no trace");
    }
}
