//! Who runs when: the only room that reads a clock or waits.

mod clock;
mod control;
mod instance;
mod poller;
mod ssh;
mod watch;

pub use clock::{boot_id, moment, now, wait};
pub use control::{ControlSocket, Request, ask};
pub use instance::only_iq;
pub use poller::{Interest, Poller, Ticker, Wake, shutdown_on_signal};
pub use ssh::ssh_peers;
pub use watch::Watch;
