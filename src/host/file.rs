//! `kernloom.toml`, read strictly: an unknown key is an error with line, column and nearest key.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _};

use crate::cli::{LogFormat, Sizing, interface_name, listen_address, tick};
use crate::error::{Error, Result};
use crate::model::{Source, nearest};
use crate::profile::Profile;
use crate::trust;

/// The keys of the file; each has a flag of the same name.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct HostFile {
    pub instance: Option<String>,
    pub bpffs: Option<PathBuf>,
    pub run_dir: Option<PathBuf>,
    pub state_dir: Option<PathBuf>,
    pub log_format: Option<LogFormat>,
    #[serde(deserialize_with = "sources")]
    pub management: Option<Vec<Source>>,
    #[serde(deserialize_with = "groups")]
    pub group: Option<BTreeMap<String, Vec<Source>>>,
    #[serde(deserialize_with = "interfaces")]
    pub iface: Option<Vec<String>>,
    #[serde(deserialize_with = "profile")]
    pub profile: Option<String>,
    pub pdp_config: Option<PathBuf>,
    pub dry_run: Option<bool>,
    #[serde(deserialize_with = "interval")]
    pub interval: Option<Duration>,
    pub whitelist: Option<PathBuf>,
    pub whitelist_learn: Option<bool>,
    pub feedback: Option<PathBuf>,
    pub journal: Option<PathBuf>,
    pub store: Option<PathBuf>,
    #[serde(deserialize_with = "listen")]
    pub metrics_listen: Option<SocketAddr>,
    pub metrics_textfile: Option<PathBuf>,
    pub sizing: Option<Sizing>,
    pub sources: Option<u32>,
    pub max_deny: Option<u32>,
}

impl HostFile {
    /// # Errors
    /// Operator's: the file is missing or wrong; names path, line and column.
    pub fn read(path: &Path) -> Result<Self> {
        Self::read_if_there(path).and_then(|file| {
            if path.exists() {
                Ok(file)
            } else {
                Err(Error::operator(format!(
                    "cannot read {}: there is no such file; leave out --config to use the defaults",
                    path.display()
                )))
            }
        })
    }

    pub(super) fn read_if_there(path: &Path) -> Result<Self> {
        match trust::read_settings(path) {
            Ok(text) => Self::parse(&path.display().to_string(), &text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(Error::operator(format!(
                "cannot read {}: {error}",
                path.display()
            ))),
        }
    }

    /// # Errors
    /// As `read`; `origin` is named in them.
    pub fn parse(origin: &str, text: &str) -> Result<Self> {
        let file: Self = toml::from_str(text).map_err(|error| {
            let (line, column) = error
                .span()
                .map_or((1, 1), |span| position(text, span.start));
            let message = explain(error.message());
            Error::operator(format!("{origin}:{line}:{column}: {message}"))
        })?;
        for (key, value) in [("sources", file.sources), ("max-deny", file.max_deny)] {
            if value.is_some_and(|value| !(64..=16_777_216).contains(&value)) {
                return Err(Error::operator(format!(
                    "{origin}: {key}: give 64 to 16777216"
                )));
            }
        }
        Ok(file)
    }
}

/// Line and column of a byte offset, both from 1.
fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let start = before.rfind('\n').map_or(0, |at| at + 1);
    (line, before[start..].chars().count() + 1)
}

fn explain(message: &str) -> String {
    let Some(rest) = message.strip_prefix("unknown field ") else {
        return message.replace('`', "'").replace('\n', " ");
    };
    let mut words = rest.split('`').skip(1).step_by(2);
    let key = words.next().unwrap_or_default();
    let valid: Vec<&str> = words.collect();
    match nearest(key, valid.iter().copied()) {
        Some(meant) => format!("unknown key '{key}'; did you mean '{meant}'?"),
        None => format!("unknown key '{key}'; there are {}", valid.join(", ")),
    }
}

fn read_all<E: serde::de::Error>(texts: Vec<String>) -> Result<Vec<Source>, E> {
    let read = |text: String| text.parse().map_err(E::custom);
    texts.into_iter().map(read).collect()
}

fn sources<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<Source>>, D::Error> {
    read_all(Vec::deserialize(deserializer)?).map(Some)
}

fn groups<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<BTreeMap<String, Vec<Source>>>, D::Error> {
    let written = BTreeMap::<String, Vec<String>>::deserialize(deserializer)?;
    let read = |(name, texts)| Ok((name, read_all(texts)?));
    written
        .into_iter()
        .map(read)
        .collect::<Result<_, _>>()
        .map(Some)
}

fn interval<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(deserializer)?;
    tick(&text).map(Some).map_err(D::Error::custom)
}

// What only IQ goes by is told wrong here all the same: a copy of the settings must not take it over.

fn listen<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SocketAddr>, D::Error> {
    let text = String::deserialize(deserializer)?;
    listen_address(&text).map(Some).map_err(D::Error::custom)
}

fn profile<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let name = String::deserialize(deserializer)?;
    Profile::named(&name).map_err(D::Error::custom)?;
    Ok(Some(name))
}

fn interfaces<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<String>>, D::Error> {
    let names = Vec::<String>::deserialize(deserializer)?;
    let names: Result<_, _> = names.iter().map(|name| interface_name(name)).collect();
    names.map(Some).map_err(D::Error::custom)
}
