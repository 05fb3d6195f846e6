//! IQ's hand on the policy table.

use super::pin::PinDir;
use super::policy::Edit;
use super::rule::{Owner, Rule};
use super::shield::Shield;
use crate::error::Result;
use crate::model::{Hold, Ktime, Source};
use crate::seams::{Enforcer, Order, Outcome};

/// Writes to the instance's policy. Operators' entries and exemptions are never changed.
pub struct MapEnforcer<'a> {
    pub shield: &'a Shield,
    pub pins: &'a PinDir,
}

impl Enforcer for MapEnforcer<'_> {
    fn enforce(&mut self, orders: &[Order], now: Ktime) -> Result<Vec<Result<Outcome>>> {
        if orders.is_empty() {
            return Ok(Vec::new());
        }
        // A loop that waits hears neither signals nor ticks.
        let lock = self.pins.try_lock()?;
        let mut edit = self.shield.edit(&lock);
        let answers = orders.iter().map(|order| apply(&mut edit, order, now));
        Ok(answers.collect())
    }
}

/// Everyone is a prefix of each family: none of IPv6 holds IPv4.
fn apply(edit: &mut Edit<'_>, order: &Order, now: Ktime) -> Result<Outcome> {
    let mut outcome = Outcome::OperatorRules;
    for source in order.source.by_family() {
        if carry_out(edit, &source, order.hold, now)? == Outcome::Done {
            outcome = Outcome::Done;
        }
    }
    Ok(outcome)
}

fn carry_out(
    edit: &mut Edit<'_>,
    source: &Source,
    hold: Option<(Hold, Ktime)>,
    now: Ktime,
) -> Result<Outcome> {
    if edit.get(source)?.is_some_and(|entry| entry.binds(now)) {
        return Ok(Outcome::OperatorRules);
    }
    match hold {
        Some((hold, until)) => {
            let rule = Rule {
                action: hold.into(),
                owner: Owner::Iq,
                expires: Some(until),
            };
            edit.set(source, &rule)?;
        }
        None => {
            edit.remove(source)?;
        }
    }
    Ok(Outcome::Done)
}

/// Writes nothing.
pub struct DryRun;

impl Enforcer for DryRun {
    fn enforce(&mut self, orders: &[Order], _now: Ktime) -> Result<Vec<Result<Outcome>>> {
        Ok(orders.iter().map(|_| Ok(Outcome::Done)).collect())
    }
}
