//! JSON is one object on one line. Fields are only ever added; numbers are numbers; what does not
//! apply is null. The structs beside the tables are the schema.

use serde::Serialize;

/// The object and a line end.
pub(super) fn to_line(value: &impl Serialize) -> String {
    // Structs of strings and numbers: there is nothing serde_json could refuse.
    let mut text = serde_json::to_string(value).unwrap_or_default();
    text.push('\n');
    text
}
