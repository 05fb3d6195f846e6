//! A profile and the command line, checked and turned into what the engine goes by.

use std::num::NonZeroU32;
use std::time::Duration;

use super::error::ProfileError;
use super::layer::{Layer, Setting, Stack, set_on_command_line};
use super::load::Profile;
use super::scalar::Amount;
use super::schema::{self, Spec};
use crate::engine::{
    Aggregates, BlockGate, Collateral, Config, Evidence, HIGH, NonCompliance, PerStage, SlowPorts,
    StageLimit, Triggers, Weights,
};
use crate::model::{RateLimit, format_duration};

/// From this many strikes or ticks on, a profile means "never".
const NEVER: u32 = 999;

/// What the sketch of ports can tell apart, and the hosts that are remembered of one address.
const MOST_PORTS: u32 = 266;
const MOST_HOSTS: u32 = 255;

/// What the command line sets; it goes before file and profile.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Overrides {
    pub soft_ttl: Option<Duration>,
    pub hard_ttl: Option<Duration>,
    pub block_ttl: Option<Duration>,
    pub block_min_sev: Option<f64>,
    pub block_min_dur: Option<Duration>,
    pub bootstrap_allow_block: Option<bool>,
    /// `KEY=VALUE`, later ones first.
    pub set: Vec<String>,
}

impl Overrides {
    /// One layer per flag, `--set` below the flags that name what they set.
    fn layers(&self) -> Result<Vec<Layer>, ProfileError> {
        let mut layers = Vec::new();
        for text in &self.set {
            layers.push(set_on_command_line(text)?);
        }
        let mut add = |flag: &str, key: &str, value: serde_yaml::Value| {
            layers.push(Layer::single(
                format!("command line (--{flag})"),
                key,
                value,
            ));
        };
        let spans = [
            ("soft-ttl", "soft_ttl", self.soft_ttl),
            ("hard-ttl", "hard_ttl", self.hard_ttl),
            ("block-ttl", "block_ttl", self.block_ttl),
            ("block-min-dur", "block_min_dur", self.block_min_dur),
        ];
        for (flag, key, span) in spans {
            if let Some(span) = span {
                let key = format!("progressive_enforcement.{key}");
                add(flag, &key, format_duration(span).into());
            }
        }
        if let Some(severity) = self.block_min_sev {
            if !severity.is_finite() || severity < 0.0 {
                return Err(ProfileError::Invalid {
                    origin: "command line".to_owned(),
                    key: "--block-min-sev".to_owned(),
                    problem: format!("{severity} is not a severity; use 0 or more"),
                });
            }
            let key = "progressive_enforcement.block_min_sev";
            add("block-min-sev", key, severity.into());
        }
        if let Some(allow) = self.bootstrap_allow_block {
            let key = "autotune.bootstrap.allow_block";
            add("bootstrap-allow-block", key, allow.into());
        }
        Ok(layers)
    }
}

/// Everything a profile says once the command line, the profiles below it and the defaults had
/// their say.
#[derive(Debug, Clone, PartialEq)]
pub struct Effective {
    origin: String,
    spec: Spec,
    stack: Stack,
}

impl Profile {
    /// Lays command line over file over profile over defaults.
    ///
    /// # Errors
    /// `Invalid` if a key that has no default is missing, or a flag makes no sense.
    pub fn effective(&self, overrides: &Overrides) -> Result<Effective, ProfileError> {
        let defaults = Layer::defaults();
        let flags = overrides.layers()?;
        let stack = Stack::of([&defaults].into_iter().chain(&self.layers).chain(&flags));
        let invalid = |key: String, problem: String| ProfileError::Invalid {
            origin: self.origin.clone(),
            key,
            problem,
        };
        if let Some(key) = stack.missing() {
            let problem = "missing, and it has no default; set it, or give a profile to start from";
            return Err(invalid(format!("spec.{key}"), problem.to_owned()));
        }
        let spec = stack
            .spec()
            .map_err(|error| invalid("spec".to_owned(), error.to_string()))?;
        let origin = self.origin.clone();
        Ok(Effective {
            origin,
            spec,
            stack,
        })
    }

    /// The engine's configuration: command line before file before profile before default.
    ///
    /// # Errors
    /// `Invalid`, with the key, who set it and what is wrong with its value.
    pub fn resolve(&self, overrides: &Overrides) -> Result<Config, ProfileError> {
        self.effective(overrides)?.config()
    }
}

impl Effective {
    /// The keys in the file's own words.
    pub const fn spec(&self) -> &Spec {
        &self.spec
    }

    /// Every key that has a value, sorted, with who set it.
    pub fn settings(&self) -> Vec<Setting> {
        self.stack.settings()
    }

    /// Who set `key`, a path below `spec`: `profile idp`, a file, `command line (--FLAG)`, `default`.
    pub fn origin(&self, key: &str) -> &str {
        self.stack.origin(key).unwrap_or("default")
    }

    /// What the engine goes by.
    ///
    /// # Errors
    /// `Invalid`, with the key, who set it and what is wrong with its value.
    pub fn config(&self) -> Result<Config, ProfileError> {
        let spec = &self.spec;
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
            cap: signals.weights.cap.get(),
            dominance: signals.dominance.get(),
            flash: signals.flash.get(),
            soft_at: steps.soft_at,
            hard_at,
            block_at,
            up_need: steps.up_need,
            down_need: steps.down_need,
            ttl: self.ttl()?,
            hold: PerStage {
                soft: steps.min_hold_soft.get(),
                hard: steps.min_hold_hard.get(),
                block: steps.min_hold_hard.get(),
            },
            gate: self.gate()?,
            noncompliance: noncompliance(&spec.non_compliance),
            soft,
            hard,
            evidence: self.evidence()?,
            aggregates: self.aggregates()?,
            collateral: self.collateral()?,
        };
        self.check_reach(&config)?;
        self.check_plan()?;
        Ok(config)
    }

    /// Refuses a schedule of autotune that contradicts itself.
    fn check_plan(&self) -> Result<(), ProfileError> {
        let plan = &self.spec.autotune.bootstrap;
        let key = |name: &str| format!("autotune.bootstrap.{name}");
        for (name, end, after_name, after) in [
            ("phase2_end", plan.phase2_end, "phase1_end", plan.phase1_end),
            ("window", plan.window, "phase2_end", plan.phase2_end),
        ] {
            if end < after {
                let problem = format!("{end} is before {after_name} ({after})");
                return Err(self.invalid(&key(name), problem));
            }
        }
        for (name, phase) in [
            ("phase1", &plan.phase1),
            ("phase2", &plan.phase2),
            ("phase3", &plan.phase3),
            ("steady", &plan.steady),
        ] {
            if phase.max_down.get() >= 1.0 {
                let problem = "a step of 1 or more down leaves no threshold; use less than 1";
                return Err(self.invalid(&key(&format!("{name}.max_down")), problem));
            }
        }
        Ok(())
    }

    fn invalid(&self, key: &str, problem: impl Into<String>) -> ProfileError {
        let origin = self.stack.origin(key).filter(|origin| *origin != "default");
        ProfileError::Invalid {
            origin: origin.unwrap_or(&self.origin).to_owned(),
            key: format!("spec.{key}"),
            problem: problem.into(),
        }
    }

    /// A `pps_trigger` of 0 leaves every trigger of 0 to learned state, and without that to its
    /// floor. With any other `pps_trigger`, 0 switches the signal off.
    fn triggers(&self, weights: &Weights) -> Result<Triggers, ProfileError> {
        let signals = &self.spec.signal_engine;
        let floors = &self.spec.autotune.floors;
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
        let steps = &self.spec.progressive_enforcement;
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

    fn evidence(&self) -> Result<Evidence, ProfileError> {
        let written = &self.spec.evidence;
        for (name, ports) in [
            ("ports_minute", written.ports_minute),
            ("ports_hour", written.ports_hour),
            ("ports_day", written.ports_day),
        ] {
            if ports > MOST_PORTS {
                let problem = format!(
                    "{ports} is more than can be told apart; use at most {MOST_PORTS}, or 0 for off"
                );
                return Err(self.invalid(&format!("evidence.{name}"), problem));
            }
        }
        if !(1..=MOST_HOSTS).contains(&written.nat_max) {
            let problem = format!(
                "{} is out of range; use 1 (no room for others) to {MOST_HOSTS}",
                written.nat_max
            );
            return Err(self.invalid("evidence.nat_max", problem));
        }
        Ok(Evidence {
            half_open: written.half_open.get(),
            refusals: written.refusals.get(),
            slow_ports: SlowPorts {
                minute: written.ports_minute,
                hour: written.ports_hour,
                day: written.ports_day,
            },
            sustained: written.sustained.get(),
            consent: written.consent.get(),
            nat: written.nat_max,
        })
    }

    fn aggregates(&self) -> Result<Aggregates, ProfileError> {
        let written = &self.spec.aggregates;
        for (name, factor) in [
            ("prefix", written.prefix),
            ("overall", written.overall),
            ("pressure", written.pressure),
        ] {
            if factor.get() > 0.0 && factor.get() < 1.0 {
                let problem = format!(
                    "{} holds many to less than one; use 1 or more, or 0 for off",
                    factor.get()
                );
                return Err(self.invalid(&format!("aggregates.{name}"), problem));
            }
        }
        Ok(Aggregates {
            prefix: written.prefix.get(),
            overall: written.overall.get(),
            pressure: written.pressure.get(),
        })
    }

    fn collateral(&self) -> Result<Collateral, ProfileError> {
        let written = &self.spec.collateral;
        let share = written.share.get();
        if share > 1.0 {
            let problem = format!("{share} is more than all of it; use 0 to 1");
            return Err(self.invalid("collateral.share", problem));
        }
        Ok(Collateral {
            share,
            sources: written.sources as usize,
        })
    }

    fn ttl(&self) -> Result<PerStage<Duration>, ProfileError> {
        let steps = &self.spec.progressive_enforcement;
        for (name, ttl) in [
            ("soft_ttl", steps.soft_ttl),
            ("hard_ttl", steps.hard_ttl),
            ("block_ttl", steps.block_ttl),
        ] {
            if ttl.get().is_zero() {
                let key = format!("progressive_enforcement.{name}");
                return Err(self.invalid(&key, "0 would end the stage as it begins"));
            }
        }
        Ok(PerStage {
            soft: steps.soft_ttl.get(),
            hard: steps.hard_ttl.get(),
            block: steps.block_ttl.get(),
        })
    }

    fn gate(&self) -> Result<Option<BlockGate>, ProfileError> {
        let steps = &self.spec.progressive_enforcement;
        let (severity, lasting) = (steps.block_min_sev.get(), steps.block_min_dur.get());
        let key = "progressive_enforcement.block_min_dur";
        let asked = self.origin(key).starts_with("command line");
        if severity <= 0.0 && asked {
            let problem = "without a severity to last there is no gate; set --block-min-sev too";
            return Err(self.invalid(key, problem));
        }
        Ok((severity > 0.0).then_some(BlockGate { severity, lasting }))
    }

    fn limits(&self) -> Result<(StageLimit, StageLimit), ProfileError> {
        let shield = &self.spec.adapters.shield_pep;
        for (name, pps) in [
            ("soft_rate_pps", shield.soft_rate_pps),
            ("hard_rate_pps", shield.hard_rate_pps),
        ] {
            if pps == 0 {
                let problem = "0 would let nothing pass; a stage that blocks is 'block_at'";
                return Err(self.invalid(&format!("adapters.shield_pep.{name}"), problem));
            }
        }
        let soft = rate_limit(shield.soft_rate_pps, shield.soft_burst);
        let hard = rate_limit(shield.hard_rate_pps, shield.hard_burst);
        if hard.pps > soft.pps {
            let problem = format!("{} is above soft_rate_pps ({})", hard.pps, soft.pps);
            return Err(self.invalid("adapters.shield_pep.hard_rate_pps", problem));
        }
        let limit = |floor, factor: Amount| StageLimit {
            floor,
            factor: Some(factor.get()).filter(|factor| *factor > 0.0),
        };
        Ok((
            limit(soft, shield.soft_rate_factor),
            limit(hard, shield.hard_rate_factor),
        ))
    }

    /// Refuses a severity that no traffic can reach, which would look like protection.
    fn check_reach(&self, config: &Config) -> Result<(), ProfileError> {
        let weights = &config.weights;
        let weighted = config.cap * (weights.pps + weights.bps + weights.syn + weights.ports);
        let dominant = if config.dominance > 0.0 {
            config.cap
        } else {
            0.0
        };
        let most = (weighted.max(dominant) * 1e6).round() / 1e6;
        if config.cap < HIGH {
            let problem = format!(
                "{} is below {HIGH}, so no signal alone would ever limit anybody",
                config.cap
            );
            return Err(self.invalid("signal_engine.weights.cap", &problem));
        }
        if most < HIGH {
            let problem = format!(
                "no traffic reaches a severity of {HIGH}, so nobody would ever be limited; the most is {most}"
            );
            return Err(self.invalid("signal_engine.weights", &problem));
        }
        let Some(gate) = config.gate.filter(|_| config.block_at.is_some()) else {
            return Ok(());
        };
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

fn noncompliance(written: &schema::NonCompliance) -> Option<NonCompliance> {
    (1..NEVER).contains(&written.at).then(|| NonCompliance {
        at: written.at,
        drops: written.drop.get(),
        severity: written.sev.get(),
        reset: written.reset.get(),
    })
}

/// A limit from a profile's figures; a burst of 0 is two seconds' worth.
fn rate_limit(pps: u32, burst: u32) -> RateLimit {
    let burst = if burst == 0 {
        pps.saturating_mul(2)
    } else {
        burst
    };
    RateLimit {
        pps: NonZeroU32::new(pps).unwrap_or(NonZeroU32::MIN),
        burst: NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN),
    }
}
