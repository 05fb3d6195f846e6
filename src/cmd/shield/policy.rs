use super::super::{changing, opened};
use super::Instance;
use super::guard::Guard;
use super::import;
use crate::cli::{
    EntryArgs, LimitCommand, LimitDefaultArgs, LimitSetArgs, ListCommand, OwnerArg, RateArgs, Scope,
};
use crate::dataplane::{Action, Edit, Entry, Owner, PinDir, Rule};
use crate::error::{Error, Result};
use crate::model::{ByteLimit, Ktime, LimitScope, Rate, RateLimit, Source};
use crate::report::{action_text, entries_json, entry_line, entry_table, print};
use crate::runtime::now;

/// One of the lists: what its entries do, and whose they are.
#[derive(Clone, Copy)]
pub(super) struct List {
    pub(super) action: Action,
    pub(super) management: bool,
}

impl List {
    pub(super) fn holds(self, entry: &Entry) -> bool {
        entry.rule.action == self.action
            && (entry.rule.owner == Owner::Management) == self.management
    }

    pub(super) fn owner(self, arg: OwnerArg) -> Owner {
        match arg {
            _ if self.management => Owner::Management,
            OwnerArg::Operator => Owner::Operator,
            OwnerArg::Iq => Owner::Iq,
            OwnerArg::Feed => Owner::Feed,
        }
    }
}

pub(super) fn listed(at: Instance<'_>, command: &ListCommand, list: List) -> Result<()> {
    let pins = at.pins;
    match command {
        ListCommand::Add { sources, how } => add(at, sources, how, list),
        ListCommand::Del { sources } => remove(pins, sources, |entry| list.holds(entry)),
        ListCommand::Import { file, how } => import::import(at, file, how, list),
        ListCommand::Export { file } => import::export(pins, file, list),
        ListCommand::List { json } => show(pins, *json, |entry| list.holds(entry)),
    }
}

fn add(at: Instance<'_>, sources: &[Source], how: &EntryArgs, list: List) -> Result<()> {
    let expires = how
        .ttl
        .map(|ttl| Ok::<_, Error>(now()? + ttl))
        .transpose()?;
    let rule = Rule {
        action: list.action,
        owner: list.owner(how.owner),
        expires,
    };
    set(at, sources, &rule, &how.reason, how.no_guard)
}

pub(super) fn limit(at: Instance<'_>, command: &LimitCommand) -> Result<()> {
    let pins = at.pins;
    let limited = |entry: &Entry| entry.rule.action.is_limit();
    match command {
        LimitCommand::Set(args) => set_limit(at, args),
        LimitCommand::Default(args) => default_limit(at, args),
        LimitCommand::Del { sources } => remove(pins, sources, limited),
        LimitCommand::List { json } => show(pins, *json, limited),
    }
}

fn set_limit(at: Instance<'_>, args: &LimitSetArgs) -> Result<()> {
    let expires = args
        .ttl
        .map(|ttl| Ok::<_, Error>(now()? + ttl))
        .transpose()?;
    let action = limit_of(&args.rate)?.ok_or_else(|| {
        Error::operator("how much shall pass? give --rate 5000pps, --rate 10mbit or --pps N")
    })?;
    let rule = Rule {
        action,
        owner: Owner::Operator,
        expires,
    };
    set(at, &args.sources, &rule, &args.reason, args.no_guard)?;
    for source in args.sources.iter().filter(|source| source.is_everyone()) {
        log::warn!(
            "{source} is one limit that everybody shares; 'kernloom shield limit default' gives each source its own"
        );
    }
    Ok(())
}

/// `None` where no rate was given.
fn limit_of(args: &RateArgs) -> Result<Option<Action>> {
    let scope = match args.scope {
        Scope::All => LimitScope::All,
        Scope::New => LimitScope::New,
    };
    let rate = match (args.rate, args.pps) {
        (Some(rate), _) => rate,
        (None, Some(pps)) => Rate::Packets(pps),
        (None, None) if args.burst.is_some() => {
            return Err(Error::operator(
                "a burst is part of a rate; give --rate too",
            ));
        }
        (None, None) => return Ok(None),
    };
    Ok(Some(match rate {
        Rate::Packets(pps) => Action::Limit {
            limit: RateLimit {
                pps,
                burst: args.burst.unwrap_or(pps),
            },
            scope,
        },
        Rate::Bytes(bytes) => Action::LimitBytes {
            limit: ByteLimit {
                bytes,
                burst: args.burst.unwrap_or(bytes),
            },
            scope,
        },
    }))
}

fn default_limit(place: Instance<'_>, args: &LimitDefaultArgs) -> Result<()> {
    let mut text = String::new();
    let wanted = limit_of(&args.rate)?;
    let shield = if wanted.is_some() || args.off {
        let (lock, shield) = changing(place.pins)?;
        if wanted.is_some() {
            let (mut edit, at) = (shield.edit(&lock), now()?);
            let guard = Guard::new(&edit.list()?, place.management, at, false);
            text = guard.protect(&mut edit, at, |_| true)?;
        }
        shield.set_ceiling(wanted.as_ref(), &lock)?;
        shield
    } else {
        opened(place.pins)?
    };
    text.push_str(&shield.ceiling().map_or_else(
        || "sources without a rule have no limit\n".to_owned(),
        |action| {
            format!(
                "every source without a rule of its own: {}\n",
                action_text(&action)
            )
        },
    ));
    print(&text)
}

/// All of the sources or none: what was written before a failure is put back.
fn set(
    place: Instance<'_>,
    sources: &[Source],
    rule: &Rule,
    reason: &str,
    no_guard: bool,
) -> Result<()> {
    let (lock, shield) = changing(place.pins)?;
    let at = now()?;
    let mut edit = shield.edit(&lock);
    refuse_to_overrule(&edit, sources, rule, at)?;
    let mut text = String::new();
    if rule.action != Action::Allow {
        let guard = Guard::new(&edit.list()?, place.management, at, no_guard);
        guard.refuse(sources)?;
        let reached = |peer: &Source| sources.iter().any(|source| source.contains(peer));
        text.push_str(&guard.protect(&mut edit, at, reached)?);
        text.push_str(&guard.spared(sources));
    }
    let note = edit.note(reason)?;
    let mut undo: Vec<(Source, Option<Entry>)> = Vec::new();
    for source in sources {
        match edit.set_noted(source, rule, note) {
            Ok(before) => {
                let entry = Entry {
                    source: *source,
                    rule: *rule,
                    note,
                };
                text.push_str(&entry_line(&entry, reason, at));
                if let Some(before) = before.filter(|before| before.rule != *rule) {
                    text.push_str(&format!("; instead of: {}", entry_line(&before, "", at)));
                }
                text.push('\n');
                undo.push((*source, before));
            }
            Err(error) => {
                for (source, before) in undo.into_iter().rev() {
                    match before {
                        Some(before) => edit.set_noted(&source, &before.rule, before.note)?,
                        None => edit.remove(&source)?,
                    };
                }
                return Err(error);
            }
        }
    }
    text.push_str(&narrower(&edit, sources, rule, at)?);
    drop(edit);
    drop(lock);
    print(&text)
}

/// What an allow by hand leaves denied or limited: narrower rules by hand.
fn narrower(edit: &Edit<'_>, sources: &[Source], rule: &Rule, at: Ktime) -> Result<String> {
    const NAMED: usize = 20;
    let wide: Vec<&Source> = sources
        .iter()
        .filter(|source| source.bits() < 128)
        .collect();
    if rule.action != Action::Allow || rule.owner.is_automatic() || wide.is_empty() {
        return Ok(String::new());
    }
    let mut stay = edit.list()?;
    stay.retain(|entry| {
        let inside = |net: &&Source| net.contains(&entry.source) && **net != entry.source;
        let stands = entry.binds(at) && entry.rule.action != Action::Allow;
        stands && wide.iter().any(inside)
    });
    let mut text = String::new();
    for entry in stay.iter().take(NAMED) {
        let list = if entry.rule.action.is_limit() {
            "limit"
        } else {
            "deny"
        };
        text.push_str(&format!(
            "narrower, and stays: {}; 'kernloom shield {list} del {}' lifts it\n",
            entry_line(entry, "", at),
            entry.source
        ));
    }
    let more = stay.len().saturating_sub(NAMED);
    if more > 0 {
        text.push_str(&format!("narrower, and stay: {more} more\n"));
    }
    Ok(text)
}

fn refuse_to_overrule(edit: &Edit<'_>, sources: &[Source], rule: &Rule, at: Ktime) -> Result<()> {
    for source in sources {
        if let Some(there) = edit.get(source)?.filter(|there| rule.yields_to(there, at)) {
            return Err(Error::operator(format!(
                "an entry of owner {} never overrules what is there: {}. Nothing was changed; without --owner it is \
                 yours and does",
                rule.owner,
                entry_line(&there, "", at)
            )));
        }
    }
    Ok(())
}

fn remove(pins: &PinDir, sources: &[Source], which: impl Fn(&Entry) -> bool) -> Result<()> {
    let (lock, shield) = changing(pins)?;
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
            text.push_str(&format!("removed: {}\n", entry_line(&entry, "", at)));
            if entry.rule.owner == Owner::Iq && entry.rule.action == Action::Allow {
                text.push_str(&format!(
                    "  an iq that runs writes it again while its lists say so: \
                     'kernloom iq why {source}' names the one\n"
                ));
            }
        }
    }
    drop(edit);
    drop(lock);
    print(&text)
}

fn show(pins: &PinDir, json: bool, which: impl Fn(&Entry) -> bool) -> Result<()> {
    let shield = opened(pins)?;
    let entries: Vec<Entry> = shield.entries()?.into_iter().filter(which).collect();
    let (notes, at) = (shield.notes()?, now()?);
    print(&if json {
        entries_json(&entries, &notes, at)
    } else {
        entry_table(&entries, &notes, at)
    })
}
