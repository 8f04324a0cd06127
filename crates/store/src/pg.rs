//! The engine for clusters: rows and content in PostgreSQL, which the nodes share, and one committer a node with group
//! commit (ADR-0016).
//!
//! The [`committer`] takes what waits; each [`group`] is tried until it is known what has become of it. A try is a
//! transaction ([`commit`]): lock the node's row, [`load`] the rows that it concerns, make of them in memory what the
//! tasks say ([`work`]), take dedupe [`keys`], [`write`] it all, bring the [`sums`] up to date. [`claim`] pages a queue into
//! this node's hands; [`release`] gives back what a node has, be it closed or dead. Every row in hand names node and epoch,
//! and every commit is refused once the node's epoch is over.

mod body;
mod claim;
mod commit;
mod committer;
mod errors;
mod group;
mod hands;
mod inbox;
mod keys;
mod load;
mod objects;
mod open;
mod outbox;
mod read;
mod release;
mod schema;
mod search;
mod shared;
mod sums;
#[cfg(test)]
mod tests;
mod told;
mod upkeep;
mod work;
mod write;

pub use hands::{Hand, hands};

use std::sync::Arc;
use std::sync::atomic::Ordering;

use mail::{Actor, Clock, DeliveryId, Event, IdGenerator, MessageId, QueueKey, Timestamp};
use tokio::sync::{Mutex, mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::config::{Fence, PostgresConfig};
use crate::content::{Content, ContentRef, Sealed, Sink};
use crate::error::{NoRoom, StoreError};
use crate::filter::{Action, ChangedDelivery, QueueEntry, QueueFilter};
use crate::model::{
    Admission, Admitted, Counts, Damage, Horizon, QueueStats, Recovery, Settled, Settlement, Stats,
    VerifyReport, Waiting,
};
use crate::operate::would_change;
use crate::settle::{Done, DoneFn};
use committer::{Committer, LastWords};
use errors::committed;
pub(crate) use errors::read_error;
use inbox::{Answer, Reply, Task};
pub(crate) use schema::{day, make_partitions, migrate};
use shared::Shared;

type Result<T> = std::result::Result<T, StoreError>;

/// Rows an operator's change commits at a time.
const CHANGE: usize = 1000;
/// Queues read at a time.
const QUEUES: i64 = 20_000;
/// Messages that are looked at between two questions for more.
const VERIFY: i64 = 500;

/// The engine in PostgreSQL. Dropped without being closed, it leaves the queue as a crash would, but with everything done
/// that was handed in.
#[derive(Debug)]
pub(crate) struct Engine {
    shared: Arc<Shared>,
    committer: Mutex<Option<JoinHandle<Result<()>>>>,
}

impl Engine {
    pub(crate) async fn open(config: PostgresConfig, clock: Clock) -> Result<(Self, Recovery)> {
        let open::Start { shared, inbox, mut recovery } = open::start(config, clock).await?;
        let committer = Committer::new(shared.clone(), inbox);
        let last = LastWords(shared.clone());
        let task = tokio::spawn(async move {
            let _last = last;
            committer.run().await
        });
        let engine = Self { shared, committer: Mutex::new(Some(task)) };
        open::recover(&engine.shared, &mut recovery).await?;
        tokio::spawn(upkeep::run(Arc::downgrade(&engine.shared)));
        Ok((engine, recovery))
    }

    pub(crate) fn ids(&self) -> &IdGenerator {
        &self.shared.ids
    }

    pub(crate) fn sink(&self, id: MessageId) -> Sink {
        Sink::new(self.shared.spool.clone(), id)
    }

    pub(crate) fn sealed(&self, id: MessageId, bytes: Vec<u8>) -> Sealed {
        Sealed::composed(&self.shared.spool, id, bytes)
    }

    pub(crate) fn room(&self) -> std::result::Result<(), NoRoom> {
        if self.shared.health.check().is_err() || self.shared.down.load(Ordering::Relaxed) {
            return Err(NoRoom::Unavailable);
        }
        self.shared.room.check(0)
    }

    pub(crate) async fn admit(&self, admission: Admission) -> Result<Admitted> {
        let (answer, answered) = oneshot::channel();
        self.shared.hand_in(Task::Admit(Box::new(admission)), Reply::Admit(answer))?;
        let mut admitting = Admitting { answered, shared: &self.shared };
        (&mut admitting.answered).await.unwrap_or_else(|_| Err(self.shared.why_closed()))
    }

    pub(crate) fn orphans(&self) -> Option<mpsc::UnboundedReceiver<Vec<Waiting>>> {
        self.shared.orphans.1.lock().take()
    }

    pub(crate) fn settle(&self, settlement: Settlement, done: DoneFn) {
        let reply = Reply::Settle(Done::new(done));
        let op = inbox::Op::new(Task::Settle(Box::new(settlement)), reply);
        if let Err(op) = self.shared.inbox.push(op) {
            op.refuse(&self.shared.why_closed());
        }
    }

    pub(crate) async fn settled(&self, settlement: Settlement) -> Result<Settled> {
        let (answer, answered) = oneshot::channel();
        // Whoever asked may have gone away.
        self.settle(settlement, Box::new(move |result| drop(answer.send(result))));
        answered.await.unwrap_or_else(|_| Err(self.shared.why_closed()))
    }

    pub(crate) async fn page(&self, queue: QueueKey, now: Timestamp, n: usize) -> Result<Vec<Waiting>> {
        claim::page(&self.shared, &queue, now, n).await
    }

    pub(crate) async fn next_due(&self, queue: QueueKey, now: Timestamp) -> Result<Option<Timestamp>> {
        let Some(number) = read::find_queue(&self.shared, &queue).await? else { return Ok(None) };
        let me = (self.shared.node(), self.shared.me.epoch);
        self.shared.read(|session| read::next_due(session, number, now.0, me)).await
    }

    pub(crate) async fn horizon(&self, after: Timestamp, n: usize) -> Result<Horizon> {
        let me = (self.shared.node(), self.shared.me.epoch);
        let (horizon, numbers) = self.shared.read(|session| read::horizon(session, after.0, n, me)).await?;
        // What others have put back may lie below where this node's pages begin.
        let found = numbers.into_iter().zip(&horizon.queues);
        self.shared.marks.lower(found.map(|(number, (_, due))| (number, due.0)));
        Ok(horizon)
    }

    pub(crate) async fn note(&self, name: &str) -> Result<Option<Vec<u8>>> {
        if let Some(value) = self.shared.notes.pending(name) {
            return Ok(Some(value));
        }
        let node = self.shared.node();
        self.shared.read(|session| outbox::note(session, node, name)).await
    }

    pub(crate) fn set_note(&self, name: &str, value: Vec<u8>) -> Result<()> {
        self.shared.open()?;
        self.shared.notes.set(name, value);
        self.shared.inbox.nudge.notify_one();
        Ok(())
    }

    pub(crate) async fn queues(&self) -> Result<Vec<QueueStats>> {
        let (mut queues, mut after) = (Vec::new(), i64::MIN);
        loop {
            let (part, last) = self.shared.read(|session| read::waiting(session, after, QUEUES)).await?;
            queues.extend(part);
            let Some(last) = last else { break };
            after = last;
        }
        queues.sort_by_key(|found| found.due);
        Ok(queues)
    }

    pub(crate) async fn counts(&self) -> Result<Counts> {
        Ok(self.shared.read(|session| sums::without(session, -1)).await?.counts())
    }

    pub(crate) async fn load(&self, id: DeliveryId) -> Result<Option<Waiting>> {
        self.shared.read(|session| read::load(session, id)).await
    }

    pub(crate) async fn content(&self, at: ContentRef) -> Result<Content> {
        self.shared.health.check()?;
        let found = body::content(&self.shared, at).await;
        if let Err(StoreError::Damaged { message, reason }) = &found {
            let task = Task::Quarantine { message: *message, reason: reason.clone() };
            self.ask(task, Reply::Quarantine).await?;
        }
        found
    }

    pub(crate) async fn search(
        &self,
        filter: QueueFilter,
        mut after: Option<DeliveryId>,
        limit: usize,
    ) -> Result<Vec<QueueEntry>> {
        let mut entries = Vec::new();
        while entries.len() < limit {
            let left = limit - entries.len();
            let part = self.shared.read(|session| search::part(session, &filter, after, left)).await?;
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
        let part = self.shared.read(|session| search::part(session, &filter, after, CHANGE)).await?;
        let me = self.shared.me.node;
        if dry_run {
            let mut changes = would_change(part.entries, action);
            changes.iter_mut().for_each(|one| one.elsewhere = one.elsewhere.filter(|node| *node != me));
            return Ok((changes, part.next));
        }
        let ids: Vec<_> = part.entries.iter().map(|entry| entry.id).collect();
        if ids.is_empty() {
            return Ok((Vec::new(), part.next));
        }
        let task = Task::Change { ids, action: action.clone(), by: by.clone() };
        Ok((self.ask(task, Reply::Change).await?, part.next))
    }

    pub(crate) fn told(&self) -> Option<mpsc::UnboundedReceiver<Vec<ChangedDelivery>>> {
        told::start(&self.shared)
    }

    pub(crate) async fn left_outboxes(&self) -> Result<Vec<u16>> {
        self.shared.read(outbox::left).await
    }

    pub(crate) async fn outbox_of(&self, node: u16, after: u64, n: usize) -> Result<Vec<(u64, Event)>> {
        self.shared.read(|session| outbox::stored(session, i32::from(node), after, n)).await
    }

    pub(crate) async fn outbox_done_of(&self, node: u16, up_to: u64) -> Result<()> {
        self.shared.open()?;
        let deleted = self.shared.pool.commit_idempotent(|tx| outbox::delete_left(tx, node, up_to)).await;
        if committed(deleted, "deleting events that were handed on")? {
            return Ok(());
        }
        Err(StoreError::Fenced(format!("node {node} is alive: its events are its own to hand on")))
    }

    pub(crate) async fn outbox(&self, after: u64, n: usize) -> Result<Vec<(u64, Event)>> {
        match self.shared.outbox.recent(after, n) {
            Some(events) => Ok(events),
            None => {
                let node = self.shared.node();
                self.shared.read(|session| outbox::stored(session, node, after, n)).await
            }
        }
    }

    pub(crate) fn outbox_blocking(&self, after: u64, n: usize) -> Result<Vec<(u64, Event)>> {
        match self.shared.outbox.recent(after, n) {
            Some(events) => Ok(events),
            None => self.shared.runtime.block_on(self.outbox(after, n)),
        }
    }

    pub(crate) fn outbox_done(&self, up_to: u64) -> Result<()> {
        self.shared.health.check()?;
        self.shared.outbox.set_done(up_to);
        self.shared.inbox.nudge.notify_one();
        Ok(())
    }

    pub(crate) fn outbox_wait(&self) -> watch::Receiver<u64> {
        self.shared.outbox.watch()
    }

    pub(crate) async fn requeue(&self, dead: Fence) -> Result<u64> {
        self.shared.open()?;
        let me = self.shared.me;
        if dead.node == me.node && dead.epoch >= me.epoch {
            return Err(StoreError::Invalid("a node does not take over from itself".into()));
        }
        release::end(&self.shared, dead).await?;
        Ok(release::all(&self.shared, dead, &inbox::Suspects::All).await?.found)
    }

    pub(crate) async fn sweep_objects(&self) -> Result<u64> {
        self.shared.open()?;
        objects::sweep(&self.shared).await
    }

    pub(crate) async fn verify(&self) -> Result<VerifyReport> {
        let mut report = VerifyReport::default();
        for (what, sql) in sums::CHECKS {
            let wrong = self.shared.read(|session| count(session, sql)).await?;
            if wrong > 0 {
                report.database.push(format!("the sums of {wrong} {what} are not those of the rows"));
            }
        }
        let mut after = i64::MIN;
        loop {
            let contents = self.shared.read(|session| body::refs(session, after, VERIFY)).await?;
            let Some(last) = contents.last() else { return Ok(report) };
            after = last.message.0.cast_signed();
            for at in contents {
                let (octets, wrong) = body::look_at(&self.shared, at).await?;
                report.messages += 1;
                report.bytes += octets;
                report.damaged.extend(wrong.map(|reason| Damage { message: at.message, reason }));
            }
        }
    }

    pub(crate) fn failed(&self) -> watch::Receiver<Option<String>> {
        self.shared.health.watch()
    }

    pub(crate) fn stats(&self) -> Stats {
        self.shared.stats()
    }

    pub(crate) async fn close(&self) -> Result<()> {
        self.shared.inbox.close();
        let Some(task) = self.committer.lock().await.take() else { return Ok(()) };
        let done = task.await.unwrap_or_else(|_| Err(StoreError::Failed("the committer panicked".into())));
        self.shared.lock.lock().take();
        done
    }

    async fn ask<T>(&self, task: Task, reply: impl FnOnce(Answer<T>) -> Reply) -> Result<T> {
        let (answer, answered) = oneshot::channel();
        self.shared.hand_in(task, reply(answer))?;
        answered.await.unwrap_or_else(|_| Err(self.shared.why_closed()))
    }
}

async fn count(session: postgres::Session, sql: &str) -> std::result::Result<i64, postgres::PgError> {
    Ok(session.query_one(sql, &[]).await?.try_get(0)?)
}

/// An admission that somebody waits for. Dropped after the committer has answered, the answer is not lost.
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

impl Drop for Engine {
    fn drop(&mut self) {
        // A store that was closed has marked itself clean by now.
        self.shared.abandoned.store(true, Ordering::Relaxed);
        self.shared.inbox.close();
        self.shared.lock.lock().take();
    }
}
