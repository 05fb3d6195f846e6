//! IQ's hand on the policy table.

use super::pin::PinDir;
use super::policy::Edit;
use super::rule::{Action, Owner, Rule};
use super::shield::Shield;
use crate::error::Result;
use crate::seams::{Enforcer, Order, Outcome};

/// Writes to the instance's policy. Operators' entries and exemptions are never changed.
pub struct MapEnforcer<'a> {
    pub shield: &'a Shield,
    pub pins: &'a PinDir,
}

impl Enforcer for MapEnforcer<'_> {
    fn enforce(&mut self, orders: &[Order]) -> Result<Vec<Result<Outcome>>> {
        if orders.is_empty() {
            return Ok(Vec::new());
        }
        let lock = self.pins.lock()?;
        let mut edit = self.shield.edit(&lock);
        Ok(orders.iter().map(|order| apply(&mut edit, order)).collect())
    }
}

fn apply(edit: &mut Edit<'_>, order: &Order) -> Result<Outcome> {
    let stands =
        |rule: &Rule| rule.owner == Owner::Operator || matches!(rule.action, Action::Allow);
    if edit
        .get(&order.source)?
        .is_some_and(|entry| stands(&entry.rule))
    {
        return Ok(Outcome::OperatorRules);
    }
    match order.hold {
        Some((hold, until)) => {
            let rule = Rule {
                action: hold.into(),
                owner: Owner::Iq,
                expires: Some(until),
            };
            edit.set(&order.source, &rule)?;
        }
        None => {
            edit.remove(&order.source)?;
        }
    }
    Ok(Outcome::Done)
}

/// Writes nothing.
pub struct DryRun;

impl Enforcer for DryRun {
    fn enforce(&mut self, orders: &[Order]) -> Result<Vec<Result<Outcome>>> {
        Ok(orders.iter().map(|_| Ok(Outcome::Done)).collect())
    }
}
