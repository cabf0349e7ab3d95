//! Sizes and durations as people write them: `"64MiB"`, `"250ms"`. A bare number has no unit and is refused for durations.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A number of bytes: digits with an optional unit of `B`, `KB`, `MB`, `GB` (powers of 1000) or `KiB`, `MiB`, `GiB`
/// (powers of 1024). A bare number counts bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

/// A length of time: digits with a unit of `ms`, `s`, `min`, `h` or `d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

/// A text that is no size or duration; `Display` tells what would be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is no {what}")]
pub struct NotAUnit {
    pub what: &'static str,
    pub found: String,
}

const SIZE_UNITS: &[(&str, u64)] = &[
    ("", 1),
    ("B", 1),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
];

const SPAN_UNITS: &[(&str, u64)] = &[("ms", 1), ("s", 1_000), ("min", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// Splits `12MiB` into 12 and the factor of its unit.
fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..end].parse().ok()?;
    let unit = text[end..].trim();
    let factor = units.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?.1;
    number.checked_mul(factor)
}

impl FromStr for Size {
    type Err = NotAUnit;

    fn from_str(text: &str) -> Result<Size, NotAUnit> {
        let fail = || NotAUnit { what: "size (write `64MiB`, `1GB`, `4096`)", found: text.to_owned() };
        scaled(text, SIZE_UNITS).map(Size).ok_or_else(fail)
    }
}

impl FromStr for Span {
    type Err = NotAUnit;

    fn from_str(text: &str) -> Result<Span, NotAUnit> {
        let fail = || NotAUnit { what: "duration (write `250ms`, `10s`, `5min`, `24h`, `7d`)", found: text.to_owned() };
        scaled(text, SPAN_UNITS).map(|ms| Span(Duration::from_millis(ms))).ok_or_else(fail)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, factor) in [("GiB", 1u64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
            if self.0 >= factor && self.0.is_multiple_of(factor) {
                return write!(f, "{}{unit}", self.0 / factor);
            }
        }
        write!(f, "{}B", self.0)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.as_millis() as u64;
        for (unit, factor) in [("d", 86_400_000u64), ("h", 3_600_000), ("min", 60_000), ("s", 1_000)] {
            if ms >= factor && ms.is_multiple_of(factor) {
                return write!(f, "{}{unit}", ms / factor);
            }
        }
        write!(f, "{ms}ms")
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Size, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Size;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size such as \"64MiB\" or a number of bytes")
            }
            fn visit_u64<E>(self, v: u64) -> Result<Size, E> {
                Ok(Size(v))
            }
            fn visit_str<E: serde::de::Error>(self, v: &str) -> Result<Size, E> {
                v.parse().map_err(E::custom)
            }
        }
        d.deserialize_any(Visitor)
    }
}

impl Serialize for Size {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Span, D::Error> {
        Cow::<'de, str>::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

impl Serialize for Span {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl schemars::JsonSchema for Size {
    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "Bytes: a number, or text with a unit such as \"64MiB\" or \"1GB\".",
            "type": ["string", "integer"],
            "minimum": 0
        })
    }
}

impl schemars::JsonSchema for Span {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "A length of time with its unit: \"250ms\", \"10s\", \"5min\", \"24h\", \"7d\".",
            "type": "string",
            "x-units": SPAN_UNITS.iter().map(|(unit, _)| *unit).collect::<Vec<_>>()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_durations_survive_their_text_form() {
        for text in ["64MiB", "1GiB", "4096B", "1KiB"] {
            let size: Size = text.parse().expect("a size");
            assert_eq!(size.to_string().parse::<Size>(), Ok(size));
        }
        for text in ["250ms", "10s", "5min", "24h", "7d", "1d"] {
            let span: Span = text.parse().expect("a duration");
            assert_eq!(span.to_string().parse::<Span>(), Ok(span));
        }
        assert_eq!("1MB".parse(), Ok(Size(1_000_000)));
        assert_eq!("90".parse(), Ok(Size(90)));
    }

    #[test]
    fn what_has_no_unit_or_overflows_is_refused() {
        for text in ["", "MiB", "-1", "1.5GiB", "12XB", "99999999999GiB"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
        for text in ["", "10", "1m", "s", "-1s"] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
    }
}
