//! Evidence to edges: candidate, learned, expired.
//!
//! An edge is learned when it was seen in enough ticks, in enough distinct ten-minute windows and
//! over a long enough time, and, for TCP, when at least one connection was completed by both ends.
//! A burst, however long, fills one window; a SYN from an invented address completes nothing.
//!
//! A source that tries many services without completing any, a scan, teaches nothing new: its
//! observations are dropped for a day and what it alone taught is forgotten. Edges others taught
//! stay, and so do those that anyone who only borrows its address cannot have made: what this host
//! opened itself, and what completed a handshake before. Learning decides nothing about packets: the
//! data plane judges them against the frozen graph whether or not there is room to learn here.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use super::{Direction, Edge, Evidence, Record, Service, State};
use crate::model::{Source, Wall};

/// When a candidate is learned and when an edge is forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Promotion {
    /// Ticks in which it must have been seen.
    pub min_seen: u64,
    /// Distinct ten-minute windows in which it must have been seen.
    pub min_windows: u64,
    pub min_age: Duration,
    /// Silence after which what nobody decided starts over; after twice that it is forgotten.
    pub expire_ttl: Duration,
    /// Services a source may try in vain within one window before it counts as a scanner. In vain is
    /// what is completed or answered neither in the same tick nor in the next one, nor later.
    pub fan_out: usize,
    /// Most edges held.
    pub max_edges: usize,
}

impl Default for Promotion {
    fn default() -> Self {
        Self {
            min_seen: 5,
            min_windows: 3,
            min_age: Duration::from_secs(600),
            expire_ttl: Duration::from_secs(720 * 3_600),
            fan_out: 8,
            max_edges: 65_536,
        }
    }
}

/// What one tick saw of one edge.
#[derive(Debug, Clone, PartialEq)]
pub struct Observation {
    pub edge: Edge,
    /// Who it was, or who answers for them: the edge's peer may be a group.
    pub source: Source,
    pub evidence: Evidence,
}

/// An edge that runs far above its usual rate.
#[derive(Debug, Clone, PartialEq)]
pub struct Surge {
    pub edge: Edge,
    pub pps: f64,
    pub usual_pps: f64,
}

/// How long a scanner teaches nothing.
const SCANNER_FOR: Duration = Duration::from_secs(86_400);
/// Sources whose attempts are remembered within one window.
const MOST_ATTEMPTING: usize = 16_384;

/// Scanners that are remembered, each for a day.
const MOST_SCANNERS: usize = 65_536;

/// What a source tried within one window and nobody completed.
#[derive(Debug, Default)]
struct Tried {
    /// In the last tick: what completes it may still come. At most twice what makes a scanner, for
    /// some of it may be completed.
    open: BTreeSet<Service>,
    in_vain: BTreeSet<Service>,
}

impl Tried {
    fn len(&self) -> usize {
        self.open.len() + self.in_vain.len()
    }
}

#[derive(Debug, Default)]
struct Attempts {
    window: u64,
    by_source: HashMap<Source, Tried>,
    /// Sources that have something open.
    open: Vec<Source>,
}

impl Attempts {
    fn complete(&mut self, source: &Source, service: &Service) {
        if let Some(tried) = self.by_source.get_mut(source) {
            tried.open.remove(service);
            tried.in_vain.remove(service);
        }
    }

    /// What the last tick left open was in vain. Gives the sources of which more than `most` was.
    fn close(&mut self, most: usize) -> Vec<Source> {
        let mut found = Vec::new();
        for source in std::mem::take(&mut self.open) {
            if let Some(tried) = self.by_source.get_mut(&source) {
                tried.in_vain.append(&mut tried.open);
                if tried.in_vain.len() > most {
                    found.push(source);
                }
            }
        }
        found
    }

    fn open(&mut self, source: Source, service: Service, most: usize) {
        let room = self.by_source.len() < MOST_ATTEMPTING;
        if !room && !self.by_source.contains_key(&source) {
            return;
        }
        let tried = self.by_source.entry(source).or_default();
        if tried.open.len() > most * 2 || tried.in_vain.contains(&service) {
            return;
        }
        if tried.open.is_empty() {
            self.open.push(source);
        }
        tried.open.insert(service);
    }
}

#[derive(Debug)]
pub struct Learner {
    promotion: Promotion,
    records: BTreeMap<Edge, Record>,
    /// Changed since they were last taken for storing; `None` in `records` by then: removed.
    dirty: BTreeSet<Edge>,
    scanners: HashMap<Source, Wall>,
    /// Of those, the ones that the last tick found.
    found: Vec<Source>,
    attempts: Attempts,
    /// Observations that found no room.
    turned_away: u64,
    /// When every edge held had earned its place: not searched again in the same tick.
    full_at: Option<Wall>,
}

impl Learner {
    pub fn new(promotion: Promotion, records: BTreeMap<Edge, Record>) -> Self {
        Self {
            promotion,
            records,
            dirty: BTreeSet::new(),
            scanners: HashMap::new(),
            found: Vec::new(),
            attempts: Attempts::default(),
            turned_away: 0,
            full_at: None,
        }
    }

    pub const fn records(&self) -> &BTreeMap<Edge, Record> {
        &self.records
    }

    pub const fn turned_away(&self) -> u64 {
        self.turned_away
    }

    /// Sources of which new edges teach nothing now.
    pub fn scanners(&self) -> impl Iterator<Item = &Source> {
        self.scanners.keys()
    }

    /// Those that the last tick found, each once.
    pub fn new_scanners(&self) -> &[Source] {
        &self.found
    }

    /// Services tried in vain that nobody is a scanner for yet.
    pub const fn fan_out(&self) -> usize {
        self.promotion.fan_out
    }

    /// Takes in what a tick of `length`, ending at `now`, saw. Tells what ran far above its rate.
    pub fn tick(&mut self, now: Wall, length: Duration, seen: &[Observation]) -> Vec<Surge> {
        self.note_attempts(now, seen);
        let mut edges: BTreeMap<&Edge, (Evidence, Option<Source>)> = BTreeMap::new();
        for Observation {
            edge,
            source,
            evidence,
        } in seen
        {
            let may_scan = self.scanners.contains_key(source) || self.tries_many(source);
            if may_scan && !self.is_beyond_scans(edge) {
                continue;
            }
            let (sum, only) = edges
                .entry(edge)
                .or_insert((Evidence::default(), Some(*source)));
            sum.add(evidence);
            *only = only.filter(|only| only == source);
        }
        edges
            .into_iter()
            .filter_map(|(edge, (evidence, source))| {
                self.observe(now, length, edge, source, &evidence)
            })
            .collect()
    }

    fn is_accepted(&self, edge: &Edge) -> bool {
        let record = self.records.get(edge);
        record.is_some_and(|record| record.state.is_accepted())
    }

    /// Whether it has as much open as only a scanner has in vain.
    fn tries_many(&self, source: &Source) -> bool {
        let tried = self.attempts.by_source.get(source);
        tried.is_some_and(|tried| tried.len() > self.promotion.fan_out)
    }

    /// Whether it holds for whoever scans in its peer's name. An answer over UDP may have gone to
    /// somebody who never asked.
    fn is_beyond_scans(&self, edge: &Edge) -> bool {
        let completed = |record: &Record| edge.service.is_tcp() && record.seen.handshakes > 0;
        let record = self.records.get(edge);
        edge.direction == Direction::Out
            || record.is_some_and(|record| record.state.is_accepted() || completed(record))
    }

    fn observe(
        &mut self,
        now: Wall,
        length: Duration,
        edge: &Edge,
        source: Option<Source>,
        evidence: &Evidence,
    ) -> Option<Surge> {
        if !self.records.contains_key(edge) && !self.make_room(now) {
            self.turned_away += 1;
            return None;
        }
        let fresh = || Record::new(State::Candidate, now, source);
        let record = self.records.entry(edge.clone()).or_insert_with(fresh);
        if record.state == State::Expired {
            *record = fresh();
        }
        #[expect(clippy::cast_precision_loss, reason = "packets of one tick")]
        let pps = evidence.packets as f64 / length.as_secs_f64().max(0.001);
        let surge = record.rate.surge(pps).map(|_| Surge {
            edge: edge.clone(),
            pps,
            usual_pps: record.rate.mean_pps,
        });
        record.add(now, length, source, evidence);
        if record.state == State::Candidate && is_earned(&self.promotion, edge, record, now) {
            record.state = State::Learned;
        }
        self.dirty.insert(edge.clone());
        surge
    }

    /// Room for one more: the candidates that were silent longest go, many at once, for a flood
    /// of new edges must not cost a search each. False if there are none.
    fn make_room(&mut self, now: Wall) -> bool {
        if self.records.len() < self.promotion.max_edges {
            return true;
        }
        if self.full_at == Some(now) {
            return false;
        }
        let mut weakest: Vec<_> = self
            .records
            .iter()
            .filter(|(_, record)| matches!(record.state, State::Candidate | State::Expired))
            .map(|(edge, record)| (record.windows, record.last_seen, edge.clone()))
            .collect();
        weakest.sort_unstable();
        weakest.truncate((self.promotion.max_edges / 64).max(1));
        if weakest.is_empty() {
            self.full_at = Some(now);
            return false;
        }
        weakest.iter().for_each(|(_, _, edge)| self.remove(edge));
        true
    }

    fn note_attempts(&mut self, now: Wall, seen: &[Observation]) {
        self.scanners
            .retain(|_, since| now.since(*since) < SCANNER_FOR);
        let window = now.as_secs() / super::WINDOW_SECS;
        let come_in = || {
            seen.iter()
                .filter(|seen| seen.edge.direction == Direction::In)
        };
        for seen in come_in().filter(|seen| seen.evidence.handshakes > 0) {
            self.attempts.complete(&seen.source, &seen.edge.service);
        }
        let most = self.promotion.fan_out;
        let found = self.attempts.close(most);
        if self.attempts.window != window {
            self.attempts = Attempts {
                window,
                ..Attempts::default()
            };
        }
        for seen in come_in().filter(|seen| seen.evidence.handshakes == 0) {
            if !self.is_accepted(&seen.edge) && !self.scanners.contains_key(&seen.source) {
                self.attempts.open(seen.source, seen.edge.service, most);
            }
        }
        self.found.clear();
        for source in found {
            if self.scanners.insert(source, now).is_none() {
                self.found.push(source);
                self.forget_lessons(source);
            }
        }
        self.forget_scanners();
    }

    /// Who invents sources must not fill the memory: those that were found first go.
    fn forget_scanners(&mut self) {
        let surplus = self.scanners.len().saturating_sub(MOST_SCANNERS);
        if surplus == 0 {
            return;
        }
        let mut order: Vec<(Wall, Source)> = self
            .scanners
            .iter()
            .map(|(source, since)| (*since, *source))
            .collect();
        order.sort_unstable();
        for (_, source) in order.iter().take(surplus) {
            self.scanners.remove(source);
        }
    }

    /// Forgets candidates that only this source taught, by packets that anyone could have sent.
    fn forget_lessons(&mut self, source: Source) {
        let taught: Vec<Edge> = self
            .records
            .iter()
            .filter(|(edge, record)| {
                record.state == State::Candidate
                    && record.teacher == Some(source)
                    && !self.is_beyond_scans(edge)
            })
            .map(|(edge, _)| edge.clone())
            .collect();
        taught.iter().for_each(|edge| self.remove(edge));
    }

    /// Lets what nobody decided and nobody used expire, and forgets what has been for long.
    pub fn expire(&mut self, now: Wall) {
        let ttl = self.promotion.expire_ttl;
        let mut gone = Vec::new();
        for (edge, record) in &mut self.records {
            let silent = now.since(record.last_seen);
            if record.state.is_decided() || silent <= ttl {
                continue;
            }
            if silent > ttl * 2 {
                gone.push(edge.clone());
            } else if record.state != State::Expired {
                record.state = State::Expired;
                self.dirty.insert(edge.clone());
            }
        }
        gone.iter().for_each(|edge| self.remove(edge));
    }

    /// Sets what an operator decided of an edge, known or not.
    pub fn decide(&mut self, edge: &Edge, state: State, now: Wall) {
        self.records
            .entry(edge.clone())
            .or_insert_with(|| Record::new(state, now, None))
            .state = state;
        self.dirty.insert(edge.clone());
    }

    /// Takes a decision back: what was known of the edge before, `None` if nothing was.
    pub fn restore(&mut self, edge: &Edge, before: Option<Record>) {
        match before {
            Some(record) => {
                self.records.insert(edge.clone(), record);
                self.dirty.insert(edge.clone());
            }
            None => self.remove(edge),
        }
    }

    pub fn remove(&mut self, edge: &Edge) {
        if self.records.remove(edge).is_some() {
            self.full_at = None;
            self.dirty.insert(edge.clone());
        }
    }

    /// What changed since the last call: each edge with its record, `None` where it was removed.
    /// Give back with [`Self::not_stored`] what could not be stored.
    pub fn take_dirty(&mut self) -> Vec<(Edge, Option<Record>)> {
        std::mem::take(&mut self.dirty)
            .into_iter()
            .map(|edge| {
                let record = self.records.get(&edge).cloned();
                (edge, record)
            })
            .collect()
    }

    pub fn not_stored(&mut self, edges: impl IntoIterator<Item = Edge>) {
        self.dirty.extend(edges);
    }
}

fn is_earned(promotion: &Promotion, edge: &Edge, record: &Record, now: Wall) -> bool {
    record.ticks >= promotion.min_seen
        && record.windows >= promotion.min_windows
        && now.since(record.first_seen) >= promotion.min_age
        && (!edge.service.is_tcp() || record.seen.handshakes > 0)
}
