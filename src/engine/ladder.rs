//! One source's place between OBSERVE and BLOCK.
//!
//! Up: one stage per tick, to at most the stage its strikes justify, after `up_need` high ticks;
//! or from RATE_HARD to BLOCK when it does not yield to the limit. BLOCK also needs its gate.
//! OBSERVE to RATE_SOFT needs a single tick if one signal flashes, or if what decides took long
//! to gather; that alone leads no further. Evidence that somebody else could have sent in the
//! source's name does not block, unless its volume is itself the harm; a peer whose name it bears,
//! and hosts behind one address, are not held to a packet limit for what a limit of new connections
//! would hold.
//!
//! Down: one stage at a time, after the stage has lasted its stay (TTL and minimum hold, counted
//! from entry or last renewal) and `down_need` low ticks came last. Strikes never release.
//!
//! What is imposed on the kernel outlives the stay by the time those low ticks can take, so the
//! ladder's own release always comes first while the daemon lives.

use std::num::NonZeroU32;
use std::time::Duration;

use super::config::{BlockGate, Config, whole};
use super::decision::{Kind, Why};
use super::explain::Reading;
use super::severity::{Score, Signal};
use crate::model::{Hold, Ktime, LimitScope, RateLimit, Stage};

/// A tick is high from this severity on.
pub const HIGH: f64 = 1.0;

/// A tick is low below this severity, if no limit dropped anything.
pub(super) const LOW: f64 = 0.25;

/// How many times what a peer opened with success it may open beside what failed.
const SUCCESSES: f64 = 2.0;

/// Ticks that may come late before the kernel's entry ends on its own.
const SPARE_TICKS: u32 = 3;

/// What one tick goes by, for every ladder.
pub(super) struct Tick<'a> {
    pub(super) config: &'a Config,
    pub(super) now: Ktime,
    /// Expected time to the next tick.
    pub(super) length: Duration,
    /// Ladders are of many sources each.
    pub(super) many: bool,
}

impl Tick<'_> {
    /// How long the kernel's entry outlives the stay.
    pub(super) fn grace(&self) -> Duration {
        let spare = self.config.down_need.saturating_add(SPARE_TICKS);
        self.length.saturating_mul(spare)
    }

    /// Whether a source with nothing to remember has nothing to remember after this score, either:
    /// most of a window's sources, which then need no ladder.
    #[inline]
    pub(super) fn leaves_blank(&self, score: &Score) -> bool {
        let config = self.config;
        score.severity < HIGH
            && !reaches_gate(config, score)
            && !ignores_limit(config, score.drops)
            && !score.flashes(config)
            && !score.lasted
    }
}

/// Whether what goes on is as bad as what may be blocked.
fn reaches_gate(config: &Config, score: &Score) -> bool {
    let enough = |gate: BlockGate| score.present() >= gate.severity;
    config.gate.is_some_and(enough)
}

/// Whether so many drops per second are a source's that does not yield to its limit.
fn ignores_limit(config: &Config, drops: f64) -> bool {
    config
        .noncompliance
        .is_some_and(|rule| reaches(drops, rule.drops))
}

/// A decision before its source is named.
pub(super) struct Step {
    pub(super) from: Stage,
    pub(super) kind: Kind,
    pub(super) why: Why,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mood {
    High,
    Between,
    Low,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Ladder {
    pub(super) entered: Ktime,
    /// Before this the stage is not left; moved on by renewal.
    pub(super) ends: Ktime,
    pub(super) until: Ktime,
    /// First of the ticks in a row that reach the block gate's severity, while `at_gate`.
    pub(super) gate_since: Ktime,
    pub(super) cause: Figures,
    pub(super) last: Figures,
    pub(super) strikes: u32,
    /// High ticks in a row.
    pub(super) up: u32,
    /// Low ticks in a row.
    pub(super) down: u32,
    /// Ticks of not yielding to a limit.
    pub(super) unyielding: u16,
    pub(super) at_gate: bool,
    pub(super) cause_signal: Signal,
    pub(super) last_signal: Signal,
    pub(super) stage: Stage,
    /// What RATE_SOFT limits, by the signal that led there.
    pub(super) scope: LimitScope,
    /// RATE_HARD limits what is new, too, and leaves alone what is under way.
    pub(super) spares: bool,
    /// The limit in force, at RATE_SOFT and RATE_HARD.
    pub(super) limit: Option<RateLimit>,
    /// What its triggers were divided by when the limit was set.
    pub(super) pressure: u8,
    /// It answered something that this host asked when the limit was set.
    pub(super) asked: bool,
    /// Hosts behind the address when the limit was set.
    pub(super) hosts: u8,
    /// Openings per second that did not fail, of late, when the limit was set.
    pub(super) succeeds: u16,
    /// Of the last window in which it sent.
    pub(super) proven: bool,
}

/// A [`Reading`] without its signal in half the room: there is a pair for each source of an
/// attack.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Figures {
    severity: f32,
    rate: f32,
    trigger: f32,
}

impl Figures {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "seven digits are for a reader"
    )]
    const fn of(reading: &Reading) -> Self {
        Self {
            severity: reading.severity as f32,
            rate: reading.rate as f32,
            trigger: reading.trigger as f32,
        }
    }

    fn with(self, signal: Signal) -> Reading {
        Reading {
            severity: self.severity.into(),
            signal,
            rate: self.rate.into(),
            trigger: self.trigger.into(),
        }
    }
}

impl Default for Ladder {
    fn default() -> Self {
        Self {
            entered: Ktime::default(),
            ends: Ktime::default(),
            until: Ktime::default(),
            gate_since: Ktime::default(),
            cause: Figures::default(),
            last: Figures::default(),
            strikes: 0,
            up: 0,
            down: 0,
            unyielding: 0,
            at_gate: false,
            cause_signal: Signal::Silence,
            last_signal: Signal::Silence,
            stage: Stage::Observe,
            scope: LimitScope::New,
            spares: false,
            limit: None,
            pressure: 1,
            asked: false,
            hosts: 1,
            succeeds: 0,
            proven: false,
        }
    }
}

impl Ladder {
    pub(super) fn stage(&self) -> Stage {
        self.stage
    }

    pub(super) fn until(&self) -> Ktime {
        self.until
    }

    /// Whether nothing would be lost by starting anew.
    pub(super) fn is_blank(&self) -> bool {
        self.stage == Stage::Observe && self.strikes == 0 && self.up == 0 && !self.at_gate
    }

    /// Since when its severity has been that of the block gate.
    pub(super) fn gate_since(&self) -> Option<Ktime> {
        self.at_gate.then_some(self.gate_since)
    }

    pub(super) fn unyielding(&self) -> u32 {
        self.unyielding.into()
    }

    /// What led to the stage.
    pub(super) fn cause(&self) -> Reading {
        self.cause.with(self.cause_signal)
    }

    /// The last window.
    pub(super) fn last(&self) -> Reading {
        self.last.with(self.last_signal)
    }

    pub(super) fn set_cause(&mut self, cause: &Reading) {
        (self.cause, self.cause_signal) = (Figures::of(cause), cause.signal);
    }

    /// What the data plane is to do at this stage.
    pub(super) fn hold(&self) -> Option<Hold> {
        let limit = |scope| self.limit.map(|limit| Hold::Limit { limit, scope });
        match self.stage {
            Stage::Observe => None,
            Stage::RateSoft => limit(self.scope),
            Stage::RateHard if self.spares => limit(LimitScope::New),
            Stage::RateHard => limit(LimitScope::All),
            Stage::Block => Some(Hold::Deny),
        }
    }

    /// The limit of `stage` for what led there.
    fn limit_of(&self, tick: &Tick<'_>, stage: Stage) -> Option<RateLimit> {
        let config = tick.config;
        match stage {
            Stage::Observe | Stage::Block => None,
            Stage::RateSoft => Some(self.soft_limit(tick)),
            Stage::RateHard => Some(config.hard_limit().times(self.hosts.into())),
        }
    }

    /// A single host that this host asks nothing of is held to what would not have been too much
    /// of what it opened, and so are many together; an address that hosts share is not, nor a peer to
    /// less than it had use for. A source's own limit goes before that of everyone, so it must not be
    /// the milder one under pressure.
    fn soft_limit(&self, tick: &Tick<'_>) -> RateLimit {
        let config = tick.config;
        let usual = config
            .soft_limit()
            .times(self.hosts.into())
            .over(self.pressure.into());
        let allowed = match self.cause_signal {
            Signal::Ports
            | Signal::Refusals
            | Signal::PortsMinute
            | Signal::PortsHour
            | Signal::PortsDay
                if !tick.many =>
            {
                config
                    .triggers
                    .ports
                    .max(f64::from(self.succeeds) * SUCCESSES)
            }
            Signal::Sustained => f64::from(self.cause.trigger),
            Signal::Syns | Signal::HalfOpen if tick.many || self.pressure > 1 => {
                config.triggers.syn / f64::from(self.pressure.max(1))
            }
            Signal::Packets
            | Signal::Bytes
            | Signal::Syns
            | Signal::Ports
            | Signal::HalfOpen
            | Signal::Refusals
            | Signal::PortsMinute
            | Signal::PortsHour
            | Signal::PortsDay
            | Signal::Drops
            | Signal::Silence
            | Signal::Everyone => return usual,
        };
        let applies = self.scope == LimitScope::New && self.hosts == 1 && !self.asked;
        match NonZeroU32::new(whole(allowed.ceil())) {
            Some(pps) if applies && pps < usual.pps => RateLimit {
                pps,
                burst: pps.saturating_mul(NonZeroU32::MIN.saturating_add(1)),
            },
            Some(_) | None => usual,
        }
    }

    /// Takes in one window's score and moves by at most one stage.
    pub(super) fn advance(&mut self, tick: &Tick<'_>, score: &Score) -> Option<Step> {
        let mood = self.mood(tick.config, score);
        self.remember(tick, score, mood);
        let target = self.target(tick, score, mood);
        if target > self.stage {
            return Some(self.enter(tick, target, score));
        }
        if self.stage == Stage::Observe {
            return None;
        }
        let stay = tick.config.stay(self.stage);
        if mood == Mood::Low {
            let done = tick.now >= self.ends && self.down >= tick.config.down_need;
            return done.then(|| self.step_down(tick, score));
        }
        let widens = mood == Mood::High
            && match self.stage {
                Stage::RateSoft => {
                    let score = self.decisive(tick.config, score);
                    self.scope == LimitScope::New
                        && scope_for(&score, self.scope) == LimitScope::All
                }
                Stage::RateHard => self.spares && score.under_way >= HIGH,
                Stage::Observe | Stage::Block => false,
            };
        (tick.now + stay / 2 >= self.ends || widens).then(|| self.enter(tick, self.stage, score))
    }

    /// Limits at once a source that flashes, between ticks. Streaks and strikes are left to the
    /// tick that follows, whose window holds the same packets.
    pub(super) fn alert(&mut self, tick: &Tick<'_>, score: &Score) -> Option<Step> {
        (self.stage == Stage::Observe && score.flashes(tick.config))
            .then(|| self.enter(tick, Stage::RateSoft, score))
    }

    /// Enters RATE_SOFT, or renews it in time, for a reason that is not the prefix's own. What its
    /// peers have under way is none of it, whatever harms.
    pub(super) fn shelter(&mut self, tick: &Tick<'_>, overall: &Score) -> Option<Step> {
        let stay = tick.config.stay(Stage::RateSoft);
        let scope = match self.stage {
            Stage::Observe => LimitScope::New,
            Stage::RateSoft if tick.now + stay / 2 >= self.ends => self.scope,
            Stage::RateSoft | Stage::RateHard | Stage::Block => return None,
        };
        let mut step = self.enter_as(tick, Stage::RateSoft, overall, scope);
        // The limit is by what harms; that this prefix sent it is not to be said.
        step.why.signal = Signal::Everyone;
        self.cause_signal = Signal::Everyone;
        Some(step)
    }

    /// Drops per second that say something: at BLOCK every packet is one.
    fn drops(&self, score: &Score) -> f64 {
        if self.stage == Stage::Block || self.is_pressed(score) {
            0.0
        } else {
            score.drops
        }
    }

    /// Whether a peer is held to fewer openings than it makes, all of which would not be too many:
    /// others than who flooded may be left behind its address, and their limit is no reason for it.
    fn is_pressed(&self, score: &Score) -> bool {
        let of_new = match self.stage {
            // What is too much for so long is no more than this in any window.
            _ if self.cause_signal == Signal::Sustained => false,
            Stage::RateSoft => self.scope == LimitScope::New,
            Stage::RateHard => self.spares,
            Stage::Observe | Stage::Block => false,
        };
        // What is dropped is of the same kind as what passes.
        let passed = score.opens - score.drops;
        of_new && score.proven && passed > 0.0 && score.severity * score.opens < HIGH * passed
    }

    fn mood(&self, config: &Config, score: &Score) -> Mood {
        let drops = self.drops(score);
        if score.severity >= HIGH || ignores_limit(config, drops) {
            Mood::High
        } else if score.severity < LOW && drops <= 0.0 {
            Mood::Low
        } else {
            Mood::Between
        }
    }

    /// Updates everything that a later tick will go by, except the stage.
    fn remember(&mut self, tick: &Tick<'_>, score: &Score, mood: Mood) {
        match mood {
            Mood::High => (self.up, self.down) = (self.up.saturating_add(1), 0),
            Mood::Low => (self.up, self.down) = (0, self.down.saturating_add(1)),
            Mood::Between => {
                self.up = self.up.saturating_sub(1);
                self.down = self.down.saturating_sub(1);
            }
        }
        let earned = [1.0, 2.0, 3.0].map(|step| u32::from(score.present() >= step));
        self.strikes = self
            .strikes
            .saturating_add(earned.iter().sum())
            .min(tick.config.strike_ceiling());
        if mood == Mood::Low {
            self.strikes = self.strikes.saturating_sub(1);
        }
        let at_gate = reaches_gate(tick.config, score);
        if at_gate && !self.at_gate {
            self.gate_since = tick.now;
        }
        self.at_gate = at_gate;
        self.count_unyielding(tick.config, score);
        (self.last, self.last_signal) = (Figures::of(&score.reading()), score.signal);
        if score.signal != Signal::Silence {
            self.proven = score.proven;
        }
    }

    fn count_unyielding(&mut self, config: &Config, score: &Score) {
        let Some(rule) = config.noncompliance else {
            return;
        };
        let drops = self.drops(score);
        if self.stage == Stage::Observe || (score.present() < rule.reset && drops <= 0.0) {
            self.unyielding = 0;
        } else if reaches(drops, rule.drops) || reaches(score.present(), rule.severity) {
            self.unyielding = self.unyielding.saturating_add(1);
        }
    }

    /// Where the source should be after this tick: here or one stage harsher.
    fn target(&mut self, tick: &Tick<'_>, score: &Score, mood: Mood) -> Stage {
        let config = tick.config;
        if self.stage == Stage::Observe && (score.flashes(config) || score.lasted) {
            self.strikes = self.strikes.max(config.soft_at);
            return Stage::RateSoft;
        }
        if mood != Mood::High || self.up < config.up_need {
            return self.stage;
        }
        let justified = config.justified(self.strikes);
        let most = harshest(score);
        match self.stage {
            Stage::Observe if justified > Stage::Observe => Stage::RateSoft,
            Stage::RateSoft if justified.min(most) > Stage::RateSoft => Stage::RateHard,
            Stage::RateHard
                if (justified > Stage::RateHard || self.is_unyielding(config))
                    && most == Stage::Block
                    && self.gate_is_open(tick)
                    && may_block(config, score) =>
            {
                Stage::Block
            }
            stage @ (Stage::Observe | Stage::RateSoft | Stage::RateHard | Stage::Block) => stage,
        }
    }

    fn is_unyielding(&self, config: &Config) -> bool {
        config.block_at.is_some()
            && config
                .noncompliance
                .is_some_and(|rule| self.unyielding() >= rule.at)
    }

    fn gate_is_open(&self, tick: &Tick<'_>) -> bool {
        tick.config.gate.is_none_or(|gate| {
            self.gate_since()
                .is_some_and(|since| tick.now.since(since) >= gate.lasting)
        })
    }

    /// Enters `to` anew, which is the same or a harsher stage.
    fn enter(&mut self, tick: &Tick<'_>, to: Stage, score: &Score) -> Step {
        let score = self.decisive(tick.config, score);
        let scope = match (self.stage, self.scope) {
            (Stage::RateSoft | Stage::RateHard | Stage::Block, LimitScope::All) => LimitScope::All,
            (Stage::Observe, _) | (_, LimitScope::New) => scope_for(&score, LimitScope::New),
        };
        self.enter_as(tick, to, &score, scope)
    }

    fn enter_as(&mut self, tick: &Tick<'_>, to: Stage, score: &Score, new: LimitScope) -> Step {
        let (from, scope, limit, spared) = (self.stage, self.scope, self.limit, self.spares);
        let kind = if to > from {
            Kind::Escalate
        } else {
            Kind::Renew
        };
        self.scope = new;
        // That a peer's floods stopped, and it still exceeds their limit, does not make it harsher.
        let spares = score.under_way < HIGH && (spared || is_shared(score) || score.proven);
        self.spares = to == Stage::RateHard && (kind == Kind::Escalate || spared) && spares;
        self.hosts = u8::try_from(score.hosts).unwrap_or(u8::MAX);
        self.pressure = whole(score.pressure).try_into().unwrap_or(u8::MAX);
        self.asked = score.answers;
        self.succeeds = u16::try_from(score.succeeds).unwrap_or(u16::MAX);
        // What is left of it while the limit works says not why it was set, nor do drops.
        let leads = score.severity >= HIGH && score.signal != Signal::Drops;
        if kind == Kind::Escalate || leads {
            self.set_cause(&score.reading());
        }
        self.settle(tick, to);
        // A renewal makes nothing milder: that the limit works must not lift it. What is only remembered
        // goes by what succeeds meanwhile.
        let same = (scope, spared) == (self.scope, self.spares);
        if kind == Kind::Renew && same && !score.signal.is_memory() {
            self.limit = self
                .limit
                .into_iter()
                .chain(limit)
                .min_by_key(|limit| limit.pps);
        }
        let why = Why::of(score, self.strikes);
        Step { from, kind, why }
    }

    /// Steps down and clears what would lead straight back up.
    fn step_down(&mut self, tick: &Tick<'_>, score: &Score) -> Step {
        let from = self.stage;
        self.strikes = self.strikes.min(tick.config.strikes_below(from));
        self.unyielding = 0;
        self.settle(tick, from.milder());
        Step {
            from,
            kind: Kind::Release,
            why: Why::of(score, self.strikes),
        }
    }

    fn settle(&mut self, tick: &Tick<'_>, stage: Stage) {
        if stage != self.stage {
            self.entered = tick.now;
        }
        self.stage = stage;
        self.limit = self.limit_of(tick, stage);
        self.ends = tick.now + tick.config.stay(stage);
        self.until = self.ends + tick.grace();
    }

    /// Stays at OBSERVE after all.
    pub(super) fn withhold(&mut self) {
        *self = Self {
            gate_since: self.gate_since,
            at_gate: self.at_gate,
            last: self.last,
            last_signal: self.last_signal,
            strikes: self.strikes,
            up: self.up,
            proven: self.proven,
            ..Self::default()
        };
    }

    /// The score, with drops as its signal where they are what made the tick high.
    fn decisive(&self, config: &Config, score: &Score) -> Score {
        match config.noncompliance {
            Some(rule) if score.severity < HIGH && reaches(self.drops(score), rule.drops) => {
                Score {
                    signal: Signal::Drops,
                    rate: score.drops,
                    trigger: rule.drops,
                    ..*score
                }
            }
            Some(_) | None => *score,
        }
    }
}

/// The harshest stage that what was measured can lead to. Unless volume is the harm, connections
/// are held to their limit and packets are not: of an address that hosts share, and of a peer in whose
/// name anybody could have begun them. Nor does what is remembered go further: it may be over.
fn harshest(score: &Score) -> Stage {
    if score.signal.is_memory() || (is_shared(score) && score.volume < HIGH) {
        Stage::RateSoft
    } else if spares(score) {
        Stage::RateHard
    } else {
        Stage::Block
    }
}

/// Whether others than who did it may stand behind the address.
fn is_shared(score: &Score) -> bool {
    let peer = score.proven || score.answers;
    score.hosts > 1 || (peer && score.spoofable)
}

/// Whether a limit is to leave alone what is under way: others may depend on it, and a limit of
/// what is new holds all that harms.
fn spares(score: &Score) -> bool {
    is_shared(score) && score.under_way < HIGH
}

/// Whether a block would hit who did it, or is worth it even so.
fn may_block(config: &Config, score: &Score) -> bool {
    let enough = config.gate.map_or(HIGH, |gate| gate.severity);
    !score.spoofable || score.volume >= enough
}

/// Whether `value` reaches a bound that is not switched off with 0.
fn reaches(value: f64, bound: f64) -> bool {
    bound > 0.0 && value >= bound
}

/// What RATE_SOFT must limit against what was scored: new connections, or packets where volume
/// harms, and where nothing of it opens any. Drops only say that the limit in force is exceeded.
fn scope_for(score: &Score, now: LimitScope) -> LimitScope {
    match score.signal {
        Signal::Packets | Signal::Bytes if !spares(score) => LimitScope::All,
        Signal::Refusals if score.strays => LimitScope::All,
        Signal::Drops => now,
        Signal::Packets
        | Signal::Bytes
        | Signal::Syns
        | Signal::Ports
        | Signal::HalfOpen
        | Signal::Refusals
        | Signal::PortsMinute
        | Signal::PortsHour
        | Signal::PortsDay
        | Signal::Sustained
        | Signal::Silence
        | Signal::Everyone => LimitScope::New,
    }
}
