use std::net::Ipv6Addr;
use std::time::Duration;

use kernloom::dataplane::{Owner, Reason, Rule};
use kernloom::model::{Ktime, LimitScope};
use proptest::prelude::*;

use super::{Plane, families, ip, limit};
use crate::packet::Frame;

/// Sends evenly spaced packets for `seconds` of virtual time; how many passed.
fn offer(plane: &mut Plane, frame: &[u8], pps: u32, seconds: u32) -> u32 {
    let start = plane.now;
    let packets = pps * seconds;
    let gap = |n: u32| Duration::from_nanos(u64::from(n) * 1_000_000_000 / u64::from(pps));
    (0..packets)
        .map(|n| {
            plane.at(start + gap(n));
            u32::from(plane.send(frame) == Reason::WithinLimit)
        })
        .sum()
}

#[test]
fn twice_the_limit_passes_the_limit() {
    for source in families() {
        let mut plane = Plane::new();
        plane.set(
            &plane.tracked(source).to_string(),
            limit(1_000, 50, LimitScope::All),
        );
        let passed = offer(&mut plane, &Frame::syn(source, 443).build(), 2_000, 30);
        assert!((29_700..=30_300).contains(&passed), "{source}: {passed}");
    }
}

/// W9: the reference's bucket was a blackout one packet per second above the limit.
#[test]
fn w9_one_above_the_limit_passes_the_limit() {
    for source in families() {
        let mut plane = Plane::new();
        // With no burst at all a virtual-scheduling limiter refuses every second early packet;
        // two packets of tolerance are what evenly spaced traffic needs (I.371, annex A).
        plane.set(
            &plane.tracked(source).to_string(),
            limit(200, 2, LimitScope::All),
        );
        let passed = offer(&mut plane, &Frame::syn(source, 443).build(), 201, 30);
        assert!((5_940..=6_030).contains(&passed), "{source}: {passed}");
    }
}

#[test]
fn traffic_at_the_limit_is_untouched() {
    for source in families() {
        let mut plane = Plane::new();
        plane.set(
            &plane.tracked(source).to_string(),
            limit(200, 1, LimitScope::All),
        );
        assert_eq!(
            offer(&mut plane, &Frame::syn(source, 443).build(), 200, 10),
            2_000
        );
    }
}

#[test]
fn a_burst_passes_whole_and_no_larger() {
    for source in families() {
        let plane = Plane::new();
        plane.set(
            &plane.tracked(source).to_string(),
            limit(10, 25, LimitScope::All),
        );
        let passed = (0..100)
            .filter(|_| plane.syn(source) == Reason::WithinLimit)
            .count();
        assert_eq!(passed, 25);
    }
}

/// Taken several at once: what a CPU has left over is the only thing above the burst.
#[test]
fn a_large_burst_passes_whole_and_at_most_a_64th_larger() {
    for source in families() {
        let mut plane = Plane::new();
        let (pps, burst) = (1_000, 100_000);
        plane.set(
            &plane.tracked(source).to_string(),
            limit(pps, burst, LimitScope::All),
        );
        let frame = Frame::syn(source, 443).build();
        let within = |plane: &Plane| plane.shield.counters().unwrap().of(Reason::WithinLimit);
        plane.shield.test_run(&frame, 2 * burst).unwrap();
        assert_eq!(within(&plane), u64::from(burst));
        // One of 8 is used, and the bucket is full again when the source comes back.
        plane.pass_time(Duration::from_millis(8));
        plane.shield.test_run(&frame, 1).unwrap();
        plane.pass_time(Duration::from_hours(1));
        plane.shield.test_run(&frame, 2 * burst).unwrap();
        assert_eq!(within(&plane), u64::from(burst) + 1 + 7 + u64::from(burst));
    }
}

/// Until then it is dropped by jiffies first, then by the clock.
#[test]
fn what_is_held_passes_again_to_the_nanosecond() {
    for pps in [16, 100, 320, 800, 8_000] {
        let interval = Duration::from_secs(1) / pps;
        let mut plane = Plane::new();
        let source = ip("192.0.2.7");
        plane.set("192.0.2.7", limit(pps, 1, LimitScope::All));
        let frame = Frame::syn(source, 443).build();
        let mut conforms = plane.now;
        for packet in 0..200 {
            plane.at(conforms);
            assert_eq!(plane.send(&frame), Reason::WithinLimit, "{pps}: {packet}");
            // Wherever in a jiffy it was held, and however often since.
            let step = Duration::from_micros(61 + 13 * packet);
            let mut now = conforms + step;
            conforms = conforms + interval;
            while now < conforms {
                plane.at(now);
                assert_eq!(plane.send(&frame), Reason::Limit, "{pps}: {packet}");
                now = now + step;
            }
            plane.at(Ktime::from_nanos(conforms.as_nanos() - 1));
            assert_eq!(plane.send(&frame), Reason::Limit, "{pps}: {packet}");
        }
    }
}

/// Dropped without the clock until the jiffy is over, it is owed what conformed meanwhile: to the
/// packet as much as a bucket gives that is asked every nanosecond.
#[test]
fn who_waits_for_a_jiffy_loses_nothing() {
    for source in families() {
        for (pps, burst, spaced) in [(1_000, 3, 50), (8_000, 9, 13), (900_000, 2_000, 300)] {
            let mut plane = Plane::new();
            plane.set(
                &plane.tracked(source).to_string(),
                limit(pps, burst, LimitScope::All),
            );
            let frame = Frame::syn(source, 443).build();
            let within = |plane: &Plane| plane.shield.counters().unwrap().of(Reason::WithinLimit);
            let start = plane.now;
            // More than a bucket in every step, and steps that begin anywhere in a jiffy.
            for step in 0..200 {
                plane.at(start + Duration::from_micros(spaced * step));
                plane.shield.test_run(&frame, burst).unwrap();
            }
            let end = start + Duration::from_micros(spaced * 200).max(Duration::from_millis(1));
            plane.at(Ktime::from_nanos(
                end.as_nanos().next_multiple_of(1_000_000),
            ));
            plane.shield.test_run(&frame, 2 * burst).unwrap();
            let interval = 1_000_000_000_u64.div_ceil(pps.into());
            let due = u64::from(burst) + (plane.now.as_nanos() - start.as_nanos()) / interval;
            assert_eq!(within(&plane), due, "{source} {pps} {burst}");
        }
    }
}

#[test]
fn renewing_a_limit_is_no_fresh_burst() {
    for source in families() {
        let plane = Plane::new();
        let name = plane.tracked(source).to_string();
        let renew = || {
            let expires = Some(plane.now + Duration::from_secs(60));
            plane.rule(
                &name,
                Rule {
                    action: limit(10, 5, LimitScope::All),
                    owner: Owner::Iq,
                    expires,
                },
            );
        };
        renew();
        let passed = |n| {
            (0..n)
                .filter(|_| plane.syn(source) == Reason::WithinLimit)
                .count()
        };
        assert_eq!(passed(20), 5);
        renew();
        assert_eq!(passed(20), 0);
    }
}

#[test]
fn a_limited_prefix_shares_one_limit() {
    let plane = Plane::new();
    let within = |source| usize::from(plane.syn(source) == Reason::WithinLimit);
    plane.set("192.0.2.0/24", limit(10, 10, LimitScope::All));
    let passed: usize = (0..100u8)
        .map(|host| within([192, 0, 2, host].into()))
        .sum();
    assert_eq!(passed, 10);
    // Many tracked sources, a /64 each.
    plane.set("2001:db8:1::/48", limit(10, 10, LimitScope::All));
    let subnet = |n: u16| Ipv6Addr::new(0x2001, 0xdb8, 1, n, 0, 0, 0, 1);
    let passed: usize = (0..100).map(|n| within(subnet(n).into())).sum();
    assert_eq!(passed, 10);
    assert_eq!(
        plane.syn(ip("2001:db8:2::1")),
        Reason::Pass,
        "the next network"
    );
}

/// GCRA from ITU-T I.371, in whole nanoseconds, written without sight of the C code. From a large
/// burst 8 packets are taken at once where all of them conform. Refused shortly before it conforms, a
/// source waits for the next jiffy if its burst is longer than one.
struct Gcra {
    interval: u64,
    tolerance: u64,
    tat: u64,
    taken: u64,
    refused_in: Option<u64>,
}

impl Gcra {
    fn new(pps: u32, burst: u32) -> Self {
        let interval = 1_000_000_000u64.div_ceil(u64::from(pps));
        let tolerance = u64::from(burst - 1) * interval;
        Self {
            interval,
            tolerance,
            tat: 0,
            taken: 0,
            refused_in: None,
        }
    }

    fn admits(&mut self, now: u64) -> bool {
        if self.taken > 0 {
            self.taken -= 1;
            return true;
        }
        let jiffy = now / 1_000_000;
        if self.refused_in == Some(jiffy) {
            return false;
        }
        let latest = now + self.tolerance;
        if latest < self.tat {
            let soon = self.tat - latest < 1 << 20;
            self.refused_in = (soon && self.tolerance >= 1 << 20).then_some(jiffy);
            return false;
        }
        let first = self.tat.max(now);
        let cpus = u64::try_from(libbpf_rs::num_possible_cpus().unwrap()).unwrap();
        let large = self.tolerance / (8 * 64 * cpus.next_power_of_two()) >= self.interval;
        let several = large && first + 7 * self.interval <= latest;
        self.taken = if several { 7 } else { 0 };
        self.tat = first + (1 + self.taken) * self.interval;
        true
    }
}

/// Gaps on and around every boundary: random ones alone find no off-by-one.
fn gaps(interval: u64, burst: u64) -> impl Strategy<Value = u64> {
    let edges = vec![
        0,
        1,
        interval - 1,
        interval,
        interval + 1,
        interval / 2,
        interval * (burst - 1),
        interval * burst,
        interval * burst + 1,
        interval * burst * 9,
        16_000_000,
        65_536,
        5_000_000_000,
    ];
    prop_oneof![8 => prop::sample::select(edges), 1 => 0..interval * 3]
}

fn case() -> impl Strategy<Value = (u32, u32, Vec<u64>)> {
    (
        prop::sample::select(vec![1u32, 3, 20, 200, 3_000, 250_000]),
        prop::sample::select(vec![1u32, 2, 7, 400, 100_000]),
    )
        .prop_flat_map(|(pps, burst)| {
            let interval = 1_000_000_000u64.div_ceil(u64::from(pps));
            let gaps = prop::collection::vec(gaps(interval, u64::from(burst)), 1..200);
            (Just(pps), Just(burst), gaps)
        })
}

#[test]
fn the_limiter_matches_the_standard_packet_by_packet() {
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(24));
    runner
        .run(&case(), |(pps, burst, gaps)| {
            for source in families() {
                let mut plane = Plane::with(kernloom::dataplane::LoadOptions {
                    sources: 64,
                    ..Default::default()
                });
                plane.set(
                    &plane.tracked(source).to_string(),
                    limit(pps, burst, LimitScope::All),
                );
                let mut model = Gcra::new(pps, burst);
                // What a large bucket does near its end is what matters.
                let most = burst.saturating_sub(20).max(1);
                plane
                    .shield
                    .test_run(&Frame::syn(source, 443).build(), most)
                    .unwrap();
                let expected = (0..most).all(|_| model.admits(plane.now.as_nanos()));
                prop_assert!(expected, "below the burst");
                for (step, gap) in gaps.iter().enumerate() {
                    plane.pass_time(Duration::from_nanos(*gap));
                    let expected = model.admits(plane.now.as_nanos());
                    let passed = plane.syn(source) == Reason::WithinLimit;
                    prop_assert_eq!(passed, expected, "{} step {} gap {}", source, step, gap);
                }
            }
            Ok(())
        })
        .unwrap();
}
