//! What the engine's threads and its callers share.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use mail::{Clock, IdGenerator, State};
use parking_lot::{Mutex, RwLock};
use rusqlite::{Connection, ErrorCode};
use tokio::sync::{Semaphore, mpsc};

use super::checkpoint::Checkpoint;
use super::handover::Handover;
use super::inbox::{Inbox, Op};
use super::open::{self, CONTENT, DATABASE, Start};
use super::read::{self, Readers};
use super::schema;
use super::sums::Effects;
use super::upkeep::Upkeep;
use crate::config::Config;
use crate::content::{Content, ContentRef, Segments, make_dir};
use crate::error::StoreError;
use crate::health::Health;
use crate::lock::Lock;
use crate::model::{Counts, Recovery, Stats, Waiting};
use crate::notes::Notes;
use crate::outbox::Outbox;
use crate::room::Room;
use crate::settle::{Done, put_back};

type Result<T> = std::result::Result<T, StoreError>;

/// Reads of rows that go on at the same time,
const READERS: usize = 4;
/// and of content. Each takes a blocking thread, and what a thread has allocated once, the allocators keep for it.
const LOADERS: usize = 8;

pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) database: PathBuf,
    pub(crate) clock: Clock,
    pub(crate) ids: IdGenerator,
    pub(crate) health: Arc<Health>,
    pub(crate) segments: Arc<Segments>,
    pub(crate) inbox: Inbox,
    pub(crate) handover: Handover,
    pub(crate) outbox: Outbox,
    pub(crate) room: Room,
    pub(crate) readers: Readers,
    pub(crate) reading: Semaphore,
    pub(crate) loading: Semaphore,
    pub(crate) checkpoint: Checkpoint,
    pub(crate) upkeep: Upkeep,
    pub(crate) counters: Counters,
    pub(crate) notes: Notes,
    /// Read-locked while content files must stay where they are.
    pub(crate) keep_files: RwLock<()>,
    pub(crate) orphans: Orphans,
    /// The number of this start.
    pub(crate) run: i64,
    /// Whether this run notes what it pages in: the last one did not end cleanly.
    pub(crate) claims: bool,
    /// The last clone of the store went without closing it.
    pub(crate) abandoned: AtomicBool,
    lock: Mutex<Option<Lock>>,
}

/// Where active deliveries go whose caller has gone away.
pub(crate) type Orphans =
    (mpsc::UnboundedSender<Vec<Waiting>>, Mutex<Option<mpsc::UnboundedReceiver<Vec<Waiting>>>>);

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) admitted: AtomicU64,
    pub(crate) settled: AtomicU64,
    pub(crate) groups: AtomicU64,
    pub(crate) group_size: AtomicU64,
    pub(crate) due_writes: AtomicU64,
    pub(crate) database_bytes: AtomicU64,
    pub(crate) database_free: AtomicU64,
    /// Deliveries by the number of their state.
    states: [AtomicI64; 5],
}

impl Counters {
    fn new(counts: Counts) -> Self {
        let Counts { active, waiting, held, sandboxed, quarantined } = counts;
        let states = [active, waiting, held, sandboxed, quarantined].map(|n| AtomicI64::new(n.cast_signed()));
        Self { states, ..Self::default() }
    }

    /// What a commit changed.
    pub(crate) fn apply(&self, effects: &Effects) {
        self.admitted.fetch_add(effects.admitted, Ordering::Relaxed);
        self.settled.fetch_add(effects.settled, Ordering::Relaxed);
        self.due_writes.fetch_add(effects.due_writes, Ordering::Relaxed);
        for (state, by) in self.states.iter().zip(effects.states) {
            state.fetch_add(by, Ordering::Relaxed);
        }
    }

    pub(crate) fn counts(&self) -> Counts {
        let [active, waiting, held, sandboxed, quarantined] = [0, 1, 2, 3, 4]
            .map(|i: usize| u64::try_from(self.states[i].load(Ordering::Relaxed)).unwrap_or(0));
        Counts { active, waiting, held, sandboxed, quarantined }
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("dir", &self.config.dir).finish_non_exhaustive()
    }
}

impl Shared {
    /// Takes the lock and recovers. Returns the writer's connection with it.
    pub(crate) fn open(config: Config, clock: Clock) -> Result<(Arc<Self>, Connection, Recovery)> {
        make_dir(&config.dir)?;
        let lock = Lock::take(&config.dir)?;
        let health = Arc::new(Health::new());
        let segments = Segments::open(config.dir.join(CONTENT), config.memory.clone(), health.clone())?;
        let ids = IdGenerator::new(clock.clone(), config.node);
        let Start { mut conn, mut recovery, counts, segments: found, run, last_event, events_done } =
            open::start(&config, &ids, clock.now())?;
        recovery.segments_removed = segments.adopt(found)?;
        let (sender, receiver) = mpsc::unbounded_channel();
        let shared = Arc::new(Self {
            database: config.dir.join(DATABASE),
            room: Room::new(&config.dir, config.disk_reserve),
            inbox: Inbox::new(clock.clone()),
            handover: Handover::default(),
            outbox: Outbox::new(last_event, events_done),
            readers: Readers::default(),
            reading: Semaphore::new(READERS),
            loading: Semaphore::new(LOADERS),
            checkpoint: Checkpoint::default(),
            upkeep: Upkeep::default(),
            counters: Counters::new(counts),
            notes: Notes::default(),
            keep_files: RwLock::new(()),
            orphans: (sender, Mutex::new(Some(receiver))),
            claims: !recovery.clean,
            abandoned: AtomicBool::new(false),
            lock: Mutex::new(Some(lock)),
            segments: Arc::new(segments),
            config,
            clock,
            ids,
            health,
            run,
        });
        count_pages(&mut conn, &shared)?;
        Ok((shared, conn, recovery))
    }

    /// Lets another process in.
    pub(crate) fn unlock(&self) {
        self.lock.lock().take();
    }

    /// Content bytes written since the start, and the log's.
    pub(crate) fn written(&self) -> u64 {
        self.segments.bytes_written.load(Ordering::Relaxed)
    }

    pub(crate) fn hand_in(&self, op: Op) -> Result<()> {
        self.inbox.push(op).map_err(|_| self.why_closed())
    }

    /// Why nothing is taken any more.
    pub(crate) fn why_closed(&self) -> StoreError {
        self.health.check().err().unwrap_or(StoreError::Closed)
    }

    /// Whether there is something to write for which nobody waits.
    pub(crate) fn has_leftovers(&self) -> bool {
        self.outbox.to_delete().is_some() || !self.notes.is_empty()
    }

    /// Active deliveries whose caller has gone away: to the driver if it listens, else back into the queue.
    pub(crate) fn adopt(&self, waiting: Vec<Waiting>) {
        let active: Vec<_> = waiting.into_iter().filter(|w| w.state == State::Active).collect();
        if active.is_empty() {
            return;
        }
        let somebody_listens = self.orphans.1.lock().is_none();
        let left = if somebody_listens {
            match self.orphans.0.send(active) {
                Ok(()) => return,
                Err(back) => back.0,
            }
        } else {
            active
        };
        for waiting in left {
            let settlement = Box::new(put_back(waiting.id, self.clock.now()));
            // Closing down: the next start finds them.
            let _ = self.inbox.push(Op::Settle { settlement, done: Done::new(Box::new(drop)) });
        }
    }

    /// Reads on this thread.
    pub(crate) fn read_now<T>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T> {
        self.health.check()?;
        if self.inbox.is_closed() {
            return Err(self.why_closed());
        }
        let conn = match self.readers.take() {
            Some(conn) => conn,
            None => schema::open_reader(&self.database)?,
        };
        let result = work(&conn).map_err(|e| sql_error("reading the queue", &e));
        // After an error it may be in any state.
        if result.is_ok() {
            self.readers.give_back(conn);
        }
        result
    }

    /// The content at `at`, or wherever it has been moved to.
    pub(crate) fn content(&self, at: ContentRef) -> Result<Content> {
        self.health.check()?;
        let mut at = at;
        // More than one move while we look is possible, many are not.
        for _ in 0..8 {
            if let Some(content) = self.segments.read(&at)? {
                return Ok(content);
            }
            match self.read_now(|conn| read::locate(conn, at.message))? {
                Some(now) if now != at => at = now,
                Some(_) => {
                    return Err(StoreError::Damaged {
                        message: at.message,
                        reason: "its content file is gone".into(),
                    });
                }
                None => return Err(StoreError::Invalid(format!("message {} is gone", at.message))),
            }
        }
        Err(StoreError::Invalid(format!("the content of message {} is on the move", at.message)))
    }

    pub(crate) fn stats(&self) -> Stats {
        let content = self.segments.totals();
        let c = &self.counters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            admitted: read(&c.admitted),
            settled: read(&c.settled),
            groups: read(&c.groups),
            fsyncs: read(&self.health.fsyncs),
            checkpoints: read(&self.checkpoint.made),
            group_size: read(&c.group_size),
            content_bytes: self.written(),
            live_bytes: content.live,
            segment_bytes: content.size,
            segments: content.segments,
            deliveries: c.counts().all(),
            wal_bytes: self.checkpoint.wal_bytes(),
            outbox: self.outbox.len(),
            memory: self.config.memory.used(),
            counts: c.counts(),
            content_reads: read(&self.segments.reads),
            due_writes: read(&c.due_writes),
            database_bytes: read(&c.database_bytes),
            database_free: read(&c.database_free),
            ..Stats::default()
        }
    }
}

/// Has SQLite tell after each commit how many pages the log has.
fn count_pages(conn: &mut Connection, shared: &Arc<Shared>) -> Result<()> {
    let shared = Arc::downgrade(shared);
    conn.wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, pages: std::ffi::c_int| {
        if let Some(shared) = shared.upgrade() {
            shared.checkpoint.note(u64::try_from(pages).unwrap_or(0));
        }
        Ok(())
    }))
    .map_err(|e| sql_error("opening the queue", &e))
}

/// Whatever ends one of the two threads that a group goes through, nobody is left waiting for it, nor the other thread.
pub(crate) struct LastWords {
    pub(crate) shared: Arc<Shared>,
    pub(crate) role: Role,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// It prepares groups.
    Appender,
    /// It commits them.
    Writer,
}

impl Drop for LastWords {
    fn drop(&mut self) {
        let Self { shared, role } = self;
        if std::thread::panicking() {
            shared.health.fail(match role {
                Role::Appender => "the thread that writes content panicked",
                Role::Writer => "the writer panicked",
            });
        }
        shared.inbox.close();
        shared.inbox.abandon();
        shared.handover.close();
        // What was handed over by the other is still committed, or refused.
        if *role == Role::Writer {
            shared.handover.abandon();
        }
    }
}

pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        // The runtime shuts down, or the work panicked.
        Err(_) => Err(StoreError::Closed),
    }
}

/// An error of SQLite by who is at fault.
pub(crate) fn sql_error(what: &str, error: &rusqlite::Error) -> StoreError {
    let io = |kind| StoreError::Io { what: what.into(), reason: error.to_string(), kind };
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => StoreError::NoSpace,
        Some(ErrorCode::ConstraintViolation | ErrorCode::TooBig | ErrorCode::TypeMismatch) => {
            StoreError::Invalid(format!("{what}: {error}"))
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => io(std::io::ErrorKind::ResourceBusy),
        Some(_) => io(std::io::ErrorKind::Other),
        None => io(std::io::ErrorKind::InvalidData),
    }
}
