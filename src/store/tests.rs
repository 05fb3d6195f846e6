use std::time::Duration;

use super::{Batch, GraphStore, Violation, node_identity, read_frozen, write_whole};
use crate::graph::{Coverage, Direction, Edge, Evidence, Frozen, Peer, Record, Service, State};
use crate::model::Wall;

fn edge(peer: Peer, port: u16) -> Edge {
    Edge {
        direction: Direction::In,
        peer,
        service: Service::tcp(port),
    }
}

fn host(number: u32) -> Peer {
    Peer::Source(crate::model::Source::host(
        (0x0a00_0000 + number).to_be_bytes().into(),
    ))
}

fn record(state: State) -> Record {
    let now = Wall::from_secs(1_800_000_000);
    let mut record = Record::new(state, now, None);
    let evidence = Evidence {
        connections: 3,
        packets: 40,
        bytes: 50_000_000_000,
        handshakes: 2,
    };
    record.add(
        now + Duration::from_secs(700),
        Duration::from_secs(1),
        None,
        &evidence,
    );
    record
}

fn everything() -> Vec<(Edge, Option<Record>)> {
    let mut edges = vec![
        (
            edge(Peer::Group("office".to_owned()), 443),
            Some(record(State::Learned)),
        ),
        (edge(Peer::Any, 5353), Some(record(State::Approved))),
    ];
    for (number, state) in (1..).zip(State::ALL) {
        edges.push((edge(host(number), 22), Some(record(state))));
    }
    edges
}

#[test]
fn what_was_flushed_is_there_after_opening_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("graph").join("graph.db");
    let edges = everything();
    let mut coverage = Coverage::default();
    coverage.note(Wall::from_secs(1_800_000_000));
    let violation = Violation {
        first_seen: Wall::from_secs(5),
        last_seen: Wall::from_secs(6),
        packets: 7,
    };
    {
        let mut store = GraphStore::open(&path, "node").unwrap();
        store
            .flush(&Batch {
                edges: &edges,
                violations: &[(edge(host(9), 23), Some(violation))],
                coverage: Some(&coverage),
                mode: Some(Some("frozen-enforce")),
            })
            .unwrap();
    }
    let mut store = GraphStore::open(&path, "node").unwrap();
    let kept = store.load().unwrap();
    let expected: Vec<_> = edges
        .into_iter()
        .map(|(edge, record)| (edge, record.unwrap()))
        .collect();
    assert_eq!(kept.records, expected.into_iter().collect());
    assert_eq!(kept.coverage, coverage);
    assert_eq!(kept.mode.as_deref(), Some("frozen-enforce"));
    assert_eq!(kept.violations[&edge(host(9), 23)], violation);
    store
        .flush(&Batch {
            edges: &[(edge(host(1), 22), None)],
            violations: &[(edge(host(9), 23), None)],
            mode: Some(None),
            ..Batch::default()
        })
        .unwrap();
    let kept = store.load().unwrap();
    assert_eq!(
        (kept.records.len(), kept.violations.len(), kept.mode),
        (8, 0, None)
    );
}

#[test]
fn w38_a_renamed_host_keeps_its_graph_and_another_host_does_not_get_it() {
    let dir = tempfile::tempdir().unwrap();
    // Derived from the machine-id: nothing of the host name is in it.
    let node = node_identity(dir.path()).unwrap();
    assert_eq!(
        (node.len(), node_identity(dir.path()).unwrap()),
        (32, node.clone())
    );
    let path = dir.path().join("graph.db");
    GraphStore::open(&path, &node).unwrap();
    assert!(GraphStore::open(&path, &node).is_ok());
    let error = GraphStore::open(&path, "other").unwrap_err();
    assert!(
        error.to_string().contains("the graph of another host"),
        "{error}"
    );
    assert_eq!(error.exit_code(), 2);
}

#[test]
fn foreign_newer_and_damaged_databases_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("graph.db");
    let make = |sql: &str| {
        for suffix in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(format!("{}{suffix}", path.display()));
        }
        let db = rusqlite::Connection::open(&path).unwrap();
        db.execute_batch(sql).unwrap();
    };
    make("CREATE TABLE t (a); PRAGMA application_id = 7;");
    let error = GraphStore::open(&path, "node").unwrap_err().to_string();
    assert!(error.contains("another program's database"), "{error}");
    make("CREATE TABLE t (a); PRAGMA application_id = 0x4b4c6772; PRAGMA user_version = 99;");
    let error = GraphStore::open(&path, "node").unwrap_err().to_string();
    assert!(error.contains("schema 99, this binary speaks 1"), "{error}");
    std::fs::write(&path, vec![0x5a; 8_192]).unwrap();
    let error = GraphStore::open(&path, "node").unwrap_err().to_string();
    assert!(error.contains("sets it aside and starts over"), "{error}");
}

#[test]
fn one_that_is_of_no_use_is_set_aside_when_told_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("graph.db");
    let aside = dir.path().join("graph.db.damaged");
    let start_over = || GraphStore::open_or_start_over(&path, "node");
    let (mut store, why) = start_over().unwrap();
    assert_eq!(why, None);
    let edges = everything();
    store
        .flush(&Batch {
            edges: &edges,
            ..Batch::default()
        })
        .unwrap();
    drop(store);
    let (store, why) = start_over().unwrap();
    let found = store.load().unwrap().records.len();
    assert_eq!((why, found), (None, edges.len()));
    drop(store);
    // Only reading every page finds it.
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[4_096..].fill(0x5a);
    std::fs::write(&path, &bytes).unwrap();
    assert!(
        GraphStore::open(&path, "node")
            .and_then(|store| store.load())
            .is_err()
    );
    let (store, why) = start_over().unwrap();
    assert!(why.unwrap().contains("graph.db: "));
    assert_eq!(store.load().unwrap().records.len(), 0);
    assert_eq!(std::fs::read(&aside).unwrap(), bytes);
    drop(store);
    // Another host's is of no use either; another program's is not ours to move.
    let (_, why) = GraphStore::open_or_start_over(&path, "other").unwrap();
    assert!(why.unwrap().contains("the graph of another host"));
    std::fs::remove_file(&path).unwrap();
    let db = rusqlite::Connection::open(&path).unwrap();
    db.execute_batch("CREATE TABLE t (a); PRAGMA application_id = 7;")
        .unwrap();
    drop(db);
    let error = start_over().unwrap_err().to_string();
    assert!(error.contains("another program's database"), "{error}");
}

/// An SD card wears by what is written to it.
#[test]
fn w42_a_flush_writes_what_changed_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = GraphStore::open(&dir.path().join("graph.db"), "node").unwrap();
    let edges: Vec<_> = (0..500)
        .map(|number| (edge(host(number), 1), Some(record(State::Learned))))
        .collect();
    let flush = |store: &mut GraphStore, edges| {
        let batch = Batch {
            edges,
            ..Batch::default()
        };
        let before = store.rows_written();
        store.flush(&batch).unwrap();
        store.rows_written() - before
    };
    assert_eq!(flush(&mut store, &edges), 500);
    assert_eq!(flush(&mut store, &edges[..3]), 3);
    assert_eq!(flush(&mut store, &[]), 0);
}

#[test]
fn w42_a_full_database_refuses_the_flush_whole_and_keeps_what_it_had() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("graph.db");
    let mut store = GraphStore::open_bounded(&path, "node", 64).unwrap();
    let edges = everything();
    store
        .flush(&Batch {
            edges: &edges,
            ..Batch::default()
        })
        .unwrap();
    let before = store.load().unwrap();
    let many: Vec<_> = (0..6_000)
        .map(|number| {
            (
                edge(host(1_000 + number), 1),
                Some(record(State::Candidate)),
            )
        })
        .collect();
    let error = store
        .flush(&Batch {
            edges: &many,
            ..Batch::default()
        })
        .unwrap_err();
    assert!(error.to_string().contains("is full: make room"), "{error}");
    assert_eq!(store.load().unwrap(), before);
    // And it goes on once what is to be stored is less.
    store
        .flush(&Batch {
            edges: &many[..10],
            ..Batch::default()
        })
        .unwrap();
    assert_eq!(
        store.load().unwrap().records.len(),
        before.records.len() + 10
    );
}

#[test]
fn violations_are_bounded_and_the_longest_silent_go() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = GraphStore::open(&dir.path().join("graph.db"), "node").unwrap();
    let many: Vec<_> = (0..12_000u32)
        .map(|number| {
            let violation = Violation {
                first_seen: Wall::from_secs(1),
                last_seen: Wall::from_secs(number.into()),
                packets: 1,
            };
            (edge(host(number), 1), Some(violation))
        })
        .collect();
    store
        .flush(&Batch {
            violations: &many,
            ..Batch::default()
        })
        .unwrap();
    let kept = store.load().unwrap().violations;
    assert_eq!(kept.len(), 10_000);
    assert!(
        kept.values()
            .all(|violation| violation.last_seen.as_secs() >= 2_000)
    );
}

#[test]
fn w42_a_frozen_file_is_replaced_whole_or_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("frozen-graph.yaml");
    assert_eq!(read_frozen(&path).unwrap(), None);
    let frozen = Frozen {
        node: "n".to_owned(),
        frozen_at: "2026-11-23T12:00:00Z".to_owned(),
        edges: [edge(host(1), 22)].into(),
        ..Frozen::default()
    };
    write_whole(&path, &frozen.to_text(None)).unwrap();
    let (read, text) = read_frozen(&path).unwrap().unwrap();
    assert_eq!(read, frozen);
    // The file beside it cannot be made: the old one stands.
    std::fs::create_dir(super::file::beside(&path)).unwrap();
    assert!(write_whole(&path, "half").is_err());
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    let edited = text.replace("tcp/22", "tcp/23");
    std::fs::write(&path, edited).unwrap();
    let error = read_frozen(&path).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    assert!(error.to_string().contains("--accept-edits"), "{error}");
}

/// Flushes for ever, one number everywhere: the child of the test below, killed by it.
#[test]
#[ignore = "runs only as the child of the test that kills it"]
fn flushes_until_it_is_killed() {
    let path = std::env::var("KERNLOOM_STORE").unwrap();
    let mut store = GraphStore::open(path.as_ref(), "node").unwrap();
    let start = store.load().unwrap().coverage.days + 1;
    for number in start.. {
        let edges: Vec<_> = (0..50)
            .map(|host_number| {
                let mut record = record(State::Learned);
                record.ticks = number;
                (edge(host(host_number), 443), Some(record))
            })
            .collect();
        let coverage = Coverage {
            days: number,
            ..Coverage::default()
        };
        store
            .flush(&Batch {
                edges: &edges,
                coverage: Some(&coverage),
                ..Batch::default()
            })
            .unwrap();
        println!("{number}");
    }
}

#[test]
fn w42_a_kill_at_any_moment_leaves_whole_flushes() {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("graph.db");
    let mut before = 0;
    for kill in 0..8 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "--ignored",
                "--nocapture",
                "store::tests::flushes_until_it_is_killed",
            ])
            .env("KERNLOOM_STORE", &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(child.stdout.take().unwrap()).lines();
        let numbers = said
            .map_while(Result::ok)
            .filter_map(|line| line.parse::<u64>().ok());
        let told = numbers.take(5 + kill).last().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        let kept = GraphStore::open(&path, "node").unwrap().load().unwrap();
        assert!(
            kept.coverage.days >= told,
            "{} was told, {} is kept",
            told,
            kept.coverage.days
        );
        assert!(told > before);
        assert_eq!(kept.records.len(), 50);
        assert!(
            kept.records
                .values()
                .all(|record| record.ticks == kept.coverage.days)
        );
        before = kept.coverage.days;
    }
}

#[test]
fn a_link_to_a_file_stays_one_when_the_file_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let (file, link) = (dir.path().join("kept.yaml"), dir.path().join("link.yaml"));
    std::fs::write(&file, "old").unwrap();
    std::os::unix::fs::symlink(&file, &link).unwrap();
    write_whole(&link, "new").unwrap();
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "new");
    assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
}
