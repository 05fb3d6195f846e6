//! Kernloom: protects a Linux host at the XDP hook.

pub mod engine;
pub mod model;
pub mod profile;
pub mod telemetry;
