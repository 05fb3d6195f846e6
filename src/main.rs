use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match kernloom::run(&kernloom::cli::Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kernloom: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}
