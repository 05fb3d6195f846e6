use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use crate::model::Ktime;

/// How long lines of one reason are counted together.
const WINDOW: Duration = Duration::from_secs(10);

/// Lets through so many lines of one reason per window, so that a flood of sources is no flood of
/// lines, and tells how many it held back.
pub(super) struct LogGate {
    most: u32,
    began: Ktime,
    seen: HashMap<String, u32>,
}

impl LogGate {
    pub(super) fn new(most: u32) -> Self {
        Self {
            most,
            began: Ktime::default(),
            seen: HashMap::new(),
        }
    }

    /// Whether one more line of this reason may be written.
    pub(super) fn admits(&mut self, reason: &str) -> bool {
        let seen = self.seen.entry(reason.to_owned()).or_default();
        *seen = seen.saturating_add(1);
        *seen <= self.most
    }

    /// Ends the window if it is over: reasons and how many of their lines were held back.
    pub(super) fn held_back(&mut self, now: Ktime) -> Vec<(String, u32)> {
        if now.since(self.began) < WINDOW {
            return Vec::new();
        }
        self.began = now;
        let most = self.most;
        let mut held_back: Vec<_> = self
            .seen
            .drain()
            .filter(|(_, seen)| *seen > most)
            .map(|(reason, seen)| (reason, seen - most))
            .collect();
        held_back.sort();
        held_back
    }
}

/// Says whether something is due to be told again. Holds what was told in one period, so that
/// the caller bounds it by how often it tells.
pub(super) struct Once<T> {
    period: Duration,
    told: HashMap<T, Ktime>,
}

impl<T: Eq + Hash> Once<T> {
    pub(super) fn per(period: Duration) -> Self {
        Self {
            period,
            told: HashMap::new(),
        }
    }

    pub(super) fn is_due(&self, what: &T, now: Ktime) -> bool {
        let recent = |at: &Ktime| now.since(*at) < self.period;
        !self.told.get(what).is_some_and(recent)
    }

    pub(super) fn told(&mut self, what: T, now: Ktime) {
        self.told.retain(|_, at| now.since(*at) < self.period);
        self.told.insert(what, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn w48_one_thing_is_told_once_in_a_period_and_forgotten_after_it() {
        let mut once = Once::per(Duration::from_secs(600));
        let at = Ktime::from_secs;
        assert!(once.is_due(&"a", at(100)));
        once.told("a", at(100));
        assert!(!once.is_due(&"a", at(100)) && !once.is_due(&"a", at(699)));
        assert!(once.is_due(&"b", at(101)));
        once.told("b", at(101));
        assert!(once.is_due(&"a", at(700)) && !once.is_due(&"b", at(700)));
        once.told("c", at(5_000));
        assert_eq!(once.told.len(), 1);
    }

    #[test]
    fn w48_a_flood_of_one_reason_is_counted_and_others_are_still_told() {
        let mut gate = LogGate::new(3);
        let at = Ktime::from_secs;
        assert!(gate.held_back(at(100)).is_empty());
        let told = (0..1_000).filter(|_| gate.admits("syn")).count();
        assert_eq!(told, 3);
        assert!(gate.admits("ports"));
        assert!(gate.held_back(at(109)).is_empty());
        assert_eq!(gate.held_back(at(110)), [("syn".to_owned(), 997)]);
        assert!(gate.admits("syn"));
    }
}
