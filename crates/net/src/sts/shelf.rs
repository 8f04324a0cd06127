//! Policies on disk: a file a domain, whole or not at all.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use std::{fs, io};

use mail::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;
use tracing::warn;

use super::{REFRESH, StsPolicy};
use crate::NetError;
use crate::tls::write_private;

/// Policies kept on disk.
const FILES_MAX: usize = 10_000;
/// So many are looked through at once.
const FEW: usize = 1000;
/// The longest file. Longer ones would be strange, and are kept in memory alone.
const FILE_MAX: usize = 4096;
/// A policy counts for at least this long: one that is over at once would be fetched for each message.
const LIFE_MIN: Duration = Duration::from_secs(60);
/// File names end here at 255 octets.
const DOMAIN_MAX: usize = 240;

/// A policy that was fetched.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Held {
    /// What the TXT record called it.
    pub(super) id: String,
    /// When.
    pub(super) fetched: Timestamp,
    /// The policy.
    pub(super) policy: Arc<StsPolicy>,
}

impl Held {
    /// From when on it counts no more.
    pub(super) fn expires(&self) -> Timestamp {
        self.fetched.plus(self.life())
    }

    /// Whether it is time to fetch it again.
    pub(super) fn is_old(&self, now: Timestamp) -> bool {
        now.since(self.fetched) >= (self.life() / 2).min(REFRESH)
    }

    fn life(&self) -> Duration {
        Duration::from_secs(self.policy.max_age_s.into()).max(LIFE_MIN)
    }

    /// About what it takes in memory, in octets.
    pub(super) fn size(&self) -> u32 {
        let octets: usize = self.policy.mx.iter().map(|mx| mx.len() + 24).sum();
        u32::try_from(octets).unwrap_or(u32::MAX)
    }
}

/// The folder.
#[derive(Clone, Debug)]
pub(super) struct Shelf {
    dir: Option<PathBuf>,
    files: Arc<AtomicUsize>,
}

impl Shelf {
    /// Makes it and throws out what is over.
    pub(super) fn open(dir: Option<PathBuf>, now: Timestamp) -> Result<Self, NetError> {
        let files = Arc::new(AtomicUsize::new(0));
        if let Some(dir) = &dir {
            let failed = |e| NetError::disk(dir, e);
            fs::create_dir_all(dir).map_err(failed)?;
            let count = fs::read_dir(dir).map_err(failed)?.count();
            if count <= FEW {
                files.store(prune(dir, now).map_err(failed)?, Ordering::Relaxed);
            } else {
                // No start waits for thousands of files.
                files.store(count, Ordering::Relaxed);
                let (dir, files) = (dir.clone(), files.clone());
                std::thread::spawn(move || match prune(&dir, now) {
                    Ok(left) => files.store(left, Ordering::Relaxed),
                    Err(error) => {
                        warn!(dir = %dir.display(), %error, "old MTA-STS policies cannot be removed");
                    }
                });
            }
        }
        Ok(Self { dir, files })
    }

    /// What is there of `domain`. A file that cannot be read is as good as none.
    pub(super) async fn load(&self, domain: &str) -> Option<Held> {
        let path = self.path(domain)?;
        spawn_blocking(move || read(&path)).await.ok().flatten()
    }

    pub(super) async fn store(&self, domain: &str, held: &Held, now: Timestamp) -> Result<(), NetError> {
        let (Some(dir), Some(path)) = (self.dir.clone(), self.path(domain)) else { return Ok(()) };
        let json = serde_json::to_vec(held).map_err(|e| NetError::Bug(e.to_string()))?;
        let files = self.files.clone();
        let written = spawn_blocking(move || {
            if json.len() > FILE_MAX {
                // The one that it replaces must not come back.
                return gone(fs::remove_file(&path)).map_err(|e| NetError::disk(&path, e));
            }
            if !path.exists() && files.fetch_add(1, Ordering::Relaxed) >= FILES_MAX {
                let left = prune(&dir, now).map_err(|e| NetError::disk(&dir, e))?;
                files.store(left + 1, Ordering::Relaxed);
            }
            write_private(&path, &json)
        });
        written.await.map_err(|e| NetError::Bug(e.to_string()))?
    }

    /// None for what is no domain that could be the name of a file.
    fn path(&self, domain: &str) -> Option<PathBuf> {
        let is_name = domain.len() <= DOMAIN_MAX
            && !domain.starts_with('.')
            && domain.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-._".contains(&b));
        // The dot keeps the name apart from that of a file being written, which ends in `.new` alone.
        self.dir.as_ref().filter(|_| is_name).map(|dir| dir.join(format!("{domain}.json")))
    }
}

fn read(path: &Path) -> Option<Held> {
    match fs::read(path) {
        Ok(json) => serde_json::from_slice(&json)
            .inspect_err(|error| warn!(path = %path.display(), %error, "a stored MTA-STS policy is damaged"))
            .ok(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            warn!(path = %path.display(), %error, "a stored MTA-STS policy cannot be read");
            None
        }
    }
}

/// Removes what is over, and the oldest of what is too many; tells how many files are left.
fn prune(dir: &Path, now: Timestamp) -> io::Result<usize> {
    let mut kept = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        match read(&path).filter(|held| held.expires() > now) {
            Some(held) => kept.push((held.fetched, path)),
            None => gone(fs::remove_file(&path))?,
        }
    }
    // Room for a while, so that not every new one looks at all of them.
    let room = FILES_MAX - FILES_MAX / 10;
    if kept.len() > room {
        kept.sort_unstable();
        for (_, path) in kept.drain(..kept.len() - room) {
            gone(fs::remove_file(path))?;
        }
    }
    Ok(kept.len())
}

/// That a file is not there any more is what was wanted.
fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(max_age_s: u32, fetched: i64) -> Held {
        let text = format!("version: STSv1\nmode: enforce\nmx: mx.example\nmax_age: {max_age_s}");
        Held { id: "1".into(), fetched: Timestamp(fetched), policy: Arc::new(text.parse().unwrap()) }
    }

    #[tokio::test]
    async fn what_is_stored_comes_back_until_it_is_over() {
        let dir = tempfile::tempdir().unwrap();
        let open = |now| Shelf::open(Some(dir.path().join("mta-sts")), Timestamp(now)).unwrap();
        let shelf = open(0);
        shelf.store("example.com", &held(100, 0), Timestamp(0)).await.unwrap();
        shelf.store("example.org", &held(10, 0), Timestamp(0)).await.unwrap();
        let again = open(70_000);
        assert_eq!(again.files.load(Ordering::Relaxed), 1);
        assert_eq!(again.load("example.com").await.unwrap().policy, held(100, 0).policy);
        assert!(again.load("example.org").await.is_none());
        // Nothing but names of domains becomes a name of a file.
        for odd in ["../example.com", "/etc/passwd", "", ".", "a/b", "A.example"] {
            assert!(again.load(odd).await.is_none(), "{odd}");
            if let Some(path) = again.path(odd) {
                assert_eq!(path.parent().unwrap(), dir.path().join("mta-sts"), "{odd}");
            }
        }
        // A damaged file is none, and goes.
        fs::write(dir.path().join("mta-sts/broken.example.json"), b"{").unwrap();
        assert!(again.load("broken.example").await.is_none());
        assert_eq!(open(70_000).files.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn a_policy_too_long_for_a_file_does_not_leave_an_old_one_behind() {
        let dir = tempfile::tempdir().unwrap();
        let shelf = Shelf::open(Some(dir.path().to_owned()), Timestamp(0)).unwrap();
        shelf.store("example.com", &held(100, 0), Timestamp(0)).await.unwrap();
        let mut long = held(100, 0);
        long.policy =
            Arc::new(StsPolicy { mx: vec!["a-long-name.example".repeat(10); 100], ..(*long.policy).clone() });
        shelf.store("example.com", &long, Timestamp(0)).await.unwrap();
        assert!(shelf.load("example.com").await.is_none());
    }

    #[tokio::test]
    async fn thousands_are_looked_through_in_the_background() {
        let dir = tempfile::tempdir().unwrap();
        let (old, new) = (held(100, 0), held(10_000, 0));
        for n in 0..=FEW {
            let json = serde_json::to_vec(if n % 2 == 0 { &old } else { &new }).unwrap();
            fs::write(dir.path().join(format!("d{n}.example.json")), json).unwrap();
        }
        let shelf = Shelf::open(Some(dir.path().to_owned()), Timestamp(200_000)).unwrap();
        let pruned = tokio::time::timeout(Duration::from_secs(30), async {
            while shelf.files.load(Ordering::Relaxed) != FEW / 2 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        pruned.await.expect("it is not pruned");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), FEW / 2);
        assert!(shelf.load("d1.example").await.is_some());
    }

    #[test]
    fn age_is_half_a_life_or_a_day() {
        let (short, long) = (held(1000, 0), held(31_557_600, 0));
        assert!(!short.is_old(Timestamp(499_000)) && short.is_old(Timestamp(500_000)));
        assert!(!long.is_old(Timestamp(86_399_000)) && long.is_old(Timestamp(86_400_000)));
    }
}
