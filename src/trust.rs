//! Files that decide what is protected: whoever may write one may open the host.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{Error, ErrorKind, Read, Result};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use nix::fcntl::OFlag;

/// Write permission of the group and of others.
const OTHERS_WRITE: u32 = 0o022;

/// Longest file that is read, bytes: a list of some hundred thousand lines.
const MOST_BYTES: u64 = 16 << 20;

/// Reads a configuration file.
///
/// # Errors
/// What opening and reading say; `PermissionDenied` for a file that others than its owner may
/// write; `InvalidInput` for what is no file, `FileTooLarge` above 16 MiB.
pub(crate) fn read_to_string(path: &Path) -> Result<String> {
    let refuse = |kind, why: String| Err(Error::new(kind, why));
    // Opening a pipe would wait for whoever writes it.
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(path)?;
    // Of the open file: its name may mean another one by now.
    let about = file.metadata()?;
    if about.is_dir() {
        return refuse(ErrorKind::IsADirectory, "is a directory".to_owned());
    }
    if !about.is_file() {
        let why = "is not a regular file, and could not be read again when it changes";
        return refuse(ErrorKind::InvalidInput, why.to_owned());
    }
    let mode = about.permissions().mode() & 0o7777;
    if mode & OTHERS_WRITE != 0 {
        return refuse(
            ErrorKind::PermissionDenied,
            format!(
                "others than its owner may write it (mode {mode:04o}); run 'chmod go-w {}'",
                path.display()
            ),
        );
    }
    let mut text = String::new();
    let read = file
        .by_ref()
        .take(MOST_BYTES + 1)
        .read_to_string(&mut text)?;
    if read as u64 > MOST_BYTES {
        let why = format!("is larger than {} MiB", MOST_BYTES >> 20);
        return refuse(ErrorKind::FileTooLarge, why);
    }
    Ok(text)
}

/// Makes a directory for its owner alone, and those above it.
///
/// # Errors
/// `NotADirectory` where a file stands in its place; otherwise what making it says.
pub(crate) fn make_dir(path: &Path) -> Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    match made {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            Err(ErrorKind::NotADirectory.into())
        }
        made => made,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_made_for_its_owner_and_a_file_in_its_place_is_named_so() {
        let dir = tempfile::tempdir().unwrap();
        let made = dir.path().join("a/b");
        make_dir(&made).unwrap();
        make_dir(&made).unwrap();
        let mode = std::fs::metadata(&made).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o700);
        let file = made.join("file");
        std::fs::write(&file, "").unwrap();
        for path in [file.clone(), file.join("below")] {
            let error = make_dir(&path).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NotADirectory, "{error}");
        }
    }

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

    #[test]
    fn what_is_no_file_or_without_end_is_refused_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRUSR).unwrap();
        for path in [pipe.as_path(), Path::new("/dev/zero")] {
            let error = read_to_string(path).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        }
        let error = read_to_string(dir.path()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::IsADirectory);
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(MOST_BYTES + 1).unwrap();
        let error = read_to_string(file.path()).unwrap_err();
        assert_eq!(error.to_string(), "is larger than 16 MiB");
        file.as_file().set_len(MOST_BYTES).unwrap();
        assert_eq!(read_to_string(file.path()).unwrap().len(), 16 << 20);
    }
}
