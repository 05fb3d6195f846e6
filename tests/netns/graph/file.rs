//! The frozen file is the truth: denials, edits by hand and groups, whatever becomes of the database.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::traffic::{Echo, PATIENCE, SHORT, serve, tcp, udp};
use super::{SOON, binary, good, graph};
use crate::lab::{Host, Kernloom, Lab, Plan, wait_until};

fn lab(name: &str) -> Option<Lab> {
    let plan = Plan {
        clients: &["one"],
        office_hosts: 0,
    };
    Lab::for_test(name, &plan)
}

fn refused(lab: &Lab, words: &str) -> String {
    let said = graph(lab, words);
    assert_eq!(said.code, Some(2), "graph {words}: {said:?}");
    said.err
}

fn attached(lab: &Lab) {
    let attach = ["shield", "attach", "eth0", "--features=graph", "--no-guard"];
    Kernloom::run(lab, binary(), &attach).unwrap();
}

/// Whether the running program refuses the edge.
fn is_denied(lab: &Lab, source: &str, port: &str) -> bool {
    let ask = ["shield", "verdict", source, "--dport", port];
    let said = Kernloom::run(lab, binary(), &ask).unwrap();
    said.contains("drop (edge-denied)")
}

fn file(lab: &Lab) -> PathBuf {
    lab.state_dir().join("frozen-graph.yaml")
}

fn read(lab: &Lab) -> String {
    std::fs::read_to_string(file(lab)).unwrap()
}

fn edit(lab: &Lab, from: &str, to: &str) {
    let text = read(lab);
    let edited = text.replace(from, to);
    assert_ne!(edited, text);
    std::fs::write(file(lab), edited).unwrap();
}

fn lose_database(lab: &Lab) {
    for suffix in ["", "-wal", "-shm"] {
        let name = format!("graph.db{suffix}");
        match std::fs::remove_file(lab.state_dir().join(name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => panic!("{error}"),
            _ => {}
        }
    }
}

#[test]
fn a_denial_is_in_the_file_and_outlives_the_database() {
    let Some(lab) = lab("gtruth") else { return };
    attached(&lab);
    good(&lab, "allow 10.0.0.5 tcp/443");
    let told = good(&lab, "deny 10.0.0.7 tcp/22");
    assert!(
        told.contains("in force; kept in the database alone until 'kernloom graph freeze'"),
        "{told}"
    );
    let told = good(&lab, "freeze --accept-risk");
    assert!(told.contains("+ denied 10.0.0.7 -> tcp/22\n"), "{told}");
    let told = good(&lab, "deny 10.0.0.8 tcp/22");
    assert!(!told.contains("in the database alone"), "{told}");
    let lines = "denied:\n  - {direction: in, peer: \"10.0.0.7\", service: tcp/22}\n  \
                 - {direction: in, peer: \"10.0.0.8\", service: tcp/22}\n";
    assert!(read(&lab).ends_with(lines), "{}", read(&lab));
    lose_database(&lab);
    Kernloom::run(&lab, binary(), &["shield", "detach", "--all", "--purge"]).unwrap();
    attached(&lab);
    good(&lab, "thaw");
    assert!(is_denied(&lab, "10.0.0.7", "22") && is_denied(&lab, "10.0.0.8", "22"));
    assert!(!is_denied(&lab, "10.0.0.7", "23"));
    // A line that is taken out lifts one.
    edit(
        &lab,
        "  - {direction: in, peer: \"10.0.0.7\", service: tcp/22}\n",
        "",
    );
    let told = good(&lab, "freeze --accept-edits");
    assert!(told.contains("- denied 10.0.0.7 -> tcp/22\n"), "{told}");
    assert!(!is_denied(&lab, "10.0.0.7", "22") && is_denied(&lab, "10.0.0.8", "22"));
    good(&lab, "allow 10.0.0.8 tcp/22");
    assert!(read(&lab).ends_with("denied: []\n"), "{}", read(&lab));
    assert!(!is_denied(&lab, "10.0.0.8", "22"));
}

/// What opens a host needs no database; what is shut in the file stays shut.
#[test]
fn a_denial_in_the_file_holds_where_the_database_is_broken() {
    let Some(lab) = lab("gbreak") else { return };
    attached(&lab);
    good(&lab, "allow 10.0.0.5 tcp/443");
    good(&lab, "freeze --accept-risk");
    good(&lab, "deny 10.0.0.7 tcp/22");
    std::fs::write(lab.state_dir().join("graph.db"), "no database").unwrap();
    good(&lab, "observe");
    assert!(is_denied(&lab, "10.0.0.7", "22"));
}

#[test]
fn a_file_from_before_denials_lifts_none_and_takes_them_in() {
    let Some(lab) = lab("golder") else { return };
    good(&lab, "allow 10.0.0.5 tcp/443");
    good(&lab, "freeze --accept-risk");
    let older = read(&lab).replace("denied: []\n", "");
    good(&lab, "deny office tcp/22 --group office=10.55.0.0/26");
    std::fs::write(file(&lab), &older).unwrap();
    std::fs::write(file(&lab).with_extension("yaml.accepted"), older).unwrap();
    assert!(good(&lab, "edges --state denied").contains("office"));
    let told = good(&lab, "diff --group office=10.55.0.0/26");
    assert!(told.contains("- office -> tcp/22\n"), "{told}");
    good(&lab, "allow 10.0.0.6 tcp/443 --group office=10.55.0.0/26");
    let denied = "denied:\n  - {direction: in, peer: \"office\", service: tcp/22}\n";
    assert!(read(&lab).ends_with(denied), "{}", read(&lab));
}

#[test]
fn what_was_taken_out_by_hand_comes_back_by_an_explicit_allow_alone() {
    let Some(lab) = lab("gtaken") else { return };
    good(&lab, "allow 10.0.0.5 tcp/443");
    good(&lab, "allow 10.0.0.6 tcp/443");
    good(&lab, "freeze --accept-risk");
    let line = "  - {direction: in, peer: \"10.0.0.6\", service: tcp/443}\n";
    edit(&lab, line, "");
    let told = good(&lab, "freeze --accept-edits");
    assert!(told.contains("- 10.0.0.6 -> tcp/443\n"), "{told}");
    assert!(good(&lab, "edges --state removed").contains("10.0.0.6"));
    assert!(good(&lab, "reset --yes").contains("removed from it"));
    let left = "left out: 10.0.0.6 -> tcp/443: removed by hand before; 'kernloom graph allow' lets it back\n";
    for words in ["freeze --accept-risk --dry-run", "freeze --accept-risk"] {
        let told = good(&lab, words);
        assert!(told.contains(left) && !told.contains("+ "), "{told}");
        assert!(!read(&lab).contains("10.0.0.6"));
    }
    good(&lab, "allow 10.0.0.6 tcp/443");
    assert!(read(&lab).contains(line));
    let told = good(&lab, "freeze --accept-risk");
    assert!(!told.contains("left out"), "{told}");
    // As another version of the file is checked out: what it lacks was taken out, too.
    let both = read(&lab);
    good(&lab, "allow 10.0.0.9 tcp/443");
    std::fs::write(file(&lab), both).unwrap();
    refused(&lab, "freeze --accept-risk");
    let told = good(&lab, "freeze --accept-edits");
    assert!(told.starts_with("- 10.0.0.9 -> tcp/443\n"), "{told}");
    let told = good(&lab, "freeze --accept-risk");
    assert!(told.contains("left out: 10.0.0.9 -> tcp/443"), "{told}");
    assert!(!read(&lab).contains("10.0.0.9"));
}

#[test]
fn diff_and_dry_run_look_at_the_file_on_disk() {
    let Some(lab) = lab("gdiff") else { return };
    good(&lab, "allow 10.0.0.5 tcp/443");
    good(&lab, "freeze --accept-risk");
    // A comment is no edit, and is kept.
    edit(&lab, "service: tcp/443}", "service: tcp/443}  # the portal");
    good(&lab, "allow 10.0.0.8 tcp/22");
    assert!(read(&lab).contains("  # the portal\n"));
    edit(&lab, "10.0.0.5", "10.0.0.6");
    let edited = "was edited and not accepted yet:\n- 10.0.0.5 -> tcp/443\n+ 10.0.0.6 -> tcp/443\n";
    let told = good(&lab, "diff");
    assert!(told.contains(edited), "{told}");
    assert!(told.contains("\n? 10.0.0.6 -> tcp/443\n"), "{told}");
    let before = read(&lab);
    let real = refused(&lab, "freeze --accept-risk");
    assert!(real.contains(edited), "{real}");
    assert_eq!(refused(&lab, "freeze --accept-risk --dry-run"), real);
    assert_eq!(read(&lab), before);
    let told = good(&lab, "freeze --accept-edits --dry-run");
    assert!(
        told.starts_with("- 10.0.0.5 -> tcp/443\n+ 10.0.0.6 -> tcp/443\n"),
        "{told}"
    );
    edit(&lab, "edges:", "edgs:");
    let told = good(&lab, "diff");
    assert!(
        told.contains("it cannot be read: ") && told.contains("mend that first"),
        "{told}"
    );
    assert!(!told.contains("takes it as it is"), "{told}");
    std::fs::remove_file(file(&lab)).unwrap();
    assert!(refused(&lab, "diff").contains("there is no frozen graph yet"));
}

#[test]
fn a_group_that_nobody_defines_any_more_is_told_and_fails_no_freeze() {
    let Some(lab) = lab("gundef") else { return };
    good(&lab, "allow 10.0.0.5 tcp/443");
    good(&lab, "allow office tcp/22 --group office=10.55.0.0/26");
    let left = "left out: office -> tcp/22: the group office is not defined\n";
    let foreseen = good(&lab, "freeze --accept-risk --dry-run");
    assert!(foreseen.contains(left), "{foreseen}");
    let told = good(&lab, "freeze --accept-risk");
    let (same, _) = foreseen.split_once("dry run:").unwrap();
    assert!(told.starts_with(same), "{told}\n{foreseen}");
    assert!(!read(&lab).contains("office"));
    // Frozen, it stays what it was.
    good(&lab, "freeze --accept-risk --group office=10.55.0.0/26");
    let before = read(&lab);
    assert!(before.contains("peer: \"office\""), "{before}");
    let told = good(&lab, "freeze --accept-risk");
    assert!(
        told.contains("kept: group office is not configured any more"),
        "{told}"
    );
    assert!(told.contains("\n2 edges are frozen"), "{told}");
    for line in ["  office: [\"10.55.0.0/26\"]\n", "peer: \"office\""] {
        assert!(read(&lab).contains(line), "{}", read(&lab));
    }
    // To leave a denial out would be to allow it: that is refused, and a dry run says so.
    lose_database(&lab);
    std::fs::remove_file(file(&lab)).unwrap();
    good(&lab, "allow 10.0.0.5 tcp/443");
    good(&lab, "deny office tcp/22 --group office=10.55.0.0/26");
    let real = refused(&lab, "freeze --accept-risk");
    assert!(real.contains("give --group office=PREFIX"), "{real}");
    assert_eq!(refused(&lab, "freeze --accept-risk --dry-run"), real);
}

/// Gives a host an address of the internet, which it speaks from.
fn speak_as(lab: &Lab, host: &Host, public: Ipv4Addr) {
    let lines =
        format!("addr add {public}/32 dev eth0\nroute replace default via 10.77.2.1 src {public}");
    host.net.ip(&lines).unwrap();
    let route = format!("route add {public}/32 via {}", host.v4);
    lab.router().ip(&route).unwrap();
}

/// Names for addresses must not decide whether they may.
#[test]
fn what_was_frozen_of_the_internet_holds_for_a_group_that_is_named_later() {
    let Some(lab) = lab("glater") else { return };
    let (server, one) = (lab.server(), lab.client("one").unwrap());
    let public = Ipv4Addr::new(192, 0, 2, 53);
    speak_as(&lab, one, public);
    let stop = Arc::new(AtomicBool::new(false));
    std::thread::scope(|scope| {
        let _end = Echo {
            stop: Arc::clone(&stop),
        };
        serve(scope, &server.net, &stop, &[443, 22], &[]);
        serve(scope, &one.net, &stop, &[], &[53]);
        let start = |group: &str| {
            let judge = ["--profile=idp", "--graph", "--interval=200ms", group];
            let iq = Kernloom::iq(&lab, binary(), &judge).unwrap();
            wait_until(SOON, "iq to answer", || {
                Ok(graph(&lab, "readiness").code == Some(0))
            })
            .unwrap();
            iq
        };
        let holds = || {
            tcp(&one.net, server.v4, 443, PATIENCE).unwrap();
            udp(&server.net, public, 53, 0, 60, PATIENCE).unwrap();
        };
        let first = start("--group=office=10.55.0.0/26");
        good(&lab, "allow internet tcp/443");
        good(&lab, "allow internet udp/53 --direction out");
        good(&lab, "freeze --accept-risk");
        good(&lab, "enforce --lease 0");
        holds();
        assert!(tcp(&one.net, server.v4, 22, SHORT).is_err());
        drop(first);
        let next = start("--group=dns=192.0.2.0/24");
        holds();
        assert!(tcp(&one.net, server.v4, 22, SHORT).is_err());
        let apart = "group dns is not in the frozen graph";
        assert!(next.text().contains(apart), "{}", next.text());
        assert!(good(&lab, "diff").contains(apart));
        // An edge of its own brings it in, with what it had.
        let told = good(&lab, "allow dns tcp/22");
        for line in [
            "+ group dns: 192.0.2.0/24\n",
            "+ dns -> tcp/443\n",
            "+ dns <- udp/53\n",
        ] {
            assert!(told.contains(line), "{told}");
        }
        holds();
        tcp(&one.net, server.v4, 22, PATIENCE).unwrap();
        assert!(!good(&lab, "diff").contains(apart));
        // What was learned is forgotten, what is frozen is not: the next freeze closes nothing.
        good(&lab, "reset --yes");
        let told = good(&lab, "freeze --accept-risk --dry-run");
        assert!(told.contains("\n- group office: 10.55.0.0/26\n"), "{told}");
        assert!(
            !told.contains("\n- internet") && !told.contains("\n- dns"),
            "{told}"
        );
    });
}

/// An IQ that goes by what is in force, once it answers.
fn start(lab: &Lab) -> Kernloom {
    let judge = ["--profile=idp", "--graph", "--interval=200ms"];
    let iq = Kernloom::iq(lab, binary(), &judge).unwrap();
    wait_until(SOON, "iq to answer", || {
        Ok(graph(lab, "readiness").code == Some(0))
    })
    .unwrap();
    iq
}

/// Leaves nothing but what is on disk.
fn reboot(lab: &Lab, iq: Kernloom) {
    drop(iq);
    Kernloom::run(lab, binary(), &["shield", "detach", "--all", "--purge"]).unwrap();
}

/// A reboot finds nothing attached: an edit that nobody accepted must not leave the host so.
#[test]
fn iq_starts_with_what_was_accepted_last_where_the_file_was_edited() {
    let Some(lab) = lab("gstart") else { return };
    let (server, one) = (lab.server(), lab.client("one").unwrap());
    let stop = Arc::new(AtomicBool::new(false));
    std::thread::scope(|scope| {
        let _end = Echo {
            stop: Arc::clone(&stop),
        };
        serve(scope, &server.net, &stop, &[443, 22], &[]);
        let holds = || {
            tcp(&one.net, server.v4, 443, PATIENCE).unwrap();
            assert!(tcp(&one.net, server.v4, 22, SHORT).is_err());
        };
        let iq = start(&lab);
        good(&lab, &format!("allow {} tcp/443", one.v4));
        good(&lab, "freeze --accept-risk");
        good(&lab, "enforce --lease 0");
        let older = read(&lab);
        good(&lab, "allow 10.0.0.9 tcp/22");
        let sound = read(&lab);
        reboot(&lab, iq);
        let line = format!(
            "edges:\n  - {{direction: in, peer: \"{}\", service: tcp/22}}\n",
            one.v4
        );
        let damaged = sound.replace("edges:", "edgs:");
        let edited = sound.replace("edges:\n", &line);
        for (text, why) in [
            (None, "is gone"),
            (Some(&damaged), "unknown field `edgs`"),
            (Some(&edited), "it was edited or damaged"),
            (
                Some(&older),
                "is not what was accepted last; 'kernloom graph diff'",
            ),
        ] {
            match text {
                Some(text) => std::fs::write(file(&lab), text).unwrap(),
                None => std::fs::remove_file(file(&lab)).unwrap(),
            }
            let iq = start(&lab);
            let said = iq.text();
            for part in [why, "what was accepted last is in force (/"] {
                assert!(said.contains(part), "{part}: {said}");
            }
            assert!(good(&lab, "show").contains("frozen-enforce"));
            holds();
            if text.is_some() {
                refused(&lab, "allow 10.0.0.8 tcp/443");
                refused(&lab, "enforce --lease 0");
                holds();
            }
            reboot(&lab, iq);
        }
        std::fs::write(file(&lab), &edited).unwrap();
        let iq = start(&lab);
        is_taken(&lab, &format!("+ {} -> tcp/22\n", one.v4));
        tcp(&one.net, server.v4, 22, PATIENCE).unwrap();
        reboot(&lab, iq);
    });
}

/// Accepts the edits, and that is what counts from then on.
fn is_taken(lab: &Lab, added: &str) {
    let told = good(lab, "freeze --accept-edits");
    assert!(told.starts_with(added), "{told}");
    let kept = file(lab).with_extension("yaml.accepted");
    assert_eq!(std::fs::read_to_string(&kept).unwrap(), read(lab));
}

#[test]
fn an_allow_says_where_the_group_is_not_who_it_was_frozen_as() {
    let Some(lab) = lab("gapart") else { return };
    good(&lab, "allow office tcp/443 --group office=10.55.0.0/26");
    good(&lab, "freeze --accept-risk --group office=10.55.0.0/26");
    let apart = "group office is configured otherwise than it was frozen: until 'kernloom graph freeze', \
                 its members are judged as before\n";
    let told = good(&lab, "allow office tcp/22 --group office=10.55.0.0/24");
    assert!(told.contains(apart), "{told}");
    let told = good(&lab, "allow office tcp/23 --group office=10.55.0.0/26");
    assert!(!told.contains("configured otherwise"), "{told}");
    // What no packet can match is not accepted from a file, either.
    edit(
        &lab,
        "peer: \"office\", service: tcp/22",
        "peer: \"127.0.0.1\", service: tcp/22",
    );
    let said = refused(&lab, "freeze --accept-edits");
    assert!(said.contains("127.0.0.1 is a loopback address"), "{said}");
}

/// A profile is written for many hosts, before there is a frozen graph on this one.
#[test]
fn a_profile_that_asks_for_a_graph_not_frozen_yet_protects_and_learns() {
    let Some(lab) = lab("gnotyet") else { return };
    let profile = lab.dir().join("frozen.yaml");
    let text = include_str!("../../../profiles/web-server.yaml");
    let spec = "\nspec:\n  graph:\n    enabled: true\n    mode: frozen-observe\n";
    std::fs::write(&profile, text.replacen("\nspec:\n", spec, 1)).unwrap();
    let judge = format!("--pdp-config={}", profile.display());
    let mut iq = Kernloom::iq(&lab, binary(), &[&judge]).unwrap();
    let told = "the profile asks for frozen-observe, but there is no frozen graph yet";
    let line = iq.wait_line(SOON, told).unwrap();
    assert!(
        line.text.contains("ERROR") && line.text.contains("graph freeze"),
        "{line:?}"
    );
    iq.wait_line(SOON, "a tick every").unwrap();
    assert!(good(&lab, "show").contains("learn"));
    good(&lab, "allow 10.0.0.5 tcp/443");
    good(&lab, "freeze --accept-risk");
    drop(iq);
    let mut next = Kernloom::iq(&lab, binary(), &[&judge]).unwrap();
    next.wait_line(SOON, "a tick every").unwrap();
    assert!(good(&lab, "show").contains("frozen-observe"));
    drop(next);
    // A file that is there and no graph, and nothing that was accepted before, is another matter.
    std::fs::remove_file(file(&lab).with_extension("yaml.accepted")).unwrap();
    std::fs::write(lab.state_dir().join("frozen-graph.yaml"), "{").unwrap();
    let said = Kernloom::ask(&lab, binary(), &["iq", "--iface=eth0", &judge]).unwrap();
    assert_eq!(said.code, Some(2), "{said:?}");
}
