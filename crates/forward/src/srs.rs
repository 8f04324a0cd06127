//! The Sender Rewriting Scheme (Shevek, "The Sender Rewriting Scheme", 2004), as Mail::SRS, libsrs2 and postsrsd speak it.
//!
//! ```text
//! alice@example.com          → SRS0=HASH=TT=example.com=alice@ours            the first forwarder
//! SRS0=h=t=a.com=al@first    → SRS1=HASH=first==h=t=a.com=al@ours             the second: the first one stays named
//! SRS1=h=first==…@second     → SRS1=HASH=first==…@ours                        every later one: the middle is left out
//! ```
//!
//! `HASH` is a truncated HMAC-SHA1 in base 64 over the folded rest, so that it verifies after a mail system has folded
//! the case; `TT` is the day, ten bits in base 32. Nobody but the domain that signed has to understand an address.
//!
//! **Length.** A local part has at most 64 octets (RFC 5321 section 4.5.3.1.1). The scheme adds 18 to it, so a hash of
//! eight characters is cut down as far as four, the scheme's usual length, where that makes it fit. A shorter hash than
//! eight is believed only in a local part of 64 octets, because in any other we would have written a longer one. What
//! does not fit even so is [`SrsError::TooLong`], and the mail goes on with the sender it came with.

use mail::{Address, Timestamp};

use aws_lc_rs::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY;

use crate::keys::Keys;
use crate::mac;

/// Longest local part in octets (RFC 5321 section 4.5.3.1.1).
const LOCAL_MAX: usize = 64;
/// Characters of the hash where there is room.
const HASH_LENGTH: usize = 8;
/// The fewest characters of the hash.
const HASH_MIN: usize = 4;
/// Characters that a HMAC-SHA1 has in base 64 without padding.
const HASH_MAX: usize = 27;
/// Days for which a rewritten sender is good, as in the other implementations.
const AGE_MAX_DAYS: u32 = 21;
/// The day's two letters turn over after so many days.
const DAYS: u32 = 1024;
const DAY_MS: i64 = 24 * 60 * 60 * 1000;
const BASE32: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// Rewrites senders into a domain of ours and back.
#[derive(Clone, Debug)]
pub struct Srs {
    domain: Box<str>,
    keys: Keys,
    accept_length: usize,
    age_max_days: u32,
}

/// Why an address is not rewritten, or not turned back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SrsError {
    /// The configured domain is none.
    #[error("the SRS domain is not a valid domain name")]
    Domain,
    /// Rewritten, its local part would be too long.
    #[error("rewritten, the sender's local part would be longer than 64 octets")]
    TooLong,
    /// The address is not in our domain, or not of this scheme.
    #[error("not a rewritten sender of ours")]
    NotOurs,
    /// It has not the parts that it needs.
    #[error("not a complete SRS address")]
    Malformed,
    /// None of our keys has signed it.
    #[error("the SRS address was not signed here")]
    Forged,
    /// It was signed here, but too long ago.
    #[error("the SRS address has expired")]
    Expired,
}

impl Srs {
    /// Rewrites into `domain`, which must receive mail here.
    ///
    /// # Errors
    /// [`SrsError::Domain`]
    pub fn new(domain: &str, keys: Keys) -> Result<Self, SrsError> {
        let domain = mail::domain_to_ascii(domain).ok_or(SrsError::Domain)?.into_boxed_str();
        Ok(Self { domain, keys, accept_length: HASH_LENGTH, age_max_days: AGE_MAX_DAYS })
    }

    /// Believes hashes of four characters as well, which postsrsd and libsrs2 write by default: for who takes over their
    /// key and still expects bounces for addresses that they made.
    #[must_use]
    pub fn accepting_short_hashes(mut self) -> Self {
        self.accept_length = HASH_MIN;
        self
    }

    /// Takes addresses back for so many days instead of 21; at most 1,000.
    #[must_use]
    pub fn with_age_max_days(mut self, days: u32) -> Self {
        self.age_max_days = days.min(1000);
        self
    }

    /// The domain that senders are rewritten into.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// Whether the address has the form of one that we made; [`Srs::reverse`] says whether we did.
    pub fn is_ours(&self, address: &Address) -> bool {
        address.domain() == &*self.domain && Form::of(bare(address.local()).0).is_some()
    }

    /// The sender rewritten into our domain. One that is in our domain stays as it is.
    ///
    /// # Errors
    /// [`SrsError::TooLong`]
    pub fn forward(&self, sender: &Address, now: Timestamp) -> Result<Address, SrsError> {
        if sender.domain() == &*self.domain {
            return Ok(sender.clone());
        }
        let (local, quoted) = bare(sender.local());
        let day = day_letters(today(now));
        let (tag, signed, rest) = match Form::of(local) {
            Some(Form::Srs1(rest)) => match srs1_parts(rest) {
                Some((_, host, user)) => ("SRS1", vec![host, user], format!("{host}={user}")),
                None => srs0(&day, sender.domain(), local),
            },
            Some(Form::Srs0(rest)) => {
                let host = sender.domain();
                ("SRS1", vec![host, rest], format!("{host}={rest}"))
            }
            None => srs0(&day, sender.domain(), local),
        };
        let hash = hash(self.keys.current(), &signed);
        let quotes = usize::from(quoted) * 2;
        let room = LOCAL_MAX.saturating_sub(tag.len() + 2 + rest.len() + quotes);
        if room < HASH_MIN {
            return Err(SrsError::TooLong);
        }
        let hash = &hash[..room.min(HASH_LENGTH)];
        make(&format!("{tag}={hash}={rest}"), quoted, &self.domain)
    }

    /// The sender that an address of ours stands for: where a bounce to it goes.
    ///
    /// # Errors
    /// It is none of ours, forged or expired.
    pub fn reverse(&self, address: &Address, now: Timestamp) -> Result<Address, SrsError> {
        if address.domain() != &*self.domain {
            return Err(SrsError::NotOurs);
        }
        let (local, quoted) = bare(address.local());
        let full = address.local().len() == LOCAL_MAX;
        match Form::of(local).ok_or(SrsError::NotOurs)? {
            Form::Srs0(rest) => {
                let mut parts = rest[1..].splitn(4, '=');
                let mut next = || parts.next().filter(|part| !part.is_empty()).ok_or(SrsError::Malformed);
                let (hash, day, host) = (next()?, next()?, next()?);
                // Nobody is called "", but it is a local part, and its bounces come back as others do.
                let user = parts.next().ok_or(SrsError::Malformed)?;
                self.verify(hash, &[day, host, user], full)?;
                self.check_day(day, now)?;
                make(user, quoted, host)
            }
            Form::Srs1(rest) => {
                let (hash, host, user) = srs1_parts(rest).ok_or(SrsError::Malformed)?;
                self.verify(hash, &[host, user], full)?;
                make(&format!("SRS0{user}"), quoted, host)
            }
        }
    }

    fn verify(&self, given: &str, signed: &[&str], full: bool) -> Result<(), SrsError> {
        let length_min = if full { HASH_MIN } else { self.accept_length };
        if !(length_min..=HASH_MAX).contains(&given.len()) {
            return Err(SrsError::Forged);
        }
        let matches = |key| {
            let hash = hash(key, signed);
            hash.get(..given.len()).is_some_and(|hash| mac::same_folded(hash, given))
        };
        // Every key is tried, whichever matches.
        let found = self.keys.all().filter(|key| matches(key)).count();
        if found > 0 { Ok(()) } else { Err(SrsError::Forged) }
    }

    /// A day from the last `age_max_days`, or tomorrow: two relays with one key may have different clocks.
    fn check_day(&self, letters: &str, now: Timestamp) -> Result<(), SrsError> {
        let day = day_of(letters).ok_or(SrsError::Malformed)?;
        let age = (today(now) + DAYS - day) % DAYS;
        if age <= self.age_max_days || age == DAYS - 1 { Ok(()) } else { Err(SrsError::Expired) }
    }
}

/// A local part of the scheme; what is behind its tag, the first separator included.
enum Form<'a> {
    Srs0(&'a str),
    Srs1(&'a str),
}

impl<'a> Form<'a> {
    /// The first separator may be any of `=`, `+` and `-`, for sites where one of them cuts a local part in two.
    fn of(local: &'a str) -> Option<Self> {
        let (tag, rest) = local.split_at_checked(4)?;
        if !rest.starts_with(['=', '+', '-']) {
            None
        } else if tag.eq_ignore_ascii_case("SRS0") {
            Some(Form::Srs0(rest))
        } else if tag.eq_ignore_ascii_case("SRS1") {
            Some(Form::Srs1(rest))
        } else {
            None
        }
    }
}

fn srs0<'a>(day: &'a str, host: &'a str, user: &'a str) -> (&'static str, Vec<&'a str>, String) {
    ("SRS0", vec![day, host, user], format!("{day}={host}={user}"))
}

/// Hash, first forwarder, and its local part without `SRS0` but with the separator that followed.
fn srs1_parts(rest: &str) -> Option<(&str, &str, &str)> {
    let mut parts = rest[1..].splitn(3, '=');
    let mut next = || parts.next().filter(|part| !part.is_empty());
    let (hash, host, user) = (next()?, next()?, next()?);
    user.starts_with(['=', '+', '-']).then_some((hash, host, user))
}

/// The local part without its quotes, and whether it had any.
fn bare(local: &str) -> (&str, bool) {
    match local.strip_prefix('"').and_then(|inner| inner.strip_suffix('"')) {
        Some(inner) => (inner, true),
        None => (local, false),
    }
}

/// An address; in quotes when it came in quotes, or when somebody on the way took off quotes that it needs.
fn make(local: &str, quoted: bool, domain: &str) -> Result<Address, SrsError> {
    let in_quotes = || Address::parse(&format!("\"{local}\"@{domain}"));
    let address = if quoted {
        in_quotes()
    } else {
        Address::parse(&format!("{local}@{domain}")).or_else(|_| in_quotes())
    };
    address.map_err(|_| SrsError::Malformed)
}

fn hash(key: &[u8], signed: &[&str]) -> String {
    let folded: Vec<String> = signed.iter().map(|part| part.to_ascii_lowercase()).collect();
    let parts: Vec<&[u8]> = folded.iter().map(String::as_bytes).collect();
    data_encoding::BASE64_NOPAD.encode(mac::hmac(HMAC_SHA1_FOR_LEGACY_USE_ONLY, key, &parts).as_ref())
}

fn today(now: Timestamp) -> u32 {
    u32::try_from(now.millis().div_euclid(DAY_MS).rem_euclid(i64::from(DAYS))).unwrap_or(0)
}

fn day_letters(day: u32) -> String {
    [day >> 5, day & 31].iter().map(|&n| char::from(BASE32[n as usize & 31])).collect()
}

fn day_of(letters: &str) -> Option<u32> {
    let [high, low] = letters.as_bytes() else { return None };
    let digit = |letter: &u8| BASE32.iter().position(|l| *l == letter.to_ascii_uppercase());
    u32::try_from(digit(high)? * 32 + digit(low)?).ok()
}

#[cfg(test)]
mod tests;
