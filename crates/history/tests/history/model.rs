//! Random events in random batches, with restarts and new days in between, against a naive model: a list.

use history::{Config, History, TraceQuery};
use mail::{Disposition, Event, EventKind, ManualClock, MessageId, Timestamp};
use proptest::prelude::*;

use crate::common::*;
use crate::engine::Engine;

#[derive(Clone, Debug)]
enum Step {
    Accept {
        sender: usize,
        recipients: Vec<usize>,
        message_id: bool,
    },
    /// Tries all recipients of one of the messages so far.
    Attempt {
        which: usize,
        result: usize,
    },
    Hold {
        which: usize,
    },
    /// The batch ends.
    Flush,
    /// The last batch is told again.
    Again,
    Restart,
    NextDay,
}

const SENDERS: [&str; 4] = ["", "ann@example.com", "Bob@example.com", "eve@example.net"];
const RECIPIENTS: [&str; 5] =
    ["ann@example.com", "bob@example.com", "x@one.example", "y@one.example", "z@bücher.example"];

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let recipients = proptest::collection::vec(0..RECIPIENTS.len(), 1..4);
    let accept = (0..SENDERS.len(), recipients, any::<bool>())
        .prop_map(|(sender, recipients, message_id)| Step::Accept { sender, recipients, message_id });
    let step = prop_oneof![
        8 => accept,
        8 => (any::<usize>(), 0..3usize).prop_map(|(which, result)| Step::Attempt { which, result }),
        1 => any::<usize>().prop_map(|which| Step::Hold { which }),
        6 => Just(Step::Flush),
        1 => Just(Step::Again),
        1 => Just(Step::Restart),
        1 => Just(Step::NextDay),
    ];
    proptest::collection::vec(step, 1..120)
}

/// All events so far, those of the open batch, and those of the last one.
struct World {
    engine: Engine,
    clock: ManualClock,
    history: History,
    events: Vec<Event>,
    batch: Vec<(u64, Event)>,
    last: Vec<(u64, Event)>,
    ids: Vec<(MessageId, u16)>,
}

impl World {
    async fn new(engine: Engine) -> Self {
        let clock = ManualClock::new(START);
        // Small files, so that there are several.
        let history = engine.open_with(&clock, Config { file_size_max: 60_000, ..Config::default() }).await;
        Self { engine, clock, history, events: vec![], batch: vec![], last: vec![], ids: vec![] }
    }

    fn now(&self) -> Timestamp {
        self.clock.clock().now()
    }

    fn tell(&mut self, event: Event) {
        self.events.push(event.clone());
        self.batch.push((self.events.len() as u64, event));
        self.clock.advance(std::time::Duration::from_millis(7));
    }

    async fn flush(&mut self) {
        if !self.batch.is_empty() {
            self.last = std::mem::take(&mut self.batch);
            self.history.append(self.last.clone()).await.unwrap();
        }
    }

    async fn take(&mut self, step: &Step) {
        match step {
            Step::Accept { sender, recipients, message_id } => {
                let (now, n) = (self.now(), self.ids.len() as u64);
                let it = id(now, n);
                let message_id = message_id.then(|| format!("{n}@id.example"));
                let to: Vec<&str> = recipients.iter().map(|r| RECIPIENTS[*r]).collect();
                self.ids.push((it, u16::try_from(to.len()).unwrap()));
                self.tell(accepted(message(it, now, SENDERS[*sender], message_id.as_deref()), &to));
            }
            Step::Attempt { which, result } if !self.ids.is_empty() => {
                let (it, recipients) = self.ids[which % self.ids.len()];
                let result = [Disposition::Delivered, Disposition::Deferred, Disposition::Refused][*result];
                let outcomes: Vec<_> = (0..recipients).map(|n| (n, result)).collect();
                self.tell(attempt(it, self.now(), &outcomes));
            }
            Step::Hold { which } if !self.ids.is_empty() => {
                let (message, _) = self.ids[which % self.ids.len()];
                let kind = EventKind::Held { by: "me".into(), reason: "odd".into() };
                self.tell(Event { at: self.now(), message, kind });
            }
            Step::Attempt { .. } | Step::Hold { .. } => {}
            Step::Flush => self.flush().await,
            Step::Again => self.history.append(self.last.clone()).await.unwrap(),
            Step::Restart => {
                self.history.close().await;
                let config = Config { file_size_max: 60_000, ..Config::default() };
                self.history = self.engine.open_with(&self.clock, config).await;
            }
            Step::NextDay => self.clock.advance(DAY),
        }
    }

    /// What the naive model finds: the messages whose acceptance satisfies `test`, newest first.
    fn expected(&self, test: impl Fn(&mail::Accepted) -> bool) -> Vec<MessageId> {
        let accepted = self.events.iter().filter_map(|e| match &e.kind {
            EventKind::Accepted(a) if test(a) => Some(a.message.id),
            _ => None,
        });
        let mut ids: Vec<MessageId> = accepted.collect();
        ids.reverse();
        ids
    }

    async fn found(&self, query: TraceQuery) -> Vec<MessageId> {
        let query = TraceQuery { limit: Some(1000), ..query };
        self.history.trace(query).await.unwrap().iter().map(|t| t.id).collect()
    }

    async fn check(&self) {
        assert_eq!(self.found(TraceQuery::default()).await, self.expected(|_| true));
        for sender in SENDERS {
            let query = TraceQuery { sender: Some(sender.to_uppercase()), ..TraceQuery::default() };
            let is = |a: &mail::Accepted| a.message.sender().eq_ignore_ascii_case(sender);
            assert_eq!(self.found(query).await, self.expected(is), "from {sender}");
        }
        for recipient in RECIPIENTS {
            let query = TraceQuery { recipient: Some(recipient.into()), ..TraceQuery::default() };
            let is = |a: &mail::Accepted| a.recipients.iter().any(|r| r.address.as_str() == recipient);
            assert_eq!(self.found(query).await, self.expected(is), "to {recipient}");
        }
        let query = TraceQuery { domain: Some("one.example".into()), ..TraceQuery::default() };
        let is = |a: &mail::Accepted| a.recipients.iter().any(|r| r.address.domain() == "one.example");
        assert_eq!(self.found(query).await, self.expected(is));
        let (since, until) = (START.plus(DAY / 2), START.plus(DAY * 3 / 2));
        let query = TraceQuery { since: Some(since.0), until: Some(until.0), ..TraceQuery::default() };
        let is = |a: &mail::Accepted| a.message.received_at >= since && a.message.received_at < until;
        assert_eq!(self.found(query).await, self.expected(is), "in time");
        for timeline in
            self.history.trace(TraceQuery { limit: Some(1000), ..TraceQuery::default() }).await.unwrap()
        {
            let mine = self.events.iter().filter(|e| e.message == timeline.id);
            let wanted: Vec<Timestamp> = mine.clone().skip(1).map(|e| e.at).collect();
            assert_eq!(timeline.steps.iter().map(|s| s.at).collect::<Vec<_>>(), wanted, "{}", timeline.id);
            let attempts = mine.filter(|e| matches!(e.kind, EventKind::Attempt(_))).count();
            assert!(timeline.recipients.iter().all(|r| r.attempts as usize == attempts));
        }
    }
}

/// Plays the steps and compares.
fn play(steps: &[Step], engine: Engine) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut world = World::new(engine).await;
        for step in steps {
            world.take(step).await;
        }
        world.flush().await;
        world.check().await;
        if steps.len().is_multiple_of(4) {
            // Every row, through the other engine and back, is the same history.
            crate::transfer::there_and_back(&world.engine, &world.history, &world.clock).await;
        }
        world.history.close().await;
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn the_files_tell_what_a_list_would(steps in steps()) {
        play(&steps, Engine::files());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10, ..ProptestConfig::default() })]
    #[test]
    fn the_tables_tell_what_a_list_would(steps in steps()) {
        play(&steps, Engine::postgres());
    }
}
