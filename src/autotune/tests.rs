//! Weeks of traffic under virtual time, through the engine, in windows of a minute.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts of made-up traffic, far inside every range"
)]

mod bounds;
mod weeks;

use std::time::Duration;

use super::*;
use crate::engine::{Config, Engine, Overview, Triggers};
use crate::model::{Ktime, Source};
use crate::telemetry::{Coverage, Sample, Window};

pub(super) const ALL: Coverage = Coverage {
    proof: true,
    refusals: true,
    consent: false,
};

const WINDOW: Duration = Duration::from_secs(60);
const DAY: u64 = 24 * 3_600;

/// A generator of numbers that are the same in every run (splitmix64, Steele et al. 2014).
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// In 0..1, neither end.
    pub(super) fn share(&mut self) -> f64 {
        ((self.next() >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }

    /// A standard normal value (Box and Muller, 1958).
    pub(super) fn normal(&mut self) -> f64 {
        let radius = (-2.0 * self.share().ln()).sqrt();
        radius * (std::f64::consts::TAU * self.share()).cos()
    }

    /// A whole number whose mean is `mean`.
    pub(super) fn count(&mut self, mean: f64) -> u64 {
        let whole = mean.floor();
        whole as u64 + u64::from(self.share() < mean - whole)
    }
}

/// A host, its clients and whoever attacks it.
struct Host {
    engine: Engine,
    tuner: Tuner,
    dice: Dice,
    secs: u64,
    clients: u32,
    attackers: u32,
    /// SYN/s of each attacker.
    attack: f64,
    /// Benign pps and SYN/s of each active client and window, those above zero.
    pps: Vec<f64>,
    syn: Vec<f64>,
}

impl Host {
    fn new(config: Config, plan: Plan, clients: u32) -> Self {
        let start = config.triggers;
        Self {
            engine: Engine::new(config),
            tuner: Tuner::new(plan, "web-server", start),
            dice: Dice(7),
            secs: 0,
            clients,
            attackers: 0,
            attack: 0.0,
            pps: Vec::new(),
            syn: Vec::new(),
        }
    }

    /// Daily and weekly cycle: nights at a fifth, weekends at half.
    fn activity(&self) -> f64 {
        let hour = (self.secs % DAY) as f64 / 3_600.0;
        let daily = 0.6 + 0.4 * (std::f64::consts::TAU * (hour - 9.0) / 24.0).sin();
        let weekend = self.secs / DAY % 7 >= 5;
        if weekend { daily / 2.0 } else { daily }
    }

    fn window(&mut self) -> Vec<Sample> {
        let activity = self.activity();
        let mut samples = Vec::new();
        let secs = WINDOW.as_secs_f64();
        for client in 0..self.clients {
            // Most clients are silent most of the time, and most that send open nothing.
            if self.dice.share() > activity * 0.4 {
                continue;
            }
            let pps = 40.0 * activity * (0.9 * self.dice.normal()).exp();
            let packets = self.dice.count(pps * secs).max(1);
            let opens = self.dice.share() < 0.2;
            let syn = 1.5 * (0.8 * self.dice.normal()).exp();
            let syns = if opens {
                self.dice.count(syn * secs)
            } else {
                0
            };
            self.pps.push(packets as f64 / secs);
            if syns > 0 {
                self.syn.push(syns as f64 / secs);
            }
            samples.push(Sample {
                packets,
                bytes: packets * 400,
                syns: syns.try_into().unwrap(),
                ports: u32::from(opens),
                port_bits: u64::from(opens),
                proven: true,
                ..Sample::silent(host(client))
            });
        }
        for attacker in 0..self.attackers {
            let syns = self.dice.count(self.attack * secs);
            samples.push(Sample {
                packets: syns * 3,
                bytes: syns * 180,
                syns: syns.try_into().unwrap(),
                ports: 1,
                port_bits: 1,
                proven: true,
                ..Sample::silent(host(1_000_000 + attacker))
            });
        }
        samples
    }

    fn tick(&mut self) -> Option<Revision> {
        self.secs += WINDOW.as_secs();
        let samples = self.window();
        let window = Window {
            length: WINDOW,
            samples: samples.into_iter(),
            coverage: ALL,
            all: None,
        };
        let tuner = &mut self.tuner;
        self.engine.tick_learning(
            Ktime::from_secs(self.secs),
            window,
            &|_| false,
            &mut |_, rates, fit| {
                if fit {
                    tuner.learn(rates);
                }
                fit
            },
        );
        let overview = self.engine.overview();
        let revision = self.tuner.tick(WINDOW, &overview, self.secs * 1_000)?;
        let triggers = revision.triggers;
        self.engine.reconfigure(Config {
            triggers,
            ..self.engine.config().clone()
        });
        Some(revision)
    }

    fn days(&mut self, days: u64) -> Vec<Revision> {
        let end = self.secs + days * DAY;
        let mut revisions = Vec::new();
        while self.secs < end {
            revisions.extend(self.tick());
        }
        revisions
    }
}

fn host(n: u32) -> Source {
    Source::host(std::net::Ipv4Addr::from(0x0a00_0000 + n).into())
}

/// The value that `share` of `values` do not exceed.
fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values[(share * (values.len() - 1) as f64) as usize]
}

/// A web server before it knows its traffic.
fn config() -> Config {
    Config {
        triggers: Triggers {
            pps: 8_000.0,
            bps: 0.0,
            syn: 2_000.0,
            ports: 200.0,
        },
        ..crate::engine::web()
    }
}

fn plan() -> Plan {
    Plan {
        floors: Triggers {
            pps: 20.0,
            bps: 0.0,
            syn: 2.0,
            ports: 15.0,
        },
        ..Plan::default()
    }
}
