use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::super::{
    Change, Direction, Drift, Edge, Evidence, FreezeFrom, Frozen, FrozenError, Groups, Peer,
    Record, Service, State,
};
use super::{START, edge, source};

fn records() -> BTreeMap<super::Edge, Record> {
    let record = |state| {
        let mut record = Record::new(state, START, None);
        let tick = Duration::from_secs(1);
        record.add(START, tick, Some(source("10.0.0.5")), &Evidence::default());
        record
    };
    [
        (edge("office", "tcp/443"), record(State::Learned)),
        (edge("10.0.0.5", "tcp/5432"), record(State::Approved)),
        (edge("2001:db8:1:2::/64", "udp/53"), record(State::Frozen)),
        (edge("10.0.0.7", "tcp/22"), record(State::Candidate)),
        (edge("10.0.0.8", "tcp/22"), record(State::Denied)),
    ]
    .into()
}

fn groups() -> Groups {
    let mut groups = Groups::default();
    groups.add("office", source("198.51.100.0/24")).unwrap();
    groups.add("office", source("2001:db8:77::/48")).unwrap();
    groups
}

fn frozen(only: &[&str]) -> Frozen {
    Frozen::freeze(FreezeFrom {
        node: "1f2e3d4c",
        now: START,
        only: only
            .iter()
            .map(|service| service.parse().unwrap())
            .collect(),
        groups: &groups(),
        records: &records(),
        before: None,
    })
    .unwrap()
    .frozen
}

const FILE: &str = "\
# Kernloom: who may talk to this host. One edge per line; comments are kept.
# After editing: kernloom graph freeze --accept-edits
apiVersion: kernloom.io/v1alpha1
kind: FrozenGraph
metadata:
  node: \"1f2e3d4c\"
  frozen: \"2024-10-07T00:00:00Z\"
  sha256: \"HASH\"
groups:
  office: [\"198.51.100.0/24\", \"2001:db8:77::/48\"]
edges:
  - {direction: in, peer: \"office\", service: tcp/443}
  - {direction: in, peer: \"10.0.0.5\", service: tcp/5432}
  - {direction: in, peer: \"2001:db8:1:2::/64\", service: udp/53}
denied:
  - {direction: in, peer: \"10.0.0.8\", service: tcp/22}
";

#[test]
fn the_file_is_one_line_per_edge_in_order() {
    let frozen = frozen(&[]);
    assert_eq!(frozen.to_text(None), FILE.replace("HASH", &frozen.hash()));
    assert_eq!(frozen.hash().len(), 64);
}

#[test]
fn w41_what_was_written_is_read_back_and_verified() {
    for only in [&[][..], &["tcp/5432"], &["tcp/9"]] {
        let frozen = frozen(only);
        assert_eq!(Frozen::from_text(&frozen.to_text(None)).unwrap(), frozen);
    }
}

#[test]
fn w41_an_edited_file_is_refused_until_it_is_accepted() {
    let text = frozen(&[]).to_text(None);
    for (from, to) in [
        ("10.0.0.5", "10.0.0.6"),
        ("tcp/443", "tcp/444"),
        ("1f2e3d4c", "1f2e3d4d"),
        ("198.51.100.0/24", "198.51.0.0/16"),
        (
            "direction: in, peer: \"office\"",
            "direction: out, peer: \"office\"",
        ),
    ] {
        let edited = text.replacen(from, to, 1);
        assert!(
            matches!(Frozen::from_text(&edited), Err(FrozenError::Hash { .. })),
            "{to}"
        );
        let accepted = Frozen::from_edited(&edited).unwrap();
        assert!(Frozen::from_text(&accepted.to_text(Some(&edited))).is_ok());
    }
}

#[test]
fn comments_of_the_operator_survive_a_new_freeze() {
    let commented = frozen(&[])
        .to_text(None)
        .replacen("# After", "# Owner: the database team\n# After", 1)
        .replacen(
            "service: tcp/5432}",
            "service: tcp/5432}  # reports, ask #db",
            1,
        )
        .replacen(
            "  - {direction: in, peer: \"office\"",
            "  # people\n  - {direction: in, peer: \"office\"",
            1,
        )
        + "# the end\n";
    Frozen::from_text(&commented).unwrap();
    let mut records = records();
    records.insert(
        edge("10.0.0.1", "tcp/1"),
        records[&edge("office", "tcp/443")].clone(),
    );
    let again = Frozen::freeze(FreezeFrom {
        node: "1f2e3d4c",
        now: START + Duration::from_secs(60),
        only: BTreeSet::new(),
        groups: &groups(),
        records: &records,
        before: None,
    })
    .unwrap()
    .frozen;
    let text = again.to_text(Some(&commented));
    assert_eq!(Frozen::from_text(&text).unwrap(), again);
    for kept in [
        "# Owner: the database team\n",
        "service: tcp/5432}  # reports, ask #db\n",
        "  # people\n  - {direction: in, peer: \"office\", service: tcp/443}\n",
        "# the end\n",
    ] {
        assert!(text.contains(kept), "{kept}\n{text}");
    }
    assert_eq!(text.matches("# Kernloom").count(), 1);
}

#[test]
fn bad_files_say_what_is_wrong() {
    let text = frozen(&[]).to_text(None);
    let error = |from: &str, to: &str| {
        let edited = text.replacen(from, to, 1);
        assert_ne!(edited, text);
        Frozen::from_edited(&edited).unwrap_err().to_string()
    };
    assert_eq!(
        error("FrozenGraph", "GraphProposal"),
        "kind: 'GraphProposal' is not 'FrozenGraph'"
    );
    assert_eq!(
        error("\"office\", service", "\"ofice\", service"),
        "edge in ofice tcp/443: 'ofice' is no group that is defined, and no address or prefix"
    );
    assert_eq!(
        error("198.51.100.0/24", "198.51.100.1/24"),
        "group office: '198.51.100.1/24' has bits set after the prefix; did you mean 198.51.100.0/24?"
    );
    assert!(error("service: udp/53", "servce: udp/53").contains("servce"));
    let twice = "  - {direction: in, peer: \"10.0.0.5\", service: tcp/5432}\n";
    assert_eq!(
        error(twice, &twice.repeat(2)),
        "edge 10.0.0.5 -> tcp/5432 is there twice"
    );
}

#[test]
fn a_file_that_was_cut_off_freezes_nobody_out() {
    let text = frozen(&[]).to_text(None);
    let edges = text.find("edges:").unwrap();
    let error = Frozen::from_edited(&text[..edges]).unwrap_err().to_string();
    assert!(error.contains("missing field `edges`"), "{error}");
    let none = format!("{}edges:\n", &text[..edges]);
    assert!(Frozen::from_edited(&none).is_err());
    assert!(Frozen::from_edited(&none.replace("edges:", "edges: []")).is_ok());
    // Nor does it let anybody in.
    let denied = text.find("denied:\n").unwrap() + "denied:\n".len();
    let error = Frozen::from_edited(&text[..denied]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "'denied:' has no lines; write 'denied: []' if none is meant"
    );
}

#[test]
fn a_peer_that_no_packet_could_match_is_refused() {
    let check = |peer: &str, direction: Direction| {
        let mut frozen = frozen(&[]);
        frozen.edges = [Edge {
            direction,
            peer: Peer::parse(peer, |_| false).unwrap(),
            service: Service::tcp(22),
        }]
        .into();
        frozen.check(64).map_err(|error| error.to_string())
    };
    for peer in [
        "10.0.0.5",
        "fd55::/64",
        "fe80::7",
        "fd55::2",
        "2001:db8:9::5",
    ] {
        assert_eq!(check(peer, Direction::In), Ok(()), "{peer}");
    }
    assert_eq!(check("any", Direction::Cast), Ok(()));
    assert_eq!(
        check("10.0.0.0/24", Direction::In).unwrap_err(),
        "edge 10.0.0.0/24 -> tcp/22: 10.0.0.0/24 is wider than what is tracked as one source; make it a group: \
         --group name=10.0.0.0/24"
    );
    assert_eq!(
        check("fd55::/112", Direction::In).unwrap_err(),
        "edge fd55::/112 -> tcp/22: fd55::/112 is neither one address nor fd55::/64: name one of those, or make it \
         a group: --group name=fd55::/112"
    );
    assert!(
        check("any", Direction::In)
            .unwrap_err()
            .contains("--direction cast")
    );
    assert!(check("10.0.0.5", Direction::Cast).is_err());
    // Of what a group is made is nobody's peer by itself.
    let mut narrow = frozen(&[]);
    let prefixes = narrow.groups.get_mut("office").unwrap();
    prefixes.extend(["2001:db8:9::5", "2001:db8:9::/112"].map(source));
    assert_eq!(narrow.check(64), Ok(()));
}

#[test]
fn only_freezes_one_service_and_speaks_of_no_other() {
    let frozen = frozen(&["tcp/5432"]);
    assert_eq!(
        frozen.edges.iter().collect::<Vec<_>>(),
        [&edge("10.0.0.5", "tcp/5432")]
    );
    assert!(frozen.covers("tcp/5432".parse().unwrap()));
    assert!(!frozen.covers("tcp/443".parse().unwrap()));
    assert!(frozen.to_text(None).contains("\nonly: [tcp/5432]\n"));
}

#[test]
fn drift_tells_what_came_what_was_denied_and_what_is_unused() {
    let frozen = frozen(&[]);
    let mut records = records();
    records.get_mut(&edge("10.0.0.7", "tcp/22")).unwrap().state = State::Learned;
    records
        .get_mut(&edge("10.0.0.5", "tcp/5432"))
        .unwrap()
        .state = State::Denied;
    records.remove(&edge("office", "tcp/443"));
    let drift = Drift::between(&frozen, &records, START, Duration::from_secs(60));
    assert_eq!(
        drift.changes,
        [
            (edge("office", "tcp/443"), Change::Unused),
            (edge("10.0.0.5", "tcp/5432"), Change::Denied),
            (edge("10.0.0.7", "tcp/22"), Change::Added),
        ]
    );
    assert_eq!(Change::Added.sign(), '+');
    let of = |state| {
        let mut records = records.clone();
        for (peer, service) in [("10.0.0.8", "tcp/22"), ("10.0.0.5", "tcp/5432")] {
            records.insert(edge(peer, service), Record::new(state, START, None));
        }
        Drift::between(&frozen, &records, START, Duration::from_secs(60)).candidates
    };
    // What is frozen is nothing to learn.
    assert_eq!(of(State::Candidate) - drift.candidates, 1);
    assert_eq!(of(State::Expired), drift.candidates);
    let later = START + Duration::from_secs(61);
    let drift = Drift::between(&frozen, &records, later, Duration::from_secs(60));
    assert!(
        drift
            .changes
            .contains(&(edge("2001:db8:1:2::/64", "udp/53"), Change::Unused))
    );
}

/// A prefix that was frozen when a /64 was one peer covers its addresses, and is used by them.
#[test]
fn a_frozen_prefix_covers_the_addresses_in_it() {
    let mut frozen = frozen(&[]);
    frozen.edges = [edge("fd55::/64", "tcp/22")].into();
    let mut records = BTreeMap::new();
    let mut record = Record::new(State::Learned, START, None);
    let tick = Duration::from_secs(1);
    record.add(START, tick, Some(source("fd55::2")), &Evidence::default());
    records.insert(edge("fd55::2", "tcp/22"), record.clone());
    let drift = |records: &_| Drift::between(&frozen, records, START, tick).changes;
    assert_eq!(drift(&records), []);
    records.insert(edge("fd55::2", "tcp/23"), record.clone());
    assert_eq!(
        drift(&records),
        [(edge("fd55::2", "tcp/23"), Change::Added)]
    );
    records.remove(&edge("fd55::2", "tcp/22"));
    record.state = State::Denied;
    records.insert(edge("fd55::3", "tcp/22"), record);
    assert!(drift(&records).contains(&(edge("fd55::/64", "tcp/22"), Change::Unused)));
}
