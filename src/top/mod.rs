//! `shield top`: who sends, what the data plane does about it, and a hand on it. The state and the
//! picture are pure; `cmd` brings rows, keys and a terminal.

mod app;
mod rows;
mod view;

pub use app::{App, Change, Command, Deed, Key, SortKey};
pub use rows::{Held, Row, Verdict, rows};
pub use view::{Look, draw};
