use std::time::Duration;

use super::pins;
use crate::cli::{IqArgs, Places};
use crate::dataplane::{
    Action, Attached, DryRun, Entry, Events, LoadOptions, MapEnforcer, ModeChoice, Owner, PinDir,
    Shield, SourceTable, What, default_interface, interface_index,
};
use crate::engine::{Decision, Engine};
use crate::error::{Error, Result};
use crate::graph::{Edge, Peer};
use crate::model::{Ktime, Source, format_duration};
use crate::profile::{Overrides, Profile, ProfileError};
use crate::report::{attached_line, decision_line};
use crate::runtime::{Poller, Ticker, Wake, now, only_iq, shutdown_on_signal};
use crate::seams::{Enforcer, Order, Outcome};
use crate::telemetry::{Meter, Sample, Window, linear_count, linear_ones};

/// The log target of everything IQ says.
const IQ: &str = "iq";
/// And of everything about the graph.
const GRAPH: &str = "graph";

impl From<ProfileError> for Error {
    fn from(error: ProfileError) -> Self {
        if error.is_operator_mistake() {
            Self::operator(error.to_string())
        } else {
            Self::world(error.to_string())
        }
    }
}

pub(super) fn run(places: &Places, args: &IqArgs) -> Result<()> {
    let (name, config) = settings(args)?;
    let interface = match &args.iface {
        Some(name) => interface_index(name).map(|_| Some(name.clone()))?,
        None => None,
    };
    let _only = only_iq(&places.run_dir)?;
    let pins = pins(places);
    pins.create()?;
    let shutdown = shutdown_on_signal()?;
    let shield = attach(&pins, interface)?;
    let engine = Engine::new(config);
    shield.set_port_alert(linear_ones(engine.port_alert()));
    let ticker = Ticker::every(args.interval)?;
    let events = shield.events()?;
    let poller = Poller::new()?;
    poller.watch(&shutdown, Wake::Shutdown)?;
    poller.watch(&events, Wake::Events)?;
    poller.watch(&ticker, Wake::Tick)?;
    let mode = if args.dry_run {
        "dry run: nothing is enforced"
    } else {
        "enforcing"
    };
    log::info!(target: IQ, "profile {name}, a tick every {}, {mode}", format_duration(args.interval));
    let mut iq = Iq::new(&shield, &pins, engine, args.dry_run)?;
    loop {
        for wake in poller.wait()? {
            match wake {
                Wake::Shutdown => return iq.farewell(),
                Wake::Events => iq.on_events(&events)?,
                Wake::Tick => {
                    ticker.acknowledge()?;
                    iq.on_tick()?;
                }
            }
        }
    }
}

fn settings(args: &IqArgs) -> Result<(String, crate::engine::Config)> {
    let (name, profile) = match (&args.profile, &args.pdp_config) {
        (Some(name), _) => (name.clone(), Profile::named(name)?),
        (None, Some(path)) => (path.display().to_string(), Profile::read(path)?),
        (None, None) => return Err(Error::operator("give --profile or --pdp-config")),
    };
    let overrides = Overrides {
        soft_ttl: args.soft_ttl,
        hard_ttl: args.hard_ttl,
        block_ttl: args.block_ttl,
        block_min_sev: args.block_min_sev,
        block_min_dur: args.block_min_dur,
    };
    Ok((name, profile.resolve(&overrides)?))
}

/// Attaches to the named interface; without a name, to what is attached already, else to the
/// interface of the default route.
fn attach(pins: &PinDir, interface: Option<String>) -> Result<Shield> {
    let lock = pins.lock()?;
    let there = Shield::attached(pins)?;
    let shield = Shield::open_or_load(pins, &LoadOptions::default(), &lock)?;
    if interface.is_none() && !there.is_empty() {
        there.iter().for_each(say_attached);
        return Ok(shield);
    }
    let interface = match interface {
        Some(interface) => interface,
        None => {
            let interface = default_interface()?;
            log::info!(target: IQ, "protecting {interface}, the interface of the default route");
            interface
        }
    };
    match shield.attach(pins, &interface, ModeChoice::Auto, &lock) {
        Ok(attached) => say_attached(&attached),
        Err(error) => {
            if there.is_empty() {
                Shield::purge(pins, &lock)?;
            }
            return Err(error);
        }
    }
    Ok(shield)
}

fn say_attached(attached: &Attached) {
    log::info!(target: IQ, "{}", attached_line(attached));
}

struct Iq<'a> {
    shield: &'a Shield,
    table: SourceTable,
    meter: Meter,
    engine: Engine,
    enforcer: Box<dyn Enforcer + 'a>,
    dry_run: bool,
    allowed: Allowed,
    last_tick: Ktime,
    resets: u32,
    events_lost: u64,
}

impl<'a> Iq<'a> {
    fn new(shield: &'a Shield, pins: &'a PinDir, engine: Engine, dry_run: bool) -> Result<Self> {
        let table = shield.sources()?;
        let mut meter = Meter::new(table.capacity());
        // What was counted before this start is not one tick's traffic.
        table.take(|slot, row| meter.row(slot, row));
        meter.samples();
        let enforcer: Box<dyn Enforcer + 'a> = if dry_run {
            Box::new(DryRun)
        } else {
            Box::new(MapEnforcer { shield, pins })
        };
        let (resets, events_lost) = (shield.resets(), shield.counters()?.events_lost);
        let allowed = Allowed::default();
        let last_tick = now()?;
        Ok(Self {
            shield,
            table,
            meter,
            engine,
            enforcer,
            dry_run,
            allowed,
            last_tick,
            resets,
            events_lost,
        })
    }

    fn on_tick(&mut self) -> Result<()> {
        let now = now()?;
        let length = now.since(self.last_tick);
        self.last_tick = now;
        self.watch_reset();
        self.allowed.refresh(self.shield)?;
        let meter = &mut self.meter;
        self.table.take(|slot, row| meter.row(slot, row));
        let samples = self.meter.samples();
        let window = Window {
            length,
            samples: &samples,
        };
        let allowed = &self.allowed;
        let decisions = self
            .engine
            .tick(now, window, &|source| allowed.covers(source, now));
        self.carry_out(now, &decisions)?;
        self.watch_ring()
    }

    fn on_events(&mut self, events: &Events) -> Result<()> {
        let now = now()?;
        let mut decisions = Vec::new();
        for event in events.drain() {
            let bits = match event.what {
                What::Ports(bits) => bits,
                What::Violation(direction, service) => {
                    let edge = Edge {
                        direction,
                        peer: Peer::Source(event.source),
                        service,
                    };
                    log::warn!(target: GRAPH, "violation: {edge}");
                    continue;
                }
            };
            // The event tells of ports only; each of them took a packet.
            let ports = linear_count(u64::MAX.checked_shr(64 - bits.min(64)).unwrap_or(0));
            let sample = Sample {
                source: event.source,
                packets: ports.into(),
                bytes: 0,
                syns: 0,
                drops: 0,
                ports,
                stacks: 0,
            };
            let allowed = &self.allowed;
            decisions.extend(
                self.engine
                    .alert(now, &sample, &|source| allowed.covers(source, now)),
            );
        }
        self.carry_out(now, &decisions)
    }

    /// Enforces and tells. A source whose order failed is forgotten: the next tick decides anew.
    fn carry_out(&mut self, now: Ktime, decisions: &[Decision]) -> Result<()> {
        let orders: Vec<Order> = decisions
            .iter()
            .map(|decision| Order {
                source: decision.source,
                hold: decision.hold.zip(decision.until),
            })
            .collect();
        let outcomes = match self.enforcer.enforce(&orders) {
            Ok(outcomes) => outcomes,
            Err(error) => {
                log::error!(target: IQ, "enforcing {} decisions: {error}; trying again", orders.len());
                orders
                    .iter()
                    .for_each(|order| self.engine.forget(&order.source));
                return Ok(());
            }
        };
        for (decision, outcome) in decisions.iter().zip(outcomes) {
            let line = decision_line(decision, now, self.dry_run);
            match outcome {
                Ok(Outcome::Done) => self.tell(decision, &line),
                Ok(Outcome::OperatorRules) => {
                    log::debug!(target: IQ, "{line} (an operator's entry stands)")
                }
                Err(error) => {
                    log::error!(target: IQ, "{line}: {error}");
                    self.engine.forget(&decision.source);
                }
            }
        }
        Ok(())
    }

    /// Transitions are news; renewals are not.
    fn tell(&self, decision: &Decision, line: &str) {
        if decision.from == decision.to {
            log::debug!(target: IQ, "{line}");
        } else {
            log::info!(target: IQ, "{line}");
        }
    }

    fn watch_reset(&mut self) {
        let resets = self.shield.resets();
        if resets != self.resets {
            self.resets = resets;
            self.engine.reset();
            log::info!(target: IQ, "reset by the operator: every source starts over at OBSERVE");
        }
    }

    fn watch_ring(&mut self) -> Result<()> {
        let lost = self.shield.counters()?.events_lost;
        if lost > self.events_lost {
            log::warn!(target: IQ, "{} alerts found the ring full; the tick sees those sources", lost - self.events_lost);
            self.events_lost = lost;
        }
        Ok(())
    }

    fn farewell(&self) -> Result<()> {
        let held = self.engine.held().count();
        if self.dry_run || held == 0 {
            log::info!(target: IQ, "stopping; nothing is enforced by iq");
        } else {
            let last = self
                .engine
                .held()
                .map(|(_, _, until)| until)
                .max()
                .unwrap_or(self.last_tick);
            let left = Duration::from_secs(last.since(self.last_tick).as_secs());
            log::info!(
                target: IQ,
                "stopping; {held} sources stay enforced until they expire, the last in {}; 'kernloom reset' frees them now",
                format_duration(left)
            );
        }
        Ok(())
    }
}

/// Sources the operator allows; read again only when policy changed.
#[derive(Default)]
struct Allowed {
    generation: Option<u32>,
    entries: Vec<Entry>,
}

impl Allowed {
    fn refresh(&mut self, shield: &Shield) -> Result<()> {
        let generation = shield.generation();
        if self.generation != Some(generation) {
            let allows = |entry: &Entry| {
                entry.rule.owner == Owner::Operator && entry.rule.action == Action::Allow
            };
            self.entries = shield.entries()?.into_iter().filter(allows).collect();
            self.generation = Some(generation);
        }
        Ok(())
    }

    fn covers(&self, source: &Source, now: Ktime) -> bool {
        self.entries
            .iter()
            .any(|entry| entry.is_live(now) && entry.source.contains(source))
    }
}
