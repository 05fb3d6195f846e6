//! `make demo`: kernloom under attack, on this machine, in about 85 seconds.
//!
//! Builds network namespaces with a web server, an office of real HTTP clients behind one address,
//! and five attackers; starts the real `kernloom iq` on the server; tells what happens as it
//! happens; and ends with a table. Succeeds only if every attack was limited within three seconds
//! and no benign request was lost. Nothing outside the namespaces is touched.
//!
//! `cargo run --release --example demo [path of kernloom]`

#[path = "../../tests/lab/mod.rs"]
mod lab;

mod board;
mod screen;
mod story;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use board::Board;
use lab::{Family, Kernloom, Lab, LabError, Load, LoadPlan, Plan, Result, Tally, WebServer};
use screen::{Colour, Screen};

/// How the demo runs kernloom: short holds, so that a release is seen too.
const IQ_ARGS: [&str; 6] = [
    "--profile=web-server",
    "--dry-run=false",
    "--soft-ttl=6s",
    "--hard-ttl=6s",
    "--block-ttl=8s",
    "--block-min-dur=8s",
];

/// 15 people per family behind one address ask three times a second for a minute.
const LOAD: LoadPlan = LoadPlan {
    first: 0,
    clients: 15,
    families: &[Family::V4, Family::V6],
    requests: 180,
    per_minute: 180,
};

/// The load ends at 60 s by its own count; the rest is patience for the last request.
const LOAD_PATIENCE: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    if cfg!(panic = "abort") {
        clean_up_on_panic();
    }
    let binary = std::env::args_os()
        .nth(1)
        .unwrap_or_else(|| "target/release/kernloom".into());
    match run(PathBuf::from(binary)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("demo: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Where a panic aborts, as in the release profile, guards do not drop.
fn clean_up_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        report(info);
        lab::sweep_own();
    }));
}

/// Tells the whole story; says whether every promise was kept.
fn run(binary: PathBuf) -> Result<bool> {
    let binary = std::fs::canonicalize(&binary)
        .map_err(|e| LabError::new(format!("finding kernloom at {}", binary.display()), e))?;
    let mut screen = Screen::new();
    screen
        .title("kernloom demo: real packets between network namespaces, nothing leaves this host");

    let names = story::SCENES.map(|scene| scene.client);
    let lab = Lab::new(
        "demo",
        &Plan {
            clients: &names,
            office_hosts: LOAD.clients,
        },
    )?;
    let _web = WebServer::start(&lab)?;
    let mut iq = Kernloom::iq(&lab, &binary, &IQ_ARGS)?;
    screen.start_clock();
    let attached = iq.attached();
    let attached = attached.split_once("] ").map_or(attached, |(_, text)| text);
    screen.event(Colour::Good, "kernloom", attached);

    let mut load = Load::start(&lab, LOAD)?;
    let people = format!(
        "{0} clients over IPv4 and {0} over IPv6 behind one address each, {1} requests/s in all",
        LOAD.clients,
        u32::from(LOAD.clients) * 2 * LOAD.per_minute / 60
    );
    screen.event(Colour::Plain, "benign", &people);

    let mut board = Board::new(&lab)?;
    story::play(&lab, &mut iq, &mut load, &mut board, &mut screen)?;
    let tally = load.finish(LOAD_PATIENCE)?;
    let stats = Kernloom::run(&lab, &binary, &["shield", "stats"]);
    finish(&screen, &board, tally, stats)
}

/// Prints the outcome and judges it.
fn finish(screen: &Screen, board: &Board, tally: Tally, stats: Result<String>) -> Result<bool> {
    screen.title("What kernloom did");
    screen.text(&board.table());
    screen.text(&format!(
        "Benign requests: {} sent, {} answered, {} lost; the slowest took {:.0} ms.",
        tally.sent,
        tally.answered,
        tally.lost,
        tally.slowest_s * 1_000.0
    ));
    screen.title("kernloom shield stats");
    match &stats {
        Ok(text) => screen.text(text.trim_end()),
        Err(error) => screen.text(&error.to_string()),
    }
    let mut broken = board.broken_promises();
    if tally.lost > 0 {
        broken.push(format!(
            "{} of {} benign requests were lost",
            tally.lost, tally.sent
        ));
    }
    if let Err(error) = stats {
        broken.push(format!("the drop counters could not be read: {error}"));
    }
    screen.verdict(&broken);
    Ok(broken.is_empty())
}
