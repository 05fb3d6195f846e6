//! Profiles: what an operator writes about a host, read strictly and turned into domain values.
//!
//! `load` reads YAML as strictly as `schema`, which mirrors the file, asks; `layer` lays command
//! line, file, profile and defaults over each other; `resolve` checks the result. Nothing past this
//! module sees a word of the file again.

mod error;
mod graph;
mod layer;
mod load;
mod resolve;
mod scalar;
pub mod schema;
#[cfg(test)]
mod tests;

pub use error::ProfileError;
pub use graph::GraphPlan;
pub use layer::Setting;
pub use load::Profile;
pub use resolve::{Effective, Overrides};
pub use scalar::{Amount, Cidr, Span};
