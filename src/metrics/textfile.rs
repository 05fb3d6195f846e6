//! The page as a file, for the textfile collector of the node exporter.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Doing, Error, Result};
use crate::model::Ktime;
use crate::trust::directory_of;

/// The usual scrape interval; writing more often wears flash for nothing.
const EVERY: Duration = Duration::from_secs(15);

/// A file that always holds a whole page.
#[derive(Debug)]
pub struct Textfile {
    path: PathBuf,
    beside: PathBuf,
    written: Option<Ktime>,
}

impl Textfile {
    /// # Errors
    /// Operator's, if the path cannot be such a file.
    pub fn at(path: &Path) -> Result<Self> {
        let wrong = |why: &str| {
            Error::operator(format!(
                "--metrics-textfile {}: {why}; give a file like /var/lib/prometheus/node-exporter/kernloom.prom",
                path.display()
            ))
        };
        let name = path.file_name().ok_or_else(|| wrong("names no file"))?;
        if path.extension().is_none_or(|end| end != "prom") {
            return Err(wrong("the collector reads files that end in .prom only"));
        }
        let parent = directory_of(path);
        if !parent.is_dir() {
            return Err(wrong(&format!("{} is no directory", parent.display())));
        }
        // Without the ending, so that the collector never reads half a page.
        let beside = parent.join(format!(
            ".{}.{}",
            name.to_string_lossy(),
            std::process::id()
        ));
        Ok(Self {
            path: path.to_owned(),
            beside,
            written: None,
        })
    }

    /// Whether the file is older than a scrape interval.
    pub fn is_due(&self, now: Ktime) -> bool {
        self.written.is_none_or(|then| now.since(then) >= EVERY)
    }

    /// Replaces the file by `page` in one step.
    pub fn write(&mut self, page: &str, now: Ktime) -> Result<()> {
        self.written = Some(now);
        let doing = || format!("writing {}", self.path.display());
        let result = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o644)
            .open(&self.beside)
            .and_then(|mut file| file.write_all(page.as_bytes()))
            .and_then(|()| fs::rename(&self.beside, &self.path));
        if result.is_err() {
            // What is left of the attempt is of no use; the first error is the one to tell.
            let _ = fs::remove_file(&self.beside);
        }
        result.doing(doing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_replaced_whole_and_nothing_is_left_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kernloom.prom");
        let mut file = Textfile::at(&path).unwrap();
        assert!(file.is_due(Ktime::from_secs(1)));
        file.write("a long first page\n", Ktime::from_secs(1))
            .unwrap();
        let reader = fs::File::open(&path).unwrap();
        assert!(!file.is_due(Ktime::from_secs(15)));
        assert!(file.is_due(Ktime::from_secs(16)));
        file.write("second\n", Ktime::from_secs(16)).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "second\n");
        assert_eq!(
            std::io::read_to_string(reader).unwrap(),
            "a long first page\n"
        );
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_path_the_collector_would_not_read_is_the_operators_mistake() {
        for (path, why) in [
            ("/tmp/kernloom.txt", "end in .prom only"),
            ("/nosuchdir/kernloom.prom", "/nosuchdir is no directory"),
            ("/", "names no file"),
        ] {
            let error = Textfile::at(Path::new(path)).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains(why), "{error}");
        }
    }
}
