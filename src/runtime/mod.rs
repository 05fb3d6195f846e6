//! Who runs when: the only room that reads a clock or waits.

mod clock;
mod instance;
mod notify;
mod poller;
mod privileges;

pub use clock::{now, wait};
pub use instance::{DEFAULT_RUN_DIR, only_iq};
pub use notify::{tell_alive, tell_ready, tell_stopping, watchdog_interval};
pub use poller::{Poller, Ticker, Wake, shutdown_on_signal};
pub use privileges::{STEADY, keep_only};
