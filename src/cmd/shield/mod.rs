mod allow_only;
mod attach;
mod doctor;
mod events;
mod guard;
mod import;
mod policy;
mod verdict;

pub(super) use verdict::asked;

use super::{opened, pins, top};
use crate::cli::{JsonArgs, ShieldCommand, StatusArgs};
use crate::dataplane::{Action, PinDir, Shield};
use crate::error::{Error, Result};
use crate::host::Host;
use crate::model::Source;
use crate::report::{Status, print, stats_json, stats_table};
use crate::runtime::{now, patiently};
use crate::top::SortKey;

pub(super) use guard::{guard_way_in, open_way_in};
use policy::List;

/// An instance, and where the settings say that the host is managed from.
#[derive(Clone, Copy)]
struct Instance<'a> {
    pins: &'a PinDir,
    management: &'a [Source],
}

pub(super) fn run(host: &Host, command: &ShieldCommand) -> Result<()> {
    let pins = pins(&host.places);
    let list = |action, management| List { action, management };
    let at = Instance {
        pins: &pins,
        management: &host.management,
    };
    match command {
        ShieldCommand::Attach(args) => attach::attach(&pins, host, args),
        ShieldCommand::Detach(args) => attach::detach(&pins, args),
        ShieldCommand::Upgrade(args) => attach::upgrade(&pins, args),
        ShieldCommand::Status(args) => status(&pins, args),
        ShieldCommand::Stats(args) => stats(&pins, args),
        ShieldCommand::Top(args) => top::run(&host.places, args, SortKey::Packets),
        ShieldCommand::Events(args) => events::events(&host.places, args),
        ShieldCommand::Deny(command) => policy::listed(at, command, list(Action::Deny, false)),
        ShieldCommand::Allow(command) => policy::listed(at, command, list(Action::Allow, false)),
        ShieldCommand::Management(command) => {
            policy::listed(at, command, list(Action::Allow, true))
        }
        ShieldCommand::Limit(command) => policy::limit(at, command),
        ShieldCommand::EnforceAllow(args) => allow_only::enforce(at, args),
        ShieldCommand::Confirm => allow_only::confirm(&pins),
        ShieldCommand::Verdict(args) => verdict::verdict(host, &pins, args),
        ShieldCommand::Doctor(args) => doctor::doctor(&pins, host, args),
    }
}

fn status(pins: &PinDir, args: &StatusArgs) -> Result<()> {
    if let Some(patience) = args.wait {
        patiently(patience, || attached_somewhere(pins))?;
    }
    let shield = opened(pins)?;
    let status = Status {
        attached: Shield::attached(pins)?,
        lost: Shield::lost(pins)?,
        entries: shield.entries()?,
        max_deny: shield.max_deny(),
        counters: shield.counters()?,
        capacity: shield.sources()?.shape().entries(),
        allow_only: shield.allow_only()?,
        ceiling: shield.ceiling(),
        memory: shield.memory()?,
        outdated: Shield::is_outdated(pins)?,
    };
    let at = now()?;
    print(&if args.json {
        status.json(at)
    } else {
        status.text(at)
    })
}

/// Fails unless the instance is loaded and attached to an interface.
pub(super) fn attached_somewhere(pins: &PinDir) -> Result<()> {
    if pins.is_loaded()? && !Shield::attached(pins)?.is_empty() {
        return Ok(());
    }
    Err(Error::world(format!(
        "{} is attached nowhere; start with 'kernloom shield attach'",
        pins.path().display()
    )))
}

fn stats(pins: &PinDir, args: &JsonArgs) -> Result<()> {
    let shield = opened(pins)?;
    let counters = shield.counters()?;
    print(&if args.json {
        stats_json(&counters, shield.ports()?.as_deref())
    } else {
        stats_table(&counters)
    })
}
