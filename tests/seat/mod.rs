//! What operators look at away from a running IQ: replays, pages, and the schemas of all JSON.

mod page;
mod replay;

use std::path::Path;

/// Fails unless `text` is JSON that the schema it names allows; returns it.
pub fn documented(text: &str) -> serde_json::Value {
    let value: serde_json::Value = serde_json::from_str(text).unwrap();
    let named = value["schema"].as_str().unwrap_or_default();
    let name = named
        .strip_prefix("kernloom.")
        .and_then(|rest| rest.strip_suffix("/1"));
    valid(
        name.unwrap_or_else(|| panic!("'{named}' is no schema: {text}")),
        text,
    )
}

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

#[test]
fn every_published_schema_is_one_and_names_its_document_and_version() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/schemas");
    let mut names = Vec::new();
    for file in std::fs::read_dir(dir).unwrap() {
        let path = file.unwrap().path();
        let file = path.file_name().unwrap().to_str().unwrap();
        let name = file.strip_suffix(".schema.json").unwrap().to_owned();
        let schema = std::fs::read_to_string(&path).unwrap();
        let schema: serde_json::Value = serde_json::from_str(&schema).unwrap();
        assert!(jsonschema::meta::is_valid(&schema), "{name}");
        assert_eq!(schema["$id"], format!("kernloom:{name}"));
        // An event of a log is told by its own fields.
        if name != "decision-event" {
            let named = &schema["properties"]["schema"]["const"];
            assert_eq!(*named, format!("kernloom.{name}/1"));
        }
        names.push(name);
    }
    names.sort();
    let expected = [
        "decision-event",
        "decisions",
        "doctor",
        "entries",
        "event",
        "events",
        "graph",
        "graph-readiness",
        "graph-violations",
        "iq-status",
        "iq-why",
        "replay",
        "simulate",
        "stats",
        "status",
        "top",
        "verdict",
    ];
    assert_eq!(names, expected);
}
