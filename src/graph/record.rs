use std::time::Duration;

use super::Baseline;
use crate::model::{Source, Wall};

/// Length of the windows that `Record::windows` counts, in seconds.
pub const WINDOW_SECS: u64 = 600;

/// What is held of an edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Seen, not yet often and long enough.
    Candidate,
    /// Earned by evidence: would be frozen.
    Learned,
    /// Allowed by the operator: would be frozen.
    Approved,
    /// In the frozen graph.
    Frozen,
    /// Refused by the operator: dropped in every mode.
    Denied,
    /// Unseen for so long that it has to start over.
    Expired,
    /// Taken out of the frozen file by the operator: a freeze leaves it out until it is allowed.
    Removed,
}

impl State {
    pub const ALL: [Self; 7] = [
        Self::Candidate,
        Self::Learned,
        Self::Approved,
        Self::Frozen,
        Self::Denied,
        Self::Expired,
        Self::Removed,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Candidate => "candidate",
            Self::Learned => "learned",
            Self::Approved => "approved",
            Self::Frozen => "frozen",
            Self::Denied => "denied",
            Self::Expired => "expired",
            Self::Removed => "removed",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }

    /// Whether a freeze takes the edge in.
    pub const fn is_accepted(self) -> bool {
        matches!(self, Self::Learned | Self::Approved | Self::Frozen)
    }

    /// Whether an operator said so: evidence and time change nothing.
    pub const fn is_decided(self) -> bool {
        matches!(
            self,
            Self::Approved | Self::Frozen | Self::Denied | Self::Removed
        )
    }
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

/// What one tick saw of one edge from one source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Evidence {
    /// TCP SYN, or the first packet of a UDP or other exchange.
    pub connections: u64,
    pub packets: u64,
    pub bytes: u64,
    /// Connections both ends agreed to: the peer acknowledged our sequence number.
    pub handshakes: u64,
}

impl Evidence {
    pub const fn add(&mut self, other: &Self) {
        self.connections += other.connections;
        self.packets += other.packets;
        self.bytes += other.bytes;
        self.handshakes += other.handshakes;
    }
}

/// All that is known of one edge.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    pub state: State,
    pub first_seen: Wall,
    pub last_seen: Wall,
    /// Ticks in which it was seen.
    pub ticks: u64,
    /// Distinct ten-minute windows in which it was seen.
    pub windows: u64,
    /// Distinct days (UTC) on which it was seen.
    pub days: u64,
    pub seen: Evidence,
    pub rate: Baseline,
    /// The only source that ever taught it, as far as remembered since the start.
    pub teacher: Option<Source>,
}

impl Record {
    pub fn new(state: State, now: Wall, teacher: Option<Source>) -> Self {
        Self {
            state,
            first_seen: now,
            last_seen: now,
            ticks: 0,
            windows: 0,
            days: 0,
            seen: Evidence::default(),
            rate: Baseline::default(),
            teacher,
        }
    }

    /// Adds what one tick of `length`, at `now`, saw of all sources; `source` if it was only one.
    pub fn add(
        &mut self,
        now: Wall,
        length: Duration,
        source: Option<Source>,
        evidence: &Evidence,
    ) {
        let first = self.ticks == 0;
        // Time may have been set back; a window or day is then counted at most once more.
        self.windows += u64::from(first || window(now) != window(self.last_seen));
        self.days += u64::from(first || now.day() != self.last_seen.day());
        self.ticks += 1;
        self.last_seen = self.last_seen.max(now);
        self.seen.add(evidence);
        #[expect(clippy::cast_precision_loss, reason = "packets of one tick")]
        self.rate
            .update(evidence.packets as f64 / length.as_secs_f64().max(0.001));
        if self.teacher != source {
            self.teacher = None;
        }
    }
}

const fn window(at: Wall) -> u64 {
    at.as_secs() / WINDOW_SECS
}
