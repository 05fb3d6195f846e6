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
        let path =
            clap_complete::generate_to(shell, &mut command.clone(), "kernloom", &completions)?;
        if shell == Shell::Bash {
            let text = fs::read_to_string(&path)?;
            fs::write(&path, values_behind_an_equals_sign(&text)?)?;
        }
    }
    Ok(())
}

/// To bash, `--profile=id` is three words, and the last but one no option.
fn values_behind_an_equals_sign(text: &str) -> Result<String, Box<dyn Error>> {
    let before = "    prev=\"$3\"\n";
    let (head, tail) = text
        .split_once(before)
        .ok_or("the bash completions no longer set prev as they did")?;
    Ok(format!(
        "{head}{before}    \
         [[ ${{prev}} != = ]] || prev=\"${{COMP_WORDS[COMP_CWORD-2]}}\"\n{tail}"
    ))
}
