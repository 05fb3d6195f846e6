//! The only room where libbpf is spoken: load, pin, attach, policy, telemetry.

mod abi;
mod attach;
mod control;
mod counters;
mod edges;
mod egress;
mod enforcer;
mod events;
mod floor;
mod graph;
mod load;
mod pin;
mod pod;
mod policy;
mod shield;
mod skel;
mod sources;
mod sys;

pub use abi::Reason;
pub use attach::{AttachMode, Attached, ModeChoice, default_interface, interface_index};
pub use counters::{Counters, ReasonCount};
pub use edges::EdgeTable;
pub use enforcer::{DryRun, MapEnforcer};
pub use events::{Event, Events, What};
pub use floor::Floor;
pub use graph::{GraphPlane, GraphStatus, Permits};
pub use load::{GraphSizes, LoadOptions, TrackWidth};
pub use pin::{DEFAULT_PIN_DIR, Lock, PinDir};
pub use policy::{Action, Edit, Entry, Owner, Rule};
pub use shield::{Shield, TestRun};
pub use sources::SourceTable;
