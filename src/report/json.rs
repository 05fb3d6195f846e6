//! JSON is one object on one line that names its schema: `"schema":"kernloom.NAME/VERSION"`, whose
//! words are in packaging/schemas/NAME.schema.json. Within a version fields are only ever added;
//! numbers are numbers; what does not apply is null.

use serde::Serialize;

/// The version of every schema there is.
const VERSION: u32 = 1;

#[derive(Serialize)]
struct Document<'a, T> {
    schema: String,
    #[serde(flatten)]
    body: &'a T,
}

/// The object and a line end.
pub fn document(name: &str, body: &impl Serialize) -> String {
    let schema = format!("kernloom.{name}/{VERSION}");
    // Structs of strings and numbers: there is nothing serde_json could refuse.
    let mut text = serde_json::to_string(&Document { schema, body }).unwrap_or_default();
    text.push('\n');
    text
}
