//! Who runs when: the only room that reads a clock or waits.

mod clock;
mod instance;
mod poller;
mod ssh;

pub use clock::{now, wait};
pub use instance::{DEFAULT_RUN_DIR, only_iq};
pub use poller::{Poller, Ticker, Wake, shutdown_on_signal};
pub use ssh::ssh_peers;
