//! Text of others, shown to an operator.

use std::borrow::Cow;

/// Characters of it that are shown.
const SHOWN: usize = 100;

/// Its beginning, where it is too long to show whole.
pub fn shown(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}...", &text[..end]).into(),
        None => text.into(),
    }
}

/// Without what a terminal acts upon: control characters, and those that turn the direction of
/// writing (UAX #9), are spelt out. Ends of lines stay.
pub fn printable(text: &str) -> Cow<'_, str> {
    let acts = |c: char| {
        c != '\n' && c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if !text.contains(acts) {
        return text.into();
    }
    let mut clean = String::with_capacity(text.len());
    for c in text.chars() {
        if acts(c) {
            clean.extend(c.escape_default());
        } else {
            clean.push(c);
        }
    }
    clean.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_has_an_end() {
        assert_eq!(shown("short"), "short");
        let most = "\u{e9}".repeat(100);
        assert_eq!(shown(&most), most);
        assert_eq!(shown(&format!("{most}x")), format!("{most}..."));
    }

    #[test]
    fn nothing_in_it_moves_a_terminal() {
        assert_eq!(printable("two\nlines, \u{e9}"), "two\nlines, \u{e9}");
        assert_eq!(
            printable("\u{1b}[31m\0\r\u{9b}2J\u{202e}x"),
            "\\u{1b}[31m\\u{0}\\r\\u{9b}2J\\u{202e}x"
        );
    }
}
