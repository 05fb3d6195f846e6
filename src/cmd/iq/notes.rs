use std::collections::{HashMap, VecDeque};

use crate::engine::{Engine, Explanation, Signal};
use crate::model::{Moment, Source, Stage, Wall};
use crate::report::Note;

/// Ticks that are remembered of one source.
const TICKS: usize = 20;

/// Sources of which ticks are remembered.
const SOURCES: usize = 1_024;

/// The last ticks of sources that are or may soon be held, for whoever asks why.
#[derive(Default)]
pub(super) struct Notes {
    ticks: HashMap<Source, VecDeque<Note>>,
}

/// The time of day as answers write it.
pub(super) fn stamp(unix_ms: u64) -> String {
    Wall::from_secs(unix_ms / 1_000).to_string()
}

impl Notes {
    /// Takes down what the tick that ended `now` measured. With more sources under watch than are
    /// remembered, those that were there first stay.
    pub(super) fn take(&mut self, engine: &Engine, now: Moment) {
        let time = stamp(now.unix_ms(now.ktime));
        if engine.len() <= SOURCES {
            let mut ticks = HashMap::new();
            for explanation in engine.explanations(now.ktime) {
                let mut known = self.ticks.remove(&explanation.source).unwrap_or_default();
                push(&mut known, &explanation, &time);
                ticks.insert(explanation.source, known);
            }
            self.ticks = ticks;
            return;
        }
        self.ticks.retain(|source, known| {
            let explanation = engine.explain(source, now.ktime);
            push(known, &explanation, &time);
            explanation.stage > Stage::Observe || explanation.strikes > 0
        });
        let held = engine.held().map(|(source, ..)| *source);
        let room = SOURCES.saturating_sub(self.ticks.len());
        let fresh: Vec<Source> = held
            .filter(|source| !self.ticks.contains_key(source))
            .take(room)
            .collect();
        for source in fresh {
            let known = self.ticks.entry(source).or_default();
            push(known, &engine.explain(&source, now.ktime), &time);
        }
    }

    /// Oldest first.
    pub(super) fn of(&self, source: &Source) -> Vec<Note> {
        let known = self.ticks.get(source);
        known
            .map(|known| known.iter().cloned().collect())
            .unwrap_or_default()
    }
}

/// Silence is told by its first and its last tick: what led to a stage must not fade while it lasts.
fn push(known: &mut VecDeque<Note>, explanation: &Explanation, time: &str) {
    let reading = explanation.last;
    let silence = Signal::Silence.to_string();
    let goes_on = known
        .iter()
        .rev()
        .take(2)
        .all(|note| note.signal == silence);
    if known.len() > 1 && reading.signal == Signal::Silence && goes_on {
        known.pop_back();
    }
    known.push_back(Note {
        time: time.to_owned(),
        stage: explanation.stage.to_string(),
        severity: reading.severity,
        signal: reading.signal.to_string(),
        rate: reading.rate,
        trigger: reading.trigger,
        strikes: explanation.strikes,
    });
    while known.len() > TICKS {
        known.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Reading;
    use crate::model::Ktime;

    fn at(signal: Signal, tick: u32) -> (Explanation, String) {
        let last = Reading {
            severity: 1.0,
            signal,
            rate: 100.0,
            trigger: 50.0,
        };
        let explanation = Explanation {
            source: Source::UNSPECIFIED,
            stage: Stage::Block,
            hold: None,
            entered: Ktime::default(),
            ends: Ktime::default(),
            until: None,
            strikes: tick,
            up: 0,
            down: 0,
            unyielding: 0,
            gate: None,
            nat: 1,
            proven: false,
            ports: [0; 3],
            cause: last,
            last,
        };
        (explanation, tick.to_string())
    }

    #[test]
    fn silence_takes_no_loud_ticks_place() {
        let mut known = VecDeque::new();
        let loud = (0..3).map(|tick| at(Signal::Packets, tick));
        let silent = (3..100).map(|tick| at(Signal::Silence, tick));
        for (explanation, time) in loud.chain(silent) {
            push(&mut known, &explanation, &time);
        }
        let told: Vec<_> = known.iter().map(|note| note.time.as_str()).collect();
        assert_eq!(told, ["0", "1", "2", "3", "99"]);
        for tick in 100..200 {
            let (explanation, time) = at(Signal::Syns, tick);
            push(&mut known, &explanation, &time);
        }
        assert_eq!(known.len(), TICKS);
        assert_eq!(known[0].time, "180");
    }
}
