//! So many in a time.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// So many in a period. As text `100/1m`: the number, and the period as a duration (`s`, `m`, `h`, `d`; `500ms`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many.
    pub n: NonZeroU32,
    /// In what time; at least a millisecond.
    pub period: Duration,
}

/// The text is no rate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no rate: a number, a slash and a period, as in \"100/1m\" or \"5/1s\"")]
pub struct RateError(String);

/// The longest period: a day, as any plan that looks further ahead is a warm-up plan.
const PERIOD_MAX: Duration = Duration::from_secs(86_400);

impl Rate {
    /// A rate; none when the number is 0 or the period is not from a millisecond to a day.
    pub fn new(n: u32, period: Duration) -> Option<Self> {
        let fits = period >= Duration::from_millis(1) && period <= PERIOD_MAX;
        NonZeroU32::new(n).filter(|_| fits).map(|n| Self { n, period })
    }

    /// The time from one to the next when they are spread evenly.
    pub fn interval(self) -> Duration {
        self.period / self.n.get()
    }
}

impl FromStr for Rate {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Self, RateError> {
        let bad = || RateError(text.chars().take(40).collect());
        let (n, period) = text.split_once('/').ok_or_else(bad)?;
        let period = period.trim();
        let digits = period.bytes().take_while(u8::is_ascii_digit).count();
        let (amount, unit) = period.split_at(digits);
        // "100/m" is what people say, too.
        let amount: u64 = if amount.is_empty() { 1 } else { amount.parse().map_err(|_| bad())? };
        let unit = match unit.trim() {
            "ms" => Duration::from_millis(1),
            "s" => Duration::from_secs(1),
            "m" => Duration::from_secs(60),
            "h" => Duration::from_secs(3600),
            "d" => Duration::from_secs(86_400),
            _ => return Err(bad()),
        };
        let amount = u32::try_from(amount).map_err(|_| bad())?;
        let period = unit.checked_mul(amount).ok_or_else(bad)?;
        Rate::new(n.trim().parse().map_err(|_| bad())?, period).ok_or_else(bad)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.period.as_millis();
        let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")];
        let (size, unit) = units.into_iter().find(|(size, _)| ms.is_multiple_of(*size)).unwrap_or((1, "ms"));
        write!(f, "{}/{}{unit}", self.n, ms / size)
    }
}

impl Serialize for Rate {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_round_trip() {
        for text in ["100/1m", "5/1s", "10000/1h", "3/250ms", "1/1d", "7/90s"] {
            assert_eq!(text.parse::<Rate>().unwrap().to_string(), text);
        }
        assert_eq!("100/m".parse::<Rate>().unwrap().to_string(), "100/1m");
        assert_eq!("60/60s".parse::<Rate>().unwrap().interval(), Duration::from_secs(1));
        for bad in
            ["", "5", "0/1s", "5/0s", "5/2d", "-1/1s", "5/1", "5/1y", "99999999999/1s", "5/99999999999d"]
        {
            assert!(bad.parse::<Rate>().is_err(), "{bad}");
        }
    }
}
