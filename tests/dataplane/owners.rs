use kernloom::dataplane::{Action, Owner, Reason, Rule};

use super::{Plane, families, ip};

fn rule(action: Action, owner: Owner) -> Rule {
    Rule {
        action,
        owner,
        expires: None,
    }
}

/// Exact, narrower and wider, in both families: an automatic rule yields to any allow.
#[test]
fn no_automatic_rule_overrules_an_allow_however_wide() {
    for (source, automatic, allowed) in [
        ("192.0.2.7", "192.0.2.7", "192.0.0.0/16"),
        ("192.0.2.7", "192.0.2.0/28", "192.0.2.0/24"),
        ("192.0.2.7", "192.0.2.0/28", "0.0.0.0/0"),
        ("2001:db8:1:2::7", "2001:db8:1:2::/64", "2001:db8::/32"),
        ("2001:db8:1:2::7", "2001:db8:1:2::7", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::7", "2001:db8:1::/48", "2001:db8::/32"),
    ] {
        for owner in [Owner::Iq, Owner::Feed] {
            let plane = Plane::new();
            plane.rule(automatic, rule(Action::Deny, owner));
            assert_eq!(
                plane.syn(ip(source)),
                Reason::Deny,
                "{automatic} by {owner}"
            );
            plane.rule(allowed, rule(Action::Allow, Owner::Operator));
            assert_eq!(
                plane.syn(ip(source)),
                Reason::Allow,
                "{automatic} in {allowed}"
            );
            plane.rule(automatic, rule(Action::Deny, Owner::Operator));
            assert_eq!(
                plane.syn(ip(source)),
                Reason::Deny,
                "the operator's own, longer"
            );
        }
    }
}

#[test]
fn an_automatic_rule_does_not_reach_past_an_operators_deny_to_an_allow() {
    let plane = Plane::new();
    plane.rule("192.0.2.0/28", rule(Action::Deny, Owner::Feed));
    plane.rule("192.0.2.0/24", rule(Action::Deny, Owner::Operator));
    plane.rule("192.0.0.0/16", rule(Action::Allow, Owner::Operator));
    assert_eq!(plane.syn(ip("192.0.2.7")), Reason::Deny);
}

#[test]
fn management_addresses_survive_every_wider_rule() {
    for (source, wide) in families().into_iter().zip(["0.0.0.0/0", "::/0"]) {
        let plane = Plane::new();
        let host = kernloom::model::Source::host(source).to_string();
        plane.rule(&host, rule(Action::Allow, Owner::Management));
        plane.rule(wide, rule(Action::Deny, Owner::Operator));
        assert_eq!(plane.syn(source), Reason::Allow);
        let tracked = plane.tracked(source).to_string();
        if tracked != host {
            plane.rule(&tracked, rule(Action::Deny, Owner::Operator));
            assert_eq!(plane.syn(source), Reason::Allow, "{tracked}");
        }
    }
}

/// W10: one /64 was 2^64 fresh sources.
#[test]
fn w10_rotating_inside_a_64_changes_nothing() {
    let plane = Plane::new();
    let address = |n: u32| ip(&format!("2001:db8:1:2::{n:x}"));
    plane.set(
        "2001:db8:1:2::/64",
        super::limit(10, 10, kernloom::model::LimitScope::All),
    );
    let passed = (1..=1_000)
        .filter(|n| plane.syn(address(*n)) == Reason::WithinLimit)
        .count();
    assert_eq!(passed, 10);
    assert_eq!(plane.shield.counters().unwrap().sources, 1);
    plane.set("2001:db8:1:2::/64", Action::Deny);
    assert!((1..=1_000).all(|n| plane.syn(address(n)) == Reason::Deny));
}
