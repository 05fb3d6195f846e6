//! Kernloom: protects a Linux host at the XDP hook.

pub mod model;
pub mod telemetry;
