//! What the screen shows and what a key does. No terminal, no clock.

use std::cmp::Ordering;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::rows::Row;
use crate::model::Source;

/// Windows that are remembered of a source.
pub(super) const HISTORY: usize = 120;

/// Sources whose history is kept; beyond it the quiet ones are forgotten.
const MOST_HISTORIES: usize = 10_000;

/// A key, whichever library read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    Char(char),
    Up,
    Down,
    PageUp,
    PageDown,
    Home,
    End,
    Enter,
    Escape,
    Backspace,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SortKey {
    Packets,
    Bytes,
    Syns,
    Drops,
    Ports,
    /// Harshest first.
    Stage,
}

impl SortKey {
    pub const ALL: [Self; 6] = [
        Self::Packets,
        Self::Bytes,
        Self::Syns,
        Self::Drops,
        Self::Ports,
        Self::Stage,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Packets => "packets",
            Self::Bytes => "bytes",
            Self::Syns => "syns",
            Self::Drops => "drops",
            Self::Ports => "ports",
            Self::Stage => "stage",
        }
    }

    /// Most first; equals by source, so that rows stand still. Who is at one stage, by packets.
    pub fn compare(self, a: &Row, b: &Row) -> Ordering {
        let by = |row: &Row| match self {
            Self::Packets => row.packets,
            Self::Bytes => row.bytes,
            Self::Syns => row.syns,
            Self::Drops => row.drops,
            Self::Ports => f64::from(row.ports),
            Self::Stage => 0.0,
        };
        let stage = |row: &Row| row.held.as_ref().map(|held| held.stage);
        let at_stage = if self == Self::Stage {
            stage(b)
                .cmp(&stage(a))
                .then(b.packets.total_cmp(&a.packets))
        } else {
            Ordering::Equal
        };
        at_stage
            .then(by(b).total_cmp(&by(a)))
            .then(a.source.cmp(&b.source))
    }
}

/// What can be done to a source from here. All of it is the operator's and ends after an hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    Deny,
    Limit,
    Allow,
    /// Takes the operator's own entry away.
    Undo,
}

impl Deed {
    /// How long what is entered here lasts.
    pub const LASTS: Duration = Duration::from_secs(3600);
    /// Packets per second of a limit entered here.
    pub const PPS: u32 = 100;

    /// The command that does the same.
    pub fn command(self, source: &Source) -> String {
        match self {
            Self::Deny => format!("kernloom shield deny add {source} --ttl 1h"),
            Self::Limit => {
                format!(
                    "kernloom shield limit set {source} --pps {} --ttl 1h",
                    Self::PPS
                )
            }
            Self::Allow => format!("kernloom shield allow add {source} --ttl 1h"),
            Self::Undo => format!("kernloom shield deny|limit|allow del {source}"),
        }
    }
}

/// What the world is to do after a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    Quit,
    Do(Deed, Source),
}

/// A source's verdict became another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Windows since the start.
    pub at: u64,
    pub from: String,
    pub to: String,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Past {
    pub(super) packets: VecDeque<f64>,
    pub(super) drops: VecDeque<f64>,
    pub(super) changes: VecDeque<Change>,
    /// What was true at the last window.
    state: String,
    seen: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Mode {
    Table,
    /// The filter is being typed.
    Filter,
    Help,
    Source(Source),
    /// A deed waits for y; what was shown before is shown behind it.
    Confirm(Deed, Source, Option<Source>),
}

pub struct App {
    pub(super) rows: Vec<Row>,
    pub(super) past: BTreeMap<Source, Past>,
    pub(super) windows: u64,
    pub(super) sort: SortKey,
    pub(super) filter: String,
    pub(super) paused: bool,
    pub(super) mode: Mode,
    pub(super) selected: Option<Source>,
    /// What IQ says of the source looked at.
    pub(super) why: Vec<String>,
    /// The answer to the last deed.
    pub(super) message: String,
    /// First row of the table on the screen, first line of a source's page.
    pub(super) scroll: usize,
}

impl App {
    pub fn new(sort: SortKey) -> Self {
        Self {
            rows: Vec::new(),
            past: BTreeMap::new(),
            windows: 0,
            sort,
            filter: String::new(),
            paused: false,
            mode: Mode::Table,
            selected: None,
            why: Vec::new(),
            message: String::new(),
            scroll: 0,
        }
    }

    /// Takes in a window. History goes on while the screen is paused.
    pub fn take(&mut self, rows: Vec<Row>) {
        self.windows += 1;
        for row in &rows {
            self.remember(row);
        }
        self.forget();
        if !self.paused {
            self.rows = rows;
        }
    }

    fn remember(&mut self, row: &Row) {
        let past = self.past.entry(row.source).or_default();
        let state = match &row.held {
            Some(held) => format!("{} {}", held.stage, row.action()),
            None => row.action().to_owned(),
        };
        // Windows in which it was not there at all were silent ones.
        let fresh = past.seen == 0;
        let missed = if fresh {
            0
        } else {
            self.windows - past.seen - 1
        };
        for _ in 0..missed.min(HISTORY as u64) {
            push(&mut past.packets, 0.0);
            push(&mut past.drops, 0.0);
        }
        push(&mut past.packets, row.packets);
        push(&mut past.drops, row.drops);
        past.seen = self.windows;
        if !fresh && past.state != state {
            push(
                &mut past.changes,
                Change {
                    at: self.windows,
                    from: past.state.clone(),
                    to: state.clone(),
                },
            );
        }
        past.state = state;
    }

    fn forget(&mut self) {
        let now = self.windows;
        let shown = self.looked_at();
        if self.past.len() > MOST_HISTORIES {
            self.past
                .retain(|source, past| past.seen == now || Some(*source) == shown);
        }
    }

    /// The source whose page is open.
    pub fn looked_at(&self) -> Option<Source> {
        match self.mode {
            Mode::Source(source) | Mode::Confirm(_, _, Some(source)) => Some(source),
            Mode::Table | Mode::Filter | Mode::Help | Mode::Confirm(_, _, None) => None,
        }
    }

    /// What IQ says of [`Self::looked_at`].
    pub fn tell_why(&mut self, lines: Vec<String>) {
        self.why = lines;
    }

    pub fn say(&mut self, message: String) {
        self.message = message;
    }

    /// The rows that pass the filter, sorted.
    pub fn shown(&self) -> Vec<&Row> {
        let filter = self.filter.to_lowercase();
        let matches = |row: &&Row| {
            let held = row.held.as_ref().map(|held| held.stage.to_string());
            let held = held.unwrap_or_default().to_lowercase();
            filter.split_whitespace().all(|word| {
                row.source.to_string().contains(word)
                    || row.action().contains(word)
                    || row.reason().contains(word)
                    || held.contains(word)
            })
        };
        let mut rows: Vec<&Row> = self.rows.iter().filter(matches).collect();
        rows.sort_by(|a, b| self.sort.compare(a, b));
        rows
    }

    /// Where the selected source stands among `shown`; the first row if it is gone.
    pub(super) fn position(&self, shown: &[&Row]) -> usize {
        let selected = |row: &&Row| Some(row.source) == self.selected;
        shown.iter().position(selected).unwrap_or(0)
    }

    pub fn key(&mut self, key: Key) -> Option<Command> {
        self.message.clear();
        match self.mode.clone() {
            Mode::Table => self.table_key(key),
            Mode::Filter => {
                self.filter_key(key);
                None
            }
            Mode::Help => {
                self.mode = Mode::Table;
                None
            }
            Mode::Source(source) => self.source_key(key, source),
            Mode::Confirm(deed, source, behind) => {
                self.mode = behind.map_or(Mode::Table, Mode::Source);
                if matches!(key, Key::Char('y' | 'Y')) {
                    return Some(Command::Do(deed, source));
                }
                self.message = "nothing was changed".to_owned();
                None
            }
        }
    }

    fn table_key(&mut self, key: Key) -> Option<Command> {
        match key {
            Key::Char('q') => return Some(Command::Quit),
            Key::Char('?' | 'h') => self.mode = Mode::Help,
            Key::Char('p' | ' ') => self.paused = !self.paused,
            Key::Char('/') => self.mode = Mode::Filter,
            Key::Char('s') => self.next_sort(),
            Key::Escape => self.filter.clear(),
            Key::Up | Key::Char('k') => self.step(-1),
            Key::Down | Key::Char('j') => self.step(1),
            Key::PageUp => self.step(-10),
            Key::PageDown => self.step(10),
            Key::Home => self.step(isize::MIN),
            Key::End => self.step(isize::MAX),
            Key::Enter => {
                if let Some(source) = self.under_cursor() {
                    self.selected = Some(source);
                    self.why.clear();
                    self.scroll = 0;
                    self.mode = Mode::Source(source);
                }
            }
            Key::Char(c) => self.ask(c, self.under_cursor()),
            Key::Backspace => {}
        }
        None
    }

    fn source_key(&mut self, key: Key, source: Source) -> Option<Command> {
        match key {
            Key::Char('q') => return Some(Command::Quit),
            Key::Escape | Key::Enter | Key::Backspace => {
                self.mode = Mode::Table;
                self.scroll = 0;
            }
            Key::Char('p' | ' ') => self.paused = !self.paused,
            Key::Up | Key::Char('k') => self.scroll = self.scroll.saturating_sub(1),
            Key::Down | Key::Char('j') => self.scroll += 1,
            Key::PageUp => self.scroll = self.scroll.saturating_sub(10),
            Key::PageDown => self.scroll += 10,
            Key::Home => self.scroll = 0,
            Key::Char(c) => self.ask(c, Some(source)),
            Key::End => {}
        }
        None
    }

    fn filter_key(&mut self, key: Key) {
        match key {
            Key::Char(c) => self.filter.push(c),
            Key::Backspace => drop(self.filter.pop()),
            Key::Escape => {
                self.filter.clear();
                self.mode = Mode::Table;
            }
            Key::Enter => self.mode = Mode::Table,
            Key::Up | Key::Down | Key::PageUp | Key::PageDown | Key::Home | Key::End => {}
        }
    }

    fn ask(&mut self, c: char, source: Option<Source>) {
        let deed = match c {
            'd' => Deed::Deny,
            'l' => Deed::Limit,
            'a' => Deed::Allow,
            'x' => Deed::Undo,
            _ => return,
        };
        if let Some(source) = source {
            self.mode = Mode::Confirm(deed, source, self.looked_at());
        }
    }

    fn next_sort(&mut self) {
        let all = SortKey::ALL;
        let at = all.iter().position(|key| *key == self.sort).unwrap_or(0);
        self.sort = all[(at + 1) % all.len()];
    }

    fn under_cursor(&self) -> Option<Source> {
        let shown = self.shown();
        shown.get(self.position(&shown)).map(|row| row.source)
    }

    fn step(&mut self, by: isize) {
        let shown = self.shown();
        let last = shown.len().saturating_sub(1);
        let at = self.position(&shown).saturating_add_signed(by).min(last);
        self.selected = shown.get(at).map(|row| row.source);
    }
}

fn push<T>(list: &mut VecDeque<T>, value: T) {
    if list.len() == HISTORY {
        list.pop_front();
    }
    list.push_back(value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataplane::{Action, Owner};
    use crate::top::Verdict;

    fn row(source: &str, packets: f64, drops: f64) -> Row {
        Row {
            source: source.parse().unwrap(),
            packets,
            bytes: 60.0 * packets,
            syns: 0.0,
            drops,
            ports: 1,
            stacks: 1,
            verdict: None,
            held: None,
        }
    }

    fn app() -> App {
        let mut app = App::new(SortKey::Packets);
        app.take(vec![
            row("192.0.2.1", 10.0, 0.0),
            row("192.0.2.2", 30.0, 5.0),
            row("2001:db8::/64", 20.0, 9.0),
        ]);
        app
    }

    fn order(app: &App) -> Vec<String> {
        app.shown()
            .iter()
            .map(|row| row.source.to_string())
            .collect()
    }

    fn press(app: &mut App, keys: &str) -> Option<Command> {
        keys.chars().fold(None, |_, c| app.key(Key::Char(c)))
    }

    #[test]
    fn sorting_goes_round_and_the_selection_stays_with_its_source() {
        let mut app = app();
        assert_eq!(order(&app), ["192.0.2.2", "2001:db8::/64", "192.0.2.1"]);
        app.key(Key::Down);
        assert_eq!(app.selected, Some("2001:db8::/64".parse().unwrap()));
        press(&mut app, "sss");
        assert_eq!(app.sort, SortKey::Drops);
        assert_eq!(order(&app), ["2001:db8::/64", "192.0.2.2", "192.0.2.1"]);
        assert_eq!(app.position(&app.shown()), 0);
        app.key(Key::End);
        assert_eq!(app.selected, Some("192.0.2.1".parse().unwrap()));
        app.key(Key::PageUp);
        assert_eq!(app.selected, Some("2001:db8::/64".parse().unwrap()));
    }

    #[test]
    fn the_filter_is_words_that_must_all_fit() {
        let mut app = app();
        press(&mut app, "/192 pass");
        assert_eq!(order(&app), ["192.0.2.2", "192.0.2.1"]);
        app.key(Key::Enter);
        assert_eq!(app.mode, Mode::Table);
        press(&mut app, "/x");
        assert_eq!(order(&app), Vec::<String>::new());
        // With nothing under the cursor there is nothing to open or to do.
        app.key(Key::Enter);
        assert_eq!(app.key(Key::Enter), None);
        assert_eq!(press(&mut app, "d"), None);
        app.key(Key::Escape);
        assert_eq!(order(&app).len(), 3);
    }

    #[test]
    fn a_deed_is_done_after_y_and_after_nothing_else() {
        let mut app = app();
        let loudest = "192.0.2.2".parse().unwrap();
        assert_eq!(press(&mut app, "dn"), None);
        assert_eq!(app.message, "nothing was changed");
        assert_eq!(press(&mut app, "d"), None);
        assert_eq!(app.key(Key::Enter), None);
        assert_eq!(
            press(&mut app, "ly"),
            Some(Command::Do(Deed::Limit, loudest))
        );
        app.key(Key::Enter);
        assert_eq!(app.looked_at(), Some(loudest));
        assert_eq!(
            press(&mut app, "ay"),
            Some(Command::Do(Deed::Allow, loudest))
        );
        assert_eq!(app.looked_at(), Some(loudest));
        assert_eq!(press(&mut app, "q"), Some(Command::Quit));
    }

    #[test]
    fn a_pause_stops_the_screen_but_not_the_memory() {
        let mut app = app();
        press(&mut app, "p");
        app.take(vec![row("192.0.2.1", 99.0, 0.0)]);
        assert_eq!(order(&app).len(), 3);
        let source = "192.0.2.1".parse().unwrap();
        assert_eq!(app.past[&source].packets, [10.0, 99.0]);
        press(&mut app, " ");
        app.take(vec![row("192.0.2.1", 5.0, 0.0)]);
        assert_eq!(order(&app), ["192.0.2.1"]);
    }

    #[test]
    fn history_knows_silence_and_what_became_of_the_verdict() {
        let mut app = app();
        let source: Source = "192.0.2.1".parse().unwrap();
        app.take(Vec::new());
        app.take(Vec::new());
        let denied = Row {
            verdict: Some(Verdict {
                entry: source,
                action: Action::Deny,
                owner: Owner::Operator,
                left: None,
            }),
            ..row("192.0.2.1", 7.0, 7.0)
        };
        app.take(vec![denied]);
        let past = &app.past[&source];
        assert_eq!(past.packets, [10.0, 0.0, 0.0, 7.0]);
        let change = Change {
            at: 4,
            from: "pass".to_owned(),
            to: "deny".to_owned(),
        };
        assert_eq!(past.changes, [change]);
        for _ in 0..2 * HISTORY {
            app.take(vec![row("192.0.2.1", 1.0, 0.0)]);
        }
        assert_eq!(app.past[&source].packets.len(), HISTORY);
    }

    #[test]
    fn a_flood_of_sources_does_not_fill_memory() {
        let mut app = App::new(SortKey::Packets);
        for third in 0..60u32 {
            let rows = (0..250)
                .map(|last| row(&format!("10.0.{third}.{last}"), 1.0, 0.0))
                .collect();
            app.take(rows);
        }
        assert!(app.past.len() <= MOST_HISTORIES, "{}", app.past.len());
    }
}
