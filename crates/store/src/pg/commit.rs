//! The transaction of a group. It begins by locking the node's row, which tells whether the node has been taken for dead
//! and whether this very group was committed by an earlier try whose answer got lost; it ends by writing that row.

use std::collections::BTreeSet;

use mail::{MessageId, QueueKey};
use parking_lot::Mutex;
use postgres::{PgError, Tx};

use super::group::MyTurn;
use super::inbox::Op;
use super::load;
use super::shared::Shared;
use super::sums::{COLUMNS, Effects, Totals};
use super::work::{Outcome, Placement, Work, events, placements, wanted};
use super::write::{delete_content, insert_content};
use super::{keys, outbox, told};
use crate::model::Admission;

type Result<T> = std::result::Result<T, PgError>;

/// What a try has done, to be published once it is known to be committed.
#[derive(Default)]
pub(crate) struct Done {
    pub(crate) outcomes: Vec<Outcome>,
    pub(crate) effects: Effects,
    /// The numbers of queues that were looked up.
    pub(crate) queues: Vec<(QueueKey, i64)>,
    /// The sums of this node.
    pub(crate) own: Totals,
    /// Up to where the outbox was deleted.
    pub(crate) deleted: Option<u64>,
    /// What of the notes was written.
    pub(crate) noted: u64,
}

/// How a try ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It stands, or an earlier try does: what it has done is in the group's place.
    Stands,
    /// This node has been taken for dead.
    Fenced,
}

/// A group on its way.
pub(crate) struct Group<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) ops: &'a [Op],
    /// Its turn, and with it its number: none of this life of the node has it again.
    pub(crate) turn: &'a MyTurn,
    /// What the last try has done.
    pub(crate) done: &'a Mutex<Option<Done>>,
    /// Its content is sent before it has the turn.
    pub(crate) large: bool,
    /// Messages whose content is in object storage already.
    pub(crate) placed: &'a [MessageId],
}

/// For one transaction: rows are found by their indices, whatever the statistics of tables say that fill and empty within
/// minutes.
const BY_INDEX: &str =
    "SET LOCAL enable_seqscan = off; SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off";

impl Group<'_> {
    /// Waits until no other group of this node is being written.
    pub(crate) async fn take_turn(&self) {
        if self.turn.lock().is_none() {
            let mut turn = self.shared.turn.clone().lock_owned().await;
            turn.number += 1;
            *self.turn.lock() = Some(turn);
        }
    }

    fn number(&self) -> i64 {
        self.turn.lock().as_ref().map_or(0, |turn| turn.number)
    }

    /// One try.
    pub(crate) async fn attempt(&self, tx: Tx) -> Result<Verdict> {
        let shared = self.shared;
        if self.large {
            let admissions: Vec<&Admission> = self.ops.iter().flat_map(|op| op.task.admissions()).collect();
            let unplaced = |admission: &&Admission| !self.placed.contains(&admission.message.id);
            let admissions: Vec<_> = admissions.into_iter().filter(unplaced).collect();
            insert_content(&tx, &admissions).await?;
            self.take_turn().await;
        }
        let node = shared.node();
        let lock = "SELECT fenced, epoch, batch FROM store.node WHERE id = $1 FOR NO KEY UPDATE";
        let who: [&(dyn postgres::types::ToSql + Sync); 1] = [&node];
        let (row, ()) = tokio::try_join!(tx.query_one(lock, &who), tx.batch(BY_INDEX))?;
        let (fenced, epoch, batch): (i64, i64, i64) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        if fenced >= shared.me.epoch || epoch != shared.me.epoch {
            tx.abandon();
            return Ok(Verdict::Fenced);
        }
        if batch == self.number() {
            // An earlier try was committed after all. This one has to write, too: a transaction that does not write waits
            // for no standby.
            tx.execute("UPDATE store.node SET batch = batch WHERE id = $1", &[&node]).await?;
            return Ok(Verdict::Stands);
        }
        let done = self.work(&tx).await?;
        *self.done.lock() = Some(done);
        Ok(Verdict::Stands)
    }

    async fn work(&self, tx: &Tx) -> Result<Done> {
        let shared = self.shared;
        let mut work = Work::new(shared.me, shared.clock.now(), shared.config.crashes_max);
        let looked_up = self.queues(tx, &mut work).await?;
        work.load(tx, self.ops).await?;
        let mut outcomes = Vec::with_capacity(self.ops.len());
        for (place, op) in self.ops.iter().enumerate() {
            outcomes.push(work.apply(place, &op.task)?);
        }
        work.sum();
        keys::place(tx, self.ops, &mut outcomes, work.now()).await?;
        let admissions = stored(self.ops, &mut outcomes);
        work.insert(tx, &admissions, self.large, self.placed).await?;
        if self.large {
            unsend(tx, self.ops, &admissions).await?;
        }
        work.update(tx).await?;
        let told = self.ops.iter().zip(&outcomes).flat_map(|(op, outcome)| events(&op.task, outcome));
        let last = outbox::write(tx, shared.node(), shared.outbox.last(), told).await?;
        told::write(tx, shared.node(), &outcomes).await?;
        let noted = outbox::write_notes(tx, shared.node(), &shared.notes).await?;
        let deleted = shared.outbox.to_delete();
        if let Some(up_to) = deleted {
            outbox::delete(tx, shared.node(), up_to).await?;
        }
        work.effects.write_queues(tx, work.now()).await?;
        let own = self.write_node(tx, &work.effects, last, &admissions, deleted).await?;
        Ok(Done { outcomes, effects: work.effects, queues: looked_up, own, deleted, noted })
    }

    /// The numbers of the queues that new deliveries go to: most are known.
    async fn queues(&self, tx: &Tx, work: &mut Work) -> Result<Vec<(QueueKey, i64)>> {
        let now = self.shared.clock.mono();
        let mut unknown = Vec::new();
        let wanted: BTreeSet<&QueueKey> = load::queues_of(self.ops);
        for queue in wanted {
            match self.shared.queues.number(queue, now) {
                Some(number) => {
                    work.queues.insert(queue.clone(), number);
                }
                None => unknown.push(queue),
            }
        }
        let found = load::numbers(tx, &unknown, work.now()).await?;
        let found: Vec<_> = found.into_iter().map(|(queue, number)| (queue.clone(), number)).collect();
        for (queue, number) in &found {
            work.effects.used(*number);
            work.queues.insert(queue.clone(), *number);
        }
        Ok(found)
    }

    async fn write_node(
        &self,
        tx: &Tx,
        effects: &Effects,
        last_event: u64,
        admissions: &[&Admission],
        deleted: Option<u64>,
    ) -> Result<Totals> {
        let last_id =
            admissions.iter().map(|admission| admission.message.id.0.cast_signed()).max().unwrap_or(0);
        let [active, waiting, held, sandboxed, quarantined, live] = effects.columns();
        let sql = format!(
            "UPDATE store.node SET batch = $2, last_event = $3, last_id = greatest(last_id, $4),
               outbox_done = greatest(outbox_done, $5), active = active + $6, waiting = waiting + $7,
               held = held + $8, sandboxed = sandboxed + $9, quarantined = quarantined + $10, live = live + $11
             WHERE id = $1 RETURNING {COLUMNS}"
        );
        let (last_event, done) = (last_event.cast_signed(), deleted.unwrap_or(0).cast_signed());
        let row = tx
            .query_one(
                &sql,
                &[
                    &self.shared.node(),
                    &self.number(),
                    &last_event,
                    &last_id,
                    &done,
                    &active,
                    &waiting,
                    &held,
                    &sandboxed,
                    &quarantined,
                    &live,
                ],
            )
            .await?;
        Totals::of(&row, 0)
    }
}

/// Takes back content that was sent for nothing: its message is a duplicate, or for nobody.
async fn unsend(tx: &Tx, ops: &[Op], stored: &[&Admission]) -> Result<()> {
    let kept = |id| stored.iter().any(|kept| kept.message.id == id && !kept.deliveries.is_empty());
    let sent = ops.iter().flat_map(|op| op.task.admissions()).map(|admission| admission.message.id);
    let unwanted: Vec<_> = sent.filter(|id| !kept(*id)).collect();
    delete_content(tx, &unwanted).await
}

/// The messages that are stored with the group.
fn stored<'a>(ops: &'a [Op], outcomes: &mut [Outcome]) -> Vec<&'a Admission> {
    let mut stored = Vec::new();
    for (op, outcome) in ops.iter().zip(outcomes) {
        let wanted = wanted(&op.task, outcome);
        let placed = wanted.iter().zip(placements(outcome));
        stored
            .extend(placed.filter(|(_, place)| **place == Placement::Stored).map(|(admission, _)| admission));
    }
    stored
}
