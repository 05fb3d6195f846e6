use std::net::IpAddr;
use std::time::Duration;

use kernloom::dataplane::{Action, AllowOnly, Owner, Reason, Rule};
use kernloom::model::LimitScope;

use super::{Plane, families, ip, limit};
use crate::packet::{DOT1Q, Frame, L4};

const LEASE: Duration = Duration::from_secs(60);

fn enforcing() -> Plane {
    let plane = Plane::new();
    plane.shield.set_allow_only(AllowOnly::On, &plane.lock);
    plane
}

fn raw(source: IpAddr, proto: u8, payload: &'static [u8]) -> Frame {
    Frame::new(source, L4::Raw { proto, payload })
}

/// W1: the reference judged IPv4 only; every IPv6 packet passed.
#[test]
fn w1_default_deny_holds_for_ipv6_as_for_ipv4() {
    for source in families() {
        let plane = enforcing();
        assert_eq!(plane.syn(source), Reason::NotAllowed, "{source}");
        plane.set(&plane.tracked(source).to_string(), Action::Allow);
        assert_eq!(plane.syn(source), Reason::Allow, "{source}");
        plane.remove(&plane.tracked(source).to_string());
        assert_eq!(plane.syn(source), Reason::NotAllowed, "{source}");
    }
    assert_eq!(
        enforcing().syn(ip("fe80::7")),
        Reason::NotAllowed,
        "link-local is a source like any other"
    );
}

/// W2: destination port 0, ICMP, SCTP, GRE and a TCP header cut short walked around it.
#[test]
fn w2_no_protocol_and_no_short_header_is_a_way_around_default_deny() {
    for source in families() {
        let plane = enforcing();
        let tcp_cut: &'static [u8] = &[0x9c, 0x40, 0x01, 0xbb, 0, 0, 0, 0];
        for frame in [
            Frame::syn(source, 0),
            Frame::ack(source, 443),
            Frame::udp(source, 53, 0),
            Frame::new(source, L4::IcmpEcho),
            raw(source, 132, &[0; 12]),
            raw(source, 47, &[]),
            raw(source, 6, tcp_cut),
            raw(source, 6, &[]),
            raw(source, 255, &[]),
        ] {
            assert_eq!(plane.send(&frame.build()), Reason::NotAllowed, "{frame:?}");
        }
    }
}

/// W3: three tags, a wrong header length or a cut header walked around it.
#[test]
fn w3_neither_tags_nor_broken_headers_are_a_way_around_default_deny() {
    for (source, header) in families().into_iter().zip([20, 40]) {
        let plane = enforcing();
        let mut frame = Frame::syn(source, 443);
        for depth in 0..8 {
            assert_eq!(
                plane.send(&frame.build()),
                Reason::NotAllowed,
                "{depth} tags"
            );
            frame = frame.vlan(DOT1Q, depth);
        }
        let whole = Frame::syn(source, 443).unpadded().build();
        for len in 14..14 + header {
            assert_eq!(plane.send(&whole[..len]), Reason::NotAllowed, "{len} bytes");
        }
        let mut wrong = whole;
        wrong[14] ^= 0x30;
        assert_eq!(plane.send(&wrong), Reason::NotAllowed, "version");
    }
}

/// RFC 4890, 4.4.1; RFC 792.
#[test]
fn what_a_network_cannot_do_without_always_passes() {
    let [v4, v6] = families();
    let plane = enforcing();
    for kind in [3u8, 11, 12] {
        let frame = raw(v4, 1, Box::leak(Box::new([kind, 0, 0, 0, 0, 0, 0, 0])));
        assert_eq!(plane.send(&frame.build()), Reason::Pass, "ICMP {kind}");
    }
    let hops: [(u8, u8); 13] = [
        (1, 64),
        (2, 64),
        (3, 1),
        (4, 64),
        (130, 1),
        (131, 1),
        (132, 1),
        (143, 1),
        (133, 255),
        (134, 255),
        (135, 255),
        (136, 255),
        (135, 254),
    ];
    for (kind, ttl) in hops {
        let payload = Box::leak(Box::new([kind, 0, 0, 0, 0, 0, 0, 0]));
        let expected = if ttl == 254 {
            Reason::NotAllowed // forwarded: no neighbour sent it
        } else {
            Reason::Pass
        };
        let frame = raw(v6, 58, payload).ttl(ttl).build();
        assert_eq!(plane.send(&frame), expected, "ICMPv6 {kind}, {ttl} hops");
    }
    let mut arp = vec![0xff; 12];
    arp.extend([0x08, 0x06]);
    arp.resize(60, 0);
    assert_eq!(plane.send(&arp), Reason::NotIp);
}

#[test]
fn an_operators_limit_lets_a_source_in_and_an_automatic_one_does_not() {
    for source in families() {
        let plane = enforcing();
        let name = plane.tracked(source).to_string();
        let action = limit(1, 1, LimitScope::All);
        for (owner, first) in [
            (Owner::Operator, Reason::WithinLimit),
            (Owner::Iq, Reason::NotAllowed),
            (Owner::Feed, Reason::NotAllowed),
        ] {
            plane.rule(
                &name,
                Rule {
                    action,
                    owner,
                    expires: None,
                },
            );
            assert_eq!(plane.syn(source), first, "{source} {owner}");
            plane.remove(&name);
        }
    }
}

#[test]
fn a_lease_that_nobody_confirms_falls_back_in_the_program() {
    for source in families() {
        let mut plane = Plane::new();
        let lease = AllowOnly::Leased(plane.now + LEASE);
        plane.shield.set_allow_only(lease, &plane.lock);
        assert_eq!(plane.shield.allow_only().unwrap(), lease);
        plane.pass_time(LEASE - Duration::from_nanos(1));
        assert_eq!(plane.syn(source), Reason::NotAllowed);
        plane.pass_time(Duration::from_nanos(1));
        assert_eq!(plane.syn(source), Reason::Pass);
        assert_eq!(plane.shield.allow_only().unwrap(), AllowOnly::Lapsed);
        assert!(!plane.shield.confirm(&plane.lock).unwrap());
        assert_eq!(plane.syn(source), Reason::Pass);
        // The next lease is a new one.
        let next = AllowOnly::Leased(plane.now + LEASE);
        plane.shield.set_allow_only(next, &plane.lock);
        assert_eq!(plane.syn(source), Reason::NotAllowed);
    }
}

#[test]
fn a_confirmed_lease_lasts() {
    for source in families() {
        let mut plane = Plane::new();
        assert!(!plane.shield.confirm(&plane.lock).unwrap());
        let lease = AllowOnly::Leased(plane.now + LEASE);
        plane.shield.set_allow_only(lease, &plane.lock);
        assert!(plane.shield.confirm(&plane.lock).unwrap());
        plane.pass_time(LEASE * 2);
        assert_eq!(plane.syn(source), Reason::NotAllowed);
        assert_eq!(plane.shield.allow_only().unwrap(), AllowOnly::On);
    }
}
