//! What the doctor finds is what the other commands meet.

use super::attach::second_interface;
use super::{Bench, json};

/// The line of a subject, and its mend below it, if there is one.
fn finding(said: &str, subject: &str) -> (String, String) {
    let mut lines = said.lines();
    let line = lines.find(|line| line[10..].starts_with(&format!("{subject} ")));
    let mend = lines
        .next()
        .and_then(|line| line.trim().strip_prefix("mend: "));
    (
        line.unwrap_or_else(|| panic!("no {subject}: {said}"))
            .to_owned(),
        mend.unwrap_or_default().to_owned(),
    )
}

/// Being root was taken for every right, and a missing one blamed on sudo and locked memory.
#[test]
fn the_doctor_and_attach_name_the_capability_that_is_missing() {
    let Some(bench) = Bench::new("rights") else {
        return;
    };
    for (given, missing) in [
        ("+bpf,+net_admin", "CAP_PERFMON"),
        ("+bpf,+perfmon", "CAP_NET_ADMIN"),
        ("+net_admin,+perfmon", "CAP_BPF"),
        ("+net_admin", "CAP_BPF and CAP_PERFMON"),
    ] {
        let said = bench.say_with_only(given, &["shield", "doctor", "eth0"]);
        assert_eq!(said.code, 1, "{given}: {}{}", said.out, said.err);
        let (found, mend) = finding(&said.out, "rights");
        assert_eq!(found, format!("prevents  rights     {missing} missing"));
        assert!(mend.contains("CapabilityBoundingSet"), "{mend}");
        let said = bench.say_with_only(given, &["shield", "attach", "eth0", "--no-guard"]);
        assert_eq!(said.code, 2, "{given}: {}{}", said.out, said.err);
        let why = format!("needs {missing}, which this process lacks");
        assert!(said.err.contains(&why), "{given}: {}", said.err);
        assert!(
            !said.err.contains("sudo") && !said.err.contains("memory"),
            "{}",
            said.err
        );
    }
    for given in ["+bpf,+net_admin,+perfmon", "+sys_admin"] {
        let said = bench.say_with_only(given, &["shield", "doctor", "eth0"]);
        assert_eq!(said.code, 0, "{given}: {}{}", said.out, said.err);
        let said = bench.say_with_only(given, &["shield", "attach", "eth0", "--no-guard"]);
        assert_eq!(said.code, 0, "{given}: {}{}", said.out, said.err);
        bench.ok(&["shield", "detach", "--all", "--purge"]);
    }
    let said = bench.say_as_nobody(&["shield", "doctor", "eth0"]);
    assert_eq!(said.code, 1, "{}{}", said.out, said.err);
    assert_eq!(
        finding(&said.out, "rights"),
        (
            "prevents  rights     CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON missing".to_owned(),
            "run it with sudo, or give it CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON".to_owned()
        )
    );
}

/// A full table of a million entries got the all-clear, and the figures of an empty default one.
#[test]
fn the_doctor_tells_what_is_loaded_and_that_it_is_full() {
    let Some(bench) = Bench::new("full") else {
        return;
    };
    let sizes = ["--sources", "4096", "--max-deny", "64"];
    bench.ok(&[&["shield", "attach", "eth0", "--no-guard"], &sizes[..]].concat());
    let doctor = || bench.ok(&["shield", "doctor", "eth0"]);
    let policy = |said: &str| finding(said, "policy");
    let list: String = (1..=58).map(|last| format!("192.0.2.{last}\n")).collect();
    let rows: Vec<&str> = list.lines().collect();
    let import = |rows: &[&str]| {
        let said = bench.feed(&["shield", "deny", "import", "-"], &rows.join("\n"));
        assert_eq!(said.code, 0, "{}", said.err);
    };
    import(&rows[..57]);
    let said = doctor();
    assert_eq!(policy(&said).0, "fine      policy     57 of 64 entries");
    import(&rows[57..]);
    let said = doctor();
    assert_eq!(
        policy(&said),
        (
            "notice    policy     58 of 64 entries".to_owned(),
            "kernloom shield upgrade --max-deny 128, or remove some; a full table takes no new entry"
                .to_owned()
        )
    );
    let (memory, _) = finding(&said, "memory");
    let bytes = json(&bench.ok(&["shield", "status", "--json"]))["memory_bytes"].as_u64();
    let tenths = (bytes.unwrap() * 10) >> 20;
    let now = format!("{}.{} MiB now, at most ", tenths / 10, tenths % 10);
    assert!(memory.contains(&now), "{memory}: {now}");
    assert!(memory.ends_with(" with 64 policy entries"), "{memory}");
    assert!(
        finding(&said, "sources")
            .0
            .contains(" of 4096 entries, 0 replaced"),
        "{said}"
    );
    // Other sizes are predicted beside what is there.
    let said = bench.ok(&["shield", "doctor", "eth0", "--max-deny", "1000000"]);
    assert!(
        said.contains("once loaded, at most") && said.contains("58 of 64"),
        "{said}"
    );
}

#[test]
fn a_smaller_mtu_is_no_mend_for_a_driver_without_xdp() {
    let Some(bench) = Bench::new("doctor-lo") else {
        return;
    };
    let said = bench.say(&["shield", "doctor", "lo"]);
    let (mode, mend) = finding(&said.out, "mode");
    assert!(
        mode.contains("generic mode expected: ") && mode.ends_with(" has no XDP"),
        "{mode}"
    );
    assert_eq!(mend, "");
}

/// Seen by a reader whose limit of packets let a multiple pass.
#[test]
fn in_tc_mode_attach_and_the_doctor_say_that_merged_packets_count_as_one() {
    let Some(bench) = Bench::new("merged") else {
        return;
    };
    let merged = "packets that GRO merged count as one in tc mode, so limits in packets let more of them pass";
    let mend = "'ethtool -K eth0 gro off', or limits in bytes";
    let attach = ["shield", "attach", "eth0", "--no-guard", "--mode"];
    let attach = |mode: &str| bench.ok(&[&attach[..], &[mode]].concat());
    assert_eq!(
        attach("tc"),
        format!("eth0: attached in tc mode\neth0: {merged}; {mend}\n")
    );
    let said = bench.ok(&["shield", "doctor", "eth0"]);
    assert_eq!(
        finding(&said, "gro"),
        (format!("notice    gro        {merged}"), mend.to_owned())
    );
    bench.ok(&["shield", "detach", "--all", "--purge"]);
    assert_eq!(attach("driver"), "eth0: attached in driver mode\n");
    let said = bench.ok(&["shield", "doctor", "eth0"]);
    assert!(!said.contains("GRO"), "{said}");
}

/// Without a name it looked at the interface of the default route, whatever was protected.
#[test]
fn the_doctor_looks_at_what_is_protected_or_is_to_be() {
    let Some(bench) = Bench::new("doctor-all") else {
        return;
    };
    second_interface(&bench);
    let settings = bench.lab.config();
    let settings = settings.to_str().unwrap();
    let looked_at = |given: &[&str]| -> Vec<String> {
        let report = json(&bench.ok(&[&["shield", "doctor", "--json"], given].concat()));
        let findings = report["findings"].as_array().unwrap().clone();
        let about = |subject: &str| -> Vec<String> {
            let of = findings.iter().filter(|one| one["subject"] == subject);
            of.map(|one| one["interface"].as_str().unwrap().to_owned())
                .collect()
        };
        let interfaces = about("interface");
        assert_eq!(about("mode"), interfaces);
        let host = findings.iter().find(|one| one["subject"] == "kernel");
        assert!(host.unwrap()["interface"].is_null());
        interfaces
    };
    assert_eq!(looked_at(&[]), ["eth0"], "of the default route");
    bench.ok(&["shield", "attach", "eth1", "--no-guard"]);
    assert_eq!(looked_at(&[]), ["eth1"], "attached to");
    std::fs::write(settings, "iface = ['eth0', 'eth1']\n").unwrap();
    assert_eq!(looked_at(&["--config", settings]), ["eth0", "eth1"]);
    assert_eq!(looked_at(&["--config", settings, "eth1"]), ["eth1"]);
    let said = bench.refused(&["shield", "doctor", "eth0", "eth9"], 2);
    assert!(said.contains("no interface 'eth9'"), "{said}");
}
