//! What of the graph survives a restart: an embedded database, the frozen file, and whose they are.

mod database;
mod file;
mod node;

#[cfg(test)]
mod tests;

pub use database::{Batch, GraphStore, Kept, MOST_VIOLATIONS, Violation};
pub use file::{read_frozen, write_whole};
pub use node::node_identity;
