//! The packet path as the design tells it, written without sight of the C code: what a frame is,
//! what policy says of it, what is counted.

use std::collections::{BTreeMap, HashMap, HashSet};

use kernloom::dataplane::{Action, Owner, Reason, Rule};
use kernloom::model::{LimitScope, Source};

use super::edges::Edges;

const VLAN_TAGS: usize = 4;
const EXTENSION_HEADERS: usize = 6;
/// No transport header starts further into the frame.
const REACH: usize = 1023;
const V6_BITS: u8 = 64;

/// What the edge stage reads of a transport header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wire {
    pub proto: u8,
    pub sport: u16,
    /// Of an ICMP message: its identifier.
    pub dport: u16,
    /// Of TCP; of ICMP its type.
    pub flags: u8,
    pub seq: u32,
    pub ack: u32,
}

impl Wire {
    /// `None` where not all of it is there.
    fn read(proto: u8, bytes: &[u8]) -> Option<Self> {
        let mut wire = Self {
            proto,
            sport: 0,
            dport: 0,
            flags: 0,
            seq: 0,
            ack: 0,
        };
        let be32 = |at| Some(u32::from(be16(bytes, at)?) << 16 | u32::from(be16(bytes, at + 2)?));
        match proto {
            // Reserved by IANA, and what the program calls no protocol at all.
            255 => return None,
            1 | 58 => {
                bytes.get(7)?;
                wire.flags = bytes[0];
                wire.dport = be16(bytes, 4)?;
            }
            6 | 17 | 33 | 132 | 136 => {
                wire.sport = be16(bytes, 0)?;
                wire.dport = be16(bytes, 2)?;
            }
            _ => {}
        }
        if proto == 6 {
            wire.flags = *bytes.get(13)?;
            wire.seq = be32(4)?;
            wire.ack = be32(8)?;
        }
        Some(wire)
    }
}

/// A frame whose source can be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    pub v4: bool,
    pub addr: [u8; 16],
    /// Destination.
    pub to: [u8; 16],
    /// In a frame to a group of stations, or to all.
    pub to_everyone: bool,
    hops: u8,
    pub odd: Option<Reason>,
    /// First of several fragments.
    pub more: bool,
    /// Identification, where it is a fragment.
    pub fragment_id: u32,
    /// `None` where no transport header can be read.
    pub wire: Option<Wire>,
    opens: bool,
    syn: bool,
    ack: bool,
    port: Option<u16>,
    stack: Option<[u8; 9]>,
    pub essential: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    NotIp,
    VlanDepth,
    Truncated,
    Ip(Packet),
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    bytes
        .get(at..at + 2)
        .map(|pair| u16::from_be_bytes([pair[0], pair[1]]))
}

/// Ethernet and up to four tags.
pub fn parse(frame: &[u8]) -> Seen {
    let mut at = 12;
    for tags in 0.. {
        match be16(frame, at) {
            Some(0x8100 | 0x88a8) if tags == VLAN_TAGS => return Seen::VlanDepth,
            Some(0x8100 | 0x88a8) => at += 4,
            Some(0x0800) => return ipv4(frame, at + 2),
            Some(0x86dd) => return ipv6(frame, at + 2),
            _ => break,
        }
    }
    Seen::NotIp
}

impl Packet {
    fn new(v4: bool, [addr, to]: [[u8; 16]; 2], hops: u8) -> Self {
        Self {
            v4,
            addr,
            to,
            to_everyone: false,
            fragment_id: 0,
            wire: None,
            hops,
            odd: None,
            more: false,
            opens: true,
            syn: false,
            ack: false,
            port: None,
            stack: None,
            essential: false,
        }
    }

    /// Of several odd classes the highest number counts.
    fn mark(&mut self, odd: Reason) {
        self.odd = self.odd.max(Some(odd));
    }

    fn mark_short(&mut self) {
        self.mark(if self.more {
            Reason::FragmentTiny
        } else {
            Reason::L4Truncated
        });
    }

    /// True where a transport header may follow.
    fn fragment(&mut self, offset: bool, more: bool) -> bool {
        if offset {
            self.mark(Reason::FragmentLater);
        } else if more {
            self.more = true;
            self.mark(Reason::FragmentFirst);
        }
        !offset
    }
}

/// RFC 791.
fn ipv4(frame: &[u8], l3: usize) -> Seen {
    let Some(header) = frame.get(l3..l3 + 20) else {
        return Seen::Truncated;
    };
    let mapped = |from: usize| {
        let mut addr = [0; 16];
        addr[10..12].fill(0xff);
        addr[12..].copy_from_slice(&header[from..from + 4]);
        addr
    };
    let mut packet = Packet::new(true, [12, 16].map(mapped), header[8]);
    packet.to_everyone = frame[0] & 1 != 0;
    let ihl = usize::from(header[0] & 15) * 4;
    let total = usize::from(be16(header, 2).unwrap());
    if header[0] >> 4 != 4 || ihl < 20 || total < ihl || l3 + total > frame.len() {
        packet.mark(Reason::Malformed);
        return Seen::Ip(packet);
    }
    if ihl > 20 {
        packet.mark(Reason::Options);
    }
    let frag = be16(header, 6).unwrap();
    packet.fragment_id = u32::from(be16(header, 4).unwrap());
    if packet.fragment(frag & 0x1fff != 0, frag & 0x2000 != 0) {
        transport(&mut packet, header[9], &frame[l3..l3 + total][ihl..]);
    }
    Seen::Ip(packet)
}

/// RFC 8200.
fn ipv6(frame: &[u8], l3: usize) -> Seen {
    let Some(header) = frame.get(l3..l3 + 40) else {
        return Seen::Truncated;
    };
    let addr = |from: usize| header[from..from + 16].try_into().unwrap();
    let mut packet = Packet::new(false, [8, 24].map(addr), header[7]);
    packet.to_everyone = frame[0] & 1 != 0;
    let end = l3 + 40 + usize::from(be16(header, 4).unwrap());
    if header[0] >> 4 != 6 || end > frame.len() {
        packet.mark(Reason::Malformed);
        return Seen::Ip(packet);
    }
    let (mut next, mut at) = (header[6], l3 + 40);
    for walked in 0.. {
        if !matches!(next, 0 | 43 | 44 | 51 | 60 | 135) {
            transport(&mut packet, next, frame.get(at..end).unwrap_or_default());
            break;
        }
        packet.mark(Reason::Options);
        if walked == EXTENSION_HEADERS {
            packet.mark(Reason::ExtDepth);
            break;
        }
        if at + 8 > end {
            packet.mark(Reason::L4Truncated);
            break;
        }
        let ext = &frame[at..at + 8];
        let field = be16(ext, 2).unwrap();
        let mut follow = true;
        at += match next {
            44 => {
                packet.fragment_id = u32::from_be_bytes(ext[4..8].try_into().unwrap());
                follow = packet.fragment(field & 0xfff8 != 0, field & 1 != 0);
                8
            }
            51 => (usize::from(ext[1]) + 2) * 4,
            _ => (usize::from(ext[1]) + 1) * 8,
        };
        if next == 43 && ext[2] == 0 {
            packet.mark(Reason::Routing0);
        }
        if at > REACH {
            packet.mark(Reason::ExtDepth);
            follow = false;
        }
        if !follow {
            break;
        }
        next = ext[0];
    }
    Seen::Ip(packet)
}

/// `bytes`: from the transport header to the end of the IP packet.
fn transport(packet: &mut Packet, proto: u8, bytes: &[u8]) {
    packet.wire = Wire::read(proto, bytes);
    match proto {
        6 => tcp(packet, bytes),
        17 => udp(packet, bytes),
        1 if packet.v4 => icmp(packet, bytes),
        58 if !packet.v4 => icmp(packet, bytes),
        _ => {}
    }
}

fn tcp(packet: &mut Packet, bytes: &[u8]) {
    let Some(&flags) = bytes.get(13) else {
        packet.mark_short();
        return;
    };
    let (syn, rst, ack) = (flags & 2 != 0, flags & 4 != 0, flags & 16 != 0);
    packet.syn = syn && !ack;
    packet.ack = ack && !syn && !rst;
    packet.opens = !packet.ack;
    let words = bytes[12] >> 4;
    if words < 5 {
        packet.mark(Reason::L4Malformed);
    }
    if bytes.len() < 20 || bytes.len() < usize::from(words) * 4 {
        packet.mark_short();
    }
    if packet.syn || !(ack || rst) {
        packet.port = be16(bytes, 2).filter(|port| *port != 0);
        if packet.syn && bytes.len() >= 20 {
            let mut stack = [0; 9];
            stack[..3].copy_from_slice(&[packet.hops >> 5, bytes[14], bytes[15]]);
            stack[3] = words;
            if words > 5 && bytes.len() >= 24 {
                stack[4..8].copy_from_slice(&bytes[20..24]);
            }
            packet.stack = Some(stack);
        }
    }
}

fn udp(packet: &mut Packet, bytes: &[u8]) {
    if bytes.len() < 8 {
        packet.mark_short();
        return;
    }
    let length = usize::from(be16(bytes, 4).unwrap());
    if length < 8 || (length > bytes.len() && !packet.more) {
        packet.mark(Reason::L4Malformed);
    }
    let (source, dest) = (be16(bytes, 0).unwrap(), be16(bytes, 2).unwrap());
    // What comes from a lower port is an answer.
    packet.port = (dest != 0 && dest < source).then_some(dest);
}

fn icmp(packet: &mut Packet, bytes: &[u8]) {
    if bytes.len() < 8 {
        packet.mark_short();
        return;
    }
    let source = packet.addr;
    let on_link = source == [0; 16] || (source[0] == 0xfe && source[1] & 0xc0 == 0x80);
    // RFC 4890, 4.4.1; RFC 792.
    packet.essential = !packet.more
        && match (packet.v4, bytes[0]) {
            (true, 3 | 11 | 12) | (false, 1..=4) => true,
            (false, 133..=136 | 141 | 142 | 148 | 149) => packet.hops == 255,
            (false, 130..=132 | 143 | 151..=153) => packet.hops == 1 && on_link,
            _ => false,
        };
}

/// What the program keeps of one source.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    pub packets: u32,
    pub bytes: u64,
    pub syns: u32,
    pub acks: u32,
    pub drops: u32,
    pub ports: HashSet<u16>,
    pub stacks: HashSet<[u8; 9]>,
}

/// Nanoseconds; and the power of two the program counts with.
const JIFFY: u64 = 1_000_000;
const JIFFY_MOST: u64 = 1 << 20;

#[derive(Debug, Clone)]
struct Held {
    rule: Rule,
    tat: u64,
}

/// The program's whole state, as far as anybody can see it.
#[derive(Debug, Clone, Default)]
pub struct Model {
    rules: BTreeMap<Source, Held>,
    /// By tracked source: the jiffy it waits for the end of.
    waits: HashMap<Source, u64>,
    pub only_allowed: bool,
    pub now: u64,
    pub reasons: BTreeMap<Reason, (u64, u64)>,
    pub lengths: [u64; 16],
    /// TCP SYNs and UDP by destination port.
    pub ports: BTreeMap<u16, (u64, u64)>,
    pub sources: HashMap<Source, Tally>,
    /// Where the program has an edge stage.
    pub edges: Option<Edges>,
}

impl Model {
    /// Of a program with an edge stage.
    pub fn with(edges: Edges) -> Self {
        Self {
            edges: Some(edges),
            ..Self::default()
        }
    }

    pub fn set(&mut self, source: Source, rule: Rule) {
        // Renewing a limit is no fresh burst.
        let same = |held: &&Held| interval(&held.rule) == interval(&rule);
        let tat = self
            .rules
            .get(&source)
            .filter(same)
            .map_or(0, |held| held.tat);
        self.rules.insert(source, Held { rule, tat });
        self.waits.clear();
    }

    pub fn remove(&mut self, source: &Source) {
        self.waits.clear();
        self.rules.remove(source);
    }

    pub fn rules(&self) -> impl Iterator<Item = (&Source, &Rule)> {
        self.rules.iter().map(|(source, held)| (source, &held.rule))
    }

    /// The rule that decides: the longest; but where the longest that is not an automatic
    /// restriction allows, that one.
    fn decisive(&self, packet: &Packet) -> Option<Source> {
        let host = Source::containing(packet.addr, 128);
        // IPv4 is carried in ::ffff:0:0/96; no prefix wider than that means it.
        let holds = |source: &Source| source.contains(&host) && (!packet.v4 || source.bits() >= 96);
        let now = self.now;
        let live = |held: &Held| held.rule.expires.is_none_or(|end| now < end.as_nanos());
        let mut matching: Vec<_> = self
            .rules
            .iter()
            .filter(|(source, held)| holds(source) && live(held))
            .collect();
        matching.sort_by_key(|(source, _)| std::cmp::Reverse(source.bits()));
        let manual = matching
            .iter()
            .find(|(_, held)| !automatic(&held.rule) || held.rule.action == Action::Allow)
            .filter(|(_, held)| held.rule.action == Action::Allow);
        manual.or(matching.first()).map(|(source, _)| **source)
    }

    /// Whether what decides is an exemption: of a management address, or of IQ's lists.
    fn exempts(&self, packet: &Packet) -> bool {
        let rule = self.decisive(packet).map(|source| self.rules[&source].rule);
        rule.is_some_and(|rule| {
            rule.action == Action::Allow && matches!(rule.owner, Owner::Management | Owner::Iq)
        })
    }

    /// Why the frame leaves as it does; counts it.
    pub fn judge(&mut self, frame: &[u8]) -> Reason {
        let reason = match parse(frame) {
            Seen::NotIp => Reason::NotIp,
            Seen::VlanDepth if self.only_allowed => Reason::VlanDepthDrop,
            Seen::VlanDepth => self.unread().unwrap_or(Reason::VlanDepth),
            Seen::Truncated if self.only_allowed => Reason::TruncatedDrop,
            Seen::Truncated => self.unread().unwrap_or(Reason::Truncated),
            Seen::Ip(packet) => {
                // Neighbours share a prefix with the gateway: one by one.
                let neighbour = packet.addr[0] == 0xfe && packet.addr[1] & 0xc0 == 0x80;
                let whole = packet.v4 || neighbour;
                let tracked = Source::containing(packet.addr, if whole { 128 } else { V6_BITS });
                let mut reason = self.judge_packet(&packet, tracked);
                let exempt = self.exempts(&packet);
                if let Some(edges) = self.edges.as_mut().filter(|_| !reason.drops()) {
                    let edge = edges.inbound(&packet, exempt, frame.len() as u64, self.now);
                    reason = edge.unwrap_or(reason);
                }
                let tally = self.sources.entry(tracked).or_default();
                tally.packets += 1;
                tally.bytes += frame.len() as u64;
                tally.drops += u32::from(reason.drops());
                reason
            }
        };
        self.count(reason, frame);
        reason
    }

    fn count(&mut self, reason: Reason, frame: &[u8]) {
        let count = self.reasons.entry(reason).or_default();
        count.0 += 1;
        count.1 += frame.len() as u64;
        self.lengths[(frame.len() / 128).min(15)] += 1;
    }

    fn unread(&self) -> Option<Reason> {
        self.edges.as_ref()?.unread(self.now)
    }

    /// Whether a frame that leaves is dropped; counts it if the edge stage has anything to say.
    pub fn leave(&mut self, frame: &[u8]) -> bool {
        let (Seen::Ip(packet), Some(edges)) = (parse(frame), &mut self.edges) else {
            return false;
        };
        let reason = edges.outbound(&packet, frame.len() as u64, self.now);
        if let Some(reason) = reason {
            self.count(reason, frame);
        }
        reason.is_some_and(Reason::drops)
    }

    fn judge_packet(&mut self, packet: &Packet, tracked: Source) -> Reason {
        let decisive = self.decisive(packet);
        let rule = decisive.map(|source| self.rules[&source].rule);
        let action = rule.map(|rule| rule.action);
        if action == Some(Action::Deny) {
            return Reason::Deny;
        }
        let mut essential = false;
        if self.only_allowed {
            if packet.odd == Some(Reason::Routing0) {
                return Reason::Routing0Drop;
            }
            let known = rule.is_some_and(|rule| rule.action == Action::Allow || !automatic(&rule));
            essential = !known;
            if essential && !packet.essential {
                return Reason::NotAllowed;
            }
        }
        self.observe(packet, tracked);
        let limited = rule.as_ref().and_then(interval);
        if let (Some((interval, tolerance, scope)), Some(source)) = (limited, decisive) {
            let applies = scope == LimitScope::All || packet.opens;
            if applies && !self.admits(tracked, source, interval, tolerance) {
                return Reason::Limit;
            }
        }
        match (essential, packet.odd, action) {
            (true, _, _) => Reason::Essential,
            (_, Some(odd), _) => odd,
            (_, _, Some(Action::Allow)) => Reason::Allow,
            (_, _, None) => Reason::Pass,
            (_, _, Some(_)) => Reason::WithinLimit,
        }
    }

    fn observe(&mut self, packet: &Packet, tracked: Source) {
        let tally = self.sources.entry(tracked).or_default();
        tally.syns += u32::from(packet.syn);
        tally.acks += u32::from(packet.ack);
        tally.ports.extend(packet.port);
        tally.stacks.extend(packet.stack);
        if let Some(port) = packet.port {
            let count = self.ports.entry(port).or_default();
            count.0 += u64::from(packet.syn);
            count.1 += u64::from(packet.wire.as_ref().is_some_and(|wire| wire.proto == 17));
        }
    }

    /// GCRA, virtual scheduling (ITU-T I.371, annex A). Refused less than a jiffy before it conforms, a
    /// source waits for the next one, if its burst is longer than a jiffy and one verdict is all of its.
    fn admits(&mut self, tracked: Source, source: Source, interval: u64, tolerance: u64) -> bool {
        let (now, jiffy) = (self.now, self.now / JIFFY);
        let mixed = self
            .rules
            .keys()
            .any(|rule| rule.bits() > tracked.bits() && tracked.contains(rule));
        let Some(held) = self.rules.get_mut(&source) else {
            return true;
        };
        if self.waits.get(&tracked) == Some(&jiffy) {
            return false;
        }
        if now + tolerance < held.tat {
            let soon = held.tat - now - tolerance < JIFFY_MOST;
            if soon && tolerance >= JIFFY_MOST && !mixed {
                self.waits.insert(tracked, jiffy);
            }
            return false;
        }
        held.tat = held.tat.max(now) + interval;
        true
    }
}

/// Not written by anybody for this host.
fn automatic(rule: &Rule) -> bool {
    rule.owner.is_automatic()
}

/// Emission interval and tolerance in nanoseconds, and what is limited.
fn interval(rule: &Rule) -> Option<(u64, u64, LimitScope)> {
    let Action::Limit { limit, scope } = rule.action else {
        return None;
    };
    let interval = 1_000_000_000u64.div_ceil(limit.pps.get().into());
    Some((interval, u64::from(limit.burst.get() - 1) * interval, scope))
}
