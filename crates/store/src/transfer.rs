//! Everything that the store keeps, carried from one engine to the other while no relay runs on either: what
//! `posthouse migrate` is made of.
//!
//! A [`Side`] has one engine's data to itself. What is read comes in pages, in an order that is the same on both sides;
//! what is put may be put again. So a transfer that was cut short goes on behind the last message that has arrived, and
//! both sides can be compared octet by octet. A [`Mark`] on each side keeps relays from working on data that is on its
//! way: while it arrives the target refuses to be opened, and once it has arrived the source does.

mod files;
mod marks;
mod tables;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::Path;

use mail::{Event, MessageId, Timestamp};
use serde::Serialize;

use crate::content::ContentRef;
use crate::error::StoreError;

pub use marks::{Mark, mark_of_dir, mark_of_postgres};
pub(crate) use marks::{refuse_dir, refuse_postgres, stays_in_dir};

type Result<T> = std::result::Result<T, StoreError>;

/// Events of a node, with their numbers.
pub type Told = (u16, Vec<(u64, Event)>);

/// Between the last event number that anybody knows and the next one that is given: the history takes a number it knows for
/// an event it knows.
const EVENTS_AHEAD: u64 = 1 << 32;
/// Event numbers begin at the present moment times this: above those of every earlier stay of the data in this engine.
const EVENTS_A_MILLISECOND: u64 = 64;

/// Everything that is kept of a message, but for its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Carried {
    /// Its id.
    pub id: MessageId,
    received_at: i64,
    sender: String,
    length: u64,
    crc: u32,
    detail: Vec<u8>,
    deliveries: Vec<Delivery>,
    /// Where its content is on the side that it comes from.
    at: ContentRef,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Delivery {
    index: u16,
    queue: Queue,
    state: u8,
    due: Option<i64>,
    attempts: i64,
    crashes: i64,
    warned: bool,
    reason: Option<String>,
    recipients: Vec<Recipient>,
}

/// As the columns have it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct Queue {
    org: i64,
    stream: i32,
    destination: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Recipient {
    number: i32,
    address: String,
    status: i32,
    detail: Option<Vec<u8>>,
    outcome: Option<Vec<u8>>,
}

/// A dedupe key that is taken.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Key {
    /// Whose.
    pub org: i64,
    /// The key.
    pub key: Vec<u8>,
    expires: i64,
    message: i64,
}

/// What is to be known at the end of a transfer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Last {
    /// No message id up to this one may be given again.
    pub id: Option<MessageId>,
    /// By node: the last number of an event that anybody knows. Also of those whose messages alone are known.
    pub events: BTreeMap<u16, u64>,
}

impl Carried {
    /// Octets of its content.
    pub fn size(&self) -> u64 {
        self.length
    }

    /// How many deliveries it has.
    pub fn deliveries(&self) -> usize {
        self.deliveries.len()
    }

    /// How many recipients it has, those that are settled included.
    pub fn recipients(&self) -> usize {
        self.deliveries.iter().map(|d| d.recipients.len()).sum()
    }

    /// All of it but the content in octets, the same on both sides: for comparing.
    pub fn octets(&self) -> Vec<u8> {
        let Self { id, received_at, sender, length, crc, detail, deliveries, at: _ } = self;
        octets(&(id.0, received_at, sender, length, crc, detail, deliveries))
    }
}

impl Key {
    /// It in octets, the same on both sides.
    pub fn octets(&self) -> Vec<u8> {
        octets(self)
    }
}

fn octets<T: Serialize>(value: &T) -> Vec<u8> {
    // Writing into memory cannot fail.
    postcard::to_extend(value, Vec::new()).unwrap_or_default()
}

/// A delivery that somebody had in hand when the relay ended waits, and has been due since it came.
fn not_in_hand(state: u8, due: Option<i64>, received_at: i64) -> (u8, Option<i64>) {
    if state == 0 { (1, due.or(Some(received_at))) } else { (state, due) }
}

/// Where event numbers go on: behind all that is known of earlier ones, and above those of every earlier stay.
fn events_from(known: u64, now: Timestamp) -> u64 {
    let now = u64::try_from(now.0).unwrap_or(0).saturating_mul(EVENTS_A_MILLISECOND);
    now.max(known.saturating_add(EVENTS_AHEAD))
}

/// One engine's data, for nobody else meanwhile. The embedded one blocks the thread that asks.
pub struct Side(Engine);

enum Engine {
    Files(Box<files::Files>),
    Tables(tables::Tables),
}

macro_rules! on {
    ($side:expr, $engine:ident => $files:expr, $tables:expr) => {
        match &$side.0 {
            Engine::Files($engine) => $files,
            Engine::Tables($engine) => $tables,
        }
    };
}

impl Side {
    /// The embedded store in `dir`, made if it is not there. Takes the lock of the directory. With `aside`, files that a
    /// transfer has taken away from here are first moved into a directory beside them: the store's own, and these.
    ///
    /// # Errors
    /// `Locked` while a relay runs there, `Newer`, `Io`.
    pub fn files(dir: &Path, aside: Option<(&str, &[&str])>) -> Result<Self> {
        Ok(Self(Engine::Files(Box::new(files::Files::open(dir, aside)?))))
    }

    /// The store in PostgreSQL, made if it is not there.
    ///
    /// # Errors
    /// `Server`, `Unavailable`.
    pub async fn tables(pool: postgres::Pool, now: Timestamp) -> Result<Self> {
        Ok(Self(Engine::Tables(tables::Tables::open(pool, now).await?)))
    }

    /// What the data here is marked with.
    ///
    /// # Errors
    /// `Io`, `Unavailable`.
    pub async fn mark(&self) -> Result<Option<Mark>> {
        on!(self, side => side.mark(), side.mark().await)
    }

    /// Marks it, on stable storage.
    ///
    /// # Errors
    /// `Io`, `Unavailable`.
    pub async fn set_mark(&self, mark: Option<&Mark>) -> Result<()> {
        on!(self, side => side.set_mark(mark), side.set_mark(mark).await)
    }

    /// Has no node that still believes to be alive write any more. For PostgreSQL, once its nodes have been stopped.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn fence(&self) -> Result<()> {
        on!(self, _side => Ok(()), _side.fence().await)
    }

    /// Whether there is nothing: no message, no key, no event.
    ///
    /// # Errors
    /// `Io`, `Unavailable`.
    pub async fn is_empty(&self) -> Result<bool> {
        on!(self, side => side.is_empty(), side.is_empty().await)
    }

    /// Removes everything that a transfer which was given up had put here.
    ///
    /// # Errors
    /// `Io`, `Unavailable`.
    pub async fn clear(&self) -> Result<()> {
        on!(self, side => side.clear(), side.clear().await)
    }

    /// Some of the events that wait for the history, with their numbers, all of one node; none when all have been taken.
    ///
    /// # Errors
    /// `Io`, `Unavailable`.
    pub async fn outbox(&self) -> Result<Option<Told>> {
        on!(self, side => side.outbox(), side.outbox().await)
    }

    /// A node's events up to this number are in the history.
    ///
    /// # Errors
    /// `Io`, `Unavailable`.
    pub async fn outbox_done(&self, node: u16, up_to: u64) -> Result<()> {
        on!(self, side => side.outbox_done(up_to), side.outbox_done(node, up_to).await)
    }

    /// At most `n` messages behind `after`, in order of their ids.
    ///
    /// # Errors
    /// `Io`, `Unavailable`.
    pub async fn messages(&self, after: Option<MessageId>, n: usize) -> Result<Vec<Carried>> {
        on!(self, side => side.messages(after, n), side.messages(after, n).await)
    }

    /// How many messages there are.
    ///
    /// # Errors
    /// `Io`, `Unavailable`.
    pub async fn count(&self) -> Result<u64> {
        on!(self, side => side.count(), side.count().await)
    }

    /// The content of one of [`messages`](Self::messages), all of it; none when it is not what was written.
    ///
    /// # Errors
    /// `Io`, `Unavailable`.
    pub async fn content(&self, of: &Carried) -> Result<Option<Vec<u8>>> {
        on!(self, side => side.content(of), side.content(of).await)
    }

    /// The message with the largest id.
    ///
    /// # Errors
    /// `Io`, `Unavailable`.
    pub async fn last(&self) -> Result<Option<MessageId>> {
        on!(self, side => side.last(), side.last().await)
    }

    /// Puts messages here, on stable storage. A message whose content is damaged stays one: it is found out again here.
    ///
    /// # Errors
    /// `Io`, `NoSpace`, `Unavailable`.
    pub async fn put(&self, messages: &[(Carried, Option<Vec<u8>>)], now: Timestamp) -> Result<()> {
        on!(self, side => side.put(messages), side.put(messages, now).await)
    }

    /// At most `n` dedupe keys behind `after`, in order.
    ///
    /// # Errors
    /// `Io`, `Unavailable`.
    pub async fn keys(&self, after: Option<&Key>, n: usize) -> Result<Vec<Key>> {
        on!(self, side => side.keys(after, n), side.keys(after, n).await)
    }

    /// Puts dedupe keys here.
    ///
    /// # Errors
    /// `Io`, `NoSpace`, `Unavailable`.
    pub async fn put_keys(&self, keys: &[Key]) -> Result<()> {
        on!(self, side => side.put_keys(keys), side.put_keys(keys).await)
    }

    /// The notes, by name. Of those that each node keeps, the ones of the node with the lowest number.
    ///
    /// # Errors
    /// `Io`, `Unavailable`.
    pub async fn notes(&self) -> Result<Vec<(String, Vec<u8>)>> {
        on!(self, side => side.notes(), side.notes().await)
    }

    /// Puts notes here; in PostgreSQL for the first node.
    ///
    /// # Errors
    /// `Io`, `NoSpace`, `Unavailable`.
    pub async fn put_notes(&self, notes: &[(String, Vec<u8>)]) -> Result<()> {
        on!(self, side => side.put_notes(notes), side.put_notes(notes).await)
    }

    /// Brings the sums up to date once everything is here. May be done again.
    ///
    /// # Errors
    /// `Io`, `NoSpace`, `Unavailable`.
    pub async fn finish(&self, last: &Last, now: Timestamp) -> Result<()> {
        on!(self, side => side.finish(last, now), side.finish(last, now).await)
    }
}
