//! The built binary's `shield` commands on real interfaces.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use crate::lab::{Assault, Attack, Family, Flood, Lab, Namespace, Plan, wait_until};

const BINARY: &str = env!("CARGO_BIN_EXE_kernloom");
const SOON: Duration = Duration::from_secs(20);

/// A lab with kernloom at hand; nobody's SSH session, unless a test makes one.
struct Bench {
    lab: Lab,
}

struct Said {
    code: i32,
    out: String,
    err: String,
}

impl Bench {
    fn new(name: &str) -> Option<Self> {
        let plan = Plan {
            clients: &["one", "two"],
            office_hosts: 0,
        };
        Lab::for_test(name, &plan).map(|lab| Self { lab })
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.lab.server().net.command(BINARY);
        command
            .env_remove("SSH_CONNECTION")
            .arg("--bpffs")
            .arg(self.lab.bpffs())
            .arg("--run-dir")
            .arg(self.lab.run_dir())
            .args(args);
        command
    }

    fn say(&self, args: &[&str]) -> Said {
        said(self.command(args).stdin(Stdio::null()).output().unwrap())
    }

    /// Must succeed; what it printed.
    fn ok(&self, args: &[&str]) -> String {
        let said = self.say(args);
        assert_eq!(said.code, 0, "{args:?}: {}{}", said.out, said.err);
        said.out
    }

    /// Must be refused with that code; what it said.
    fn refused(&self, args: &[&str], code: i32) -> String {
        let said = self.say(args);
        assert_eq!(said.code, code, "{args:?}: {}{}", said.out, said.err);
        said.err
    }

    fn feed(&self, args: &[&str], input: &str) -> Said {
        let mut command = self.command(args);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(input.as_bytes())
            .unwrap();
        said(child.wait_with_output().unwrap())
    }

    fn pings(&self, client: &str, family: Family) -> bool {
        let server = self.lab.server();
        let target = match family {
            Family::V4 => server.v4.to_string(),
            Family::V6 => server.v6.to_string(),
        };
        let net = &self.lab.client(client).unwrap().net;
        net.run("ping", &["-n", "-q", "-c1", "-W1", &target])
            .is_ok()
    }

    fn v4(&self, client: &str) -> String {
        self.lab.source(client, Family::V4).unwrap()
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.lab.dir().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_string_lossy().into_owned()
    }
}

fn said(output: Output) -> Said {
    Said {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap()
}

/// UDP datagrams that reached the server's stack, whoever they were for.
fn datagrams(net: &Namespace) -> u64 {
    let table = net.run("cat", &["/proc/net/snmp"]).unwrap();
    let values = table
        .lines()
        .rfind(|line| line.starts_with("Udp: "))
        .unwrap();
    let columns: Vec<u64> = values
        .split_whitespace()
        .skip(1)
        .map(|value| value.parse().unwrap())
        .collect();
    columns[0] + columns[1]
}

/// A second interface of the server, `eth1`, whose peer is in the router.
fn second_interface(bench: &Bench) {
    let server = &bench.lab.server().net;
    server
        .ip("link add eth1 type veth peer name eth1p\nlink set eth1 up\nlink set eth1p up")
        .unwrap();
}

#[test]
fn lists_go_in_and_out_whole() {
    let Some(bench) = Bench::new("lists") else {
        return;
    };
    bench.ok(&["shield", "attach", "eth0", "--no-guard"]);
    let client = bench.v4("one");
    let good = bench.file(
        "drop.txt",
        &format!(
            "# drop list\n{client} reason=probe\n198.51.100.0/24 ttl=1h owner=feed\n{client}\n"
        ),
    );
    let said = bench.ok(&["shield", "deny", "import", &good]);
    assert_eq!(
        said,
        format!(
            "{good}: line 4 repeats line 2\n2 added, 0 changed, 0 kept as the operator has them, 1 repeated\n"
        )
    );
    assert!(!bench.pings("one", Family::V4));
    assert!(bench.pings("two", Family::V4));
    assert_eq!(
        json(&bench.ok(&["shield", "deny", "list", "--json"])),
        serde_json::json!({"entries": [
            {"source": client, "action": "deny", "limit": null, "owner": "operator",
             "ends_in_seconds": null, "reason": "probe"},
            {"source": "198.51.100.0/24", "action": "deny", "limit": null, "owner": "feed",
             "ends_in_seconds": 3600, "reason": ""},
        ]})
    );
    let exported = bench.ok(&["shield", "deny", "export"]);
    assert_eq!(
        exported,
        format!("{client} reason=probe\n198.51.100.0/24 ttl=1h owner=feed\n")
    );
    bench.ok(&["shield", "deny", "del", &client, "198.51.100.0/24"]);
    assert!(bench.pings("one", Family::V4));

    let bad = format!("{client}\n10.0.0.300\n");
    let said = bench.feed(&["shield", "deny", "import", "-"], &bad);
    assert_eq!(said.code, 2);
    assert_eq!(
        said.err,
        "kernloom: -: 1 bad line, nothing was changed\n  line 2: '10.0.0.300' is not an address or prefix; \
         write it like 192.0.2.7, 192.0.2.0/24 or 2001:db8::/48\n"
    );
    assert!(bench.pings("one", Family::V4));
    let said = bench.feed(
        &["shield", "deny", "import", "-", "--owner", "feed"],
        &exported,
    );
    assert_eq!((said.code, said.err.as_str()), (0, ""));
    assert!(!bench.pings("one", Family::V4));
}

#[test]
fn default_deny_lets_only_the_allowed_in_and_falls_back_without_a_confirmation() {
    let Some(bench) = Bench::new("lease") else {
        return;
    };
    bench.ok(&["shield", "attach", "eth0", "--no-guard"]);
    for family in [Family::V4, Family::V6] {
        let source = bench.lab.source("two", family).unwrap();
        bench.ok(&["shield", "allow", "add", &source]);
    }
    let on = ["shield", "enforce-allow", "on", "--no-guard"];
    bench.ok(&[&on[..], &["--lease", "2s"]].concat());
    for family in [Family::V4, Family::V6] {
        assert!(bench.pings("two", family), "{family:?}: the allowed one");
    }
    // Nobody confirms and nothing runs: the program alone lets go.
    wait_until(SOON, "the lease to run out", || {
        Ok(bench.pings("one", Family::V4))
    })
    .unwrap();
    let status = json(&bench.ok(&["shield", "status", "--json"]));
    assert_eq!(
        status["enforce_allow"],
        serde_json::json!({"state": "lapsed", "falls_back_in_seconds": null})
    );
    let said = bench.refused(&["shield", "confirm"], 2);
    assert!(said.contains("the lease has run out"), "{said}");
    bench.ok(&[&on[..], &["--lease", "1h"]].concat());
    bench.ok(&["shield", "confirm"]);
    for family in [Family::V4, Family::V6] {
        assert!(!bench.pings("one", family), "{family:?}: a stranger");
        assert!(bench.pings("two", family), "{family:?}: the allowed one");
    }
    bench.ok(&["shield", "enforce-allow", "off"]);
    assert!(bench.pings("one", Family::V6));
}

#[test]
fn the_way_in_survives_blanket_rules_and_is_given_up_only_on_demand() {
    let Some(bench) = Bench::new("guard") else {
        return;
    };
    let (one, two) = (bench.v4("one"), bench.v4("two"));
    bench.ok(&["shield", "attach", "eth0", "--management", &two]);
    let ssh = |args: &[&str]| {
        let mut command = bench.command(args);
        command.env("SSH_CONNECTION", format!("{one} 51000 10.77.0.2 22"));
        said(command.stdin(Stdio::null()).output().unwrap())
    };
    let refused = ssh(&["shield", "deny", "add", &one]);
    assert_eq!(
        (refused.code, refused.err),
        (
            2,
            format!(
                "kernloom: {one} is where your SSH session comes from; --no-guard does it all the same. \
                 Nothing was changed\n"
            )
        )
    );
    let refused = bench.refused(&["shield", "deny", "add", &two], 2);
    assert!(
        refused.contains("belongs to the management addresses"),
        "{refused}"
    );
    let done = ssh(&["shield", "deny", "add", "0.0.0.0/0"]);
    assert!(
        done.out
            .contains(&format!("guard: {one}, where your SSH session")),
        "{}",
        done.out
    );
    assert!(
        done.out.contains(&format!("guard: {two} is managed from")),
        "{}",
        done.out
    );
    assert!(bench.pings("one", Family::V4) && bench.pings("two", Family::V4));
    let done = ssh(&["shield", "enforce-allow", "on"]);
    assert_eq!(done.code, 0, "{}", done.err);
    assert!(bench.pings("one", Family::V4) && bench.pings("two", Family::V4));
    bench.ok(&["shield", "deny", "add", &two, "--no-guard"]);
    assert!(!bench.pings("two", Family::V4));
}

#[test]
fn interfaces_share_one_policy_and_instances_do_not() {
    let Some(bench) = Bench::new("share") else {
        return;
    };
    second_interface(&bench);
    let said = bench.ok(&["shield", "attach", "eth0", "eth1", "--no-guard"]);
    assert_eq!(said.lines().count(), 2, "{said}");
    let names = |args: &[&str]| -> Vec<String> {
        let status = json(&bench.ok(args));
        let interfaces = status["interfaces"].as_array().unwrap().clone();
        interfaces
            .iter()
            .map(|interface| interface["interface"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(names(&["shield", "status", "--json"]), ["eth0", "eth1"]);
    bench.ok(&["shield", "detach", "eth1"]);
    let other = ["--instance", "dmz", "shield"];
    let dmz = |args: &[&str]| bench.ok(&[&other[..], args].concat());
    dmz(&["attach", "eth1", "--no-guard"]);
    dmz(&["deny", "add", "10.77.0.0/16"]);
    assert!(bench.pings("one", Family::V4), "the other instance's rule");
    assert_eq!(names(&["shield", "status", "--json"]), ["eth0"]);
    assert_eq!(
        names(&["--instance", "dmz", "shield", "status", "--json"]),
        ["eth1"]
    );
    dmz(&["detach", "--all", "--purge"]);
    let said = bench.refused(&["--instance", "../x", "shield", "status"], 2);
    assert!(said.contains("is no name for an instance"), "{said}");
    let said = bench.refused(&["shield", "attach", "eth0", "eth9"], 2);
    assert!(said.contains("no interface 'eth9'"), "{said}");
}

/// W51: falling back was silent, the mode unseen, and --force the only way beside another program.
#[test]
fn w51_a_foreign_program_is_named_kept_and_removed_only_by_force() {
    let Some(bench) = Bench::new("foreign") else {
        return;
    };
    let client = bench.v4("one");
    // Another instance's program is a foreign one, too.
    bench.ok(&[
        "--instance",
        "other",
        "shield",
        "attach",
        "eth0",
        "--no-guard",
    ]);
    let said = bench.refused(&["shield", "attach", "eth0", "--mode", "driver"], 1);
    assert!(
        said.contains("eth0 already runs XDP program 'kernloom' (id ")
            && said.contains("--mode tc"),
        "{said}"
    );
    let said = bench.ok(&["shield", "attach", "eth0", "--no-guard"]);
    assert!(
        said.starts_with(
            "eth0: attached in tc mode (the XDP hook is taken by XDP program 'kernloom' (id "
        ),
        "{said}"
    );
    // The same policy at the later hook, both families, and each instance its own.
    let v6 = bench.lab.source("one", Family::V6).unwrap();
    bench.ok(&["shield", "deny", "add", &client, &v6]);
    assert!(!bench.pings("one", Family::V4) && !bench.pings("one", Family::V6));
    assert!(bench.pings("two", Family::V4) && bench.pings("two", Family::V6));
    let other = json(&bench.ok(&["--instance", "other", "shield", "status", "--json"]));
    assert_eq!(other["interfaces"][0]["mode"], "driver");
    let mine = json(&bench.ok(&["shield", "status", "--json"]));
    assert_eq!(mine["interfaces"][0]["mode"], "tc");
    bench.ok(&["shield", "detach", "eth0"]);
    assert!(bench.pings("one", Family::V4), "detached from TC");
    let said = bench.ok(&["shield", "attach", "eth0", "--force", "--no-guard"]);
    assert!(
        said.starts_with("eth0: attached in driver mode (in place of XDP program 'kernloom' (id "),
        "{said}"
    );
    assert!(!bench.pings("one", Family::V4));
    let other = json(&bench.ok(&["--instance", "other", "shield", "status", "--json"]));
    assert_eq!(other["interfaces"], serde_json::json!([]));
    bench.ok(&["--instance", "other", "shield", "detach", "--purge"]);
}

#[test]
fn an_mtu_too_large_for_one_buffer_keeps_driver_mode() {
    let Some(bench) = Bench::new("jumbo") else {
        return;
    };
    bench.lab.server().net.ip("link set eth0 mtu 9000").unwrap();
    bench.lab.router().ip("link set server mtu 9000").unwrap();
    let said = bench.ok(&["shield", "attach", "eth0", "--no-guard"]);
    assert_eq!(said, "eth0: attached in driver mode\n");
    let client = bench.v4("one");
    assert!(bench.pings("one", Family::V4));
    bench.ok(&["shield", "deny", "add", &client]);
    assert!(!bench.pings("one", Family::V4));
    bench.ok(&["shield", "upgrade"]);
    assert!(!bench.pings("one", Family::V4));
}

/// A denied flood; whatever reaches the stack went by unjudged.
#[test]
fn an_upgrade_under_traffic_lets_no_packet_by() {
    let Some(bench) = Bench::new("upgrade") else {
        return;
    };
    let server = &bench.lab.server().net;
    for mode in ["driver", "generic", "tc"] {
        bench.ok(&["shield", "attach", "eth0", "--mode", mode, "--no-guard"]);
        bench.ok(&[
            "shield",
            "deny",
            "add",
            &bench.v4("one"),
            "--reason",
            "flood",
        ]);
        let before = datagrams(server);
        let flood = Assault::Flood {
            flood: Flood::Udp4,
            packets: 200_000,
            gap: Duration::from_micros(100),
        };
        let attack = Attack::launch(&bench.lab, "one", flood).unwrap();
        let dropped = |bench: &Bench| {
            let status = json(&bench.ok(&["shield", "status", "--json"]));
            status["dropped"].as_u64().unwrap()
        };
        wait_until(SOON, "the flood to arrive", || Ok(dropped(&bench) > 1_000)).unwrap();
        for _ in 0..5 {
            let said = bench.ok(&["shield", "upgrade"]);
            assert_eq!(
                said,
                "the same program again; policy, counters and sources kept\neth0: changed over\n"
            );
        }
        // Other tables, the same policy.
        let said = bench.ok(&[
            "shield",
            "upgrade",
            "--max-deny",
            "1024",
            "--sources",
            "4096",
        ]);
        assert_eq!(
            said,
            "tables made anew; 1 policy entries moved over, counters and sources start at zero\neth0: changed over\n"
        );
        let during = dropped(&bench);
        wait_until(SOON, "the flood to go on", || Ok(dropped(&bench) > during)).unwrap();
        drop(attack);
        assert_eq!(datagrams(server) - before, 0, "{mode}: datagrams got by");
        let list = json(&bench.ok(&["shield", "deny", "list", "--json"]));
        assert_eq!(list["entries"][0]["reason"], "flood");
        bench.ok(&["shield", "detach", "--purge"]);
    }
}

#[test]
fn an_unknown_layout_is_migrated_and_said_so() {
    let Some(bench) = Bench::new("layout") else {
        return;
    };
    let client = bench.v4("one");
    bench.ok(&["shield", "attach", "eth0", "--no-guard"]);
    bench.ok(&["shield", "deny", "add", &client]);
    let layout = libbpf_rs::MapHandle::from_pinned_path(bench.lab.bpffs().join("layout")).unwrap();
    use libbpf_rs::{MapCore, MapFlags};
    let mut value = layout.lookup(&[0; 4], MapFlags::ANY).unwrap().unwrap();
    value[0] = 200;
    layout.update(&[0; 4], &value, MapFlags::ANY).unwrap();
    let said = bench.refused(&["shield", "status"], 1);
    assert!(said.contains("another layout"), "{said}");
    let said = bench.ok(&["shield", "upgrade"]);
    assert!(
        said.starts_with("layout 200 became 2; 1 policy entries moved over"),
        "{said}"
    );
    assert!(!bench.pings("one", Family::V4));
    assert!(bench.pings("two", Family::V4));
    bench.ok(&["shield", "deny", "del", &client]);
    assert!(bench.pings("one", Family::V4));
}

#[test]
fn the_running_program_is_asked_for_its_verdict() {
    let Some(bench) = Bench::new("verdict") else {
        return;
    };
    bench.ok(&["shield", "attach", "eth0", "--no-guard"]);
    bench.ok(&[
        "shield",
        "deny",
        "add",
        "192.0.2.0/24",
        "--reason",
        "scanner",
    ]);
    let stats = bench.ok(&["shield", "stats", "--json"]);
    let said = bench.ok(&["shield", "verdict", "192.0.2.7", "--dport", "22"]);
    assert_eq!(
        said,
        "192.0.2.7: drop (deny)\ndecided by: 192.0.2.0/24 deny, by operator, ends never, because scanner\n"
    );
    assert_eq!(
        bench.ok(&["shield", "verdict", "192.0.2.7", "--proto", "udp", "--json"]),
        "{\"source\":\"192.0.2.7\",\"verdict\":\"drop\",\"reason\":\"deny\",\"entry\":{\"source\":\"192.0.2.0/24\",\
         \"action\":\"deny\",\"limit\":null,\"owner\":\"operator\",\"ends_in_seconds\":null,\"reason\":\"scanner\"}}\n"
    );
    assert_eq!(
        bench.ok(&["shield", "verdict", "2001:db8::7", "--json"]),
        "{\"source\":\"2001:db8::7\",\"verdict\":\"pass\",\"reason\":\"pass\",\"entry\":null}\n"
    );
    assert_eq!(
        bench.ok(&["shield", "stats", "--json"]),
        stats,
        "asking counted"
    );
}

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
            "interfaces": [{"interface": "eth0", "ifindex": 0, "mode": "driver"}],
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
        serde_json::json!({"entries": [{
            "source": "192.0.2.7", "action": "limit",
            "limit": {"scope": "new", "unit": "packets", "rate": 200, "burst": 200},
            "owner": "operator", "ends_in_seconds": null, "reason": "",
        }]})
    );
    let stats = json(&bench.ok(&["shield", "stats", "--json"]));
    let fields: Vec<&String> = stats.as_object().unwrap().keys().collect();
    assert_eq!(
        fields,
        ["events_lost", "reasons", "sources", "sources_replaced"]
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
        found.contains("eth0: driver veth, 1 receive queues, MTU 1500"),
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
    assert!(!Path::new(BINARY).with_extension("next").exists());
}
