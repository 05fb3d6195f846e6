use super::super::changing;
use super::Instance;
use super::guard::Guard;
use crate::cli::{EnforceAllowArgs, Switch};
use crate::dataplane::{Action, AllowOnly, PinDir};
use crate::error::{Error, Result};
use crate::model::{counted, format_duration};
use crate::report::print;
use crate::runtime::now;

pub(super) fn enforce(place: Instance<'_>, args: &EnforceAllowArgs) -> Result<()> {
    let (lock, shield) = changing(place.pins)?;
    if args.state == Switch::Off {
        if args.lease.is_some() {
            return Err(Error::operator(
                "only switching on may be leased; give --lease with 'on'",
            ));
        }
        shield.set_allow_only(AllowOnly::Off, &lock);
        return print("every source passes that nothing denies\n");
    }
    if shield.allow_only()? == AllowOnly::On {
        return print("only allowed sources pass; it was confirmed already\n");
    }
    let at = now()?;
    let mut edit = shield.edit(&lock);
    let guard = Guard::new(&edit.list()?, place.management, at, args.no_guard);
    let mut text = guard.protect(&mut edit, at, |_| true)?;
    drop(edit);
    let allowed = shield
        .entries()?
        .iter()
        .filter(|entry| entry.rule.action == Action::Allow && entry.is_live(at))
        .count();
    let state = args
        .lease
        .map_or(AllowOnly::On, |lease| AllowOnly::Leased(at + lease));
    shield.set_allow_only(state, &lock);
    text.push_str(&format!(
        "only allowed sources pass: {}",
        counted(allowed, "allow entry", "allow entries")
    ));
    if let Some(lease) = args.lease {
        text.push_str(&format!(
            "; falls back by itself in {} unless 'kernloom shield confirm' comes",
            format_duration(lease)
        ));
    }
    text.push('\n');
    drop(lock);
    print(&text)
}

pub(super) fn confirm(pins: &PinDir) -> Result<()> {
    let (lock, shield) = changing(pins)?;
    if shield.confirm(&lock)? {
        return print("confirmed: only allowed sources pass, for good\n");
    }
    Err(Error::operator(match shield.allow_only()? {
        AllowOnly::Lapsed => {
            "the lease has run out and every source passes again; nothing is left to confirm"
        }
        AllowOnly::Off | AllowOnly::On | AllowOnly::Leased(_) => {
            "no lease is pending; 'kernloom shield enforce-allow on --lease 60s' gives one"
        }
    }))
}
