//! Composition roots: each command wires the world to the pure half.

mod exposed;
mod iq;
mod reset;
mod shield;
mod top;

use crate::cli::{Cli, Command, Places};
use crate::dataplane::{PinDir, Shield};
use crate::error::{Error, Result};

pub fn run(cli: &Cli) -> Result<()> {
    match &cli.command {
        Command::Shield(command) => shield::run(&cli.places, command),
        Command::Iq(args) => iq::run(&cli.places, args),
        Command::Reset(args) => reset::run(&cli.places, args),
    }
}

fn pins(places: &Places) -> PinDir {
    PinDir::new(&places.bpffs)
}

/// The loaded instance, or what to do about there being none.
fn opened(pins: &PinDir) -> Result<Shield> {
    Shield::open(pins)?.ok_or_else(|| {
        Error::operator(format!(
            "nothing is loaded in {}; start with 'kernloom shield attach' or 'kernloom iq'",
            pins.path().display()
        ))
    })
}
