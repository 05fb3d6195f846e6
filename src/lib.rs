//! Kernloom: protects a Linux host at the XDP hook.
//!
//! The pure half (`model`, `telemetry`, `engine`, `autotune`) has no clock, file or map in it; the world
//! (`dataplane`, `profile`, `runtime`, `report`) sits around it; `cmd` introduces them to each
//! other. `tests/layering.rs` holds the allowed directions.

pub mod autotune;
pub mod capture;
pub mod cli;
mod cmd;
pub mod dataplane;
pub mod engine;
pub mod error;
pub mod exempt;
pub mod graph;
pub mod host;
pub mod metrics;
pub mod model;
pub mod page;
pub mod profile;
pub mod record;
pub mod report;
mod rights;
pub mod runtime;
#[cfg(test)]
mod scenarios;
pub mod seams;
pub mod state;
pub mod store;
pub mod telemetry;
pub mod top;
mod trust;
mod version;

pub use cmd::run;
