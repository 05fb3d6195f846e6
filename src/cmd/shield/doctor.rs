//! Examines the host and says what `attach` would meet.

use std::fs;

use caps::Capability;
use nix::sys::resource::{Resource, getrlimit};

use super::attach::load_options;
use crate::cli::DoctorArgs;
use crate::dataplane::{
    AttachMode, Attached, Interface, LoadOptions, PinDir, Shield, default_interface, has_bpffs,
    kernel, locks_memory, predicted_memory,
};
use crate::error::{Error, Result};
use crate::host::Host;
use crate::model::counted;
use crate::report::{Finding, Level, MERGED, attached_in, doctor_json, doctor_text, print};
use crate::rights;

pub(super) fn doctor(pins: &PinDir, host: &Host, args: &DoctorArgs) -> Result<()> {
    let interfaces = interfaces(pins, host, &args.ifaces)?;
    let mut findings = of_host();
    for interface in &interfaces {
        findings.extend(of_interface(interface, pins));
    }
    // Why it cannot be opened, `instance` says.
    let loaded = Shield::open(pins).unwrap_or_default();
    if let Some(shield) = &loaded {
        findings.extend(held(shield)?);
    }
    if loaded.is_none() || args.sizes.sources.or(args.sizes.max_deny).is_some() {
        findings.push(memory(&load_options(&args.sizes))?);
    }
    findings.push(instance(pins));
    print(&if args.json {
        doctor_json(&findings)
    } else {
        doctor_text(&findings)
    })?;
    let prevents = findings
        .iter()
        .filter(|finding| finding.level == Level::Prevents)
        .count();
    if prevents == 0 {
        return Ok(());
    }
    Err(Error::world(format!(
        "{prevents} of {} findings stand in the way",
        findings.len()
    )))
}

/// Those that `attach` and IQ would protect, or protect already.
fn interfaces(pins: &PinDir, host: &Host, given: &[String]) -> Result<Vec<Interface>> {
    let mut names = match given {
        [] => host.interfaces().to_vec(),
        given => given.to_vec(),
    };
    if names.is_empty() {
        // Why that cannot be told, `instance` says.
        let attached = Shield::attached(pins).unwrap_or_default();
        names.extend(attached.into_iter().map(|one| one.interface));
    }
    if names.is_empty() {
        names.push(default_interface("kernloom shield doctor eth0")?);
    }
    names.iter().map(|name| Interface::examine(name)).collect()
}

fn finding(level: Level, subject: &'static str, found: impl Into<String>, mend: &str) -> Finding {
    Finding {
        level,
        subject,
        interface: None,
        found: found.into(),
        mend: mend.to_owned(),
    }
}

fn of_host() -> Vec<Finding> {
    let (release, too_old) = kernel();
    let mut findings = vec![if too_old {
        let mend = "boot Linux 5.10 or newer";
        finding(Level::Prevents, "kernel", release, mend)
    } else {
        finding(Level::Fine, "kernel", release, "")
    }];
    findings.push(rights());
    findings.push(jit());
    findings.push(finding(
        Level::Fine,
        "btf",
        if fs::exists("/sys/kernel/btf/vmlinux").unwrap_or_default() {
            "the kernel has BTF; the programs do without"
        } else {
            "the kernel has no BTF; the programs do without, but not the graph"
        },
        "",
    ));
    findings.push(if has_bpffs() {
        finding(Level::Fine, "bpffs", "mounted at /sys/fs/bpf", "")
    } else {
        let mend = "mount -t bpf bpf /sys/fs/bpf; 'attach' does it too";
        finding(Level::Notice, "bpffs", "not mounted", mend)
    });
    findings.push(memlock());
    findings
}

fn rights() -> Finding {
    let (missing, root) = (rights::missing(), nix::unistd::geteuid().is_root());
    if missing.is_empty() {
        let found = "what loading and attaching take is there";
        return finding(Level::Fine, "rights", found, "");
    }
    let mend = if root {
        rights::GRANT.to_owned()
    } else {
        format!("run it with sudo, or give it {}", rights::and(&missing))
    };
    let found = format!("{} missing", rights::and(&missing));
    finding(Level::Prevents, "rights", found, &mend)
}

fn jit() -> Finding {
    let path = "/proc/sys/net/core/bpf_jit_enable";
    let state = fs::read_to_string(path).unwrap_or_default();
    match state.trim() {
        "0" => finding(
            Level::Notice,
            "jit",
            "off: programs are interpreted, several times slower",
            "sysctl -w net.core.bpf_jit_enable=1",
        ),
        // Unreadable without root, and absent where it is always on.
        "" => finding(
            Level::Fine,
            "jit",
            "not told; always on where there is no switch",
            "",
        ),
        _ => finding(Level::Fine, "jit", "on", ""),
    }
}

fn memlock() -> Finding {
    if !locks_memory() {
        return finding(
            Level::Fine,
            "memlock",
            "BPF memory is not counted against it",
            "",
        );
    }
    match getrlimit(Resource::RLIMIT_MEMLOCK) {
        Ok((_, hard)) if hard < 64 << 20 && !rights::has(Capability::CAP_SYS_RESOURCE) => finding(
            Level::Prevents,
            "memlock",
            format!(
                "at most {} KiB, and this kernel counts BPF memory against it",
                hard >> 10
            ),
            "ulimit -l unlimited, or run it with CAP_SYS_RESOURCE",
        ),
        _ => finding(
            Level::Fine,
            "memlock",
            "this kernel counts BPF memory; raised as needed",
            "",
        ),
    }
}

fn of_interface(interface: &Interface, pins: &PinDir) -> Vec<Finding> {
    let mut findings = examined(interface, pins);
    for finding in &mut findings {
        finding.interface = Some(interface.name.clone());
    }
    findings
}

fn examined(interface: &Interface, pins: &PinDir) -> Vec<Finding> {
    let name = &interface.name;
    let driver = interface.driver.as_deref().unwrap_or("unknown");
    let mut findings = vec![finding(
        Level::Fine,
        "interface",
        format!(
            "{name}: driver {driver}, {}, MTU {}",
            counted(interface.rx_queues, "receive queue", "receive queues"),
            interface.mtu
        ),
        "",
    )];
    if let Some(why) = &interface.unfit {
        let mend = "name the interface that carries its traffic";
        findings.push(finding(Level::Prevents, "frames", why.clone(), mend));
        return findings;
    }
    if interface.large_receive_offload {
        findings.push(finding(
            Level::Notice,
            "lro",
            format!(
                "{name} merges packets (large receive offload), and many drivers then refuse XDP"
            ),
            &format!("ethtool -K {name} lro off"),
        ));
    }
    let ours = Shield::attached_to(pins, interface);
    let in_tc = match &ours {
        Ok(Some(ours)) => ours.mode == Some(AttachMode::Tc),
        _ => interface.expected_mode().0 == AttachMode::Tc,
    };
    findings.push(mode(interface, ours));
    if in_tc {
        let (what, mend) = MERGED;
        findings.push(finding(
            Level::Notice,
            "gro",
            what,
            &mend.replace("IFACE", name),
        ));
    }
    findings
}

/// `ours`: how this instance is attached there, as far as it may be known.
fn mode(interface: &Interface, ours: Result<Option<Attached>>) -> Finding {
    const OTHERS: &str = "detach the other program, or let 'attach --force' remove it";
    let is_tc = |ours: &Attached| ours.mode == Some(AttachMode::Tc);
    match (ours, &interface.there) {
        (Ok(Some(ours)), Some(there)) if is_tc(&ours) => finding(
            Level::Notice,
            "mode",
            format!("attached in tc mode: the XDP hook is taken by {there}"),
            OTHERS,
        ),
        (Ok(Some(ours)), _) => finding(Level::Fine, "mode", attached_in(&ours), ""),
        (Err(error), Some(there)) => finding(
            Level::Notice,
            "mode",
            format!("the XDP hook is taken by {there}, and whose it is cannot be told: {error}"),
            "",
        ),
        (_, there) => match interface.expected_mode() {
            (AttachMode::Driver, _) => finding(Level::Fine, "mode", "driver mode expected", ""),
            (mode, why) => {
                let why = why.unwrap_or_default();
                let found = format!("{mode} mode expected: {why}");
                let mend = match there {
                    Some(_) => OTHERS.to_owned(),
                    None if interface.is_mtu_in_the_way() => {
                        let name = &interface.name;
                        format!("ip link set {name} mtu 1500, if the network allows it")
                    }
                    None => String::new(),
                };
                finding(Level::Notice, "mode", found, &mend)
            }
        },
    }
}

fn mib(bytes: u64) -> String {
    format!("{}.{} MiB", bytes >> 20, ((bytes & 0xf_ffff) * 10) >> 20)
}

/// What the loaded instance takes, and how full it is.
fn held(shield: &Shield) -> Result<Vec<Finding>> {
    let (used, most) = (shield.entries()?.len(), shield.max_deny());
    let (sources, counters) = (shield.sources()?.shape().entries(), shield.counters()?);
    let (empty, full) = predicted_memory(&LoadOptions {
        max_deny: most,
        ..LoadOptions::default()
    })?;
    let now = shield.memory()?;
    let free = u64::from(most).saturating_sub(used as u64);
    // Only policy entries take memory as they come.
    let room = (full - empty) / u64::from(most) * free;
    let found = format!(
        "{} now, at most {} with {most} policy entries",
        mib(now),
        mib(now + room)
    );
    let scarce = available_memory().is_some_and(|available| room > available / 2);
    let table = format!("{used} of {most} entries");
    Ok(vec![
        if scarce {
            let mend = "kernloom shield upgrade with a smaller --max-deny";
            finding(Level::Notice, "memory", found, mend)
        } else {
            finding(Level::Fine, "memory", found, "")
        },
        if used as u64 * 10 >= u64::from(most) * 9 {
            let mend = format!(
                "kernloom shield upgrade --max-deny {}, or remove some; a full table takes no new entry",
                u64::from(most) * 2
            );
            finding(Level::Notice, "policy", table, &mend)
        } else {
            finding(Level::Fine, "policy", table, "")
        },
        finding(
            Level::Fine,
            "sources",
            format!(
                "{} of {sources} entries, {} replaced",
                counters.sources, counters.replaced
            ),
            "",
        ),
    ])
}

/// What those sizes would take.
fn memory(options: &LoadOptions) -> Result<Finding> {
    let (loaded, full) = predicted_memory(options)?;
    let found = format!(
        "{} once loaded, at most {} with {} policy entries; {} sources",
        mib(loaded),
        mib(full),
        options.max_deny,
        options.sources
    );
    let available = available_memory();
    if available.is_some_and(|available| full > available / 2) {
        let mend = "attach with smaller tables, such as --sources 16384 --max-deny 8192";
        return Ok(finding(Level::Notice, "memory", found, mend));
    }
    Ok(finding(Level::Fine, "memory", found, ""))
}

fn available_memory() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib << 10)
}

fn instance(pins: &PinDir) -> Finding {
    match (pins.is_loaded(), Shield::is_outdated(pins)) {
        (Ok(false), _) => finding(Level::Fine, "instance", "none is loaded yet", ""),
        (Ok(true), Ok(false)) => finding(Level::Fine, "instance", "loaded, of this build", ""),
        (Ok(true), Ok(true)) => finding(
            Level::Notice,
            "instance",
            "loaded, of another build",
            "kernloom shield upgrade",
        ),
        (Err(error), _) | (_, Err(error)) => {
            finding(Level::Notice, "instance", error.to_string(), "")
        }
    }
}
