//! Scenarios and properties of the whole engine, under virtual time.

mod alerts;
mod evidence;
mod many;
mod properties;
mod restart;
mod room;
mod scenarios;
mod spared;

use std::num::NonZeroU32;

use super::severity::Score;
use super::*;
use crate::model::RateLimit;
use crate::telemetry::{Coverage, Traffic};

/// A data plane that measures everything.
const ALL: Coverage = Coverage {
    proof: true,
    refusals: true,
    consent: true,
};

pub(super) fn source(text: &str) -> Source {
    text.parse().unwrap()
}

fn limit(pps: u32, burst: u32) -> StageLimit {
    let nonzero = |n| NonZeroU32::new(n).unwrap();
    let floor = RateLimit {
        pps: nonzero(pps),
        burst: nonzero(burst),
    };
    StageLimit {
        floor,
        factor: None,
    }
}

/// A public web server's figures.
pub(crate) fn web() -> Config {
    let secs = Duration::from_secs;
    Config {
        triggers: Triggers {
            pps: 1200.0,
            bps: 0.0,
            syn: 250.0,
            ports: 20.0,
        },
        weights: Weights {
            pps: 0.55,
            bps: 0.0,
            syn: 0.30,
            ports: 0.15,
        },
        cap: 3.0,
        dominance: 2.0,
        flash: 10.0,
        soft_at: 2,
        hard_at: Some(5),
        block_at: Some(12),
        up_need: 2,
        down_need: 8,
        ttl: PerStage {
            soft: secs(60),
            hard: secs(600),
            block: secs(600),
        },
        hold: PerStage {
            soft: secs(20),
            hard: secs(45),
            block: secs(45),
        },
        gate: Some(BlockGate {
            severity: 2.8,
            lasting: secs(30),
        }),
        noncompliance: Some(NonCompliance {
            at: 15,
            drops: 10.0,
            severity: 2.0,
            reset: 0.3,
        }),
        soft: limit(400, 800),
        hard: limit(100, 200),
        evidence: Evidence::default(),
        aggregates: Aggregates::default(),
        collateral: Collateral::default(),
    }
}

fn quiet(of: Source) -> Sample {
    Sample {
        stacks: 1,
        ..Sample::silent(of)
    }
}

/// SYNs to one port, each a packet.
fn syn_flood(of: Source, syns: u64) -> Sample {
    Sample {
        packets: syns,
        bytes: syns * 60,
        syns: syns.try_into().unwrap(),
        ports: 1,
        ..quiet(of)
    }
}

fn udp_flood(of: Source, packets: u64) -> Sample {
    Sample {
        packets,
        bytes: packets * 1200,
        ports: 1,
        ..quiet(of)
    }
}

fn port_scan(of: Source, ports: u32) -> Sample {
    Sample {
        packets: u64::from(ports),
        bytes: u64::from(ports) * 60,
        syns: ports,
        ports,
        ..quiet(of)
    }
}

/// An engine and a clock that ticks each second.
struct World {
    engine: Engine,
    secs: u64,
    coverage: Coverage,
    /// What everybody sent, where some had to make room.
    all: Option<Traffic>,
    exempt: Vec<Source>,
    log: Vec<(u64, Decision)>,
}

impl World {
    fn new(config: Config) -> Self {
        Self {
            engine: Engine::new(config),
            secs: 1000,
            coverage: Coverage::default(),
            all: None,
            exempt: Vec::new(),
            log: Vec::new(),
        }
    }

    fn tick(&mut self, samples: &[Sample]) -> Vec<Decision> {
        self.secs += 1;
        let window = Window {
            length: SECOND,
            samples,
            coverage: self.coverage,
            all: self.all,
        };
        let exempt = &self.exempt;
        let decisions = self
            .engine
            .tick(Ktime::from_secs(self.secs), window, &|source| {
                exempt.contains(source)
            });
        for decision in &decisions {
            self.log.push((self.secs, decision.clone()));
        }
        decisions
    }

    fn ticks(&mut self, seconds: u64, samples: &[Sample]) -> Vec<Decision> {
        (0..seconds).flat_map(|_| self.tick(samples)).collect()
    }

    /// Ticks until `source` is at `stage`; the seconds that took.
    fn until(&mut self, of: Source, stage: Stage, samples: &[Sample]) -> u64 {
        let start = self.secs;
        while self.stage(of) != stage {
            assert!(self.secs - start < 10_000, "{of} never came to {stage}");
            self.tick(samples);
        }
        self.secs - start
    }

    fn stage(&self, of: Source) -> Stage {
        self.engine
            .held()
            .find(|(source, ..)| **source == of)
            .map_or(Stage::Observe, |(_, stage, _)| stage)
    }

    fn strikes(&self, of: Source) -> u32 {
        let ladders = &self.engine.sources.ladders;
        ladders.get(&of).map_or(0, |ladder| ladder.strikes)
    }
}

/// The severity of a second in which nobody watches for more than the four rates.
fn severity(config: &Config, sample: &Sample) -> f64 {
    let standing = Standing::default();
    let score = Scale::new(config, SECOND, Coverage::default())
        .score(sample, &standing)
        .score;
    score.severity
}
