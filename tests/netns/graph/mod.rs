//! The graph on real interfaces, through the built binary.

mod commands;
mod company;
mod crowd;
mod exempt;
mod file;
mod frames;
mod people;
mod traffic;
mod upgrade;
mod world;

use std::time::Duration;

use super::binary;
use crate::lab::{Kernloom, Lab, LabError, Said};
use traffic::Tried;

const SOON: Duration = Duration::from_secs(60);

fn failed<'a>(tried: &'a [(&'static str, Tried)]) -> Vec<(&'static str, &'a LabError)> {
    tried
        .iter()
        .filter_map(|(name, tried)| tried.as_ref().err().map(|error| (*name, error)))
        .collect()
}

fn graph(lab: &Lab, words: &str) -> Said {
    let words: Vec<&str> = ["graph"].into_iter().chain(words.split(' ')).collect();
    Kernloom::ask(lab, binary(), &words).unwrap()
}

fn good(lab: &Lab, words: &str) -> String {
    let said = graph(lab, words);
    assert_eq!(said.code, Some(0), "graph {words}: {said:?}");
    said.out
}

/// What a decision says but where it is frozen, which names a hash.
fn decided(lab: &Lab, words: &str) -> String {
    let said = good(lab, words);
    let lines = said.split_inclusive('\n');
    lines
        .filter(|line| !line.contains(" frozen in /"))
        .collect()
}

/// Packets counted under reasons whose name begins so.
fn counted(lab: &Lab, beginning: &str) -> u64 {
    let stats = Kernloom::run(lab, binary(), &["shield", "stats"]).unwrap();
    stats
        .lines()
        .filter(|line| line.trim_start().starts_with(beginning))
        .filter_map(|line| {
            line.split_whitespace()
                .nth(2)?
                .replace(',', "")
                .parse::<u64>()
                .ok()
        })
        .sum()
}
