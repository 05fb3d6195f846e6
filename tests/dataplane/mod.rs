//! The XDP program under BPF_PROG_TEST_RUN, both families, on a clock the test sets.

mod allow_only;
mod bulk;
mod ceiling;
mod features;
mod graph;
mod limiter;
mod odd;
mod owners;
mod policy;
mod probe;
mod proofs;
mod refusals;
mod sketches;
mod table;
mod verdicts;

use std::net::IpAddr;
use std::time::Duration;

use kernloom::dataplane::{Action, Entry, LoadOptions, Lock, Owner, PinDir, Reason, Rule, Shield};
use kernloom::model::{Ktime, LimitScope, RateLimit, Source};
use kernloom::telemetry::Row;

use crate::packet::Frame;

/// A private instance. Time stands still unless told.
struct Plane {
    shield: Shield,
    lock: Lock,
    _dir: tempfile::TempDir,
    now: Ktime,
}

const START: Ktime = Ktime::from_secs(1_000);

/// The program counts per CPU: a test that wandered would find its source in two rows.
fn stay_on_this_cpu() {
    let mut here = nix::sched::CpuSet::new();
    here.set(nix::sched::sched_getcpu().unwrap()).unwrap();
    nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &here).unwrap();
}

impl Plane {
    fn new() -> Self {
        Self::with(LoadOptions::default())
    }

    fn with(options: LoadOptions) -> Self {
        stay_on_this_cpu();
        let dir = tempfile::tempdir().unwrap();
        let shield = Shield::load(&LoadOptions {
            test_clock: true,
            ..options
        })
        .unwrap();
        let lock = PinDir::new(dir.path()).lock().unwrap();
        let mut plane = Self {
            shield,
            lock,
            _dir: dir,
            now: START,
        };
        plane.at(START);
        plane
    }

    fn at(&mut self, now: Ktime) {
        self.now = now;
        self.shield.set_test_time(now);
    }

    fn pass_time(&mut self, span: Duration) {
        self.at(self.now + span);
    }

    /// Runs a frame once: why it left as it did. The action must agree with the reason.
    fn send(&self, frame: &[u8]) -> Reason {
        let run = self.shield.test_run(frame, 1).unwrap();
        let reason = run.reason.unwrap();
        assert_eq!(run.dropped, reason.drops(), "{reason}");
        reason
    }

    fn syn(&self, source: IpAddr) -> Reason {
        self.send(&Frame::syn(source, 443).build())
    }

    fn set(&self, source: &str, action: Action) {
        self.rule(
            source,
            Rule {
                action,
                owner: Owner::Operator,
                expires: None,
            },
        );
    }

    fn rule(&self, source: &str, rule: Rule) {
        self.shield
            .edit(&self.lock)
            .set(&source.parse().unwrap(), &rule)
            .unwrap();
    }

    fn remove(&self, source: &str) -> Option<Entry> {
        self.shield
            .edit(&self.lock)
            .remove(&source.parse().unwrap())
            .unwrap()
    }

    fn row(&self, source: Source) -> Option<Row> {
        let table = self.shield.sources().unwrap();
        table.rows().find(|row| row.source == source)
    }

    fn tracked(&self, source: IpAddr) -> Source {
        Source::tracked(source, self.shield.v6_bits())
    }
}

/// The same source in both families.
fn families() -> [IpAddr; 2] {
    [ip("192.0.2.7"), ip("2001:db8:1:2::7")]
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn limit(pps: u32, burst: u32, scope: LimitScope) -> Action {
    let limit = RateLimit {
        pps: pps.try_into().unwrap(),
        burst: burst.try_into().unwrap(),
    };
    Action::Limit { limit, scope }
}
