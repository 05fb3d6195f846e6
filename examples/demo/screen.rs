//! What the audience sees: a timeline, one event per line. Colours only on a terminal.

use std::io::IsTerminal;
use std::time::Instant;

use super::lab::now;

#[derive(Clone, Copy)]
pub(crate) enum Colour {
    Plain,
    Good,
    Warn,
    Bad,
}

impl Colour {
    fn code(self) -> &'static str {
        match self {
            Self::Plain => "0",
            Self::Good => "32",
            Self::Warn => "33",
            Self::Bad => "31",
        }
    }
}

/// Standard output, and when the story began.
pub(crate) struct Screen {
    colours: bool,
    began: Instant,
}

impl Screen {
    pub(crate) fn new() -> Self {
        // An empty NO_COLOR counts as unset, as no-color.org asks.
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            colours: std::io::stdout().is_terminal() && !unwanted,
            began: now(),
        }
    }

    /// From here on the timeline counts.
    pub(crate) fn start_clock(&mut self) {
        self.began = now();
    }

    pub(crate) fn event(&self, colour: Colour, word: &str, text: &str) {
        let elapsed = now().duration_since(self.began).as_secs_f64();
        println!(
            "{elapsed:6.1} s  {}  {text}",
            self.paint(colour, &format!("{word:<9}"))
        );
    }

    /// A second line of the event above.
    pub(crate) fn detail(&self, text: &str) {
        println!("{:21}{text}", "");
    }

    pub(crate) fn title(&self, text: &str) {
        let text = if self.colours {
            format!("\x1b[1m{text}\x1b[0m")
        } else {
            text.to_owned()
        };
        println!("\n{text}\n");
    }

    pub(crate) fn text(&self, text: &str) {
        println!("{text}");
    }

    pub(crate) fn verdict(&self, broken: &[String]) {
        println!();
        if broken.is_empty() {
            let kept = "PASSED: every attack was limited within 3 s, no benign request was lost";
            println!("{}", self.paint(Colour::Good, kept));
        }
        for promise in broken {
            println!("{}", self.paint(Colour::Bad, &format!("FAILED: {promise}")));
        }
    }

    fn paint(&self, colour: Colour, text: &str) -> String {
        if self.colours {
            format!("\x1b[{}m{text}\x1b[0m", colour.code())
        } else {
            text.to_owned()
        }
    }
}
