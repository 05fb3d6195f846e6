use serde::{Deserialize, Serialize};

use crate::autotune::TunerState;
use crate::engine::EngineState;
use crate::exempt::By;
use crate::model::{Ktime, Moment, Source, Wall};

/// What `state.json` holds. Unknown keys are kept out: a newer binary's state has a newer version.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    pub written: Written,
    /// The profile that was gone by.
    pub profile: String,
    /// Whether what `engine` holds was only printed.
    pub dry_run: bool,
    /// Who is held, why and until when.
    pub engine: EngineState,
    /// Thresholds, their history and the samples they come from.
    pub autotune: Option<TunerState>,
    /// By `iq exempt`.
    pub exemptions: Vec<Exemption>,
    /// Entries of the feedback file, and when each was first seen.
    pub feedback: Vec<FirstSeen>,
    /// Policy that operators entered by hand, for after a reboot.
    pub operators: Vec<OperatorEntry>,
    /// Only allowed sources pass, for good; a lease that nobody confirmed is not kept.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_only: bool,
    /// The default limit of sources without a rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ceiling: Option<OperatorAction>,
}

/// When, on both clocks, and in which boot.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Written {
    /// `/proc/sys/kernel/random/boot_id`
    pub boot: String,
    /// Milliseconds since 1970.
    pub unix_ms: u64,
    /// Nanoseconds of the kernel's monotonic clock.
    pub ktime_ns: u64,
}

impl Written {
    pub fn at(boot: &str, now: Moment) -> Self {
        Self {
            boot: boot.to_owned(),
            unix_ms: now.unix_ms(now.ktime),
            ktime_ns: now.ktime.as_nanos(),
        }
    }

    /// The moment by which times in this state are to be read. In the boot that wrote it the
    /// kernel's clock tells, whatever became of the time of day since; after a reboot only the
    /// time of day can.
    pub fn reading(&self, boot: &str, now: Moment) -> Moment {
        if self.boot != boot {
            return now;
        }
        let unix = std::time::Duration::from_millis(self.unix_ms);
        Moment {
            ktime: Ktime::from_nanos(self.ktime_ns),
            unix,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exemption {
    pub source: Source,
    pub until: Wall,
    pub by: By,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FirstSeen {
    pub key: String,
    pub first: Wall,
}

/// A `shield` entry in the words of the command line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OperatorEntry {
    pub source: Source,
    pub action: OperatorAction,
    /// An address the host is managed from.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub management: bool,
    /// Milliseconds since 1970; `None`: until removed.
    pub until_ms: Option<u64>,
    /// Why, in the operator's words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OperatorAction {
    Allow,
    Deny,
    LimitNew { pps: u32, burst: u32 },
    LimitAll { pps: u32, burst: u32 },
    LimitBytesNew { bytes: u32, burst: u32 },
    LimitBytesAll { bytes: u32, burst: u32 },
}
