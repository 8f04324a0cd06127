//! What an operator does to deliveries, row by row inside the writer's transaction, with an event for each.

use mail::{DeliveryId, Event, EventKind, MessageId, QueueKey, State};
use rusqlite::{OptionalExtension, params};

use super::sums::Standing;
use super::write::Tx;
use crate::codec;
use crate::filter::{Action, ChangedDelivery};
use crate::operate::{outcome, queue_after, told};

type Result<T> = rusqlite::Result<T>;

impl Tx<'_> {
    /// Changes those deliveries that are still there and that the action means something to. The events are returned as
    /// they were put into the outbox.
    pub(crate) fn change(
        &mut self,
        ids: &[DeliveryId],
        action: &Action,
        by: &str,
    ) -> Result<(Vec<ChangedDelivery>, Vec<Event>)> {
        let (mut changed, mut events) = (Vec::new(), Vec::new());
        for id in ids {
            let Some((stood, queue)) = self.state_and_queue(*id)? else { continue };
            let was = stood.1;
            let Some(state) = outcome(action, was, &queue) else { continue };
            let kind = self.change_one(*id, action, by, (stood, &queue), state)?;
            let event = Event { at: self.now, message: id.message, kind };
            self.tell(&event)?;
            events.push(event);
            let now_in = state.map(|_| queue_after(action, &queue));
            changed.push(ChangedDelivery { id: *id, queue, now_in, was, state, elsewhere: None });
        }
        Ok((changed, events))
    }

    fn change_one(
        &mut self,
        id: DeliveryId,
        action: &Action,
        by: &str,
        (stood, queue): (Standing, &QueueKey),
        state: Option<State>,
    ) -> Result<EventKind> {
        self.fresh.forget(id);
        let by = by.to_owned();
        let Some(state) = state else {
            let recipients = self.pending(id)?;
            self.remove(id)?;
            return Ok(EventKind::Removed { by, recipients });
        };
        let number = self.queues.number(self.conn, &queue_after(action, queue))?;
        let due = (state == State::Waiting).then_some(self.now.0);
        let reason = if let Action::Hold { reason } = action { Some(reason.as_str()) } else { None };
        self.conn
            .prepare_cached(
                "UPDATE delivery SET queue = ?3, state = ?4, due = ?5, reason = iif(?4 = state, reason, ?6),
                   crashes = iif(?7, 0, crashes), claimed = NULL
                 WHERE message = ?1 AND idx = ?2",
            )?
            .execute(params![
                codec::id(id.message),
                id.index,
                number,
                codec::state_code(state),
                due,
                reason,
                // Somebody has looked at it: it gets all its chances again.
                matches!(action, Action::Release)
            ])?;
        self.effects.moved(Some(stood), Some((number, state, due)));
        Ok(told(action, by))
    }

    /// Quarantines the deliveries of a message whose content is damaged. Told once; none when it was quarantined before or
    /// is gone.
    pub(crate) fn quarantine(&mut self, message: MessageId, reason: &str) -> Result<Option<Event>> {
        self.fresh.forget_message(message);
        let id = codec::id(message);
        let sound: Vec<Standing> = self
            .conn
            .prepare_cached("SELECT queue, state, due FROM delivery WHERE message = ?1 AND state <> 4")?
            .query_map([id], |row| Ok((row.get(0)?, codec::state(row.get(1)?)?, row.get(2)?)))?
            .collect::<Result<_>>()?;
        if sound.is_empty() {
            return Ok(None);
        }
        self.conn
            .prepare_cached(
                "UPDATE delivery SET state = 4, due = NULL, reason = ?2, claimed = NULL WHERE message = ?1 AND state <> 4",
            )?
            .execute((id, reason))?;
        for stood in sound {
            self.effects.moved(Some(stood), Some((stood.0, State::Quarantined, None)));
        }
        let event = Event { at: self.now, message, kind: EventKind::Damaged { reason: reason.to_owned() } };
        self.tell(&event)?;
        Ok(Some(event))
    }

    /// Notes that this run is about to deliver what it paged in.
    pub(crate) fn claim(&mut self, ids: &[DeliveryId], run: i64) -> Result<()> {
        let mut update =
            self.conn.prepare_cached("UPDATE delivery SET claimed = ?3 WHERE message = ?1 AND idx = ?2")?;
        for id in ids {
            update.execute((codec::id(id.message), id.index, run))?;
        }
        Ok(())
    }

    fn state_and_queue(&self, id: DeliveryId) -> Result<Option<(Standing, QueueKey)>> {
        self.conn
            .prepare_cached(
                "SELECT d.state, q.org, q.stream, q.destination, d.queue, d.due
                 FROM delivery d JOIN queue q ON q.id = d.queue WHERE d.message = ?1 AND d.idx = ?2",
            )?
            .query_row((codec::id(id.message), id.index), |row| {
                let queue = codec::queue_key(row.get(1)?, row.get(2)?, row.get_ref(3)?.as_str()?)?;
                Ok(((row.get(4)?, codec::state(row.get(0)?)?, row.get(5)?), queue))
            })
            .optional()
    }

    /// The numbers of the recipients that are not final.
    fn pending(&self, id: DeliveryId) -> Result<Vec<u16>> {
        self.conn
            .prepare_cached(
                "SELECT n FROM delivery WHERE message = ?1 AND idx = ?2 AND n IS NOT NULL AND status = 0
                 UNION ALL
                 SELECT n FROM recipient WHERE message = ?1 AND delivery = ?2 AND status = 0 ORDER BY n",
            )?
            .query_map((codec::id(id.message), id.index), |row| row.get(0))?
            .collect()
    }
}
