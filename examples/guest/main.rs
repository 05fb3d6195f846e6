//! Init of a guest of `make matrix`: brings a bare kernel up, runs the static `kernloom` binary and
//! the packet tests on it, says what held, and ends the guest.
//!
//! Everything is in the initramfs: this file as `/init`, `/kernloom`, `/tests`, and kernel modules
//! with their order in `/modules/order`. What is special about the cell stands on the kernel's command
//! line (see [`cell::Cell`]). Each check is one line on the console, `KL|name|ok|detail|seconds`, or
//! `FAIL` instead of `ok`; the last line is `KL-EXIT ok` or `KL-EXIT FAIL`.

#[path = "../../tests/packet/mod.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "shared with the tests, which use all of it"
)]
mod packet;

mod boot;
mod cell;
mod checks;
mod command;
mod deadline;
mod link;
mod wire;

use std::fmt::Display;
use std::time::Duration;

use deadline::Deadline;

/// What failed, in words; the runner shows them in the table.
pub(crate) type Result<T> = std::result::Result<T, String>;

pub(crate) trait Doing<T> {
    fn doing(self, what: &str) -> Result<T>;
}

impl<T, E: Display> Doing<T> for std::result::Result<T, E> {
    fn doing(self, what: &str) -> Result<T> {
        self.map_err(|error| format!("{what}: {error}"))
    }
}

/// Prints one line per check and remembers whether all held.
pub(crate) struct Report {
    failed: u32,
}

impl Report {
    pub(crate) fn check(&mut self, name: &str, check: impl FnOnce() -> Result<String>) -> bool {
        let start = Deadline::after(Duration::ZERO);
        let outcome = check();
        let (word, detail) = match &outcome {
            Ok(detail) => ("ok", detail),
            Err(why) => {
                self.failed += 1;
                ("FAIL", why)
            }
        };
        let detail = detail.trim().replace('\n', "; ");
        println!("KL|{name}|{word}|{detail}|{} s", start.since().as_secs());
        outcome.is_ok()
    }
}

fn main() {
    let mut report = Report { failed: 0 };
    if report.check("boot", boot::bring_up)
        && let Some(cell) = cell(&mut report)
    {
        checks::run(&mut report, &cell);
    }
    let word = if report.failed == 0 { "ok" } else { "FAIL" };
    println!("KL-EXIT {word}");
    boot::end();
}

fn cell(report: &mut Report) -> Option<cell::Cell> {
    let mut found = None;
    report.check("cell", || {
        let cell = cell::Cell::read()?;
        let text = format!("{cell:?}");
        found = Some(cell);
        Ok(text)
    });
    found
}
