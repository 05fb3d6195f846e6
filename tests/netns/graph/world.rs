//! The graph when the world is against it: a full disk, a damaged database, IQ dead.

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use nix::sys::signal::Signal;

use super::super::disk::Small;
use super::traffic::{Echo, PATIENCE, SHORT, serve, tcp};
use super::{SOON, binary, good, graph};
use crate::lab::{Kernloom, Lab, Plan, Said, wait_until};

fn lab(name: &str) -> Option<Lab> {
    let plan = Plan {
        clients: &["one", "evil"],
        office_hosts: 0,
    };
    Lab::for_test(name, &plan)
}

fn kept(lab: &Lab, store: &Path, words: &str) -> Said {
    let store = format!("--store={}", store.display());
    graph(lab, &format!("{words} {store}"))
}

#[test]
fn w42_a_full_disk_loses_nothing_changes_nothing_by_halves_and_is_told() {
    let Some(lab) = lab("gdisk") else { return };
    let small = Small::at(&lab.dir().join("small"), 1_024);
    let store = small.path().join("graph.db");
    let flag = format!("--store={}", store.display());
    let judge = [
        "--profile=idp",
        "--graph",
        "--interval=200ms",
        flag.as_str(),
    ];
    let mut iq = Kernloom::iq(&lab, binary(), &judge).unwrap();
    wait_until(SOON, "iq to answer", || {
        Ok(graph(&lab, "readiness").code == Some(0))
    })
    .unwrap();
    good(&lab, "allow 10.0.0.5 tcp/443");
    // While there is no file, a decision is in force at once, and stored once there is room.
    let filler = small.fill();
    let many: String = (1..400).map(|port| format!(" tcp/{port}")).collect();
    let said = good(&lab, &format!("deny 10.0.0.7{many}"));
    assert!(said.contains("in force, but not stored yet"), "{said}");
    assert!(said.contains("is full: make room"), "{said}");
    let said = graph(&lab, "freeze --accept-risk");
    assert_eq!(said.code, Some(1), "{said:?}");
    let file = small.path().join("frozen-graph.yaml");
    assert!(!file.exists());
    std::fs::remove_file(filler).unwrap();
    good(&lab, "freeze --accept-risk");
    let before = std::fs::read_to_string(&file).unwrap();
    let filler = small.fill();
    // The frozen file cannot be replaced: the decision is refused whole.
    for (word, peer) in [("allow", "10.0.0.6"), ("deny", "10.0.0.8")] {
        let said = graph(&lab, &format!("{word} {peer} tcp/443"));
        assert_eq!(said.code, Some(1), "{said:?}");
        assert!(said.err.contains("No space left on device"), "{said:?}");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), before);
        assert!(!good(&lab, "edges").contains(peer));
    }
    iq.check_running().unwrap();
    std::fs::remove_file(filler).unwrap();
    let said = good(&lab, "allow 10.0.0.6 tcp/443");
    assert!(!said.contains("not stored"), "{said}");
    iq.process().signal(Signal::SIGKILL).unwrap();
    wait_until(SOON, "iq to be gone", || Ok(iq.check_running().is_err())).unwrap();
    let edges = kept(&lab, &store, "edges --state denied").out;
    assert_eq!(edges.matches("10.0.0.7").count(), 399, "{edges}");
    let frozen = kept(&lab, &store, "edges --state frozen").out;
    assert!(
        frozen.contains("10.0.0.6") && frozen.contains("10.0.0.5"),
        "{frozen}"
    );
    let _filler = small.fill();
    let said = kept(&lab, &store, "edges");
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.err.contains("the disk is full: make room"), "{said:?}");
}

#[test]
fn a_damaged_database_is_named_before_anything_is_attached() {
    let Some(lab) = lab("gdamage") else { return };
    good(&lab, "allow 10.0.0.5 tcp/443");
    let store = lab.state_dir().join("graph.db");
    let bytes = std::fs::read(&store).unwrap();
    for damage in ["head", "middle", "half"] {
        let mut bad = bytes.clone();
        match damage {
            "head" => bad[..100].fill(0x5a),
            "middle" => bad[4_096..].fill(0x5a),
            _ => bad.truncate(bytes.len() / 2),
        }
        for suffix in ["-wal", "-shm"] {
            let beside = format!("{}{suffix}", store.display());
            if Path::new(&beside).exists() {
                std::fs::remove_file(beside).unwrap();
            }
        }
        std::fs::write(&store, &bad).unwrap();
        for words in [
            &["graph", "edges"][..],
            &["iq", "--iface=eth0", "--profile=idp", "--graph"],
        ] {
            let said = Kernloom::ask(&lab, binary(), words).unwrap();
            assert_eq!(said.code, Some(1), "{damage}: {said:?}");
            assert!(said.err.contains("graph.db"), "{damage}: {said:?}");
            assert!(
                said.err
                    .contains("'kernloom iq --graph --fresh-state' sets it aside"),
                "{damage}: {said:?}"
            );
        }
        assert!(!lab.bpffs().join("program").exists(), "{damage}: attached");
    }
    // Moved away, it starts over.
    std::fs::rename(&store, store.with_extension("bad")).unwrap();
    let none = graph(&lab, "edges");
    assert_eq!(none.code, Some(2), "{none:?}");
    assert!(none.err.contains("no graph is kept in"), "{none:?}");
    good(&lab, "allow 10.0.0.5 tcp/443");
    assert!(good(&lab, "edges").contains("10.0.0.5"));
}

#[test]
fn fresh_state_sets_a_damaged_database_aside_and_knows_what_is_frozen() {
    let Some(lab) = lab("gfresh") else { return };
    good(&lab, "allow 10.0.0.5 tcp/443");
    good(&lab, "freeze --accept-risk");
    good(&lab, "deny 10.0.0.7 tcp/22");
    let store = lab.state_dir().join("graph.db");
    let mut bad = std::fs::read(&store).unwrap();
    bad[4_096..].fill(0x5a);
    std::fs::write(&store, &bad).unwrap();
    let judge = ["--profile=idp", "--graph", "--fresh-state"];
    let iq = Kernloom::iq(&lab, binary(), &judge).unwrap();
    wait_until(SOON, "iq to answer", || {
        Ok(graph(&lab, "readiness").code == Some(0))
    })
    .unwrap();
    assert!(iq.text().contains("set aside as told"), "{}", iq.text());
    let aside = lab.state_dir().join("graph.db.damaged");
    assert_eq!(std::fs::read(aside).unwrap(), bad);
    assert!(good(&lab, "edges --state frozen").contains("10.0.0.5"));
    assert!(good(&lab, "edges --state denied").contains("10.0.0.7"));
    good(&lab, "freeze --accept-risk");
    // Another start with the flag loses nothing.
    drop(iq);
    let _next = Kernloom::iq(&lab, binary(), &judge).unwrap();
    wait_until(SOON, "iq to answer", || {
        Ok(graph(&lab, "readiness").code == Some(0))
    })
    .unwrap();
    assert!(good(&lab, "edges --state frozen").contains("10.0.0.5"));
}

/// What is learned may be 30 s old; what an operator said may not.
#[test]
fn w42_a_decision_outlives_a_kill_right_after_its_answer() {
    let Some(lab) = lab("gkill") else { return };
    let store = lab.state_dir().join("graph.db");
    for (words, state, peer) in [
        ("allow 10.0.0.5 tcp/443", "approved", "10.0.0.5"),
        ("deny 10.0.0.7 tcp/22", "denied", "10.0.0.7"),
        ("freeze --accept-risk", "frozen", "10.0.0.5"),
        ("deny 10.0.0.8 tcp/22", "denied", "10.0.0.8"),
        ("allow 10.0.0.6 tcp/443", "frozen", "10.0.0.6"),
    ] {
        let judge = ["--profile=idp", "--graph", "--interval=200ms"];
        let mut iq = Kernloom::iq(&lab, binary(), &judge).unwrap();
        wait_until(SOON, "iq to answer", || {
            Ok(graph(&lab, "readiness").code == Some(0))
        })
        .unwrap();
        let said = good(&lab, words);
        iq.process().signal(Signal::SIGKILL).unwrap();
        assert!(!said.contains("not stored"), "{said}");
        wait_until(SOON, "iq to be gone", || Ok(iq.check_running().is_err())).unwrap();
        // Of the database: the file does not help it.
        let file = lab.state_dir().join("frozen-graph.yaml");
        let away = lab.dir().join("away.yaml");
        let there = std::fs::rename(&file, &away).is_ok();
        let edges = kept(&lab, &store, &format!("edges --state {state}")).out;
        assert!(edges.contains(peer), "{words}: {edges}");
        if there {
            std::fs::rename(&away, &file).unwrap();
        }
    }
}

fn open_again(lab: &Lab, net: &str, to: (Ipv4Addr, u16)) {
    let net = &lab.client(net).unwrap().net;
    wait_until(SOON, "the lease to run out", || {
        Ok(tcp(net, to.0, to.1, SHORT).is_ok())
    })
    .unwrap();
}

#[test]
fn a_lease_that_nobody_confirms_runs_out_with_iq_dead() {
    let Some(lab) = lab("glease") else { return };
    let (server, evil) = (lab.server(), lab.client("evil").unwrap());
    let stop = Arc::new(AtomicBool::new(false));
    std::thread::scope(|scope| {
        let _end = Echo {
            stop: Arc::clone(&stop),
        };
        serve(scope, &server.net, &stop, &[443, 22], &[]);
        let judge = ["--profile=idp", "--graph", "--interval=200ms"];
        let mut iq = Kernloom::iq(&lab, binary(), &judge).unwrap();
        wait_until(SOON, "iq to answer", || {
            Ok(graph(&lab, "readiness").code == Some(0))
        })
        .unwrap();
        let one = lab.client("one").unwrap();
        good(&lab, &format!("allow {} tcp/443", one.v4));
        good(&lab, "freeze --accept-risk");
        good(&lab, "enforce --lease 6s");
        iq.process().signal(Signal::SIGKILL).unwrap();
        wait_until(SOON, "iq to be gone", || Ok(iq.check_running().is_err())).unwrap();
        assert!(tcp(&evil.net, server.v4, 22, SHORT).is_err());
        tcp(&one.net, server.v4, 443, PATIENCE).unwrap();
        open_again(&lab, "evil", (server.v4, 22));
        assert!(good(&lab, "show").contains("learn"));
        let late = graph(&lab, "confirm");
        assert_eq!(late.code, Some(2), "{late:?}");
        assert!(
            late.err.contains("there is no lease to confirm"),
            "{late:?}"
        );
        // A leased graph is not what the next IQ starts with.
        drop(iq);
        let _next = Kernloom::iq(&lab, binary(), &judge).unwrap();
        tcp(&evil.net, server.v4, 22, PATIENCE).unwrap();
    });
}

/// Who reads the log later finds what was put in force, by whom, and what the kernel took back.
#[test]
fn the_log_tells_what_commands_did_and_that_a_lease_ended() {
    let Some(lab) = lab("glog") else { return };
    let judge = ["--profile=idp", "--graph", "--interval=200ms"];
    let mut iq = Kernloom::iq(&lab, binary(), &judge).unwrap();
    iq.wait_line(SOON, "a tick every").unwrap();
    good(&lab, "allow 10.0.0.5 tcp/443");
    iq.wait_line(SOON, "by command: approved: 10.0.0.5 -> tcp/443")
        .unwrap();
    good(&lab, "freeze --accept-risk");
    iq.wait_line(SOON, "by command: 1 edge is frozen in ")
        .unwrap();
    good(&lab, "enforce --lease 1s");
    iq.wait_line(SOON, "by command: frozen-enforce for 1s; ")
        .unwrap();
    iq.wait_line(
        SOON,
        "the lease of frozen-enforce ended unconfirmed: learn again",
    )
    .unwrap();
    good(&lab, "enforce --lease 1h");
    good(&lab, "confirm");
    iq.wait_line(SOON, "by command: frozen-enforce is confirmed")
        .unwrap();
}

/// Another run directory hides the lock of the IQ that runs, but not what it keeps.
#[test]
fn what_one_iq_keeps_no_other_process_writes() {
    let Some(lab) = lab("gkeeper") else { return };
    let mut iq = Kernloom::iq(&lab, binary(), &["--profile=idp", "--graph"]).unwrap();
    iq.wait_line(SOON, "a tick every").unwrap();
    let (run_dir, pins) = (lab.dir().join("run-b"), lab.bpffs().with_extension("b"));
    let mut command = lab.server().net.command(&binary().to_string_lossy());
    command.args(["graph", "allow", "10.0.0.5", "tcp/443"]);
    for (flag, path) in [
        ("--bpffs", &pins),
        ("--run-dir", &run_dir),
        ("--state-dir", &lab.state_dir()),
        ("--config", &lab.config()),
    ] {
        command.arg(flag).arg(path);
    }
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(
        said.contains("another kernloom keeps its state in "),
        "{said}"
    );
    assert!(!good(&lab, "edges").contains("10.0.0.5"));
}

/// What a command put in force is neither opened nor closed by an IQ that starts.
#[test]
fn w40_an_iq_that_starts_leaves_the_mode_that_a_command_set() {
    let Some(lab) = lab("gmode") else { return };
    let server = lab.server();
    let stop = Arc::new(AtomicBool::new(false));
    std::thread::scope(|scope| {
        let _end = Echo {
            stop: Arc::clone(&stop),
        };
        serve(scope, &server.net, &stop, &[443, 22], &[]);
        let (one, evil) = (lab.client("one").unwrap(), lab.client("evil").unwrap());
        let start = |mode: &str| {
            let mode = format!("--graph-mode={mode}");
            let judge = ["--profile=idp", "--graph", "--interval=200ms", &mode];
            let iq = Kernloom::iq(&lab, binary(), &judge).unwrap();
            wait_until(SOON, "iq to answer", || {
                Ok(graph(&lab, "readiness").code == Some(0))
            })
            .unwrap();
            iq
        };
        let first = start("learn");
        good(&lab, &format!("allow {} tcp/443", one.v4));
        good(&lab, "freeze --accept-risk");
        good(&lab, "enforce --lease 0");
        drop(first);
        let next = start("learn");
        assert!(tcp(&evil.net, server.v4, 22, SHORT).is_err());
        tcp(&one.net, server.v4, 443, PATIENCE).unwrap();
        good(&lab, "observe");
        drop(next);
        let last = start("frozen-enforce");
        tcp(&evil.net, server.v4, 22, PATIENCE).unwrap();
        assert!(good(&lab, "show").contains("frozen-observe"));
        good(&lab, "thaw");
        drop(last);
        let thawed = start("frozen-enforce");
        tcp(&evil.net, server.v4, 22, PATIENCE).unwrap();
        let told = "learn was put in force by command and stays; it overrules the frozen-enforce of --graph-mode \
                    or of the profile, until 'kernloom graph enforce'";
        assert!(thawed.text().contains(told), "{}", thawed.text());
    });
}

/// The kernel knows better than a database that is new.
#[test]
fn what_is_enforced_outlives_the_files_of_the_graph_and_names_the_way_out() {
    let Some(lab) = lab("glost") else { return };
    let begin = || {
        let judge = ["--profile=idp", "--graph", "--graph-mode=learn"];
        let iq = Kernloom::iq(&lab, binary(), &judge).unwrap();
        wait_until(SOON, "iq to answer", || {
            Ok(graph(&lab, "readiness").code == Some(0))
        })
        .unwrap();
        iq
    };
    let lose = |suffixes: &[&str]| {
        for suffix in suffixes {
            match std::fs::remove_file(lab.state_dir().join(suffix)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => panic!("{error}"),
                _ => {}
            }
        }
    };
    let database = ["graph.db", "graph.db-wal", "graph.db-shm"];
    let enforces = || {
        let ask = ["shield", "verdict", "10.0.0.9", "--dport=22"];
        let said = Kernloom::run(&lab, binary(), &ask).unwrap();
        said.contains("drop (edge-unknown)")
    };
    let iq = begin();
    good(&lab, "allow 10.0.0.5 tcp/443");
    good(&lab, "freeze --accept-risk");
    good(&lab, "enforce --lease 0");
    drop(iq);
    lose(&database);
    let iq = begin();
    let said = iq.text();
    let told = "the database that would know who put it there is new: it stays; 'kernloom graph thaw' ends it";
    assert!(said.contains(told), "{said}");
    assert!(enforces());
    drop(iq);
    lose(&database);
    lose(&["frozen-graph.yaml", "frozen-graph.yaml.accepted"]);
    let said = graph(&lab, "observe");
    assert_eq!(said.code, Some(2), "{said:?}");
    let told = "one that is lost is still in force: 'kernloom graph thaw' lets go of it";
    assert!(said.err.contains(told), "{said:?}");
    assert!(enforces());
    good(&lab, "thaw");
    assert!(!enforces());
}
