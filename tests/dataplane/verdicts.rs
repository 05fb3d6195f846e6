use kernloom::dataplane::{Action, Reason};
use kernloom::model::LimitScope;

use super::{Plane, families, ip, limit};
use crate::packet::{DOT1AD, DOT1Q, Frame, L4};

#[test]
fn a_source_without_policy_passes_and_is_counted() {
    for source in families() {
        let plane = Plane::new();
        let frame = Frame::syn(source, 443).build();
        assert_eq!(plane.send(&frame), Reason::Pass);
        let row = plane.row(plane.tracked(source)).unwrap();
        assert_eq!(
            (row.packets, row.bytes, row.syns, row.drops),
            (1, frame.len() as u64, 1, 0)
        );
        assert_eq!(plane.shield.counters().unwrap().of(Reason::Pass), 1);
    }
}

#[test]
fn a_denied_source_is_dropped_whatever_it_sends() {
    let plane = Plane::new();
    for source in families() {
        plane.set(&plane.tracked(source).to_string(), Action::Deny);
        for frame in [
            Frame::syn(source, 443),
            Frame::ack(source, 443),
            Frame::udp(source, 53, 40_000),
            Frame::new(source, L4::IcmpEcho),
            Frame::new(
                source,
                L4::Raw {
                    proto: 132,
                    payload: &[0; 12],
                },
            ),
            Frame::new(
                source,
                L4::Raw {
                    proto: 47,
                    payload: &[],
                },
            ),
            Frame::syn(source, 443).vlan(DOT1Q, 5),
            Frame::syn(source, 443).vlan(DOT1AD, 5).vlan(DOT1Q, 6),
            Frame::syn(source, 443)
                .vlan(DOT1AD, 1)
                .vlan(DOT1Q, 2)
                .vlan(DOT1Q, 3)
                .vlan(DOT1Q, 4),
        ] {
            assert_eq!(plane.send(&frame.build()), Reason::Deny, "{frame:?}");
        }
        let row = plane.row(plane.tracked(source)).unwrap();
        assert_eq!((row.packets, row.drops, row.syns), (9, 9, 0));
    }
}

#[test]
fn an_allowed_source_passes_under_its_own_reason() {
    for source in families() {
        let plane = Plane::new();
        plane.set(&plane.tracked(source).to_string(), Action::Allow);
        assert_eq!(plane.syn(source), Reason::Allow);
    }
}

#[test]
fn a_limit_on_what_opens_leaves_established_traffic_alone() {
    let plane = Plane::new();
    for source in families() {
        plane.set(
            &plane.tracked(source).to_string(),
            limit(1, 1, LimitScope::New),
        );
        assert_eq!(plane.syn(source), Reason::WithinLimit);
        for frame in [
            Frame::syn(source, 443),
            Frame::udp(source, 40_000, 53),
            Frame::new(source, L4::IcmpEcho),
        ] {
            assert_eq!(plane.send(&frame.build()), Reason::Limit, "{frame:?}");
        }
        assert_eq!(
            plane.send(&Frame::ack(source, 443).build()),
            Reason::WithinLimit
        );
    }
}

#[test]
fn tags_are_walked_to_a_depth_and_deeper_ones_counted_apart() {
    let plane = Plane::new();
    for source in families() {
        plane.set(&plane.tracked(source).to_string(), Action::Deny);
        let mut frame = Frame::syn(source, 443);
        for depth in 0..=4 {
            assert_eq!(plane.send(&frame.build()), Reason::Deny, "{depth} tags");
            frame = frame.vlan(DOT1Q, depth);
        }
        assert_eq!(plane.send(&frame.build()), Reason::VlanDepth, "5 tags");
    }
}

#[test]
fn what_is_not_ip_always_passes() {
    let plane = Plane::new();
    for kind in [0x0806u16, 0x88cc, 0x86de, 0x0000] {
        let mut frame = vec![0xff; 12];
        frame.extend(kind.to_be_bytes());
        frame.resize(60, 0);
        assert_eq!(plane.send(&frame), Reason::NotIp, "{kind:#06x}");
    }
}

#[test]
fn a_frame_cut_anywhere_is_judged_by_its_source_as_soon_as_that_is_whole() {
    let plane = Plane::new();
    for (source, header) in families().into_iter().zip([20, 40]) {
        plane.set(&plane.tracked(source).to_string(), Action::Deny);
        let whole = Frame::syn(source, 443).unpadded().build();
        // 14 bytes is the least the kernel runs.
        for len in 14..=whole.len() {
            let expected = if len < 14 + header {
                Reason::Truncated
            } else {
                Reason::Deny
            };
            assert_eq!(plane.send(&whole[..len]), expected, "{source}, {len} bytes");
        }
    }
}

#[test]
fn a_contradictory_header_is_counted_apart_but_no_way_around_a_block() {
    let v4 = ip("192.0.2.7");
    let good = Frame::syn(v4, 443).build();
    let break_at = |offset: usize, value: u8| {
        let mut frame = good.clone();
        frame[offset] = value;
        frame
    };
    // Version 6 under IPv4's type, header length 4 words, total length below it and beyond the frame.
    let bad = [
        break_at(14, 0x65),
        break_at(14, 0x44),
        break_at(17, 10),
        break_at(16, 0xff),
    ];
    let plane = Plane::new();
    for frame in &bad {
        assert_eq!(plane.send(frame), Reason::Malformed);
    }
    plane.set("192.0.2.7", Action::Deny);
    for frame in &bad {
        assert_eq!(plane.send(frame), Reason::Deny);
    }
}

#[test]
fn an_ipv6_header_that_contradicts_itself_is_treated_alike() {
    let v6 = ip("2001:db8:1:2::7");
    let good = Frame::syn(v6, 443).build();
    let mut version = good.clone();
    version[14] = 0x40;
    let mut length = good;
    length[18] = 0xff;
    let plane = Plane::new();
    for frame in [&version, &length] {
        assert_eq!(plane.send(frame), Reason::Malformed);
    }
    plane.set("2001:db8:1:2::/64", Action::Deny);
    for frame in [&version, &length] {
        assert_eq!(plane.send(frame), Reason::Deny);
    }
}

#[test]
fn extension_headers_hide_no_syn() {
    let source = ip("2001:db8:1:2::7");
    // Hop-by-hop, routing, destination options; an atomic fragment; an authentication header.
    for chain in [
        vec![0u8],
        vec![0, 43, 60],
        vec![44],
        vec![51],
        vec![0, 60, 43, 44, 60, 51],
    ] {
        let plane = Plane::new();
        let frame = Frame::syn(source, 443).extensions(&chain).build();
        // The routing headers among them are of type 0.
        let reason = if chain.contains(&43) {
            Reason::Routing0
        } else {
            Reason::Options
        };
        assert_eq!(plane.send(&frame), reason, "{chain:?}");
        assert_eq!(
            plane.row(plane.tracked(source)).unwrap().syns,
            1,
            "{chain:?}"
        );
    }
}

#[test]
fn a_chain_too_long_to_walk_is_still_judged_by_source() {
    let source = ip("2001:db8:1:2::7");
    let frame = Frame::syn(source, 443).extensions(&[60; 7]).build();
    let plane = Plane::new();
    assert_eq!(plane.send(&frame), Reason::ExtDepth);
    assert_eq!(plane.row(plane.tracked(source)).unwrap().syns, 0);
    plane.set("2001:db8:1:2::/64", Action::Deny);
    assert_eq!(plane.send(&frame), Reason::Deny);
}

#[test]
fn a_later_fragment_has_no_ports_to_read() {
    let source = ip("192.0.2.7");
    let plane = Plane::new();
    let mut frame = Frame::syn(source, 443).build();
    frame[20] = 0x00;
    frame[21] = 0x10;
    assert_eq!(plane.send(&frame), Reason::FragmentLater);
    assert_eq!(plane.row(plane.tracked(source)).unwrap().syns, 0);
}
