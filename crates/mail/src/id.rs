//! Identifiers. A message id is 63 bits, ordered by time, and reads as 13 characters of Crockford's base 32:
//! 41 bits of milliseconds since 2024, 10 bits of node, 12 bits of sequence.

use std::fmt;
use std::str::FromStr;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::clock::{Clock, Timestamp};

const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const EPOCH_MS: i64 = 1_704_067_200_000; // 2024-01-01T00:00:00Z
const LENGTH: usize = 13;

/// Names a message for ever: in the 250, in Received, in the logs, in the trace. Sorts by time of acceptance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MessageId(pub u64);

impl MessageId {
    /// The smallest id that can be made at this time: ids of messages accepted later are larger, as long as the
    /// clock goes forward.
    pub fn first_at(time: Timestamp) -> Self {
        Self((u64::try_from(time.millis().saturating_sub(EPOCH_MS)).unwrap_or(0) & ((1 << 41) - 1)) << 22)
    }

    /// The node that accepted the message; 0 when there was no cluster.
    pub fn node(self) -> u16 {
        u16::try_from(self.0 >> 12 & 0x3ff).unwrap_or(0)
    }

    /// About when the message with this id was accepted: to the millisecond, unless the clock went back then.
    pub fn accepted_at(self) -> Timestamp {
        Timestamp(i64::try_from(self.0 >> 22).unwrap_or(0).saturating_add(EPOCH_MS))
    }
}

/// An organisation. `OrgId::DEFAULT` exists from the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct OrgId(pub i64);

impl OrgId {
    /// The organisation `default`.
    pub const DEFAULT: OrgId = OrgId(1);
}

/// One message's part in one queue; the unit that is scheduled. Reads as `MESSAGE-INDEX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DeliveryId {
    /// The message.
    pub message: MessageId,
    /// Which of its deliveries, from 0.
    pub index: u16,
}

/// The text is no id of ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a message id: 13 letters and digits, as shown in the reply to DATA")]
pub struct IdError(String);

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0u8; LENGTH];
        let mut rest = self.0;
        for slot in text.iter_mut().rev() {
            *slot = ALPHABET[usize::try_from(rest & 31).unwrap_or(0)];
            rest >>= 5;
        }
        f.write_str(std::str::from_utf8(&text).unwrap_or_default())
    }
}

impl FromStr for MessageId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let bad = || IdError(text.chars().take(40).collect());
        if text.len() != LENGTH {
            return Err(bad());
        }
        let mut value: u64 = 0;
        for byte in text.bytes() {
            let digit = match byte.to_ascii_lowercase() {
                b'o' => 0,
                b'i' | b'l' => 1,
                other => ALPHABET.iter().position(|&c| c == other).ok_or_else(bad)? as u64,
            };
            value = value.checked_mul(32).ok_or_else(bad)? | digit;
        }
        if value > i64::MAX as u64 { Err(bad()) } else { Ok(Self(value)) }
    }
}

impl fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.message, self.index)
    }
}

/// Makes message ids: unique, and never smaller than one made before, even when the clock steps back.
#[derive(Debug)]
pub struct IdGenerator {
    clock: Clock,
    node: u64,
    last: Mutex<u64>,
}

impl IdGenerator {
    /// A generator for this node (0 when there is no cluster; 10 bits are used).
    pub fn new(clock: Clock, node: u16) -> Self {
        Self { clock, node: u64::from(node & 0x3ff), last: Mutex::new(0) }
    }

    /// Makes every later id larger than `seen`, an id found in the store at start.
    pub fn advance_past(&self, seen: MessageId) {
        let mut last = self.last.lock();
        *last = (*last).max(tick_of(seen.0));
    }

    /// The next id.
    pub fn next(&self) -> MessageId {
        let ms = u64::try_from(self.clock.now().millis() - EPOCH_MS).unwrap_or(0) & ((1 << 41) - 1);
        let mut last = self.last.lock();
        // `tick` is the id without its node: milliseconds, then sequence. Out of sequence numbers, it borrows
        // from the next millisecond.
        *last = (*last + 1).max(ms << 12);
        MessageId((*last >> 12) << 22 | self.node << 12 | (*last & 0xfff))
    }
}

fn tick_of(id: u64) -> u64 {
    (id >> 22) << 12 | (id & 0xfff)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    #[test]
    fn ids_grow_even_when_the_clock_steps_back() {
        let manual = ManualClock::new(Timestamp(1_795_500_000_000));
        let ids = IdGenerator::new(manual.clock(), 3);
        let mut before = MessageId::first_at(manual.clock().now());
        for round in 0..20_000 {
            if round == 5_000 {
                manual.jump_to(Timestamp(1_700_000_000_000));
            }
            let id = ids.next();
            assert!(id > before, "{id:?} after {before:?}");
            before = id;
        }
        let again = IdGenerator::new(manual.clock(), 3);
        again.advance_past(before);
        assert!(again.next() > before);
    }

    #[test]
    fn text_and_back() {
        let id = MessageId(0x0123_4567_89ab_cdef);
        assert_eq!(id.to_string().len(), LENGTH);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(id.to_string().to_uppercase().parse(), Ok(id));
        assert_eq!(MessageId::first_at(id.accepted_at()), MessageId(id.0 >> 22 << 22));
        assert!("zzzzzzzzzzzzz".parse::<MessageId>().is_err());
        assert!("short".parse::<MessageId>().is_err());
    }
}
