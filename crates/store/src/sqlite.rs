//! The embedded engine: rows in SQLite, content in segment files, one writer with group commit.
//!
//! A group goes through two threads: one puts its content on stable storage ([`appender`]), one commits its rows
//! ([`writer`]), each at work on another group. Beside them: the checkpointer ([`checkpoint`]) and upkeep ([`upkeep`]).
//! None of them knows tokio; answers go through channels. Reads take a connection from a small pool, on tokio's blocking
//! threads.

mod appender;
mod backup;
mod change;
mod checkpoint;
mod compact;
mod fresh;
mod handover;
mod horizon;
mod inbox;
mod item;
mod notes;
mod open;
mod outbox;
mod read;
mod schema;
mod search;
mod shared;
mod sums;
#[cfg(test)]
mod tests;
mod upkeep;
mod verify;
mod write;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use mail::{Actor, Clock, DeliveryId, Event, IdGenerator, MessageId, QueueKey, Timestamp};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot, watch};

use crate::config::Config;
use crate::content::{Content, ContentRef, Sealed, Sink};
use crate::error::{NoRoom, StoreError};
use crate::filter::{Action, ChangedDelivery, QueueEntry, QueueFilter};
use crate::model::{
    Admission, Admitted, BackupReport, Counts, Horizon, QueueStats, Recovery, RestoreReport, Settled,
    Settlement, Stats, VerifyReport, Waiting,
};
use crate::operate::would_change;
use crate::settle::{Done, DoneFn};
use appender::Appender;
use checkpoint::Checkpoint;
use inbox::{Answer, Op};
pub(crate) use open::{CONTENT, DATABASE};
pub(crate) use outbox::stored as stored_events;
pub(crate) use schema::open_writer;
pub(crate) use shared::sql_error;
use shared::{LastWords, Role, Shared};
use upkeep::Upkeep;
use writer::Writer;

type Result<T> = std::result::Result<T, StoreError>;

/// Rows an operator's change commits at a time.
const CHANGE: usize = 1000;
/// Queues read at a time.
const QUEUES: usize = 20_000;

/// The embedded engine. Dropped without being closed, it leaves the store as a crash would, but with everything done that
/// was handed in.
#[derive(Debug)]
pub(crate) struct Engine {
    shared: Arc<Shared>,
    threads: Mutex<Threads>,
}

#[derive(Debug, Default)]
struct Threads {
    writer: Option<JoinHandle<Result<()>>>,
    others: Vec<JoinHandle<()>>,
}

pub(crate) fn restore(from: &Path, dir: &Path) -> Result<RestoreReport> {
    backup::restore(from, dir)
}

impl Engine {
    pub(crate) fn open(config: Config, clock: Clock) -> Result<(Self, Recovery)> {
        let (shared, conn, recovery) = Shared::open(config, clock)?;
        let appender = Arc::new(Mutex::new(Appender::new(shared.clone())?));
        let writer = Writer::new(shared.clone(), conn, appender.clone());
        let log = schema::open_reader(&shared.database)?;
        let mut threads = Threads::default();
        let engine_shared = shared.clone();
        let last = LastWords { shared: shared.clone(), role: Role::Writer };
        threads.writer = Some(spawn("posthouse-store", move || {
            let _last = last;
            writer.run()
        })?);
        let last = LastWords { shared: shared.clone(), role: Role::Appender };
        threads.others.push(spawn("posthouse-content", move || Appender::run(&last.shared, &appender))?);
        let for_log = shared.clone();
        threads.others.push(spawn("posthouse-checkpoint", move || {
            Checkpoint::run(&for_log, &log);
        })?);
        threads.others.push(spawn("posthouse-upkeep", move || Upkeep::run(&shared))?);
        Ok((Self { shared: engine_shared, threads: Mutex::new(threads) }, recovery))
    }

    pub(crate) fn ids(&self) -> &IdGenerator {
        &self.shared.ids
    }

    pub(crate) fn sink(&self, id: MessageId) -> Sink {
        Sink::new(self.shared.segments.clone(), id)
    }

    pub(crate) fn sealed(&self, id: MessageId, bytes: Vec<u8>) -> Sealed {
        Sealed::composed(&self.shared.segments, id, bytes)
    }

    pub(crate) fn room(&self) -> std::result::Result<(), NoRoom> {
        if self.shared.health.check().is_err() {
            return Err(NoRoom::Unavailable);
        }
        self.shared.room.check(self.shared.written())
    }

    pub(crate) async fn admit(&self, admission: Admission) -> Result<Admitted> {
        let (answer, answered) = oneshot::channel();
        self.shared.hand_in(Op::Admit { admission: Box::new(admission), answer })?;
        let mut admitting = Admitting { answered, shared: &self.shared };
        (&mut admitting.answered).await.unwrap_or_else(|_| Err(self.shared.why_closed()))
    }

    pub(crate) fn orphans(&self) -> Option<mpsc::UnboundedReceiver<Vec<Waiting>>> {
        self.shared.orphans.1.lock().take()
    }

    pub(crate) fn settle(&self, settlement: Settlement, done: DoneFn) {
        let op = Op::Settle { settlement: Box::new(settlement), done: Done::new(done) };
        if let Err(Op::Settle { done, .. }) = self.shared.inbox.push(op) {
            done.tell(Err(self.shared.why_closed()));
        }
    }

    pub(crate) async fn settled(&self, settlement: Settlement) -> Result<Settled> {
        let (answer, answered) = oneshot::channel();
        // Whoever asked may have gone away.
        self.settle(settlement, Box::new(move |result| drop(answer.send(result))));
        answered.await.unwrap_or_else(|_| Err(self.shared.why_closed()))
    }

    pub(crate) async fn page(&self, queue: QueueKey, now: Timestamp, n: usize) -> Result<Vec<Waiting>> {
        let rows = self.read(move |conn| read::page(conn, &queue, now, n)).await?;
        // After an unclean stop it is noted what is about to be attempted, so that a message that brings the relay down
        // is found out even if it was never active.
        if self.shared.claims {
            let run = self.shared.run;
            let ids: Vec<_> = rows.iter().filter(|(_, by)| *by != Some(run)).map(|(w, _)| w.id).collect();
            if !ids.is_empty() {
                self.ask(|answer| Op::Claim { ids, answer }).await?;
            }
        }
        Ok(rows.into_iter().map(|(waiting, _)| waiting).collect())
    }

    pub(crate) async fn next_due(&self, queue: QueueKey, now: Timestamp) -> Result<Option<Timestamp>> {
        self.read(move |conn| read::next_due(conn, &queue, now)).await
    }

    pub(crate) async fn horizon(&self, after: Timestamp, n: usize) -> Result<Horizon> {
        self.read(move |conn| horizon::horizon(conn, after, n)).await
    }

    pub(crate) async fn note(&self, name: &str) -> Result<Option<Vec<u8>>> {
        if let Some(value) = self.shared.notes.pending(name) {
            return Ok(Some(value));
        }
        let name = name.to_owned();
        self.read(move |conn| notes::stored(conn, &name)).await
    }

    pub(crate) fn set_note(&self, name: &str, value: Vec<u8>) -> Result<()> {
        self.shared.health.check()?;
        if self.shared.inbox.is_closed() {
            return Err(self.shared.why_closed());
        }
        self.shared.notes.set(name, value);
        self.shared.inbox.nudge();
        Ok(())
    }

    pub(crate) async fn queues(&self) -> Result<Vec<QueueStats>> {
        let (mut queues, mut after) = (Vec::new(), i64::MIN);
        loop {
            let (part, last) = self.read(move |conn| horizon::waiting(conn, after, QUEUES)).await?;
            queues.extend(part);
            let Some(last) = last else { break };
            after = last;
        }
        queues.sort_by_key(|found| found.due);
        Ok(queues)
    }

    pub(crate) fn counts(&self) -> Result<Counts> {
        self.shared.health.check()?;
        Ok(self.shared.counters.counts())
    }

    pub(crate) async fn load(&self, id: DeliveryId) -> Result<Option<Waiting>> {
        self.read(move |conn| read::load(conn, id)).await
    }

    pub(crate) async fn content(&self, at: ContentRef) -> Result<Content> {
        let shared = self.shared.clone();
        let place = self.shared.loading.acquire().await.map_err(|_| StoreError::Closed)?;
        let found = shared::blocking(move || shared.content(at)).await;
        drop(place);
        if let Err(StoreError::Damaged { message, reason }) = &found {
            let (message, reason) = (*message, reason.clone());
            self.ask(|answer| Op::Quarantine { message, reason, answer }).await?;
        }
        found
    }

    pub(crate) async fn search(
        &self,
        filter: QueueFilter,
        mut after: Option<DeliveryId>,
        limit: usize,
    ) -> Result<Vec<QueueEntry>> {
        let filter = Arc::new(filter);
        let mut entries = Vec::new();
        while entries.len() < limit {
            let (filter, left) = (filter.clone(), limit - entries.len());
            let part = self.read(move |conn| search::part(conn, &filter, after, left)).await?;
            entries.extend(part.entries);
            after = part.next;
            if after.is_none() {
                break;
            }
        }
        Ok(entries)
    }

    pub(crate) async fn change_part(
        &self,
        filter: QueueFilter,
        action: &Action,
        by: &Actor,
        dry_run: bool,
        after: Option<DeliveryId>,
    ) -> Result<(Vec<ChangedDelivery>, Option<DeliveryId>)> {
        let part = self.read(move |conn| search::part(conn, &filter, after, CHANGE)).await?;
        if dry_run {
            return Ok((would_change(part.entries, action), part.next));
        }
        let ids: Vec<_> = part.entries.iter().map(|entry| entry.id).collect();
        if ids.is_empty() {
            return Ok((Vec::new(), part.next));
        }
        let (action, by) = (action.clone(), by.clone());
        let changed = self.ask(|answer| Op::Change { ids, action, by, answer }).await?;
        Ok((changed, part.next))
    }

    pub(crate) async fn outbox(&self, after: u64, n: usize) -> Result<Vec<(u64, Event)>> {
        match self.shared.outbox.recent(after, n) {
            Some(events) => Ok(events),
            None => self.read(move |conn| outbox::stored(conn, after, n)).await,
        }
    }

    pub(crate) fn outbox_blocking(&self, after: u64, n: usize) -> Result<Vec<(u64, Event)>> {
        match self.shared.outbox.recent(after, n) {
            Some(events) => Ok(events),
            None => self.shared.read_now(|conn| outbox::stored(conn, after, n)),
        }
    }

    pub(crate) fn outbox_done(&self, up_to: u64) -> Result<()> {
        self.shared.health.check()?;
        self.shared.outbox.set_done(up_to);
        Ok(())
    }

    pub(crate) fn outbox_wait(&self) -> watch::Receiver<u64> {
        self.shared.outbox.watch()
    }

    pub(crate) async fn backup(&self, to: PathBuf) -> Result<BackupReport> {
        let shared = self.shared.clone();
        shared::blocking(move || backup::backup(&shared, &to)).await
    }

    pub(crate) async fn verify(&self) -> Result<VerifyReport> {
        let shared = self.shared.clone();
        shared::blocking(move || verify::run(&shared)).await
    }

    pub(crate) fn failed(&self) -> watch::Receiver<Option<String>> {
        self.shared.health.watch()
    }

    pub(crate) fn stats(&self) -> Stats {
        self.shared.stats()
    }

    pub(crate) async fn close(&self) -> Result<()> {
        self.shared.inbox.close();
        let threads = std::mem::take(&mut *self.threads.lock());
        let shared = self.shared.clone();
        shared::blocking(move || {
            let closed = threads.join(&shared);
            shared.readers.close();
            shared.unlock();
            closed
        })
        .await
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&rusqlite::Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        let _place = self.shared.reading.acquire().await.map_err(|_| StoreError::Closed)?;
        let shared = self.shared.clone();
        shared::blocking(move || shared.read_now(work)).await
    }

    async fn ask<T>(&self, op: impl FnOnce(Answer<T>) -> Op) -> Result<T> {
        let (answer, answered) = oneshot::channel();
        self.shared.hand_in(op(answer))?;
        answered.await.unwrap_or_else(|_| Err(self.shared.why_closed()))
    }
}

/// An admission that somebody waits for. Dropped after the writer has answered, the answer is not lost.
struct Admitting<'a> {
    answered: oneshot::Receiver<Result<Admitted>>,
    shared: &'a Shared,
}

impl Drop for Admitting<'_> {
    fn drop(&mut self) {
        self.answered.close();
        if let Ok(Ok(Admitted::New(waiting))) = self.answered.try_recv() {
            self.shared.adopt(waiting);
        }
    }
}

impl Threads {
    /// Waits until all have ended; the writer first, as the others serve it.
    fn join(self, shared: &Shared) -> Result<()> {
        let done = match self.writer {
            Some(writer) => {
                writer.join().unwrap_or_else(|_| Err(StoreError::Failed("the writer panicked".into())))
            }
            None => Ok(()),
        };
        shared.upkeep.stop();
        shared.checkpoint.stop();
        for thread in self.others {
            // A panic there has been reported by the panic itself; nothing is lost by it.
            let _ = thread.join();
        }
        done
    }

    fn holds_this_thread(&self) -> bool {
        let this = std::thread::current().id();
        self.writer.as_ref().is_some_and(|t| t.thread().id() == this)
            || self.others.iter().any(|t| t.thread().id() == this)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.shared.abandoned.store(true, Ordering::Relaxed);
        self.shared.inbox.close();
        self.shared.upkeep.stop();
        self.shared.checkpoint.stop();
        let threads = std::mem::take(self.threads.get_mut());
        // The last clone may have been held by a callback on the writer's thread, which cannot wait for itself.
        if !threads.holds_this_thread() {
            let _ = threads.join(&self.shared);
        }
    }
}

fn spawn<T: Send + 'static>(name: &str, work: impl FnOnce() -> T + Send + 'static) -> Result<JoinHandle<T>> {
    std::thread::Builder::new()
        .name(name.into())
        .spawn(work)
        .map_err(|e| StoreError::io("starting a thread of the store", &e))
}
