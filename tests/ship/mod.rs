//! What the units in packaging/ rely on: how the program behaves as a service.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::lab::{Lab, Plan, Process};

const SOON: Duration = Duration::from_secs(30);

fn lab(name: &str) -> Option<Lab> {
    Lab::for_test(
        name,
        &Plan {
            clients: &[],
            office_hosts: 0,
        },
    )
}

/// `kernloom iq` on the lab's server as a unit starts it, with the manager's variables.
fn service(lab: &Lab, judge: &str, variables: &[(&str, &str)]) -> Process {
    let mut command = lab.server().net.command(env!("CARGO_BIN_EXE_kernloom"));
    command
        .args(["iq", judge, "--iface=eth0", "--dry-run=false"])
        .arg("--bpffs")
        .arg(lab.bpffs())
        .arg("--run-dir")
        .arg(lab.run_dir())
        .envs(variables.iter().copied());
    Process::spawn(command).unwrap()
}

/// Reads what the service tells until it says `wanted`.
fn hear(socket: &UnixDatagram, wanted: &str) -> String {
    let mut buffer = [0; 512];
    loop {
        let told = socket.recv(&mut buffer).unwrap();
        let text = String::from_utf8_lossy(&buffer[..told]).into_owned();
        if text.lines().any(|line| line == wanted) {
            return text;
        }
    }
}

#[test]
fn the_service_manager_hears_that_it_is_up_alive_and_stopping() {
    let Some(lab) = lab("notify") else {
        return;
    };
    let path = lab.dir().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    let variables = [
        ("NOTIFY_SOCKET", path.to_str().unwrap()),
        ("WATCHDOG_USEC", "200000"),
    ];
    let mut process = service(&lab, "--profile=web-server", &variables);
    let up = hear(&socket, "READY=1");
    assert_eq!(up, "READY=1\nSTATUS=profile web-server, enforcing\n");
    for _ in 0..3 {
        hear(&socket, "WATCHDOG=1");
    }
    process.signal(Signal::SIGTERM).unwrap();
    hear(&socket, "STOPPING=1");
    assert!(process.wait(SOON).unwrap().success());
}

#[test]
fn once_it_runs_it_holds_three_rights_in_every_thread() {
    let Some(lab) = lab("rights") else {
        return;
    };
    let mut process = service(&lab, "--profile=web-server", &[]);
    // Logged before the rights are given up; the first tick comes after.
    process
        .wait_line(SOON, "the loop", |line| line.contains("enforcing"))
        .unwrap();
    let held = |status: &str, key: &str| {
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix(":\t"));
        line.unwrap().to_owned()
    };
    let tasks = Path::new("/proc")
        .join(process.pid().to_string())
        .join("task");
    // CAP_NET_ADMIN is 12, CAP_PERFMON 38, CAP_BPF 39.
    let wanted = format!("{:016x}", (1u64 << 12) | (1 << 38) | (1 << 39));
    let statuses = || -> Vec<String> {
        let all = fs::read_dir(&tasks).unwrap();
        all.map(|task| fs::read_to_string(task.unwrap().path().join("status")).unwrap())
            .collect()
    };
    crate::lab::wait_until(SOON, "the rights to be given up", || {
        Ok(statuses()
            .iter()
            .all(|status| held(status, "CapEff") == wanted))
    })
    .unwrap();
    for status in statuses() {
        for set in ["CapPrm", "CapEff", "CapBnd"] {
            assert_eq!(held(&status, set), wanted, "{set}");
        }
        for set in ["CapInh", "CapAmb"] {
            assert_eq!(held(&status, set), "0000000000000000", "{set}");
        }
        assert_eq!(held(&status, "NoNewPrivs"), "1");
    }
    // It still can do its work: end well, with what it holds.
    assert!(process.stop().unwrap().success());
}

#[test]
fn a_profile_that_others_may_write_is_refused() {
    let Some(lab) = lab("trust") else {
        return;
    };
    let path = lab.dir().join("own.yaml");
    fs::write(&path, include_str!("../../profiles/web-server.yaml")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o664)).unwrap();
    let judge = format!("--pdp-config={}", path.display());
    let mut process = service(&lab, &judge, &[]);
    assert_eq!(process.wait(SOON).unwrap().code(), Some(2));
    let name = path.display();
    assert_eq!(
        process.text(),
        format!(
            "kernloom: cannot read profile {name}: others than its owner may write it (mode 0664); \
             run 'chmod go-w {name}'\n"
        )
    );
    assert!(!lab.bpffs().exists());
}

#[test]
fn what_an_instance_keeps_is_nobody_elses_to_read() {
    let Some(lab) = lab("modes") else {
        return;
    };
    let mut process = service(&lab, "--profile=web-server", &[]);
    process
        .wait_line(SOON, "the loop", |line| line.contains("enforcing"))
        .unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(lab.bpffs()), 0o700);
    assert_eq!(mode(&lab.run_dir().join("iq.lock")), 0o600);
}
