//! Signed return paths (VERP: variable envelope return paths). Mail that we send carries a reverse path which names the
//! message and the recipient, so that a bounce which comes back hours later is matched without guessing at its text; the
//! signature keeps anyone who did not receive the mail from making us believe that it bounced.
//!
//! ```text
//! b1-0f3kx7m2c9d4e-3-q7t2kw5mzr3hd4c5@bounces.example.net
//! │  │             │ └ 80 bits of HMAC-SHA256 in base 32
//! │  │             └ number of the recipient, in decimal; left out when the path is for all of them
//! │  └ the message's id, which holds the time
//! └ b and the version of this form
//! ```
//!
//! Letters, digits and hyphens only, at most 42 octets, and good in any case: nothing on the way can spoil it. The id
//! holds the time, so that an old path expires without a field of its own. 80 bits can't be tried out over SMTP, and
//! whoever has one path knows nothing of the next.

use std::time::Duration;

use aws_lc_rs::hmac::HMAC_SHA256;
use mail::{Address, AddressError, MessageId, Timestamp};

use crate::keys::Keys;
use crate::mac;

/// What the signature is for, so that no other use of the key can be taken for it.
const PURPOSE: &[u8] = b"posthouse return path 1\0";
const PREFIX: &str = "b1-";
/// Octets of the signature.
const MAC_OCTETS: usize = 10;
/// How long a path is good: longer than other hosts try and than reports take.
const LIFETIME: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Makes and reads signed return paths in a domain of ours.
#[derive(Clone, Debug)]
pub struct ReturnPaths {
    domain: Box<str>,
    keys: Keys,
    lifetime: Duration,
}

/// What a return path of ours says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReturnPath {
    /// The message that was sent with it.
    pub message: MessageId,
    /// The number of the recipient that it was sent to; none when it was sent to several at a time.
    pub recipient: Option<u16>,
}

/// Why an address is no return path to be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerpError {
    /// The configured domain is none.
    #[error("the bounce domain is not a valid domain name")]
    Domain,
    /// The address is not in our domain, or not of this form.
    #[error("not a return path of ours")]
    NotOurs,
    /// None of our keys has signed it.
    #[error("the return path was not signed here")]
    Forged,
    /// It was signed here, but too long ago.
    #[error("the return path has expired")]
    Expired,
}

impl ReturnPaths {
    /// Return paths in `domain`, whose MX is this relay.
    ///
    /// # Errors
    /// [`VerpError::Domain`]
    pub fn new(domain: &str, keys: Keys) -> Result<Self, VerpError> {
        let domain = mail::domain_to_ascii(domain).ok_or(VerpError::Domain)?.into_boxed_str();
        Ok(Self { domain, keys, lifetime: LIFETIME })
    }

    /// Believes paths for so long after their message was accepted, instead of 30 days.
    #[must_use]
    pub fn with_lifetime(mut self, lifetime: Duration) -> Self {
        self.lifetime = lifetime;
        self
    }

    /// The domain of the return paths.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The return path for this message on its way to this recipient; none for all recipients at once.
    ///
    /// # Errors
    /// The domain is so long that no address can be made in it.
    pub fn sign(&self, message: MessageId, recipient: Option<u16>) -> Result<Address, AddressError> {
        let path = ReturnPath { message, recipient };
        let mac = self.mac(self.keys.current(), path);
        let domain = &self.domain;
        let local = match recipient {
            Some(number) => format!("{PREFIX}{message}-{number}-{mac}"),
            None => format!("{PREFIX}{message}-{mac}"),
        };
        Address::parse(&format!("{local}@{domain}"))
    }

    /// Whether the address has the form of one that we made; [`ReturnPaths::verify`] says whether we did.
    pub fn is_ours(&self, address: &Address) -> bool {
        self.read(address).is_some()
    }

    /// What a return path of ours says.
    ///
    /// # Errors
    /// It is none of ours, forged or expired.
    pub fn verify(&self, address: &Address, now: Timestamp) -> Result<ReturnPath, VerpError> {
        let (path, given) = self.read(address).ok_or(VerpError::NotOurs)?;
        // Every key is tried, whichever matches.
        let found = self.keys.all().filter(|key| mac::same_folded(&self.mac(key, path), given)).count();
        if found == 0 {
            return Err(VerpError::Forged);
        }
        let made = path.message.accepted_at();
        if now.since(made) > self.lifetime { Err(VerpError::Expired) } else { Ok(path) }
    }

    fn read<'a>(&self, address: &'a Address) -> Option<(ReturnPath, &'a str)> {
        if address.domain() != &*self.domain {
            return None;
        }
        let (prefix, rest) = address.local().split_at_checked(PREFIX.len())?;
        if !prefix.eq_ignore_ascii_case(PREFIX) {
            return None;
        }
        let parts: Vec<&str> = rest.split('-').collect();
        let (id, number, mac) = match parts[..] {
            [id, mac] => (id, None, mac),
            [id, number, mac] => (id, Some(number), mac),
            _ => return None,
        };
        let message: MessageId = id.parse().ok()?;
        let recipient = number.map(str::parse).transpose().ok()?;
        Some((ReturnPath { message, recipient }, mac))
    }

    fn mac(&self, key: &[u8], path: ReturnPath) -> String {
        let number = path.recipient.map_or([0xff, 0, 0], |n| {
            let [high, low] = n.to_be_bytes();
            [0, high, low]
        });
        let parts = [PURPOSE, self.domain.as_bytes(), &[0], &path.message.0.to_be_bytes(), &number];
        let tag = mac::hmac(HMAC_SHA256, key, &parts);
        data_encoding::BASE32_NOPAD.encode(&tag.as_ref()[..MAC_OCTETS]).to_ascii_lowercase()
    }
}

#[cfg(test)]
mod tests;
