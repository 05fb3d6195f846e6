use kernloom::dataplane::What;
use kernloom::telemetry::linear_count;

use super::{Plane, families};
use crate::packet::{ACK, Frame, L4, SYN};

#[test]
fn distinct_ports_are_estimated_not_port_changes() {
    for source in families() {
        let plane = Plane::new();
        for n in 0..200 {
            plane.send(&Frame::syn(source, 80 + n % 2 * 363).build());
        }
        let row = plane.row(plane.tracked(source)).unwrap();
        assert!(linear_count(row.ports) <= 2, "{}", linear_count(row.ports));
    }
}

#[test]
fn a_scan_of_forty_ports_is_estimated_within_linear_countings_error() {
    for source in families() {
        let plane = Plane::new();
        for port in 1..=40 {
            plane.send(&Frame::syn(source, port).build());
        }
        let estimate = linear_count(plane.row(plane.tracked(source)).unwrap().ports);
        // 30 of 64 bits are expected, give or take 2.4; 19 would be a chance of one in 100 000.
        assert!((23..=63).contains(&estimate), "{estimate}");
    }
}

#[test]
fn only_what_opens_counts_as_a_port() {
    for source in families() {
        let plane = Plane::new();
        for port in 1_024..1_200 {
            plane.send(&Frame::ack(source, port).build());
            plane.send(
                &Frame::new(
                    source,
                    L4::Tcp {
                        sport: 80,
                        dport: port,
                        flags: SYN | ACK,
                    },
                )
                .build(),
            );
            plane.send(&Frame::udp(source, 53, port).build());
        }
        let row = plane.row(plane.tracked(source)).unwrap();
        assert_eq!((row.ports, row.syns), (0, 0));
    }
}

/// A slow scan by these shows in nothing else.
#[test]
fn what_has_neither_ack_nor_rst_tries_a_port_and_opens_nothing() {
    let [fin, rst, push, urgent] = [1, 4, 8, 32];
    for source in families() {
        for (flags, counts) in [
            (fin, true),
            (0, true),
            (fin | push | urgent, true),
            (fin | ACK, false),
            (rst, false),
            (rst | ACK, false),
        ] {
            let plane = Plane::new();
            let l4 = L4::Tcp {
                sport: 40_000,
                dport: 443,
                flags,
            };
            plane.send(&Frame::new(source, l4).build());
            let row = plane.row(plane.tracked(source)).unwrap();
            let seen = (row.ports.count_ones(), row.stacks, row.syns);
            assert_eq!(seen, (u32::from(counts), 0, 0), "{flags:#x}");
        }
    }
}

#[test]
fn ecn_bits_make_a_syn_no_less_a_syn() {
    for source in families() {
        let plane = Plane::new();
        let flags = SYN | 0xc0;
        plane.send(
            &Frame::new(
                source,
                L4::Tcp {
                    sport: 40_000,
                    dport: 443,
                    flags,
                },
            )
            .build(),
        );
        assert_eq!(plane.row(plane.tracked(source)).unwrap().syns, 1);
    }
}

#[test]
fn taking_a_reading_starts_the_sketches_anew() {
    for source in families() {
        let plane = Plane::new();
        plane.syn(source);
        let table = plane.shield.sources().unwrap();
        let taken = (0..table.shape().entries()).filter_map(|at| table.take(at));
        let bits = taken.map(|row| row.ports.count_ones() + row.stacks.count_ones());
        assert_eq!(bits.sum::<u32>(), 2);
        let row = plane.row(plane.tracked(source)).unwrap();
        assert_eq!((row.ports, row.stacks, row.packets), (0, 0, 1));
    }
}

#[test]
fn different_stacks_behind_one_address_show() {
    for source in families() {
        // Under one secret three stacks may share a bit; under four they hardly ever all do.
        let seen: Vec<u32> = (0..4)
            .map(|_| {
                let plane = Plane::new();
                for ttl in [60, 124, 250] {
                    plane.send(&Frame::syn(source, 443).ttl(ttl).build());
                    plane.send(&Frame::syn(source, 443).ttl(ttl).build());
                }
                plane
                    .row(plane.tracked(source))
                    .unwrap()
                    .stacks
                    .count_ones()
            })
            .collect();
        assert!(seen.iter().all(|ones| (1..=3).contains(ones)), "{seen:?}");
        assert!(seen.iter().sum::<u32>() >= 8, "{seen:?}");
    }
}

#[test]
fn crossing_the_alert_bound_raises_one_event() {
    let plane = Plane::new();
    plane.shield.set_port_alert(10);
    let events = plane.shield.events().unwrap().unwrap();
    for source in families() {
        for port in 1..=100 {
            plane.send(&Frame::syn(source, port).build());
        }
        let raised = events.drain();
        assert_eq!(raised.len(), 1, "{raised:?}");
        assert_eq!(
            (raised[0].source, raised[0].what, raised[0].time),
            (plane.tracked(source), What::Ports(10), plane.now)
        );
    }
}
