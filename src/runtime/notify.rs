//! What the service manager hears (sd_notify(3)). Without one, nothing is sent.

use std::time::Duration;

use sd_notify::NotifyState;

/// The service is up: attached, and its loop is about to run.
pub fn tell_ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// The loop still turns.
pub fn tell_alive() {
    tell(&[NotifyState::Watchdog]);
}

pub fn tell_stopping() {
    tell(&[NotifyState::Stopping]);
}

/// How often [`tell_alive`] is due: half of what the manager waits, `None` if it does not watch.
pub fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|limit| limit / 2)
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        log::warn!("telling the service manager: {error}");
    }
}
