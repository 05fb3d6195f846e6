//! Composition roots: each command wires the world to the pure half.

mod graph;
mod iq;
mod report;
mod reset;
mod shield;
mod top;

use crate::cli::{Cli, Command, LogFormat, Places};
use crate::dataplane::{Lock, PinDir, Shield, quiet_libbpf};
use crate::error::Result;
use crate::host::Host;
use crate::report::log_as;

pub fn run(cli: &Cli) -> Result<()> {
    let host = Host::resolve(&cli.host)?;
    log_as(host.log_format == LogFormat::Json);
    if let Some(trouble) = &host.trouble {
        log::error!("{trouble}");
    }
    quiet_libbpf();
    match &cli.command {
        Command::Shield(command) => shield::run(&host, command),
        Command::Iq(args) => iq::run(&host, args),
        Command::Report(args) => report::run(&host, args),
        Command::Graph(args) => graph::run(&host, args),
        Command::Reset(args) => reset::run(&host, args),
    }
}

fn pins(places: &Places) -> PinDir {
    PinDir::new(&places.bpffs)
}

/// The loaded instance, or what to do about there being none.
fn opened(pins: &PinDir) -> Result<Shield> {
    Shield::open(pins)?.ok_or_else(|| pins.nothing_loaded())
}

/// The same to change it: opened once nobody else changes it, because an upgrade may replace its maps.
fn changing(pins: &PinDir) -> Result<(Lock, Shield)> {
    pins.must_be_loaded()?;
    let lock = pins.lock()?;
    Ok((lock, opened(pins)?))
}
