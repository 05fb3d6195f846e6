use kernloom::dataplane::{Action, Entry, Imported, LoadOptions, NoteId, Owner, Reason, Rule};
use kernloom::model::Source;

use super::{Plane, ip};

fn denied(owner: Owner) -> Rule {
    Rule {
        action: Action::Deny,
        owner,
        expires: None,
    }
}

fn list(owner: Owner, sources: &[&str]) -> Vec<(Source, Rule, NoteId)> {
    sources
        .iter()
        .map(|source| (source.parse().unwrap(), denied(owner), NoteId::default()))
        .collect()
}

fn import(plane: &Plane, rules: &[(Source, Rule, NoteId)]) -> Result<Imported, String> {
    let mut edit = plane.shield.edit(&plane.lock);
    edit.import(rules, |_| ())
        .map_err(|error| error.to_string())
}

#[test]
fn a_list_of_every_kind_of_source_takes_effect() {
    let plane = Plane::new();
    let rules = list(
        Owner::Operator,
        &[
            "192.0.2.7",
            "198.51.100.0/24",
            "2001:db8:1::/48",
            "2001:db8:2:2::/64",
            "2001:db8:3:3::bad",
        ],
    );
    let done = import(&plane, &rules).unwrap();
    assert_eq!((done.added, done.changed, done.kept), (5, 0, 0));
    for source in [
        "192.0.2.7",
        "198.51.100.9",
        "2001:db8:1:9::9",
        "2001:db8:2:2::9",
        "2001:db8:3:3::bad",
    ] {
        assert_eq!(plane.syn(ip(source)), Reason::Deny, "{source}");
    }
    for source in ["192.0.2.8", "2001:db8:3:3::900d"] {
        assert_eq!(plane.syn(ip(source)), Reason::Pass, "{source}");
    }
    let again = import(&plane, &rules).unwrap();
    assert_eq!((again.added, again.changed), (0, 5));
    for (source, ..) in rules {
        assert!(plane.remove(&source.to_string()).is_some(), "{source}");
    }
    assert_eq!(plane.shield.entries().unwrap(), []);
    assert_eq!(plane.syn(ip("2001:db8:3:3::bad")), Reason::Pass);
}

#[test]
fn a_feed_leaves_an_operators_entries_alone() {
    let plane = Plane::new();
    plane.set("192.0.2.7", Action::Allow);
    let done = import(&plane, &list(Owner::Feed, &["192.0.2.7", "192.0.2.8"])).unwrap();
    assert_eq!((done.added, done.changed, done.kept), (1, 0, 1));
    assert_eq!(plane.syn(ip("192.0.2.7")), Reason::Allow);
    assert_eq!(plane.syn(ip("192.0.2.8")), Reason::Deny);
}

/// The process ends in the middle: `at` so many entries written.
fn cut_off(plane: &Plane, rules: &[(Source, Rule, NoteId)], at: usize) {
    let dies = std::panic::AssertUnwindSafe(|| {
        let mut edit = plane.shield.edit(&plane.lock);
        edit.import(rules, |written| assert!(written < at, "cut off"))
    });
    std::panic::catch_unwind(dies).unwrap_err();
}

fn hosts(count: u32) -> Vec<(Source, Rule, NoteId)> {
    (0..count)
        .map(|n| {
            let host = Source::host(std::net::Ipv4Addr::from(0x0a00_0000 + n).into());
            (host, denied(Owner::Feed), NoteId::default())
        })
        .collect()
}

#[test]
fn of_a_list_that_is_cut_off_nothing_counts() {
    let plane = Plane::new();
    plane.set("192.0.2.7", Action::Deny);
    plane.set("2001:db8:1:1::/64", Action::Deny);
    let mut rules = hosts(10_000);
    rules.extend(list(
        Owner::Operator,
        &["10.0.0.0/8", "2001:db8:1::/48", "2001:db8:1:1::7"],
    ));
    cut_off(&plane, &rules, 8_000);
    for source in ["10.0.0.1", "10.0.31.1", "10.9.9.9", "2001:db8:1:2::7"] {
        assert_eq!(plane.syn(ip(source)), Reason::Pass, "{source}");
    }
    assert_eq!(plane.syn(ip("192.0.2.7")), Reason::Deny);
    assert_eq!(plane.syn(ip("2001:db8:1:1::7")), Reason::Deny);
    assert_eq!(plane.shield.entries().unwrap().len(), 2);
    // Whoever changes anything next tidies up.
    plane.set("192.0.2.8", Action::Deny);
    assert_eq!(plane.shield.entries().unwrap().len(), 3);
    assert_eq!(plane.syn(ip("10.0.0.1")), Reason::Pass);
    let done = import(&plane, &rules).unwrap();
    assert_eq!((done.added, done.changed, done.kept), (10_003, 0, 0));
    for source in ["10.0.0.1", "10.9.9.9", "2001:db8:1:2::7"] {
        assert_eq!(plane.syn(ip(source)), Reason::Deny, "{source}");
    }
}

#[test]
fn of_a_list_that_is_cut_off_later_everything_counts() {
    let plane = Plane::new();
    let old = hosts(6_000);
    import(&plane, &old).unwrap();
    // The same once more, and others before them.
    let mut rules = list(Owner::Operator, &["9.0.0.1", "9.1.0.0/16"]);
    rules.extend(old);
    cut_off(&plane, &rules, 6_000);
    for source in ["9.0.0.1", "9.1.2.3", "10.0.0.1", "10.0.20.1"] {
        assert_eq!(plane.syn(ip(source)), Reason::Deny, "{source}");
    }
    assert_eq!(plane.shield.entries().unwrap().len(), 6_002);
    // What it left behind does not go with the next list that is cut off.
    cut_off(&plane, &list(Owner::Operator, &["8.0.0.1"]), 1);
    assert_eq!(plane.syn(ip("9.0.0.1")), Reason::Deny);
    assert_eq!(plane.syn(ip("8.0.0.1")), Reason::Pass);
    assert_eq!(plane.shield.entries().unwrap().len(), 6_002);
}

/// W16: a full map was ignored, and what did not fit was believed enforced.
#[test]
fn w16_a_list_that_does_not_fit_changes_nothing_and_says_so() {
    let plane = Plane::with(LoadOptions {
        max_deny: 16,
        ..LoadOptions::default()
    });
    plane.set("192.0.2.1", Action::Allow);
    plane.set("198.51.100.0/24", Action::Deny);
    let before = plane.shield.entries().unwrap();
    let mut rules = list(
        Owner::Operator,
        &["192.0.2.1", "2001:db8::/32", "2001:db8:3:3::bad"],
    );
    rules.extend((2..16).map(|host| {
        let source = format!("192.0.2.{host}").parse().unwrap();
        (source, denied(Owner::Operator), NoteId::default())
    }));
    assert_eq!(
        import(&plane, &rules).unwrap_err(),
        "no room for 16 new entries: 2 of 16 policy entries are taken; nothing was changed; make room with \
         'kernloom shield upgrade --max-deny 19'"
    );
    assert_eq!(plane.shield.entries().unwrap(), before);
    assert_eq!(plane.syn(ip("192.0.2.1")), Reason::Allow);
    assert_eq!(plane.syn(ip("2001:db8::1")), Reason::Pass);
}

#[test]
fn what_has_ended_gives_way_to_a_list() {
    let mut plane = Plane::with(LoadOptions {
        max_deny: 16,
        ..LoadOptions::default()
    });
    let expires = Some(plane.now + std::time::Duration::from_secs(1));
    for host in 0..16 {
        let rule = Rule {
            expires,
            ..denied(Owner::Iq)
        };
        plane.rule(&format!("192.0.2.{host}"), rule);
    }
    plane.pass_time(std::time::Duration::from_secs(2));
    let done = import(
        &plane,
        &list(Owner::Operator, &["198.51.100.1", "198.51.100.2"]),
    )
    .unwrap();
    assert_eq!(done.added, 2);
    assert_eq!(plane.shield.entries().unwrap().len(), 2);
}

#[test]
fn reasons_are_kept_once_and_read_back() {
    let plane = Plane::new();
    let mut edit = plane.shield.edit(&plane.lock);
    let scanner = edit.note("scanner").unwrap();
    assert_eq!(edit.note("scanner").unwrap(), scanner);
    assert_ne!(edit.note("spam").unwrap(), scanner);
    edit.set_noted(
        &"192.0.2.7".parse().unwrap(),
        &denied(Owner::Operator),
        scanner,
    )
    .unwrap();
    let long = "x".repeat(65);
    assert_eq!(
        edit.note(&long).unwrap_err().to_string(),
        format!("the reason '{long}' is no line of at most 64 bytes")
    );
    drop(edit);
    let notes = plane.shield.notes().unwrap();
    let texts: Vec<&str> = plane
        .shield
        .entries()
        .unwrap()
        .iter()
        .map(|entry: &Entry| notes.text(entry.note))
        .collect();
    assert_eq!(texts, ["scanner"]);
}

#[test]
fn a_million_entries_take_effect_and_go() {
    let plane = Plane::with(LoadOptions {
        max_deny: 1_100_000,
        ..LoadOptions::default()
    });
    let host = |n: u32| Source::host(std::net::Ipv4Addr::from(0x0a00_0000 + n).into());
    let rules: Vec<_> = (0..1_000_000)
        .map(|n| (host(n), denied(Owner::Feed), NoteId::default()))
        .collect();
    let told = std::cell::Cell::new(0);
    let mut edit = plane.shield.edit(&plane.lock);
    let done = edit.import(&rules, |written| told.set(written)).unwrap();
    drop(edit);
    assert_eq!((done.added, told.get()), (1_000_000, 1_000_000));
    for n in [0, 1, 65_535, 999_999] {
        assert_eq!(plane.syn(host(n).ip()), Reason::Deny);
    }
    assert_eq!(plane.syn(host(1_000_000).ip()), Reason::Pass);
    assert_eq!(plane.shield.entries().unwrap().len(), 1_000_000);
}

/// W47: 360 MB where 97 MB were promised.
#[test]
fn w47_the_tables_take_the_memory_that_was_predicted() {
    for (sources, max_deny, most) in [(131_072, 131_072, 16 << 20), (16_384, 8_192, 8 << 20)] {
        let options = LoadOptions {
            sources,
            max_deny,
            ..LoadOptions::default()
        };
        let plane = Plane::with(options);
        let (loaded, full) = kernloom::dataplane::predicted_memory(&options).unwrap();
        let empty = plane.shield.memory().unwrap();
        assert!(empty <= loaded && loaded <= most, "{empty} of {loaded}");
        let rules: Vec<_> = (0..max_deny / 2)
            .flat_map(|n| [(n << 8, 24), ((n << 8) + 1, 32)])
            .map(|(address, bits)| {
                let octets = std::net::Ipv4Addr::from(0x0a00_0000 + address)
                    .to_ipv6_mapped()
                    .octets();
                let source = Source::containing(octets, bits + 96);
                (source, denied(Owner::Feed), NoteId::default())
            })
            .collect();
        import(&plane, &rules).unwrap();
        let held = plane.shield.memory().unwrap();
        assert!(held <= full, "{held} of {full}");
        if sources == 16_384 {
            assert!(full <= most, "{full}: full, and still in 8 MB");
        }
    }
}

/// W54: counters of several CPUs were added up with losses.
#[test]
fn w54_counters_lose_nothing_between_cpus() {
    let plane = Plane::new();
    let cpus = libbpf_rs::num_possible_cpus().unwrap();
    std::thread::scope(|scope| {
        for cpu in 0..cpus {
            let shield = &plane.shield;
            scope.spawn(move || {
                let mut set = nix::sched::CpuSet::new();
                set.set(cpu).unwrap();
                nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &set).unwrap();
                for family in super::families() {
                    let frame = crate::packet::Frame::syn(family, 443).build();
                    for _ in 0..10 {
                        shield.test_run(&frame, 50_000).unwrap();
                    }
                }
            });
        }
    });
    let sent = 1_000_000 * cpus as u64;
    assert_eq!(plane.shield.counters().unwrap().of(Reason::Pass), sent);
    let rows = plane.shield.sources().unwrap();
    let packets = rows.rows().map(|row| u64::from(row.packets));
    assert_eq!(packets.sum::<u64>(), sent);
}
