//! One page, self-contained: the data as JSON, a script that draws and filters it, no network.

use super::GraphView;
use crate::error::{Error, Result};

const PAGE: &str = include_str!("page.html");
const DATA: &str = "/*DATA*/null";

impl GraphView {
    /// A page that shows the graph as a picture, with search and filters.
    pub fn to_html(&self) -> Result<String> {
        let data = serde_json::to_string(self)
            .map_err(|error| Error::world(format!("writing the graph as a page: {error}")))?;
        // Inside a script element only "</" could end it.
        Ok(PAGE.replacen(DATA, &data.replace("</", "<\\/"), 1))
    }
}
