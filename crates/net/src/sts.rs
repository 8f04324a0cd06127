//! MTA-STS (RFC 8461): which domains want their mail under verified TLS only, learned by HTTPS and remembered.
//!
//! A policy that was fetched once counts until its `max_age` is over, whatever becomes of the DNS or the web server
//! meanwhile: that is what makes it more than a wish.

mod fetch;
pub mod policy;
mod shelf;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use mail::{Clock, Timestamp};
use moka::sync::Cache;
use tokio::sync::{Mutex, OwnedMutexGuard, Semaphore};
use tracing::{debug, info, warn};

pub use policy::{StsMode, StsPolicy};
use shelf::{Held, Shelf};

use crate::{ClientTls, NetError, Resolver};

/// How long an answer of the DNS on a policy's id is believed.
const RECHECK: Duration = Duration::from_secs(600);
/// The same when it gave none.
const RECHECK_FAILED: Duration = Duration::from_secs(60);
/// A policy is fetched again when it is this old although its id has not changed, or has half its life behind it.
const REFRESH: Duration = Duration::from_secs(24 * 3600);
/// Pause after a fetch that failed; twice as long after each further one (RFC 8461 section 3.3).
const PAUSE_FIRST: Duration = Duration::from_secs(300);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(6 * 3600);
/// Policies kept in memory, in octets.
const MEMORY_MAX: u64 = 16 << 20;
/// What one domain takes beside its policy.
const SLOT: u32 = 512;
/// Fetches at any time.
const FETCHES_MAX: usize = 16;

/// What the cache is made of.
#[derive(Clone, Debug)]
pub struct StsConfig {
    /// Where policies are kept over a restart, `data_dir/mta-sts`; none keeps them in memory alone.
    pub dir: Option<PathBuf>,
    /// Whether policies may be fetched from private and loopback addresses: `dns.allow_private_targets`.
    pub allow_private: bool,
    /// The port that policies are fetched from: 443.
    pub port: u16,
}

impl StsConfig {
    /// The defaults, with a place on disk.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: Some(dir.into()), allow_private: false, port: 443 }
    }
}

/// What is known of a domain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StsAnswer {
    /// Its policy; none where it has none, as far as we know.
    pub policy: Option<Arc<StsPolicy>>,
    /// Why there is no newer one, when the domain says that there is.
    pub fault: Option<Arc<StsFault>>,
}

/// Why a policy could not be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct StsFault {
    /// What kind of failure it is.
    pub kind: StsFaultKind,
    /// It in plain words.
    pub text: String,
}

/// The kinds of failures that TLS reports tell apart (RFC 8460 section 4.3.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StsFaultKind {
    /// It cannot be fetched: `sts-policy-fetch-error`.
    Fetch,
    /// It can, but is not valid: `sts-policy-invalid`.
    Invalid,
    /// The web server's certificate is not to be trusted: `sts-webpki-invalid`.
    Certificate,
}

/// The policies of all domains. Clones share it.
#[derive(Clone)]
pub struct StsCache(Arc<Inner>);

struct Inner {
    resolver: Resolver,
    tls: ClientTls,
    clock: Clock,
    config: StsConfig,
    shelf: Shelf,
    slots: Cache<Arc<str>, Arc<Slot>>,
    fetches: Semaphore,
}

struct Slot {
    state: Arc<Mutex<State>>,
    weight: AtomicU32,
}

#[derive(Default)]
struct State {
    is_loaded: bool,
    held: Option<Held>,
    /// The DNS is not asked before.
    check_at: Option<Timestamp>,
    /// The policy of this id could not be had; it is not asked for before that time.
    failed: Option<Failed>,
}

struct Failed {
    id: String,
    fault: Arc<StsFault>,
    again_at: Timestamp,
    pause: Duration,
}

impl StsCache {
    /// Makes the folder, if there is to be one, and throws out of it what is over.
    ///
    /// # Errors
    /// [`NetError::Disk`].
    pub fn open(
        config: StsConfig,
        resolver: Resolver,
        tls: ClientTls,
        clock: Clock,
    ) -> Result<Self, NetError> {
        let shelf = Shelf::open(config.dir.clone(), clock.now())?;
        let slots = Cache::builder()
            .max_capacity(MEMORY_MAX)
            .weigher(|_: &Arc<str>, slot: &Arc<Slot>| slot.weight.load(Ordering::Relaxed))
            .build();
        let fetches = Semaphore::new(FETCHES_MAX);
        Ok(Self(Arc::new(Inner { resolver, tls, clock, config, shelf, slots, fetches })))
    }

    /// The same policies with another resolver and other roots, as after a reload.
    #[must_use]
    pub fn with(&self, resolver: Resolver, tls: ClientTls, allow_private: bool) -> Self {
        let old = &self.0;
        Self(Arc::new(Inner {
            resolver,
            tls,
            clock: old.clock.clone(),
            config: StsConfig { allow_private, ..old.config.clone() },
            shelf: old.shelf.clone(),
            slots: old.slots.clone(),
            fetches: Semaphore::new(FETCHES_MAX),
        }))
    }

    /// The policy of `domain` (lower case, A-labels). Asks the DNS, and the domain's web server when there is a policy
    /// that we do not know: that takes up to a minute, once. Never fails: whoever has no policy that can be had has none
    /// (RFC 8461 section 3.3).
    pub async fn answer(&self, domain: &str) -> StsAnswer {
        let slot = self.0.slots.get_with(domain.into(), || {
            Arc::new(Slot { state: Arc::default(), weight: AtomicU32::new(SLOT) })
        });
        let mut state = slot.state.clone().lock_owned().await;
        let inner = &self.0;
        if !state.is_loaded {
            state.held = inner.shelf.load(domain).await;
            state.is_loaded = true;
        }
        let now = inner.clock.now();
        if state.held.as_ref().is_some_and(|held| held.expires() <= now) {
            state.held = None;
            state.check_at = None;
        }
        if state.check_at.is_none_or(|at| at <= now) {
            self.look(domain, &slot, &mut state, now).await;
        }
        StsAnswer {
            policy: state.held.as_ref().map(|held| held.policy.clone()),
            fault: state.failed.as_ref().map(|failed| failed.fault.clone()),
        }
    }

    /// Asks the DNS whether the policy has changed.
    async fn look(&self, domain: &str, slot: &Arc<Slot>, state: &mut OwnedMutexGuard<State>, now: Timestamp) {
        let records = self.0.resolver.txt(&format!("_mta-sts.{domain}")).await;
        let id = match records {
            Ok(records) => policy::record_id(&records),
            Err(error) if error.is_temporary() => {
                debug!(domain, %error, "cannot tell whether there is an MTA-STS policy");
                state.check_at = Some(now.plus(RECHECK_FAILED));
                return;
            }
            Err(_) => None,
        };
        state.check_at = Some(now.plus(RECHECK));
        let Some(id) = id else {
            state.failed = None;
            return;
        };
        let is_known = state.held.as_ref().is_some_and(|held| held.id == id);
        if state.failed.as_ref().is_some_and(|failed| failed.id == id && now < failed.again_at) {
            return;
        }
        if !is_known {
            let fetched = self.fetch(domain).await;
            self.take(domain, slot, state, id, fetched).await;
        } else if state.held.as_ref().is_some_and(|held| held.is_old(now)) {
            // The one at hand is good for longer; nobody waits for this.
            let (this, domain, slot) = (self.clone(), domain.to_owned(), slot.clone());
            tokio::spawn(async move {
                let fetched = this.fetch(&domain).await;
                let mut state = slot.state.clone().lock_owned().await;
                this.take(&domain, &slot, &mut state, id, fetched).await;
            });
        } else {
            state.failed = None;
        }
    }

    async fn fetch(&self, domain: &str) -> Result<StsPolicy, StsFault> {
        let inner = &self.0;
        let _turn = inner.fetches.acquire().await;
        fetch::fetch(domain, &inner.config, &inner.resolver, &inner.tls).await
    }

    /// Takes what a fetch brought. A failure leaves the policy that we have.
    async fn take(
        &self,
        domain: &str,
        slot: &Arc<Slot>,
        state: &mut OwnedMutexGuard<State>,
        id: String,
        fetched: Result<StsPolicy, StsFault>,
    ) {
        let now = self.0.clock.now();
        match fetched {
            Ok(policy) => {
                info!(
                    domain,
                    mode = policy.mode.as_str(),
                    max_age_s = policy.max_age_s,
                    id,
                    "MTA-STS policy fetched"
                );
                let held = Held { id, fetched: now, policy: Arc::new(policy) };
                slot.weight.store(SLOT.saturating_add(held.size()), Ordering::Relaxed);
                self.0.slots.insert(domain.into(), slot.clone());
                if let Err(error) = self.0.shelf.store(domain, &held, now).await {
                    warn!(domain, %error, "an MTA-STS policy cannot be kept on disk; it is fetched anew after a restart");
                }
                state.held = Some(held);
                state.failed = None;
            }
            Err(fault) => {
                info!(domain, %fault, has_old = state.held.is_some(), "no new MTA-STS policy");
                let pause = match &state.failed {
                    Some(failed) if failed.id == id => (failed.pause * 2).min(PAUSE_MAX),
                    _ => PAUSE_FIRST,
                };
                let again_at = now.plus(pause);
                state.failed = Some(Failed { id, fault: Arc::new(fault), again_at, pause });
            }
        }
    }
}

impl std::fmt::Debug for StsCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StsCache").field("config", &self.0.config).finish_non_exhaustive()
    }
}
