//! What is special about this guest, from the kernel's command line.

use std::fs;

use crate::{Doing, Result};

/// The card under test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Card {
    /// A veth pair made here.
    Veth,
    /// Two of the machine's cards on one cable, found by their addresses.
    Machine,
    /// The same, but the other end of the cable is out of reach.
    Lone,
    /// No card at all: the loopback device, generic mode only.
    Loopback,
}

/// `kl.card=veth|machine|loopback kl.cable=none kl.mtu=N kl.auto=driver|generic kl.set=WORD,WORD`
#[derive(Debug)]
pub(crate) struct Cell {
    pub(crate) card: Card,
    pub(crate) mtu: Option<u32>,
    /// The mode that `--mode auto` must end in.
    pub(crate) auto: String,
    /// `jit`, `nojit`: bpf_jit_enable; `nobtf`: /sys/kernel/btf is hidden; `memlock`: 64 KiB may be
    /// locked; `cpus`: more CPUs are possible than online.
    settings: Vec<String>,
}

impl Cell {
    pub(crate) fn read() -> Result<Self> {
        let line = fs::read_to_string("/proc/cmdline").doing("reading the command line")?;
        let value = |key: &str| {
            line.split_whitespace()
                .find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
        };
        let card = match value("kl.card") {
            Some("veth") | None => Card::Veth,
            Some("machine") if value("kl.cable") == Some("none") => Card::Lone,
            Some("machine") => Card::Machine,
            Some("loopback") => Card::Loopback,
            Some(other) => return Err(format!("kl.card={other} is unknown")),
        };
        let mtu = value("kl.mtu").map(str::parse).transpose();
        Ok(Self {
            card,
            mtu: mtu.doing("reading kl.mtu")?,
            auto: value("kl.auto").unwrap_or("driver").to_owned(),
            settings: value("kl.set")
                .unwrap_or_default()
                .split(',')
                .map(str::to_owned)
                .collect(),
        })
    }

    pub(crate) fn is(&self, setting: &str) -> bool {
        self.settings.iter().any(|known| known == setting)
    }
}
