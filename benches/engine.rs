//! What a tick costs with the largest table: from entries to decisions, in CPU time and memory.
//!
//! `cargo bench --bench engine`. Exit code 1 if a budget is missed.

use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::time::Duration;

use kernloom::autotune::{Plan, Tuner};
use kernloom::engine::Engine;
use kernloom::error::{Error, Result};
use kernloom::model::{Ktime, Source};
use kernloom::profile::{Overrides, Profile};
use kernloom::runtime::give_back_large_blocks;
use kernloom::telemetry::{Coverage, Meter, Order, Row, Shape, Window};
use nix::sys::time::TimeValLike;
use nix::time::{ClockId, clock_gettime};

const SHAPE: Shape = Shape {
    cpus: 1,
    sets: 32_768,
    ways: 4,
};
const SOURCES: usize = SHAPE.entries();
/// Addresses that are tried to fill it.
const CANDIDATES: u32 = 1 << 22;

/// Multipliers of the table's hash.
const SEED: [u64; 5] = [0x9e37_79b9_7f4a_7c15; 5];

/// Words written between two ticks where caches are to be cold: 64 MB.
const OTHERS: usize = 8 << 20;

const TICKS: u32 = 40;
/// Of each load; the quietest counts: what others do to the caches meanwhile is not our cost.
const TURNS: u32 = 5;
const WINDOW: Duration = Duration::from_secs(1);

/// Milliseconds of CPU: of the first tick, in which every source is new, and of the median one with
/// caches warm and cold; MB of the whole process at any time.
const TICK_BUDGET: f64 = 25.0;
const MEMORY_BUDGET: f64 = 48.0;

/// What every source does in one second.
struct Load {
    name: &'static str,
    packets: u32,
    syns: u32,
    ports: u64,
    /// Every slot has another source each tick.
    made_up: bool,
}

const LOADS: [Load; 4] = [
    Load {
        name: "quiet clients",
        packets: 20,
        syns: 1,
        ports: 1,
        made_up: false,
    },
    Load {
        name: "clients at their threshold",
        packets: 700,
        syns: 120,
        ports: 3,
        made_up: false,
    },
    Load {
        name: "everybody floods",
        packets: 60_000,
        syns: 60_000,
        ports: u64::MAX,
        made_up: false,
    },
    Load {
        name: "made-up sources",
        packets: 1,
        syns: 1,
        ports: 1,
        made_up: true,
    },
];

fn cpu() -> Result<Duration> {
    let now = clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID)
        .map_err(|error| Error::world(format!("reading the CPU clock: {error}")))?;
    Ok(Duration::from_nanos(
        u64::try_from(now.num_nanoseconds()).unwrap_or(0),
    ))
}

/// A field of /proc/self/status, which counts in KiB, in MB.
fn memory(field: &str) -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")
        .map_err(|error| Error::world(format!("reading /proc/self/status: {error}")))?;
    let kib = status
        .lines()
        .find_map(|line| {
            line.strip_prefix(field)?
                .split_whitespace()
                .nth(1)?
                .parse::<f64>()
                .ok()
        })
        .ok_or_else(|| Error::world(format!("/proc/self/status has no {field}")))?;
    Ok(kib * 1024.0 / 1e6)
}

/// Starts the peak of resident memory anew (proc(5), clear_refs).
fn forget_peak() -> Result<()> {
    std::fs::write("/proc/self/clear_refs", "5")
        .map_err(|error| Error::world(format!("writing /proc/self/clear_refs: {error}")))
}

/// A table as full as it gets: its sources are in their sets. `turn`: of as many others.
fn table(order: &Order, turn: u32) -> Vec<Row> {
    let mut free = vec![SHAPE.ways; SHAPE.sets];
    let numbers = turn.wrapping_mul(CANDIDATES)..;
    let sources = numbers.map(|number| {
        let address = Ipv4Addr::from(number.wrapping_mul(2_654_435_761));
        Source::host(address.into())
    });
    let fits = |source: &Source| {
        let free = free.get_mut(order.set(&order.key(*source)));
        free.is_some_and(|free| {
            let fits = *free > 0;
            *free -= usize::from(fits);
            fits
        })
    };
    let row = |source| Row {
        source,
        bytes: 0,
        packets: 0,
        acks: 0,
        syns: 0,
        drops: 0,
        ports: 0,
        stacks: 1,
    };
    let mut rows: Vec<_> = sources.filter(fits).map(row).take(SOURCES).collect();
    rows.sort_by_cached_key(|row| order.key(row.source));
    rows
}

/// What one tick adds.
fn send(load: &Load, rows: &mut [Row]) {
    for row in rows {
        row.bytes += u64::from(load.packets) * 60;
        row.packets = row.packets.wrapping_add(load.packets);
        row.syns = row.syns.wrapping_add(load.syns);
        row.ports = load.ports;
    }
}

/// What other processes do to the caches in a second.
fn others(words: &mut [u64]) {
    for (word, value) in words.iter_mut().zip(0..) {
        *word = value;
    }
    std::hint::black_box(words);
}

/// The CPU time of each tick in milliseconds, the decisions of all of them, and the memory then.
fn run(load: &Load, cold: bool) -> Result<(Vec<f64>, usize, f64)> {
    let profile = Profile::named("web-server").map_err(|error| Error::world(error.to_string()))?;
    let config = profile
        .resolve(&Overrides::default())
        .map_err(|error| Error::world(error.to_string()))?;
    let order = Order::of_table(SEED, u32::try_from(SHAPE.sets - 1).unwrap_or(u32::MAX));
    let mut meter = Meter::new(SHAPE, order);
    let mut tuner: Tuner = Tuner::new(Plan::default(), "web-server", config.triggers);
    let mut engine = Engine::in_order(config, order);
    let mut decisions = 0;
    let mut costs = Vec::new();
    let mut words = if cold { vec![0; OTHERS] } else { Vec::new() };
    let mut rows = table(&order, 0);
    for tick in 1..=TICKS {
        if load.made_up {
            rows.clear();
            rows.shrink_to_fit();
            rows = table(&order, tick);
        }
        send(load, &mut rows);
        others(&mut words);
        let start = cpu()?;
        let window = Window {
            length: WINDOW,
            samples: meter.samples(|at| rows.get(at).copied()),
            coverage: Coverage {
                proof: true,
                refusals: true,
                consent: true,
            },
            all: None,
        };
        let now = Ktime::from_secs(1_000 + u64::from(tick));
        let mut learn = |_: &_, rates: &_, fit| {
            if fit {
                tuner.learn(rates);
            }
            fit
        };
        decisions += engine
            .tick_learning(now, window, &|_| false, &mut learn)
            .len();
        tuner.tick(WINDOW, &engine.overview(), tick.into());
        costs.push((cpu()? - start).as_secs_f64() * 1e3);
    }
    Ok((costs, decisions, memory("VmRSS")?))
}

/// Milliseconds of CPU for reads all over 16 MB: how much of the caches others leave just now.
fn reference() -> Result<f64> {
    const WORDS: u32 = 2 << 20;
    let words: Vec<u64> = (0..u64::from(WORDS)).collect();
    let start = cpu()?;
    let (mut at, mut sum) = (1_u32, 0_u64);
    for _ in 0..WORDS {
        at = at.wrapping_mul(2_654_435_761).wrapping_add(1);
        sum = sum.wrapping_add(
            words
                .get((at % WORDS) as usize)
                .copied()
                .unwrap_or_default(),
        );
    }
    std::hint::black_box(sum);
    Ok((cpu()? - start).as_secs_f64() * 1e3)
}

/// Of the quietest turn each: milliseconds of CPU; and MB.
struct Figures {
    first: f64,
    median: f64,
    cold: f64,
    decisions: usize,
    resident: f64,
    peak: f64,
}

impl Figures {
    const NONE: Self = Self {
        first: f64::MAX,
        median: f64::MAX,
        cold: f64::MAX,
        decisions: 0,
        resident: 0.0,
        peak: 0.0,
    };

    /// Takes in one turn.
    fn add(&mut self, load: &Load) -> Result<()> {
        forget_peak()?;
        let (costs, decisions, resident) = run(load, false)?;
        (self.decisions, self.resident) = (decisions, resident);
        self.peak = self.peak.max(memory("VmHWM")?);
        let first = costs.first().copied().unwrap_or_default();
        self.first = self.first.min(first);
        self.median = self.median.min(median(costs));
        let (costs, ..) = run(load, true)?;
        self.cold = self.cold.min(median(costs));
        Ok(())
    }

    fn within_budget(&self) -> bool {
        let slowest = self.first.max(self.median).max(self.cold);
        slowest <= TICK_BUDGET && self.peak <= MEMORY_BUDGET
    }
}

fn median(mut costs: Vec<f64>) -> f64 {
    costs.sort_by(f64::total_cmp);
    costs.get(costs.len() / 2).copied().unwrap_or_default()
}

fn measure() -> Result<bool> {
    println!(
        "a tick over {SOURCES} active sources, ms of CPU; budget {TICK_BUDGET} ms; the least of {TURNS} turns"
    );
    println!(
        "{:<28} {:>8} {:>8} {:>8} {:>10} {:>12} {:>12}",
        "load", "first", "median", "cold", "decisions", "MB resident", "MB at most"
    );
    let mut figures = LOADS.map(|_| Figures::NONE);
    let mut references = Vec::new();
    // In turns: for seconds on end, the whole machine may be half as fast.
    for _ in 0..TURNS {
        for (load, figures) in LOADS.iter().zip(&mut figures) {
            references.push(reference()?);
            figures.add(load)?;
        }
    }
    for (load, figures) in LOADS.iter().zip(&figures) {
        let Figures {
            first,
            median,
            cold,
            decisions,
            resident,
            peak,
        } = figures;
        println!(
            "{:<28} {first:>8.1} {median:>8.1} {cold:>8.1} {decisions:>10} {resident:>12.1} {peak:>12.1}",
            load.name
        );
    }
    references.sort_by(f64::total_cmp);
    let [least, most] =
        [references.first(), references.last()].map(|one| one.copied().unwrap_or_default());
    println!("2 M reads all over 16 MB meanwhile: {least:.1} to {most:.1} ms");
    println!("budget of resident memory: {MEMORY_BUDGET} MB at most");
    Ok(figures.iter().all(Figures::within_budget))
}

fn main() -> ExitCode {
    give_back_large_blocks();
    match measure() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            println!("a budget is missed");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("engine: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}
