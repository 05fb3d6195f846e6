//! Time for the lab: the one clock, the one polling helper, and the one flag that ends every wait.

use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::{LabError, Result};

/// How often a condition is asked again. Short against everything the lab measures.
const POLL: Duration = Duration::from_millis(10);

/// Set by SIGINT, SIGTERM or SIGHUP. Every wait then fails, so that guards drop and clean up.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);
static HANDLER: Once = Once::new();

/// The lab's clock. The lab measures real processes, so there is no virtual time to pass in.
#[expect(
    clippy::disallowed_methods,
    reason = "the lab times real processes; its only clock"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Asks `condition` every 10 ms until it is true. An error, `limit` or a signal ends the wait.
///
/// `what` completes the sentence "waiting for ...".
pub(crate) fn wait_until(
    limit: Duration,
    what: &str,
    mut condition: impl FnMut() -> Result<bool>,
) -> Result<()> {
    let error = |why: &str| LabError::new(format!("waiting for {what}"), why);
    let met = poll(limit, || {
        if interrupted() {
            return Err(error("interrupted by a signal"));
        }
        condition()
    })?;
    if met {
        Ok(())
    } else {
        Err(error(&format!("not so after {:.1} s", limit.as_secs_f64())))
    }
}

/// The same for cleaning up, which a signal must not cut short. Says whether the condition was met.
#[expect(
    clippy::disallowed_methods,
    reason = "the lab's only sleep: bounded, between two polls"
)]
pub(crate) fn poll(limit: Duration, mut condition: impl FnMut() -> Result<bool>) -> Result<bool> {
    let deadline = now() + limit;
    while !condition()? {
        if now() >= deadline {
            return Ok(false);
        }
        std::thread::sleep(POLL);
    }
    Ok(true)
}

/// Whether a signal asked the lab to end.
pub(crate) fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// Turns SIGINT, SIGTERM and SIGHUP into the end of every wait. Only the first call does anything.
pub(crate) fn end_waits_on_signal() {
    HANDLER.call_once(|| {
        // A program that installed a handler of its own keeps it; the sweep at the next start
        // then removes what an interrupted run left.
        let _kept = ctrlc::set_handler(|| INTERRUPTED.store(true, Ordering::Relaxed));
    });
}
