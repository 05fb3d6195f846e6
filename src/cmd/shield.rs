use std::cmp::Reverse;

use super::{opened, pins};
use crate::cli::{
    AttachArgs, DetachArgs, LimitCommand, LimitSetArgs, ListCommand, Mode, Places, Scope,
    ShieldCommand, SortBy, TopArgs,
};
use crate::dataplane::{
    Action, AttachMode, Entry, LoadOptions, ModeChoice, Owner, PinDir, Rule, Shield,
    default_interface, interface_index,
};
use crate::error::{Error, Result};
use crate::model::{LimitScope, RateLimit, Source};
use crate::report::{
    Table, attached_line, entry_line, entry_table, print, stats_table, status_text,
};
use crate::runtime::{now, wait};
use crate::telemetry::{Meter, Sample};

pub(super) fn run(places: &Places, command: &ShieldCommand) -> Result<()> {
    let pins = pins(places);
    match command {
        ShieldCommand::Attach(args) => attach(&pins, args),
        ShieldCommand::Detach(args) => detach(&pins, args),
        ShieldCommand::Status => status(&pins),
        ShieldCommand::Stats => print(&stats_table(&opened(&pins)?.counters()?)),
        ShieldCommand::Top(args) => top(&pins, args),
        ShieldCommand::Deny(command) => listed(&pins, command, &Action::Deny),
        ShieldCommand::Allow(command) => listed(&pins, command, &Action::Allow),
        ShieldCommand::Limit(command) => limit(&pins, command),
    }
}

fn attach(pins: &PinDir, args: &AttachArgs) -> Result<()> {
    let interface = args.iface.clone().map_or_else(default_interface, Ok)?;
    interface_index(&interface)?;
    let choice = match args.mode {
        Mode::Auto => ModeChoice::Auto,
        Mode::Driver => ModeChoice::Only(AttachMode::Driver),
        Mode::Generic => ModeChoice::Only(AttachMode::Generic),
    };
    let options = LoadOptions {
        sources: args.sources,
        max_deny: args.max_deny,
        ..LoadOptions::default()
    };
    pins.create()?;
    let lock = pins.lock()?;
    let fresh = !pins.is_loaded()?;
    let shield = Shield::open_or_load(pins, &options, &lock)?;
    match shield.attach(pins, &interface, choice, &lock) {
        Ok(attached) => print(&format!("{}\n", attached_line(&attached))),
        Err(error) => {
            if fresh {
                Shield::purge(pins, &lock)?;
            }
            Err(error)
        }
    }
}

fn detach(pins: &PinDir, args: &DetachArgs) -> Result<()> {
    if !pins.path().exists() {
        return Err(Error::operator(format!(
            "nothing is attached: {} does not exist",
            pins.path().display()
        )));
    }
    let lock = pins.lock()?;
    let attached = Shield::attached(pins)?;
    let chosen: Vec<_> = match (&args.iface, attached.as_slice()) {
        (Some(name), _) => attached
            .iter()
            .filter(|attached| attached.interface == *name)
            .collect(),
        (None, all) if args.all || all.len() <= 1 => all.iter().collect(),
        (None, all) => {
            let names: Vec<&str> = all
                .iter()
                .map(|attached| attached.interface.as_str())
                .collect();
            return Err(Error::operator(format!(
                "attached to {}; name one, or give --all",
                names.join(", ")
            )));
        }
    };
    if chosen.is_empty() && !args.purge {
        let name = args
            .iface
            .as_deref()
            .map(|name| format!(" to {name}"))
            .unwrap_or_default();
        return Err(Error::operator(format!(
            "not attached{name}; 'kernloom shield status' shows where it is"
        )));
    }
    let mut text = String::new();
    for attached in &chosen {
        Shield::detach(pins, attached.ifindex, &lock)?;
        text.push_str(&format!("{}: detached\n", attached.interface));
    }
    if args.purge {
        Shield::purge(pins, &lock)?;
        text.push_str("policy and counters forgotten\n");
    } else if chosen.len() == attached.len() {
        text.push_str("policy and counters kept; 'kernloom shield detach --purge' forgets them\n");
    }
    print(&text)
}

fn status(pins: &PinDir) -> Result<()> {
    let shield = opened(pins)?;
    let attached = Shield::attached(pins)?;
    let capacity = shield.sources()?.capacity();
    print(&status_text(
        &attached,
        &shield.entries()?,
        shield.max_deny(),
        &shield.counters()?,
        capacity,
    ))
}

fn top(pins: &PinDir, args: &TopArgs) -> Result<()> {
    let shield = opened(pins)?;
    let table = shield.sources()?;
    let mut meter = Meter::new(table.capacity());
    table.visit(|slot, row| meter.row(slot, row));
    meter.samples();
    wait(args.interval)?;
    table.visit(|slot, row| meter.row(slot, row));
    let mut samples = meter.samples().to_vec();
    let by = |sample: &Sample| match args.by {
        SortBy::Packets => sample.packets,
        SortBy::Bytes => sample.bytes,
        SortBy::Syns => sample.syns,
        SortBy::Drops => sample.drops,
        SortBy::Ports => sample.ports.into(),
    };
    samples.sort_by_key(|sample| (Reverse(by(sample)), sample.source));
    let seconds = args.interval.as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "rates to one decimal")]
    let rate = |count: u64| format!("{:.1}", count as f64 / seconds);
    let mut text = Table::new([
        "SOURCE",
        "PACKETS/S",
        "BYTES/S",
        "SYN/S",
        "DROPS/S",
        "PORTS",
        "STACKS",
    ]);
    for sample in samples.iter().take(args.count) {
        text.row([
            sample.source.to_string(),
            rate(sample.packets),
            rate(sample.bytes),
            rate(sample.syns),
            rate(sample.drops),
            sample.ports.to_string(),
            sample.stacks.to_string(),
        ]);
    }
    print(&text.render())
}

fn listed(pins: &PinDir, command: &ListCommand, action: &Action) -> Result<()> {
    match command {
        ListCommand::Add { sources, ttl } => {
            let expires = ttl.map(|ttl| Ok::<_, Error>(now()? + ttl)).transpose()?;
            set(
                pins,
                sources,
                &Rule {
                    action: *action,
                    owner: Owner::Operator,
                    expires,
                },
            )
        }
        ListCommand::Del { sources } => remove(pins, sources, |entry| entry.rule.action == *action),
        ListCommand::List => list(pins, |entry| entry.rule.action == *action),
    }
}

fn limit(pins: &PinDir, command: &LimitCommand) -> Result<()> {
    let limited = |entry: &Entry| matches!(entry.rule.action, Action::Limit { .. });
    match command {
        LimitCommand::Set(LimitSetArgs {
            sources,
            pps,
            burst,
            scope,
            ttl,
        }) => {
            let limit = RateLimit {
                pps: *pps,
                burst: burst.unwrap_or(*pps),
            };
            let scope = match scope {
                Scope::All => LimitScope::All,
                Scope::New => LimitScope::New,
            };
            let expires = ttl.map(|ttl| Ok::<_, Error>(now()? + ttl)).transpose()?;
            set(
                pins,
                sources,
                &Rule {
                    action: Action::Limit { limit, scope },
                    owner: Owner::Operator,
                    expires,
                },
            )
        }
        LimitCommand::Del { sources } => remove(pins, sources, limited),
        LimitCommand::List => list(pins, limited),
    }
}

/// All of the sources or none: what was written before a failure is put back.
fn set(pins: &PinDir, sources: &[Source], rule: &Rule) -> Result<()> {
    let shield = opened(pins)?;
    let lock = pins.lock()?;
    let at = now()?;
    let mut edit = shield.edit(&lock);
    let mut text = String::new();
    let mut undo: Vec<(Source, Option<Entry>)> = Vec::new();
    for source in sources {
        match edit.set(source, rule) {
            Ok(before) => {
                let entry = Entry {
                    source: *source,
                    rule: *rule,
                };
                text.push_str(&entry_line(&entry, at));
                if let Some(before) = before.filter(|before| before.rule != *rule) {
                    text.push_str(&format!("; instead of: {}", entry_line(&before, at)));
                }
                text.push('\n');
                undo.push((*source, before));
            }
            Err(error) => {
                for (source, before) in undo.into_iter().rev() {
                    match before {
                        Some(before) => edit.set(&source, &before.rule)?,
                        None => edit.remove(&source)?,
                    };
                }
                return Err(error);
            }
        }
    }
    drop(edit);
    print(&text)
}

fn remove(pins: &PinDir, sources: &[Source], which: impl Fn(&Entry) -> bool) -> Result<()> {
    let shield = opened(pins)?;
    let lock = pins.lock()?;
    let at = now()?;
    let mut edit = shield.edit(&lock);
    for source in sources {
        if !edit.get(source)?.is_some_and(|entry| which(&entry)) {
            return Err(Error::operator(format!(
                "{source} has no such entry; 'list' shows those there are. Nothing was removed"
            )));
        }
    }
    let mut text = String::new();
    for source in sources {
        if let Some(entry) = edit.remove(source)? {
            text.push_str(&format!("removed: {}\n", entry_line(&entry, at)));
        }
    }
    drop(edit);
    print(&text)
}

fn list(pins: &PinDir, which: impl Fn(&Entry) -> bool) -> Result<()> {
    let entries: Vec<Entry> = opened(pins)?.entries()?.into_iter().filter(which).collect();
    print(&entry_table(&entries, now()?))
}
