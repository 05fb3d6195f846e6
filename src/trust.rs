//! Files that decide what is protected: whoever may write one may open the host.

use std::fs::{self, DirBuilder, Metadata, OpenOptions};
use std::io::{Error, ErrorKind, Read, Result};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::fcntl::OFlag;
use nix::unistd::geteuid;

use crate::error::{Doing, Error as Refusal};

/// Of a directory: who may write it may remove only what is theirs, chmod(1).
const STICKY: u32 = 0o1000;

/// Write permission of the group and of others.
const OTHERS_WRITE: u32 = 0o022;

/// Any permission of the group and of others.
const OTHERS: u32 = 0o077;

/// Longest file that is read, bytes: a list of some hundred thousand lines.
const MOST_BYTES: u64 = 16 << 20;

/// Reads a file that says how to judge, or whom to spare.
///
/// # Errors
/// What opening and reading say; `PermissionDenied` for a file that others than its owner may
/// write; `InvalidInput` for what is no file, `FileTooLarge` above 16 MiB.
pub(crate) fn read_to_string(path: &Path) -> Result<String> {
    text(read_bytes(path)?)
}

/// The same, whatever its bytes.
///
/// # Errors
/// As [`read_to_string`].
pub(crate) fn read_bytes(path: &Path) -> Result<Vec<u8>> {
    read(path, |_| None)
}

/// Reads a file that says where things are kept, or what is enforced: it must be root's, or of whoever runs this.
///
/// # Errors
/// As [`read_to_string`]; `PermissionDenied` for somebody else's file, or one that everybody may
/// put another in the place of.
pub(crate) fn read_settings(path: &Path) -> Result<String> {
    let dir = directory_of(path);
    let text = text(read(path, |about| foreign_file(about, path))?)?;
    let mode = fs::metadata(dir)?.mode() & 0o7777;
    if mode & 0o002 != 0 && mode & STICKY == 0 {
        let name = dir.display();
        let why = format!(
            "everybody may put another file in its place (mode {mode:04o} of {name}); run 'chmod o-w {name}'"
        );
        return Err(Error::new(ErrorKind::PermissionDenied, why));
    }
    Ok(text)
}

/// Where a file is kept: of a name alone, the directory this process is in.
pub(crate) fn directory_of(file: &Path) -> &Path {
    file.parent()
        .filter(|dir| !dir.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

fn text(bytes: Vec<u8>) -> Result<String> {
    let odd = "stream did not contain valid UTF-8";
    String::from_utf8(bytes).map_err(|_| Error::new(ErrorKind::InvalidData, odd))
}

fn read(path: &Path, also: impl Fn(&Metadata) -> Option<String>) -> Result<Vec<u8>> {
    let refuse = |kind, why: String| Err(Error::new(kind, why));
    // Opening a pipe would wait for whoever writes it.
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(path);
    let mut file = match opened {
        // Without the capability to pass over it, a foreign owner's mode decides.
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            let foreign = fs::metadata(path).ok();
            let why = foreign.and_then(|about| foreign_file(&about, path));
            return Err(why.map_or(error, |why| Error::new(ErrorKind::PermissionDenied, why)));
        }
        opened => opened?,
    };
    // Of the open file: its name may mean another one by now.
    let about = file.metadata()?;
    if about.is_dir() {
        return refuse(ErrorKind::IsADirectory, "is a directory".to_owned());
    }
    if !about.is_file() {
        let why = "is not a regular file, and could not be read again when it changes";
        return refuse(ErrorKind::InvalidInput, why.to_owned());
    }
    if let Some(why) = also(&about).or_else(|| writable(&about, path)) {
        return refuse(ErrorKind::PermissionDenied, why);
    }
    let mut bytes = Vec::new();
    let read = file.by_ref().take(MOST_BYTES + 1).read_to_end(&mut bytes)?;
    if read as u64 > MOST_BYTES {
        let why = format!("is larger than {} MiB", MOST_BYTES >> 20);
        return refuse(ErrorKind::FileTooLarge, why);
    }
    Ok(bytes)
}

/// Why a file is not to be gone by: others than its owner may write it.
fn writable(about: &Metadata, path: &Path) -> Option<String> {
    let mode = about.mode() & 0o7777;
    (mode & OTHERS_WRITE != 0).then(|| {
        format!(
            "others than its owner may write it (mode {mode:04o}); run 'chmod go-w {}'",
            path.display()
        )
    })
}

/// Why a file or directory is not to be gone by: it belongs to somebody who is neither root nor
/// whoever runs this.
fn foreign(about: &Metadata) -> Option<String> {
    let owner = about.uid();
    (owner != 0 && owner != geteuid().as_raw())
        .then(|| format!("it belongs to user {owner}, who may change it at any time"))
}

/// The same of a file, with the way out.
fn foreign_file(about: &Metadata, path: &Path) -> Option<String> {
    foreign(about).map(|why| format!("{why}; run 'chown root {}'", path.display()))
}

/// Refuses a file that anybody but root and whoever runs this may change.
///
/// # Errors
/// `PermissionDenied`, with the way out.
pub(crate) fn refuse_changeable(about: &Metadata, path: &Path) -> Result<()> {
    match foreign_file(about, path).or_else(|| writable(about, path)) {
        Some(why) => Err(Error::new(ErrorKind::PermissionDenied, why)),
        None => Ok(()),
    }
}

/// The same of a file by its name; one that is not there says nothing.
///
/// # Errors
/// Of [`refuse_changeable`], and what looking at it says.
pub(crate) fn refuse_changeable_at(path: &Path) -> Result<()> {
    match fs::metadata(path) {
        Ok(about) => refuse_changeable(&about, path),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Refuses a directory that belongs to somebody else, or that a link of somebody else's leads to.
///
/// # Errors
/// Operator's, with the way out; World's where it cannot be looked at.
pub(crate) fn refuse_foreign_dir(path: &Path) -> crate::error::Result<()> {
    for about in [fs::symlink_metadata(path), fs::metadata(path)] {
        let about = about.doing(|| format!("looking at {}", path.display()))?;
        if let Some(why) = foreign(&about) {
            return Err(Refusal::operator(format!(
                "{name}: {why}; remove it ('rm -r {name}') or give another directory",
                name = path.display()
            )));
        }
    }
    Ok(())
}

/// Makes a directory where there is none; it must be of whoever runs this, or root's, and theirs
/// alone.
///
/// # Errors
/// Operator's, with the way out; World's where it cannot be made.
pub(crate) fn private_dir(path: &Path) -> crate::error::Result<()> {
    make_dir(path).doing(|| format!("making {}", path.display()))?;
    refuse_foreign_dir(path)?;
    let about = fs::metadata(path).doing(|| format!("looking at {}", path.display()))?;
    let mode = about.mode() & 0o7777;
    if mode & OTHERS == 0 {
        return Ok(());
    }
    Err(Refusal::operator(format!(
        "{name}: others may {what} (mode {mode:04o}); give a directory of its own, or run 'chmod 700 {name}'",
        name = path.display(),
        what = if mode & OTHERS_WRITE == 0 {
            "look into it"
        } else {
            "write into it"
        },
    )))
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

/// A directory of a test's own, as [`private_dir`] wants it, whatever the umask.
#[cfg(test)]
pub(crate) fn private_tempdir() -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt;
    tempfile::Builder::new()
        .permissions(PermissionsExt::from_mode(0o700))
        .tempdir()
        .unwrap()
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, chown};

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

    /// By nobody's number; only root may give things away.
    fn give_away(path: &Path) -> bool {
        let root = geteuid().is_root();
        if root {
            chown(path, Some(65_534), None).unwrap();
        }
        root
    }

    #[test]
    fn a_directory_that_others_own_or_may_enter_is_refused_with_the_way_out() {
        let dir = tempfile::tempdir().unwrap();
        let made = dir.path().join("run");
        private_dir(&made).unwrap();
        private_dir(&made).unwrap();
        let name = made.display();
        for (mode, what) in [
            (0o777, "write into it (mode 0777)"),
            (0o1777, "write into it (mode 1777)"),
            (0o755, "look into it (mode 0755)"),
        ] {
            fs::set_permissions(&made, PermissionsExt::from_mode(mode)).unwrap();
            let error = private_dir(&made).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert_eq!(
                error.to_string(),
                format!(
                    "{name}: others may {what}; give a directory of its own, or run 'chmod 700 {name}'"
                )
            );
        }
        fs::set_permissions(&made, PermissionsExt::from_mode(0o700)).unwrap();
        if give_away(&made) {
            let told = |path: &Path| {
                let error = private_dir(path).unwrap_err();
                assert_eq!(error.exit_code(), 2);
                error.to_string()
            };
            assert_eq!(
                told(&made),
                format!(
                    "{name}: it belongs to user 65534, who may change it at any time; remove it \
                     ('rm -r {name}') or give another directory"
                )
            );
            let link = dir.path().join("link");
            std::os::unix::fs::symlink(&made, &link).unwrap();
            assert!(told(&link).contains("belongs to user 65534"));
        }
    }

    #[test]
    fn somebody_elses_settings_are_refused_with_the_way_out() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path();
        read_settings(path).unwrap();
        refuse_changeable_at(path).unwrap();
        refuse_changeable_at(Path::new("/nowhere/at/all")).unwrap();
        if give_away(path) {
            let told = format!(
                "it belongs to user 65534, who may change it at any time; run 'chown root {}'",
                path.display()
            );
            assert_eq!(read_settings(path).unwrap_err().to_string(), told);
            assert_eq!(refuse_changeable_at(path).unwrap_err().to_string(), told);
            // A list may be kept by whoever keeps it.
            read_to_string(path).unwrap();
        }
    }

    #[test]
    fn settings_that_everybody_may_replace_are_refused_with_the_way_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kernloom.toml");
        fs::write(&path, "").unwrap();
        let told = |mode| {
            fs::set_permissions(dir.path(), Permissions::from_mode(mode)).unwrap();
            read_settings(&path).map_err(|why| why.to_string())
        };
        assert_eq!(told(0o1777), Ok(String::new()), "as /tmp: theirs alone");
        assert_eq!(
            told(0o777),
            Err(format!(
                "everybody may put another file in its place (mode 0777 of {0}); run 'chmod o-w {0}'",
                dir.path().display()
            ))
        );
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
