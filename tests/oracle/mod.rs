//! The program against an oracle of its design: every packet's action and reason, and everything
//! counted. `KERNLOOM_SEED` chooses other packets and policies than the usual ones.

mod edges;
mod frames;
mod graph;
mod graph_mutants;
mod model;
mod mutants;
mod torture;
mod variant;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use kernloom::dataplane::{
    Action, AllowOnly, Counters, LoadOptions, Lock, Owner, PinDir, PortCount, Reason, Rule, Shield,
};
use kernloom::model::{Ktime, LimitScope, RateLimit, Source};
use kernloom::telemetry::Row;

use frames::Rng;
use model::Model;

/// Packets the program and the oracle must agree on.
const PACKETS: usize = 1_000_000;
/// Packets under one policy.
const WORLD: usize = 500;
/// Packets between two readings of the whole source table.
const READING: usize = 25_000;

/// Runs a frame through a program that shares the rig's maps: whether it was dropped.
type Program<'a> = dyn Fn(&[u8]) -> bool + 'a;

/// A loaded instance with its maps pinned, so that variants of the program can share them.
struct Rig {
    shield: Shield,
    pins: PinDir,
    lock: Lock,
    now: Ktime,
}

impl Drop for Rig {
    fn drop(&mut self) {
        // A failing test must not leave pins behind; a second failure would hide the first.
        let _ = Shield::purge(&self.pins, &self.lock);
    }
}

fn seed() -> u64 {
    std::env::var("KERNLOOM_SEED").map_or(0x6b65_726e_6c6f_6f6d, |text| text.parse().unwrap())
}

impl Rig {
    fn new(name: &str, options: LoadOptions) -> Self {
        let pins = PinDir::new(format!(
            "/sys/fs/bpf/kernloom-{name}-{}",
            std::process::id()
        ));
        pins.create().unwrap();
        let lock = pins.lock().unwrap();
        let options = LoadOptions {
            sources: options.sources.max(1 << 18),
            test_clock: true,
            ..options
        };
        let shield = Shield::open_or_load(&pins, &options, &lock).unwrap();
        Self {
            shield,
            pins,
            lock,
            now: Ktime::from_secs(1_000),
        }
    }

    fn own(&self) -> impl Fn(&[u8]) -> bool + '_ {
        |frame| self.shield.test_run(frame, 1).unwrap().dropped
    }

    fn at(&mut self, model: &mut Model, now: Ktime) {
        self.now = now;
        self.shield.set_test_time(now);
        model.now = now.as_nanos();
    }

    /// Ends fall on half seconds and packets in the first 400 ms: 16 jiffies, which the program
    /// may believe a verdict beyond its end, never matter.
    fn pass_time(&mut self, model: &mut Model, rng: &mut Rng) {
        let within = self.now.as_nanos() % 1_000_000_000;
        let gap = match rng.below(8) {
            0..4 => 0,
            4 => rng.next() % 1_000,
            5 => rng.next() % 100_000,
            6 => rng.next() % 3_000_000,
            _ => rng.pick(&[20_000_000, 10_000, 1_000_000, 333_333_334]),
        };
        let next = if within + gap > 400_000_000 || rng.one_in(2_000) {
            let seconds = rng.pick(&[1, 1, 1, 2, 30]);
            self.now + Duration::from_nanos(seconds * 1_000_000_000 - within)
        } else {
            self.now + Duration::from_nanos(gap)
        };
        self.at(model, next);
    }

    fn only_allowed(&self, model: &mut Model, on: bool) {
        let to = if on { AllowOnly::On } else { AllowOnly::Off };
        self.shield.set_allow_only(to, &self.lock);
        model.only_allowed = on;
    }

    fn set(&self, model: &mut Model, source: Source, rule: Rule) {
        self.shield.edit(&self.lock).set(&source, &rule).unwrap();
        model.set(source, rule);
    }

    fn clear(&self, model: &mut Model) {
        let gone = self.shield.edit(&self.lock).remove_all(|_| true).unwrap();
        for entry in gone {
            model.remove(&entry.source);
        }
    }

    /// A new policy of up to a dozen rules.
    fn legislate(&mut self, model: &mut Model, rng: &mut Rng) {
        self.clear(model);
        let only_allowed = rng.one_in(3);
        self.only_allowed(model, only_allowed);
        for _ in 0..rng.below(13) {
            let source = ruled_source(rng);
            let rule = Rule {
                action: action(rng),
                owner: rng.pick(&[
                    Owner::Operator,
                    Owner::Operator,
                    Owner::Management,
                    Owner::Iq,
                ]),
                expires: rng.one_in(3).then(|| {
                    let whole = self.now.as_nanos() / 1_000_000_000 + rng.next() % 4;
                    Ktime::from_nanos(whole * 1_000_000_000 + 500_000_000)
                }),
            };
            self.set(model, source, rule);
        }
    }

    /// Compares one packet; the error tells all there is to know.
    fn compare(
        &self,
        model: &mut Model,
        program: &Program<'_>,
        frame: &[u8],
    ) -> Result<(), String> {
        let dropped = program(frame);
        let reason = self.shield.test_reason();
        let expected = model.judge(frame);
        if reason == Some(expected) && dropped == expected.drops() {
            return Ok(());
        }
        let mut text = format!(
            "program: {reason:?}, dropped: {dropped}; oracle: {expected:?}\nframe {}: ",
            frame.len()
        );
        for byte in frame {
            write!(text, "{byte:02x}").unwrap();
        }
        write!(
            text,
            "\n{:?}\nonly allowed: {}",
            model::parse(frame),
            model.only_allowed
        )
        .unwrap();
        for (source, rule) in model.rules() {
            write!(text, "\n{source} {rule:?}").unwrap();
        }
        Err(text)
    }
}

fn stay_on_this_cpu() {
    stay_on(nix::sched::sched_getcpu().unwrap());
}

/// Those this process may run on, at most four.
fn online_cpus() -> Vec<usize> {
    let allowed = nix::sched::sched_getaffinity(nix::unistd::Pid::from_raw(0)).unwrap();
    let most = nix::sched::CpuSet::count();
    let allowed = (0..most).filter(|cpu| allowed.is_set(*cpu).unwrap_or(false));
    allowed.take(4).collect()
}

fn stay_on(cpu: usize) {
    let mut set = nix::sched::CpuSet::new();
    set.set(cpu).unwrap();
    nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &set).unwrap();
}

/// At most four nested prefixes hold one source: as many as are looked behind.
fn ruled_source(rng: &mut Rng) -> Source {
    let text = match rng.below(10) {
        0 => "::/0".to_owned(),
        1 => "0.0.0.0/0".to_owned(),
        2 => "10.7.0.0/16".to_owned(),
        3 => format!("10.7.{}.0/24", rng.below(3)),
        4 | 5 => frames::v4_source(rng).to_string(),
        6 => "2001:db8::/32".to_owned(),
        7 if rng.one_in(2) => format!("2001:db8:0:{}::/65", rng.below(3)),
        7 => format!("2001:db8:1:{}:100::/72", rng.below(2)),
        8 => frames::v6_source(rng).to_string(),
        _ => return Source::tracked(frames::v6_source(rng).into(), 64),
    };
    text.parse().unwrap()
}

fn action(rng: &mut Rng) -> Action {
    let limit = RateLimit {
        pps: rng.pick(&[1u32, 3, 50, 1_000, 300_000]).try_into().unwrap(),
        burst: rng.pick(&[1u32, 2, 5, 40]).try_into().unwrap(),
    };
    let scope = rng.pick(&[LimitScope::New, LimitScope::All]);
    rng.pick(&[Action::Allow, Action::Deny, Action::Limit { limit, scope }])
}

/// What the program has counted, so that differences can be taken.
struct Counted {
    counters: Counters,
    ports: BTreeMap<u16, PortCount>,
    rows: BTreeMap<Source, Row>,
}

impl Counted {
    fn read(shield: &Shield) -> Self {
        let mut rows: BTreeMap<Source, Row> = BTreeMap::new();
        for row in shield.sources().unwrap().rows() {
            rows.entry(row.source)
                .and_modify(|sum| add(sum, &row))
                .or_insert(row);
        }
        let ports = shield.ports().unwrap().unwrap_or_default();
        Self {
            counters: shield.counters().unwrap(),
            ports: ports.into_iter().map(|count| (count.port, count)).collect(),
            rows,
        }
    }
}

fn add(sum: &mut Row, row: &Row) {
    sum.packets += row.packets;
    sum.bytes += row.bytes;
    sum.syns += row.syns;
    sum.acks += row.acks;
    sum.drops += row.drops;
    sum.ports |= row.ports;
    sum.stacks |= row.stacks;
}

/// Everything the oracle counted against everything the program did since `before`.
fn compare_counts(model: &Model, before: &Counted, now: &Counted) -> Result<(), String> {
    let differ = |what: &str, program: &dyn std::fmt::Debug, oracle: &dyn std::fmt::Debug| {
        Err(format!("{what}: program {program:?}, oracle {oracle:?}"))
    };
    if before.counters.replaced != now.counters.replaced {
        return Err("the table was too small: a source was replaced".to_owned());
    }
    for (then, count) in before.counters.reasons.iter().zip(&now.counters.reasons) {
        let program = (count.packets - then.packets, count.bytes - then.bytes);
        let oracle = model
            .reasons
            .get(&count.reason)
            .copied()
            .unwrap_or_default();
        if program != oracle {
            return differ(count.reason.name(), &program, &oracle);
        }
    }
    for (bin, oracle) in model.lengths.iter().enumerate() {
        let program = now.counters.lengths[bin] - before.counters.lengths[bin];
        if program != *oracle {
            return differ("frames by length", &(bin, program), oracle);
        }
    }
    for port in 1..=u16::MAX {
        let of = |counted: &Counted| {
            let count = counted.ports.get(&port);
            count.map_or((0, 0), |count| (count.syns, count.udp))
        };
        let (then, now) = (of(before), of(now));
        let program = (now.0 - then.0, now.1 - then.1);
        let oracle = model.ports.get(&port).copied().unwrap_or_default();
        if program != oracle {
            return differ(&format!("openings at port {port}"), &program, &oracle);
        }
    }
    compare_rows(model, before, now)
}

fn compare_rows(model: &Model, before: &Counted, now: &Counted) -> Result<(), String> {
    for (source, tally) in &model.sources {
        let Some(row) = now.rows.get(source) else {
            return Err(format!("{source}: not in the table, but {tally:?}"));
        };
        let then = before.rows.get(source);
        let since = |of: fn(&Row) -> u64| of(row) - then.map_or(0, of);
        let program = [
            since(|row| row.packets.into()),
            since(|row| row.bytes),
            since(|row| row.syns.into()),
            since(|row| row.acks.into()),
            since(|row| row.drops.into()),
        ];
        let oracle = [
            tally.packets.into(),
            tally.bytes,
            tally.syns.into(),
            tally.acks.into(),
            tally.drops.into(),
        ];
        if program != oracle {
            return Err(format!(
                "{source}: packets, bytes, SYNs, ACKs, drops: program {program:?}, oracle {oracle:?}"
            ));
        }
        // A bit per port, or shared: some if any, and no more than there are.
        let ports = row.ports & !then.map_or(0, |then| then.ports);
        let stacks = row.stacks & !then.map_or(0, |then| then.stacks);
        for (name, bits, all, most) in [
            ("ports", ports, row.ports, tally.ports.len()),
            (
                "stacks",
                stacks.into(),
                row.stacks.into(),
                tally.stacks.len(),
            ),
        ] {
            if bits.count_ones() as usize > most || (all == 0 && most > 0) {
                return Err(format!("{source}: new bits {bits:b} for {most} {name}"));
            }
        }
    }
    Ok(())
}

/// Feeds `packets` packets under ever new policies.
fn agree(
    rig: &mut Rig,
    program: &dyn for<'a> Fn(&'a Rig, &[u8]) -> bool,
    rng: &mut Rng,
    packets: usize,
) -> Result<BTreeMap<Reason, (u64, u64)>, String> {
    let before = Counted::read(&rig.shield);
    let mut model = Model::default();
    rig.clear(&mut model);
    let now = rig.now;
    rig.at(&mut model, now + Duration::from_secs(60));
    for n in 0..packets {
        if n % WORLD == 0 {
            rig.legislate(&mut model, rng);
        }
        rig.pass_time(&mut model, rng);
        let frame = frames::frame(rng);
        rig.compare(&mut model, &|frame| program(rig, frame), &frame)
            .map_err(|text| format!("packet {n}: {text}"))?;
        if (n + 1) % READING == 0 {
            compare_counts(&model, &before, &Counted::read(&rig.shield))?;
        }
    }
    compare_counts(&model, &before, &Counted::read(&rig.shield))?;
    Ok(model.reasons)
}

/// Two CPUs at once, on one source and one limit; the clock stands while they race.
#[test]
fn concurrent_cpus_share_one_limit_exactly() {
    const PPS: u32 = 10_000;
    const STEP: Duration = Duration::from_millis(4);
    const STEPS: u32 = 500;
    let rig = Rig::new("cpus", LoadOptions::default());
    let source = "192.0.2.7";
    let limit = RateLimit {
        pps: PPS.try_into().unwrap(),
        burst: 100.try_into().unwrap(),
    };
    let rule = Rule {
        action: Action::Limit {
            limit,
            scope: LimitScope::All,
        },
        owner: Owner::Operator,
        expires: None,
    };
    rig.set(&mut Model::default(), source.parse().unwrap(), rule);
    rig.shield.set_test_time(rig.now);
    let frame = crate::packet::Frame::syn(source.parse().unwrap(), 443).build();
    let cpus = online_cpus();
    let gate = std::sync::Barrier::new(cpus.len() + 1);
    std::thread::scope(|scope| {
        for cpu in &cpus {
            let (gate, frame, path) = (&gate, &frame, rig.pins.path());
            scope.spawn(move || {
                stay_on(*cpu);
                let shield = Shield::open(&PinDir::new(path)).unwrap().unwrap();
                for _ in 0..STEPS {
                    gate.wait();
                    shield.test_run(frame, 64).unwrap();
                    gate.wait();
                }
            });
        }
        for step in 1..=STEPS {
            rig.shield.set_test_time(rig.now + STEP * step);
            gate.wait();
            gate.wait();
        }
    });
    let passed = rig.shield.counters().unwrap().of(Reason::WithinLimit);
    let expected = u64::from(PPS * STEPS) * 4 / 1_000 + 100;
    assert!(cpus.len() > 1 || passed == expected, "one CPU cannot race");
    assert!(
        passed.abs_diff(expected) <= expected / 100,
        "{passed} passed, {expected} would be exact"
    );
}

#[test]
fn a_million_packets_under_random_policies_agree_with_the_oracle() {
    stay_on_this_cpu();
    let mut rig = Rig::new("oracle", LoadOptions::default());
    let mut rng = Rng(seed());
    let program = |rig: &Rig, frame: &[u8]| rig.own()(frame);
    let reasons = agree(&mut rig, &program, &mut rng, PACKETS).unwrap_or_else(|text| {
        panic!("KERNLOOM_SEED={}: {text}", seed());
    });
    // The packets were odd enough for every reason there is without a graph.
    for reason in Reason::ALL.iter().filter(|reason| !reason.is_of_graph()) {
        let (packets, _) = reasons.get(reason).copied().unwrap_or_default();
        assert!(packets >= 100, "{reason}: only {packets} packets");
    }
}
