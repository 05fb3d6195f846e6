//! A profile and the command line, checked and turned into what the engine goes by.

use std::num::NonZeroU32;
use std::time::Duration;

use super::error::ProfileError;
use super::load::Profile;
use super::scalar::{Amount, Span};
use super::schema;
use crate::engine::{
    Aggregates, BlockGate, Collateral, Config, Evidence, NonCompliance, PerStage, StageLimit,
    Triggers, Weights,
};
use crate::model::RateLimit;

const DEFAULT_CAP: f64 = 3.0;
const DEFAULT_DOMINANCE: f64 = 2.0;
const DEFAULT_FLASH: f64 = 10.0;

/// Never zero: a stage that ends as it begins would be no protection.
const DEFAULT_TTL: PerStage<Duration> = PerStage {
    soft: Duration::from_secs(60),
    hard: Duration::from_secs(10 * 60),
    block: Duration::from_secs(30 * 60),
};

/// Rate and burst where a profile has no limits.
const DEFAULT_SOFT: (u32, u32) = (20, 40);
const DEFAULT_HARD: (u32, u32) = (5, 10);

/// From this many strikes or ticks on, a profile means "never".
const NEVER: u32 = 999;

/// What the command line sets; it goes before the profile.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Overrides {
    pub soft_ttl: Option<Duration>,
    pub hard_ttl: Option<Duration>,
    pub block_ttl: Option<Duration>,
    pub block_min_sev: Option<f64>,
    pub block_min_dur: Option<Duration>,
}

impl Profile {
    /// The engine's configuration: command line before profile before default.
    ///
    /// # Errors
    /// `Invalid`, with the key and what is wrong with its value.
    pub fn resolve(&self, overrides: &Overrides) -> Result<Config, ProfileError> {
        let spec = &self.document.spec;
        let signals = &spec.signal_engine;
        let weights = Weights {
            pps: signals.weights.pps.get(),
            bps: signals.weights.bps.get(),
            syn: signals.weights.syn.get(),
            ports: signals.weights.scan.get(),
        };
        let (hard_at, block_at) = self.strikes()?;
        let steps = &spec.progressive_enforcement;
        let (soft, hard) = self.limits()?;
        let config = Config {
            triggers: self.triggers(&weights)?,
            weights,
            cap: signals
                .weights
                .cap
                .map(Amount::get)
                .filter(|cap| *cap > 0.0)
                .unwrap_or(DEFAULT_CAP),
            dominance: signals.dominance.map_or(DEFAULT_DOMINANCE, Amount::get),
            flash: signals.flash.map_or(DEFAULT_FLASH, Amount::get),
            soft_at: steps.soft_at,
            hard_at,
            block_at,
            up_need: steps.up_need,
            down_need: steps.down_need,
            ttl: self.ttl(overrides)?,
            hold: PerStage {
                soft: steps.min_hold_soft.get(),
                hard: steps.min_hold_hard.get(),
                block: steps.min_hold_hard.get(),
            },
            gate: self.gate(overrides)?,
            noncompliance: noncompliance(&spec.non_compliance),
            soft,
            hard,
            evidence: Evidence::default(),
            aggregates: Aggregates::default(),
            collateral: Collateral::default(),
        };
        self.check_reach(&config)?;
        Ok(config)
    }

    fn invalid(&self, key: &str, problem: impl Into<String>) -> ProfileError {
        ProfileError::Invalid {
            origin: self.origin.clone(),
            key: format!("spec.{key}"),
            problem: problem.into(),
        }
    }

    /// A `pps_trigger` of 0 leaves every trigger of 0 to learned state, and without that to its
    /// floor. With any other `pps_trigger`, 0 switches the signal off.
    fn triggers(&self, weights: &Weights) -> Result<Triggers, ProfileError> {
        let signals = &self.document.spec.signal_engine;
        let floors = &self.document.spec.autotune.floors;
        let deferred = signals.pps_trigger.get() <= 0.0;
        let pick = |written: Amount, floor: Amount| {
            if deferred && written.get() <= 0.0 {
                floor.get()
            } else {
                written.get()
            }
        };
        let triggers = Triggers {
            pps: pick(signals.pps_trigger, floors.pps),
            bps: pick(signals.bps_trigger, floors.bps),
            syn: pick(signals.syn_trigger, floors.syn),
            ports: pick(signals.scan_trigger, floors.scan),
        };
        if triggers.pps <= 0.0 && weights.pps > 0.0 {
            return Err(self.invalid(
                "signal_engine.pps_trigger",
                "0 leaves it to learned state, and there is none; \
                 set it, or set autotune.floors.pps to start from",
            ));
        }
        let scored = [
            (triggers.pps, weights.pps),
            (triggers.bps, weights.bps),
            (triggers.syn, weights.syn),
            (triggers.ports, weights.ports),
        ];
        if !scored
            .iter()
            .any(|(trigger, weight)| *trigger > 0.0 && *weight > 0.0)
        {
            return Err(self.invalid(
                "signal_engine",
                "no signal has both a trigger and a weight, so nothing would ever be detected",
            ));
        }
        Ok(triggers)
    }

    /// `hard_at` and `block_at`, checked against `soft_at` and each other.
    fn strikes(&self) -> Result<(Option<u32>, Option<u32>), ProfileError> {
        let steps = &self.document.spec.progressive_enforcement;
        let key = |name| format!("progressive_enforcement.{name}");
        if steps.soft_at == 0 {
            return Err(self.invalid(&key("soft_at"), "0 would limit everyone; use 1 or more"));
        }
        if steps.soft_at >= NEVER {
            let problem = format!(
                "{} means never; use --dry-run to only observe",
                steps.soft_at
            );
            return Err(self.invalid(&key("soft_at"), problem));
        }
        let reachable = |at: u32| (at < NEVER).then_some(at);
        let (hard, block) = (reachable(steps.hard_at), reachable(steps.block_at));
        for (name, at, below_name, below) in [
            ("hard_at", hard, "soft_at", Some(steps.soft_at)),
            ("block_at", block, "hard_at", hard),
        ] {
            let Some(at) = at else { continue };
            if below.is_none_or(|below| at <= below) {
                let below = below.map_or("never".to_owned(), |below| below.to_string());
                let problem = format!("{at} is not above {below_name} ({below})");
                return Err(self.invalid(&key(name), problem));
            }
        }
        Ok((hard, block))
    }

    fn ttl(&self, overrides: &Overrides) -> Result<PerStage<Duration>, ProfileError> {
        let steps = &self.document.spec.progressive_enforcement;
        let pick = |name: &str, flag: Option<Duration>, written: Option<Span>, default| {
            let ttl = flag.or(written.map(Span::get)).unwrap_or(default);
            if !ttl.is_zero() {
                return Ok(ttl);
            }
            let problem = "0 would end the stage as it begins";
            Err(match flag {
                Some(_) => on_command_line(name, problem),
                None => self.invalid(&format!("progressive_enforcement.{name}"), problem),
            })
        };
        Ok(PerStage {
            soft: pick(
                "soft_ttl",
                overrides.soft_ttl,
                steps.soft_ttl,
                DEFAULT_TTL.soft,
            )?,
            hard: pick(
                "hard_ttl",
                overrides.hard_ttl,
                steps.hard_ttl,
                DEFAULT_TTL.hard,
            )?,
            block: pick(
                "block_ttl",
                overrides.block_ttl,
                steps.block_ttl,
                DEFAULT_TTL.block,
            )?,
        })
    }

    fn gate(&self, overrides: &Overrides) -> Result<Option<BlockGate>, ProfileError> {
        let steps = &self.document.spec.progressive_enforcement;
        let severity = overrides.block_min_sev.unwrap_or(steps.block_min_sev.get());
        if !severity.is_finite() || severity < 0.0 {
            let problem = format!("{severity} is not a severity; use 0 or more");
            return Err(on_command_line("block_min_sev", problem));
        }
        if severity > 0.0 {
            let lasting = overrides.block_min_dur.unwrap_or(steps.block_min_dur.get());
            return Ok(Some(BlockGate { severity, lasting }));
        }
        if overrides.block_min_dur.is_some() {
            let problem = "without a severity to last there is no gate; set --block-min-sev too";
            return Err(on_command_line("block_min_dur", problem));
        }
        Ok(None)
    }

    fn limits(&self) -> Result<(StageLimit, StageLimit), ProfileError> {
        let shield = &self.document.spec.adapters.shield_pep;
        let soft = rate_limit(shield.soft_rate_pps, shield.soft_burst, DEFAULT_SOFT);
        let hard = rate_limit(shield.hard_rate_pps, shield.hard_burst, DEFAULT_HARD);
        if hard.pps > soft.pps {
            let problem = format!("{} is above soft_rate_pps ({})", hard.pps, soft.pps);
            return Err(self.invalid("adapters.shield_pep.hard_rate_pps", problem));
        }
        let limit = |floor, factor: Option<Amount>| StageLimit {
            floor,
            factor: factor.map(Amount::get).filter(|factor| *factor > 0.0),
        };
        Ok((
            limit(soft, shield.soft_rate_factor),
            limit(hard, shield.hard_rate_factor),
        ))
    }

    /// Refuses a block gate that no traffic can open, which would look like protection.
    fn check_reach(&self, config: &Config) -> Result<(), ProfileError> {
        let Some(gate) = config.gate.filter(|_| config.block_at.is_some()) else {
            return Ok(());
        };
        let weights = &config.weights;
        let weighted = config.cap * (weights.pps + weights.bps + weights.syn + weights.ports);
        let dominant = if config.dominance > 0.0 {
            config.cap
        } else {
            0.0
        };
        let most = (weighted.max(dominant) * 1e6).round() / 1e6;
        if gate.severity <= most {
            return Ok(());
        }
        let problem = format!(
            "no traffic reaches {}, so nothing would ever be blocked; the most is {most}",
            gate.severity
        );
        Err(self.invalid("progressive_enforcement.block_min_sev", problem))
    }
}

/// An error in the flag that sets `key`.
fn on_command_line(key: &str, problem: impl Into<String>) -> ProfileError {
    ProfileError::Invalid {
        origin: "command line".to_owned(),
        key: format!("--{}", key.replace('_', "-")),
        problem: problem.into(),
    }
}

fn noncompliance(written: &schema::NonCompliance) -> Option<NonCompliance> {
    (1..NEVER).contains(&written.at).then(|| NonCompliance {
        at: written.at,
        drops: written.drop.get(),
        severity: written.sev.get(),
        reset: written.reset.get(),
    })
}

/// A limit from a profile's figures, of which 0 stands for the default; a burst that is left out
/// is two seconds' worth.
fn rate_limit(pps: u32, burst: u32, default: (u32, u32)) -> RateLimit {
    let (pps, burst) = match (pps, burst) {
        (0, 0) => default,
        (0, burst) => (default.0, burst),
        (pps, 0) => (pps, pps.saturating_mul(2)),
        given => given,
    };
    RateLimit {
        pps: NonZeroU32::new(pps).unwrap_or(NonZeroU32::MIN),
        burst: NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN),
    }
}
