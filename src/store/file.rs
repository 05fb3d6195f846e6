use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::error::{Doing, Error, Result};
use crate::graph::Frozen;
use crate::trust::{self, directory_of};

/// Replaces a file by one with this text, or leaves it as it is: never half of it. A link to the file
/// stays one.
pub fn write_whole(path: &Path, text: &str) -> Result<()> {
    let doing = || format!("writing {}", path.display());
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let beside = beside(&path);
    let write = || -> std::io::Result<()> {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&beside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, &path)?;
        File::open(directory_of(&path))?.sync_all()
    };
    write().doing(doing).inspect_err(|_| {
        // Not there is as good as removed.
        let _ = fs::remove_file(&beside);
    })
}

/// What is about to replace a file: hidden, for it is nobody's business but ours.
pub(super) fn beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.new"))
}

/// The frozen graph and the file's text, verified; `None` if there is no file.
pub fn read_frozen(path: &Path) -> Result<Option<(Frozen, String)>> {
    let text = match trust::read_settings(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return Err(Error::operator(format!(
                "reading {}: {error}",
                path.display()
            )));
        }
    };
    let frozen = Frozen::from_text(&text)
        .map_err(|error| Error::operator(format!("{}: {error}", path.display())))?;
    Ok(Some((frozen, text)))
}
