//! Odd headers: each class under its own reason, none a way around a rule.

use std::net::IpAddr;

use kernloom::dataplane::{Action, AllowOnly, Reason};
use kernloom::model::LimitScope;

use super::{Plane, families, ip, limit};
use crate::packet::{Frame, L4};

const V6: &str = "2001:db8:1:2::7";

/// Where the IP header starts.
const L3: usize = 14;

fn v4_fragment(source: IpAddr, field: u16, keep: usize) -> Vec<u8> {
    let mut frame = Frame::syn(source, 443).unpadded().build();
    frame[L3 + 6..L3 + 8].copy_from_slice(&field.to_be_bytes());
    frame.truncate(L3 + 20 + keep);
    let total = u16::try_from(frame.len() - L3).unwrap();
    frame[L3 + 2..L3 + 4].copy_from_slice(&total.to_be_bytes());
    frame
}

fn v6_fragment(source: IpAddr, field: u16, keep: usize) -> Vec<u8> {
    let mut frame = Frame::syn(source, 443).extensions(&[44]).unpadded().build();
    frame[L3 + 42..L3 + 44].copy_from_slice(&field.to_be_bytes());
    frame.truncate(L3 + 48 + keep);
    let length = u16::try_from(frame.len() - L3 - 40).unwrap();
    frame[L3 + 4..L3 + 6].copy_from_slice(&length.to_be_bytes());
    frame
}

#[test]
fn fragments_are_told_apart_alike_in_both_families() {
    let [v4, v6] = families();
    for (first, later, tiny) in [
        (
            v4_fragment(v4, 0x2000, 24),
            v4_fragment(v4, 0x0002, 24),
            v4_fragment(v4, 0x2000, 8),
        ),
        (
            v6_fragment(v6, 0x0001, 24),
            v6_fragment(v6, 0x0010, 24),
            v6_fragment(v6, 0x0001, 8),
        ),
    ] {
        let plane = Plane::new();
        assert_eq!(plane.send(&first), Reason::FragmentFirst);
        assert_eq!(plane.send(&later), Reason::FragmentLater);
        assert_eq!(plane.send(&tiny), Reason::FragmentTiny);
    }
}

/// W55: extension headers hid ports and flags, tiny fragments hid a SYN.
#[test]
fn w55_neither_extension_headers_nor_tiny_fragments_hide_a_syn() {
    let [v4, v6] = families();
    let behind = Frame::syn(v6, 443).extensions(&[0, 60, 43]).build();
    // 16 bytes of a TCP header hold its flags and not its end.
    for (source, frame, reason) in [
        (v6, behind, Reason::Routing0),
        (v4, v4_fragment(v4, 0x2000, 16), Reason::FragmentTiny),
        (v6, v6_fragment(v6, 0x0001, 16), Reason::FragmentTiny),
    ] {
        let plane = Plane::new();
        assert_eq!(plane.send(&frame), reason);
        let row = plane.row(plane.tracked(source)).unwrap();
        assert_eq!((row.syns, row.ports.count_ones()), (1, 1), "{reason}");
        let ports = plane.shield.ports().unwrap().unwrap();
        assert_eq!((ports[0].port, ports[0].syns), (443, 1), "{reason}");
    }
}

/// What cannot be shown to belong to a connection under way is limited as new.
#[test]
fn no_odd_header_gets_around_a_limit_on_what_opens() {
    let [v4, v6] = families();
    for (source, frames) in [
        (
            v4,
            [v4_fragment(v4, 0x0002, 24), v4_fragment(v4, 0x2000, 8)],
        ),
        (
            v6,
            [v6_fragment(v6, 0x0010, 24), v6_fragment(v6, 0x0001, 8)],
        ),
    ] {
        let plane = Plane::new();
        plane.set(
            &plane.tracked(source).to_string(),
            limit(1, 1, LimitScope::New),
        );
        assert_eq!(plane.syn(source), Reason::WithinLimit);
        for frame in frames {
            assert_eq!(plane.send(&frame), Reason::Limit);
        }
    }
}

#[test]
fn padding_is_not_part_of_a_packet() {
    for source in families() {
        let plane = Plane::new();
        let payload = &[0x9c, 0x40, 0x01, 0xbb, 0, 0, 0, 0];
        // 8 bytes of TCP, then Ethernet's padding: its zeros are not flags.
        let frame = Frame::new(source, L4::Raw { proto: 6, payload });
        let mut frame = frame.build();
        frame.resize(120, 0xff);
        assert_eq!(plane.send(&frame), Reason::L4Truncated);
        let row = plane.row(plane.tracked(source)).unwrap();
        assert_eq!((row.syns, row.acks), (0, 0));
    }
}

#[test]
fn contradictory_transport_headers_have_their_own_reason() {
    for source in families() {
        let plane = Plane::new();
        let mut tcp = vec![0x9c, 0x40, 0x01, 0xbb, 0, 0, 0, 0, 0, 0, 0, 0, 0x40, 0x02];
        tcp.resize(20, 0);
        let udp = vec![0x9c, 0x40, 0, 53, 0, 7, 0, 0];
        for (proto, payload) in [(6, tcp), (17, udp)] {
            let frame = Frame::new(
                source,
                L4::Raw {
                    proto,
                    payload: payload.leak(),
                },
            );
            assert_eq!(plane.send(&frame.build()), Reason::L4Malformed, "{proto}");
        }
    }
}

#[test]
fn routing_header_0_passes_nobody_while_enforcing() {
    let source = ip(V6);
    let plane = Plane::new();
    let frame = Frame::syn(source, 443).extensions(&[43]).build();
    assert_eq!(plane.send(&frame), Reason::Routing0);
    plane.set(&plane.tracked(source).to_string(), Action::Allow);
    plane.shield.set_allow_only(AllowOnly::On, &plane.lock);
    assert_eq!(plane.syn(source), Reason::Allow);
    assert_eq!(plane.send(&frame), Reason::Routing0Drop);
}

/// RFC 4890, 4.4.1, and RFC 792.
#[test]
fn what_keeps_a_host_on_its_network_passes_any_default_deny() {
    let plane = Plane::new();
    plane.shield.set_allow_only(AllowOnly::On, &plane.lock);
    let send = |source: &str, proto, kind: u8, ttl| {
        let payload = vec![kind, 0, 0, 0, 0, 0, 0, 0].leak();
        let frame = Frame::new(ip(source), L4::Raw { proto, payload });
        plane.send(&frame.ttl(ttl).build())
    };
    for (source, proto, kind, ttl) in [
        ("192.0.2.7", 1, 3, 57),
        ("192.0.2.7", 1, 11, 57),
        ("192.0.2.7", 1, 12, 57),
        (V6, 58, 1, 57),
        (V6, 58, 2, 57),
        (V6, 58, 4, 57),
        ("fe80::1", 58, 134, 255),
        ("fe80::1", 58, 135, 255),
        (V6, 58, 136, 255),
        ("::", 58, 135, 255),
        ("fe80::1", 58, 130, 1),
        ("::", 58, 143, 1),
    ] {
        let reason = send(source, proto, kind, ttl);
        assert_eq!(reason, Reason::Essential, "{source} {proto} {kind} {ttl}");
    }
    // Echo is policy's to judge; the rest came from further away than it may.
    for (source, proto, kind, ttl) in [
        ("192.0.2.7", 1, 8, 64),
        ("192.0.2.7", 1, 5, 64),
        ("192.0.2.7", 58, 135, 255),
        (V6, 58, 128, 64),
        (V6, 58, 135, 254),
        ("fe80::1", 58, 137, 255),
        (V6, 58, 130, 1),
        ("fe80::1", 58, 143, 64),
        (V6, 1, 3, 64),
    ] {
        let reason = send(source, proto, kind, ttl);
        assert_eq!(reason, Reason::NotAllowed, "{source} {proto} {kind} {ttl}");
    }
}

#[test]
fn half_open_is_told_from_answered() {
    for source in families() {
        let plane = Plane::new();
        for _ in 0..5 {
            plane.syn(source);
        }
        for flags in [0x10, 0x18, 0x11] {
            let tcp = L4::Tcp {
                sport: 40_000,
                dport: 443,
                flags,
            };
            plane.send(&Frame::new(source, tcp).build());
        }
        // A reset, and an answer to somebody who used our address, show no peer of ours.
        for flags in [0x04, 0x14, 0x12] {
            let tcp = L4::Tcp {
                sport: 40_000,
                dport: 443,
                flags,
            };
            plane.send(&Frame::new(source, tcp).build());
        }
        let row = plane.row(plane.tracked(source)).unwrap();
        assert_eq!((row.syns, row.acks), (5, 3));
    }
}

/// W54: histograms were collected and could not be read.
#[test]
fn w54_histograms_of_lengths_and_ports_are_readable() {
    for source in families() {
        let plane = Plane::new();
        for len in [60, 127, 128, 1_514, 3_000] {
            let mut frame = Frame::udp(source, 40_000, 53).build();
            frame.resize(len.max(frame.len()), 0);
            plane.send(&frame);
        }
        let counters = plane.shield.counters().unwrap();
        let bins = [(0, 2), (1, 1), (11, 1), (15, 1)];
        for (bin, count) in counters.lengths.iter().enumerate() {
            let expected = bins
                .iter()
                .find(|(at, _)| *at == bin)
                .map_or(0, |(_, n)| *n);
            assert_eq!(*count, expected, "bin {bin}");
        }
        let ports = plane.shield.ports().unwrap().unwrap();
        assert_eq!((ports.len(), ports[0].port, ports[0].udp), (1, 53, 5));
    }
}
