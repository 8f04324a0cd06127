//! How messages are found by sender, recipient, recipient's domain and Message-ID.
//!
//! A B-tree over hashes would write a random page for every key of every message. Here each batch writes its keys as
//! one sorted run, and sixteen small runs are merged into a larger one: writes are sequential, and a lookup reads one
//! part of each run. An entry is 32 bits of a 64-bit hash and the message's id; whoever looks up compares the message
//! itself.

use mail::{Accepted, Address, Recipient};
use rusqlite::{Connection, OptionalExtension, Transaction, params};

/// Entries in one part, about 12 KiB.
const PART_ENTRIES: usize = 1024;
/// So many runs of one level are merged.
const FAN_IN: usize = 16;
/// Runs of this level are left alone.
const LEVEL_MAX: u32 = 3;
/// Octets of an entry: four of hash, eight of id.
const ENTRY: usize = 12;

pub(crate) const SCHEMA: &str = "
    CREATE TABLE run (id INTEGER PRIMARY KEY, level INTEGER NOT NULL, entries INTEGER NOT NULL);
    -- key: the run's id in the upper 32 bits, the first entry's hash in the lower.
    CREATE TABLE part (key INTEGER PRIMARY KEY, entries BLOB NOT NULL);
";

/// What a message can be found by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    /// The envelope's sender, in lower case; empty for the null sender.
    Sender(String),
    /// A recipient, in lower case.
    Recipient(String),
    /// A recipient's domain.
    Domain(String),
    /// The Message-ID header field.
    MessageId(String),
}

/// 32 bits of a key's hash.
pub(crate) type Hash = u32;
pub(crate) type Entry = (Hash, u64);

impl Key {
    pub(crate) fn hash(&self) -> Hash {
        match self {
            Key::Sender(text) => hash(b's', text),
            Key::Recipient(text) => hash(b'r', text),
            Key::Domain(text) => hash(b'd', text),
            Key::MessageId(text) => hash(b'm', text),
        }
    }

    /// Whether this very message has the key.
    pub(crate) fn matches(&self, accepted: &Accepted) -> bool {
        match self {
            Key::Sender(text) => *text == folded_sender(accepted),
            Key::Recipient(text) => accepted
                .recipients
                .iter()
                .any(|r| *text == folded(&r.address) || original(r).is_some_and(|a| *text == folded(&a))),
            Key::Domain(text) => accepted.recipients.iter().any(|r| *text == r.address.domain()),
            Key::MessageId(text) => accepted.message.header_message_id.as_deref() == Some(text),
        }
    }
}

/// Adds all keys of a message.
pub(crate) fn add_keys(accepted: &Accepted, entries: &mut Vec<Entry>, folding: &mut String) {
    let id = accepted.message.id.0;
    folding.clear();
    if let Some(sender) = &accepted.message.reverse_path {
        fold(sender, folding);
    }
    entries.push((hash(b's', folding), id));
    let mut last_domain = "";
    for recipient in &accepted.recipients {
        folding.clear();
        fold(&recipient.address, folding);
        entries.push((hash(b'r', folding), id));
        if let Some(original) = original(recipient) {
            entries.push((hash(b'r', &folded(&original)), id));
        }
        let domain = recipient.address.domain();
        if domain != last_domain {
            entries.push((hash(b'd', domain), id));
            last_domain = domain;
        }
    }
    if let Some(text) = &accepted.message.header_message_id {
        entries.push((hash(b'm', text), id));
    }
}

/// Whom the sender wrote to, where ORCPT says another address than the recipient's (RFC 3461 section 4.2): whoever looks
/// for an alias finds the mail that went by it.
fn original(recipient: &Recipient) -> Option<Address> {
    let xtext = recipient
        .orcpt
        .as_deref()?
        .split_once(';')
        .filter(|(kind, _)| kind.eq_ignore_ascii_case("rfc822"))?
        .1;
    let mut octets = Vec::with_capacity(xtext.len());
    let mut rest = xtext.as_bytes();
    while let Some((&first, more)) = rest.split_first() {
        rest = more;
        let octet = match (first, more) {
            (b'+', [high, low, behind @ ..]) => {
                rest = behind;
                let digits = [*high, *low];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            _ => first,
        };
        octets.push(octet);
    }
    let address = Address::parse(std::str::from_utf8(&octets).ok()?).ok()?;
    (address != recipient.address).then_some(address)
}

fn folded_sender(accepted: &Accepted) -> String {
    accepted.message.reverse_path.as_ref().map(folded).unwrap_or_default()
}

/// An address in the form that is compared: lower case, A-labels.
pub(crate) fn folded(address: &Address) -> String {
    let mut text = String::new();
    fold(address, &mut text);
    text
}

fn fold(address: &Address, into: &mut String) {
    let local = address.local();
    if local.is_ascii() {
        into.push_str(local);
        into.make_ascii_lowercase();
    } else {
        into.push_str(&local.to_lowercase());
    }
    into.push('@');
    into.push_str(address.domain());
}

/// FNV-1a with the finaliser of MurmurHash3. Part of the file format: it must never change.
fn hash(kind: u8, text: &str) -> Hash {
    let mut h: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in std::iter::once(kind).chain(text.bytes()) {
        h = (h ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    h = (h ^ (h >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    h = (h ^ (h >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    ((h ^ (h >> 33)) >> 32) as u32
}

/// Writes a run of new entries and merges when there are enough of a size.
pub(crate) fn write(tx: &Transaction<'_>, entries: &mut Vec<Entry>) -> rusqlite::Result<()> {
    if entries.is_empty() {
        return Ok(());
    }
    let mut level = put(tx, entries)?;
    while level < LEVEL_MAX {
        let mut statement = tx.prepare_cached("SELECT id FROM run WHERE level = $1")?;
        let runs: Vec<i64> =
            statement.query_map(params![level], |row| row.get(0))?.collect::<Result<_, _>>()?;
        if runs.len() < FAN_IN {
            break;
        }
        entries.clear();
        for run in runs {
            let mut parts = tx.prepare_cached("SELECT entries FROM part WHERE key >= $1 AND key < $2")?;
            let mut rows = parts.query(params![run << 32, (run + 1) << 32])?;
            while let Some(row) = rows.next()? {
                decode(row.get_ref(0)?.as_blob()?, entries);
            }
            tx.prepare_cached("DELETE FROM part WHERE key >= $1 AND key < $2")?
                .execute(params![run << 32, (run + 1) << 32])?;
            tx.prepare_cached("DELETE FROM run WHERE id = $1")?.execute(params![run])?;
        }
        level = put(tx, entries)?.max(level + 1);
    }
    Ok(())
}

/// Writes one run and tells its level: how often 16 goes into its length.
fn put(tx: &Transaction<'_>, entries: &mut [Entry]) -> rusqlite::Result<u32> {
    entries.sort_unstable();
    let level = (entries.len() as u64).max(1).ilog(FAN_IN as u64).saturating_sub(1).min(LEVEL_MAX);
    tx.prepare_cached(
        "INSERT INTO run (id, level, entries) SELECT coalesce(max(id), 0) + 1, $1, $2 FROM run",
    )?
    .execute(params![level, i64::try_from(entries.len()).unwrap_or(i64::MAX)])?;
    let run = tx.last_insert_rowid();
    let mut insert = tx.prepare_cached("INSERT INTO part (key, entries) VALUES ($1, $2)")?;
    let mut blob = Vec::with_capacity(PART_ENTRIES * ENTRY);
    let mut rest = &*entries;
    while let Some(first) = rest.first() {
        // Entries of one hash stay in one part, so that a lookup reads one part.
        let mut end = PART_ENTRIES.min(rest.len());
        end += rest[end..].iter().take_while(|e| e.0 == rest[end - 1].0).count();
        blob.clear();
        for (hash, id) in &rest[..end] {
            blob.extend_from_slice(&hash.to_be_bytes());
            blob.extend_from_slice(&id.to_be_bytes());
        }
        insert.execute(params![run << 32 | i64::from(first.0), blob])?;
        rest = &rest[end..];
    }
    Ok(level)
}

fn decode(blob: &[u8], into: &mut Vec<Entry>) {
    into.extend(blob.chunks_exact(ENTRY).map(entry));
}

fn entry(chunk: &[u8]) -> Entry {
    let mut hash = [0u8; 4];
    let mut id = [0u8; 8];
    hash.copy_from_slice(&chunk[..4]);
    id.copy_from_slice(&chunk[4..]);
    (u32::from_be_bytes(hash), u64::from_be_bytes(id))
}

/// The ids of all messages that may have this key.
pub(crate) fn find(db: &Connection, hash: Hash, ids: &mut Vec<u64>) -> rusqlite::Result<()> {
    let mut runs = db.prepare_cached("SELECT id FROM run")?;
    let runs: Vec<i64> = runs.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    let mut part = db
        .prepare_cached("SELECT entries FROM part WHERE key >= $1 AND key <= $2 ORDER BY key DESC LIMIT 1")?;
    for run in runs {
        let blob: Option<Vec<u8>> =
            part.query_row(params![run << 32, run << 32 | i64::from(hash)], |row| row.get(0)).optional()?;
        let blob = blob.unwrap_or_default();
        let count = blob.len() / ENTRY;
        let at = |n: usize| entry(&blob[n * ENTRY..(n + 1) * ENTRY]);
        let mut first = partition_point(count, |n| at(n).0 < hash);
        while first < count && at(first).0 == hash {
            ids.push(at(first).1);
            first += 1;
        }
    }
    Ok(())
}

/// The first of `count` for which `before` no longer holds.
fn partition_point(count: usize, before: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = low + (high - low) / 2;
        if before(middle) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}

#[cfg(test)]
mod tests {
    use super::*;

    fn db() -> Connection {
        let db = Connection::open_in_memory().unwrap();
        db.execute_batch(SCHEMA).unwrap();
        db
    }

    fn found(db: &Connection, hash: Hash) -> Vec<u64> {
        let mut ids = Vec::new();
        find(db, hash, &mut ids).unwrap();
        ids.sort_unstable();
        ids
    }

    #[test]
    fn the_hash_is_part_of_the_format() {
        assert_eq!(Key::Sender(String::new()).hash(), 0xcc38_350d);
        assert_eq!(Key::Recipient("ann@example.com".into()).hash(), 0xedee_6d69);
        assert_eq!(Key::Domain("example.com".into()).hash(), 0x9eb1_f617);
    }

    #[test]
    fn everything_is_found_through_all_merges() {
        let mut db = db();
        let mut expected: std::collections::BTreeMap<Hash, Vec<u64>> = Default::default();
        let mut id = 0;
        for batch in 0..600u64 {
            let mut entries = Vec::new();
            // Batches of one to fifty messages; one hash that every message has, and the ends of the range.
            for n in 0..1 + batch % 50 {
                id += 1;
                for hash in [7, hash(b'r', &format!("{batch} {n}")), if n % 2 == 0 { 0 } else { u32::MAX }] {
                    entries.push((hash, id));
                    expected.entry(hash).or_default().push(id);
                }
            }
            let tx = db.transaction().unwrap();
            write(&tx, &mut entries).unwrap();
            tx.commit().unwrap();
        }
        for (hash, ids) in &expected {
            assert_eq!(found(&db, *hash), *ids, "{hash:x}");
        }
        assert!(found(&db, 8).is_empty());
        let runs: i64 = db.query_row("SELECT count(*) FROM run", [], |row| row.get(0)).unwrap();
        assert!(runs < 4 * FAN_IN as i64, "{runs} runs");
        let (entries, total): (i64, i64) = db
            .query_row(
                "SELECT sum(length(entries)) / 12, (SELECT sum(entries) FROM run) FROM part",
                [],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )
            .unwrap();
        assert_eq!(entries, total);
        assert_eq!(entries, i64::try_from(3 * id).unwrap());
    }
}
