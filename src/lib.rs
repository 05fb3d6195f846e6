//! Kernloom: protects a Linux host at the XDP hook.

pub mod dataplane;
pub mod error;
pub mod model;
pub mod telemetry;
