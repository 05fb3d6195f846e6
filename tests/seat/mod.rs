//! What operators look at away from a running IQ: replays, pages, and the schemas of all JSON.

mod page;
mod replay;

use std::path::Path;

/// Fails unless `text` is JSON that `packaging/schemas/NAME.schema.json` allows; returns it.
pub fn valid(name: &str, text: &str) -> serde_json::Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("packaging/schemas")
        .join(format!("{name}.schema.json"));
    let schema = std::fs::read_to_string(&path).unwrap();
    let schema: serde_json::Value = serde_json::from_str(&schema).unwrap();
    let value: serde_json::Value = serde_json::from_str(text).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let wrong: Vec<String> = validator
        .iter_errors(&value)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    assert!(wrong.is_empty(), "{wrong:?}\n{text}");
    value
}
