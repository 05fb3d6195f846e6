//! Errors by who must act. Every text says what was being done, what is wrong and how to mend it.

use std::fmt::Display;

use crate::rights::refusal;

/// An error and whose it is: that decides the exit code.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operator asked for something that cannot be: exit code 2.
    #[error("{0}")]
    Operator(String),
    /// The machine refused something that should have worked: exit code 1.
    #[error("{0}")]
    World(String),
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub fn operator(text: impl Into<String>) -> Self {
        Self::Operator(text.into())
    }

    pub fn world(text: impl Into<String>) -> Self {
        Self::World(text.into())
    }

    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Operator(_) => 2,
            Self::World(_) => 1,
        }
    }
}

/// What the kernel refuses often has a cause that can be found.
const EXAMINE: &str = "'kernloom shield doctor' says what stands in the way";

/// Why a place that others write to is not to be written to.
pub const CONFINED: &str = "where a unit runs this, its ReadWritePaths= must name the directory";

/// Turns a library's error into ours, with what was being done in front.
pub trait Doing<T> {
    fn doing<D: Display>(self, what: impl FnOnce() -> D) -> Result<T>;
}

impl<T> Doing<T> for libbpf_rs::Result<T> {
    fn doing<D: Display>(self, what: impl FnOnce() -> D) -> Result<T> {
        self.map_err(|error| {
            if error.kind() == libbpf_rs::ErrorKind::PermissionDenied {
                Error::Operator(format!("{}: {} ({error:#})", what(), refusal()))
            } else {
                Error::World(format!("{}: {error:#}; {EXAMINE}", what()))
            }
        })
    }
}

impl<T> Doing<T> for std::io::Result<T> {
    fn doing<D: Display>(self, what: impl FnOnce() -> D) -> Result<T> {
        use std::io::ErrorKind;
        self.map_err(|error| {
            let (kind, what) = (error.kind(), what());
            if kind == ErrorKind::PermissionDenied {
                Error::Operator(format!("{what}: {} ({error})", refusal()))
            } else if kind == ErrorKind::ReadOnlyFilesystem {
                Error::World(format!("{what}: {error}; {CONFINED}"))
            } else if kind == ErrorKind::NotADirectory {
                Error::Operator(format!(
                    "{what}: a file stands in the place of a directory; give another path"
                ))
            } else if kind == ErrorKind::IsADirectory {
                Error::Operator(format!("{what}: it is a directory; give a file"))
            } else {
                Error::World(format!("{what}: {error}"))
            }
        })
    }
}

impl<T> Doing<T> for nix::Result<T> {
    fn doing<D: Display>(self, what: impl FnOnce() -> D) -> Result<T> {
        self.map_err(std::io::Error::from).doing(what)
    }
}
