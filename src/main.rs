use std::borrow::Cow;
use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use kernloom::cli::Cli;
use kernloom::model::printable;

fn main() -> ExitCode {
    kernloom::runtime::give_back_large_blocks();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return refused(&error),
    };
    match kernloom::run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody may be there to read it: the exit code says it too.
            let text = error.to_string();
            let _ = writeln!(std::io::stderr(), "kernloom: {}", printable(&text));
            ExitCode::from(error.exit_code())
        }
    }
}

fn refused(error: &clap::Error) -> ExitCode {
    // It repeats the word that it refuses, in colours: those escapes let others through.
    let acts = |word: OsString| matches!(printable(&word.to_string_lossy()), Cow::Owned(_));
    if !std::env::args_os().any(acts) {
        error.exit();
    }
    let text = error.to_string();
    let _ = write!(std::io::stderr(), "{}", printable(&text));
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}
