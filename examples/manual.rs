//! Writes the man pages and shell completions of `kernloom`, from its command line.
//!
//! `cargo run --example manual DIRECTORY` fills `DIRECTORY/man` and `DIRECTORY/completions`.

use std::error::Error;
use std::fs;
use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;

fn main() -> Result<(), Box<dyn Error>> {
    let dir = std::env::args_os().nth(1).ok_or("name a directory")?;
    let (man, completions) = (
        Path::new(&dir).join("man"),
        Path::new(&dir).join("completions"),
    );
    fs::create_dir_all(&man)?;
    fs::create_dir_all(&completions)?;
    let command = kernloom::cli::Cli::command();
    // The short version alone: a page must not differ from commit to commit.
    clap_mangen::generate_to(command.clone().long_version(None), &man)?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut command.clone(), "kernloom", &completions)?;
    }
    Ok(())
}
