//! The picture: a table, a source's page, a question. Made for 80 columns and 24 lines.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Cell, Clear, Paragraph, Row as Line80, Table};

use super::app::{App, Mode};
use super::rows::Row;
use crate::model::{Source, Stage, format_duration};

/// What the terminal can show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    pub colour: bool,
    /// Whether characters beyond ASCII come out as they are.
    pub unicode: bool,
}

const HELP: &str = "\
 up down pgup pgdn   choose a source          enter   its page, and back
 s                   sort by the next column  /       filter; esc clears it
 p or space          pause and go on          q       quit

 d   deny the source for an hour              a       allow it for an hour
 l   limit it to 100 packets/s for an hour    x       take your entry away
     Each asks first. IQ leaves an operator's entry alone.

 A filter is words that must all fit: '192.0.2 limit', 'block', 'operator'.";

impl Look {
    fn bar(self) -> &'static [char] {
        if self.unicode {
            &[' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█']
        } else {
            &[' ', '.', ':', '-', '=', '+', '*', '#', '@']
        }
    }

    /// The last `width` values, each as one character by its share of the largest.
    fn sparkline<'a>(
        self,
        values: impl DoubleEndedIterator<Item = &'a f64> + ExactSizeIterator,
        width: usize,
    ) -> String {
        let last: Vec<f64> = values.rev().take(width).copied().collect();
        let most = last.iter().copied().fold(0.0, f64::max);
        let bar = self.bar();
        let step = |value: &f64| {
            if *value <= 0.0 {
                return bar[0];
            }
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a share of 1 times 8"
            )]
            let height = (value / most * 8.0).ceil() as usize;
            bar[height.clamp(1, 8)]
        };
        let text: String = last.iter().rev().map(step).collect();
        format!("{text:>width$}")
    }

    fn colour(self, colour: Color) -> Style {
        if self.colour {
            Style::new().fg(colour)
        } else {
            Style::new()
        }
    }

    fn of(self, row: &Row) -> Style {
        let stage = row.held.as_ref().map(|held| held.stage);
        match (stage, row.action()) {
            (Some(Stage::Block), _) | (_, "deny") => {
                self.colour(Color::Red).add_modifier(Modifier::BOLD)
            }
            (Some(Stage::RateHard | Stage::RateSoft), _) | (_, "limit") => {
                self.colour(Color::Yellow).add_modifier(Modifier::BOLD)
            }
            (_, "allow") => self.colour(Color::Green),
            _ => Style::new(),
        }
    }
}

/// `999`, `1.2k`, `34M`: at most four characters and a letter.
fn short(value: f64) -> String {
    let mut value = value;
    for unit in ["", "k", "M", "G"] {
        if value < 9.95 && !unit.is_empty() {
            return format!("{value:.1}{unit}");
        }
        if value < 999.5 {
            return format!("{value:.0}{unit}");
        }
        value /= 1000.0;
    }
    format!("{value:.0}T")
}

pub fn draw(frame: &mut Frame<'_>, app: &mut App, look: Look) {
    let [head, body, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Min(1),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(title(app), head);
    match app.looked_at() {
        Some(source) => page(frame, body, app, look, &source),
        None => table(frame, body, app, look),
    }
    frame.render_widget(Line::from(footer(app)), foot);
    match &app.mode {
        Mode::Help => popup(frame, body, " Keys ", HELP),
        Mode::Confirm(deed, source, _) => {
            let text = format!(" {}\n\n Do this? y / n", deed.command(source));
            popup(frame, body, " Confirm ", &text);
        }
        Mode::Table | Mode::Filter | Mode::Source(_) => {}
    }
}

fn title(app: &App) -> Line<'static> {
    let held = app.rows.iter().filter(|row| row.held.is_some()).count();
    let packets: f64 = app
        .rows
        .iter()
        .filter(|row| row.source.bits() >= 64)
        .map(|row| row.packets)
        .sum();
    let paused = if app.paused { "  PAUSED" } else { "" };
    let text = format!(
        "kernloom top  sources {}  held {held}  packets/s {}  sort {}{paused}",
        app.rows.len(),
        short(packets),
        app.sort.name(),
    );
    Line::from(Span::styled(text, Modifier::BOLD))
}

fn footer(app: &App) -> String {
    if !app.message.is_empty() {
        return app.message.clone();
    }
    match &app.mode {
        Mode::Filter => format!("/{}_   enter keeps it, esc clears it", app.filter),
        Mode::Source(_) | Mode::Confirm(_, _, Some(_)) => {
            "esc back  d deny  l limit  a allow  x undo  p pause  q quit".to_owned()
        }
        Mode::Table | Mode::Help | Mode::Confirm(_, _, None) if !app.filter.is_empty() => {
            format!("/{}   esc clears it   ? keys  q quit", app.filter)
        }
        Mode::Table | Mode::Help | Mode::Confirm(_, _, None) => {
            "? keys  enter page  s sort  / filter  p pause  d deny  l limit  a allow  q quit"
                .to_owned()
        }
    }
}

const HEADINGS: [&str; 9] = [
    "SOURCE", "PKT/S", "BYT/S", "SYN/S", "DRP/S", "STAGE", "RULE", "REASON", "TREND",
];

/// A whole IPv6 prefix of 64 bits, like `2001:db8:1111:2222::/64`.
const SOURCE: usize = 23;

/// An address in full, where the terminal has room for it.
const WHOLE_SOURCE: usize = 43;

/// What the columns between source and trend take, with the gaps.
const BETWEEN: usize = 52;

/// Text that fits, with a mark where some of it does not.
fn clipped(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(width.saturating_sub(1)).collect();
    short.push('~');
    short
}

/// A line in pieces of at most `width`, broken between words; all but the first are indented.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    const INDENT: &str = "  ";
    let mut pieces = Vec::new();
    let mut rest = text.to_owned();
    while width > 2 * INDENT.len() && rest.chars().count() > width {
        let after = |count| {
            let mut indices = rest.char_indices();
            indices.nth(count).map_or(rest.len(), |(at, _)| at)
        };
        let end = after(width);
        // A word may end where the line does.
        let space = rest[..after(width + 1)]
            .rfind(' ')
            .filter(|at| *at > INDENT.len());
        let next = rest[space.unwrap_or(end)..].trim_start().to_owned();
        rest.truncate(space.unwrap_or(end));
        pieces.push(std::mem::replace(&mut rest, format!("{INDENT}{next}")));
    }
    pieces.push(rest);
    pieces
}

fn table(frame: &mut Frame<'_>, area: Rect, app: &mut App, look: Look) {
    let spare = usize::from(area.width).saturating_sub(BETWEEN);
    let source = spare.saturating_sub(5).clamp(SOURCE, WHOLE_SOURCE);
    let trend = spare.saturating_sub(source).clamp(1, 40);
    let (rows, scroll) = {
        let shown = app.shown();
        let at = app.position(&shown);
        let height = usize::from(area.height.saturating_sub(1)).max(1);
        let scroll = app.scroll.clamp((at + 1).saturating_sub(height), at);
        let rows: Vec<Line80<'_>> = shown
            .iter()
            .enumerate()
            .skip(scroll)
            .take(height)
            .map(|(index, row)| {
                let line = line(app, row, look, (source, trend));
                if index == at {
                    line.style(look.of(row).add_modifier(Modifier::REVERSED))
                } else {
                    line.style(look.of(row))
                }
            })
            .collect();
        (rows, scroll)
    };
    app.scroll = scroll;
    let widths = [
        Constraint::Length(u16::try_from(source).unwrap_or(u16::MAX)),
        Constraint::Length(5),
        Constraint::Length(5),
        Constraint::Length(5),
        Constraint::Length(5),
        Constraint::Length(9),
        Constraint::Length(5),
        Constraint::Length(10),
        Constraint::Min(5),
    ];
    let head = Line80::new(HEADINGS).style(Modifier::UNDERLINED);
    frame.render_widget(Table::new(rows, widths).header(head), area);
}

fn line<'a>(app: &App, row: &Row, look: Look, (source, trend): (usize, usize)) -> Line80<'a> {
    let number = |value: f64| Cell::from(format!("{:>5}", short(value)));
    let stage = row.held.as_ref().map(|held| held.stage.to_string());
    let past = app.past.get(&row.source);
    let trend = past.map(|past| look.sparkline(past.packets.iter(), trend));
    Line80::new([
        Cell::from(clipped(&row.source.to_string(), source)),
        number(row.packets),
        number(row.bytes),
        number(row.syns),
        number(row.drops),
        Cell::from(stage.unwrap_or_else(|| "-".to_owned())),
        Cell::from(row.action()),
        Cell::from(row.reason()),
        Cell::from(trend.unwrap_or_default()),
    ])
}

fn page(frame: &mut Frame<'_>, area: Rect, app: &mut App, look: Look, source: &Source) {
    let width = usize::from(area.width.saturating_sub(12));
    let mut lines = page_lines(app, look, source, width);
    let whole = usize::from(area.width);
    let why = app.why.iter().flat_map(|text| wrapped(text, whole));
    lines.extend(why.map(Line::from));
    let most = lines.len().saturating_sub(usize::from(area.height));
    app.scroll = app.scroll.min(most);
    let from = u16::try_from(app.scroll).unwrap_or(u16::MAX);
    frame.render_widget(Paragraph::new(lines).scroll((from, 0)), area);
}

fn page_lines(app: &App, look: Look, source: &Source, width: usize) -> Vec<Line<'static>> {
    let mut lines = vec![Line::from(Span::styled(source.to_string(), Modifier::BOLD))];
    let row = app.rows.iter().find(|row| row.source == *source);
    match row {
        None => lines.push(Line::from("silent, and no entry names it")),
        Some(row) => {
            lines.push(Line::from(format!(
                "packets/s {}  bytes/s {}  syn/s {}  drops/s {}  ports {}  stacks {}",
                short(row.packets),
                short(row.bytes),
                short(row.syns),
                short(row.drops),
                row.ports,
                row.stacks
            )));
            lines.push(Line::from(verdict(row)).style(look.of(row)));
        }
    }
    if let Some(past) = app.past.get(source) {
        let packets = look.sparkline(past.packets.iter(), width);
        let drops = look.sparkline(past.drops.iter(), width);
        lines.push(Line::from(format!("packets/s  {packets}")));
        lines.push(Line::from(format!("drops/s    {drops}")));
        for change in past.changes.iter().rev().take(8) {
            let ago = app.windows - change.at;
            lines.push(Line::from(format!(
                "{ago:>4} windows ago  {} -> {}",
                change.from, change.to
            )));
        }
    }
    lines.push(Line::default());
    lines
}

fn verdict(row: &Row) -> String {
    let stage = row.held.as_ref().map(|held| held.stage.to_string());
    let stage = stage.map(|stage| format!("{stage} for {}; ", row.reason()));
    let verdict = row.verdict.as_ref().map_or_else(
        || "no entry: passes".to_owned(),
        |verdict| {
            let left = verdict.left.map_or_else(
                || "until removed".to_owned(),
                |left| {
                    let whole = std::time::Duration::from_secs(left.as_secs() + 1);
                    format!("for {}", format_duration(whole))
                },
            );
            format!(
                "{} by {}, entry {}, {left}",
                row.action(),
                verdict.owner,
                verdict.entry
            )
        },
    );
    stage.unwrap_or_default() + &verdict
}

fn popup(frame: &mut Frame<'_>, area: Rect, title: &'static str, text: &str) {
    let lines: Vec<Line<'_>> = text.lines().map(Line::from).collect();
    let wide = text
        .lines()
        .map(|line| line.chars().count())
        .max()
        .unwrap_or(0);
    let width = u16::try_from(wide + 3).unwrap_or(u16::MAX).min(area.width);
    let height = u16::try_from(lines.len() + 2)
        .unwrap_or(u16::MAX)
        .min(area.height);
    let at = Rect {
        x: area.x + (area.width - width) / 2,
        y: area.y + (area.height - height) / 2,
        width,
        height,
    };
    frame.render_widget(Clear, at);
    let block = Block::bordered().title(title);
    frame.render_widget(Paragraph::new(lines).block(block), at);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;
    use crate::dataplane::{Action, Owner};
    use crate::top::{Held, Key, SortKey, Verdict};

    const PLAIN: Look = Look {
        colour: false,
        unicode: false,
    };

    fn held(source: &str, packets: f64) -> Row {
        let source: Source = source.parse().unwrap();
        Row {
            source,
            packets,
            bytes: 60.0 * packets,
            syns: packets,
            drops: packets / 2.0,
            ports: 1,
            stacks: 2,
            verdict: Some(Verdict {
                entry: source,
                action: Action::Deny,
                owner: Owner::Iq,
                left: Some(Duration::from_millis(62_500)),
            }),
            held: Some(Held {
                stage: Stage::Block,
                signal: "syn".to_owned(),
            }),
        }
    }

    fn free(source: &str, packets: f64) -> Row {
        Row {
            verdict: None,
            held: None,
            ..held(source, packets)
        }
    }

    fn screen(app: &mut App, look: Look) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
        terminal.draw(|frame| draw(frame, app, look)).unwrap();
        let buffer = terminal.backend().buffer();
        let line = |y| {
            let text: String = (0..80).map(|x| buffer[(x, y)].symbol()).collect();
            text.trim_end().to_owned()
        };
        (0..24).map(line).collect()
    }

    fn app() -> App {
        let mut app = App::new(SortKey::Packets);
        for packets in [100.0, 5_012.0] {
            app.take(vec![
                held("2001:db8:1:2::/64", packets),
                free("192.0.2.1", 12.0),
            ]);
        }
        app
    }

    #[test]
    fn the_table_fits_eighty_columns_with_everything_in_it() {
        let lines = screen(&mut app(), PLAIN);
        assert_eq!(
            lines[0],
            "kernloom top  sources 2  held 1  packets/s 5.0k  sort packets"
        );
        assert_eq!(
            lines[1],
            "SOURCE                  PKT/S BYT/S SYN/S DRP/S STAGE     RULE  REASON     TREND"
        );
        assert_eq!(
            lines[2].trim_end(),
            "2001:db8:1:2::/64        5.0k  301k  5.0k  2.5k BLOCK     deny  syn           .@"
        );
        let words: Vec<&str> = lines[3].split_whitespace().collect();
        assert_eq!(
            words[..7],
            ["192.0.2.1", "12", "720", "12", "6", "-", "pass"]
        );
        assert!(lines[23].starts_with("? keys  enter page"), "{}", lines[23]);
    }

    #[test]
    fn a_source_has_a_page_with_its_history_and_why() {
        let mut app = app();
        app.key(Key::Enter);
        app.tell_why(vec!["cause: syn 5012/s against 250/s".to_owned()]);
        let lines = screen(&mut app, PLAIN);
        assert_eq!(lines[1], "2001:db8:1:2::/64");
        assert_eq!(
            lines[3],
            "BLOCK for syn; deny by iq, entry 2001:db8:1:2::/64, for 1m3s"
        );
        assert!(lines[4].ends_with(".@"), "{}", lines[4]);
        assert!(
            lines
                .iter()
                .any(|line| line.starts_with("cause: syn 5012/s"))
        );
        app.key(Key::Char('d'));
        let lines = screen(&mut app, PLAIN);
        let asked = " kernloom shield deny add 2001:db8:1:2::/64 --ttl 1h";
        assert!(lines.iter().any(|line| line.contains(asked)), "{lines:?}");
    }

    #[test]
    fn many_rows_scroll_with_the_selection() {
        let mut app = App::new(SortKey::Packets);
        let rows = (0..100).map(|n| free(&format!("192.0.2.{n}"), 1000.0 - f64::from(n)));
        app.take(rows.collect());
        app.key(Key::End);
        let lines = screen(&mut app, PLAIN);
        assert!(lines[22].starts_with("192.0.2.99 "), "{lines:?}");
        app.key(Key::Home);
        assert!(screen(&mut app, PLAIN)[2].starts_with("192.0.2.0 "));
    }

    #[test]
    fn without_colour_there_is_none_and_with_it_a_block_is_red() {
        let colours = |look: Look| {
            let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
            let mut app = app();
            app.key(Key::Down);
            terminal.draw(|frame| draw(frame, &mut app, look)).unwrap();
            let buffer = terminal.backend().buffer().clone();
            let mut all: Vec<Color> = buffer.content.iter().map(|cell| cell.fg).collect();
            all.dedup();
            all
        };
        assert_eq!(colours(PLAIN), [Color::Reset]);
        let coloured = Look {
            colour: true,
            unicode: true,
        };
        assert!(colours(coloured).contains(&Color::Red));
    }

    #[test]
    fn it_survives_a_terminal_of_any_size() {
        for (width, height) in [(1, 1), (10, 3), (20, 2), (79, 23), (300, 90)] {
            let mut app = app();
            for key in [Key::Char('?'), Key::Escape, Key::Char('d')] {
                let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
                terminal.draw(|frame| draw(frame, &mut app, PLAIN)).unwrap();
                app.key(key);
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_marked_or_wrapped_and_nothing_is_lost() {
        let longest = "2001:db8:1111:2222::/64";
        assert_eq!(clipped(longest, SOURCE), longest);
        assert_eq!(
            clipped("2001:db8:1111:2222:3333::1", SOURCE),
            "2001:db8:1111:2222:333~"
        );
        let text = "since noon, not left before one; the kernel lets go at two";
        let pieces = wrapped(text, 24);
        assert_eq!(
            pieces,
            [
                "since noon, not left",
                "  before one; the kernel",
                "  lets go at two"
            ]
        );
        assert_eq!(
            wrapped("aaaaaaaaaaaa", 5),
            ["aaaaa", "  aaa", "  aaa", "  a"]
        );
        assert_eq!(wrapped(text, 1), [text]);
    }

    #[test]
    fn numbers_are_short() {
        for (value, text) in [
            (0.0, "0"),
            (9.4, "9"),
            (999.4, "999"),
            (999.6, "1.0k"),
            (12_345.0, "12k"),
            (3.4e9, "3.4G"),
        ] {
            assert_eq!(short(value), text);
        }
    }
}
