use std::fs;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::error::{Doing, Error, Result};

const MACHINE_ID: [&str; 2] = ["/etc/machine-id", "/var/lib/dbus/machine-id"];

/// Who this host is, whatever it is called: derived from its machine-id, which machine-id(5) asks
/// not to hand out as it is. On hosts without one, drawn once and kept in `dir`.
pub fn node_identity(dir: &Path) -> Result<String> {
    for path in MACHINE_ID {
        if let Ok(id) = fs::read_to_string(path)
            && !id.trim().is_empty()
        {
            return Ok(digest(id.trim()));
        }
    }
    let path = dir.join("node-id");
    if let Ok(id) = fs::read_to_string(&path)
        && !id.trim().is_empty()
    {
        return Ok(digest(id.trim()));
    }
    // The kernel draws a fresh one for each who reads it.
    let drawn = fs::read_to_string("/proc/sys/kernel/random/uuid")
        .doing(|| "drawing an identity for this host")?;
    super::write_whole(&path, &drawn)?;
    if drawn.trim().is_empty() {
        return Err(Error::world(
            "drawing an identity for this host: it is empty",
        ));
    }
    Ok(digest(drawn.trim()))
}

fn digest(id: &str) -> String {
    let digest = Sha256::digest(format!("kernloom graph {id}").as_bytes());
    digest
        .iter()
        .take(16)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
