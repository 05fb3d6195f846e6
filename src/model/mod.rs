//! Nouns every other module speaks in. Pure: no input, no output, no clock.

mod duration;
mod rate;
mod source;
mod stage;
mod time;
mod wall;

pub use duration::{ParseDurationError, format_duration, parse_duration};
pub use rate::{Hold, LimitScope, RateLimit};
pub use source::{ParseSourceError, Source};
pub use stage::Stage;
pub use time::Ktime;
pub use wall::Wall;
