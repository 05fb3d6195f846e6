use std::collections::BTreeSet;
use std::path::Path;

use super::{changing, iq, pins};
use crate::cli::ResetArgs;
use crate::dataplane::{Action, AllowOnly, Entry, Owner};
use crate::error::Result;
use crate::host::Host;
use crate::report::{entry_line, print};
use crate::runtime::{no_iq, now, only_keeper};
use crate::state::{Found, StateFile};

pub(super) fn run(host: &Host, args: &ResetArgs) -> Result<()> {
    let places = &host.places;
    let pins = pins(places);
    let chosen = |entry: &Entry| match entry.rule.owner {
        // Exemptions are no enforcement: the lists they come from still stand.
        Owner::Iq if exempts(entry) => args.all,
        Owner::Iq => !args.operator,
        Owner::Operator | Owner::Feed => args.operator || args.all,
        Owner::Ceiling => true,
        Owner::Management => false,
    };
    let mut text = String::new();
    let (lock, shield) = changing(&pins)?;
    let ends_allow_only = args.operator || args.all;
    if ends_allow_only && matches!(shield.allow_only()?, AllowOnly::On | AllowOnly::Leased(_)) {
        // First: whoever is allowed must never be without his.
        shield.set_allow_only(AllowOnly::Off, &lock);
        text.push_str("enforce-allow is off: without the allows that go now, nobody would pass\n");
    }
    let removed = shield.edit(&lock).remove_all(chosen)?;
    if !args.operator {
        shield.announce_reset();
    }
    // Whoever reads what follows takes their time.
    drop(lock);
    let told = if args.operator {
        Ok(None)
    } else {
        iq::tell_of_reset(&places.run_dir, args.all)
    };
    let runs = !matches!(told, Ok(None));
    if let Ok(Some(told)) = &told {
        log::info!("{told}");
    }
    if args.all && !runs && !forget_exemptions(host)? {
        log::warn!(
            "an iq is about to start: run this again once it answers, for what 'iq exempt' exempted"
        );
    }
    let stand = shield.entries()?;
    let exempt = stand.iter().filter(|entry| exempts(entry));
    let exempt: BTreeSet<_> = exempt.map(|entry| entry.source).collect();
    // Lists that still exempt them: an IQ that runs put those back.
    let gone = |entry: &&Entry| !(exempts(entry) && exempt.contains(&entry.source));
    let removed: Vec<&Entry> = removed.iter().filter(gone).collect();
    let at = now()?;
    for entry in &removed {
        text.push_str(&format!("removed: {}\n", entry_line(entry, "", at)));
    }
    if !runs && removed.iter().any(|entry| exempts(entry)) {
        text.push_str("an iq that starts exempts again whom its lists name\n");
    }
    text.push_str(&format!("{} removed, {} kept", removed.len(), stand.len()));
    text.push_str(&more(&stand, args.all, &host.state_dir)?);
    text.push('\n');
    print(&text)?;
    // What is removed stays so, whatever the IQ that was to be told of it does.
    told.map(drop)
}

/// What of those that stand '--all' removes, too.
fn more(stand: &[Entry], all: bool, state_dir: &Path) -> Result<String> {
    if stand.is_empty() {
        return Ok(String::new());
    }
    let commanded: BTreeSet<_> = StateFile::peek(state_dir)?
        .unwrap_or_default()
        .exemptions
        .iter()
        .map(|one| one.source)
        .collect();
    let goes = |entry: &&Entry| match entry.rule.owner {
        Owner::Iq if exempts(entry) => commanded.contains(&entry.source),
        Owner::Iq | Owner::Operator | Owner::Feed | Owner::Ceiling => true,
        Owner::Management => false,
    };
    let going = stand.iter().filter(goes).count();
    Ok(if all || going == 0 {
        "; they are of lists and settings in force".to_owned()
    } else if going == stand.len() {
        "; 'kernloom reset --all' removes these too".to_owned()
    } else {
        format!("; 'kernloom reset --all' removes {going} of these too")
    })
}

/// Ends what 'iq exempt' exempted where no IQ runs to do so: the next one reads it from the state.
/// False where one is about to start.
fn forget_exemptions(host: &Host) -> Result<bool> {
    let dir = &host.state_dir;
    let Some(_alone) = no_iq(&host.places.run_dir)? else {
        return Ok(false);
    };
    if StateFile::peek(dir)?.is_none_or(|state| state.exemptions.is_empty()) {
        return Ok(true);
    }
    let _kept = only_keeper(&[dir])?;
    if let (mut file, Found::Newest(mut state)) = StateFile::open(dir, false)? {
        state.exemptions.clear();
        file.write(&state)?;
    }
    Ok(true)
}

/// Whether IQ keeps it for a list or a command.
fn exempts(entry: &Entry) -> bool {
    entry.rule.owner == Owner::Iq && matches!(entry.rule.action, Action::Allow)
}
