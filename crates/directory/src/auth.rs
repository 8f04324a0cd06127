//! Verifying passwords: slow hashes in a bounded pool, and a cache that makes AUTH on every connection cheap.
//!
//! Who guesses learns nothing from how long an answer takes: a login that does not exist, one that is switched off
//! and a wrong password all pay for every kind of hash that the directory holds. Only a right password is faster.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use aws_lc_rs::hmac;
use parking_lot::Mutex;
use subtle::ConstantTimeEq;
use tokio::sync::Semaphore;

use crate::directory::Directory;
use crate::model::{Credential, OrgState};
use crate::secret::{Argon2Verifier, ScramVerifier, Secret, random};
use crate::snapshot::Snapshot;

/// Verifications that may wait for a place in the pool; more are told to come back later.
const WAITING_MAX: usize = 256;
/// The most credentials that are remembered.
const CACHE_MAX: usize = 100_000;

/// The answer to a login and a password.
#[derive(Clone, Debug)]
pub enum Authentication {
    /// It is this one.
    Ok(Arc<Credential>),
    /// The login or the password is wrong.
    Failed,
    /// Both are right, but it may not be used; says why in plain words.
    Disabled(&'static str),
    /// Too many verifications are under way: come back in a moment.
    Busy,
}

/// What a SCRAM server needs for a login.
#[derive(Clone, Debug)]
pub struct ScramOffer {
    /// The verifier; for a login without one, a made-up one that no password fits.
    pub verifier: ScramVerifier,
    /// Whose it is; none for a made-up one.
    pub credential: Option<Arc<Credential>>,
}

/// The pool and the cache.
pub(crate) struct Verification {
    places: Arc<Semaphore>,
    queue: Arc<Semaphore>,
    key: hmac::Key,
    /// By credential: the generation it was verified in, and an HMAC of the password.
    known: Mutex<HashMap<i64, (i64, [u8; 32])>>,
}

/// What a failed attempt is measured against when it has no verifier of that kind of its own.
static DUMMY: LazyLock<(ScramVerifier, Option<Argon2Verifier>)> =
    LazyLock::new(|| (ScramVerifier::make("none"), Argon2Verifier::make("none").ok()));

impl Verification {
    pub(crate) fn new() -> Self {
        let places = std::thread::available_parallelism().map_or(2, usize::from);
        Self {
            places: Arc::new(Semaphore::new(places)),
            queue: Arc::new(Semaphore::new(places + WAITING_MAX)),
            key: hmac::Key::new(hmac::HMAC_SHA256, &random::<32>()),
            known: Mutex::new(HashMap::new()),
        }
    }

    fn tag(&self, password: &str) -> [u8; 32] {
        let mut tag = [0u8; 32];
        tag.copy_from_slice(hmac::sign(&self.key, password.as_bytes()).as_ref());
        tag
    }

    fn is_known(&self, credential: &Credential, password: &str) -> bool {
        let tag = self.tag(password);
        let known = self.known.lock();
        known.get(&credential.id).is_some_and(|(generation, known)| {
            *generation == credential.generation && known.ct_eq(&tag).into()
        })
    }

    fn remember(&self, credential: &Credential, password: &str) {
        let tag = self.tag(password);
        let mut known = self.known.lock();
        if known.len() >= CACHE_MAX {
            known.clear();
        }
        known.insert(credential.id, (credential.generation, tag));
    }
}

impl Directory {
    /// Verifies a login and a password sent in the clear (PLAIN, LOGIN).
    pub async fn authenticate(&self, login: &str, password: &str) -> Authentication {
        let state = self.snapshot();
        let credential = state.credential(login).cloned();
        let verification = &self.0.verification;
        if let Some(credential) = credential.as_ref().filter(|c| verification.is_known(c, password)) {
            return judge(&state, credential);
        }
        let Ok(_queued) = verification.queue.try_acquire() else { return Authentication::Busy };
        let Ok(place) = Arc::clone(&verification.places).acquire_owned().await else {
            return Authentication::Busy;
        };
        let (subject, secret) = (credential.clone(), Secret::new(password));
        let chosen = state.credentials().any(|c| c.verifier.argon2.is_some());
        let verify = move || {
            let _place = place;
            slow(subject.as_deref(), &secret, chosen)
        };
        match (tokio::task::spawn_blocking(verify).await, credential) {
            (Ok(true), Some(credential)) => {
                verification.remember(&credential, password);
                judge(&state, &credential)
            }
            (Ok(_), _) => Authentication::Failed,
            (Err(_), _) => Authentication::Busy,
        }
    }

    /// What SCRAM-SHA-256 needs for a login. Always something: for a login that does not exist, is switched off, or
    /// has no SCRAM, a made-up verifier that stays the same for it.
    pub fn scram(&self, login: &str) -> ScramOffer {
        let state = self.snapshot();
        let usable = state.credential(login).filter(|c| matches!(judge(&state, c), Authentication::Ok(_)));
        match usable.and_then(|c| c.verifier.scram.as_ref().map(|v| (c, v))) {
            Some((credential, verifier)) => {
                ScramOffer { verifier: verifier.clone(), credential: Some(Arc::clone(credential)) }
            }
            None => {
                let verifier = ScramVerifier::fake(&self.0.fake_key, &login.to_ascii_lowercase());
                ScramOffer { verifier, credential: None }
            }
        }
    }
}

/// Verifies, and on failure pays for what a login of the other kind would have cost.
fn slow(credential: Option<&Credential>, password: &Secret, chosen: bool) -> bool {
    let verifier = credential.map(|c| &c.verifier);
    if verifier.is_some_and(|v| v.verify(password.expose())) {
        return true;
    }
    let paid_argon2 = verifier.is_some_and(|v| v.argon2.is_some());
    let paid_scram = verifier.is_some_and(|v| v.argon2.is_none());
    let (scram, argon2) = &*DUMMY;
    if !paid_scram {
        std::hint::black_box(scram.verify(password.expose()));
    }
    if chosen && !paid_argon2 {
        std::hint::black_box(argon2.as_ref().is_some_and(|a| a.verify(password.expose())));
    }
    false
}

/// May a credential whose password is right be used?
fn judge(state: &Snapshot, credential: &Arc<Credential>) -> Authentication {
    if !credential.enabled {
        return Authentication::Disabled("this login is switched off; ask the operator of this relay");
    }
    match state.org(credential.org).map(|o| o.state) {
        Some(OrgState::Active) => Authentication::Ok(Arc::clone(credential)),
        Some(OrgState::Suspended) | None => {
            Authentication::Disabled("this login's organisation is suspended; ask the operator of this relay")
        }
    }
}
