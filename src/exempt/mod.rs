//! Whom no automatic rule may touch: whitelist, feedback, management addresses, `iq exempt`. Pure.

mod feedback;
mod set;
mod walk;
mod whitelist;

pub use feedback::{Action, Entry, Feedback};
pub use set::{By, Exempt, Exempted};
pub use walk::Walk;
pub use whitelist::{BadLine, Spoilt, Whitelist};
