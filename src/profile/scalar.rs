//! Values of a profile that are checked where they stand, so that errors carry their position.

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use serde::de::{self, Deserialize, Deserializer, Visitor};

use crate::model::{Source, format_duration, parse_duration};

/// A finite number, not negative.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Default)]
pub struct Amount(f64);

impl Amount {
    pub const fn get(self) -> f64 {
        self.0
    }
}

/// A length of time, written like `30s` or `1h30m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Span(Duration);

impl Span {
    pub const fn get(self) -> Duration {
        self.0
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format_duration(self.0))
    }
}

/// An address or prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr(Source);

impl Cidr {
    pub const fn get(self) -> Source {
        self.0
    }
}

/// A scalar that is read from text.
trait Text: Sized {
    const WANTED: &'static str;
    fn read(text: &str) -> Result<Self, String>;
}

impl Text for Span {
    const WANTED: &'static str = "a duration such as 30s, 10m or 1h30m";

    fn read(text: &str) -> Result<Self, String> {
        parse_duration(text).map(Self).map_err(|e| e.to_string())
    }
}

impl Text for Cidr {
    const WANTED: &'static str = "an address or prefix such as 192.0.2.0/24";

    fn read(text: &str) -> Result<Self, String> {
        text.parse().map(Self).map_err(|e| format!("{e}"))
    }
}

struct TextVisitor<T>(PhantomData<T>);

impl<T: Text> Visitor<'_> for TextVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::WANTED)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        T::read(text).map_err(E::custom)
    }

    /// A plain `0` is a number by the time layers are merged.
    fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextVisitor(PhantomData))
    }
}

impl<'de> Deserialize<'de> for Cidr {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextVisitor(PhantomData))
    }
}

struct AmountVisitor;

impl Visitor<'_> for AmountVisitor {
    type Value = Amount;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number")
    }

    #[expect(clippy::cast_precision_loss, reason = "2^53 is beyond any rate")]
    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Amount, E> {
        self.visit_f64(number as f64)
    }

    #[expect(clippy::cast_precision_loss, reason = "2^53 is beyond any rate")]
    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Amount, E> {
        self.visit_f64(number as f64)
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Amount, E> {
        if !number.is_finite() {
            Err(E::custom("the number must be finite"))
        } else if number < 0.0 {
            Err(E::custom(format!("{number} must not be negative")))
        } else {
            Ok(Amount(number))
        }
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AmountVisitor)
    }
}

struct TruthVisitor;

impl Visitor<'_> for TruthVisitor {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a boolean")
    }

    fn visit_bool<E: de::Error>(self, truth: bool) -> Result<bool, E> {
        Ok(truth)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<bool, E> {
        match text {
            "y" | "Y" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => Ok(true),
            "n" | "N" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => Ok(false),
            _ => Err(E::invalid_type(de::Unexpected::Str(text), &self)),
        }
    }
}

/// `true` and `false`, and the words that YAML 1.1 had for them (<https://yaml.org/type/bool.html>):
/// files of this schema may hold them.
pub(super) fn truth<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    deserializer.deserialize_any(TruthVisitor)
}
