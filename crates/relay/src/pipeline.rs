//! The pipeline: chains the stages for a message that comes in. Whoever reads this file has seen the way of a message
//! from the session to the queue; `driver` is the way from there to the end.
//!
//! ```text
//! receive ─► check ─► admit ─► schedule ─► deliver ─► settle
//! ```

use std::net::IpAddr;
use std::sync::Arc;

use mail::{
    Accepted, Clock, Destination, Event, EventKind, Message, MessageId, OrgId, Recipient, Reply, Timestamp,
};
use receive::{AuthAnswer, AuthAsk, Backend, Connections, MailAsk, RcptAsk, Submission};
use schedule::Reservation;
use smtp::sasl::ScramVerifier;
use store::{Admission, Admitted, NewDelivery, NewState, Sealed, Sink};

use crate::plan::{Planned, Planning, plan};
use crate::replies;
use crate::service::{Applied, Relay};

/// What a session asks, answered by the relay.
#[derive(Clone)]
pub(crate) struct Pipeline(pub(crate) Arc<Relay>);

impl Backend for Pipeline {
    fn policy(&self) -> Arc<receive::Policy> {
        self.0.policy.load_full()
    }

    fn clock(&self) -> &Clock {
        &self.0.clock
    }

    fn connections(&self) -> &Connections {
        &self.0.connections
    }

    fn next_id(&self) -> MessageId {
        self.0.store.ids().next()
    }

    fn sink(&self, id: MessageId) -> Sink {
        self.0.store.sink(id)
    }

    fn room(&self, _size: u64) -> Result<(), Reply> {
        self.0.store.room().map_err(|no_room| replies::no_room(&no_room))?;
        if self.0.history_is_behind() { Err(replies::history_behind()) } else { Ok(()) }
    }

    async fn authenticate(&self, ask: AuthAsk, peer: IpAddr) -> AuthAnswer {
        self.0.gate.authenticate(&self.0.directory, ask, peer).await
    }

    async fn scram(&self, login: &str, peer: IpAddr) -> Option<ScramVerifier> {
        self.0.gate.scram(&self.0.directory, login, peer)
    }

    async fn scram_done(&self, login: &str, peer: IpAddr, proven: bool) -> AuthAnswer {
        self.0.gate.scram_done(&self.0.directory, login, peer, proven)
    }

    async fn mail(&self, ask: MailAsk<'_>) -> Result<OrgId, Reply> {
        if self.0.driver.is_draining() {
            return Err(replies::draining());
        }
        self.0.gate.mail(&self.0.directory, ask)
    }

    async fn rcpt(&self, ask: RcptAsk<'_>) -> Result<(), Reply> {
        self.0.gate.rcpt(&self.0, ask).await
    }

    async fn admit(&self, submission: Submission) -> Result<MessageId, Reply> {
        self.0.gate.author(&self.0.directory, &submission).await?;
        let Submission { message, recipients, content } = submission;
        self.0.admit(message, recipients, content).await
    }
}

impl Relay {
    /// Takes responsibility for a message: opens aliases, plans its way, asks for places in memory, puts it on stable
    /// storage, and sets its deliveries going. `Ok` is a promise.
    ///
    /// # Errors
    /// Nothing was accepted.
    pub(crate) async fn admit(
        &self,
        mut message: Message,
        recipients: Vec<Recipient>,
        content: Sealed,
    ) -> Result<MessageId, Reply> {
        let id = message.id;
        let snapshot = self.directory.snapshot();
        let forwarding = self.forwarding.load();
        let now = self.clock.now();
        let ours = self.is_ours(&message);
        let Applied { recipients, told, opened } =
            forwarding.apply(&snapshot, &mut message, recipients, ours, now)?;
        let about = (!opened.is_empty()).then(|| (message.clone(), content.content().clone()));
        let ask = Planning {
            org: message.org,
            stream: message.stream,
            sender: message.reverse_path.as_ref(),
            forwarding: &forwarding,
        };
        let planned = plan(&snapshot, ask, &recipients);
        let credential = message.origin.credential.as_deref();
        let places = self.driver.reserve(credential, planned.iter().map(|part| part.queue.clone()));
        let mut events = Vec::with_capacity(1);
        let accepted = Accepted { message: message.clone(), recipients, report_on: None };
        events.push(Event {
            at: message.received_at,
            message: id,
            kind: EventKind::Accepted(Box::new(accepted)),
        });
        events.extend(told);
        events.extend(caught(&planned, id, now));
        let deliveries = planned
            .into_iter()
            .enumerate()
            .map(|(index, Planned { queue, recipients })| {
                let state = begin_as(&queue.destination, places.place(index), now);
                NewDelivery { queue, recipients, state }
            })
            .collect();
        let admission = Admission { message, content, deliveries, dedupe: None, events };
        match self.store.admit(admission).await.map_err(|error| replies::not_admitted(&error))? {
            Admitted::New(deliveries) => {
                places.admitted(deliveries);
                if let Some((message, content)) = about {
                    self.driver.tell_opened(&message, &opened, &content).await;
                }
                Ok(id)
            }
            Admitted::Duplicate(earlier) => Ok(earlier),
        }
    }

    /// Whether the sender is somebody of ours: who logged in, or a local domain's.
    fn is_ours(&self, message: &Message) -> bool {
        message.origin.credential.is_some()
            || message
                .reverse_path
                .as_ref()
                .is_some_and(|sender| self.gate.policy().is_local(sender.domain()))
    }
}

/// The state in which a delivery begins.
pub(crate) fn begin_as(destination: &Destination, place: Option<Reservation>, now: Timestamp) -> NewState {
    match (destination, place) {
        (Destination::Sandbox, _) => NewState::Sandboxed,
        (_, Some(Reservation::Active)) => NewState::Active,
        (_, Some(Reservation::Parked { due })) => NewState::Waiting { due },
        (_, None) => NewState::Waiting { due: now },
    }
}

/// What the sandbox keeps is on record from the start.
fn caught(planned: &[Planned], message: MessageId, at: Timestamp) -> Option<Event> {
    let recipients: Vec<u16> = planned
        .iter()
        .filter(|part| part.queue.destination == Destination::Sandbox)
        .flat_map(|part| part.recipients.iter().map(|(number, _)| *number))
        .collect();
    (!recipients.is_empty()).then_some(Event { at, message, kind: EventKind::Caught { recipients } })
}
