//! One rule of policy, and how it is written in the maps.

use std::num::NonZeroU32;

use super::abi::{kl_action, kl_owner, kl_policy, kl_prefix, kl_trie_key};
use crate::model::{ByteLimit, Hold, Ktime, LimitScope, RateLimit, Source};

pub(super) const SECOND_NS: u64 = 1_000_000_000;
/// Of `kl_policy::interval_ns` where a limit counts bytes (KL_BYTE_SHIFT).
const BYTE_SHIFT: u32 = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Allow,
    Deny,
    Limit { limit: RateLimit, scope: LimitScope },
    LimitBytes { limit: ByteLimit, scope: LimitScope },
}

impl Action {
    pub const fn is_limit(&self) -> bool {
        matches!(self, Self::Limit { .. } | Self::LimitBytes { .. })
    }
}

impl From<Hold> for Action {
    fn from(hold: Hold) -> Self {
        match hold {
            Hold::Deny => Self::Deny,
            Hold::Limit { limit, scope } => Self::Limit { limit, scope },
        }
    }
}

/// Who made an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    Operator,
    Iq,
    /// An imported list.
    Feed,
    /// The program itself, for a source above the default limit.
    Ceiling,
    /// Protects the way in.
    Management,
}

impl Owner {
    pub const ALL: [Self; 5] = [
        Self::Operator,
        Self::Iq,
        Self::Feed,
        Self::Ceiling,
        Self::Management,
    ];

    const fn number(self) -> u32 {
        match self {
            Self::Operator => kl_owner::KL_OWNER_OPERATOR.0,
            Self::Iq => kl_owner::KL_OWNER_IQ.0,
            Self::Feed => kl_owner::KL_OWNER_FEED.0,
            Self::Ceiling => kl_owner::KL_OWNER_CEILING.0,
            Self::Management => kl_owner::KL_OWNER_MANAGEMENT.0,
        }
    }

    /// True of rules nobody on this host wrote: they never overrule an allow.
    pub const fn is_automatic(self) -> bool {
        matches!(self, Self::Iq | Self::Feed | Self::Ceiling)
    }
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Operator => "operator",
            Self::Iq => "iq",
            Self::Feed => "feed",
            Self::Ceiling => "ceiling",
            Self::Management => "management",
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    pub action: Action,
    pub owner: Owner,
    /// `None`: until removed.
    pub expires: Option<Ktime>,
}

/// Key of the text that says why an entry was made; the default is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct NoteId(pub(super) u16);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    pub source: Source,
    pub rule: Rule,
    pub note: NoteId,
}

impl Entry {
    pub fn is_live(&self, now: Ktime) -> bool {
        self.rule.expires.is_none_or(|end| now < end)
    }

    pub(super) fn of(source: Source, value: &kl_policy) -> Option<Self> {
        rule_of(value).map(|rule| Self {
            source,
            rule,
            note: NoteId(value.note),
        })
    }
}

fn words(octets: [u8; 16]) -> [u32; 4] {
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(octets.as_chunks::<4>().0) {
        *word = u32::from_ne_bytes(*bytes);
    }
    words
}

pub(super) fn key_of(source: &Source) -> kl_prefix {
    kl_prefix {
        addr: words(source.octets()),
        bits: source.bits().into(),
    }
}

pub(super) fn trie_key_of(source: &Source) -> kl_trie_key {
    kl_trie_key {
        bits: source.bits().into(),
        addr: words(source.octets()),
    }
}

pub(super) fn source_of(key: &kl_prefix) -> Source {
    let mut octets = [0; 16];
    for (to, word) in octets.chunks_exact_mut(4).zip(key.addr) {
        to.copy_from_slice(&word.to_ne_bytes());
    }
    Source::containing(octets, u8::try_from(key.bits).unwrap_or(128))
}

/// A limit as the program counts it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Gcra {
    pub(super) interval_ns: u64,
    pub(super) tolerance_ns: u64,
    pub(super) rate: u32,
}

fn gcra_of(action: &Action) -> Gcra {
    match action {
        Action::Allow | Action::Deny => Gcra::default(),
        Action::Limit { limit, .. } => {
            let interval_ns = SECOND_NS.div_ceil(u64::from(limit.pps.get()));
            Gcra {
                interval_ns,
                tolerance_ns: (u64::from(limit.burst.get()) - 1).saturating_mul(interval_ns),
                rate: limit.pps.get(),
            }
        }
        Action::LimitBytes { limit, .. } => {
            let rate = u64::from(limit.bytes.get());
            let ahead = u128::from(limit.burst.get() - 1) * u128::from(SECOND_NS);
            // The nearest nanosecond, so that the burst reads back as it was given.
            let tolerance = (ahead + u128::from(rate / 2)) / u128::from(rate);
            Gcra {
                interval_ns: (SECOND_NS << BYTE_SHIFT).div_ceil(rate),
                tolerance_ns: u64::try_from(tolerance).unwrap_or(u64::MAX),
                rate: limit.bytes.get(),
            }
        }
    }
}

const fn action_number(action: &Action) -> kl_action {
    use LimitScope::{All, New};
    match action {
        Action::Allow => kl_action::KL_ACTION_ALLOW,
        Action::Deny => kl_action::KL_ACTION_DENY,
        Action::Limit { scope: New, .. } => kl_action::KL_ACTION_LIMIT_NEW,
        Action::Limit { scope: All, .. } => kl_action::KL_ACTION_LIMIT_ALL,
        Action::LimitBytes { scope: New, .. } => kl_action::KL_ACTION_LIMIT_NEW_BYTES,
        Action::LimitBytes { scope: All, .. } => kl_action::KL_ACTION_LIMIT_ALL_BYTES,
    }
}

/// The number an action has in the maps, and its limit.
pub(super) fn numbers_of(action: &Action) -> (u32, Gcra) {
    (action_number(action).0, gcra_of(action))
}

pub(super) fn value_of(rule: &Rule, note: NoteId, longer: u32) -> kl_policy {
    let (action, gcra) = numbers_of(&rule.action);
    kl_policy {
        // An end in the first nanosecond after boot would read as "never".
        expires_ns: rule.expires.map_or(0, |end| end.as_nanos().max(1)),
        interval_ns: gcra.interval_ns,
        tolerance_ns: gcra.tolerance_ns,
        longer,
        rate: gcra.rate,
        action: u8::try_from(action).unwrap_or_default(),
        owner: u8::try_from(rule.owner.number()).unwrap_or_default(),
        note: note.0,
        ..kl_policy::default()
    }
}

fn packet_limit(value: &Gcra) -> Option<RateLimit> {
    let burst = u32::try_from(value.tolerance_ns / value.interval_ns.max(1) + 1).ok()?;
    Some(RateLimit {
        pps: NonZeroU32::new(value.rate)?,
        burst: NonZeroU32::new(burst)?,
    })
}

fn byte_limit(value: &Gcra) -> Option<ByteLimit> {
    let ahead = u128::from(value.tolerance_ns) * u128::from(value.rate);
    let burst = (ahead + u128::from(SECOND_NS / 2)) / u128::from(SECOND_NS) + 1;
    Some(ByteLimit {
        bytes: NonZeroU32::new(value.rate)?,
        burst: NonZeroU32::new(u32::try_from(burst).ok()?)?,
    })
}

/// `None` for a number that is no action.
pub(super) fn action_of(number: u32, gcra: &Gcra) -> Option<Action> {
    let packets = |scope| packet_limit(gcra).map(|limit| Action::Limit { limit, scope });
    let bytes = |scope| byte_limit(gcra).map(|limit| Action::LimitBytes { limit, scope });
    match kl_action(number) {
        kl_action::KL_ACTION_ALLOW => Some(Action::Allow),
        kl_action::KL_ACTION_DENY => Some(Action::Deny),
        kl_action::KL_ACTION_LIMIT_NEW => packets(LimitScope::New),
        kl_action::KL_ACTION_LIMIT_ALL => packets(LimitScope::All),
        kl_action::KL_ACTION_LIMIT_NEW_BYTES => bytes(LimitScope::New),
        kl_action::KL_ACTION_LIMIT_ALL_BYTES => bytes(LimitScope::All),
        _ => None,
    }
}

/// Of the list that is being imported, or was when that was cut off.
pub(super) fn is_imported(value: &kl_policy) -> bool {
    u32::from(value.owner) & kl_owner::KL_OWNER_IMPORTED.0 != 0
}

/// The same value with that mark, or without.
pub(super) fn imported(value: kl_policy, on: bool) -> kl_policy {
    let mark = u8::try_from(kl_owner::KL_OWNER_IMPORTED.0).unwrap_or_default();
    kl_policy {
        owner: (value.owner & !mark) | if on { mark } else { 0 },
        ..value
    }
}

/// `None` for an entry that only marks longer rules.
pub(super) fn rule_of(value: &kl_policy) -> Option<Rule> {
    let gcra = Gcra {
        interval_ns: value.interval_ns,
        tolerance_ns: value.tolerance_ns,
        rate: value.rate,
    };
    let number = u32::from(value.owner) & !kl_owner::KL_OWNER_IMPORTED.0;
    Some(Rule {
        action: action_of(value.action.into(), &gcra)?,
        owner: Owner::ALL
            .into_iter()
            .find(|owner| owner.number() == number)
            .unwrap_or(Owner::Operator),
        expires: (value.expires_ns != 0).then(|| Ktime::from_nanos(value.expires_ns)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_limits_read_back_as_they_were_given() {
        for (bytes, burst) in [
            (1, 1),
            (1, 1_500),
            (125_000, 1),
            (1_250_000, 1_250_000),
            (999_999_937, 64_000),
        ] {
            let limit = ByteLimit {
                bytes: NonZeroU32::new(bytes).unwrap(),
                burst: NonZeroU32::new(burst).unwrap(),
            };
            let rule = Rule {
                action: Action::LimitBytes {
                    limit,
                    scope: LimitScope::All,
                },
                owner: Owner::Feed,
                expires: None,
            };
            assert_eq!(rule_of(&value_of(&rule, NoteId(0), 0)), Some(rule));
        }
    }
}
