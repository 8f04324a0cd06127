//! A quick hash for delivery ids. They are our own numbers, so nobody outside can choose them to collide; everything
//! that carries foreign names is hashed by the standard library's keyed hash.

use std::hash::{BuildHasherDefault, Hasher};

use mail::DeliveryId;

/// A map by delivery.
pub(crate) type IdMap<T> = std::collections::HashMap<DeliveryId, T, BuildHasherDefault<IdHasher>>;

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct IdHasher(u64);

impl IdHasher {
    fn add(&mut self, n: u64) {
        // The odd number nearest to 2^64 divided by the golden ratio spreads neighbours.
        self.0 = (self.0.rotate_left(23) ^ n).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        // The table looks at the upper bits and the lower ones.
        self.0 ^ (self.0 >> 32)
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&b| self.add(u64::from(b)));
    }

    fn write_u64(&mut self, n: u64) {
        self.add(n);
    }

    fn write_u16(&mut self, n: u16) {
        self.add(u64::from(n));
    }
}

/// A hash of names that is the same in every process, for what is saved (FNV-1a).
pub(crate) fn stable_hash<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> u64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for part in parts {
        for &byte in part.iter().chain(&[0]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    hash
}
