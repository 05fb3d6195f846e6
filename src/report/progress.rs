//! Bars for work that takes long: on standard error, and only where that is a terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

fn styled(bar: ProgressBar, template: &str) -> ProgressBar {
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style.progress_chars("##-")),
        Err(_) => bar,
    }
}

/// `whole`: entries, or bytes.
pub fn progress(doing: &'static str, whole: u64) -> ProgressBar {
    let bar = ProgressBar::new(whole).with_message(doing);
    styled(bar, "{msg} {bar:40} {percent:>3} %, {eta} left")
}

/// For work whose length nobody knows.
pub fn spinner(doing: &'static str) -> ProgressBar {
    let bar = ProgressBar::new_spinner().with_message(doing);
    let bar = styled(bar, "{msg} {spinner} {elapsed}");
    bar.tick();
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}
