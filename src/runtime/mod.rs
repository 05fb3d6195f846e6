//! Who runs when: the only room that reads a clock or waits.

mod clock;
mod instance;
mod poller;

pub use clock::{now, since_1970, wait};
pub use instance::{DEFAULT_RUN_DIR, only_iq};
pub use poller::{Poller, Ticker, Wake, shutdown_on_signal};
