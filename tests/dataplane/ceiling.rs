use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use kernloom::dataplane::{Action, LoadOptions, Owner, Reason, Shield};
use kernloom::model::{ByteLimit, LimitScope};

use super::{Plane, families, ip, limit};
use crate::packet::{Frame, L4};

fn with_ceiling(action: Action) -> Plane {
    let plane = Plane::new();
    plane
        .shield
        .set_ceiling(Some(&action), &plane.lock)
        .unwrap();
    plane
}

/// Sends evenly spaced packets for so long; how many passed.
fn offer(plane: &mut Plane, frame: &[u8], pps: u32, seconds: u32) -> u32 {
    let start = plane.now;
    (0..pps * seconds)
        .map(|n| {
            let at = u64::from(n) * 1_000_000_000 / u64::from(pps);
            plane.at(start + Duration::from_nanos(at));
            u32::from(!plane.send(frame).drops())
        })
        .sum()
}

fn ceilings(plane: &Plane) -> usize {
    let entries = plane.shield.entries().unwrap();
    entries
        .iter()
        .filter(|entry| entry.rule.owner == Owner::Ceiling)
        .count()
}

#[test]
fn a_source_above_the_default_limit_gets_the_limit_and_an_entry_of_its_own() {
    for source in families() {
        let mut plane = with_ceiling(limit(1_000, 100, LimitScope::All));
        let passed = offer(&mut plane, &Frame::ack(source, 443).build(), 5_000, 20);
        assert!((19_900..=20_200).contains(&passed), "{source}: {passed}");
        assert_eq!(ceilings(&plane), 1);
    }
}

#[test]
fn a_source_below_it_is_untouched_and_takes_no_room() {
    for source in families() {
        let mut plane = with_ceiling(limit(1_000, 100, LimitScope::All));
        // All on one CPU: its share of the count is what tells.
        let share = 1_000 / u32::try_from(libbpf_rs::num_possible_cpus().unwrap()).unwrap();
        let offered = share * 9 / 10;
        let passed = offer(&mut plane, &Frame::ack(source, 443).build(), offered, 10);
        assert_eq!(passed, offered * 10);
        assert_eq!(ceilings(&plane), 0);
    }
}

#[test]
fn the_entry_goes_when_the_source_has_calmed_down() {
    for source in families() {
        let mut plane = with_ceiling(limit(100, 10, LimitScope::All));
        let frame = Frame::ack(source, 443).build();
        offer(&mut plane, &frame, 2_000, 1);
        assert_eq!(ceilings(&plane), 1);
        plane.pass_time(Duration::from_secs(31));
        assert_eq!(plane.send(&frame), Reason::Pass);
        let now = plane.now;
        assert_eq!(plane.shield.edit(&plane.lock).collect(now).unwrap(), 1);
        assert_eq!(ceilings(&plane), 0);
    }
}

#[test]
fn only_what_opens_counts_where_only_that_is_limited() {
    for source in families() {
        let plane = with_ceiling(limit(1, 2, LimitScope::New));
        let data = Frame::ack(source, 443).build();
        assert!((0..100).all(|_| !plane.send(&data).drops()));
        let opened = (0..100).filter(|_| !plane.syn(source).drops()).count();
        assert!((1..=3).contains(&opened), "{opened}");
        let ping = Frame::new(source, L4::IcmpEcho).build();
        assert_eq!(plane.send(&ping), Reason::Limit);
        assert!(!plane.send(&data).drops());
    }
}

/// More sources than the source table holds: who is replaced before its window is over does not
/// begin anew with every packet.
#[test]
fn w15_sources_that_the_table_cannot_hold_keep_to_the_default_limit() {
    for (pps, burst, most) in [(10, 10, 300 * (10 + 10 * 5)), (1, 1, 300 * (1 + 5))] {
        let mut plane = Plane::with(LoadOptions {
            sources: 64,
            ..LoadOptions::default()
        });
        let action = limit(pps, burst, LimitScope::All);
        let lock = &plane.lock;
        plane.shield.set_ceiling(Some(&action), lock).unwrap();
        let frames: Vec<_> = (0..300)
            .map(|n| Frame::ack(Ipv4Addr::from(0x0a00_0000 + n).into(), 443).build())
            .collect();
        let mut passed = 0;
        // 40 packets a second from each, for 5 seconds.
        for _ in 0..200 {
            plane.pass_time(Duration::from_millis(25));
            passed += frames
                .iter()
                .filter(|frame| !plane.send(frame).drops())
                .count();
        }
        assert!(passed * 10 <= most * 11, "{passed} passed, {most} may");
        // Nor is anybody cut off.
        assert!(passed * 10 >= most * 8, "{passed} passed, {most} may");
    }
}

/// W15: state for so many sources, and every further one passed.
#[test]
fn w15_no_number_of_sources_gets_around_the_default_limit() {
    let mut plane = Plane::with(LoadOptions {
        max_deny: 64,
        ..LoadOptions::default()
    });
    let action = limit(10, 10, LimitScope::All);
    plane
        .shield
        .set_ceiling(Some(&action), &plane.lock)
        .unwrap();
    let source = |n: u32| IpAddr::from(Ipv4Addr::from(0x0a00_0000 + n));
    let frames: Vec<_> = (0..2_000)
        .map(|n| Frame::ack(source(n), 443).build())
        .collect();
    let mut passed = vec![0; frames.len()];
    // 20 packets a second from each, for 5 seconds.
    for _ in 0..100 {
        plane.pass_time(Duration::from_millis(50));
        for (frame, passed) in frames.iter().zip(&mut passed) {
            *passed += u32::from(!plane.send(frame).drops());
        }
    }
    assert_eq!(ceilings(&plane), 64, "the table is full");
    // 10 a second for 5 s and 10 at once; the start of a window may grant a share of a burst more.
    let worst = passed.iter().max().unwrap();
    assert!(*worst <= 65, "{worst} of 100 passed");
    // An operator's rule finds room all the same.
    plane.set("198.51.100.7", Action::Deny);
    assert_eq!(plane.syn(ip("198.51.100.7")), Reason::Deny);
}

#[test]
fn a_limit_in_bytes_passes_its_bytes() {
    for source in families() {
        let limit = ByteLimit {
            bytes: 125_000.try_into().unwrap(),
            burst: 10_000.try_into().unwrap(),
        };
        let action = Action::LimitBytes {
            limit,
            scope: LimitScope::All,
        };
        for by_default in [false, true] {
            let mut plane = Plane::new();
            if by_default {
                plane
                    .shield
                    .set_ceiling(Some(&action), &plane.lock)
                    .unwrap();
            } else {
                plane.set(&plane.tracked(source).to_string(), action);
            }
            let frame = Frame::new(
                source,
                L4::Raw {
                    proto: 132,
                    payload: &[0; 1_000],
                },
            )
            .build();
            let passed = offer(&mut plane, &frame, 500, 20) as usize * frame.len();
            let expected = 125_000 * 20;
            assert!(
                (expected * 99 / 100..=expected * 101 / 100 + 20_000).contains(&passed),
                "{source}: {passed} of {expected}"
            );
        }
    }
}

#[test]
fn changing_the_default_limit_starts_promoted_sources_over() {
    let plane = with_ceiling(limit(1, 1, LimitScope::All));
    let source = ip("192.0.2.7");
    while !plane.syn(source).drops() {}
    assert_eq!(ceilings(&plane), 1);
    plane.shield.set_ceiling(None, &plane.lock).unwrap();
    assert_eq!(ceilings(&plane), 0);
    assert_eq!(plane.shield.ceiling(), None);
    assert!((0..100).all(|_| plane.syn(source) == Reason::Pass));
}

/// W50: rl-set-ip 0/0 could not exempt an address from the default limit; allow prefixes could
/// not be removed, prefixes not denied.
#[test]
fn w50_prefixes_are_denied_removed_and_exempt_from_the_default_limit() {
    for (source, prefix) in families()
        .into_iter()
        .zip(["192.0.2.0/24", "2001:db8:1::/48"])
    {
        let plane = with_ceiling(limit(1, 1, LimitScope::All));
        plane.set(prefix, Action::Allow);
        assert!((0..100).all(|_| plane.syn(source) == Reason::Allow));
        assert!(plane.remove(prefix).is_some());
        assert!((0..100).any(|_| plane.syn(source) == Reason::Limit));
        plane.set(prefix, Action::Deny);
        // The entry the program made is automatic, but no allow: the exact one decides until
        // it ends; the operator's deny holds for everybody else in the prefix at once.
        let neighbour = ip(if source.is_ipv4() {
            "192.0.2.8"
        } else {
            "2001:db8:1:3::8"
        });
        assert_eq!(plane.syn(neighbour), Reason::Deny);
    }
}

/// Two CPUs at once, on the machine's own clock. What passes from refusal to refusal is what the rate
/// gave, to the packet; a CPU that others keep from sending may be away for five seconds before the
/// bucket overflows.
#[test]
fn a_limit_is_exact_across_cpus() {
    let source = ip("192.0.2.7");
    let shield = Shield::load(&LoadOptions::default()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let lock = kernloom::dataplane::PinDir::new(dir.path()).lock().unwrap();
    let (rate, burst) = (20_000u32, 100_000u32);
    let rule = kernloom::dataplane::Rule {
        action: limit(rate, burst, LimitScope::All),
        owner: Owner::Operator,
        expires: None,
    };
    let frame = Frame::ack(source, 443).build();
    shield
        .edit(&lock)
        .set(&kernloom::model::Source::host(source), &rule)
        .unwrap();
    let clock = || kernloom::runtime::now().unwrap();
    let empty = || shield.test_run(&frame, 2 * burst).unwrap();
    let passed = || shield.counters().unwrap().of(Reason::WithinLimit);
    let before = clock();
    empty();
    let (first, already) = (clock(), passed());
    let send = &|cpu: usize| {
        let mut set = nix::sched::CpuSet::new();
        set.set(cpu).unwrap();
        nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &set).unwrap();
        while clock().since(before) < Duration::from_secs(3) {
            empty();
        }
    };
    std::thread::scope(|scope| {
        let cpus = libbpf_rs::num_possible_cpus().unwrap().min(2);
        for cpu in 0..cpus {
            scope.spawn(move || send(cpu));
        }
    });
    // A refused source waits for the jiffy to be over, and that comes late where the hypervisor
    // keeps the CPU that counts them. Who passes is past it: what was due by then passes now.
    let asked = loop {
        let asked = clock();
        if !shield.test_run(&frame, 1).unwrap().dropped {
            break asked;
        }
    };
    empty();
    let end = clock();
    let given =
        |span: Duration| u64::try_from(span.as_nanos()).unwrap() * u64::from(rate) / 1_000_000_000;
    // What another CPU had taken by then and not used is a lease each.
    let leases = 8 * u64::try_from(libbpf_rs::num_possible_cpus().unwrap()).unwrap();
    let least = already + given(asked.since(first)) - leases;
    let most = u64::from(burst) + given(end.since(before)) + 1;
    let passed = passed();
    assert!(
        (least..=most).contains(&passed),
        "{passed} passed, {least} to {most} were due"
    );
}
