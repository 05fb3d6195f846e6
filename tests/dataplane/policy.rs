use std::time::Duration;

use kernloom::dataplane::{Action, Owner, Reason, Rule};
use kernloom::model::LimitScope;

use super::{Plane, families, ip, limit};

#[test]
fn a_change_of_policy_meets_the_very_next_packet() {
    for source in families() {
        let plane = Plane::new();
        let name = plane.tracked(source).to_string();
        assert_eq!(plane.syn(source), Reason::Pass);
        plane.set(&name, Action::Deny);
        assert_eq!(plane.syn(source), Reason::Deny);
        plane.set(&name, limit(100, 1, LimitScope::All));
        assert_eq!(plane.syn(source), Reason::WithinLimit);
        plane.remove(&name);
        assert_eq!(plane.syn(source), Reason::Pass);
    }
}

#[test]
fn policy_ends_by_itself_without_any_daemon() {
    let mut plane = Plane::new();
    for source in families() {
        for action in [Action::Deny, limit(1, 1, LimitScope::All)] {
            let expires = Some(plane.now + Duration::from_secs(30));
            let name = plane.tracked(source).to_string();
            plane.rule(
                &name,
                Rule {
                    action,
                    owner: Owner::Iq,
                    expires,
                },
            );
            plane.syn(source);
            plane.pass_time(Duration::from_secs(29));
            plane.syn(source);
            assert!(
                plane.syn(source).drops(),
                "{action:?} one second before its end"
            );
            plane.pass_time(Duration::from_secs(1));
            assert_eq!(plane.syn(source), Reason::Pass, "{action:?} at its end");
        }
    }
}

/// A verdict that was cached just before the end is believed for 16 jiffies at most.
#[test]
fn a_cached_verdict_outlives_its_entry_by_16_jiffies_at_most() {
    for source in families() {
        let mut plane = Plane::new();
        let expires = Some(plane.now + Duration::from_millis(100));
        let name = plane.tracked(source).to_string();
        plane.rule(
            &name,
            Rule {
                action: Action::Deny,
                owner: Owner::Iq,
                expires,
            },
        );
        plane.pass_time(Duration::from_millis(99));
        assert_eq!(plane.syn(source), Reason::Deny);
        plane.pass_time(Duration::from_millis(15));
        assert_eq!(plane.syn(source), Reason::Deny);
        plane.pass_time(Duration::from_millis(1));
        assert_eq!(plane.syn(source), Reason::Pass);
    }
}

#[test]
fn the_longest_prefix_wins() {
    let plane = Plane::new();
    for (source, wide, narrow) in [
        ("192.0.2.7", "192.0.0.0/16", "192.0.2.0/24"),
        ("2001:db8:1:2::7", "2001:db8::/32", "2001:db8:1::/48"),
    ] {
        plane.set(wide, Action::Deny);
        assert_eq!(plane.syn(ip(source)), Reason::Deny);
        plane.set(narrow, Action::Allow);
        assert_eq!(plane.syn(ip(source)), Reason::Allow);
        plane.set(&plane.tracked(ip(source)).to_string(), Action::Deny);
        assert_eq!(plane.syn(ip(source)), Reason::Deny);
        plane.remove(&plane.tracked(ip(source)).to_string());
        plane.remove(narrow);
        assert_eq!(plane.syn(ip(source)), Reason::Deny);
        plane.remove(wide);
        assert_eq!(plane.syn(ip(source)), Reason::Pass);
    }
}

#[test]
fn an_ended_prefix_uncovers_the_wider_one() {
    let mut plane = Plane::new();
    plane.set("192.0.0.0/16", Action::Deny);
    let expires = Some(plane.now + Duration::from_secs(5));
    plane.rule(
        "192.0.2.0/24",
        Rule {
            action: Action::Allow,
            owner: Owner::Operator,
            expires,
        },
    );
    assert_eq!(plane.syn(ip("192.0.2.7")), Reason::Allow);
    plane.pass_time(Duration::from_secs(5));
    assert_eq!(plane.syn(ip("192.0.2.7")), Reason::Deny);
}

#[test]
fn everything_is_a_prefix_too() {
    let plane = Plane::new();
    plane.set("0.0.0.0/0", Action::Deny);
    let [v4, v6] = families();
    assert_eq!((plane.syn(v4), plane.syn(v6)), (Reason::Deny, Reason::Pass));
    plane.remove("0.0.0.0/0");
    // An IPv6 list that denies what is reserved around ::/8 must not cut off IPv4.
    for reserved in ["::/0", "::/8", "::/64"] {
        plane.set(reserved, Action::Deny);
    }
    assert_eq!((plane.syn(v4), plane.syn(v6)), (Reason::Pass, Reason::Deny));
}

#[test]
fn iq_never_overrules_an_operators_allow() {
    for (source, wide) in [
        ("192.0.2.7", "192.0.2.0/24"),
        ("2001:db8:1:2::7", "2001:db8::/32"),
    ] {
        let plane = Plane::new();
        plane.set(wide, Action::Allow);
        let name = plane.tracked(ip(source)).to_string();
        plane.rule(
            &name,
            Rule {
                action: Action::Deny,
                owner: Owner::Iq,
                expires: None,
            },
        );
        assert_eq!(plane.syn(ip(source)), Reason::Allow);
        plane.rule(
            &name,
            Rule {
                action: Action::Deny,
                owner: Owner::Operator,
                expires: None,
            },
        );
        assert_eq!(plane.syn(ip(source)), Reason::Deny);
    }
}

#[test]
fn one_address_inside_a_tracked_prefix_is_answered_exactly() {
    let plane = Plane::new();
    let (bad, good) = (ip("2001:db8:1:2::bad"), ip("2001:db8:1:2::900d"));
    assert_eq!(
        (plane.syn(bad), plane.syn(good)),
        (Reason::Pass, Reason::Pass)
    );
    plane.set("2001:db8:1:2::bad", Action::Deny);
    assert_eq!(
        (plane.syn(bad), plane.syn(good)),
        (Reason::Deny, Reason::Pass)
    );
    plane.set("2001:db8:1:2::/64", Action::Allow);
    assert_eq!(
        (plane.syn(bad), plane.syn(good)),
        (Reason::Deny, Reason::Allow)
    );
    plane.remove("2001:db8:1:2::/64");
    assert_eq!(
        (plane.syn(bad), plane.syn(good)),
        (Reason::Deny, Reason::Pass)
    );
    plane.remove("2001:db8:1:2::bad");
    assert_eq!(
        (plane.syn(bad), plane.syn(good)),
        (Reason::Pass, Reason::Pass)
    );
    assert_eq!(plane.shield.entries().unwrap(), []);
}

#[test]
fn entries_read_back_as_they_were_written() {
    let plane = Plane::new();
    let rules = [
        ("192.0.2.7", Action::Deny, Owner::Iq, Some(plane.now)),
        (
            "192.0.2.8",
            limit(700_000, 3, LimitScope::New),
            Owner::Operator,
            None,
        ),
        (
            "198.51.100.0/24",
            limit(7, 1_000, LimitScope::All),
            Owner::Iq,
            None,
        ),
        ("2001:db8::/48", Action::Allow, Owner::Operator, None),
        ("2001:db8::1", Action::Deny, Owner::Operator, None),
    ];
    for (source, action, owner, expires) in rules {
        plane.rule(
            source,
            Rule {
                action,
                owner,
                expires,
            },
        );
    }
    let entries = plane.shield.entries().unwrap();
    let read: Vec<_> = entries
        .iter()
        .map(|entry| {
            (
                entry.source.to_string(),
                entry.rule.action,
                entry.rule.owner,
                entry.rule.expires,
            )
        })
        .collect();
    let mut written =
        rules.map(|(source, action, owner, expires)| (source.to_owned(), action, owner, expires));
    written.sort_by_key(|(source, ..)| source.parse::<kernloom::model::Source>().unwrap());
    assert_eq!(read, written);
    for (source, ..) in rules {
        assert!(plane.remove(source).is_some());
        assert_eq!(plane.remove(source), None);
    }
    assert_eq!(plane.shield.entries().unwrap(), []);
}

#[test]
fn a_full_table_refuses_and_says_how_to_mend_it() {
    let plane = Plane::with(kernloom::dataplane::LoadOptions {
        max_deny: 16,
        ..Default::default()
    });
    for host in 0..16 {
        plane.set(&format!("192.0.2.{host}"), Action::Deny);
    }
    let rule = Rule {
        action: Action::Deny,
        owner: Owner::Operator,
        expires: None,
    };
    let error = plane
        .shield
        .edit(&plane.lock)
        .set(&"192.0.2.99".parse().unwrap(), &rule)
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "no room for 192.0.2.99: all 16 policy entries are taken; remove some, or attach anew with a larger --max-deny"
    );
    assert_eq!(plane.syn(ip("192.0.2.99")), Reason::Pass);
    assert_eq!(plane.syn(ip("192.0.2.15")), Reason::Deny);
}
