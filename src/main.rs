use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match kernloom::run(&kernloom::cli::Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody may be there to read it: the exit code says it too.
            let _ = writeln!(std::io::stderr(), "kernloom: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}
