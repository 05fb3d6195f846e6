//! `shield top`: windows of the source table, on a screen, in a table or as JSON.

use std::collections::BTreeMap;
use std::io::{IsTerminal, stdout};
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use serde::Serialize;

use super::{iq, opened, pins};
use crate::cli::{Places, SortBy, TopArgs};
use crate::dataplane::{Action, Owner, PinDir, Rule, Shield, SourceTable};
use crate::error::{Doing, Result};
use crate::model::{Ktime, LimitScope, RateLimit, Source};
use crate::report::{Table, document, print};
use crate::runtime::{Keyboard, Stir, now, shutdown_on_signal, wait};
use crate::telemetry::Meter;
use crate::top::{App, Command, Deed, Held, Key, Look, Row, SortKey, draw, rows};

/// How long keys are left alone after input that made none.
const GLANCE: Duration = Duration::from_millis(250);

/// `usual`: what is sorted by unless the command line says otherwise.
pub(super) fn run(places: &Places, args: &TopArgs, usual: SortKey) -> Result<()> {
    let key = args.by.map_or(usual, SortKey::from);
    let pins = &pins(places);
    let shield = opened(pins)?;
    if args.json || args.once || !stdout().is_terminal() {
        once(&shield, &places.run_dir, args, key)
    } else {
        live(&shield, pins, &places.run_dir, args, key)
    }
}

impl From<SortBy> for SortKey {
    fn from(by: SortBy) -> Self {
        match by {
            SortBy::Packets => Self::Packets,
            SortBy::Bytes => Self::Bytes,
            SortBy::Syns => Self::Syns,
            SortBy::Drops => Self::Drops,
            SortBy::Ports => Self::Ports,
            SortBy::Stage => Self::Stage,
        }
    }
}

/// Reads windows of the table, without disturbing a running IQ.
struct Windows<'a> {
    shield: &'a Shield,
    table: SourceTable,
    meter: Meter,
    began: Ktime,
    run_dir: &'a Path,
}

impl<'a> Windows<'a> {
    fn new(shield: &'a Shield, run_dir: &'a Path) -> Result<Self> {
        let table = shield.sources()?;
        let mut meter = Meter::new(table.shape(), table.order());
        meter.samples(|at| table.get(at)).for_each(drop);
        Ok(Self {
            shield,
            table,
            meter,
            began: now()?,
            run_dir,
        })
    }

    /// Ends the running window.
    fn next(&mut self) -> Result<Vec<Row>> {
        let entries = self.shield.entries()?;
        // An IQ that cannot answer is no reason to show nothing.
        let held = iq::held(self.run_dir).unwrap_or_default();
        let held: BTreeMap<Source, Held> = held
            .into_iter()
            .map(|one| {
                let (stage, signal) = (one.stage, one.signal);
                (one.source, Held { stage, signal })
            })
            .collect();
        let now = now()?;
        let length = now.since(self.began);
        self.began = now;
        let table = &self.table;
        let samples = self.meter.samples(|at| table.get(at));
        Ok(rows(samples, length, &entries, &held, now))
    }
}

fn once(shield: &Shield, run_dir: &Path, args: &TopArgs, key: SortKey) -> Result<()> {
    let mut windows = Windows::new(shield, run_dir)?;
    wait(args.interval)?;
    let mut rows = windows.next()?;
    rows.sort_by(|a, b| key.compare(a, b));
    if args.json {
        rows.truncate(args.count);
        return print(&json(&rows, args.interval));
    }
    let shown = rows
        .iter()
        .filter(|row| row.packets > 0.0 || row.held.is_some());
    let mut text = Table::new([
        "SOURCE",
        "PACKETS/S",
        "BYTES/S",
        "SYN/S",
        "DROPS/S",
        "PORTS",
        "STACKS",
        "STAGE",
        "VERDICT",
        "REASON",
    ]);
    for row in shown.take(args.count) {
        text.row([
            row.source.to_string(),
            format!("{:.1}", row.packets),
            format!("{:.1}", row.bytes),
            format!("{:.1}", row.syns),
            format!("{:.1}", row.drops),
            row.ports.to_string(),
            row.stacks.to_string(),
            row.held
                .as_ref()
                .map_or_else(|| "-".to_owned(), |held| held.stage.to_string()),
            row.action().to_owned(),
            row.reason(),
        ]);
    }
    print(&text.render())
}

/// `shield top --json`: packaging/schemas/top.schema.json.
#[derive(Serialize)]
struct Top<'a> {
    window_seconds: f64,
    sources: Vec<TopRow<'a>>,
}

#[derive(Serialize)]
struct TopRow<'a> {
    source: String,
    packets_per_second: f64,
    bytes_per_second: f64,
    syns_per_second: f64,
    drops_per_second: f64,
    ports: u32,
    stacks: u32,
    verdict: &'a str,
    /// The entry that decides, and whose it is.
    entry: Option<TopEntry>,
    /// As IQ sees it; none if it does not hold the source or does not run.
    stage: Option<String>,
    reason: Option<String>,
}

#[derive(Serialize)]
struct TopEntry {
    source: String,
    owner: String,
    /// None: until removed.
    ends_in_seconds: Option<f64>,
}

fn json(rows: &[Row], window: Duration) -> String {
    let row = |row: &Row| TopRow {
        source: row.source.to_string(),
        packets_per_second: row.packets,
        bytes_per_second: row.bytes,
        syns_per_second: row.syns,
        drops_per_second: row.drops,
        ports: row.ports,
        stacks: row.stacks,
        verdict: row.action(),
        entry: row.verdict.as_ref().map(|verdict| TopEntry {
            source: verdict.entry.to_string(),
            owner: verdict.owner.to_string(),
            ends_in_seconds: verdict.left.map(|left| left.as_secs_f64()),
        }),
        stage: row.held.as_ref().map(|held| held.stage.to_string()),
        reason: Some(row.reason()).filter(|reason| !reason.is_empty()),
    };
    let top = Top {
        window_seconds: window.as_secs_f64(),
        sources: rows.iter().map(row).collect(),
    };
    document("top", &top)
}

/// The terminal, given back however the screen ends.
struct Screen(ratatui::DefaultTerminal);

impl Screen {
    fn open() -> Result<Self> {
        ratatui::try_init()
            .map(Self)
            .doing(|| "taking the terminal over; --once needs none")
    }

    /// Draws. False if there is no terminal any more.
    fn show(&mut self, picture: impl FnOnce(&mut ratatui::Frame<'_>)) -> Result<bool> {
        match self.0.draw(picture) {
            Err(error) if error.raw_os_error() == Some(Errno::EIO as i32) => Ok(false),
            drawn => drawn.doing(|| "drawing").map(|_| true),
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if let Err(error) = ratatui::try_restore() {
            log::warn!("giving the terminal back: {error}; 'reset' mends it");
        }
    }
}

fn live(
    shield: &Shield,
    pins: &PinDir,
    run_dir: &Path,
    args: &TopArgs,
    key: SortKey,
) -> Result<()> {
    let look = look();
    let keyboard = Keyboard::open()?;
    let shutdown = shutdown_on_signal()?;
    let mut windows = Windows::new(shield, run_dir)?;
    let mut app = App::new(key);
    let mut screen = Screen::open()?;
    let mut listening = true;
    loop {
        if !screen.show(|frame| draw(frame, &mut app, look))? {
            return Ok(());
        }
        let left = args.interval.saturating_sub(now()?.since(windows.began));
        if left.is_zero() {
            app.take(windows.next()?);
            if let Some(source) = app.looked_at() {
                app.tell_why(iq::why(run_dir, &source).unwrap_or_default());
            }
        }
        // Also when no time is left: a window that takes long must not shut keys out.
        let limit = if listening { left } else { left.min(GLANCE) };
        match keyboard.wait(&shutdown, limit, listening)? {
            Stir::Over => return Ok(()),
            Stir::Nothing => listening = true,
            Stir::Input => {
                let pressed = pressed()?;
                listening = !pressed.is_empty();
                for key in pressed {
                    if press(key, &mut app, shield, pins) {
                        return Ok(());
                    }
                }
            }
        }
    }
}

/// The keys that wait to be read.
fn pressed() -> Result<Vec<Pressed>> {
    let mut keys = Vec::new();
    while event::poll(Duration::ZERO).doing(|| "waiting for a key")? {
        keys.extend(key(&event::read().doing(|| "reading a key")?));
    }
    Ok(keys)
}

/// Does what a key asks for. True if that is the end.
fn press(key: Pressed, app: &mut App, shield: &Shield, pins: &PinDir) -> bool {
    let Pressed::Key(key) = key else {
        return true;
    };
    match app.key(key) {
        Some(Command::Quit) => true,
        Some(Command::Do(deed, source)) => {
            let said = carry_out(shield, pins, deed, &source);
            app.say(said.unwrap_or_else(|error| error.to_string()));
            false
        }
        None => false,
    }
}

/// Colour unless NO_COLOR is set (<https://no-color.org>); Unicode if the locale has it.
fn look() -> Look {
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(set);
    let locale = locale.unwrap_or_default().to_lowercase();
    Look {
        colour: set("NO_COLOR").is_none(),
        unicode: locale.contains("utf-8") || locale.contains("utf8"),
    }
}

enum Pressed {
    Interrupt,
    Key(Key),
}

fn key(event: &Event) -> Option<Pressed> {
    let Event::Key(KeyEvent {
        code,
        modifiers,
        kind: KeyEventKind::Press | KeyEventKind::Repeat,
        ..
    }) = event
    else {
        return None;
    };
    if modifiers.contains(KeyModifiers::CONTROL) {
        return matches!(code, KeyCode::Char('c')).then_some(Pressed::Interrupt);
    }
    if let KeyCode::Char(c) = code {
        return Some(Pressed::Key(Key::Char(*c)));
    }
    let named = [
        (KeyCode::Up, Key::Up),
        (KeyCode::Down, Key::Down),
        (KeyCode::PageUp, Key::PageUp),
        (KeyCode::PageDown, Key::PageDown),
        (KeyCode::Home, Key::Home),
        (KeyCode::End, Key::End),
        (KeyCode::Enter, Key::Enter),
        (KeyCode::Esc, Key::Escape),
        (KeyCode::Backspace, Key::Backspace),
    ];
    let (_, key) = named.into_iter().find(|(known, _)| known == code)?;
    Some(Pressed::Key(key))
}

/// Does what was confirmed; says what became of it.
fn carry_out(shield: &Shield, pins: &PinDir, deed: Deed, source: &Source) -> Result<String> {
    let action = match deed {
        Deed::Deny => Action::Deny,
        Deed::Allow => Action::Allow,
        Deed::Limit => {
            let pps = std::num::NonZeroU32::new(Deed::PPS).unwrap_or(std::num::NonZeroU32::MIN);
            Action::Limit {
                limit: RateLimit { pps, burst: pps },
                scope: LimitScope::All,
            }
        }
        Deed::Undo => return undo(shield, pins, source),
    };
    let rule = Rule {
        action,
        owner: Owner::Operator,
        expires: Some(now()? + Deed::LASTS),
    };
    let lock = pins.lock()?;
    shield.edit(&lock).set(source, &rule)?;
    Ok(format!("done: {}", deed.command(source)))
}

fn undo(shield: &Shield, pins: &PinDir, source: &Source) -> Result<String> {
    let lock = pins.lock()?;
    let mut edit = shield.edit(&lock);
    match edit.get(source)? {
        Some(entry) if entry.rule.owner == Owner::Operator => {
            edit.remove(source)?;
            Ok(format!("done: your entry for {source} is gone"))
        }
        Some(_) => Ok(format!("{source} is held by iq; 'a' allows it instead")),
        None => Ok(format!("{source} has no entry of its own")),
    }
}
