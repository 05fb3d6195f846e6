use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::error::{Doing, Error, Result};

/// Writes to standard output. A reader that has seen enough (`| head`) is no error.
pub fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.doing(|| "writing to standard output"),
    }
}

/// Writes to the file that the operator named, or to standard output for `-`. A file is replaced
/// whole or left as it is; what is no file (a pipe, /dev/stdout) is written as it is.
pub fn write_out(path: &Path, text: &str) -> Result<()> {
    if path == Path::new("-") {
        return print(text);
    }
    let written = match fs::metadata(path) {
        Ok(there) if !there.is_file() => fs::write(path, text),
        _ => replace(path, text),
    };
    match written {
        Err(error) if error.kind() == ErrorKind::NotFound => Err(Error::operator(format!(
            "writing {}: there is no such directory; make it first, or give another file",
            path.display()
        ))),
        Err(error) if error.kind() == ErrorKind::IsADirectory => Err(Error::operator(format!(
            "writing {}: it is a directory; give a file",
            path.display()
        ))),
        written => written.doing(|| format!("writing {}", path.display())),
    }
}

/// With the mode of the file it replaces: who kept that from others goes on doing so.
fn write_beside(beside: &Path, path: &Path, text: &str) -> io::Result<()> {
    let there = fs::metadata(path).ok().map(|about| about.permissions());
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    if there.is_some() {
        options.mode(0o600);
    }
    let mut file = options.open(beside)?;
    file.write_all(text.as_bytes())?;
    match there {
        Some(mode) => file.set_permissions(mode),
        None => Ok(()),
    }
}

fn replace(path: &Path, text: &str) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // Through a link to the file itself: the link stays.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let beside = path.with_file_name(format!(".{name}.{}", std::process::id()));
    let written = write_beside(&beside, &path, text).and_then(|()| fs::rename(&beside, &path));
    if written.is_err() {
        // What is left of the attempt is of no use; the first error is the one to tell.
        let _ = fs::remove_file(&beside);
    }
    written
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_is_replaced_whole_a_link_stays_and_a_device_is_written_to() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("page.html");
        write_out(&file, "a long first page").unwrap();
        let link = dir.path().join("latest");
        std::os::unix::fs::symlink(&file, &link).unwrap();
        write_out(&link, "second").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "second");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        write_out(&file, "kept from others").unwrap();
        let mode = fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o640);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
        write_out(Path::new("/dev/null"), "gone").unwrap();
        let full = write_out(Path::new("/dev/full"), "more").unwrap_err();
        assert_eq!(full.exit_code(), 1);
        assert!(
            full.to_string()
                .contains("writing /dev/full: No space left"),
            "{full}"
        );
        for (path, why) in [
            (
                dir.path().join("nosuch/page.html"),
                "there is no such directory",
            ),
            (dir.path().to_owned(), "it is a directory"),
        ] {
            let error = write_out(&path, "text").unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains(why), "{error}");
        }
    }
}
