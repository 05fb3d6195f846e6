use std::path::Path;

use serde::Deserialize;

use super::error::{ProfileError, nearest};
use super::schema::{API_VERSION, Document, KIND};
use crate::trust;

/// Profiles that are part of the binary, by name.
const EMBEDDED: [(&str, &str); 4] = [
    ("idp", include_str!("../../profiles/idp.yaml")),
    ("web-server", include_str!("../../profiles/web-server.yaml")),
    (
        "ziti-controller",
        include_str!("../../profiles/ziti-controller.yaml"),
    ),
    (
        "ziti-router",
        include_str!("../../profiles/ziti-router.yaml"),
    ),
];

/// A profile that was read and has the right shape; its values are checked by `resolve`.
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    /// Where it was read, for errors: a path, or `profile NAME`.
    pub(super) origin: String,
    pub(super) document: Document,
}

impl Profile {
    /// Names of the profiles that are part of the binary, sorted.
    pub fn names() -> impl Iterator<Item = &'static str> {
        EMBEDDED.iter().map(|(name, _)| *name)
    }

    /// A profile that is part of the binary.
    ///
    /// # Errors
    /// `UnknownName`, with the nearest name or all there are.
    pub fn named(name: &str) -> Result<Self, ProfileError> {
        match EMBEDDED.iter().find(|(own, _)| *own == name) {
            Some((_, text)) => Self::parse(&format!("profile {name}"), text),
            None => {
                let meant = nearest(name, Self::names())
                    .map(|meant| format!("did you mean '{meant}'? "))
                    .unwrap_or_default();
                let all: Vec<_> = Self::names().collect();
                Err(ProfileError::UnknownName {
                    name: name.to_owned(),
                    hint: format!("{meant}there are {}", all.join(", ")),
                })
            }
        }
    }

    /// A profile in a file.
    ///
    /// # Errors
    /// `Read` if the file cannot be read; otherwise what is wrong in it, and where.
    pub fn read(path: &Path) -> Result<Self, ProfileError> {
        let origin = path.display().to_string();
        match trust::read_to_string(path) {
            Ok(text) => Self::parse(&origin, &text),
            Err(source) => Err(ProfileError::Read {
                path: origin,
                source,
            }),
        }
    }

    /// The profile as written in `text`; `origin` is named in errors.
    ///
    /// # Errors
    /// What is wrong in the text, and where.
    pub fn parse(origin: &str, text: &str) -> Result<Self, ProfileError> {
        check_header(origin, text)?;
        let document = serde_yaml::from_str(text).map_err(|e| explain(origin, &e))?;
        Ok(Self {
            origin: origin.to_owned(),
            document,
        })
    }

    /// What the file calls itself.
    pub fn name(&self) -> &str {
        &self.document.metadata.name
    }

    /// The file as written.
    pub fn document(&self) -> &Document {
        &self.document
    }
}

/// What tells a profile from another YAML file.
#[derive(Deserialize)]
struct Header {
    #[serde(rename = "apiVersion")]
    api_version: Option<String>,
    kind: Option<String>,
}

/// Refuses other kinds of file before complaining about their keys.
fn check_header(origin: &str, text: &str) -> Result<(), ProfileError> {
    let Ok(header) = serde_yaml::from_str::<Header>(text) else {
        return Ok(()); // The strict reading says why, and where.
    };
    let refuse = |key, found, wanted| ProfileError::NotAProfile {
        origin: origin.to_owned(),
        found: format!("{key} '{found}'"),
        wanted,
    };
    match (header.kind, header.api_version) {
        (Some(kind), _) if kind != KIND => Err(refuse("kind", kind, KIND)),
        (_, Some(version)) if version != API_VERSION => {
            Err(refuse("apiVersion", version, API_VERSION))
        }
        _ => Ok(()),
    }
}

/// The operator's form of what the YAML reader says.
fn explain(origin: &str, error: &serde_yaml::Error) -> ProfileError {
    let origin = origin.to_owned();
    let text = error.to_string();
    let (line, column) = error
        .location()
        .map_or((1, 1), |at| (at.line(), at.column()));
    let message = text
        .strip_suffix(&format!(" at line {line} column {column}"))
        .unwrap_or(&text);
    if let Some((section, rest)) = message.split_once("unknown field ") {
        let mut words = backticked(rest);
        if let Some(key) = words.next() {
            let valid: Vec<&str> = words.collect();
            let hint = match nearest(key, valid.iter().copied()) {
                Some(meant) => format!("did you mean '{meant}'?"),
                None => format!("there are {}", valid.join(", ")),
            };
            return ProfileError::UnknownKey {
                origin,
                line,
                column,
                section: section.trim_end_matches(": ").to_owned(),
                key: key.to_owned(),
                hint,
            };
        }
    }
    let message = message
        .replace("missing field", "missing key")
        .replace("duplicate field", "duplicate key")
        .replace('`', "'");
    ProfileError::Syntax {
        origin,
        line,
        column,
        message,
    }
}

/// The words between backticks, which is how serde names keys.
fn backticked(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}
