//! Slows down who guesses passwords, without locking the owner out.
//!
//! Failures are counted by (login, client address), by client address and by login. Past a free number each further
//! failure doubles how long the next attempt must wait, up to 30 seconds and never more. The counts by login and by
//! address, which strangers and neighbours can drive up, spare addresses from which that login has succeeded; any
//! other address that the count by login makes wait is promised one attempt at the end of its wait, whatever others
//! do meanwhile. So the owner with the right password is never out for more than 30 seconds. The same wrong password
//! again (an old one in a telephone) counts once.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use mail::Mono;
use parking_lot::Mutex;

/// The longest wait.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// Failures of a login from one address before it has to wait.
const FREE_PAIR: u32 = 3;
/// Failures from one address, whatever the login, before it has to wait.
const FREE_ADDRESS: u32 = 20;
/// Failures of a login, whatever the address, before addresses that never succeeded have to wait.
const FREE_LOGIN: u32 = 10;
/// After so long without a failure they are forgotten.
const FORGET: Duration = Duration::from_secs(3600);
/// How long an address counts as one from which a login has succeeded.
const TRUST: Duration = Duration::from_secs(30 * 86_400);
/// The most things that are counted.
const ENTRIES_MAX: usize = 200_000;

/// Counts failures. Shared by all sessions.
#[derive(Debug, Default)]
pub struct Backoff {
    hasher: RandomState,
    entries: Mutex<HashMap<Key, Entry>>,
}

/// What is counted. Logins are kept as hashes: attackers choose them, and they may be passwords typed into the wrong
/// field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Key {
    Pair(u64, IpAddr),
    Address(IpAddr),
    Login(u64),
}

#[derive(Clone, Debug, Default)]
struct Entry {
    failures: u32,
    /// No attempt before.
    blocked_until: Mono,
    /// When it last mattered.
    touched: Mono,
    /// Hash of the last wrong password.
    last_wrong: Option<u64>,
    /// For a pair: until when the address is one from which the login has succeeded.
    trusted_until: Mono,
    /// For a pair: from when on it has an attempt that the count by login cannot deny.
    promised_at: Option<Mono>,
}

impl Entry {
    fn wait(&self, now: Mono) -> Option<Duration> {
        Some(self.blocked_until.since(now)).filter(|d| !d.is_zero())
    }

    fn fail(&mut self, free: u32, now: Mono) {
        self.forget(now);
        self.failures = self.failures.saturating_add(1);
        self.touched = now;
        self.block(free, now);
    }

    fn forget(&mut self, now: Mono) {
        if now.since(self.touched) > FORGET {
            self.failures = 0;
        }
    }

    /// Past the free number: 1, 2, 4 … seconds.
    fn block(&mut self, free: u32, now: Mono) {
        self.forget(now);
        if self.failures >= free {
            let wait = Duration::from_secs(1 << (self.failures - free).min(6)).min(WAIT_MAX);
            self.blocked_until = self.blocked_until.max(now.plus(wait));
        }
    }
}

impl Backoff {
    /// May this login be tried from this address now? Ask before looking at the password, and tell the result to
    /// [`Backoff::failed`] or [`Backoff::succeeded`].
    ///
    /// # Errors
    /// How long to wait, at most 30 seconds.
    pub fn ask(&self, login: &str, address: IpAddr, now: Mono) -> Result<(), Duration> {
        let (pair, address, login) = self.keys(login, address);
        let mut entries = self.entries.lock();
        let wait_of = |entries: &HashMap<Key, Entry>, key| entries.get(&key).and_then(|e| e.wait(now));
        let known = entries.get(&pair);
        let trusted = known.is_some_and(|e| now < e.trusted_until);
        let promised = known.and_then(|e| e.promised_at);
        let spared = trusted || promised.is_some_and(|at| at <= now);
        if let Some(wait) = wait_of(&entries, pair).max(wait_of(&entries, address).filter(|_| !trusted)) {
            return Err(wait);
        }
        if let Some(wait) = wait_of(&entries, login).filter(|_| !spared) {
            let promised = promised.unwrap_or(now.plus(wait));
            let waiting = entry(&mut entries, pair, now);
            waiting.touched = now;
            waiting.promised_at = Some(promised);
            return Err(promised.since(now));
        }
        // Past the free number, attempts come one at a time: the next waits as if this one had failed.
        if let Some(entry) = entries.get_mut(&pair) {
            entry.promised_at = None;
            entry.block(FREE_PAIR, now);
        }
        if let Some(entry) = entries.get_mut(&address).filter(|_| !trusted) {
            entry.block(FREE_ADDRESS, now);
        }
        Ok(())
    }

    /// The password was wrong. With SCRAM it is not known: none.
    pub fn failed(&self, login: &str, address: IpAddr, password: Option<&str>, now: Mono) {
        let (pair, address, login) = self.keys(login, address);
        let wrong = password.map(|p| self.hasher.hash_one(p));
        let mut entries = self.entries.lock();
        let found = entry(&mut entries, pair, now);
        if wrong.is_some() && found.last_wrong == wrong {
            found.touched = now;
            return;
        }
        found.last_wrong = wrong;
        found.fail(FREE_PAIR, now);
        entry(&mut entries, address, now).fail(FREE_ADDRESS, now);
        entry(&mut entries, login, now).fail(FREE_LOGIN, now);
    }

    /// The password was right. The count by address alone stays: other logins may be guessed from there.
    pub fn succeeded(&self, login: &str, address: IpAddr, now: Mono) {
        let (pair, address, _) = self.keys(login, address);
        let mut entries = self.entries.lock();
        let trusted_until = now.plus(TRUST);
        *entry(&mut entries, pair, now) = Entry { touched: now, trusted_until, ..Entry::default() };
        if let Some(entry) = entries.get_mut(&address) {
            // It was set when this attempt began.
            entry.blocked_until = now;
        }
    }

    fn keys(&self, login: &str, address: IpAddr) -> (Key, Key, Key) {
        let login = self.hasher.hash_one(login.to_ascii_lowercase());
        let address = neighbourhood(address);
        (Key::Pair(login, address), Key::Address(address), Key::Login(login))
    }
}

fn entry(entries: &mut HashMap<Key, Entry>, key: Key, now: Mono) -> &mut Entry {
    if entries.len() >= ENTRIES_MAX && !entries.contains_key(&key) {
        make_room(entries, now);
    }
    entries.entry(key).or_insert_with(|| Entry { touched: now, ..Entry::default() })
}

/// An IPv6 customer has a /64 at least.
fn neighbourhood(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
        v4 => v4,
    }
}

/// Forgets what is over; when that is not a quarter, what has not mattered for longest.
fn make_room(entries: &mut HashMap<Key, Entry>, now: Mono) {
    entries.retain(|_, e| now.since(e.touched) <= FORGET || now < e.trusted_until);
    let keep = ENTRIES_MAX / 4 * 3;
    if entries.len() > keep {
        let mut times: Vec<Mono> = entries.values().map(|e| e.touched).collect();
        let cut = times.len() - keep;
        let oldest_kept = *times.select_nth_unstable(cut).1;
        entries.retain(|_, e| e.touched > oldest_kept);
    }
}

#[cfg(test)]
mod tests;
