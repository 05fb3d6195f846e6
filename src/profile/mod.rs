//! Profiles: what an operator writes about a host, read strictly and turned into domain values.
//!
//! `load` reads YAML into `schema`, which mirrors the file; `resolve` checks it and lays the
//! command line over it. Nothing past this module sees a word of the file again.

mod error;
mod load;
mod resolve;
mod scalar;
pub mod schema;
#[cfg(test)]
mod tests;

pub use error::ProfileError;
pub use load::Profile;
pub use resolve::Overrides;
pub use scalar::{Amount, Cidr, Span};
