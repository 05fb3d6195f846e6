use std::collections::{HashMap, VecDeque};

use crate::engine::{Engine, Explanation};
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

fn push(known: &mut VecDeque<Note>, explanation: &Explanation, time: &str) {
    let reading = explanation.last;
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
