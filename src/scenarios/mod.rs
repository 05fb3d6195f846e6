//! Attacks and benign traffic against each profile, in a simulated network under virtual time.
//!
//! `cargo test --lib scenarios -- --nocapture` prints the tables.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts of made-up traffic, far inside every range"
)]

mod attacks;
mod benign;
mod network;
mod table;

use crate::engine::Config;
use crate::profile::{Overrides, Profile};

/// Every shipped profile by name, as it is without any option.
fn profiles() -> Vec<(String, Config)> {
    Profile::names()
        .map(|name| {
            let profile = Profile::named(name).unwrap();
            let config = profile.resolve(&Overrides::default()).unwrap();
            (name.to_owned(), config)
        })
        .collect()
}
