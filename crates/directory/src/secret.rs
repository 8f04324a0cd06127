//! Passwords, keys and what is kept of them. Nothing here is ever logged or serialised.

use std::fmt;
use std::num::NonZeroU32;

use aws_lc_rs::{digest, hmac, pbkdf2, rand};
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use subtle::ConstantTimeEq;

use crate::error::DirectoryError;

/// PBKDF2 rounds of every SCRAM verifier (RFC 7677 asks for 4096 or more). The same for all, also for logins that
/// do not exist, so that the number tells nothing.
pub(crate) const SCRAM_ITERATIONS: u32 = 10_000;
const SALT_BYTES: usize = 16;
/// Argon2id: 19 MiB, two passes, one lane, as OWASP advises.
const ARGON2: (u32, u32, u32) = (19_456, 2, 1);
/// Letters and digits that are not taken for each other: 5 bits each.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// 26 characters of 5 bits: 130 bits.
const PASSWORD_CHARS: usize = 26;
/// 32 characters of 5 bits: 160 bits.
const KEY_CHARS: usize = 32;
/// What every API key begins with, so that leaked ones are found by scanners.
const KEY_PREFIX: &str = "ph_";
/// Longest secret that is read.
const SECRET_MAX: usize = 8192;
const PASSWORD_MIN: usize = 8;
const PASSWORD_MAX: usize = 512;

/// A text that must not be shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<str>);

impl Secret {
    /// Takes a text that must not be shown.
    pub fn new(text: impl Into<Box<str>>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the one place that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

impl<'de> serde::Deserialize<'de> for Secret {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        let fits = !text.is_empty() && text.len() <= SECRET_MAX && !text.contains(['\r', '\n', '\0']);
        if fits {
            Ok(Self::new(text))
        } else {
            Err(serde::de::Error::custom("a secret is one line, and not empty"))
        }
    }
}

/// For the one place that shows a rule of the config file: `config show`.
impl serde::Serialize for Secret {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str("(secret)")
    }
}

impl schemars::JsonSchema for Secret {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "secret".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "format": "secret" })
    }
}

/// What a SCRAM-SHA-256 server needs to know (RFC 5802 section 3). Also verifies a password sent in the clear.
#[derive(Clone, PartialEq, Eq)]
pub struct ScramVerifier {
    /// The salt.
    pub salt: Vec<u8>,
    /// PBKDF2 rounds.
    pub iterations: u32,
    /// StoredKey.
    pub stored_key: [u8; 32],
    /// ServerKey.
    pub server_key: [u8; 32],
}

impl fmt::Debug for ScramVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ScramVerifier({} rounds)", self.iterations)
    }
}

impl ScramVerifier {
    /// The verifier of a password with a new salt.
    pub(crate) fn make(password: &str) -> Self {
        Self::derive(password, random::<SALT_BYTES>().to_vec(), SCRAM_ITERATIONS)
    }

    fn derive(password: &str, salt: Vec<u8>, iterations: u32) -> Self {
        let mut salted = [0u8; 32];
        let rounds = NonZeroU32::new(iterations).unwrap_or(NonZeroU32::MIN);
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, rounds, &salt, password.as_bytes(), &mut salted);
        let key = hmac::Key::new(hmac::HMAC_SHA256, &salted);
        let stored_key = sha256(hmac::sign(&key, b"Client Key").as_ref());
        let server_key = to_32(hmac::sign(&key, b"Server Key").as_ref());
        Self { salt, iterations, stored_key, server_key }
    }

    /// A verifier that no password fits, always the same for this login, so that asking for a login that does not
    /// exist looks like asking for one that does.
    pub(crate) fn fake(key: &hmac::Key, login: &str) -> Self {
        let part = |what: &str| to_32(hmac::sign(key, format!("{what}\0{login}").as_bytes()).as_ref());
        Self {
            salt: part("salt")[..SALT_BYTES].to_vec(),
            iterations: SCRAM_ITERATIONS,
            stored_key: part("stored"),
            server_key: part("server"),
        }
    }

    pub(crate) fn verify(&self, password: &str) -> bool {
        let other = Self::derive(password, self.salt.clone(), self.iterations);
        self.stored_key.ct_eq(&other.stored_key).into()
    }

    fn to_text(&self) -> String {
        let (salt, stored, server) =
            (BASE64.encode(&self.salt), BASE64.encode(self.stored_key), BASE64.encode(self.server_key));
        format!("SCRAM-SHA-256${}:{salt}${stored}:{server}", self.iterations)
    }

    fn from_text(text: &str) -> Option<Self> {
        let (first, second) = text.strip_prefix("SCRAM-SHA-256$")?.split_once('$')?;
        let ((iterations, salt), (stored, server)) = (first.split_once(':')?, second.split_once(':')?);
        Some(Self {
            salt: BASE64.decode(salt).ok()?,
            iterations: iterations.parse().ok().filter(|n| *n > 0)?,
            stored_key: BASE64.decode(stored).ok()?.try_into().ok()?,
            server_key: BASE64.decode(server).ok()?.try_into().ok()?,
        })
    }
}

/// What is kept of a chosen password.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Argon2Verifier {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
    salt: Vec<u8>,
    hash: Vec<u8>,
}

impl Argon2Verifier {
    pub(crate) fn make(password: &str) -> Result<Self, DirectoryError> {
        let (memory_kib, passes, lanes) = ARGON2;
        let mut made =
            Self { memory_kib, passes, lanes, salt: random::<SALT_BYTES>().to_vec(), hash: Vec::new() };
        made.hash = made
            .derive(password)
            .ok_or_else(|| DirectoryError::Invalid("this password cannot be hashed with argon2id".into()))?
            .to_vec();
        Ok(made)
    }

    fn derive(&self, password: &str) -> Option<[u8; 32]> {
        let params = argon2::Params::new(self.memory_kib, self.passes, self.lanes, Some(32)).ok()?;
        let argon2 = argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
        let mut out = [0u8; 32];
        argon2.hash_password_into(password.as_bytes(), &self.salt, &mut out).ok()?;
        Some(out)
    }

    pub(crate) fn verify(&self, password: &str) -> bool {
        self.derive(password).is_some_and(|hash| bool::from(hash.ct_eq(&self.hash)))
    }

    /// The PHC string format.
    fn to_text(&self) -> String {
        let (m, t, p) = (self.memory_kib, self.passes, self.lanes);
        format!(
            "$argon2id$v=19$m={m},t={t},p={p}${}${}",
            BASE64.encode(&self.salt),
            BASE64.encode(&self.hash)
        )
    }

    fn from_text(text: &str) -> Option<Self> {
        let mut parts = text.strip_prefix("$argon2id$v=19$")?.split('$');
        let (params, salt, hash) = (parts.next()?, parts.next()?, parts.next()?);
        let mut numbers =
            params.split(',').map(|p| p.split_once('=').and_then(|(_, n)| n.parse::<u32>().ok()));
        Some(Self {
            memory_kib: numbers.next()??,
            passes: numbers.next()??,
            lanes: numbers.next()??,
            salt: BASE64.decode(salt).ok()?,
            hash: BASE64.decode(hash).ok()?,
        })
    }
}

/// What is kept of a credential's password. At least one of the two is there.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Verifier {
    pub(crate) scram: Option<ScramVerifier>,
    pub(crate) argon2: Option<Argon2Verifier>,
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(verifier)")
    }
}

impl Verifier {
    /// For a password made here: 130 random bits need no slow hash.
    pub(crate) fn generated(password: &str) -> Self {
        Self { scram: Some(ScramVerifier::make(password)), argon2: None }
    }

    /// For a password that a person chose. With `scram` it is kept in a form that is cheaper to guess from a stolen
    /// file, which is why it has to be asked for.
    pub(crate) fn chosen(password: &str, scram: bool) -> Result<Self, DirectoryError> {
        if password.chars().count() < PASSWORD_MIN || password.len() > PASSWORD_MAX {
            return Err(DirectoryError::Invalid(format!(
                "a password has {PASSWORD_MIN} characters to {PASSWORD_MAX} octets; leave it out and one is made"
            )));
        }
        if password.chars().any(char::is_control) {
            return Err(DirectoryError::Invalid("a password has no control characters or line ends".into()));
        }
        // Beyond ASCII, client and server would first have to agree on one spelling (SASLprep, RFC 4013).
        if scram && !password.is_ascii() {
            return Err(DirectoryError::Invalid("with SCRAM the password must be plain ASCII".into()));
        }
        let scram = scram.then(|| ScramVerifier::make(password));
        Ok(Self { scram, argon2: Some(Argon2Verifier::make(password)?) })
    }

    /// One slow verification: by argon2id where there is one.
    pub(crate) fn verify(&self, password: &str) -> bool {
        match (&self.argon2, &self.scram) {
            (Some(argon2), _) => argon2.verify(password),
            (None, Some(scram)) => scram.verify(password),
            (None, None) => false,
        }
    }

    pub(crate) fn to_columns(&self) -> (Option<String>, Option<String>) {
        (self.scram.as_ref().map(ScramVerifier::to_text), self.argon2.as_ref().map(Argon2Verifier::to_text))
    }

    /// None when a column is damaged.
    pub(crate) fn from_columns(scram: Option<&str>, argon2: Option<&str>) -> Option<Self> {
        let scram = scram.map(|t| ScramVerifier::from_text(t).ok_or(())).transpose().ok()?;
        let argon2 = argon2.map(|t| Argon2Verifier::from_text(t).ok_or(())).transpose().ok()?;
        (scram.is_some() || argon2.is_some()).then_some(Self { scram, argon2 })
    }
}

/// A password of 130 bits that can be read out on the telephone.
pub(crate) fn make_password() -> String {
    random_text::<PASSWORD_CHARS>()
}

/// An API key of 160 bits, and its hash.
pub(crate) fn make_key() -> (String, [u8; 32]) {
    let key = format!("{KEY_PREFIX}{}", random_text::<KEY_CHARS>());
    let hash = sha256(key.as_bytes());
    (key, hash)
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    to_32(digest::digest(&digest::SHA256, bytes).as_ref())
}

/// Random bytes from the system.
///
/// # Panics
/// When the system has no randomness to give: nothing that follows would be safe.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0u8; N];
    rand::fill(&mut bytes).expect("the system gives random numbers");
    bytes
}

fn random_text<const N: usize>() -> String {
    random::<N>().iter().map(|b| char::from(ALPHABET[usize::from(b & 31)])).collect()
}

fn to_32(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0u8; 32];
    out.copy_from_slice(bytes);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 7677 section 3.
    #[test]
    fn scram_keys_are_those_of_the_rfc() {
        let salt = base64::engine::general_purpose::STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let verifier = ScramVerifier::derive("pencil", salt, 4096);
        let auth = "n=user,r=rOprNGfwEbeRWgbNEkqO,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                    s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        let key = hmac::Key::new(hmac::HMAC_SHA256, &verifier.server_key);
        let signature = hmac::sign(&key, auth.as_bytes());
        assert_eq!(
            base64::engine::general_purpose::STANDARD.encode(signature.as_ref()),
            "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
        );
    }

    #[test]
    fn verifiers_survive_the_database() {
        let made = Verifier::generated("k3yb0ard");
        let chosen = Verifier::chosen("pässword?", false).unwrap();
        let both = Verifier::chosen("password!", true).unwrap();
        for (verifier, password) in [(made, "k3yb0ard"), (chosen, "pässword?"), (both, "password!")] {
            let (scram, argon2) = verifier.to_columns();
            let back = Verifier::from_columns(scram.as_deref(), argon2.as_deref()).unwrap();
            assert!(back == verifier);
            assert!(back.verify(password));
            assert!(!back.verify("something else"));
        }
        assert!(Verifier::from_columns(None, None).is_none());
        assert!(Verifier::from_columns(Some("SCRAM-SHA-256$0:x$y:z"), None).is_none());
    }

    #[test]
    fn made_passwords_and_keys_have_their_bits() {
        let (one, two) = (make_password(), make_password());
        assert_ne!(one, two);
        assert_eq!(one.len() * 5, 130);
        let (key, hash) = make_key();
        assert!(key.starts_with("ph_") && key.len() == 35);
        assert_eq!(hash, sha256(key.as_bytes()));
    }

    #[test]
    fn weak_or_unusable_passwords_are_refused() {
        for (password, scram) in
            [("short", false), ("with\nnewline", false), ("with\0zero", false), ("pässword", true)]
        {
            assert!(
                matches!(Verifier::chosen(password, scram), Err(DirectoryError::Invalid(_))),
                "{password:?}"
            );
        }
    }

    #[test]
    fn nothing_shows_a_secret() {
        let verifier = Verifier::generated("hunter2hunter2");
        let shown = format!("{:?} {:?} {:?}", Secret::new("hunter2"), verifier, verifier.scram);
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}
