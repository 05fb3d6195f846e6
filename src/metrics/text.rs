//! The Prometheus text exposition format, version 0.0.4
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/>).

use std::fmt::Write;

/// What a family's samples mean to Prometheus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    const fn word(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// A page of metric families. Names and help are the program's own; label values may be anything.
#[derive(Debug, Default)]
pub(super) struct Page {
    text: String,
}

/// One family of the page; its samples are written in the order they are given.
pub(super) struct Family<'a> {
    page: &'a mut Page,
    name: &'static str,
}

impl Page {
    pub(super) fn family(&mut self, name: &'static str, kind: Kind, help: &str) -> Family<'_> {
        // Writing to a String cannot fail.
        let _ = write!(
            self.text,
            "# HELP {name} {help}\n# TYPE {name} {}\n",
            kind.word()
        );
        Family { page: self, name }
    }

    /// One family with one sample without labels.
    pub(super) fn single(&mut self, name: &'static str, kind: Kind, help: &str, value: f64) {
        self.family(name, kind, help).sample(&[], value);
    }

    pub(super) fn finish(self) -> String {
        self.text
    }
}

impl Family<'_> {
    pub(super) fn sample(&mut self, labels: &[(&str, &str)], value: f64) {
        self.suffixed("", labels, value);
    }

    /// A sample of a histogram: `_bucket`, `_sum` or `_count`.
    pub(super) fn suffixed(&mut self, suffix: &str, labels: &[(&str, &str)], value: f64) {
        let text = &mut self.page.text;
        text.push_str(self.name);
        text.push_str(suffix);
        for (index, (label, value)) in labels.iter().enumerate() {
            text.push(if index == 0 { '{' } else { ',' });
            text.push_str(label);
            text.push_str("=\"");
            escape(text, value);
            text.push('"');
        }
        if !labels.is_empty() {
            text.push('}');
        }
        let _ = writeln!(text, " {}", number(value));
    }
}

/// Backslash, quote and line feed are escaped, nothing else.
fn escape(text: &mut String, value: &str) {
    for c in value.chars() {
        match c {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            c => text.push(c),
        }
    }
}

/// Shortest text that reads back as the same number; infinity as Prometheus writes it.
pub(super) fn number(value: f64) -> String {
    if value == f64::INFINITY {
        "+Inf".to_owned()
    } else {
        value.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_is_its_head_and_its_samples() {
        let mut page = Page::default();
        let mut family = page.family("k_total", Kind::Counter, "Things.");
        family.sample(&[("a", "x"), ("b", "y")], 3.0);
        family.sample(&[], 0.25);
        assert_eq!(
            page.finish(),
            "# HELP k_total Things.\n# TYPE k_total counter\nk_total{a=\"x\",b=\"y\"} 3\nk_total 0.25\n"
        );
    }

    #[test]
    fn a_label_value_cannot_end_its_quotes() {
        let mut page = Page::default();
        let mut family = page.family("k", Kind::Gauge, "Things.");
        family.sample(&[("a", "\"} 1\nk{a=\"\\")], 1.0);
        let text = page.finish();
        assert_eq!(text.lines().last(), Some(r#"k{a="\"} 1\nk{a=\"\\"} 1"#));
    }
}
