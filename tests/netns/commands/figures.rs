use super::{Bench, json};

#[test]
fn figures_are_machine_readable() {
    let Some(bench) = Bench::new("json") else {
        return;
    };
    bench.ok(&[
        "shield",
        "attach",
        "eth0",
        "--sources",
        "4096",
        "--max-deny",
        "64",
        "--no-guard",
    ]);
    bench.ok(&["shield", "limit", "default", "--rate", "10mbit"]);
    bench.ok(&[
        "shield",
        "limit",
        "set",
        "192.0.2.7",
        "--rate",
        "200pps",
        "--scope",
        "new",
    ]);
    let mut status = json(&bench.ok(&["shield", "status", "--json"]));
    for varies in ["packets", "dropped", "memory_bytes"] {
        assert!(status[varies].is_u64(), "{varies}");
        status[varies] = 0.into();
    }
    status["interfaces"][0]["ifindex"] = 0.into();
    status["sources"]["used"] = 0.into();
    assert_eq!(
        status,
        serde_json::json!({
            "schema": "kernloom.status/1",
            "interfaces": [{"interface": "eth0", "ifindex": 0, "mode": "driver"}],
            "interfaces_gone": 0,
            "enforce_allow": {"state": "off", "falls_back_in_seconds": null},
            "default_limit": {"scope": "all", "unit": "bytes", "rate": 1_250_000, "burst": 1_250_000},
            "policy": {"used": 1, "capacity": 64},
            "sources": {"used": 0, "capacity": 4096},
            "sources_replaced": 0, "packets": 0, "dropped": 0, "memory_bytes": 0,
            "upgrade_waits": false,
        })
    );
    assert_eq!(
        json(&bench.ok(&["shield", "limit", "list", "--json"])),
        serde_json::json!({"schema": "kernloom.entries/1", "entries": [{
            "source": "192.0.2.7", "action": "limit",
            "limit": {"scope": "new", "unit": "packets", "rate": 200, "burst": 200},
            "owner": "operator", "ends_in_seconds": null, "reason": "",
        }]})
    );
}

#[test]
fn counters_and_the_busiest_are_machine_readable() {
    let Some(bench) = Bench::new("counted") else {
        return;
    };
    bench.ok(&["shield", "attach", "eth0", "--no-guard"]);
    let stats = json(&bench.ok(&["shield", "stats", "--json"]));
    let fields: Vec<&String> = stats.as_object().unwrap().keys().collect();
    assert_eq!(
        fields,
        [
            "events_lost",
            "lengths",
            "ports",
            "reasons",
            "schema",
            "sources",
            "sources_crowded",
            "sources_replaced"
        ]
    );
    let first = &stats["reasons"][0];
    assert_eq!(
        (&first["reason"], &first["verdict"]),
        (&"pass".into(), &"pass".into())
    );
    assert!(first["packets"].is_u64() && first["bytes"].is_u64());
    let top = json(&bench.ok(&["shield", "top", "--json", "--interval", "100ms"]));
    assert!(top["window_seconds"].as_f64().unwrap() >= 0.1);
    assert!(top["sources"].is_array());
}

#[test]
fn the_doctor_says_what_works_and_what_stands_in_the_way() {
    let Some(bench) = Bench::new("doctor") else {
        return;
    };
    let level = |report: &serde_json::Value, subject: &str| {
        let findings = report["findings"].as_array().unwrap().clone();
        let found = findings
            .iter()
            .find(|finding| finding["subject"] == subject);
        found.map(|finding| (finding["level"].clone(), finding["found"].to_string()))
    };
    let report = json(&bench.ok(&["shield", "doctor", "eth0", "--json"]));
    assert_eq!(report["works"], true);
    let (mode, found) = level(&report, "mode").unwrap();
    assert!(
        mode == "fine" && found.contains("driver mode expected"),
        "{found}"
    );
    let (_, found) = level(&report, "interface").unwrap();
    assert!(
        found.contains("eth0: driver veth, 1 receive queue, MTU 1500"),
        "{found}"
    );
    bench.ok(&["shield", "attach", "eth0", "--no-guard"]);
    let report = json(&bench.ok(&["--instance", "second", "shield", "doctor", "eth0", "--json"]));
    let (mode, found) = level(&report, "mode").unwrap();
    assert!(
        mode == "notice"
            && found.contains("tc mode expected: the XDP hook is taken by XDP program 'kernloom'"),
        "{found}"
    );
}

#[test]
fn the_doctor_tells_its_own_program_from_others_and_says_where_it_cannot() {
    let Some(bench) = Bench::new("doctor-own") else {
        return;
    };
    let mode = |said: &str| -> String {
        let mut lines = said.lines();
        let line = lines.find(|line| line[10..].starts_with("mode "));
        let mend = lines.next().filter(|line| line.contains("mend:"));
        [line.unwrap(), mend.unwrap_or_default().trim()].join("|")
    };
    let id = |said: &str| said.split(['(', ')']).nth(1).unwrap().to_owned();
    bench.ok(&["shield", "attach", "eth0", "--no-guard"]);
    assert_eq!(
        mode(&bench.ok(&["shield", "doctor", "eth0"])),
        "fine      mode       attached in driver mode|"
    );
    let said = bench.say_as_nobody(&["shield", "doctor", "eth0"]);
    let (code, found) = (said.code, mode(&said.out));
    let there = id(&found);
    assert_eq!(
        (code, found),
        (
            0,
            format!(
                "notice    mode       the XDP hook is taken by an XDP program ({there}), and whose it is cannot be \
                 told: looking for {}: needs root (or CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON); run it with sudo \
                 (Permission denied (os error 13))|",
                bench.lab.bpffs().display()
            )
        )
    );
    bench.ok(&[
        "--instance",
        "dmz",
        "shield",
        "attach",
        "eth0",
        "--no-guard",
    ]);
    let found = mode(&bench.ok(&["--instance", "dmz", "shield", "doctor", "eth0"]));
    let there = id(&found);
    assert_eq!(
        found,
        format!(
            "notice    mode       attached in tc mode: the XDP hook is taken by XDP program 'kernloom' ({there})|\
             mend: detach the other program, or let 'attach --force' remove it"
        )
    );
    bench.ok(&["--instance", "dmz", "shield", "detach", "--all", "--purge"]);
}

#[test]
fn the_doctor_tells_by_its_exit_code_what_nothing_can_judge() {
    let Some(bench) = Bench::new("unfit") else {
        return;
    };
    bench
        .lab
        .server()
        .net
        .ip("tuntap add dev tun9 mode tun")
        .unwrap();
    let said = bench.say(&["shield", "doctor", "tun9"]);
    assert_eq!(said.code, 1, "{}{}", said.out, said.err);
    assert!(
        said.out
            .contains("prevents  frames     tun9 carries packets without Ethernet headers"),
        "{}",
        said.out
    );
    assert_eq!(
        bench
            .refused(&["shield", "attach", "tun9"], 2)
            .matches("Ethernet")
            .count(),
        1
    );
    let pi = bench.ok(&[
        "shield",
        "doctor",
        "eth0",
        "--sources",
        "16384",
        "--max-deny",
        "8192",
    ]);
    assert!(
        pi.contains("memory     ") && pi.contains("16384 sources"),
        "{pi}"
    );
}
