use std::fmt;
use std::io;

/// Why a profile cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    #[error("no profile is named '{name}'; {hint}")]
    UnknownName {
        name: String,
        /// The name that was probably meant, and all there are.
        hint: String,
    },
    #[error("cannot read profile {path}: {source}")]
    Read { path: String, source: io::Error },
    #[error("{origin}: {found} is not a profile; it needs {wanted}")]
    NotAProfile {
        origin: String,
        found: String,
        wanted: &'static str,
    },
    /// Not YAML, or not of the profile's shape. Lines and columns count from 1.
    #[error("{origin}:{line}:{column}: {message}")]
    Syntax {
        origin: String,
        line: usize,
        column: usize,
        message: String,
    },
    #[error("{origin}:{line}:{column}: unknown key '{key}'{}; {hint}", Within(.section))]
    UnknownKey {
        origin: String,
        line: usize,
        column: usize,
        /// Path of the mapping the key stands in; empty at the top.
        section: String,
        key: String,
        /// The key that was probably meant, or all there are.
        hint: String,
    },
    /// Well-formed, but not something that can be acted on.
    #[error("{origin}: {key}: {problem}")]
    Invalid {
        origin: String,
        key: String,
        problem: String,
    },
}

impl ProfileError {
    /// Whether the operator can mend it by writing something else.
    pub fn is_operator_mistake(&self) -> bool {
        match self {
            // A path that names no file is a slip of the pen, and rights are set by hand; a disk
            // that fails is neither.
            Self::Read { source, .. } => matches!(
                source.kind(),
                io::ErrorKind::NotFound
                    | io::ErrorKind::IsADirectory
                    | io::ErrorKind::PermissionDenied
                    | io::ErrorKind::NotADirectory
                    | io::ErrorKind::InvalidInput
                    | io::ErrorKind::InvalidData
                    | io::ErrorKind::FileTooLarge
            ),
            Self::UnknownName { .. }
            | Self::NotAProfile { .. }
            | Self::Syntax { .. }
            | Self::UnknownKey { .. }
            | Self::Invalid { .. } => true,
        }
    }
}

struct Within<'a>(&'a str);

impl fmt::Display for Within<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            Ok(())
        } else {
            write!(f, " in {}", self.0)
        }
    }
}
