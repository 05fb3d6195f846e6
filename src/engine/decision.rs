use std::fmt;

use super::severity::{Score, Signal};
use crate::model::{Hold, Ktime, Source, Stage};

/// Which way a decision goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// To a harsher stage.
    Escalate,
    /// Same stage, longer life, because the source has not calmed down.
    Renew,
    /// To a milder stage.
    Release,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Escalate => "escalate",
            Self::Renew => "renew",
            Self::Release => "release",
        })
    }
}

/// The numbers behind a decision.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Why {
    pub severity: f64,
    /// What decided: the signal farthest above its trigger, or the drops of a limit.
    pub signal: Signal,
    /// Per second, like `trigger`.
    pub rate: f64,
    pub trigger: f64,
    /// Strikes after the decision.
    pub strikes: u32,
    /// Hosts behind the address: triggers and limits are multiplied by it.
    pub nat: u32,
    /// This host completed a handshake with it.
    pub proven: bool,
    /// The source is exempt; its traffic did not matter.
    pub exempt: bool,
}

impl Why {
    pub(super) const fn of(score: &Score, strikes: u32) -> Self {
        Self {
            severity: score.severity,
            signal: score.signal,
            rate: score.rate,
            trigger: score.trigger,
            strikes,
            nat: score.hosts,
            proven: score.proven,
            exempt: false,
        }
    }
}

impl fmt::Display for Why {
    /// `severity=3.00 signal=syn rate=5012/s trigger=250/s strikes=6 nat=1`, then ` proven` and
    /// ` exempt` if it is. Signals over a longer time carry it instead of `/s`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let per = self.signal.per();
        write!(
            f,
            "severity={:.2} signal={} rate={}{per} trigger={}{per} strikes={} nat={}",
            self.severity,
            self.signal,
            tidy(self.rate),
            tidy(self.trigger),
            self.strikes,
            self.nat
        )?;
        if self.proven {
            f.write_str(" proven")?;
        }
        if self.exempt {
            f.write_str(" exempt")?;
        }
        Ok(())
    }
}

/// Rounded as far as a reader cares: whole above 10, else one place if it is not whole.
fn tidy(value: f64) -> f64 {
    if value >= 10.0 {
        value.round()
    } else {
        (value * 10.0).round() / 10.0
    }
}

/// What is to become of one source.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    pub source: Source,
    pub from: Stage,
    pub to: Stage,
    pub kind: Kind,
    /// What the data plane is to do; `None` lets the source go, at OBSERVE only.
    pub hold: Option<Hold>,
    /// When the kernel's entry must end by itself if nobody renews or releases it; set with `hold`.
    pub until: Option<Ktime>,
    pub why: Why,
}
