//! The edge stage as the design tells it: what a graph says of an edge, what is a reply, what goes
//! on, what is counted. No socket is connected to anybody in these tests.

use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;

use kernloom::dataplane::Reason;
use kernloom::graph::{Direction, Edge, Groups, Mode, Peer, Service};
use kernloom::model::Source;

use super::model::{Packet, Wire};

const V6_BITS: u8 = 64;
const MS: u64 = 1_000_000;
const UDP_LIFE: u64 = 180_000;
const TCP_LIFE: u64 = 21_600_000;
const CLOSING_LIFE: u64 = 60_000;
const FRAGMENT_LIFE: u64 = 60_000;
/// How far beyond our number an acknowledgment may be.
const WINDOW: u32 = 65_536;
const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

/// Numbers of groups: nobody's, everybody else's, broadcast addresses'.
const NO_GROUP: u8 = 0;
const INTERNET: u8 = 1;
const BROADCAST: u8 = 255;

/// A graph to judge by.
#[derive(Debug, Clone, Default)]
pub struct Graph {
    pub mode: Mode,
    pub allowed: BTreeSet<Edge>,
    pub denied: BTreeSet<Edge>,
    pub only: BTreeSet<Service>,
    pub groups: Groups,
    pub broadcast: Vec<Source>,
}

impl Graph {
    /// The longest prefix that holds the address names its group.
    fn group(&self, addr: [u8; 16]) -> u8 {
        let host = Source::containing(addr, 128);
        let prefixes = self.groups.prefixes();
        let broadcast = self.broadcast.iter().map(|prefix| (*prefix, BROADCAST));
        prefixes
            .into_iter()
            .chain(broadcast)
            .filter(|(prefix, _)| prefix.contains(&host))
            .max_by_key(|(prefix, _)| prefix.bits())
            .map_or(INTERNET, |(_, number)| number)
    }

    /// The edge by its source, then by the prefix that the source is tracked as, then by its group;
    /// then whether the graph speaks of the service.
    fn judge(&self, edge: &Edge, group: u8) -> Verdict {
        let by_prefix = match edge.peer {
            Peer::Source(source) => Some(Edge {
                peer: Peer::Source(tracked(source)),
                ..edge.clone()
            }),
            Peer::Any | Peer::Group(_) => None,
        };
        let by_group = self.groups.name(group).map(|name| Edge {
            peer: Peer::Group(name.to_owned()),
            ..edge.clone()
        });
        for edge in [Some(edge.clone()), by_prefix, by_group].iter().flatten() {
            if self.denied.contains(edge) {
                return Verdict::Denied;
            }
            if self.allowed.contains(edge) {
                return Verdict::Allowed;
            }
        }
        if !self.only.is_empty() && !self.only.contains(&edge.service) {
            return Verdict::Allowed;
        }
        Verdict::Unknown
    }

    fn missing(&self, reason: Reason) -> Option<Reason> {
        match self.mode {
            Mode::Enforce => Some(reason),
            Mode::Observe => Some(Reason::EdgeObserved),
            Mode::Learn | Mode::Off => None,
        }
    }

    fn reason(&self, verdict: Verdict) -> Option<Reason> {
        match verdict {
            Verdict::Allowed => None,
            Verdict::Denied => Some(Reason::EdgeDenied),
            Verdict::Unknown => self.missing(Reason::EdgeUnknown),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Unknown,
    Allowed,
    Denied,
}

/// What is counted of one edge.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    pub packets: u32,
    pub bytes: u64,
    pub connections: u32,
    pub handshakes: u32,
    pub violations: u32,
    pub group: u8,
    /// The answer that is kept, and under which graph it was given.
    answer: Option<(u64, bool)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Open,
    Answered,
    Complete,
    Closing,
    Violation,
}

#[derive(Debug, Clone)]
struct Flow {
    seen: u64,
    next: u32,
    stage: Stage,
}

/// Remote end, its port, ours, protocol. Nobody's address stands for anybody.
type FlowKey = ([u8; 16], u16, u16, u8);

impl Flow {
    fn new(stage: Stage, now: u64) -> Self {
        Self {
            seen: now,
            next: 0,
            stage,
        }
    }

    fn lives(&self, proto: u8, now: u64) -> bool {
        let life = match (proto, self.stage) {
            (6, Stage::Closing) => CLOSING_LIFE,
            (6, _) => TCP_LIFE,
            _ => UDP_LIFE,
        };
        now - self.seen < life
    }

    fn touch(&mut self, wire: &Wire, now: u64) {
        if wire.proto == 6 && wire.flags & (FIN | RST) != 0 {
            self.stage = Stage::Closing;
        }
        if self.stage != Stage::Closing && now - self.seen > 1_000 {
            self.seen = now;
        }
    }
}

/// The edge stage's whole state.
#[derive(Debug, Clone, Default)]
pub struct Edges {
    now_graph: Rc<Graph>,
    /// End in nanoseconds, and what holds from then on.
    lease: Option<(u64, Rc<Graph>)>,
    generation: u64,
    pub counts: HashMap<Edge, Count>,
    opened: HashMap<FlowKey, Flow>,
    accepted: HashMap<FlowKey, Flow>,
    fragments: HashMap<([u8; 16], [u8; 16], u32), u64>,
}

fn is_cast(addr: &[u8; 16], v4: bool) -> bool {
    if v4 {
        addr[12] >> 4 == 0xe || addr[12..] == [255; 4]
    } else {
        addr[0] == 0xff
    }
}

/// What passes whatever the graph says: among others a DHCP server's answer, or a client's question
/// (RFC 2131; RFC 8415, where both stay on the link), and IGMP, which is IPv4's.
fn always(packet: &Packet, wire: &Wire, near: bool) -> bool {
    packet.essential
        || match (packet.v4, wire.proto, wire.sport, wire.dport) {
            (true, 2, ..) | (true, 17, 67, 68) => true,
            (false, 17, 547, 546) => near,
            _ => false,
        }
}

fn is_link_local(addr: &[u8; 16]) -> bool {
    addr[0] == 0xfe && addr[1] & 0xc0 == 0x80
}

fn is_echo_reply(wire: &Wire) -> bool {
    matches!((wire.proto, wire.flags), (1, 0) | (58, 129))
}

fn opens(wire: &Wire) -> bool {
    if wire.proto == 6 {
        return wire.flags & (SYN | ACK | RST) == SYN;
    }
    !is_echo_reply(wire)
}

fn service(wire: &Wire, port: u16) -> Service {
    let ports = matches!(wire.proto, 6 | 17 | 33 | 132 | 136);
    Service::new(wire.proto, if ports { port } else { 0 })
}

/// What is tracked as one source: a /64, but where neighbours share one.
fn tracked(source: Source) -> Source {
    let whole = source.is_ipv4() || is_link_local(&source.octets());
    Source::containing(source.octets(), if whole { 128 } else { V6_BITS })
}

fn edge_of(direction: Direction, far: [u8; 16], service: Service) -> Edge {
    let peer = match direction {
        Direction::Cast => Peer::Any,
        Direction::In | Direction::Out => Peer::Source(Source::containing(far, 128)),
    };
    Edge {
        direction,
        peer,
        service,
    }
}

impl Edges {
    /// What counts now, and a number for it.
    fn in_force(&self, now: u64) -> (Rc<Graph>, u64) {
        match &self.lease {
            Some((end, after)) if now >= *end => (Rc::clone(after), self.generation * 2 + 1),
            _ => (Rc::clone(&self.now_graph), self.generation * 2),
        }
    }

    pub fn switch(&mut self, graph: Graph, lease: Option<u64>, now: u64) {
        let before = match self.lease.take() {
            Some((_, after)) => after,
            None => Rc::clone(&self.now_graph),
        };
        self.lease = lease.map(|end| (end, before));
        self.now_graph = Rc::new(graph);
        self.generation += 1;
        debug_assert!(lease.is_none_or(|end| end > now));
    }

    pub fn confirm(&mut self, now: u64) {
        if self.lease.as_ref().is_some_and(|(end, _)| now < *end) {
            self.lease = None;
        }
    }

    pub fn mode(&self, now: u64) -> Mode {
        self.in_force(now).0.mode
    }

    /// A frame whose source cannot be read.
    pub fn unread(&self, now: u64) -> Option<Reason> {
        self.in_force(now).0.missing(Reason::EdgeUnread)
    }

    /// The edge's entry with an answer that holds, and whether the graph allows it.
    fn entry(
        &mut self,
        edge: &Edge,
        addr: [u8; 16],
        (graph, stamp): (&Graph, u64),
    ) -> (&mut Count, Verdict) {
        let group = match edge.direction {
            Direction::Cast => NO_GROUP,
            Direction::In | Direction::Out => graph.group(addr),
        };
        let verdict = graph.judge(edge, group);
        let count = self.counts.entry(edge.clone()).or_default();
        count.answer = Some((stamp, verdict == Verdict::Allowed));
        count.group = group;
        (count, verdict)
    }

    /// Why an inbound packet that policy passes is dropped, or noted; `None` if neither. What the graph
    /// does not know passes from an `exempt` source.
    pub fn inbound(&mut self, packet: &Packet, exempt: bool, len: u64, at: u64) -> Option<Reason> {
        let ((graph, stamp), now) = (self.in_force(at), at / MS);
        let missing = |reason| graph.missing(reason).filter(|_| !exempt);
        if graph.mode == Mode::Off {
            return None;
        }
        let fragment = (packet.addr, packet.to, packet.fragment_id);
        if packet.odd == Some(Reason::FragmentLater) {
            let first = self.fragments.get(&fragment);
            if first.is_some_and(|seen| now - seen < FRAGMENT_LIFE) {
                return None;
            }
            return missing(Reason::EdgeFragment);
        }
        let readable = packet.odd.is_none_or(|odd| odd < Reason::ExtDepth);
        let reason = match packet.wire.filter(|_| readable) {
            Some(wire) => self.judged(packet, &wire, (exempt, len), (&graph, stamp), now),
            None => missing(Reason::EdgeUnread),
        };
        if packet.more && !reason.is_some_and(Reason::drops) {
            self.fragments.insert(fragment, now);
        }
        reason
    }

    fn judged(
        &mut self,
        packet: &Packet,
        wire: &Wire,
        (exempt, len): (bool, u64),
        (graph, stamp): (&Graph, u64),
        now: u64,
    ) -> Option<Reason> {
        let (learning, enforcing) = (graph.mode == Mode::Learn, graph.mode == Mode::Enforce);
        let service = service(wire, wire.dport);
        let mut cast = is_cast(&packet.to, packet.v4);
        let direction = |cast| if cast { Direction::Cast } else { Direction::In };
        let mut edge = edge_of(direction(cast), packet.addr, service);
        if let Some(count) = self.counts.get_mut(&edge)
            && enforcing
            && count.answer == Some((stamp, true))
        {
            count.packets += 1;
            count.bytes += len;
            return None;
        }
        if always(packet, wire, is_link_local(&packet.addr)) {
            return None;
        }
        let known = learning && self.counts.contains_key(&edge);
        if !known && !cast && self.is_answer(packet, wire, (graph, stamp), now) {
            return None;
        }
        if !cast && packet.to_everyone && graph.group(packet.to) == BROADCAST {
            cast = true;
            edge = edge_of(Direction::Cast, packet.addr, service);
        }
        if learning && !known && !cast && !opens(wire) {
            return None;
        }
        let group = if cast {
            NO_GROUP
        } else {
            graph.group(packet.addr)
        };
        let verdict = graph.judge(&edge, group);
        let spared = exempt && verdict == Verdict::Unknown;
        let reason = graph.reason(verdict).filter(|_| !spared);
        if verdict != Verdict::Allowed && !known && !cast && self.goes_on(packet, wire, now) {
            return None;
        }
        let (count, _) = self.entry(&edge, packet.addr, (graph, stamp));
        count.packets += 1;
        count.bytes += len;
        count.violations += u32::from(reason.is_some());
        if cast || reason.is_some_and(Reason::drops) {
            return reason;
        }
        if enforcing {
            if spared {
                self.note(&edge, (packet.addr, wire), Stage::Open, now);
            }
            return reason;
        }
        let stage = match reason {
            Some(_) => Stage::Violation,
            None => Stage::Open,
        };
        self.accept(&edge, (packet.addr, wire), stage, now);
        reason
    }

    /// Whether this side opened what it answers.
    fn is_answer(
        &mut self,
        packet: &Packet,
        wire: &Wire,
        (graph, stamp): (&Graph, u64),
        now: u64,
    ) -> bool {
        if wire.proto == 6 && opens(wire) {
            return false;
        }
        let key = (packet.addr, wire.sport, wire.dport, wire.proto);
        let Some(flow) = self.opened.get_mut(&key) else {
            return false;
        };
        if !flow.lives(wire.proto, now) {
            return false;
        }
        let first = flow.stage == Stage::Open
            && graph.mode != Mode::Enforce
            && (wire.proto != 6 || wire.flags & SYN != 0);
        if first {
            flow.stage = Stage::Answered;
        }
        flow.touch(wire, now);
        if first {
            let service = service(wire, wire.sport);
            let edge = edge_of(Direction::Out, packet.addr, service);
            self.entry(&edge, packet.addr, (graph, stamp)).0.handshakes += 1;
        }
        true
    }

    /// Whether it belongs to what was under way before.
    fn goes_on(&mut self, packet: &Packet, wire: &Wire, now: u64) -> bool {
        if wire.proto == 6 && opens(wire) {
            return false;
        }
        let least = if wire.proto == 6 {
            Stage::Complete
        } else {
            Stage::Answered
        };
        let key = (packet.addr, wire.sport, wire.dport, wire.proto);
        if let Some(flow) = self.accepted.get_mut(&key)
            && flow.stage >= least
            && flow.stage != Stage::Violation
            && flow.lives(wire.proto, now)
        {
            flow.touch(wire, now);
            return true;
        }
        let anybody = ([0; 16], wire.sport, wire.dport, wire.proto);
        wire.proto == 17
            && self
                .opened
                .get(&anybody)
                .is_some_and(|flow| flow.lives(17, now))
    }

    fn accept(&mut self, edge: &Edge, (addr, wire): ([u8; 16], &Wire), stage: Stage, now: u64) {
        let Some(count) = self.counts.get_mut(edge) else {
            return;
        };
        let key = (addr, wire.sport, wire.dport, wire.proto);
        let flow = self.accepted.get_mut(&key);
        if wire.proto != 6 {
            self.note(edge, (addr, wire), stage, now);
        } else if opens(wire) {
            count.connections += 1;
        } else if count.handshakes < count.connections
            && let Some(flow) = flow
            && flow.stage == Stage::Answered
            && wire.ack.wrapping_sub(flow.next) < WINDOW
        {
            flow.stage = Stage::Complete;
            count.handshakes += 1;
        }
    }

    /// Remembers what the other side opened.
    fn note(&mut self, edge: &Edge, (addr, wire): ([u8; 16], &Wire), stage: Stage, now: u64) {
        let key = (addr, wire.sport, wire.dport, wire.proto);
        let lives = |flow: &&mut Flow| flow.lives(wire.proto, now);
        if let Some(flow) = self.accepted.get_mut(&key).filter(lives) {
            flow.touch(wire, now);
        } else if let Some(count) = self.counts.get_mut(edge) {
            self.accepted.insert(key, Flow::new(stage, now));
            count.connections += 1;
        }
    }

    /// What becomes of a packet that leaves. `packet` is as it stands on the wire.
    pub fn outbound(&mut self, packet: &Packet, len: u64, at: u64) -> Option<Reason> {
        let ((graph, stamp), now) = (self.in_force(at), at / MS);
        if graph.mode == Mode::Off || packet.odd == Some(Reason::FragmentLater) {
            return None;
        }
        let Some(mut wire) = packet.wire else {
            return graph.missing(Reason::EdgeUnread);
        };
        // As of what comes in: the remote end's port first. An echo has but one number.
        if !matches!(wire.proto, 1 | 58) {
            (wire.sport, wire.dport) = (wire.dport, wire.sport);
        }
        let cast = is_cast(&packet.to, packet.v4);
        if always(packet, &wire, cast || is_link_local(&packet.to)) {
            return None;
        }
        if cast {
            let key = ([0; 16], wire.sport, wire.dport, wire.proto);
            self.opened.insert(key, Flow::new(Stage::Open, now));
            return None;
        }
        if self.leaves_on(packet, &wire, (&graph, stamp), now) {
            return None;
        }
        let service = service(&wire, wire.sport);
        let edge = edge_of(Direction::Out, packet.to, service);
        let (count, verdict) = self.entry(&edge, packet.to, (&graph, stamp));
        let reason = graph.reason(verdict);
        count.packets += 1;
        count.bytes += len;
        count.connections += 1;
        count.violations += u32::from(reason.is_some());
        if !reason.is_some_and(Reason::drops) {
            let key = (packet.to, wire.sport, wire.dport, wire.proto);
            self.opened.insert(key, Flow::new(Stage::Open, now));
        }
        reason
    }

    /// Whether a packet that leaves answers, or goes on with, something.
    fn leaves_on(
        &mut self,
        packet: &Packet,
        wire: &Wire,
        (graph, stamp): (&Graph, u64),
        now: u64,
    ) -> bool {
        if wire.proto == 6 && opens(wire) {
            return false;
        }
        let key = (packet.to, wire.sport, wire.dport, wire.proto);
        if wire.proto == 6 && wire.flags & SYN != 0 && graph.mode != Mode::Enforce {
            let flow = Flow {
                next: wire.seq.wrapping_add(1),
                ..Flow::new(Stage::Answered, now)
            };
            self.accepted.insert(key, flow);
            return true;
        }
        let lives = |flow: &&mut Flow| flow.lives(wire.proto, now);
        if let Some(flow) = self.opened.get_mut(&key).filter(lives) {
            flow.touch(wire, now);
            return true;
        }
        let edge = edge_of(Direction::In, packet.to, service(wire, wire.dport));
        if let Some(flow) = self.accepted.get_mut(&key).filter(lives) {
            let first = flow.stage == Stage::Open && wire.proto != 6;
            if first {
                flow.stage = Stage::Answered;
            }
            flow.touch(wire, now);
            if first && graph.mode != Mode::Enforce {
                self.entry(&edge, packet.to, (graph, stamp)).0.handshakes += 1;
            }
            return true;
        }
        let refuses = wire.flags & RST != 0 && graph.mode == Mode::Observe;
        if is_echo_reply(wire) || (wire.proto == 6 && (refuses || graph.mode == Mode::Learn)) {
            return true;
        }
        graph.mode != Mode::Learn && graph.judge(&edge, graph.group(packet.to)) == Verdict::Allowed
    }
}
