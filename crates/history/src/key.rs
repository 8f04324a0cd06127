//! How messages are found by sender, recipient, recipient's domain and Message-ID: what is hashed, and how sorted runs
//! of hashes are laid out.
//!
//! A B-tree over hashes would write a random page for every key of every message. Both engines write the keys of a batch
//! as one sorted run instead, and merge sixteen small runs into a larger one: writes are sequential, and a lookup reads
//! one part of each run. An entry is 32 bits of a 64-bit hash and the message's id; whoever looks up compares the message
//! itself.

use mail::{Accepted, Address, Recipient};

/// So many runs of one level are merged.
pub(crate) const FAN_IN: usize = 16;
/// Octets of an entry: four of hash, eight of id.
pub(crate) const ENTRY: usize = 12;

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

/// How often 16 goes into a run's length: its level.
pub(crate) fn level(entries: usize) -> u32 {
    (entries as u64).max(1).ilog(FAN_IN as u64).saturating_sub(1)
}

/// Lays out entries one behind the other.
pub(crate) fn encode(entries: &[Entry], blob: &mut Vec<u8>) {
    blob.reserve(entries.len() * ENTRY);
    for (hash, id) in entries {
        blob.extend_from_slice(&hash.to_be_bytes());
        blob.extend_from_slice(&id.to_be_bytes());
    }
}

pub(crate) fn decode(blob: &[u8], into: &mut Vec<Entry>) {
    into.extend(blob.chunks_exact(ENTRY).map(entry));
}

fn entry(chunk: &[u8]) -> Entry {
    let mut hash = [0u8; 4];
    let mut id = [0u8; 8];
    hash.copy_from_slice(&chunk[..4]);
    id.copy_from_slice(&chunk[4..]);
    (u32::from_be_bytes(hash), u64::from_be_bytes(id))
}

/// The ids with this hash in a part, which is sorted.
pub(crate) fn ids_in(blob: &[u8], hash: Hash) -> impl Iterator<Item = u64> {
    let count = blob.len() / ENTRY;
    let at = move |n: usize| entry(&blob[n * ENTRY..(n + 1) * ENTRY]);
    let first = partition_point(count, |n| at(n).0 < hash);
    (first..count).map(at).take_while(move |e| e.0 == hash).map(|e| e.1)
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

    #[test]
    fn the_hash_is_part_of_the_format() {
        assert_eq!(Key::Sender(String::new()).hash(), 0xcc38_350d);
        assert_eq!(Key::Recipient("ann@example.com".into()).hash(), 0xedee_6d69);
        assert_eq!(Key::Domain("example.com".into()).hash(), 0x9eb1_f617);
    }

    #[test]
    fn a_part_is_searched() {
        let entries = [(1, 5), (3, 1), (3, 2), (3, 9), (u32::MAX, 7)];
        let mut blob = Vec::new();
        encode(&entries, &mut blob);
        let mut back = Vec::new();
        decode(&blob, &mut back);
        assert_eq!(back, entries);
        for (hash, ids) in [(0, vec![]), (1, vec![5]), (2, vec![]), (3, vec![1, 2, 9]), (u32::MAX, vec![7])] {
            assert_eq!(ids_in(&blob, hash).collect::<Vec<_>>(), ids);
        }
        assert_eq!(ids_in(&[], 3).count(), 0);
    }
}
