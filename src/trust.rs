//! Files that decide what is protected: whoever may write one may open the host.

use std::fs::File;
use std::io::{Error, ErrorKind, Read, Result};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Write permission of the group and of others.
const OTHERS_WRITE: u32 = 0o022;

/// Reads a configuration file.
///
/// # Errors
/// What opening and reading say, and `PermissionDenied` for a file that others than its owner may
/// write.
pub(crate) fn read_to_string(path: &Path) -> Result<String> {
    let mut file = File::open(path)?;
    // Of the open file: its name may mean another one by now.
    let about = file.metadata()?;
    let mode = about.permissions().mode() & 0o7777;
    if about.is_file() && mode & OTHERS_WRITE != 0 {
        return Err(Error::new(
            ErrorKind::PermissionDenied,
            format!(
                "others than its owner may write it (mode {mode:04o}); run 'chmod go-w {}'",
                path.display()
            ),
        ));
    }
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_others_may_write_is_refused_with_the_way_out() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path();
        for (mode, trusted) in [
            (0o600, true),
            (0o644, true),
            (0o664, false),
            (0o602, false),
            (0o666, false),
        ] {
            std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
            match read_to_string(path) {
                Ok(text) => assert!(trusted && text.is_empty(), "{mode:o}"),
                Err(error) => {
                    assert!(!trusted, "{mode:o}: {error}");
                    let name = path.display();
                    let told = format!(
                        "others than its owner may write it (mode {mode:04o}); run 'chmod go-w {name}'"
                    );
                    assert_eq!(error.to_string(), told);
                }
            }
        }
    }
}
