//! Who runs when: the only room that reads a clock or waits.

mod clock;
mod control;
mod instance;
mod memory;
mod notify;
mod poller;
mod privileges;
mod ssh;
mod terminal;
mod watch;

pub use clock::{boot_id, moment, now, patiently, wait};
pub use control::{ControlSocket, Request, ask};
pub use instance::{no_iq, only_iq, only_keeper};
pub use memory::give_back_large_blocks;
pub use notify::{tell_alive, tell_ready, tell_stopping, watchdog_interval};
pub use poller::{Interest, Poller, Ticker, Wake, shutdown_on_signal, told_to_stop};
pub use privileges::{STEADY, keep_only};
pub use ssh::ssh_peers;
pub use terminal::{Keyboard, Stir};
pub use watch::Watch;
