use kernloom::dataplane::{Action, AllowOnly, Reason};
use kernloom::model::LimitScope;

use super::{Plane, families, ip, limit};
use crate::packet::Frame;

#[test]
fn a_question_is_answered_as_the_packet_would_be() {
    for (source, wide) in families()
        .into_iter()
        .zip(["192.0.0.0/16", "2001:db8::/32"])
    {
        let plane = Plane::new();
        let ask = || {
            let answer = plane
                .shield
                .probe(&Frame::syn(source, 443).build(), &plane.lock)
                .unwrap();
            assert_eq!(answer.dropped, answer.reason.drops());
            (answer.reason, answer.decided_by)
        };
        let own = plane.tracked(source);
        let wide_bits = wide.parse::<kernloom::model::Source>().unwrap().bits();
        assert_eq!(ask(), (Reason::Pass, None));
        plane.set(wide, Action::Deny);
        assert_eq!(ask(), (Reason::Deny, Some(wide_bits)));
        plane.set(&own.to_string(), Action::Allow);
        assert_eq!(ask(), (Reason::Allow, Some(own.bits())));
        plane.set(&own.to_string(), limit(1, 1, LimitScope::All));
        assert_eq!(ask(), (Reason::WithinLimit, Some(own.bits())));
        plane.syn(source);
        assert_eq!(ask(), (Reason::Limit, Some(own.bits())));
        plane.remove(&own.to_string());
        plane.remove(wide);
        plane.shield.set_allow_only(AllowOnly::On, &plane.lock);
        assert_eq!(ask(), (Reason::NotAllowed, None));
    }
}

#[test]
fn a_question_leaves_no_trace() {
    let plane = Plane::new();
    plane.shield.set_port_alert(1);
    let action = limit(1, 1, LimitScope::All);
    plane
        .shield
        .set_ceiling(Some(&action), &plane.lock)
        .unwrap();
    plane.set("192.0.2.9", action);
    let events = plane.shield.events().unwrap();
    let before = plane.shield.counters().unwrap();
    for source in ["192.0.2.7", "192.0.2.9"] {
        for _ in 0..10 {
            let frame = Frame::syn(ip(source), 443).build();
            let answer = plane.shield.probe(&frame, &plane.lock).unwrap();
            assert!(!answer.dropped, "asking used up the limit of {source}");
        }
    }
    assert_eq!(plane.shield.counters().unwrap(), before);
    assert_eq!(events.unwrap().drain(), []);
    assert_eq!(plane.shield.sources().unwrap().rows().count(), 0);
    assert_eq!(plane.shield.entries().unwrap().len(), 1);
}

/// A frame that happens to begin as a question once did is a packet like any other.
#[test]
fn nobody_can_send_a_question() {
    let plane = Plane::new();
    let frame = Frame::syn(ip("192.0.2.7"), 443).build();
    plane.shield.probe(&frame, &plane.lock).unwrap();
    for _ in 0..3 {
        plane.send(&frame);
    }
    assert_eq!(plane.shield.counters().unwrap().of(Reason::Pass), 3);
}
