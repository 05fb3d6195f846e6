//! What a packet costs, in nanoseconds above a parse-only program in the same run.
//!
//! `make bench`. Path and floor are measured in turns; printed is the difference of the least of
//! each, because whatever else runs on the machine only adds. Exit code 1 if a budget is missed.

#![allow(
    unreachable_pub,
    dead_code,
    clippy::unwrap_used,
    reason = "the packet builder is shared with the tests, which use all of it"
)]

#[path = "../tests/packet/mod.rs"]
mod packet;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use kernloom::dataplane::{
    Action, Features, Floor, LoadOptions, ModeChoice, Owner, Permits, PinDir, Proofs, Rule, Shield,
    interface_index,
};
use kernloom::error::{Doing, Error, Result};
use kernloom::graph::{
    Direction, Edge, FreezeFrom, Frozen, Groups, Mode, Peer, Record, Service, State,
};
use kernloom::model::{Ktime, LimitScope, RateLimit, Source, Wall};
use kernloom::store::{read_frozen, write_whole};
use packet::Frame;

const TURNS: usize = 15;
const REPEAT: u32 = 400_000;
/// Frames of one live turn.
const LIVE: u32 = 1 << 19;

struct Path {
    name: &'static str,
    /// ns above the floor; `None` where there is no promise.
    budget: Option<f64>,
    sources: u32,
    rule: Option<Action>,
    source: IpAddr,
    frame: Frame,
}

fn limit(pps: u32, burst: u32) -> Option<Action> {
    let limit = RateLimit {
        pps: pps.try_into().ok()?,
        burst: burst.try_into().ok()?,
    };
    Some(Action::Limit {
        limit,
        scope: LimitScope::All,
    })
}

#[expect(clippy::too_many_lines, reason = "a table, one path per entry")]
fn paths() -> Vec<Path> {
    let v4: IpAddr = [192, 0, 2, 7].into();
    let v6: IpAddr = [0x2001, 0xdb8, 1, 2, 0, 0, 0, 7].into();
    let path = |name, budget, sources, rule, source, frame: fn(IpAddr, u16) -> Frame| Path {
        name,
        budget,
        sources,
        rule,
        source,
        frame: frame(source, 443),
    };
    vec![
        path(
            "observe, known source, IPv4",
            Some(20.0),
            0,
            None,
            v4,
            Frame::ack,
        ),
        path(
            "observe, known source, IPv6",
            Some(20.0),
            0,
            None,
            v6,
            Frame::ack,
        ),
        path("observe, known source, SYN", None, 0, None, v4, Frame::syn),
        path(
            "source denied, IPv4",
            Some(12.0),
            0,
            Some(Action::Deny),
            v4,
            Frame::syn,
        ),
        path(
            "source denied, IPv6",
            Some(12.0),
            0,
            Some(Action::Deny),
            v6,
            Frame::syn,
        ),
        path(
            "source limited, dropped",
            Some(60.0),
            0,
            limit(1_000, 10),
            v4,
            Frame::syn,
        ),
        // As RATE_HARD does: what is held for a jiffy or more needs no clock.
        path(
            "source limited to 100/s, dropped",
            Some(60.0),
            0,
            limit(100, 10),
            v4,
            Frame::syn,
        ),
        path(
            "source limited, passed",
            Some(110.0),
            0,
            limit(u32::MAX, 1_000_000),
            v4,
            Frame::syn,
        ),
        path("1 024 sources, IPv4", None, 1 << 10, None, v4, Frame::syn),
        path(
            "65 536 random sources, IPv4",
            Some(140.0),
            1 << 16,
            None,
            v4,
            Frame::syn,
        ),
        path(
            "65 536 random sources, IPv6",
            Some(140.0),
            1 << 16,
            None,
            v6,
            Frame::syn,
        ),
        path(
            "1 M random sources, IPv4",
            Some(200.0),
            1 << 20,
            None,
            v4,
            Frame::syn,
        ),
        path(
            "1 M random sources, IPv6",
            Some(200.0),
            1 << 20,
            None,
            v6,
            Frame::syn,
        ),
    ]
}

/// The edit of an instance nobody else sees still wants a lock; any directory serves.
fn apply(shield: &Shield, source: IpAddr, action: Action) -> Result<()> {
    let lock = PinDir::new(std::env::temp_dir()).lock()?;
    let rule = Rule {
        action,
        owner: Owner::Operator,
        expires: None,
    };
    shield
        .edit(&lock)
        .set(&Source::tracked(source, shield.v6_bits()), &rule)?;
    Ok(())
}

fn measure(path: &Path) -> Result<f64> {
    let options = LoadOptions {
        bench_sources: path.sources,
        ..LoadOptions::default()
    };
    let (shield, floor) = (Shield::load(&options)?, Floor::load(path.sources)?);
    let frame = path.frame.build();
    if let Some(action) = path.rule {
        apply(&shield, path.source, action)?;
    }
    let repeat = REPEAT.max(path.sources * 2);
    shield.test_run(&frame, repeat)?;
    above(
        || floor.test_run(&frame, repeat),
        || Ok(shield.test_run(&frame, repeat)?.duration),
    )
}

/// Nanoseconds of a packet through one program above those through another, in turns.
#[expect(clippy::cast_precision_loss, reason = "nanoseconds of one packet")]
fn above(
    mut below: impl FnMut() -> Result<Duration>,
    mut path: impl FnMut() -> Result<Duration>,
) -> Result<f64> {
    let mut least = [Duration::MAX; 2];
    for _ in 0..TURNS {
        least = [least[0].min(below()?), least[1].min(path()?)];
    }
    Ok(least[1].as_nanos() as f64 - least[0].as_nanos() as f64)
}

/// Nanoseconds above the floor for a packet of an edge that the frozen graph allows.
fn known_edge(source: IpAddr) -> Result<f64> {
    let options = LoadOptions {
        features: Features::Graph,
        ..LoadOptions::default()
    };
    let (shield, floor) = (Shield::load(&options)?, Floor::load(0)?);
    let edge = Edge {
        direction: Direction::In,
        peer: Peer::Source(Source::tracked(source, shield.v6_bits())),
        service: Service::tcp(443),
    };
    let permits = Permits {
        allowed: [edge].into(),
        ..Permits::default()
    };
    enforce(&shield, &permits)?;
    let frame = Frame::ack(source, 443).build();
    shield.test_run(&frame, REPEAT)?;
    above(
        || floor.test_run(&frame, REPEAT),
        || {
            let run = shield.test_run(&frame, REPEAT)?;
            assert!(!run.dropped, "a known edge passes");
            Ok(run.duration)
        },
    )
}

fn enforce(shield: &Shield, permits: &Permits) -> Result<()> {
    let missing = || Error::world("the edge stage is missing");
    let plane = shield.graph().ok_or_else(missing)?;
    plane.switch(Mode::Enforce, permits, None, Ktime::default())
}

/// Milliseconds from 65 536 learned edges to the same in force: frozen, written, read back,
/// verified, loaded.
#[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
fn freeze() -> Result<f64> {
    let options = LoadOptions {
        features: Features::Graph,
        ..LoadOptions::default()
    };
    let shield = Shield::load(&options)?;
    let now = Wall::from_secs(1_800_000_000);
    let edge = |number: u32| Edge {
        direction: Direction::In,
        peer: Peer::Source(Source::host((0x0a00_0000 + number).to_be_bytes().into())),
        service: Service::tcp(443),
    };
    let records: BTreeMap<Edge, Record> = (0..65_536)
        .map(|number| (edge(number), Record::new(State::Learned, now, None)))
        .collect();
    let path = std::env::temp_dir().join(format!("kernloom-bench-{}.yaml", std::process::id()));
    let start = Instant::now();
    let frozen = Frozen::freeze(FreezeFrom {
        node: "bench",
        now,
        only: BTreeSet::new(),
        groups: &Groups::default(),
        records: &records,
        before: None,
    });
    let frozen = frozen
        .map_err(|error| Error::world(error.to_string()))?
        .frozen;
    write_whole(&path, &frozen.to_text(None))?;
    let read = read_frozen(&path)?.map(|(frozen, _)| frozen);
    let permits = Permits {
        allowed: read.map(|frozen| frozen.edges).unwrap_or_default(),
        ..Permits::default()
    };
    assert_eq!(permits.allowed.len(), 65_536);
    enforce(&shield, &permits)?;
    let millis = start.elapsed().as_secs_f64() * 1e3;
    std::fs::remove_file(&path).doing(|| "removing the benchmark's file")?;
    Ok(millis)
}

/// Milliseconds to read every entry of a full table once.
#[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
fn scan() -> Result<(usize, f64)> {
    let options = LoadOptions {
        bench_sources: 1 << 20,
        ..LoadOptions::default()
    };
    let shield = Shield::load(&options)?;
    for cpu in 0..2 {
        pin_to(cpu)?;
        shield.test_run(&Frame::syn([192, 0, 2, 7].into(), 443).build(), 1 << 21)?;
    }
    let table = shield.sources()?;
    let mut best = f64::MAX;
    let mut rows = 0;
    for _ in 0..TURNS {
        let start = Instant::now();
        rows = table.rows().count();
        best = best.min(start.elapsed().as_secs_f64() * 1e3);
    }
    Ok((rows, best))
}

/// Milliseconds to read whose handshake a full table of them remembers.
#[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
fn proven() -> Result<(usize, f64)> {
    const MOST: u32 = 16_384;
    let proofs = Proofs::watch(64, MOST)?;
    let sources = (0..MOST).map(|n| n.wrapping_mul(2_654_435_761));
    let sources = sources.map(|address| Source::host(Ipv4Addr::from(address).into()));
    proofs.renew(sources, Ktime::from_secs(1))?;
    let mut best = f64::MAX;
    let mut known = 0;
    for _ in 0..TURNS {
        let start = Instant::now();
        known = proofs.all()?.len();
        best = best.min(start.elapsed().as_secs_f64() * 1e3);
    }
    Ok((known, best))
}

/// Nanoseconds from the empty program to the floor.
fn floor_cost() -> Result<f64> {
    let floor = Floor::load(0)?;
    let frame = Frame::ack([192, 0, 2, 7].into(), 443).build();
    above(
        || floor.empty_run(&frame, REPEAT),
        || floor.test_run(&frame, REPEAT),
    )
}

/// Mebibytes of kernel memory as loaded by default.
#[expect(clippy::cast_precision_loss, reason = "mebibytes")]
fn memory(features: Features) -> Result<f64> {
    let options = LoadOptions {
        features,
        ..LoadOptions::default()
    };
    Ok(Shield::load(&options)?.memory()? as f64 / f64::from(1 << 20))
}

/// A veth pair with the program on one end; gone with the value.
struct Wire {
    shield: Shield,
    pins: PinDir,
    ifindex: u32,
}

const WIRE: [&str; 2] = ["kl-bench0", "kl-bench1"];

fn ip(args: &[&str]) -> Result<()> {
    let status = std::process::Command::new("ip").args(args).status();
    match status.doing(|| "running ip")? {
        status if status.success() => Ok(()),
        status => Err(Error::world(format!("ip {}: {status}", args.join(" ")))),
    }
}

impl Wire {
    fn new() -> Result<Self> {
        ip(&[
            "link", "add", WIRE[0], "type", "veth", "peer", "name", WIRE[1],
        ])?;
        for end in WIRE {
            ip(&["link", "set", end, "up"])?;
        }
        let pins = PinDir::new(format!("/sys/fs/bpf/kernloom-bench-{}", std::process::id()));
        pins.create()?;
        let lock = pins.lock()?;
        let shield = Shield::open_or_load(&pins, &LoadOptions::default(), &lock)?;
        shield.attach(&pins, WIRE[0], ModeChoice::Auto, false, &lock)?;
        let ifindex = interface_index(WIRE[0])?;
        Ok(Self {
            shield,
            pins,
            ifindex,
        })
    }

    /// Millions of frames a second on one CPU.
    #[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
    fn throughput(&self) -> Result<f64> {
        let frame = Frame::syn([192, 0, 2, 7].into(), 443).build();
        let mut best = 0f64;
        for _ in 0..TURNS {
            let start = Instant::now();
            self.shield.test_run_live(&frame, LIVE, self.ifindex)?;
            best = best.max(f64::from(LIVE) / start.elapsed().as_secs_f64() / 1e6);
        }
        Ok(best)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        let gone = || -> Result<()> {
            let lock = self.pins.lock()?;
            Shield::detach(&self.pins, self.ifindex, &lock)?;
            Shield::purge(&self.pins, &lock)?;
            ip(&["link", "del", WIRE[0]])
        };
        if let Err(error) = gone() {
            eprintln!("bench: taking the wire down: {error}");
        }
    }
}

fn live() -> Result<()> {
    let wire = Wire::new()?;
    line("live frames passed, veth", wire.throughput()?, "M/s", None);
    apply(&wire.shield, [192, 0, 2, 7].into(), Action::Deny)?;
    line("live frames dropped, veth", wire.throughput()?, "M/s", None);
    Ok(())
}

fn pin_to(cpu: usize) -> Result<()> {
    let mut set = nix::sched::CpuSet::new();
    set.set(cpu).doing(|| "choosing a CPU")?;
    nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &set).doing(|| "moving to a CPU")
}

fn line(name: &str, value: f64, unit: &str, budget: Option<f64>) -> bool {
    let kept = budget.is_none_or(|budget| value <= budget);
    let (budget, verdict) = match budget {
        Some(budget) => (format!("{budget:.0}"), if kept { "kept" } else { "MISSED" }),
        None => ("-".to_owned(), ""),
    };
    println!("{name:<36} {value:>8.1} {unit:<3} {budget:>7}  {verdict}");
    kept
}

fn run() -> Result<bool> {
    println!("{:<36} {:>8}     {:>7}", "path", "cost", "budget");
    let mut kept = true;
    line(
        "parse only, above an empty program",
        floor_cost()?,
        "ns",
        None,
    );
    for path in paths() {
        kept &= line(path.name, measure(&path)?, "ns", path.budget);
    }
    for (name, source) in [
        (
            "frozen graph, known edge, IPv4",
            IpAddr::from([192, 0, 2, 7]),
        ),
        (
            "frozen graph, known edge, IPv6",
            IpAddr::from([0x2001, 0xdb8, 1, 2, 0, 0, 0, 7]),
        ),
    ] {
        kept &= line(name, known_edge(source)?, "ns", Some(35.0));
    }
    kept &= line(
        "65 536 edges frozen and loaded",
        freeze()?,
        "ms",
        Some(2_000.0),
    );
    let (rows, millis) = scan()?;
    kept &= line(
        &format!("reading {rows} sources once"),
        millis,
        "ms",
        Some(10.0),
    );
    let (known, millis) = proven()?;
    kept &= line(&format!("reading {known} handshakes"), millis, "ms", None);
    for (name, features, budget) in [
        ("kernel memory, light", Features::Light, 16.0),
        ("kernel memory, learn", Features::Learn, 16.0),
        ("kernel memory, graph", Features::Graph, 24.0),
    ] {
        kept &= line(name, memory(features)?, "MB", Some(budget));
    }
    live()?;
    Ok(kept)
}

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}
