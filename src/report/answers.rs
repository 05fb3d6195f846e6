//! What a running IQ answers, as JSON (`--json`, stable) and as text. Rates are per second, or
//! over the time that the signal names; times RFC 3339 in UTC.

use serde::{Deserialize, Serialize};

use super::events::EventLine;
use super::table::Table;
use crate::engine::Signal;
use crate::model::{Source, Stage};
use crate::state::Record;

/// One line of the control socket.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    Status(Box<Status>),
    Why(Box<Why>),
    Held(Vec<HeldLine>),
    Events(Vec<EventLine>),
    /// Something was done; says what.
    Done(String),
    /// The operator asked for something that cannot be.
    Refused(String),
    /// The machine refused.
    Failed(String),
}

/// `kernloom iq status --json`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    pub version: String,
    pub pid: u32,
    pub profile: String,
    pub dry_run: bool,
    pub started: String,
    pub ticks: u64,
    /// `bootstrap-1`, `bootstrap-2`, `bootstrap-3`, `steady`, or `off`.
    pub phase: String,
    /// Seconds of traffic seen: the age of the bootstrap.
    pub observed_s: u64,
    /// Seconds of traffic until the next tuning; none when autotune is off.
    pub next_tuning_s: Option<u64>,
    /// Whether a source may be blocked now.
    pub may_block: bool,
    pub thresholds: Vec<Threshold>,
    /// Oldest first.
    pub history: Vec<RevisionLine>,
    /// Share of the last tick's sources that thresholds were learned from.
    pub clean_share: f64,
    pub sources: u64,
    pub held: HeldCount,
    /// Escalations of the last tick that would have hit too many proven sources.
    pub withheld: u64,
    /// Exempt sources and prefixes, whoever exempted them.
    pub exempt: u64,
    /// Of those, not in the data plane for want of room: a default limit and an enforced graph hold
    /// for them.
    #[serde(default)]
    pub exempt_no_room: u64,
    /// When this was answered.
    pub time: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct HeldCount {
    pub rate_soft: u64,
    pub rate_hard: u64,
    pub block: u64,
}

/// One source above OBSERVE.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HeldLine {
    pub source: Source,
    pub stage: Stage,
    /// What led there.
    pub signal: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Threshold {
    /// `pps`, `bps`, `syn`, `ports`, `half-open` or `refusals`.
    pub signal: String,
    /// 0: the signal is off.
    pub value: f64,
    /// Who set it: `profile NAME`, a file, `command line (--FLAG)`, `default`, or `learned`.
    pub origin: String,
    /// The line of the profile that it comes from, or started from.
    pub key: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RevisionLine {
    pub revision: u64,
    pub at: String,
    pub phase: String,
    pub pps: f64,
    pub bps: f64,
    pub syn: f64,
    pub ports: f64,
    /// Samples of packets per second that it comes from.
    pub samples: u64,
    pub clean_share: f64,
}

/// `kernloom iq why SOURCE --json`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Why {
    pub source: String,
    /// The source, prefix or everyone as which it is judged, where that is another: stage, times,
    /// strikes, cause, ticks and journal are of that one.
    #[serde(default)]
    pub part_of: Option<String>,
    /// As IQ sees it: `OBSERVE`, `RATE_SOFT`, `RATE_HARD` or `BLOCK`.
    pub stage: String,
    pub dry_run: bool,
    /// The policy entry that decides in the data plane now; none: nothing is enforced.
    pub policy: Option<Policy>,
    /// What the program said when it was asked; null where it was not.
    #[serde(default)]
    pub verdict: Option<LiveVerdict>,
    /// Who exempted it, and the entry that does.
    pub exempt: Option<String>,
    pub entered: Option<String>,
    /// Before this the stage is not left.
    pub ends: Option<String>,
    /// When the data plane lets go by itself.
    pub until: Option<String>,
    pub strikes: u32,
    /// Hosts behind the address: triggers and limits are multiplied by it.
    pub nat: u32,
    /// This host completed a handshake with it.
    pub proven: bool,
    /// Distinct ports within a minute, an hour and a day.
    pub ports: [u32; 3],
    /// What led to the stage.
    pub cause: Option<Note>,
    /// The last ticks, oldest first.
    pub ticks: Vec<Note>,
    pub thresholds: Vec<Threshold>,
    /// The last transitions of the journal, oldest first.
    pub journal: Vec<Record>,
    /// The command that would exempt it.
    pub exempt_with: String,
}

/// What the running program would do with a packet at this moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LiveVerdict {
    /// What it was asked about, as `tcp/443`: a packet that opens that.
    pub packet: String,
    /// `pass` or `drop`.
    pub verdict: String,
    /// A name `shield stats` shows too.
    pub reason: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Policy {
    pub source: String,
    pub action: String,
    pub owner: String,
    pub until: Option<String>,
}

/// What one tick measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Note {
    pub time: String,
    pub stage: String,
    pub severity: f64,
    pub signal: String,
    pub rate: f64,
    pub trigger: f64,
    pub strikes: u32,
}

fn tidy(value: f64) -> String {
    format!("{:.1}", value).trim_end_matches(".0").to_owned()
}

fn span(seconds: u64) -> String {
    crate::model::format_duration(std::time::Duration::from_secs(seconds))
}

fn thresholds(list: &[Threshold]) -> String {
    let mut table = Table::new(["SIGNAL", "THRESHOLD", "SET BY"]);
    for one in list.iter().filter(|one| one.value > 0.0) {
        let by = format!("{} ({})", one.origin, one.key);
        table.row([one.signal.clone(), tidy(one.value), by]);
    }
    table.render()
}

pub fn status_lines(status: &Status) -> String {
    let mode = if status.dry_run {
        "dry run"
    } else {
        "enforcing"
    };
    let mut text = format!(
        "iq {} (pid {}): profile {}, {mode}, since {}\n",
        status.version, status.pid, status.profile, status.started
    );
    let HeldCount {
        rate_soft,
        rate_hard,
        block,
    } = status.held;
    let no_room = match status.exempt_no_room {
        0 => String::new(),
        some => format!(", {some} of them without room in the data plane"),
    };
    text.push_str(&format!(
        "sources: {} in the last tick; held: {rate_soft} RATE_SOFT, {rate_hard} RATE_HARD, {block} BLOCK; \
         exempt entries: {}{no_room}\n",
        status.sources, status.exempt
    ));
    let next = status
        .next_tuning_s
        .map_or("autotune is off".to_owned(), |left| {
            format!("next tuning in {}", span(left))
        });
    text.push_str(&format!(
        "phase: {}, {} observed, {next}, clean share {:.3}{}\n",
        status.phase,
        span(status.observed_s),
        status.clean_share,
        if status.may_block {
            ""
        } else {
            "; nobody is blocked yet"
        }
    ));
    text.push_str(&thresholds(&status.thresholds));
    if !status.history.is_empty() {
        let mut table = Table::new([
            "REVISION", "AT", "PHASE", "PPS", "BPS", "SYN", "PORTS", "SAMPLES", "CLEAN",
        ]);
        for one in &status.history {
            table.row([
                one.revision.to_string(),
                one.at.clone(),
                one.phase.clone(),
                tidy(one.pps),
                tidy(one.bps),
                tidy(one.syn),
                tidy(one.ports),
                one.samples.to_string(),
                format!("{:.3}", one.clean_share),
            ]);
        }
        text.push_str(&table.render());
    }
    text
}

pub fn why_lines(why: &Why) -> String {
    let mut text = format!("{}: {}", why.source, why.stage);
    if let Some(whole) = &why.part_of {
        let how = if why.entered.is_some() {
            "held"
        } else {
            "counted"
        };
        text.push_str(&format!(", {how} as part of {whole}"));
    }
    if why.dry_run {
        text.push_str(" (dry run: iq enforces nothing)");
    }
    text.push('\n');
    match &why.policy {
        Some(policy) => text.push_str(&format!(
            "data plane: {} by the entry {} of {}, ends {}\n",
            policy.action,
            policy.source,
            policy.owner,
            policy.until.as_deref().unwrap_or("never")
        )),
        None => text.push_str("data plane: no entry; packets pass\n"),
    }
    if let Some(live) = &why.verdict {
        text.push_str(&format!(
            "live verdict: {} ({}) for a packet that opens {}\n",
            live.verdict, live.reason, live.packet
        ));
    }
    if let Some(exempt) = &why.exempt {
        text.push_str(&format!("exempt: {exempt}\n"));
    }
    text.push_str(&standing(why));
    if !why.ticks.is_empty() {
        text.push_str(&tick_table(&why.ticks));
    }
    why.journal
        .iter()
        .for_each(|record| text.push_str(&record_line(record)));
    text.push_str(&thresholds(&why.thresholds));
    if why.exempt.is_none() {
        text.push_str(&format!("to exempt it: {}\n", why.exempt_with));
    }
    text
}

fn standing(why: &Why) -> String {
    let mut text = String::new();
    if let (Some(entered), Some(ends)) = (&why.entered, &why.ends) {
        let until = why.until.as_deref().unwrap_or("-");
        let lets_go = if why.dry_run {
            "the kernel would let go"
        } else {
            "the kernel lets go"
        };
        text.push_str(&format!(
            "since {entered}, not left before {ends}; {lets_go} at {until}\n"
        ));
    }
    if let Some(cause) = &why.cause {
        text.push_str(&format!(
            "cause: {}, severity {:.2}\n",
            measured(&cause.signal, cause.rate, "against", cause.trigger),
            cause.severity
        ));
    }
    let [minute, hour, day] = why.ports;
    text.push_str(&format!(
        "strikes {}, hosts behind it {}, handshake {}, ports {minute} in a minute, {hour} in an \
         hour, {day} in a day\n",
        why.strikes,
        why.nat,
        if why.proven { "proven" } else { "not seen" }
    ));
    text
}

fn tick_table(ticks: &[Note]) -> String {
    let mut table = Table::new([
        "TICK", "STAGE", "SEVERITY", "SIGNAL", "RATE", "TRIGGER", "STRIKES",
    ]);
    for note in ticks {
        table.row([
            note.time.clone(),
            note.stage.clone(),
            format!("{:.2}", note.severity),
            note.signal.clone(),
            tidy(note.rate),
            tidy(note.trigger),
            note.strikes.to_string(),
        ]);
    }
    table.render()
}

fn record_line(record: &Record) -> String {
    format!(
        "{} {} -> {} ({}) {}, {}\n",
        record.time,
        record.from,
        record.to,
        record.kind,
        measured(&record.signal, record.rate, "of", record.trigger),
        record.hold
    )
}

fn measured(signal: &str, rate: f64, than: &str, trigger: f64) -> String {
    let per = Signal::per_of(signal);
    format!("{signal} {}{per} {than} {}{per}", tidy(rate), tidy(trigger))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_took_longer_than_a_second_is_told_over_its_time() {
        for (signal, told) in [
            ("ports", "ports 266/s of 20/s"),
            ("ports-1m", "ports-1m 266/m of 20/m"),
            ("ports-1h", "ports-1h 266/h of 20/h"),
            ("ports-24h", "ports-24h 266/d of 20/d"),
            ("of another version", "of another version 266/s of 20/s"),
        ] {
            assert_eq!(measured(signal, 266.0, "of", 20.0), told);
        }
    }

    #[test]
    fn what_is_held_as_part_of_more_says_so() {
        let why = |part_of: &str, entered: &str| -> String {
            let text = format!(
                r#"{{"source": "192.0.2.7", "part_of": {part_of}, "stage": "RATE_SOFT", "dry_run": false,
                "policy": null, "exempt": null, "entered": {entered}, "ends": null, "until": null,
                "strikes": 0, "nat": 1, "proven": false, "ports": [0, 0, 0], "cause": null,
                "ticks": [], "thresholds": [], "journal": [], "exempt_with": "x"}}"#
            );
            let lines = why_lines(&serde_json::from_str(&text).unwrap());
            lines.lines().next().unwrap_or_default().to_owned()
        };
        let since = r#""2026-11-23T12:25:57Z""#;
        let everyone = r#""::/0""#;
        assert_eq!(why("null", since), "192.0.2.7: RATE_SOFT");
        let held = "192.0.2.7: RATE_SOFT, held as part of ::/0";
        assert_eq!(why(everyone, since), held);
        let counted = "192.0.2.7: RATE_SOFT, counted as part of ::/0";
        assert_eq!(why(everyone, "null"), counted);
    }
}
