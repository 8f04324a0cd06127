//! Values as people write them: durations "5m", sizes "25MB", secrets, and anything that is parsed from a text.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserializer, Error, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// Units of durations, in milliseconds, largest first.
const TIME_UNITS: [(&str, u64); 6] =
    [("w", 604_800_000), ("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// Units of sizes, in octets. `MB` is 10⁶ octets, `MiB` is 2²⁰.
const SIZE_UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1000),
    ("B", 1),
];

/// Reads `"5m"`, `"1h30m"`, `"250ms"` or `"0"`.
///
/// # Errors
/// A sentence that says what a duration looks like.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("{text:?} is no duration: a number and a unit (ms, s, m, h, d, w), such as \"5m\"");
    let mut rest = text.trim();
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    let mut total: u64 = 0;
    let mut last_unit = u64::MAX;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, tail) = rest.split_at(digits);
        let letters = tail.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, tail) = tail.split_at(letters);
        let unit = TIME_UNITS.iter().find(|u| u.0 == unit).ok_or_else(bad)?.1;
        if unit >= last_unit {
            return Err(bad());
        }
        let part = number.parse::<u64>().ok().and_then(|n| n.checked_mul(unit)).ok_or_else(bad)?;
        total = total.checked_add(part).ok_or_else(bad)?;
        (rest, last_unit) = (tail, unit);
    }
    if last_unit == u64::MAX { Err(bad()) } else { Ok(Duration::from_millis(total)) }
}

/// The shortest text that reads back as the same duration.
pub fn format_duration(value: Duration) -> String {
    let mut rest = u64::try_from(value.as_millis()).unwrap_or(u64::MAX);
    if rest == 0 {
        return "0".into();
    }
    if let Some((unit, size)) = TIME_UNITS[1..].iter().find(|u| rest.is_multiple_of(u.1) && rest / u.1 < 1000)
    {
        return format!("{}{unit}", rest / size);
    }
    let mut text = String::new();
    for (unit, size) in TIME_UNITS {
        if rest >= size {
            text.push_str(&format!("{}{unit}", rest / size));
            rest %= size;
        }
    }
    text
}

/// Reads `"25MB"`, `"256KiB"` or `"0"`.
///
/// # Errors
/// A sentence that says what a size looks like.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let bad = || {
        format!("{text:?} is no size: a number and a unit (B, KB, MB, GB, KiB, MiB, GiB), such as \"25MB\"")
    };
    let text = text.trim();
    if text == "0" {
        return Ok(0);
    }
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit = SIZE_UNITS.iter().find(|u| u.0.eq_ignore_ascii_case(unit.trim_start())).ok_or_else(bad)?.1;
    number.parse::<u64>().ok().and_then(|n| n.checked_mul(unit)).ok_or_else(bad)
}

/// The shortest text that reads back as the same size.
pub fn format_size(value: u64) -> String {
    if value == 0 {
        return "0".into();
    }
    let fits = |unit: &&(&str, u64)| value.is_multiple_of(unit.1) && value / unit.1 < 100_000;
    match SIZE_UNITS.iter().filter(fits).min_by_key(|unit| value / unit.1) {
        Some((unit, size)) => format!("{}{unit}", value / size),
        None => format!("{value}B"),
    }
}

/// A value with a text form, for the serde modules below.
pub trait Text: Sized {
    /// What it is, for messages: `a duration such as "5m"`.
    const WHAT: &'static str;
    /// Name in the schema.
    const FORMAT: &'static str;
    /// From the text.
    ///
    /// # Errors
    /// A sentence.
    fn read(text: &str) -> Result<Self, String>;
    /// To the text.
    fn write(&self) -> String;
}

impl Text for Duration {
    const WHAT: &'static str = "a duration such as \"5m\"";
    const FORMAT: &'static str = "duration";
    fn read(text: &str) -> Result<Self, String> {
        parse_duration(text)
    }
    fn write(&self) -> String {
        format_duration(*self)
    }
}

impl Text for u64 {
    const WHAT: &'static str = "a size such as \"25MB\"";
    const FORMAT: &'static str = "size";
    fn read(text: &str) -> Result<Self, String> {
        parse_size(text)
    }
    fn write(&self) -> String {
        format_size(*self)
    }
}

impl Text for std::net::SocketAddr {
    const WHAT: &'static str = "an address and port such as \"0.0.0.0:25\"";
    const FORMAT: &'static str = "address:port";
    fn read(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| {
            if text.parse::<std::net::IpAddr>().is_ok() {
                format!("{text:?} lacks the port: write address:port, such as \"0.0.0.0:25\" or \"[::]:25\"")
            } else {
                format!("{text:?} is not address:port, such as \"0.0.0.0:25\" or \"[::]:25\"")
            }
        })
    }
    fn write(&self) -> String {
        self.to_string()
    }
}

impl Text for mail::HostPort {
    const WHAT: &'static str = "a host and port such as \"smtp.example.com:587\"";
    const FORMAT: &'static str = "host:port";
    fn read(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| format!("{text:?} is not host:port, such as \"smtp.example.com:587\""))
    }
    fn write(&self) -> String {
        self.to_string()
    }
}

impl Text for net::Network {
    const WHAT: &'static str = "a network such as \"192.0.2.0/24\"";
    const FORMAT: &'static str = "network";
    fn read(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| {
            format!("{text:?} is no network: an address with a prefix length, such as \"192.0.2.0/24\"")
        })
    }
    fn write(&self) -> String {
        self.to_string()
    }
}

/// The schema of a [`Text`] value.
pub struct AsText<T>(PhantomData<T>);

impl<T: Text> JsonSchema for AsText<T> {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        T::FORMAT.into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": T::FORMAT })
    }
}

struct TextVisitor<T>(PhantomData<T>);

impl<T: Text> Visitor<'_> for TextVisitor<T> {
    type Value = T;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::WHAT)
    }
    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        T::read(text).map_err(E::custom)
    }
}

/// `#[serde(with = "values::text")]`
pub mod text {
    use super::*;

    /// Reads one.
    ///
    /// # Errors
    /// The deserializer's.
    pub fn deserialize<'de, T: Text, D: Deserializer<'de>>(d: D) -> Result<T, D::Error> {
        d.deserialize_str(TextVisitor(PhantomData))
    }

    /// Writes one.
    ///
    /// # Errors
    /// The serializer's.
    pub fn serialize<T: Text, S: Serializer>(value: &T, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&value.write())
    }
}

/// `#[serde(with = "values::texts")]` for lists.
pub mod texts {
    use super::*;

    struct Item<T>(T);

    impl<'de, T: Text> Deserialize<'de> for Item<T> {
        fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
            text::deserialize(d).map(Item)
        }
    }

    /// Reads a list.
    ///
    /// # Errors
    /// The deserializer's.
    pub fn deserialize<'de, T: Text, D: Deserializer<'de>>(d: D) -> Result<Vec<T>, D::Error> {
        Ok(Vec::<Item<T>>::deserialize(d)?.into_iter().map(|item| item.0).collect())
    }

    /// Writes a list.
    ///
    /// # Errors
    /// The serializer's.
    pub fn serialize<T: Text, S: Serializer>(values: &[T], s: S) -> Result<S::Ok, S::Error> {
        s.collect_seq(values.iter().map(Text::write))
    }
}

/// A password. Never shown.
#[derive(Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    pub fn new(secret: impl Into<String>) -> Self {
        Self(secret.into())
    }

    /// The secret itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str("(secret)")
    }
}

impl JsonSchema for Secret {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "secret".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "secret" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_and_write() {
        for (text, ms) in [("5m", 300_000), ("1s", 1000), ("250ms", 250), ("5d", 432_000_000), ("0", 0)] {
            let value = parse_duration(text).unwrap();
            assert_eq!(value, Duration::from_millis(ms));
            assert_eq!(format_duration(value), text);
        }
        assert_eq!(parse_duration("1h30m").unwrap(), Duration::from_secs(5400));
        for bad in ["", "5", "m", "5 m", "-5m", "5x", "1m1h", "1m1m", "99999999999999w"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_read_and_write() {
        for (text, octets) in [("25MB", 25_000_000), ("256KiB", 262_144), ("64MiB", 67_108_864), ("0", 0)] {
            assert_eq!(parse_size(text).unwrap(), octets);
            assert_eq!(format_size(octets), text);
        }
        assert_eq!(parse_size("25 mb").unwrap(), 25_000_000);
        for bad in ["", "25", "MB", "-1MB", "1.5MB", "99999999TB"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_secret_does_not_show() {
        let secret = Secret::new("hunter2");
        assert!(!format!("{secret:?}").contains("hunter2"));
        assert!(!serde_json::to_string(&secret).unwrap().contains("hunter2"));
    }
}
