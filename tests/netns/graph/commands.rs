//! What the graph's verbs say to wrong input and missing rights, and what a verdict tells of it.

use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use super::{SOON, binary, decided, good, graph};
use crate::lab::{Kernloom, Lab, Plan, private};

fn lab(name: &str) -> Option<Lab> {
    let plan = Plan {
        clients: &["one"],
        office_hosts: 0,
    };
    Lab::for_test(name, &plan)
}

fn refused(lab: &Lab, words: &str, why: &str) {
    let said = graph(lab, words);
    assert_eq!(said.code, Some(2), "graph {words}: {said:?}");
    assert!(said.err.contains(why), "graph {words}: {}", said.err);
}

const WRONG: &[(&str, &str)] = &[
    ("enforce", "start 'kernloom iq --graph'"),
    ("observe", "start 'kernloom iq --graph'"),
    ("thaw", "start 'kernloom iq --graph'"),
    ("confirm", "start 'kernloom iq --graph'"),
    ("violations", "start 'kernloom iq --graph'"),
    ("violations --json", "start 'kernloom iq --graph'"),
    ("diff", "there is no frozen graph yet"),
    ("enforce --lease soon", "soon"),
    ("freeze", "freeze with --accept-risk. Nothing was changed"),
    (
        "freeze --only 5432",
        "'5432' is not a service; write it like tcp/443",
    ),
    ("freeze --accept-edits", "frozen-graph.yaml"),
    (
        "edges --state frosen",
        "no state 'frosen'; there are candidate, learned",
    ),
    (
        "allow ofice tcp/443",
        "'ofice' is no group that is defined, and no address or prefix",
    ),
    (
        "allow fd55::/112 tcp/443",
        "fd55::/112 is neither one address nor fd55::/64: name one of those, or make it a group",
    ),
    (
        "freeze --only tcp/22 --accept-risk",
        "no accepted edge uses tcp/22",
    ),
    (
        "allow 10.0.0.0/8 tcp/443",
        "make it a group: --group name=10.0.0.0/8",
    ),
    ("allow 10.0.0.5 tcp/99999", "'tcp/99999' is not a service"),
    ("allow 10.0.0.5", "<SERVICE>"),
    (
        "deny any tcp/443",
        "give --direction cast and 'any' together",
    ),
    (
        "allow fd55::2 icmp",
        "fd55::2 is no icmp peer: icmp is IPv4 alone; write icmp6",
    ),
    (
        "allow 10.0.0.5 tcp/443 icmp6",
        "10.0.0.5 is no icmp6 peer: icmp6 is IPv6 alone; write icmp",
    ),
    (
        "allow 224.0.0.251 udp/5353",
        "224.0.0.251 is a multicast address",
    ),
    ("deny ff02::fb udp/5353", "give --direction cast and 'any'"),
    (
        "allow 255.255.255.255 udp/67 --direction out",
        "255.255.255.255 is the broadcast address",
    ),
    ("allow 127.0.0.1 tcp/22", "127.0.0.1 is a loopback address"),
    ("allow ::1 tcp/22", "::1 is a loopback address"),
    (
        "allow ::/64 tcp/22",
        "::/64 is the unspecified address or prefix",
    ),
    (
        "deny 10.0.0.5 tcp/443 --direction up",
        "'up' is not a direction; it is one of in, out and cast",
    ),
    (
        "export --format pdf",
        "possible values: dot, mermaid, json, yaml, html",
    ),
    ("export", "--format"),
    ("reset", "--yes"),
    ("shw", "show"),
];

#[test]
fn every_verb_says_what_is_wrong_and_how_to_mend_it() {
    let Some(lab) = lab("gwords") else { return };
    for (words, why) in WRONG {
        refused(&lab, words, why);
    }
    let said = graph(&lab, "export --format dot -o /nowhere/graph.dot");
    assert_eq!(said.code, Some(2), "{said:?}");
    assert!(said.err.contains("/nowhere/graph.dot"), "{said:?}");
    // A device is written to, not replaced by a file.
    good(&lab, "export --format dot -o /dev/null");
    assert!(!std::fs::metadata("/dev/null").unwrap().is_file());
}

#[test]
fn w42_a_mistyped_dry_run_freezes_nothing() {
    let Some(lab) = lab("gtypo") else { return };
    good(&lab, "allow 10.0.0.5 tcp/443");
    refused(&lab, "freeze --accept-risk --dryrun", "--dry-run");
    let file = lab.state_dir().join("frozen-graph.yaml");
    assert!(!file.exists());
    let foreseen = good(&lab, "freeze --accept-risk --dry-run");
    assert!(foreseen.contains("+ 10.0.0.5 -> tcp/443"), "{foreseen}");
    assert!(!foreseen.contains("it would be refused"), "{foreseen}");
    let foreseen = good(&lab, "freeze --dry-run");
    let risky =
        "it would be refused: the risk is above 5 %: learn longer, or freeze with --accept-risk\n";
    assert!(foreseen.contains(risky), "{foreseen}");
    assert!(!file.exists());
    good(&lab, "freeze --accept-risk");
    assert!(file.exists());
}

/// The file is read, verified, and refused: also by an IQ, which then attaches to nothing.
#[test]
fn w41_a_frozen_file_that_was_edited_is_not_enforced_until_it_is_accepted() {
    let Some(lab) = lab("gedit") else { return };
    Kernloom::run(
        &lab,
        binary(),
        &["shield", "attach", "eth0", "--features", "graph"],
    )
    .unwrap();
    good(&lab, "allow 10.0.0.5 tcp/443");
    good(&lab, "freeze --accept-risk");
    let file = lab.state_dir().join("frozen-graph.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("10.0.0.5", "10.0.0.6")).unwrap();
    refused(&lab, "enforce", "--accept-edits");
    Kernloom::run(&lab, binary(), &["shield", "detach", "--all", "--purge"]).unwrap();
    // Nor is there what was accepted before it.
    std::fs::remove_file(lab.state_dir().join("frozen-graph.yaml.accepted")).unwrap();
    let judge = [
        "iq",
        "--iface=eth0",
        "--profile=idp",
        "--graph",
        "--graph-mode=frozen-enforce",
    ];
    let said = Kernloom::ask(&lab, binary(), &judge).unwrap();
    assert_eq!(said.code, Some(2), "{said:?}");
    assert!(said.err.contains("--accept-edits"), "{said:?}");
    assert!(!lab.bpffs().join("program").exists(), "nothing is attached");
    let accepted = good(&lab, "freeze --accept-edits");
    assert!(accepted.contains("1 edge is frozen"), "{accepted}");
    let read = std::fs::read_to_string(&file).unwrap();
    assert!(
        read.contains("10.0.0.6") && !read.contains("10.0.0.5"),
        "{read}"
    );
}

#[test]
fn an_iq_that_cannot_begin_leaves_no_graph_and_a_graph_is_roots_alone() {
    let Some(lab) = lab("gleft") else { return };
    let store = lab.state_dir().join("graph.db");
    for (more, why) in [
        ("--graph-mode=frozen-enforce", "there is no frozen graph"),
        ("--metrics-listen=192.0.2.1:1", "192.0.2.1:1"),
    ] {
        let words = ["iq", "--iface=eth0", "--profile=idp", "--graph", more];
        let said = Kernloom::ask(&lab, binary(), &words).unwrap();
        assert!(said.code > Some(0) && said.err.contains(why), "{said:?}");
        let mut files = std::fs::read_dir(lab.state_dir()).unwrap();
        let left = files.find(|file| file.as_ref().unwrap().path() == store);
        assert!(left.is_none(), "{more}: {left:?}");
    }
    good(&lab, "allow 10.0.0.5 tcp/443");
    let mode = |path: &Path| std::fs::metadata(path).unwrap().mode() & 0o777;
    assert_eq!(mode(&store), 0o600);
    // As one from before would be.
    std::fs::set_permissions(&store, Permissions::from_mode(0o644)).unwrap();
    good(&lab, "show");
    assert_eq!(mode(&store), 0o600);
}

fn attached(lab: &Lab) {
    let attach = ["shield", "attach", "eth0", "--features", "graph"];
    Kernloom::run(lab, binary(), &attach).unwrap();
}

#[test]
fn an_edited_file_is_neither_enforced_nor_written_over() {
    let Some(lab) = lab("gover") else { return };
    attached(&lab);
    good(&lab, "allow 10.0.0.5 tcp/443");
    good(&lab, "freeze --accept-risk");
    let file = lab.state_dir().join("frozen-graph.yaml");
    let edited = std::fs::read_to_string(&file)
        .unwrap()
        .replace("10.0.0.5", "10.0.0.6");
    std::fs::write(&file, &edited).unwrap();
    for words in [
        "enforce",
        "observe",
        "allow 10.0.0.7 tcp/22",
        "deny 10.0.0.5 tcp/443",
        "freeze --accept-risk",
    ] {
        refused(&lab, words, "--accept-edits");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), edited, "{words}");
    }
    good(&lab, "freeze --accept-edits");
    good(&lab, "allow 10.0.0.7 tcp/22");
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(
        text.contains("10.0.0.6") && text.contains("10.0.0.7"),
        "{text}"
    );
}

#[test]
fn a_group_that_is_newer_than_the_freeze_goes_into_the_file_with_its_edge() {
    let Some(lab) = lab("gnewer") else { return };
    good(&lab, "allow 10.0.0.5 tcp/443");
    good(&lab, "freeze --accept-risk");
    good(&lab, "allow office tcp/22 --group office=10.55.0.0/26");
    let text = std::fs::read_to_string(lab.state_dir().join("frozen-graph.yaml")).unwrap();
    assert!(text.contains("\n  office: [\"10.55.0.0/26\"]\n"), "{text}");
    // Readable by whoever knows nothing of the group.
    assert!(good(&lab, "show").contains("office"));
}

#[test]
fn nobody_is_shut_out_by_an_empty_graph() {
    let Some(lab) = lab("gempty") else { return };
    attached(&lab);
    good(&lab, "allow 10.0.0.5 tcp/443");
    good(&lab, "freeze --accept-risk");
    good(&lab, "enforce --lease 0");
    let file = lab.state_dir().join("frozen-graph.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    let edges = text.find("edges:").unwrap();
    std::fs::write(&file, format!("{}edges: []\n", &text[..edges])).unwrap();
    refused(
        &lab,
        "freeze --accept-edits",
        "'kernloom graph observe' first",
    );
    refused(&lab, "deny 10.0.0.5 tcp/443", "--accept-edits");
    std::fs::write(&file, &text).unwrap();
    refused(
        &lab,
        "deny 10.0.0.5 tcp/443",
        "'kernloom graph observe' first",
    );
    assert!(good(&lab, "show").contains("frozen-enforce"));
}

/// What opens a host again needs no database, and what was frozen outlives one.
#[test]
fn a_broken_database_keeps_no_host_shut_and_a_new_one_knows_what_is_frozen() {
    let Some(lab) = lab("gbroken") else { return };
    attached(&lab);
    good(&lab, "allow 10.0.0.5 tcp/443");
    good(&lab, "freeze --accept-risk");
    good(&lab, "enforce --lease 1h");
    let store = lab.state_dir().join("graph.db");
    std::fs::write(&store, "no database").unwrap();
    assert_eq!(graph(&lab, "show").code, Some(1));
    assert_eq!(graph(&lab, "deny 10.0.0.5 tcp/443").code, Some(1));
    for words in ["confirm", "observe", "thaw"] {
        let told = good(&lab, words);
        assert!(
            told.contains("it is not stored, and lasts until 'kernloom iq' starts"),
            "{told}"
        );
    }
    std::fs::remove_file(&store).unwrap();
    good(&lab, "allow 10.0.0.6 tcp/443");
    let told = good(&lab, "edges --state frozen");
    assert!(told.contains("10.0.0.5"), "{told}");
    let told = good(&lab, "freeze --accept-risk");
    assert!(told.contains("\n2 edges are frozen"), "{told}");
}

#[test]
fn a_lease_says_what_it_falls_back_to_and_what_shuts_management_out() {
    let Some(lab) = lab("gback") else { return };
    attached(&lab);
    let shield = |words: &str| {
        let words: Vec<&str> = ["shield"].into_iter().chain(words.split(' ')).collect();
        Kernloom::run(&lab, binary(), &words).unwrap()
    };
    shield("management add 10.55.0.64/26");
    good(&lab, "allow 10.0.0.5 tcp/443");
    good(&lab, "freeze --accept-risk");
    let lease = "frozen-enforce for 1h; 'kernloom graph confirm' keeps it, else the kernel goes back by itself, to \
                 the off of before\n";
    assert_eq!(good(&lab, "enforce --lease 1h"), lease);
    shield("allow add 10.55.0.66");
    let own = "warning: 10.55.0.66 in the management address 10.55.0.64/26 has an entry of its own, and needs edges \
               as anybody does; 'kernloom shield management add 10.55.0.66' exempts it\n";
    assert_eq!(good(&lab, "enforce --lease 1h"), format!("{lease}{own}"));
    shield("management add 10.55.0.66");
    let denied = "warning: 10.55.0.70 -> tcp/22 is denied, and the management address 10.55.0.64/26 with it; \
                  'kernloom graph allow 10.55.0.70 tcp/22' takes that back\n";
    assert_eq!(
        decided(&lab, "deny 10.55.0.70 tcp/22"),
        format!("denied: 10.55.0.70 -> tcp/22\n{denied}")
    );
    assert_eq!(
        good(&lab, "enforce --lease 0"),
        format!("frozen-enforce\n{denied}")
    );
    // What is denied to leave keeps nobody out.
    assert!(!good(&lab, "deny 10.55.0.66 tcp/22 --direction out").contains("warning"));
    let named = good(&lab, "deny office tcp/22 --group office=10.55.0.0/24");
    assert!(named.contains("10.55.0.64/26 with it") && named.contains("10.55.0.66 with it"));
}

/// The settings' management addresses are entered before anything could shut them out.
#[test]
fn enforcing_enters_the_management_addresses_of_the_settings() {
    let Some(lab) = lab("gsettings") else { return };
    attached(&lab);
    good(&lab, "allow 10.0.0.5 tcp/443");
    good(&lab, "freeze --accept-risk");
    let told = good(&lab, "enforce --lease 0 --management 10.55.0.66");
    assert_eq!(told, "guard: 10.55.0.66 is managed from\nfrozen-enforce\n");
    let told = good(&lab, "enforce --lease 0 --management 10.55.0.66");
    assert_eq!(told, "frozen-enforce\n");
    let ask = ["shield", "verdict", "10.55.0.66", "--dport", "22"];
    let said = Kernloom::run(&lab, binary(), &ask).unwrap();
    assert!(said.starts_with("10.55.0.66: pass (allow)\n"), "{said}");
}

/// The graph that judges stays within reach of its commands, whoever runs.
#[test]
fn an_iq_without_graph_keeps_the_one_in_force() {
    let Some(lab) = lab("gkept") else { return };
    attached(&lab);
    good(&lab, "allow 10.0.0.5 tcp/443");
    good(&lab, "freeze --accept-risk");
    good(&lab, "enforce --lease 0");
    let mut iq = Kernloom::iq(&lab, binary(), &["--profile=idp"]).unwrap();
    iq.wait_line(SOON, "the graph is kept without --graph")
        .unwrap();
    iq.wait_line(SOON, "a tick every").unwrap();
    good(&lab, "observe");
    assert!(good(&lab, "show").contains("frozen-observe"));
    good(&lab, "thaw");
}

/// The running IQ has groups of its own; what a command says of them would be ignored.
#[test]
fn a_group_given_to_a_command_is_refused_where_an_iq_runs() {
    let Some(lab) = lab("ggiven") else { return };
    let mut iq = Kernloom::iq(&lab, binary(), &["--profile=idp", "--graph"]).unwrap();
    iq.wait_line(SOON, "a tick every").unwrap();
    for words in ["allow office tcp/22", "show", "allow 10.0.0.5 tcp/443"] {
        let words = format!("{words} --group office=10.55.0.0/26");
        refused(
            &lab,
            &words,
            "--group says nothing to an iq that runs: give it to 'kernloom iq', or write it to",
        );
    }
    let managed = "enforce --management 10.55.0.66 --group office=10.55.0.0/26";
    refused(&lab, managed, "--group says nothing to an iq that runs");
    let entries = Kernloom::run(&lab, binary(), &["shield", "management", "list"]).unwrap();
    assert!(!entries.contains("10.55.0.66"), "{entries}");
    assert!(!good(&lab, "edges").contains("10.0.0.5"));
    let other = "allow 10.0.0.5 tcp/443 --store=/nowhere/graph.db";
    refused(
        &lab,
        other,
        "would not look at the /nowhere/graph.db of --store",
    );
    assert!(!good(&lab, "edges").contains("10.0.0.5"));
    let same = lab.state_dir().join("graph.db");
    let same = format!("edges --store={}", same.display());
    assert_eq!(good(&lab, &same), good(&lab, "edges"));
    drop(iq);
    good(&lab, "allow office tcp/22 --group office=10.55.0.0/26");
}

#[test]
fn without_rights_every_verb_says_so() {
    let Some(lab) = lab("grights") else { return };
    // A copy where nobody may read and run it; the build's directory may be closed to them.
    let copy = lab.dir().join("kernloom");
    std::fs::copy(binary(), &copy).unwrap();
    for verb in [
        "show",
        "edges",
        "readiness",
        "freeze --accept-risk",
        "thaw",
        "diff",
        "allow 10.0.0.5 tcp/443",
        "deny 10.0.0.5 tcp/443",
        "violations",
        "export --format json",
        "enforce",
        "observe",
        "confirm",
        "reset --yes",
    ] {
        let mut command = Command::new(&copy);
        command
            .uid(65_534)
            .gid(65_534)
            .arg("graph")
            .args(verb.split(' '));
        private(&mut command, &lab);
        let output = command.output().unwrap();
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{verb}: {err}");
        assert!(err.contains("sudo"), "{verb}: {err}");
    }
}

#[test]
fn a_verdict_tells_the_edge_that_decides_and_the_mode() {
    let Some(lab) = lab("gverdict") else { return };
    let run = |words: &str| {
        let words: Vec<&str> = words.split(' ').collect();
        Kernloom::run(&lab, binary(), &words).unwrap()
    };
    run("shield attach eth0 --features graph --no-guard");
    let ask = |rest: &str| run(&format!("shield verdict {rest}"));
    assert_eq!(
        ask("10.0.0.5 --dport 443"),
        "10.0.0.5: pass (pass)\nno entry decided\n"
    );
    good(&lab, "allow 10.0.0.5 tcp/443 icmp");
    good(&lab, "allow internet tcp/80");
    good(&lab, "freeze --accept-risk");
    good(&lab, "enforce --lease 0");
    let edge = |said: String| said.lines().last().unwrap().to_owned();
    assert_eq!(
        ask("10.0.0.5 --dport 443"),
        "10.0.0.5: pass (pass)\nno entry decided\ngraph: frozen-enforce, allowed by 10.0.0.5 -> tcp/443\n"
    );
    assert_eq!(
        ask("10.0.0.5 --dport 22"),
        "10.0.0.5: drop (edge-unknown)\nno entry decided\ngraph: frozen-enforce, there is no 10.0.0.5 -> tcp/22\n"
    );
    assert_eq!(
        edge(ask("10.0.0.5 --proto icmp")),
        "graph: frozen-enforce, allowed by 10.0.0.5 -> icmp"
    );
    assert_eq!(
        edge(ask("192.0.2.9 --dport 80")),
        "graph: frozen-enforce, allowed by internet -> tcp/80"
    );
    assert_eq!(
        ask("2001:db8:9::1 --dport 22 --json"),
        "{\"schema\":\"kernloom.verdict/1\",\"source\":\"2001:db8:9::1\",\"verdict\":\"drop\",\"reason\":\"edge-unknown\",\"entry\":null,\
         \"graph\":{\"mode\":\"frozen-enforce\",\"answer\":\"unknown\",\"edge\":\"2001:db8:9::1 -> tcp/22\"}}\n"
    );
    good(&lab, "deny 10.0.0.5 tcp/443");
    assert_eq!(
        edge(ask("10.0.0.5 --dport 443")),
        "graph: frozen-enforce, denied by 10.0.0.5 -> tcp/443"
    );
    good(&lab, "allow 2001:db8:9::5 tcp/22");
    good(&lab, "allow fd66::/64 tcp/22");
    for (source, told) in [
        ("2001:db8:9::5", "allowed by 2001:db8:9::5 -> tcp/22"),
        ("2001:db8:9::6", "there is no 2001:db8:9::6 -> tcp/22"),
        ("fd66::2", "allowed by fd66::/64 -> tcp/22"),
    ] {
        let said = edge(ask(&format!("{source} --dport 22")));
        assert_eq!(said, format!("graph: frozen-enforce, {told}"));
    }
    run("shield deny add 10.0.0.5 --reason scanner");
    assert_eq!(
        edge(ask("10.0.0.5 --dport 443")),
        "graph: frozen-enforce, not asked: dropped before"
    );
    // Asking left no trace.
    assert_eq!(super::counted(&lab, "edge-"), 0);
    assert!(!good(&lab, "violations").contains("10.0.0.5"));
}

/// Of a permitted prefix one is shut out; forgetting what was learned must not let it in.
#[test]
fn what_is_denied_stays_so_when_what_was_learned_is_forgotten() {
    let Some(lab) = lab("gdenied") else { return };
    let run = |words: &str| {
        let words: Vec<&str> = words.split(' ').collect();
        Kernloom::run(&lab, binary(), &words).unwrap()
    };
    run("shield attach eth0 --features graph --no-guard");
    good(&lab, "allow fd55::/64 tcp/22");
    good(&lab, "freeze --accept-risk");
    good(&lab, "enforce --lease 0");
    good(&lab, "deny fd55::3 tcp/22");
    let shut_out = || run("shield verdict fd55::3 --dport 22").contains("drop (edge-denied)");
    assert!(shut_out());
    assert!(good(&lab, "reset --yes").contains("the frozen file stays, and what is denied"));
    assert!(shut_out());
}
