//! What of the graph survives a restart: an embedded database, the frozen file, and whose they are.

mod database;
mod file;
mod node;

#[cfg(test)]
mod tests;

use std::path::Path;

pub use database::{Batch, GraphStore, Kept, MOST_VIOLATIONS, Violation};
pub use file::{read_frozen, write_whole};
pub use node::node_identity;

/// Where a file is kept: of a name alone, the directory this process is in.
pub fn directory_of(file: &Path) -> &Path {
    file.parent()
        .filter(|dir| !dir.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}
