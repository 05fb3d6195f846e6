//! What a freeze takes in, what the file says of denials, and groups that change between two freezes.

use std::collections::{BTreeMap, BTreeSet};

use super::super::{
    Direction, Edge, Freeze, FreezeFrom, Frozen, FrozenError, Groups, LeftOut, Peer, Record, State,
};
use super::{START, source};

fn edge(text: &str) -> Edge {
    let words: Vec<&str> = text.split(' ').collect();
    let [peer, arrow, service] = words[..] else {
        panic!("{text}")
    };
    let is_group = |name: &str| name.starts_with(|c: char| c.is_ascii_lowercase() && c != 'f');
    Edge {
        direction: if arrow == "->" {
            Direction::In
        } else {
            Direction::Out
        },
        peer: Peer::parse(peer, is_group).unwrap(),
        service: service.parse().unwrap(),
    }
}

fn groups(named: &[(&str, &str)]) -> Groups {
    let mut groups = Groups::new(vec![source("10.0.0.0/24")]);
    for (name, prefix) in named {
        groups.add(name, source(prefix)).unwrap();
    }
    groups
}

fn records(known: &[(&str, State)]) -> BTreeMap<Edge, Record> {
    let one = |(text, state): &(&str, State)| (edge(text), Record::new(*state, START, None));
    known.iter().map(one).collect()
}

fn try_freeze(
    before: Option<&Frozen>,
    configured: &[(&str, &str)],
    known: &[(&str, State)],
) -> Result<Freeze, FrozenError> {
    Frozen::freeze(FreezeFrom {
        node: "1f2e3d4c",
        now: START,
        only: BTreeSet::new(),
        groups: &groups(configured),
        records: &records(known),
        before,
    })
}

fn freeze(before: Option<&Frozen>, configured: &[(&str, &str)], known: &[(&str, State)]) -> Freeze {
    try_freeze(before, configured, known).unwrap()
}

/// What a frozen graph says, as its changes from none.
fn said(frozen: &Frozen) -> Vec<String> {
    let text = Frozen::default().changes_to(frozen);
    text.lines().map(|line| line[2..].to_owned()).collect()
}

const OFFICE: (&str, &str) = ("office", "10.55.0.0/26");
const DNS: (&str, &str) = ("dns", "192.0.2.0/24");

#[test]
fn denials_are_in_the_file_read_back_and_covered_by_its_hash() {
    let known = [
        ("10.0.0.5 -> tcp/443", State::Learned),
        ("office -> tcp/22", State::Denied),
        ("10.0.0.8 <- tcp/25", State::Denied),
    ];
    let frozen = freeze(None, &[OFFICE], &known).frozen;
    let text = frozen.to_text(None);
    assert!(
        text.ends_with(
            "edges:\n  - {direction: in, peer: \"10.0.0.5\", service: tcp/443}\ndenied:\n  \
             - {direction: in, peer: \"office\", service: tcp/22}\n  \
             - {direction: out, peer: \"10.0.0.8\", service: tcp/25}\n"
        ),
        "{text}"
    );
    assert_eq!(Frozen::from_text(&text).unwrap(), frozen);
    for (from, to) in [
        (
            "  - {direction: out, peer: \"10.0.0.8\", service: tcp/25}\n",
            "",
        ),
        ("10.0.0.8", "10.0.0.9"),
        ("direction: out", "direction: in"),
    ] {
        let edited = text.replace(from, to);
        assert_ne!(edited, text);
        let read = Frozen::from_text(&edited);
        assert!(matches!(read, Err(FrozenError::Hash { .. })), "{edited}");
    }
    let both = text
        .replace("\"10.0.0.5\"", "\"office\"")
        .replace("tcp/443", "tcp/22");
    assert_eq!(
        Frozen::from_edited(&both).unwrap_err().to_string(),
        "edge office -> tcp/22 is in 'edges' and in 'denied'; keep one of them"
    );
    assert!(frozen.check(64).is_ok());
    let wide = Frozen::from_edited(&text.replace("10.0.0.8", "10.0.0.0/24")).unwrap();
    assert!(wide.check(64).unwrap_err().to_string().contains("--group"));
}

/// As it was written before there were denials in it.
#[test]
fn a_file_without_denials_is_valid_and_says_nothing_of_them() {
    let text = "apiVersion: kernloom.io/v1alpha1\nkind: FrozenGraph\nmetadata:\n  node: \"n\"\n  \
                frozen: \"2026-11-23T12:00:00Z\"\n  \
                sha256: \"HASH\"\n\
                edges:\n  - {direction: in, peer: \"10.0.0.5\", service: tcp/443}\n";
    let read = Frozen::from_edited(text).unwrap();
    let text = text.replace("HASH", OLD_HASH);
    let old = Frozen::from_text(&text).unwrap();
    assert_eq!((&old, &old.denied), (&read, &None));
    let denied = edge("10.0.0.8 -> tcp/22");
    assert_eq!(old.state_of(&denied, State::Denied), Some(State::Denied));
    assert!(!old.to_text(Some(&text)).contains("denied"));
}

/// SHA-256 of "node n\nedge in 10.0.0.5 tcp/443\n".
const OLD_HASH: &str = "72551bf62e73554ff72e5817dc9cb37324ce47f350a076a8c8b2f427f0e18b56";

#[test]
fn comments_stay_with_denials_and_sections() {
    let known = [
        ("10.0.0.5 -> tcp/443", State::Learned),
        ("10.0.0.8 -> tcp/22", State::Denied),
    ];
    let mut frozen = freeze(None, &[OFFICE], &known).frozen;
    let text = frozen
        .to_text(None)
        .replace("groups:", "# who is who\ngroups:  # by team")
        .replace("edges:", "# who may\nedges:")
        .replace("denied:", "# who may not\ndenied:")
        .replace("service: tcp/22}", "service: tcp/22}  # ticket 17");
    assert_eq!(frozen.to_text(Some(&text)), text);
    // It follows the edge.
    frozen.put(&edge("10.0.0.8 -> tcp/22"), false);
    let text = frozen.to_text(Some(&text));
    assert!(
        text.ends_with("service: tcp/22}  # ticket 17\n# who may not\ndenied: []\n"),
        "{text}"
    );
    assert_eq!(Frozen::from_text(&text).unwrap(), frozen);
}

#[test]
fn the_file_says_what_state_an_edge_is_in() {
    let known = [
        ("10.0.0.5 -> tcp/443", State::Frozen),
        ("10.0.0.8 -> tcp/22", State::Denied),
    ];
    let frozen = freeze(None, &[], &known).frozen;
    let state = |text: &str, now| frozen.state_of(&edge(text), now);
    for now in State::ALL {
        assert_eq!(state("10.0.0.5 -> tcp/443", now), Some(State::Frozen));
        assert_eq!(state("10.0.0.8 -> tcp/22", now), Some(State::Denied));
    }
    // Taken out by hand; what was denied is neither denied nor allowed any more.
    assert_eq!(
        state("10.0.0.6 -> tcp/443", State::Frozen),
        Some(State::Removed)
    );
    assert_eq!(state("10.0.0.6 -> tcp/443", State::Denied), None);
    for now in [
        State::Candidate,
        State::Learned,
        State::Approved,
        State::Removed,
    ] {
        assert_eq!(state("10.0.0.6 -> tcp/443", now), Some(now));
    }
    // What the file does not speak of was not taken out of it.
    let only = Frozen {
        only: ["tcp/443".parse().unwrap()].into(),
        ..frozen
    };
    let state = |text: &str| only.state_of(&edge(text), State::Frozen);
    assert_eq!(state("10.0.0.6 -> tcp/22"), Some(State::Learned));
    assert_eq!(state("gone -> tcp/443"), Some(State::Learned));
    assert_eq!(state("10.0.0.6 -> tcp/443"), Some(State::Removed));
}

#[test]
fn what_was_taken_out_by_hand_stays_out_and_is_told() {
    let known = [
        ("10.0.0.5 -> tcp/443", State::Frozen),
        ("10.0.0.6 -> tcp/443", State::Removed),
    ];
    let made = freeze(None, &[], &known);
    assert_eq!(said(&made.frozen), ["10.0.0.5 -> tcp/443"]);
    let left = [(edge("10.0.0.6 -> tcp/443"), LeftOut::Removed)];
    assert_eq!(made.left_out, left);
}

#[test]
fn an_edge_of_a_group_that_nobody_defines_is_left_out_and_a_denial_is_not() {
    let known = [
        ("10.0.0.5 -> tcp/443", State::Frozen),
        ("office -> tcp/22", State::Learned),
    ];
    let made = freeze(None, &[], &known);
    assert_eq!(said(&made.frozen), ["10.0.0.5 -> tcp/443"]);
    let left = [(edge("office -> tcp/22"), LeftOut::NoGroup)];
    assert_eq!(made.left_out, left);
    let denied = [("office -> tcp/22", State::Denied)];
    assert_eq!(
        try_freeze(None, &[], &denied).unwrap_err().to_string(),
        "edge office -> tcp/22: its group is not defined; give --group office=PREFIX"
    );
}

#[test]
fn a_group_that_is_configured_no_more_stays_as_it_was_frozen_while_an_edge_names_it() {
    let known = [
        ("office -> tcp/22", State::Frozen),
        ("dns -> tcp/22", State::Denied),
    ];
    let before = freeze(None, &[OFFICE, DNS, ("idle", "10.9.0.0/16")], &known).frozen;
    let made = freeze(Some(&before), &[], &known);
    assert_eq!(made.kept, ["dns", "office"]);
    assert_eq!(
        said(&made.frozen),
        [
            "group dns: 192.0.2.0/24",
            "group office: 10.55.0.0/26",
            "office -> tcp/22",
            "denied dns -> tcp/22"
        ]
    );
}

#[test]
fn a_new_group_begins_with_the_edges_of_those_it_takes_members_out_of() {
    let known = [
        ("internet -> tcp/443", State::Frozen),
        ("internet <- udp/53", State::Frozen),
        ("internet -> tcp/25", State::Denied),
        ("10.0.0.5 -> tcp/22", State::Frozen),
        ("dns <- tcp/853", State::Learned),
    ];
    let before = freeze(None, &[], &known[..4]).frozen;
    let made = freeze(Some(&before), &[DNS], &known);
    let change = before.changes_to(&made.frozen);
    assert_eq!(
        change,
        "+ group dns: 192.0.2.0/24\n+ dns -> tcp/443\n+ dns <- tcp/853\n+ dns <- udp/53\n\
         + denied dns -> tcp/25\n"
    );
    // A freeze later it has its own, and what was taken out of those does not come back.
    let mut known = known.to_vec();
    known.push(("dns -> tcp/443", State::Removed));
    let mut edited = made.frozen.clone();
    edited.edges.remove(&edge("dns -> tcp/443"));
    let again = freeze(Some(&edited), &[DNS], &known).frozen;
    assert!(!again.edges.contains(&edge("dns -> tcp/443")));
    // What is private is nobody's member: its hosts have edges of their own.
    let private = freeze(Some(&before), &[OFFICE], &known[..4]).frozen;
    assert_eq!(
        before.changes_to(&private),
        "+ group office: 10.55.0.0/26\n"
    );
}

#[test]
fn what_was_decided_of_a_new_groups_edge_counts_more_than_where_it_comes_from() {
    let before = [
        ("internet -> tcp/443", State::Frozen),
        ("internet -> tcp/25", State::Denied),
    ];
    let decided = [
        ("dns -> tcp/443", State::Denied),
        ("dns -> tcp/25", State::Approved),
    ];
    let frozen = freeze(None, &[], &before).frozen;
    let known = [before, decided].concat();
    let made = freeze(Some(&frozen), &[DNS], &known).frozen;
    assert_eq!(
        frozen.changes_to(&made),
        "+ group dns: 192.0.2.0/24\n+ dns -> tcp/25\n+ denied dns -> tcp/443\n"
    );
}

#[test]
fn a_renamed_group_keeps_its_edges_under_the_new_name() {
    let known = [("office -> tcp/22", State::Frozen)];
    let before = freeze(None, &[OFFICE], &known).frozen;
    let made = freeze(Some(&before), &[("bureau", OFFICE.1)], &known);
    assert_eq!(
        before.changes_to(&made.frozen),
        "+ group bureau: 10.55.0.0/26\n- group office: 10.55.0.0/26\n+ bureau -> tcp/22\n\
         - office -> tcp/22\n"
    );
    let left = [(edge("office -> tcp/22"), LeftOut::GroupMoved)];
    assert_eq!(made.left_out, left);
}

#[test]
fn a_group_that_grows_takes_the_edges_of_its_new_members_along() {
    let known = [
        ("internet -> tcp/443", State::Frozen),
        ("dns <- udp/53", State::Frozen),
    ];
    let before = freeze(None, &[DNS], &known).frozen;
    let grown = [DNS, ("dns", "198.51.100.0/24")];
    let made = freeze(Some(&before), &grown, &known).frozen;
    assert_eq!(
        before.changes_to(&made),
        "- group dns: 192.0.2.0/24\n+ group dns: 192.0.2.0/24, 198.51.100.0/24\n+ dns -> tcp/443\n"
    );
}
