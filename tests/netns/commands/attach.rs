use std::time::Duration;

use super::{Bench, SOON, json};
use crate::lab::{Assault, Attack, Family, Flood, Namespace, wait_until};

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
pub(super) fn second_interface(bench: &Bench) {
    let server = &bench.lab.server().net;
    server
        .ip("link add eth1 type veth peer name eth1p\nlink set eth1 up\nlink set eth1p up")
        .unwrap();
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
    assert!(said.contains("instance '../x'"), "{said}");
    let said = bench.refused(&["shield", "attach", "eth0", "eth9"], 2);
    assert!(said.contains("no interface 'eth9'"), "{said}");
}

/// It attached to the interface of the default route instead.
#[test]
fn without_an_interface_those_of_the_settings_are_attached_to() {
    let Some(bench) = Bench::new("settings") else {
        return;
    };
    second_interface(&bench);
    let settings = bench.lab.config();
    std::fs::write(&settings, "iface = ['eth1']\n").unwrap();
    let said = bench.ok(&[
        "--config",
        settings.to_str().unwrap(),
        "shield",
        "attach",
        "--no-guard",
    ]);
    assert!(
        said.starts_with("eth1: attached") && !said.contains("eth0"),
        "{said}"
    );
    bench.ok(&["shield", "detach", "--purge"]);
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

/// Makes the instance look as if a program of that layout had made it.
fn claim_layout(bench: &Bench, number: u8) {
    use libbpf_rs::{MapCore, MapFlags, MapHandle};
    let layout = MapHandle::from_pinned_path(bench.lab.bpffs().join("layout")).unwrap();
    let mut value = layout.lookup(&[0; 4], MapFlags::ANY).unwrap().unwrap();
    value[0] = number;
    layout.update(&[0; 4], &value, MapFlags::ANY).unwrap();
}

/// Whom nobody allowed stays out, and the default limit is in force, whatever the tables' form was.
#[test]
fn an_upgrade_across_layouts_keeps_default_deny_or_is_refused() {
    let Some(bench) = Bench::new("keepsdeny") else {
        return;
    };
    bench.ok(&["shield", "attach", "eth0", "--no-guard"]);
    bench.ok(&["shield", "allow", "add", &bench.v4("one")]);
    bench.ok(&["shield", "limit", "default", "--rate", "5000pps"]);
    bench.ok(&["shield", "enforce-allow", "on", "--no-guard"]);
    let settings = || {
        let status = json(&bench.ok(&["shield", "status", "--json"]));
        ["enforce_allow", "default_limit"].map(|name| status[name].clone())
    };
    let [deny, limit] = settings();
    assert_eq!(deny["state"], "on");
    assert!(limit.is_object(), "{limit}");
    claim_layout(&bench, 200);
    bench.ok(&["shield", "upgrade"]);
    assert_eq!(settings(), [deny, limit]);
    assert!(bench.pings("one", Family::V4));
    assert!(!bench.pings("two", Family::V4));
    claim_layout(&bench, 2);
    let said = bench.refused(&["shield", "upgrade"], 1);
    assert!(
        said.contains("in a form that this binary does not read"),
        "{said}"
    );
    assert!(!bench.pings("two", Family::V4));
    bench.ok(&["shield", "detach", "--purge"]);
}

#[test]
fn an_unknown_layout_is_migrated_and_said_so() {
    let Some(bench) = Bench::new("layout") else {
        return;
    };
    let client = bench.v4("one");
    bench.ok(&["shield", "attach", "eth0", "--no-guard"]);
    bench.ok(&["shield", "deny", "add", &client]);
    claim_layout(&bench, 200);
    let said = bench.refused(&["shield", "status"], 1);
    assert!(said.contains("another layout"), "{said}");
    let said = bench.ok(&["shield", "upgrade"]);
    assert!(
        said.starts_with("layout 200 became 3; 1 policy entries moved over"),
        "{said}"
    );
    assert!(!bench.pings("one", Family::V4));
    assert!(bench.pings("two", Family::V4));
    bench.ok(&["shield", "deny", "del", &client]);
    assert!(bench.pings("one", Family::V4));
}

/// Somebody's `rm`: the program runs on and no command could steer it, as if nothing were there.
#[test]
fn an_instance_that_lost_its_program_is_told_and_ended() {
    let Some(bench) = Bench::new("lost") else {
        return;
    };
    bench.ok(&["shield", "attach", "eth0", "--no-guard"]);
    bench.ok(&["shield", "deny", "add", &bench.v4("one")]);
    std::fs::remove_file(bench.lab.bpffs().join("program")).unwrap();
    for args in [
        &["shield", "status"][..],
        &["shield", "attach", "eth0"],
        &["shield", "deny", "list"],
    ] {
        let said = bench.refused(args, 1);
        assert!(
            said.contains("eth0 runs a program of")
                && said.contains("kernloom shield detach --all --purge"),
            "{said}"
        );
    }
    assert!(!bench.pings("one", Family::V4), "it goes on meanwhile");
    bench.ok(&["shield", "detach", "--all", "--purge"]);
    assert!(bench.pings("one", Family::V4));
    bench.ok(&["shield", "attach", "eth0", "--no-guard"]);
}

#[test]
fn an_instance_is_never_a_whole_bpf_file_system() {
    let Some(bench) = Bench::new("root") else {
        return;
    };
    let root = bench.lab.bpffs().parent().unwrap();
    let before = std::fs::metadata(root).unwrap();
    let root = root.to_str().unwrap();
    let mut command = bench.lab.server().net.command(super::BINARY);
    command.args(["--bpffs", root, "shield", "attach", "eth0"]);
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    let why = "is a BPF file system itself; give --bpffs a directory below it";
    assert!(said.contains(why), "{said}");
    let after = std::fs::metadata(root).unwrap();
    assert_eq!(before.permissions(), after.permissions());
}
