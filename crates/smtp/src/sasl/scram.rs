//! SCRAM-SHA-256 (RFC 5802, RFC 7677): the arithmetic, the verifier a server keeps, and the messages both sides parse.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::{constant_time, hmac, pbkdf2, rand};

use super::{decode, encode};

/// Rounds of PBKDF2 for verifiers that we make (RFC 7677 section 4). Enough for passwords of 128 random bits.
pub const ITERATIONS: u32 = 4096;

/// What a server would believe at most as a client: more rounds are an attack on the client's CPU.
const ITERATIONS_MAX: u32 = 1_000_000;

/// Bytes of a SHA-256 hash.
const HASH: usize = 32;

/// What the server keeps instead of a password. As text it is PostgreSQL's form:
/// `SCRAM-SHA-256$4096:salt$StoredKey:ServerKey`.
#[derive(Clone, PartialEq, Eq)]
pub struct ScramVerifier {
    /// Salt.
    pub salt: Vec<u8>,
    /// Rounds of PBKDF2.
    pub iterations: u32,
    /// H(ClientKey): proves the client.
    pub stored_key: [u8; HASH],
    /// Proves the server.
    pub server_key: [u8; HASH],
}

impl fmt::Debug for ScramVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScramVerifier").field("iterations", &self.iterations).finish_non_exhaustive()
    }
}

/// The text is no verifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a SCRAM-SHA-256 verifier")]
pub struct VerifierError;

impl ScramVerifier {
    /// The verifier for `password` with a fresh random salt.
    ///
    /// # Errors
    /// None when the system gives no random bytes.
    pub fn new(password: &str) -> Result<Self, aws_lc_rs::error::Unspecified> {
        let mut salt = vec![0; 16];
        rand::fill(&mut salt)?;
        Ok(Self::derive(password, salt, ITERATIONS))
    }

    /// The verifier for `password` with this salt.
    pub fn derive(password: &str, salt: Vec<u8>, iterations: u32) -> Self {
        let keys = Keys::derive(password, &salt, iterations);
        Self { salt, iterations, stored_key: keys.stored, server_key: keys.server }
    }

    /// Whether `password` is the one it was made of. Takes as long as [`ScramVerifier::derive`].
    pub fn verify(&self, password: &str) -> bool {
        let keys = Keys::derive(password, &self.salt, self.iterations);
        constant_time::verify_slices_are_equal(&keys.stored, &self.stored_key).is_ok()
    }

    /// A verifier that no password fits, the same each time for the same login: an unknown user looks like one whose
    /// password is wrong. `secret` stays the same while the process lives.
    pub fn decoy(login: &str, secret: &[u8]) -> Self {
        let salt = hmac_of(secret, login.as_bytes());
        Self {
            salt: salt[..16].to_vec(),
            iterations: ITERATIONS,
            stored_key: hmac_of(secret, &salt),
            server_key: hmac_of(&salt, secret),
        }
    }
}

impl fmt::Display for ScramVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (salt, stored, server) = (encode(&self.salt), encode(&self.stored_key), encode(&self.server_key));
        write!(f, "SCRAM-SHA-256${}:{salt}${stored}:{server}", self.iterations)
    }
}

impl FromStr for ScramVerifier {
    type Err = VerifierError;

    fn from_str(text: &str) -> Result<Self, VerifierError> {
        let parse = || {
            let rest = text.strip_prefix("SCRAM-SHA-256$")?;
            let (head, keys) = rest.split_once('$')?;
            let (iterations, salt) = head.split_once(':')?;
            let (stored, server) = keys.split_once(':')?;
            Some(Self {
                salt: decode(salt)?,
                iterations: iterations.parse().ok().filter(|&n| n > 0)?,
                stored_key: decode(stored)?.try_into().ok()?,
                server_key: decode(server)?.try_into().ok()?,
            })
        };
        parse().ok_or(VerifierError)
    }
}

/// The keys that a password gives.
pub(super) struct Keys {
    client: [u8; HASH],
    pub(super) stored: [u8; HASH],
    pub(super) server: [u8; HASH],
}

impl Keys {
    pub(super) fn derive(password: &str, salt: &[u8], iterations: u32) -> Self {
        let password = prepare(password);
        let mut salted = [0; HASH];
        let rounds = NonZeroU32::new(iterations).unwrap_or(NonZeroU32::MIN);
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, rounds, salt, password.as_bytes(), &mut salted);
        let client = hmac_of(&salted, b"Client Key");
        Self { client, stored: hash(&client), server: hmac_of(&salted, b"Server Key") }
    }

    /// ClientProof.
    pub(super) fn proof(&self, auth_message: &str) -> [u8; HASH] {
        xor(self.client, hmac_of(&self.stored, auth_message.as_bytes()))
    }
}

/// Whether `proof` shows that the client knows the password.
pub(super) fn proof_is_right(verifier: &ScramVerifier, auth_message: &str, proof: &[u8]) -> bool {
    let Ok(proof) = <[u8; HASH]>::try_from(proof) else { return false };
    let client = xor(proof, hmac_of(&verifier.stored_key, auth_message.as_bytes()));
    constant_time::verify_slices_are_equal(&hash(&client), &verifier.stored_key).is_ok()
}

/// ServerSignature.
pub(super) fn server_signature(server_key: &[u8], auth_message: &str) -> [u8; HASH] {
    hmac_of(server_key, auth_message.as_bytes())
}

/// Whether two secrets are the same, in constant time.
pub(super) fn same(a: &[u8], b: &[u8]) -> bool {
    constant_time::verify_slices_are_equal(a, b).is_ok()
}

/// 144 random bits as printable text without commas.
pub(super) fn nonce() -> Option<String> {
    let mut bytes = [0; 18];
    rand::fill(&mut bytes).ok()?;
    Some(encode(&bytes))
}

/// SASLprep (RFC 4013). What it forbids is used as it is: such a password was never prepared by anybody else either.
fn prepare(password: &str) -> std::borrow::Cow<'_, str> {
    stringprep::saslprep(password).unwrap_or(std::borrow::Cow::Borrowed(password))
}

fn hmac_of(key: &[u8], message: &[u8]) -> [u8; HASH] {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message);
    let mut out = [0; HASH];
    out.copy_from_slice(tag.as_ref());
    out
}

fn hash(bytes: &[u8]) -> [u8; HASH] {
    let mut out = [0; HASH];
    out.copy_from_slice(digest(&SHA256, bytes).as_ref());
    out
}

fn xor(mut a: [u8; HASH], b: [u8; HASH]) -> [u8; HASH] {
    a.iter_mut().zip(b).for_each(|(x, y)| *x ^= y);
    a
}

/// The value of attribute `name` if it is the next one in `attributes`.
pub(super) fn attribute(part: Option<&str>, name: char) -> Option<&str> {
    part?.strip_prefix(name)?.strip_prefix('=')
}

/// What a client finds in the server-first message.
pub(super) struct ServerFirst<'a> {
    pub(super) nonce: &'a str,
    pub(super) salt: Vec<u8>,
    pub(super) iterations: u32,
}

impl<'a> ServerFirst<'a> {
    pub(super) fn parse(text: &'a str) -> Result<Self, &'static str> {
        let mut parts = text.split(',');
        let nonce = attribute(parts.next(), 'r').ok_or("no nonce")?;
        let salt = attribute(parts.next(), 's').and_then(decode).ok_or("no salt")?;
        let rounds = attribute(parts.next(), 'i').and_then(|i| i.parse().ok()).ok_or("no iteration count")?;
        if !(ITERATIONS..=ITERATIONS_MAX).contains(&rounds) {
            return Err("its iteration count is under 4096 or over a million");
        }
        Ok(Self { nonce, salt, iterations: rounds })
    }
}

/// A name as SCRAM writes it (RFC 5802 section 5.1).
pub(super) fn escape_name(name: &str) -> String {
    name.replace('=', "=3D").replace(',', "=2C")
}

/// The name that was escaped; none when it is not validly escaped.
pub(super) fn unescape_name(text: &str) -> Option<String> {
    let mut name = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('=') {
        name.push_str(&rest[..at]);
        name.push(match rest.get(at + 1..at + 3)? {
            "2C" => ',',
            "3D" => '=',
            _ => return None,
        });
        rest = &rest[at + 3..];
    }
    name.push_str(rest);
    Some(name)
}
