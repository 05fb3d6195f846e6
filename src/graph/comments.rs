//! The operator's comments in a frozen file: they outlive every rewriting of it.

use std::collections::BTreeMap;

/// The comments of a file and the lines they belong to: those above a line, and behind it.
#[derive(Default)]
pub(super) struct Comments {
    pub(super) head: String,
    above: BTreeMap<String, String>,
    behind: BTreeMap<String, String>,
    pub(super) tail: String,
}

impl Comments {
    pub(super) fn read(text: &str) -> Self {
        let mut comments = Self::default();
        let mut waiting = String::new();
        for line in text.lines() {
            let trimmed = line.trim_start();
            if trimmed.starts_with('#') {
                waiting.push_str(line);
                waiting.push('\n');
                continue;
            }
            let (content, behind) = split_comment(line);
            let key = key_of(content);
            if content.starts_with("apiVersion:") {
                comments.head = std::mem::take(&mut waiting);
            } else if !waiting.is_empty() {
                let above = std::mem::take(&mut waiting);
                comments.above.insert(key.clone(), above);
            }
            if !behind.is_empty() {
                comments.behind.insert(key, behind.to_owned());
            }
        }
        comments.tail = waiting;
        comments
    }

    pub(super) fn put(&self, text: &mut String, line: &str) {
        let key = key_of(line);
        if let Some(above) = self.above.get(&key) {
            text.push_str(above);
        }
        text.push_str(line);
        if let Some(behind) = self.behind.get(&key) {
            text.push_str("  ");
            text.push_str(behind);
        }
        text.push('\n');
    }
}

/// A line and the comment behind it: YAML wants white space before its '#'.
fn split_comment(line: &str) -> (&str, &str) {
    let mut quoted = false;
    let mut before = ' ';
    for (at, c) in line.char_indices() {
        if c == '"' {
            quoted = !quoted;
        }
        if c == '#' && !quoted && before.is_whitespace() {
            return (line[..at].trim_end(), &line[at..]);
        }
        before = c;
    }
    (line.trim_end(), "")
}

/// What a comment is attached to: the line without quotes and spaces, a group only by its name, a
/// section by its name and colon.
fn key_of(content: &str) -> String {
    let section = content.starts_with(|c: char| c.is_ascii_lowercase());
    if let Some((name, _)) = content.split_once(':').filter(|_| section) {
        return format!("{name}:");
    }
    let plain: String = content
        .chars()
        .filter(|c| !c.is_whitespace() && *c != '"' && *c != '\'')
        .collect();
    match plain.split_once(":[") {
        Some((name, _)) => name.to_owned(),
        None => plain,
    }
}
