//! Content in object storage: S3, or what speaks its language (MinIO, Ceph, Garage, R2). For large messages of the engine in
//! PostgreSQL, whose server then has rows to keep and little else.
//!
//! An object is put before the commit that refers to it and deleted after the commit that does not any more. So there may be
//! objects too many, which are swept ([`Objects::old`]), but never one too few. Its name is that of its message: nothing is ever
//! written over.

mod http;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use mail::{MessageId, Timestamp};
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload, RetryConfig};
use tokio::time::timeout;

use crate::content::{CHUNK, Content};
use crate::error::StoreError;
use crate::model::ObjectStats;

type Result<T> = std::result::Result<T, StoreError>;

/// Larger content goes in parts of this size. S3 takes none below 5 MiB but the last.
const PART: usize = 8 << 20;
/// A request is tried again for so long.
const RETRY: Duration = Duration::from_secs(15);
/// Nothing may come of an answer for so long.
const SILENCE: Duration = Duration::from_secs(30);
/// Smaller content is never put there: a request costs more than the row.
const ABOVE_MIN: u64 = 256 << 10;
/// The object that is put to see whether one may.
const PROBE: &str = "posthouse-probe";

/// Where large content is kept, and how to get there.
#[derive(Clone)]
pub struct ObjectsConfig {
    /// `s3://BUCKET` or `s3://BUCKET/PREFIX`.
    pub url: String,
    /// Where the service answers, such as `http://127.0.0.1:9000`; none for that of AWS in the region.
    pub endpoint: Option<String>,
    /// The region; many services want `us-east-1` and do not care.
    pub region: String,
    /// Who asks.
    pub access_key: String,
    /// And their secret.
    pub secret_key: String,
    /// Content of more octets than this goes there, of fewer into the database. At least 256 KiB.
    pub above: u64,
}

impl std::fmt::Debug for ObjectsConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut f = f.debug_struct("ObjectsConfig");
        f.field("url", &self.url).field("endpoint", &self.endpoint).field("region", &self.region);
        f.field("above", &self.above).finish_non_exhaustive()
    }
}

/// Object storage for large content. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Objects(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: AmazonS3,
    prefix: Path,
    above: u64,
    counters: Counters,
}

#[derive(Debug, Default)]
struct Counters {
    puts: AtomicU64,
    put_bytes: AtomicU64,
    gets: AtomicU64,
    deletes: AtomicU64,
    swept: AtomicU64,
    failures: AtomicU64,
}

/// Content as it comes.
pub(crate) type Pieces = BoxStream<'static, object_store::Result<Bytes>>;

impl Objects {
    /// Makes ready; nobody is asked yet.
    ///
    /// # Errors
    /// `Objects` when the configuration makes no sense.
    pub fn new(config: &ObjectsConfig) -> Result<Self> {
        let wrong = |what: String| StoreError::Objects(what);
        let (bucket, prefix) = split(&config.url).ok_or_else(|| {
            wrong(format!("the URL is {:?}; it must be s3://BUCKET or s3://BUCKET/PREFIX", config.url))
        })?;
        let retry = RetryConfig { max_retries: 5, retry_timeout: RETRY, ..RetryConfig::default() };
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(bucket)
            .with_region(&config.region)
            .with_access_key_id(&config.access_key)
            .with_secret_access_key(&config.secret_key)
            .with_retry(retry)
            // Not every service knows how to delete several at once.
            .with_disable_bulk_delete(true)
            .with_http_connector(http::Connector);
        if let Some(endpoint) = &config.endpoint {
            builder = builder.with_endpoint(endpoint).with_allow_http(endpoint.starts_with("http://"));
        }
        let store = builder.build().map_err(|e| wrong(e.to_string()))?;
        let prefix = Path::parse(prefix).map_err(|e| wrong(e.to_string()))?;
        let above = config.above.max(ABOVE_MIN);
        Ok(Self(Arc::new(Inner { store, prefix, above, counters: Counters::default() })))
    }

    /// Does there what will have to be done, with a small object: it is put, read, listed and deleted.
    ///
    /// # Errors
    /// `Objects` when the service refuses; `Unavailable` when it does not answer.
    pub async fn probe(&self) -> Result<()> {
        let (store, path) = (&self.0.store, self.0.prefix.clone().join(PROBE));
        // Who has no bucket of that name says so here at the latest; some make one when something is put.
        let listed = store.list(Some(&self.0.prefix)).next().await.transpose();
        match store.put(&path, PutPayload::from_static(b"may I?")).await {
            Ok(_) => {}
            Err(error @ object_store::Error::NotFound { .. }) => {
                let text = format!("the bucket is not there, or hidden: {}", all_of(&error));
                return Err(StoreError::Objects(text));
            }
            Err(error) => return Err(self.failed("putting an object to see whether one may", &error)),
        }
        // Whoever answers to that and not to the rest does not want to. Another node may have deleted it meanwhile.
        let refused = |what: &str, error: object_store::Error| {
            StoreError::Objects(format!("{what} an object to see whether one may: {}", all_of(&error)))
        };
        listed.map_err(|error| refused("listing", error))?;
        match store.get(&path).await {
            Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => return Err(refused("reading", error)),
        }
        match store.delete(&path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(refused("deleting", error)),
        }
    }

    /// Whether content of so many octets goes there.
    pub(crate) fn takes(&self, length: u64) -> bool {
        length > self.0.above
    }

    /// Puts the content of a message there. On an error nothing is there, or what a sweep removes.
    pub(crate) async fn put(&self, message: MessageId, content: &Content) -> Result<()> {
        let path = self.path(message);
        self.put_at(&path, content).await?;
        self.0.counters.puts.fetch_add(1, Ordering::Relaxed);
        self.0.counters.put_bytes.fetch_add(content.len(), Ordering::Relaxed);
        Ok(())
    }

    async fn put_at(&self, path: &Path, content: &Content) -> Result<()> {
        let failed = |error: object_store::Error| self.failed("putting content", &error);
        if content.len() <= PART as u64 {
            let (payload, _) = part(content, 0).await?;
            return self.0.store.put(path, payload).await.map(drop).map_err(failed);
        }
        let mut upload = self.0.store.put_multipart(path).await.map_err(failed)?;
        let mut offset = 0;
        let sent = loop {
            if offset >= content.len() {
                break upload.complete().await.map(drop);
            }
            let (payload, length) = part(content, offset).await?;
            if let Err(error) = upload.put_part(payload).await {
                break Err(error);
            }
            offset += length;
        };
        if sent.is_err() {
            // Parts without an end cost money, not more: a rule of the bucket should remove them after a day.
            let _ = upload.abort().await;
        }
        sent.map_err(failed)
    }

    /// The content of a message, piece by piece; none when it is not there.
    pub(crate) async fn get(&self, message: MessageId) -> Result<Option<Pieces>> {
        self.0.counters.gets.fetch_add(1, Ordering::Relaxed);
        match self.0.store.get(&self.path(message)).await {
            Ok(found) => Ok(Some(found.into_stream())),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.failed("reading content", &error)),
        }
    }

    /// The next piece; none at the end.
    pub(crate) async fn next(&self, pieces: &mut Pieces) -> Result<Option<Bytes>> {
        match timeout(SILENCE, pieces.next()).await {
            Ok(Some(Ok(piece))) => Ok(Some(piece)),
            Ok(None) => Ok(None),
            Ok(Some(Err(error))) => Err(self.failed("reading content", &error)),
            Err(_) => {
                self.0.counters.failures.fetch_add(1, Ordering::Relaxed);
                Err(StoreError::Unavailable("the object storage stopped in the middle of an answer".into()))
            }
        }
    }

    /// Deletes objects. What cannot be deleted is left to a sweep. Returns how many went.
    async fn delete(&self, paths: Vec<Path>) -> u64 {
        let paths = stream::iter(paths.into_iter().map(Ok));
        let mut deleting = self.0.store.delete_stream(paths.boxed());
        let mut deleted = 0;
        while let Some(one) = deleting.next().await {
            match one {
                Ok(_) => deleted += 1,
                Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => {
                    let error = self.failed("deleting content", &error);
                    tracing::warn!(%error, "an object stays until it is swept");
                }
            }
        }
        deleted
    }

    /// Deletes content whose last delivery is gone.
    pub(crate) async fn delete_done(&self, messages: &[MessageId]) {
        let deleted = self.delete(messages.iter().map(|message| self.path(*message)).collect()).await;
        self.0.counters.deletes.fetch_add(deleted, Ordering::Relaxed);
    }

    /// Deletes objects that no row refers to. Returns how many went.
    pub(crate) async fn delete_orphans(&self, orphans: Vec<Path>) -> u64 {
        let deleted = self.delete(orphans).await;
        self.0.counters.swept.fetch_add(deleted, Ordering::Relaxed);
        deleted
    }

    /// The objects that were put there before a time, and the messages that they are named by.
    pub(crate) fn old(&self, before: Timestamp) -> BoxStream<'static, Result<(MessageId, Path)>> {
        let this = self.clone();
        let listed = self.0.store.list(Some(&self.0.prefix));
        listed
            .filter_map(move |found| {
                let found = match found {
                    Ok(found) if found.last_modified.timestamp_millis() >= before.0 => None,
                    Ok(found) => {
                        let message = found.location.filename().and_then(message_of);
                        message.map(|message| Ok((message, found.location)))
                    }
                    Err(error) => Some(Err(this.failed("listing content", &error))),
                };
                std::future::ready(found)
            })
            .boxed()
    }

    pub(crate) fn stats(&self) -> ObjectStats {
        let c = &self.0.counters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ObjectStats {
            puts: read(&c.puts),
            put_bytes: read(&c.put_bytes),
            gets: read(&c.gets),
            deletes: read(&c.deletes),
            swept: read(&c.swept),
            failures: read(&c.failures),
            ..ObjectStats::default()
        }
    }

    /// By the day of the message, so that a person finds his way.
    fn path(&self, message: MessageId) -> Path {
        let day = message.accepted_at().0.div_euclid(86_400_000);
        self.0.prefix.clone().join(day.to_string()).join(format!("{:016x}", message.0))
    }

    fn failed(&self, what: &str, error: &object_store::Error) -> StoreError {
        use object_store::Error::{PermissionDenied, Unauthenticated};
        self.0.counters.failures.fetch_add(1, Ordering::Relaxed);
        let text = format!("{what}: {}", all_of(error));
        match error {
            PermissionDenied { .. } | Unauthenticated { .. } => StoreError::Objects(text),
            _ => StoreError::Unavailable(text),
        }
    }
}

/// An error with what has caused it: the first words alone help nobody.
fn all_of(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let said = error.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        source = error.source();
    }
    text
}

/// Bucket and prefix of an `s3:` URL.
fn split(url: &str) -> Option<(&str, &str)> {
    let rest = url.strip_prefix("s3://")?;
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    (!bucket.is_empty()).then_some((bucket, prefix))
}

/// The message that an object is named by; none if it is not one of ours.
fn message_of(name: &str) -> Option<MessageId> {
    (name.len() == 16).then(|| u64::from_str_radix(name, 16).ok().map(MessageId)).flatten()
}

/// A part of content, and its length.
async fn part(content: &Content, mut offset: u64) -> Result<(PutPayload, u64)> {
    let (mut pieces, mut length) = (Vec::new(), 0);
    while length < PART {
        let max = CHUNK.min(PART - length);
        let piece = content.chunk(offset, max).await.map_err(|e| StoreError::io("reading the spool", &e))?;
        if piece.is_empty() {
            break;
        }
        offset += piece.len() as u64;
        length += piece.len();
        pieces.push(piece);
    }
    Ok((pieces.into_iter().collect(), length as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(url: &str) -> ObjectsConfig {
        ObjectsConfig {
            url: url.into(),
            endpoint: None,
            region: "eu-central-1".into(),
            access_key: "who".into(),
            secret_key: "hush".into(),
            above: 1 << 20,
        }
    }

    #[test]
    fn urls_and_names() {
        assert_eq!(split("s3://mail/a/b"), Some(("mail", "a/b")));
        assert_eq!(split("s3://mail"), Some(("mail", "")));
        for wrong in ["s3://", "s3:///a", "https://mail/a", "mail"] {
            assert!(
                matches!(Objects::new(&config(wrong)), Err(StoreError::Objects(text)) if text.contains("s3://BUCKET"))
            );
        }
        let objects = Objects::new(&config("s3://mail/relay/")).unwrap();
        let message = MessageId::first_at(Timestamp(20_000 * 86_400_000 + 5));
        let path = objects.path(message);
        assert!(path.as_ref().starts_with("relay/20000/"), "{path}");
        assert_eq!(path.filename().and_then(message_of), Some(message));
        assert_eq!(message_of("notes.txt"), None);
        assert!(objects.takes((1 << 20) + 1) && !objects.takes(1 << 20));
        assert!(!format!("{:?}", config("s3://x")).contains("hush"));
    }
}
