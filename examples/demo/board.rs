//! What became of each attack: the facts behind the final table and the verdict.

use std::time::{Duration, Instant};

use super::lab::{Attack, Family, Lab, Line, Result, Stage, Transition};
use super::story::{SCENES, Scene};

/// An attack must be limited this soon after it began.
const PROMISE: Duration = Duration::from_secs(3);

/// One attack and what became of it.
pub(crate) struct Row {
    pub(crate) scene: Scene,
    source: String,
    pub(crate) attack: Option<Attack>,
    pub(crate) told_to_stop: bool,
    pub(crate) over: bool,
    pub(crate) sent: Option<u64>,
    noticed: Option<Instant>,
    limited: Option<Instant>,
    blocked: Option<Instant>,
    released: Option<Instant>,
}

/// All attacks, in the order of the story.
pub(crate) struct Board {
    rows: Vec<Row>,
}

impl Board {
    pub(crate) fn new(lab: &Lab) -> Result<Self> {
        let row = |scene: Scene| {
            let source = lab.source(scene.client, scene.assault.family())?;
            Ok(Row::new(scene, source))
        };
        Ok(Self {
            rows: SCENES.into_iter().map(row).collect::<Result<_>>()?,
        })
    }

    pub(crate) fn rows_mut(&mut self) -> &mut [Row] {
        &mut self.rows
    }

    /// Any line that names a source shows that kernloom noticed it.
    pub(crate) fn notice(&mut self, line: &Line) {
        for row in &mut self.rows {
            let mut words = line.text.split([' ', ',', ';']);
            if row.noticed.is_none()
                && words.any(|word| word.strip_prefix("source=") == Some(&row.source))
            {
                row.noticed = Some(line.at);
            }
        }
    }

    /// Records a move of an attacker; `None` if the source is not one.
    pub(crate) fn record(&mut self, step: &Transition) -> Option<&Row> {
        let row = self.rows.iter_mut().find(|row| row.source == step.source)?;
        if step.to >= Stage::RateSoft {
            row.limited.get_or_insert(step.at);
            row.released = None;
        }
        if step.to == Stage::Block {
            row.blocked.get_or_insert(step.at);
        }
        if step.releases() {
            row.released = Some(step.at);
        }
        Some(row)
    }

    /// Whether every attack is over and none is held any more.
    pub(crate) fn all_settled(&self) -> bool {
        self.rows
            .iter()
            .all(|row| row.over && row.released.is_some())
    }

    /// Promises not kept, one sentence each.
    pub(crate) fn broken_promises(&self) -> Vec<String> {
        self.rows.iter().filter_map(Row::broken_promise).collect()
    }

    pub(crate) fn table(&self) -> String {
        let mut table = format!(
            "{:<16} {:<15} {:>8} {:>9} {:>9} {:>9} {:>9}\n",
            "attack", "source", "packets", "noticed", "limited", "blocked", "released"
        );
        for row in &self.rows {
            let sent = row
                .sent
                .map_or_else(|| "?".to_owned(), |sent| sent.to_string());
            let [noticed, limited, blocked, released] =
                [row.noticed, row.limited, row.blocked, row.released].map(|at| row.cell(at));
            table += &format!(
                "{:<16} {:<15} {sent:>8} {noticed:>9} {limited:>9} {blocked:>9} {released:>9}\n",
                row.title(),
                row.source,
            );
        }
        table + "Times are counted from the start of the attack's tool.\n"
    }
}

impl Row {
    fn new(scene: Scene, source: String) -> Self {
        Self {
            scene,
            source,
            attack: None,
            told_to_stop: false,
            over: false,
            sent: None,
            noticed: None,
            limited: None,
            blocked: None,
            released: None,
        }
    }

    /// For the timeline: what and who.
    pub(crate) fn name(&self) -> String {
        format!("{} from {}", self.title(), self.source)
    }

    /// How old the attack was at an instant.
    pub(crate) fn age_at(&self, at: Instant) -> Option<Duration> {
        self.attack
            .as_ref()
            .map(|attack| at.saturating_duration_since(attack.began))
    }

    fn title(&self) -> String {
        let family = match self.scene.assault.family() {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        };
        format!("{family} {}", self.scene.title)
    }

    fn cell(&self, at: Option<Instant>) -> String {
        at.and_then(|at| self.age_at(at)).map_or_else(
            || "-".to_owned(),
            |age| format!("{:.2} s", age.as_secs_f64()),
        )
    }

    fn broken_promise(&self) -> Option<String> {
        let promise = PROMISE.as_secs();
        match self.limited.and_then(|at| self.age_at(at)) {
            None => Some(format!("the {} was never limited", self.name())),
            Some(age) if age > PROMISE => {
                let late = age.as_secs_f64();
                Some(format!(
                    "the {} was limited after {late:.1} s, not {promise} s",
                    self.name()
                ))
            }
            Some(_) => None,
        }
    }
}
