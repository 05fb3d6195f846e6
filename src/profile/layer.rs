//! Precedence, once: command line before file before profile before default.
//!
//! Each of these is a layer: a tree of the keys it sets and where they come from. Laid over each
//! other they give one tree with every key, read into the schema, and the origin of each value.

use std::collections::BTreeMap;

use serde_yaml::{Mapping, Value};

use super::error::ProfileError;
use super::schema::Spec;
use crate::model::{nearest, parse_duration};

/// What nothing else sets.
const DEFAULTS: &str = include_str!("defaults.yaml");

/// Keys without a default: nobody but the operator knows them.
const REQUIRED: [&str; 4] = [
    "signal_engine.pps_trigger",
    "progressive_enforcement.soft_at",
    "progressive_enforcement.hard_at",
    "progressive_enforcement.block_at",
];

/// Where 0 and "" mean "not set here", as files of this schema always had it.
const ZERO_IS_UNSET: [&str; 5] = [
    "signal_engine.weights.cap",
    "graph.",
    "baseline.",
    "autotune.",
    "adapters.shield_pep.",
];

/// The keys that one origin sets, by their path below `spec`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Layer {
    origin: String,
    leaves: BTreeMap<String, Value>,
}

/// One effective value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Path below `spec`, as `signal_engine.pps_trigger`.
    pub key: String,
    /// As YAML.
    pub value: String,
    /// `default`, `profile NAME`, the path of a file, or `command line (--FLAG)`.
    pub origin: String,
}

impl Layer {
    pub(super) fn defaults() -> Self {
        let tree = serde_yaml::from_str(DEFAULTS).unwrap_or_default();
        Self::of_document("default", &tree)
    }

    /// The keys below `spec` of a document that was read strictly before.
    pub(super) fn of_document(origin: &str, document: &Value) -> Self {
        let mut leaves = BTreeMap::new();
        if let Some(spec) = document.get("spec") {
            flatten("", spec, &mut leaves);
        }
        if origin != "default" {
            leaves.retain(|key, value| !(is_zero(value) && zero_is_unset(key)));
        }
        Self {
            origin: origin.to_owned(),
            leaves,
        }
    }

    pub(super) fn single(origin: String, key: &str, value: Value) -> Self {
        Self {
            origin,
            leaves: BTreeMap::from([(key.to_owned(), value)]),
        }
    }
}

fn flatten(path: &str, value: &Value, leaves: &mut BTreeMap<String, Value>) {
    match value {
        Value::Mapping(mapping) => {
            for (key, below) in mapping {
                let key = key.as_str().unwrap_or_default();
                let path = if path.is_empty() {
                    key.to_owned()
                } else {
                    format!("{path}.{key}")
                };
                flatten(&path, below, leaves);
            }
        }
        Value::Null => {}
        Value::Bool(_)
        | Value::Number(_)
        | Value::String(_)
        | Value::Sequence(_)
        | Value::Tagged(_) => {
            leaves.insert(path.to_owned(), value.clone());
        }
    }
}

fn zero_is_unset(key: &str) -> bool {
    ZERO_IS_UNSET.iter().any(|prefix| key.starts_with(prefix))
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => {
            text.is_empty() || parse_duration(text).is_ok_and(|span| span.is_zero())
        }
        Value::Null
        | Value::Bool(_)
        | Value::Sequence(_)
        | Value::Mapping(_)
        | Value::Tagged(_) => false,
    }
}

/// Layers laid over each other, mildest first.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Stack {
    /// By key: its value and the origin that set it.
    merged: BTreeMap<String, (Value, String)>,
}

impl Stack {
    pub(super) fn of<'a>(layers: impl IntoIterator<Item = &'a Layer>) -> Self {
        let mut merged = BTreeMap::new();
        for layer in layers {
            for (key, value) in &layer.leaves {
                merged.insert(key.clone(), (value.clone(), layer.origin.clone()));
            }
        }
        Self { merged }
    }

    /// Where the value of `key` comes from.
    pub(super) fn origin(&self, key: &str) -> Option<&str> {
        self.merged.get(key).map(|(_, origin)| origin.as_str())
    }

    /// The first required key that nothing sets.
    pub(super) fn missing(&self) -> Option<&'static str> {
        REQUIRED
            .into_iter()
            .find(|key| !self.merged.contains_key(*key))
    }

    /// All of it in the schema's types. Only what the command line set can be refused here: files
    /// were read strictly before.
    pub(super) fn spec(&self) -> Result<Spec, serde_yaml::Error> {
        let mut spec = Value::Mapping(Mapping::new());
        for (key, (value, _)) in &self.merged {
            put(&mut spec, key, value.clone());
        }
        serde_yaml::from_value(spec)
    }

    pub(super) fn settings(&self) -> Vec<Setting> {
        let setting = |(key, (value, origin)): (&String, &(Value, String))| Setting {
            key: key.clone(),
            value: serde_yaml::to_string(value)
                .map(|text| one_line(&text))
                .unwrap_or_default(),
            origin: origin.clone(),
        };
        self.merged.iter().map(setting).collect()
    }
}

/// Block sequences are the only values of the schema that YAML writes over several lines.
fn one_line(yaml: &str) -> String {
    if yaml.starts_with("- ") {
        let items: Vec<&str> = yaml
            .lines()
            .map(|line| line.trim_start_matches("- "))
            .collect();
        return format!("[{}]", items.join(", "));
    }
    yaml.trim_end().to_owned()
}

fn put(tree: &mut Value, path: &str, value: Value) {
    let (first, rest) = match path.split_once('.') {
        Some((first, rest)) => (first, Some(rest)),
        None => (path, None),
    };
    let Value::Mapping(mapping) = tree else {
        return;
    };
    match rest {
        None => {
            mapping.insert(first.into(), value);
        }
        Some(rest) => {
            let below = mapping
                .entry(first.into())
                .or_insert_with(|| Value::Mapping(Mapping::new()));
            put(below, rest, value);
        }
    }
}

/// The layer of `--set KEY=VALUE`.
///
/// # Errors
/// `Invalid` with the nearest key if there is no such key, or if the value has another form.
pub(super) fn set_on_command_line(text: &str) -> Result<Layer, ProfileError> {
    let refuse = |problem: String| ProfileError::Invalid {
        origin: "command line".to_owned(),
        key: format!("--set {text}"),
        problem,
    };
    let Some((key, value)) = text.split_once('=') else {
        return Err(refuse(
            "write KEY=VALUE, as signal_engine.pps_trigger=500".to_owned(),
        ));
    };
    let key = key.trim().trim_start_matches("spec.");
    let defaults = Layer::defaults();
    let known = || {
        let keys = defaults.leaves.keys().map(String::as_str);
        keys.chain(REQUIRED).chain(["graph.store"])
    };
    if !known().any(|own| own == key) {
        let hint = nearest(key, known()).or_else(|| {
            let last = |path: &str| path.rsplit('.').next().map(str::to_owned);
            known().find(|own| last(own) == last(key))
        });
        return Err(refuse(match hint {
            Some(meant) => format!("there is no such key; did you mean '{meant}'?"),
            None => "there is no such key; --print-config lists them".to_owned(),
        }));
    }
    let value: Value = serde_yaml::from_str(value).map_err(|error| refuse(error.to_string()))?;
    let layer = Layer::single("command line (--set)".to_owned(), key, value);
    match Stack::of([&layer]).spec() {
        Ok(_) => Ok(layer),
        Err(error) => Err(refuse(error.to_string().replace('`', "'"))),
    }
}
