//! Nouns every other module speaks in. Pure: no input, no output, no clock.

mod counted;
mod duration;
mod echo;
mod nearest;
mod rate;
mod source;
mod stage;
mod time;
mod wall;

pub use counted::counted;
pub use duration::{ParseDurationError, format_duration, parse_duration};
pub use echo::{printable, shown};
pub use nearest::nearest;
pub use rate::{ByteLimit, Hold, LimitScope, ParseRateError, Rate, RateLimit};
pub use source::{ParseSourceError, Source};
pub use stage::Stage;
pub use time::{Ktime, Moment};
pub use wall::Wall;
