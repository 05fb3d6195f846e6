//! What survives a restart and a reboot: the state of IQ, and its journal of decisions.

mod file;
mod journal;
mod schema;
#[cfg(test)]
mod tests;

pub use file::{Found, StateFile};
pub use journal::{Journal, Record};
pub use schema::{Exemption, FirstSeen, OperatorAction, OperatorEntry, State, Written};
