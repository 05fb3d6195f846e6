//! What a source did over longer than a window: ports, hosts behind it, openings.
//!
//! Ports and stack fingerprints are the data plane's sketches, OR-ed over half a span at a time;
//! the last two halves together reach back between half of the span and all of it. So one source
//! costs some 100 bytes however long it is followed, and there is a bound on sources.

use std::ops::BitOr;
use std::time::Duration;

use super::config::{Config, Evidence, whole};
use super::severity::{Signal, Standing, failures};
use super::sorted::Sorted;
use crate::model::{Ktime, Source};
use crate::telemetry::{Coverage, Key, Order, Sample, linear_count};

const MINUTE: u32 = 60;
const HOUR: u32 = 60 * MINUTE;
const DAY: u32 = 24 * HOUR;

/// Sources followed at the same time.
const MOST_TRACKS: usize = 65_536;

/// Of that, what is kept for others than those who opened a single port and prove nothing: any number
/// of them is made up in no time.
const KEPT: usize = MOST_TRACKS / 8;

/// Seconds between two looks for tracks to give up.
const PRUNE_EVERY: u32 = MINUTE;

/// Of a proven source's SYNs, one in this many may be half open, else they do not tell hosts:
/// options are easily made up.
const HALF_OPEN_MOST: u64 = 4;

/// The running and the last half of a span.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Halves<T> {
    running: T,
    last: T,
}

impl<T: Copy + Default> Halves<T> {
    /// Moves on by `steps` halves.
    fn turn(&mut self, steps: u32) {
        match steps {
            0 => {}
            1 => (self.last, self.running) = (self.running, T::default()),
            _ => *self = Self::default(),
        }
    }
}

impl<T: Copy + BitOr<Output = T> + Into<u64>> Halves<T> {
    fn count(&self) -> u32 {
        linear_count((self.running | self.last).into())
    }
}

impl Halves<u32> {
    fn sum(&self) -> u32 {
        self.running.saturating_add(self.last)
    }
}

/// One source's past, for as long as a day.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Track {
    minute: Halves<u64>,
    hour: Halves<u64>,
    day: Halves<u64>,
    /// Stack fingerprints within an hour.
    stacks: Halves<u32>,
    /// SYNs within an hour.
    syns: Halves<u32>,
    /// Openings that failed within a day.
    failures: Halves<u32>,
    /// The most openings of one second that did not fail, within a minute.
    succeeded: Halves<u32>,
    /// Seconds, of the last update.
    updated: u32,
}

impl Track {
    #[inline]
    fn turn_to(&mut self, secs: u32) {
        // Longer spans turn with the shortest.
        if secs / (MINUTE / 2) == self.updated / (MINUTE / 2) {
            self.updated = secs;
            return;
        }
        let steps = |span: u32| {
            let half = span / 2;
            (secs / half).saturating_sub(self.updated / half)
        };
        let (minute, hour, day) = (steps(MINUTE), steps(HOUR), steps(DAY));
        self.minute.turn(minute);
        self.succeeded.turn(minute);
        self.hour.turn(hour);
        self.stacks.turn(hour);
        self.syns.turn(hour);
        self.day.turn(day);
        self.failures.turn(day);
        self.updated = secs;
    }

    /// Whether it opened a port that it had not within a minute. Of its SYNs, a window's share counts
    /// at most, so that a short flood is not an hour's worth.
    #[inline]
    fn add(&mut self, watch: &Watch<'_>, sample: &Sample) -> bool {
        let hosts = self.hosts(watch.config.evidence.nat);
        let known = self.minute.running | self.minute.last;
        for ports in [&mut self.minute, &mut self.hour, &mut self.day] {
            ports.running |= sample.port_bits;
        }
        if sample.proven && u64::from(sample.half_open) * HALF_OPEN_MOST <= sample.syns.into() {
            self.stacks.running |= sample.stack_bits;
        }
        let syns = sample.syns.min(watch.most_syns.saturating_mul(hosts));
        self.syns.running = self.syns.running.saturating_add(syns);
        let failures = failures(sample);
        self.failures.running = self.failures.running.saturating_add(failures);
        let mut succeeded = sample.syns.saturating_sub(failures);
        if watch.seconds > 1.0 && succeeded > self.succeeded.running {
            succeeded = whole(f64::from(succeeded) / watch.seconds);
        }
        self.succeeded.running = self.succeeded.running.max(succeeded);
        sample.port_bits & !known != 0
    }

    /// Whether it opened no more than one port, and no more than one host shows.
    fn is_single(&self) -> bool {
        self.day.count() <= 1 && self.stacks.count() <= 1
    }

    /// Hosts behind the address, as far as they show, 1 to `most`.
    fn hosts(&self, most: u32) -> u32 {
        self.stacks.count().clamp(1, most.max(1))
    }

    /// `finds`: another port in this window.
    fn standing(&self, watch: &Watch<'_>, sample: &Sample, finds: bool) -> Standing {
        let (hosts, succeeds) = if sample.proven {
            let succeeded = self.succeeded;
            let most = succeeded.running.max(succeeded.last);
            (self.hosts(watch.config.evidence.nat), most)
        } else {
            (1, 0)
        };
        Standing {
            hosts,
            succeeds,
            pressure: 1.0,
            slow: self.slow(watch, sample, finds),
        }
    }

    /// The worst of what is scored over more than a window, as signal, value and trigger. A scan goes
    /// on while openings fail, or while somebody of whom it is not known `finds` another port.
    fn slow(&self, watch: &Watch<'_>, sample: &Sample, finds: bool) -> Option<(Signal, f64, f64)> {
        let (config, coverage) = (watch.config, watch.coverage);
        let (mut worst, mut most) = (None, 0.0);
        let mut consider = |signal, value: f64, trigger: f64| {
            if trigger > 0.0 && value >= trigger && value / trigger > most {
                (worst, most) = (Some((signal, value, trigger)), value / trigger);
            }
        };
        let known = coverage.proof && coverage.refusals && sample.proven;
        let goes_on = failures(sample) > 0 || (finds && !known);
        if sample.port_bits != 0 && goes_on && config.weights.ports > 0.0 {
            let ports = &config.evidence.slow_ports;
            let day = self.day.count();
            // No more ports in a shorter time than in a longer one.
            let shows = |trigger: &u32| day >= *trigger;
            let is_client = || known && self.failures.sum().saturating_mul(2) < day;
            let least = [ports.minute, ports.hour, ports.day];
            if least.iter().any(shows) && !is_client() {
                if shows(&ports.minute) {
                    let minute = self.minute.count();
                    consider(Signal::PortsMinute, minute.into(), ports.minute.into());
                }
                if shows(&ports.hour) {
                    let hour = self.hour.count();
                    consider(Signal::PortsHour, hour.into(), ports.hour.into());
                }
                consider(Signal::PortsDay, day.into(), ports.day.into());
            }
        }
        if sample.syns > 0 {
            let most = config.evidence.sustained * config.triggers.syn;
            let rate = f64::from(self.syns.sum()) / f64::from(HOUR);
            if rate >= most {
                let hosts = self.hosts(config.evidence.nat);
                consider(Signal::Sustained, rate, most * f64::from(hosts));
            }
        }
        worst
    }
}

/// The tracks of all sources that open connections.
#[derive(Debug, Default)]
pub(super) struct Tracks {
    tracks: Sorted<Track>,
    pruned: u32,
}

/// What is the same for all sources of one window.
pub(super) struct Watch<'a> {
    config: &'a Config,
    coverage: Coverage,
    /// Seconds since the host started.
    now: u32,
    /// Length of the window.
    seconds: f64,
    /// SYNs of one host that count.
    most_syns: u32,
}

impl<'a> Watch<'a> {
    pub(super) fn new(
        config: &'a Config,
        coverage: Coverage,
        now: Ktime,
        length: Duration,
    ) -> Self {
        let seconds = length.as_secs_f64();
        Self {
            config,
            coverage,
            now: secs_of(now),
            seconds,
            most_syns: whole(config.triggers.syn * seconds),
        }
    }
}

impl Tracks {
    pub(super) fn in_order(order: Order) -> Self {
        Self {
            tracks: Sorted::in_order(order),
            pruned: 0,
        }
    }

    /// Takes in one window of the source of `key`, which come in order, and tells its standing.
    pub(super) fn follow(&mut self, watch: &Watch<'_>, key: &Key, sample: &Sample) -> Standing {
        let opens = sample.port_bits != 0 || sample.stack_bits != 0 || sample.syns > 0;
        if let Some(track) = self.tracks.pass_to(key) {
            track.turn_to(watch.now);
            let finds = track.add(watch, sample);
            return track.standing(watch, sample, finds);
        }
        if !opens {
            return Standing::default();
        }
        let mut track = Track {
            updated: watch.now,
            ..Track::default()
        };
        let finds = track.add(watch, sample);
        let most = if sample.proven || !track.is_single() {
            MOST_TRACKS
        } else {
            MOST_TRACKS - KEPT
        };
        if self.tracks.len() < most {
            self.tracks.insert(*key, track, MOST_TRACKS);
        }
        track.standing(watch, sample, finds)
    }

    pub(super) fn hosts(&self, source: &Source, evidence: &Evidence) -> u32 {
        self.tracks
            .get(source)
            .map_or(1, |track| track.hosts(evidence.nat))
    }

    /// Distinct ports within a minute, an hour and a day.
    pub(super) fn ports(&self, source: &Source, now: Ktime) -> [u32; 3] {
        self.tracks.get(source).map_or([0; 3], |track| {
            let mut track = *track;
            track.turn_to(secs_of(now));
            [track.minute, track.hour, track.day].map(|ports| ports.count())
        })
    }

    /// Ends a pass. When room runs short, those who opened a single port and were silent longest
    /// go first: a flood of made-up sources never displaces a slow scanner.
    pub(super) fn end_pass(&mut self, now: Ktime) {
        let secs = secs_of(now);
        if secs.saturating_sub(self.pruned) < PRUNE_EVERY {
            return self.tracks.end_pass(|_| true);
        }
        self.pruned = secs;
        let idle = |track: &Track| secs.saturating_sub(track.updated);
        let short = self.tracks.len() >= MOST_TRACKS - KEPT;
        self.tracks.end_pass(|track| {
            let most = match (track.is_single(), short) {
                (true, true) => PRUNE_EVERY,
                (true, false) => HOUR,
                (false, _) => DAY,
            };
            idle(track) < most
        });
    }

    /// `gone`: sorted.
    pub(super) fn forget(&mut self, gone: &[Source]) {
        self.tracks.remove(gone);
    }
}

fn secs_of(now: Ktime) -> u32 {
    u32::try_from(now.since(Ktime::default()).as_secs()).unwrap_or(u32::MAX)
}
