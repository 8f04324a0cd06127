//! A message's story, put together from its row and its events.

use std::collections::{HashMap, VecDeque};

use mail::{Accepted, Attempt, Disposition, Event, EventKind, MessageId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::record::NODE_SHIFT;
use crate::view::{AcceptedView, AttemptView, RecipientView, Step, Timeline, What};

/// Where a recipient stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum End {
    /// No end yet: it is in the queue.
    Queued,
    /// Held, or its content is damaged: it waits for a person.
    Held,
    /// Caught by the sandbox.
    Caught,
    /// The next hop has it.
    Delivered,
    /// Refused for good.
    Refused,
    /// Given up after its lifetime.
    Expired,
    /// Removed by an operator.
    Removed,
    /// The next hop took it, and a report came back later that it could not be delivered after all.
    Bounced,
}

impl End {
    /// Whether nothing more will happen.
    pub fn is_final(self) -> bool {
        matches!(self, End::Delivered | End::Refused | End::Expired | End::Removed | End::Bounced)
    }
}

/// Everything that the files know about one message.
#[derive(Default)]
pub(crate) struct Story {
    pub(crate) accepted: Option<(u64, Timestamp, Accepted)>,
    pub(crate) events: Vec<(u64, Event)>,
}

impl Story {
    pub(crate) fn is_empty(&self) -> bool {
        self.accepted.is_none() && self.events.is_empty()
    }

    /// Whether nothing more will happen to the message, as far as these events tell. Without knowing the recipients
    /// that cannot be told: false.
    pub(crate) fn is_over(&mut self) -> bool {
        self.order();
        let Some((_, at, accepted)) = &self.accepted else { return false };
        let mut standing = Standing::new(accepted, *at);
        self.events.iter().for_each(|(_, event)| standing.take(event));
        standing.recipients.iter().all(|r| r.end.is_final())
    }

    /// Puts the events in order and drops what was told twice, as after a restore from a backup.
    fn order(&mut self) {
        let mut at_same_time: HashMap<Timestamp, Vec<usize>> = HashMap::new();
        for (number, event) in in_order(std::mem::take(&mut self.events)) {
            let known = at_same_time.entry(event.at).or_default();
            if !known.iter().any(|n| self.events[*n].1 == event) {
                known.push(self.events.len());
                self.events.push((number, event));
            }
        }
    }

    pub(crate) fn tell(mut self, id: MessageId) -> Timeline {
        self.order();
        let at = self.accepted.as_ref().map_or(Timestamp::default(), |(_, at, _)| *at);
        let accepted = self.accepted.as_ref().map(|(_, _, accepted)| accepted);
        let mut standing = match accepted {
            Some(accepted) => Standing::new(accepted, at),
            None => Standing::unknown(&self.events),
        };
        let name = |number: u16| match accepted.and_then(|a| a.recipients.get(usize::from(number))) {
            Some(recipient) => recipient.address.to_string(),
            None => format!("recipient {number}"),
        };
        let mut steps = Vec::with_capacity(self.events.len());
        for (_, event) in &self.events {
            standing.take(event);
            steps.extend(what(event, name).map(|what| Step { at: event.at, what }));
        }
        Timeline { id, accepted: accepted.map(AcceptedView::new), steps, recipients: standing.recipients }
    }
}

/// The order that events of several nodes have happened in, as well as their clocks agree: each node's as it numbered
/// them, and of what the nodes tell next always the earliest.
fn in_order(mut events: Vec<(u64, Event)>) -> Vec<(u64, Event)> {
    events.sort_by_key(|(number, _)| *number);
    let node = |number: u64| number >> NODE_SHIFT;
    if events.first().map(|e| node(e.0)) == events.last().map(|e| node(e.0)) {
        return events;
    }
    let mut nodes: Vec<VecDeque<(u64, Event)>> = Vec::new();
    for event in events {
        match nodes.last_mut().filter(|n| n.back().is_some_and(|last| node(last.0) == node(event.0))) {
            Some(same) => same.push_back(event),
            None => nodes.push(VecDeque::from([event])),
        }
    }
    let next = |nodes: &mut Vec<VecDeque<(u64, Event)>>| {
        let earliest =
            nodes.iter_mut().min_by_key(|n| n.front().map_or(Timestamp(i64::MAX), |(_, e)| e.at))?;
        earliest.pop_front()
    };
    std::iter::from_fn(|| next(&mut nodes)).collect()
}

fn what(event: &Event, name: impl Fn(u16) -> String) -> Option<What> {
    let names = |numbers: &[u16]| numbers.iter().map(|n| name(*n)).collect::<Vec<_>>();
    Some(match &event.kind {
        // The row tells of it.
        EventKind::Accepted(_) => return None,
        EventKind::Attempt(attempt) => What::Attempt(Box::new(AttemptView::new(attempt, name))),
        EventKind::Expired { recipients } => What::Expired { recipients: names(recipients) },
        EventKind::Reported { kind, report, recipients } => {
            What::Reported { kind: *kind, report: report.to_string(), recipients: names(recipients) }
        }
        EventKind::Held { by, reason } => What::Held { by: by.clone(), reason: reason.clone() },
        EventKind::Released { by } => What::Released { by: by.clone() },
        EventKind::Retried { by } => What::Retried { by: by.clone() },
        EventKind::Rerouted { by, to } => What::Rerouted { by: by.clone(), to: to.to_string() },
        EventKind::Removed { by, recipients } => {
            What::Removed { by: by.clone(), recipients: names(recipients) }
        }
        EventKind::Damaged { reason } => What::Damaged { reason: reason.clone() },
        EventKind::Caught { recipients } => What::Caught { recipients: names(recipients) },
        EventKind::Forwarded { recipients, sender } => What::Forwarded {
            recipients: recipients.iter().map(|(from, to)| (from.to_string(), names(to))).collect(),
            sender: sender.as_ref().map(|s| s.as_ref().map(ToString::to_string).unwrap_or_default()),
        },
        EventKind::Bounced { recipient, outcome, class, report } => What::Bounced {
            recipient: name(*recipient),
            status: outcome.status.to_string(),
            text: outcome.text.clone(),
            class: *class,
            report: report.map(|id| id.to_string()),
        },
    })
}

/// Where each recipient stands after the events so far, by number.
struct Standing {
    recipients: Vec<RecipientView>,
}

impl Standing {
    fn new(accepted: &Accepted, at: Timestamp) -> Self {
        let recipients = (0u16..).zip(&accepted.recipients);
        Self { recipients: recipients.map(|(n, r)| Self::recipient(n, r.address.to_string(), at)).collect() }
    }

    /// Of a message whose row is lost: the recipients that the attempts speak of.
    fn unknown(events: &[(u64, Event)]) -> Self {
        let attempts = events.iter().filter_map(|(_, e)| match &e.kind {
            EventKind::Attempt(attempt) => Some(attempt),
            _ => None,
        });
        let mut numbers: Vec<u16> = attempts.flat_map(|a| a.outcomes.iter().map(|o| o.recipient)).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let at = events.first().map_or(Timestamp::default(), |(_, e)| e.at);
        Self {
            recipients: numbers.iter().map(|n| Self::recipient(*n, format!("recipient {n}"), at)).collect(),
        }
    }

    fn recipient(number: u16, address: String, since: Timestamp) -> RecipientView {
        RecipientView { number, address, end: End::Queued, since, attempts: 0, last: None }
    }

    fn take(&mut self, event: &Event) {
        match &event.kind {
            EventKind::Attempt(attempt) => self.attempt(attempt, event.at),
            EventKind::Expired { recipients } => self.each(recipients, End::Expired, event.at),
            EventKind::Removed { recipients, .. } => self.each(recipients, End::Removed, event.at),
            EventKind::Caught { recipients } => self.each(recipients, End::Caught, event.at),
            EventKind::Held { .. } | EventKind::Damaged { .. } => self.all(End::Held, event.at),
            EventKind::Released { .. } => self.all(End::Queued, event.at),
            EventKind::Bounced { recipient, .. } => {
                // Later news than any attempt: what was delivered was not, in the end.
                if let Some(place) = self.place(*recipient) {
                    let recipient = &mut self.recipients[place];
                    (recipient.end, recipient.since) = (End::Bounced, event.at);
                }
            }
            EventKind::Accepted(_)
            | EventKind::Forwarded { .. }
            | EventKind::Reported { .. }
            | EventKind::Retried { .. }
            | EventKind::Rerouted { .. } => {}
        }
    }

    fn attempt(&mut self, attempt: &Attempt, at: Timestamp) {
        let view = AttemptView::new(attempt, |number| self.name(number));
        for (tried, outcome) in attempt.outcomes.iter().zip(view.outcomes) {
            let Some(recipient) = self.recipients.iter_mut().find(|r| r.number == tried.recipient) else {
                continue;
            };
            recipient.attempts += 1;
            recipient.last = Some(outcome);
            match tried.outcome.disposition {
                Disposition::Delivered => set(recipient, End::Delivered, at),
                Disposition::Refused => set(recipient, End::Refused, at),
                Disposition::Deferred => set(recipient, End::Queued, at),
            }
        }
    }

    fn place(&self, number: u16) -> Option<usize> {
        self.recipients.binary_search_by_key(&number, |r| r.number).ok()
    }

    fn name(&self, number: u16) -> String {
        self.place(number).map(|n| self.recipients[n].address.clone()).unwrap_or_default()
    }

    fn each(&mut self, numbers: &[u16], end: End, at: Timestamp) {
        for number in numbers {
            if let Some(place) = self.place(*number) {
                set(&mut self.recipients[place], end, at);
            }
        }
    }

    fn all(&mut self, end: End, at: Timestamp) {
        self.recipients.iter_mut().for_each(|r| set(r, end, at));
    }
}

/// What is final stays. `since` is when it came to stand where it stands.
fn set(recipient: &mut RecipientView, end: End, at: Timestamp) {
    if !recipient.end.is_final() && recipient.end != end {
        (recipient.end, recipient.since) = (end, at);
    }
}
