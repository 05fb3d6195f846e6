//! The program's last events, kept for whoever asks: the ring they come from has one reader.

use std::collections::VecDeque;

use crate::dataplane::Event;
use crate::model::Moment;
use crate::report::EventLine;

/// Events kept; a scan of many hosts makes some dozens a second.
const MOST: usize = 1_000;

#[derive(Debug, Default)]
pub(super) struct Happened {
    kept: VecDeque<EventLine>,
    count: u64,
}

impl Happened {
    pub(super) fn note(&mut self, event: &Event, now: Moment) {
        self.count += 1;
        if self.kept.len() == MOST {
            self.kept.pop_front();
        }
        self.kept.push_back(EventLine::of(self.count, event, now));
    }

    /// Those after the one of this number, oldest first; all, if nothing has that number yet.
    pub(super) fn after(&self, number: u64) -> Vec<EventLine> {
        let from = if number > self.count { 0 } else { number };
        let later = |event: &&EventLine| event.number > from;
        self.kept.iter().filter(later).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataplane::What;
    use crate::model::Ktime;

    #[test]
    fn the_last_ones_are_kept_and_a_number_of_an_earlier_iq_shows_all() {
        let mut happened = Happened::default();
        let now = Moment {
            ktime: Ktime::from_secs(1),
            unix: std::time::Duration::from_secs(1_800_000_000),
        };
        let event = Event {
            time: Ktime::from_secs(1),
            source: "192.0.2.7".parse().unwrap(),
            what: What::Ports(40),
        };
        for _ in 0..MOST + 5 {
            happened.note(&event, now);
        }
        let numbers = |after| -> Vec<u64> {
            let lines = happened.after(after);
            lines.iter().map(|line| line.number).collect()
        };
        assert_eq!(numbers(0).len(), MOST);
        assert_eq!(numbers(0)[0], 6);
        assert_eq!(numbers(1_003), [1_004, 1_005]);
        assert!(numbers(1_005).is_empty());
        assert_eq!(numbers(7_000).len(), MOST);
    }
}
