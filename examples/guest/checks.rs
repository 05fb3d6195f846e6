//! What must hold on every kernel and card.

use std::fs;
use std::net::IpAddr;
use std::process::Command;
use std::time::Duration;

use crate::cell::{Card, Cell};
use crate::command::{KERNLOOM, Running, kernloom, run as run_command};
use crate::deadline::Deadline;
use crate::link;
use crate::packet::Frame;
use crate::wire::Wire;
use crate::{Doing, Report, Result};

/// Addresses of the machine's two cards, as the runner gives them to qemu.
const CARD: &str = "52:54:00:00:00:01";
const PEER: &str = "52:54:00:00:00:02";
const FRAMES: u32 = 20;
/// A guest is emulated, and another one may be running beside it.
const PATIENCE: Duration = Duration::from_secs(120);
/// The packet tests that fit, one of a kind. Each loads the program anew, which takes an emulated CPU
/// seconds: so they load it once for both families.
const TESTS: [&str; 7] = [
    "verdicts::a_denied_source_is_dropped_whatever_it_sends",
    "verdicts::a_frame_cut_anywhere_is_judged_by_its_source",
    "verdicts::a_limit_on_what_opens_leaves_established_traffic_alone",
    "verdicts::tags_are_walked_to_a_depth",
    "policy::policy_ends_by_itself_without_any_daemon",
    "policy::the_longest_prefix_wins",
    "sketches::crossing_the_alert_bound_raises_one_event",
];

pub(crate) fn run(report: &mut Report, cell: &Cell) {
    report.check("settings", || settings(cell));
    report.check("version", || kernloom(&["--version"]));
    let mut ends = None;
    report.check("cable", || {
        let (device, wire, text) = cable(cell)?;
        ends = Some((device, wire));
        Ok(text)
    });
    let Some((device, mut wire)) = ends else {
        return;
    };
    let device = device.as_str();
    // The program stays from check to check: each load verifies it anew.
    let mut denied = 0;
    for mode in ["driver", "generic", "tc"] {
        if knows(&["shield", "attach"], mode) {
            let wire = wire.as_mut();
            report.check(mode, || attach(cell, device, mode, wire, &mut denied));
        }
    }
    report.check("auto", || {
        attach(cell, device, "auto", wire.as_mut(), &mut denied)
    });
    if let Some(wire) = wire.as_mut() {
        report.check("expiry", || expiry(wire));
        if knows(&["shield"], "upgrade") {
            report.check("upgrade", || upgrade(wire));
        }
        report.check("ring", || ring_buffer(device, wire));
        report.check("escalation", || escalation(device, wire));
    }
    report.check("detach", detach);
    // What they find no card, no MTU and no limit changes, and each load takes seconds.
    let pure = matches!(cell.card, Card::Veth | Card::Loopback) && cell.mtu.is_none();
    if pure {
        report.check("graph", || graph(device, wire.as_mut()));
    }
    if knows(&["shield"], "doctor") {
        report.check("doctor", || kernloom(&["shield", "doctor", device]));
    }
    let limited = ["nobtf", "memlock", "cpus"].iter().any(|one| cell.is(one));
    if pure && !limited {
        report.check("packet-tests", packet_tests);
    }
    report.check("clean", clean);
}

fn settings(cell: &Cell) -> Result<String> {
    let mut told = Vec::new();
    let jit = "/proc/sys/net/core/bpf_jit_enable";
    for (name, value) in [("jit", "1"), ("nojit", "0")] {
        if cell.is(name) {
            fs::write(jit, value).doing(jit)?;
        }
    }
    let value = fs::read_to_string(jit).unwrap_or_else(|_| "absent".to_owned());
    told.push(format!("jit={}", value.trim()));
    let btf = "/sys/kernel/btf";
    if cell.is("nobtf") && fs::exists(btf).doing(btf)? {
        use nix::mount::{MsFlags, mount};
        mount(
            Some("none"),
            btf,
            Some("tmpfs"),
            MsFlags::empty(),
            None::<&str>,
        )
        .doing("hiding BTF")?;
    }
    let has_btf = fs::exists(format!("{btf}/vmlinux")).doing(btf)?;
    told.push(format!("btf={has_btf}"));
    if has_btf && cell.is("nobtf") {
        return Err("BTF is still there".to_owned());
    }
    if cell.is("memlock") {
        let limit = 64 * 1024;
        nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_MEMLOCK, limit, limit)
            .doing("limiting locked memory")?;
        told.push("memlock=64KiB".to_owned());
    }
    let cpus = |which: &str| {
        fs::read_to_string(format!("/sys/devices/system/cpu/{which}"))
            .map(|text| text.trim().to_owned())
    };
    let (possible, online) = (
        cpus("possible").doing("counting")?,
        cpus("online").doing("counting")?,
    );
    told.push(format!("cpus={online} of {possible}"));
    if cell.is("cpus") && possible == online {
        return Err("as many CPUs are online as possible".to_owned());
    }
    // SAFETY: takes a constant, gives a number.
    told.push(format!("page={}", unsafe {
        libc::sysconf(libc::_SC_PAGESIZE)
    }));
    Ok(told.join(" "))
}

/// The interface under test, the wire into it, and what they are.
fn cable(cell: &Cell) -> Result<(String, Option<Wire>, String)> {
    let (device, peer) = match cell.card {
        Card::Loopback => {
            link::up("lo", None)?;
            return Ok(("lo".to_owned(), None, "lo".to_owned()));
        }
        Card::Lone => {
            let device = link::by_address(CARD)?;
            link::up(&device, cell.mtu)?;
            let text = format!("{device} ({})", link::driver(&device));
            return Ok((device, None, text));
        }
        Card::Veth => {
            link::make_veth("kl0", "kl1")?;
            ("kl0".to_owned(), "kl1".to_owned())
        }
        Card::Machine => (link::by_address(CARD)?, link::by_address(PEER)?),
    };
    link::up(&peer, cell.mtu)?;
    link::up(&device, cell.mtu)?;
    let mut wire = Wire::between(&peer, &device)?;
    wire.settle()?;
    let text = format!("{device} ({}) from {peer}", link::driver(&device));
    Ok((device, Some(wire), text))
}

/// Whether the help of a command has this word: what is not there yet cannot be promised.
fn knows(command: &[&str], word: &str) -> bool {
    let help = kernloom(&[command, &["--help"]].concat()).unwrap_or_default();
    help.split(|letter: char| !letter.is_alphanumeric())
        .any(|known| known == word)
}

/// Attaches in one mode and counts passed and dropped frames exactly. Detaches again but in `auto`.
/// `denied` is how many sources the program denies since it was loaded.
fn attach(
    cell: &Cell,
    device: &str,
    mode: &str,
    wire: Option<&mut Wire>,
    denied: &mut u8,
) -> Result<String> {
    let lo = cell.card == Card::Loopback;
    let expected = match mode {
        "auto" if lo => "generic",
        "auto" => &cell.auto,
        other => other,
    };
    let attached = kernloom(&["shield", "attach", device, "--mode", mode]);
    // A driver that auto passes over must say no, clearly, and leave nothing behind.
    if mode == "driver" && (lo || cell.auto == "generic") {
        let refusal = match attached {
            Ok(text) => return Err(format!("driver mode was accepted: {text}")),
            Err(refusal) => refusal,
        };
        if !refusal.contains("refuses XDP in driver mode") {
            return Err(format!("an unclear refusal: {refusal}"));
        }
        return clean().map(|_| format!("refused: {refusal}"));
    }
    let said = attached?;
    if !said.contains(&format!("in {expected} mode")) {
        return Err(format!("not in {expected} mode: {said}"));
    }
    let counts = match wire {
        Some(wire) => counted(wire, denied)?,
        None => String::new(),
    };
    let status = kernloom(&["shield", "status"])?;
    if !status.contains(&format!("{device}: attached in {expected} mode")) {
        return Err(format!("status says {status}"));
    }
    if mode != "auto" {
        kernloom(&["shield", "detach", device])?;
    }
    Ok(format!("{expected}: {counts} {}", said.trim()))
}

/// With the graph in the program, and what it says where the kernel cannot have it.
fn graph(device: &str, wire: Option<&mut Wire>) -> Result<String> {
    let btf = "/sys/kernel/btf/vmlinux";
    let has_btf = fs::exists(btf).doing(btf)?;
    match kernloom(&["shield", "attach", device, "--features", "graph"]) {
        Ok(said) => {
            let counts = match wire {
                Some(wire) => format!("{}, {}", enforced(wire)?, counted(wire, &mut 0)?),
                None => String::new(),
            };
            detach()?;
            Ok(format!("attached: {counts} {}", said.trim()))
        }
        Err(error) if !has_btf && error.contains("BTF") => {
            clean().map(|_| format!("refused: {error}"))
        }
        Err(error) => Err(error),
    }
}

/// Frozen and enforced, an edge that was allowed is all that passes. The graph speaks of two services
/// alone, and so not of the wire's markers.
fn enforced(wire: &mut Wire) -> Result<String> {
    for source in families() {
        kernloom(&["graph", "allow", &source.to_string(), "tcp/8443"])?;
    }
    kernloom(&["graph", "allow", "198.51.100.1", "tcp/8444"])?;
    let services = ["--only=tcp/8443", "--only=tcp/8444"];
    kernloom(&[&["graph", "freeze", "--accept-risk"], &services[..]].concat())?;
    kernloom(&["graph", "enforce", "--lease=0"])?;
    for source in families() {
        let passed = wire.passed(&Frame::syn(source, 8443).build(), FRAMES)?;
        let leaked = wire.passed(&Frame::syn(source, 8444).build(), FRAMES)?;
        if (passed, leaked) != (FRAMES, 0) {
            return Err(format!(
                "{source}: enforced, {passed} of {FRAMES} passed to 8443, and {leaked} to 8444"
            ));
        }
    }
    kernloom(&["graph", "thaw"])?;
    Ok("enforced, the allowed edge alone passed".to_owned())
}

/// Twenty frames pass; denied, twenty are dropped; both as the program counts them. The sources are
/// new to it.
fn counted(wire: &mut Wire, denied: &mut u8) -> Result<String> {
    for source in hosts(10 + *denied) {
        let frame = Frame::syn(source, 443).build();
        let passed = wire.passed(&frame, FRAMES)?;
        kernloom(&["shield", "deny", "add", &source.to_string()])?;
        *denied += 1;
        let leaked = wire.passed(&frame, FRAMES)?;
        if (passed, leaked) != (FRAMES, 0) {
            return Err(format!(
                "{source}: {passed} of {FRAMES} passed, and {leaked} when denied"
            ));
        }
    }
    let stats = kernloom(&["shield", "stats"])?;
    let counted = stats
        .lines()
        .find_map(|line| line.strip_prefix("deny "))
        .and_then(|line| line.split_whitespace().nth(1)?.parse::<u32>().ok());
    let sent = FRAMES * u32::from(*denied);
    if counted != Some(sent) {
        return Err(format!("{counted:?} denied instead of {sent}: {stats}"));
    }
    Ok(format!("{FRAMES} passed, {FRAMES} dropped, per family"))
}

fn families() -> [IpAddr; 2] {
    hosts(7)
}

/// One of each family.
fn hosts(number: u8) -> [IpAddr; 2] {
    [
        IpAddr::from([192, 0, 2, number]),
        IpAddr::from([0x2001, 0xdb8, 1, 2, 0, 0, 0, u16::from(number)]),
    ]
}

/// A block with an end is over by itself: no process runs meanwhile.
fn expiry(wire: &mut Wire) -> Result<String> {
    // Both at once: most of this is waiting.
    wire.settle()?;
    for source in families() {
        kernloom(&["shield", "deny", "add", &source.to_string(), "--ttl", "4s"])?;
    }
    let frames = families().map(|source| (source, Frame::syn(source, 443).build()));
    for (source, frame) in &frames {
        let blocked = wire.passed(frame, 5)?;
        if blocked != 0 {
            return Err(format!("{source}: {blocked} of 5 passed while denied"));
        }
    }
    let end = Deadline::after(PATIENCE);
    for (source, frame) in &frames {
        while wire.passed(frame, 1)? == 0 {
            if end.is_over() {
                return Err(format!("{source}: still blocked after {PATIENCE:?}"));
            }
        }
    }
    Ok("a block of 4 s ended by itself, both families".to_owned())
}

/// The program is replaced under a stream of denied packets: none gets through.
fn upgrade(wire: &mut Wire) -> Result<String> {
    let source = IpAddr::from([192, 0, 2, 8]);
    let frame = Frame::syn(source, 443).build();
    wire.settle()?;
    kernloom(&["shield", "deny", "add", &source.to_string()])?;
    let mut upgrade = Command::new(KERNLOOM)
        .args(["shield", "upgrade"])
        .spawn()
        .doing("starting the upgrade")?;
    // The one emulated CPU is for the upgrade: frames come in whatever time it leaves.
    give_way(STREAM_NICE)?;
    let mut leaked = 0;
    let status = loop {
        leaked += wire.passed(&frame, FRAMES)?;
        if let Some(status) = upgrade.try_wait().doing("waiting for the upgrade")? {
            break status;
        }
    };
    give_way(0)?;
    leaked += wire.passed(&frame, FRAMES)?;
    if leaked != 0 || !status.success() {
        return Err(format!("{leaked} denied frames passed; {status}"));
    }
    Ok("no denied frame passed meanwhile".to_owned())
}

/// How willing this process is to wait while it streams: setpriority(2).
const STREAM_NICE: i32 = 5;

fn give_way(nice: i32) -> Result<()> {
    // SAFETY: takes three numbers; 0 names the calling process.
    let code = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) };
    if code < 0 {
        return Err(format!(
            "changing the priority: {}",
            std::io::Error::last_os_error()
        ));
    }
    Ok(())
}

/// With a tick of a minute, what is decided at once came through the ring buffer.
fn ring_buffer(device: &str, wire: &mut Wire) -> Result<String> {
    let mut iq = iq(device, &["--interval=60s"])?;
    wire.settle()?;
    let scanner = IpAddr::from([192, 0, 2, 66]);
    let mut port = 0;
    let line = iq.wait_for("source=192.0.2.66 OBSERVE -> ", PATIENCE, || {
        for _ in 0..64 {
            port += 1;
            wire.send(&Frame::syn(scanner, port).build())?;
        }
        Ok(())
    })?;
    iq.stop()?;
    Ok(line)
}

/// A flood climbs the ladder; what was decided outlives the process, as told.
fn escalation(device: &str, wire: &mut Wire) -> Result<String> {
    let mut iq = iq(device, &["--soft-ttl=20s", "--hard-ttl=20s"])?;
    wire.settle()?;
    let frame = Frame::syn(IpAddr::from([192, 0, 2, 77]), 443).build();
    let mut last = String::new();
    for step in ["OBSERVE -> RATE_SOFT", "RATE_SOFT -> RATE_HARD"] {
        last = iq.wait_for(&format!("source=192.0.2.77 {step}"), PATIENCE, || {
            for _ in 0..200 {
                wire.send(&frame)?;
            }
            Ok(())
        })?;
    }
    iq.stop()?;
    let limits = kernloom(&["shield", "limit", "list"])?;
    if !limits.contains("192.0.2.77") {
        return Err(format!("the limit ended with the process: {limits}"));
    }
    let reset = kernloom(&["reset"])?;
    if !reset.contains("192.0.2.77") {
        return Err(format!("reset does not name it: {reset}"));
    }
    Ok(last)
}

fn iq(device: &str, more: &[&str]) -> Result<Running> {
    let mut args = vec![
        "iq",
        "--profile=web-server",
        "--dry-run=false",
        "--iface",
        device,
    ];
    args.extend(more);
    let mut iq = Running::start(&args)?;
    iq.wait_for("enforcing", PATIENCE, || Ok(()))?;
    match iq.said.iter().find(|line| line.contains("not watched")) {
        Some(line) => Err(line.clone()),
        None => Ok(iq),
    }
}

fn detach() -> Result<String> {
    kernloom(&["shield", "detach", "--all", "--purge"])
}

/// Nothing of ours is left in the BPF file system, with the rights it had there.
fn clean() -> Result<String> {
    let left = "/sys/fs/bpf/kernloom";
    if fs::exists(left).doing(left)? {
        return Err(format!("{left} is still there"));
    }
    Ok("nothing left behind".to_owned())
}

fn packet_tests() -> Result<String> {
    let mut command = Command::new("/tests");
    command.args(TESTS).arg("--test-threads=1");
    let told = run_command(&mut command)?;
    let line = told
        .lines()
        .find(|line| line.starts_with("test result: ok."));
    let line = line.ok_or("the tests told no result")?;
    if !line.contains(&format!(" {} passed", TESTS.len())) {
        return Err(format!("not every test was found: {line}"));
    }
    Ok(line.to_owned())
}
