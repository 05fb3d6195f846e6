//! What goes on beside a command: an upgrade, settings, interfaces that go, nobody who listens.

use std::process::{Child, Stdio};

use kernloom::dataplane::{PinDir, Shield, Sizes};

use super::{Bench, SOON, json};
use crate::lab::{Family, wait_until};

/// Told from the outside: a command polls only while another one holds the lock.
fn waits(child: &Child) -> bool {
    let at = std::fs::read_to_string(format!("/proc/{}/wchan", child.id()));
    at.is_ok_and(|at| at.contains("poll"))
}

/// A command that waited for an upgrade wrote into the tables that the upgrade had replaced.
#[test]
fn what_is_written_beside_an_upgrade_is_not_lost() {
    let Some(bench) = Bench::new("beside") else {
        return;
    };
    bench.ok(&["shield", "attach", "eth0", "--no-guard"]);
    bench.ok(&["shield", "deny", "add", "192.0.2.2"]);
    let list = bench.lab.dir().join("list");
    std::fs::write(&list, "192.0.2.3\n").unwrap();
    let commands = [
        &["shield", "deny", "add", "192.0.2.1"][..],
        &["shield", "deny", "del", "192.0.2.2"],
        &["shield", "deny", "import", list.to_str().unwrap()],
        &["shield", "limit", "default", "--rate", "5000pps"],
        &["shield", "enforce-allow", "on", "--no-guard"],
    ];
    let pins = PinDir::new(bench.lab.bpffs());
    let lock = pins.lock().unwrap();
    let mut waiting: Vec<_> = commands
        .iter()
        .map(|args| bench.command(args).stdout(Stdio::null()).spawn().unwrap())
        .collect();
    for child in &waiting {
        wait_until(SOON, "the command to wait", || Ok(waits(child))).unwrap();
    }
    let sizes = Sizes {
        sources: Some(4_096),
        max_deny: None,
    };
    Shield::upgrade(&pins, &sizes, &lock).unwrap();
    drop(lock);
    for child in &mut waiting {
        assert!(child.wait().unwrap().success());
    }
    let status = json(&bench.ok(&["shield", "status", "--json"]));
    assert_eq!(status["enforce_allow"]["state"], "on");
    assert_eq!(status["default_limit"]["rate"], 5_000);
    assert_eq!(
        bench.ok(&["shield", "deny", "export", "-"]),
        "192.0.2.1\n192.0.2.3\n"
    );
}

/// The settings name who manages the host; every command that may cut them off heeds that.
#[test]
fn management_addresses_of_the_settings_count_without_attaching_anew() {
    let Some(bench) = Bench::new("managed") else {
        return;
    };
    bench.ok(&["shield", "attach", "eth0", "--no-guard"]);
    let (one, two) = (bench.v4("one"), bench.v4("two"));
    let guard = format!("guard: {one} is managed from\n");
    let managed = ["--management", &one];
    let said = bench.refused(
        &[&managed[..], &["shield", "deny", "add", &one]].concat(),
        2,
    );
    assert!(
        said.contains("belongs to the management addresses"),
        "{said}"
    );
    assert_eq!(bench.ok(&["shield", "management", "export", "-"]), "");
    let said = bench.ok(&[&managed[..], &["shield", "enforce-allow", "on"]].concat());
    assert!(said.starts_with(&guard), "{said}");
    assert!(bench.pings("one", Family::V4));
    assert!(!bench.pings("two", Family::V4));
    bench.ok(&["shield", "enforce-allow", "off"]);
    bench.ok(&["shield", "management", "del", &one]);
    let list = bench.lab.dir().join("list");
    std::fs::write(&list, format!("{one}/32\n{two}\n")).unwrap();
    let list = list.to_str().unwrap();
    let said = bench.refused(
        &[&managed[..], &["shield", "deny", "import", list]].concat(),
        2,
    );
    assert!(said.contains("line 1: "), "{said}");
    for wide in [
        &["shield", "deny", "add", "0.0.0.0/0"][..],
        &[
            "shield", "limit", "default", "--rate", "1pps", "--burst", "1",
        ],
    ] {
        let said = bench.ok(&[&managed[..], wide].concat());
        assert!(said.contains(&guard), "{said}");
        assert_eq!(
            bench.ok(&["shield", "management", "export", "-"]),
            format!("{one}\n")
        );
        assert!(bench.pings("one", Family::V4));
        bench.ok(&["shield", "management", "del", &one]);
    }
}

/// Nobody but the program itself watches.
#[test]
fn a_port_scan_is_reported_without_iq() {
    let Some(bench) = Bench::new("alone") else {
        return;
    };
    bench.ok(&["shield", "attach", "eth0", "--no-guard"]);
    assert!(!bench.ok(&["shield", "events"]).contains(&bench.v4("one")));
    let client = &bench.lab.client("one").unwrap().net;
    let server = bench.lab.server().v4.to_string();
    client
        .run("nmap", &["-n", "-Pn", "-sS", "-T5", "-p1-1000", &server])
        .unwrap();
    let said = bench.ok(&["shield", "events"]);
    assert!(said.contains(&bench.v4("one")), "{said}");
}

#[test]
fn an_interface_that_is_gone_is_told_of() {
    let Some(bench) = Bench::new("gone") else {
        return;
    };
    let server = &bench.lab.server().net;
    let make = "link add d0 type veth peer name d1";
    server.ip(make).unwrap();
    bench.ok(&["shield", "attach", "eth0", "d0", "--no-guard"]);
    let gone =
        |bench: &Bench| json(&bench.ok(&["shield", "status", "--json"]))["interfaces_gone"].clone();
    assert_eq!(gone(&bench), 0);
    server.ip("link del d0").unwrap();
    server.ip(make).unwrap();
    assert_eq!(gone(&bench), 1);
    let said = bench.ok(&["shield", "status"]);
    assert!(
        said.contains(
            "1 interface is gone that it was attached to; one that is back is not protected before"
        ),
        "{said}"
    );
    bench.ok(&["shield", "attach", "d0", "--no-guard"]);
    assert_eq!(gone(&bench), 0);
}
