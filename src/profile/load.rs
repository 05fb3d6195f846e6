use std::path::Path;

use serde::Deserialize;

use super::error::ProfileError;
use super::layer::Layer;
use super::schema::{API_VERSION, Document, KIND, Metadata};
use crate::model::nearest;
use crate::trust;

macro_rules! embedded {
    ($($name:literal),* $(,)?) => {
        [$(($name, include_str!(concat!("../../profiles/", $name, ".yaml")))),*]
    };
}

/// Profiles that are part of the binary, by name.
const EMBEDDED: [(&str, &str); 20] = embedded![
    "api-server",
    "api-server-bootstrap",
    "database",
    "database-bootstrap",
    "idp",
    "idp-bootstrap",
    "internal-app",
    "internal-app-bootstrap",
    "nas",
    "nas-bootstrap",
    "reverse-proxy",
    "reverse-proxy-bootstrap",
    "ssh-bastion",
    "ssh-bastion-bootstrap",
    "web-server",
    "web-server-bootstrap",
    "ziti-controller",
    "ziti-controller-bootstrap",
    "ziti-router",
    "ziti-router-bootstrap",
];

/// Profiles and files that were read and have the right shape, laid over each other; their values
/// are checked by `resolve`.
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    /// Where the topmost was read, for errors: a path, or `profile NAME`.
    pub(super) origin: String,
    pub(super) metadata: Metadata,
    /// Mildest first, the defaults not among them.
    pub(super) layers: Vec<Layer>,
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

    /// The text of a profile that is part of the binary, as it was written.
    pub fn text(name: &str) -> Result<&'static str, ProfileError> {
        Self::named(name)?;
        let own = EMBEDDED.iter().find(|(own, _)| *own == name);
        Ok(own.map(|(_, text)| *text).unwrap_or_default())
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
        // Some editors write a byte order mark, which YAML 1.2 allows (5.2) and the parser does not.
        let text = text.trim_start_matches('\u{feff}');
        check_header(origin, text)?;
        let refuse = |error: serde_yaml::Error| explain(origin, &error);
        let strict: Document = serde_yaml::from_str(text).map_err(refuse)?;
        let tree = serde_yaml::from_str(text).map_err(refuse)?;
        let mut layers = match strict.metadata.extends.as_str() {
            "" => Vec::new(),
            base => {
                Self::named(base)
                    .map_err(|error| ProfileError::Invalid {
                        origin: origin.to_owned(),
                        key: "metadata.extends".to_owned(),
                        problem: error.to_string(),
                    })?
                    .layers
            }
        };
        layers.push(Layer::of_document(origin, &tree));
        Ok(Self {
            origin: origin.to_owned(),
            metadata: strict.metadata,
            layers,
        })
    }

    /// This file laid over a profile: what it leaves out is the profile's.
    #[must_use]
    pub fn over(mut self, profile: Self) -> Self {
        self.layers.splice(0..0, profile.layers);
        self
    }

    /// What the file calls itself.
    pub fn name(&self) -> &str {
        &self.metadata.name
    }

    /// What it says it is for.
    pub fn description(&self) -> &str {
        &self.metadata.description
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
