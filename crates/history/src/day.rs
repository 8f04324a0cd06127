//! Days in UTC, as numbers since 1970.

use jiff::ToSpan;
use jiff::civil::Date;
use mail::{MessageId, Timestamp};

const DAY_MS: i64 = 86_400_000;

/// The day of a moment.
pub(crate) fn of(time: Timestamp) -> i32 {
    let day = time.millis().div_euclid(DAY_MS);
    i32::try_from(day.clamp(i64::from(i32::MIN), i64::from(i32::MAX) - 1)).unwrap_or_default()
}

/// The day that an id was made on.
pub(crate) fn of_id(id: MessageId) -> i32 {
    of(id.accepted_at())
}

/// When a day begins.
pub(crate) fn begin(day: i32) -> Timestamp {
    Timestamp(i64::from(day) * DAY_MS)
}

/// The smallest id that can be made on a day.
pub(crate) fn first_id(day: i32) -> MessageId {
    first_at(begin(day))
}

/// The smallest id that can be made at a time. Ids have 41 bits of milliseconds since 2024: behind their last moment there
/// is none.
pub(crate) fn first_at(time: Timestamp) -> MessageId {
    let last = MessageId(i64::MAX as u64);
    if time > last.accepted_at() { last } else { MessageId::first_at(time) }
}

/// As it is written in a file's name.
pub(crate) fn date(day: i32) -> Date {
    Date::constant(1970, 1, 1).saturating_add(day.days())
}

/// The number of a date.
pub(crate) fn number(date: Date) -> i32 {
    let since = date.duration_since(Date::constant(1970, 1, 1));
    i32::try_from(since.as_hours() / 24).unwrap_or(i32::MAX - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_and_dates() {
        let time = Timestamp(1_795_503_600_000);
        let day = of(time);
        assert_eq!(date(day).to_string(), "2026-11-24");
        assert_eq!(number(date(day)), day);
        assert!(begin(day) <= time && time < begin(day + 1));
        assert_eq!(of_id(first_id(day)), day);
        assert_eq!(of_id(MessageId(first_id(day).0 - 1)), day - 1);
        assert_eq!(first_id(0), MessageId(0));
        assert_eq!(first_id(i32::MAX - 1), MessageId(i64::MAX as u64));
        assert_eq!(of(Timestamp(-1)), -1);
        assert_eq!((of(Timestamp(i64::MIN)), of(Timestamp(i64::MAX))), (i32::MIN, i32::MAX - 1));
    }
}
