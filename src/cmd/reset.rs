use std::collections::BTreeSet;

use super::{changing, iq, pins};
use crate::cli::{Places, ResetArgs};
use crate::dataplane::{Action, Entry, Owner};
use crate::error::Result;
use crate::report::{entry_line, print};
use crate::runtime::now;

pub(super) fn run(places: &Places, args: &ResetArgs) -> Result<()> {
    let pins = pins(places);
    let chosen = |entry: &Entry| match entry.rule.owner {
        // Exemptions are no enforcement: the lists they come from still stand.
        Owner::Iq if exempts(entry) => args.all,
        Owner::Iq => !args.operator,
        Owner::Operator | Owner::Feed => args.operator || args.all,
        Owner::Ceiling => true,
        Owner::Management => false,
    };
    let (lock, shield) = changing(&pins)?;
    let removed = shield.edit(&lock).remove_all(chosen)?;
    if !args.operator {
        shield.announce_reset();
    }
    // Whoever reads what follows takes their time.
    drop(lock);
    if !args.operator
        && let Some(told) = iq::tell_of_reset(&places.run_dir, args.all)?
    {
        log::info!("{told}");
    }
    let stand = shield.entries()?;
    let exempt = stand.iter().filter(|entry| exempts(entry));
    let exempt: BTreeSet<_> = exempt.map(|entry| entry.source).collect();
    // Lists that still exempt them: an IQ that runs put those back.
    let gone = |entry: &&Entry| !(exempts(entry) && exempt.contains(&entry.source));
    let removed: Vec<&Entry> = removed.iter().filter(gone).collect();
    let kept = stand.len();
    let at = now()?;
    let mut text: String = removed
        .iter()
        .map(|entry| format!("removed: {}\n", entry_line(entry, "", at)))
        .collect();
    text.push_str(&format!("{} removed, {kept} kept", removed.len()));
    if kept > 0 {
        text.push_str(if args.all {
            "; they are of lists and settings in force"
        } else {
            "; 'kernloom reset --all' removes these too"
        });
    }
    text.push('\n');
    print(&text)
}

/// Whether IQ keeps it for a list or a command.
fn exempts(entry: &Entry) -> bool {
    entry.rule.owner == Owner::Iq && matches!(entry.rule.action, Action::Allow)
}
