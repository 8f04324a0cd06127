//! The store against a model that is a map: random admissions, settlements, operators' changes, crashes and clean stops.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use mail::{DeliveryId, Disposition, RecipientStatus, State, Timestamp};
use proptest::prelude::*;
use store::{Action, NewState, Next, QueueFilter, Store};

use crate::common::*;

/// What may happen. Numbers choose among what is there.
#[derive(Clone, Debug)]
enum Step {
    Admit { size: usize, deliveries: Vec<(u8, NewState)> },
    Defer { which: usize, seconds: u32 },
    Done { which: usize },
    Hold { which: usize },
    Quarantine { which: usize },
    Partly { which: usize },
    Park { which: usize },
    Operator { which: Option<usize>, action: Action },
    Pass { seconds: u32 },
    Crash,
    Restart,
}

/// A delivery as the model knows it.
#[derive(Clone, Debug, PartialEq)]
struct Known {
    domain: String,
    state: State,
    due: Option<Timestamp>,
    attempts: u32,
    crashes: u32,
    pending: Vec<u16>,
    content: Vec<u8>,
}

type Model = BTreeMap<DeliveryId, Known>;

fn new_state() -> impl Strategy<Value = NewState> {
    prop_oneof![
        4 => Just(NewState::Active),
        2 => (0i64..100).prop_map(|s| NewState::Waiting { due: Timestamp(START.0 + s * 1000) }),
        1 => Just(NewState::Held { reason: "policy".into() }),
        1 => Just(NewState::Sandboxed),
    ]
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        Just(Action::Hold { reason: "operator".into() }),
        Just(Action::Release),
        Just(Action::Retry),
        (0u8..3).prop_map(|n| Action::Reroute { to: mx(&domain(n)).destination }),
        Just(Action::Remove),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let size = prop_oneof![5 => 0usize..3000, 1 => 200_000usize..300_000];
    prop_oneof![
        6 => (size, prop::collection::vec((0u8..4, new_state()), 1..4))
            .prop_map(|(size, deliveries)| Step::Admit { size, deliveries }),
        3 => (any::<usize>(), 0u32..100).prop_map(|(which, seconds)| Step::Defer { which, seconds }),
        3 => any::<usize>().prop_map(|which| Step::Done { which }),
        1 => any::<usize>().prop_map(|which| Step::Hold { which }),
        1 => any::<usize>().prop_map(|which| Step::Quarantine { which }),
        2 => any::<usize>().prop_map(|which| Step::Partly { which }),
        1 => any::<usize>().prop_map(|which| Step::Park { which }),
        2 => (prop::option::weighted(0.8, any::<usize>()), action())
            .prop_map(|(which, action)| Step::Operator { which, action }),
        1 => (1u32..60).prop_map(|seconds| Step::Pass { seconds }),
        1 => Just(Step::Crash),
        1 => Just(Step::Restart),
    ]
}

fn domain(n: u8) -> String {
    format!("d{n}.example")
}

struct World {
    rig: Rig,
    store: Option<Store>,
    model: Model,
    seed: u64,
    /// Whether the last stop was a crash: from then on the embedded engine notes what is paged in,
    claims: bool,
    /// namely these. In a cluster they are what the node has in hand, from the start and whatever operators do.
    claimed: BTreeSet<DeliveryId>,
}

impl World {
    fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    fn pick(&self, which: usize) -> Option<DeliveryId> {
        self.model.keys().nth(which % self.model.len().max(1)).copied()
    }

    async fn run(&mut self, step: Step) {
        match step {
            Step::Admit { size, deliveries } => self.admit(size, deliveries).await,
            Step::Defer { which, seconds } => {
                let due = self.rig.now().plus(Duration::from_secs(u64::from(seconds)));
                self.settle(which, |known| {
                    let attempts = known.attempts + 1;
                    (Next::Deferred { due, attempts }, vec![])
                })
                .await;
            }
            Step::Done { which } => self.settle(which, |_| (Next::Done, vec![])).await,
            Step::Hold { which } => self.settle(which, |_| (Next::Held { reason: "h".into() }, vec![])).await,
            Step::Quarantine { which } => {
                self.settle(which, |_| (Next::Quarantined { reason: "q".into() }, vec![])).await;
            }
            Step::Park { which } => {
                let due = self.rig.now();
                self.settle(which, |_| (Next::Parked { due }, vec![])).await;
            }
            Step::Partly { which } => {
                let due = self.rig.now();
                self.settle(which, |known| {
                    let next = Next::Deferred { due, attempts: known.attempts + 1 };
                    (next, known.pending.iter().take(1).copied().collect())
                })
                .await;
            }
            Step::Operator { which, action } => self.operate(which, action).await,
            Step::Pass { seconds } => self.rig.pass(Duration::from_secs(u64::from(seconds))),
            Step::Crash => self.reopen(false),
            Step::Restart => {
                self.store().close().await.unwrap();
                self.reopen(true);
            }
        }
    }

    async fn admit(&mut self, size: usize, deliveries: Vec<(u8, NewState)>) {
        self.seed += 1;
        let content = octets(self.seed, size);
        let deliveries: Vec<_> = (0u16..)
            .zip(deliveries)
            .map(|(i, (n, state))| delivery(&domain(n), i * 3..i * 3 + 1 + i % 2 * 2, state))
            .collect();
        for waiting in admit(self.store(), &content, deliveries).await {
            let known = Known {
                domain: waiting.queue.destination.to_string(),
                state: waiting.state,
                due: waiting.due,
                attempts: 0,
                crashes: 0,
                pending: waiting.recipients.iter().map(|r| r.number).collect(),
                content: content.clone(),
            };
            if self.rig.database.is_some() && known.state == State::Active {
                self.claimed.insert(waiting.id);
            }
            self.model.insert(waiting.id, known);
        }
    }

    async fn settle(&mut self, which: usize, choose: impl FnOnce(&Known) -> (Next, Vec<u16>)) {
        let Some(id) = self.pick(which) else { return };
        self.claimed.remove(&id);
        let known = self.model.get_mut(&id).unwrap();
        let (next, delivered) = choose(known);
        let mut settlement = settlement(id, next.clone());
        let ok = || RecipientStatus::Delivered(outcome(Disposition::Delivered, "ok"));
        settlement.recipients = delivered.iter().map(|n| (*n, ok())).collect();
        let free = matches!(known.state, State::Active | State::Waiting);
        let done = next == Next::Done;
        match next {
            Next::Deferred { due, attempts } => {
                (known.attempts, known.crashes) = (attempts, 0);
                if free {
                    (known.state, known.due) = (State::Waiting, Some(due));
                }
            }
            Next::Parked { due } if free => (known.state, known.due) = (State::Waiting, Some(due)),
            Next::Held { .. } if free => (known.state, known.due) = (State::Held, None),
            Next::Quarantined { .. } => (known.state, known.due) = (State::Quarantined, None),
            _ => {}
        }
        known.pending.retain(|n| !delivered.contains(n));
        if done {
            self.model.remove(&id);
        }
        let settled = self.store().settled(settlement).await.unwrap();
        assert!(settled.found);
        assert_eq!(settled.state, self.model.get(&id).map(|k| k.state));
    }

    async fn operate(&mut self, which: Option<usize>, action: Action) {
        let mut filter = QueueFilter::default();
        if let Some(which) = which {
            let Some(id) = self.pick(which) else { return };
            filter.deliveries = vec![id];
        }
        let now = self.rig.now();
        let mut expected = Vec::new();
        self.model.retain(|id, known| {
            if !filter.deliveries.is_empty() && !filter.deliveries.contains(id) {
                return true;
            }
            let stays = apply(known, &action, now);
            if let Some(changed) = stays {
                if !(self.rig.database.is_some() && changed) {
                    self.claimed.remove(id);
                }
                expected.push(*id);
                return changed;
            }
            true
        });
        let dry = self.store().change(filter.clone(), action.clone(), "op".into(), true).await.unwrap();
        let changed = self.store().change(filter, action, "op".into(), false).await.unwrap();
        assert_eq!(dry, changed);
        assert_eq!(changed.changed.iter().map(|c| c.id).collect::<Vec<_>>(), expected);
    }

    fn reopen(&mut self, clean: bool) {
        drop(self.store.take());
        let (store, recovery) = self.rig.recover();
        assert_eq!(recovery.clean, clean);
        self.store = Some(store);
        let claimed = std::mem::take(&mut self.claimed);
        self.claims = !clean;
        for (id, known) in &mut self.model {
            let was_active = known.state == State::Active;
            if was_active {
                (known.state, known.due) = (State::Waiting, Some(self.rig.now()));
            }
            let tried = was_active || known.state == State::Waiting && claimed.contains(id);
            if !clean && tried {
                known.crashes += 1;
                if known.crashes >= 3 {
                    (known.state, known.due) = (State::Held, None);
                }
            }
        }
        assert_eq!(recovery.deliveries, self.model.len() as u64);
    }

    async fn compare(&mut self) {
        let store = self.store.as_ref().unwrap();
        let found = store.search(QueueFilter::default(), None, usize::MAX).await.unwrap();
        let found: Vec<_> =
            found.into_iter().map(|e| (e.id, e.state, e.due, e.attempts, e.crashes)).collect();
        let expected: Vec<_> =
            self.model.iter().map(|(id, k)| (*id, k.state, k.due, k.attempts, k.crashes)).collect();
        assert_eq!(found, expected);
        for (id, known) in &self.model {
            let loaded = store.load(*id).await.unwrap().unwrap();
            assert_eq!(loaded.queue.destination.to_string(), known.domain);
            assert_eq!(loaded.recipients.iter().map(|r| r.number).collect::<Vec<_>>(), known.pending);
            assert_eq!(stored(store, &loaded).await, known.content);
        }
        for queue in store.queues().await.unwrap() {
            let page = store.page(&queue.queue, Timestamp(i64::MAX), 10_000).await.unwrap();
            let mut due: Vec<_> = self
                .model
                .iter()
                .filter(|(_, k)| k.domain == queue.queue.destination.to_string())
                .filter_map(|(id, k)| Some((k.due?, *id)))
                .collect();
            due.sort();
            if self.claims || self.rig.database.is_some() {
                self.claimed.extend(due.iter().map(|(_, id)| *id));
            }
            assert_eq!(page.iter().map(|w| (w.due.unwrap(), w.id)).collect::<Vec<_>>(), due);
            assert_eq!((queue.waiting, queue.due), (due.len() as u64, due[0].0));
        }
        let queues: Vec<_> = store.queues().await.unwrap().into_iter().map(|q| (q.due, q.queue)).collect();
        let mut ahead: Vec<_> = queues.clone();
        ahead.sort();
        for n in [1, 2, 100] {
            assert_eq!(walk(store, n).await, ahead);
        }
        let live: BTreeMap<_, _> = self
            .model
            .iter()
            .map(|(id, k)| (id.message, k.content.len() as u64 + self.rig.overhead()))
            .collect();
        assert_eq!(store.stats().live_bytes, live.values().sum::<u64>());
        assert_eq!(store.stats().deliveries, self.model.len() as u64);
    }
}

/// All queues with something waiting, from one horizon to the next.
async fn walk(store: &Store, n: usize) -> Vec<(Timestamp, mail::QueueKey)> {
    let (mut all, mut after) = (Vec::new(), Timestamp(i64::MIN));
    loop {
        let horizon = store.horizon(after, n).await.unwrap();
        let last = horizon.complete_until == Timestamp(i64::MAX);
        assert!(last || horizon.queues.len() >= n && horizon.complete_until > after);
        let mut found: Vec<_> = horizon.queues.into_iter().map(|(queue, due)| (due, queue)).collect();
        assert!(found.is_sorted_by_key(|(due, _)| *due));
        found.sort();
        all.extend(found);
        if last {
            return all;
        }
        after = horizon.complete_until;
    }
}

/// What an action does to a delivery in the model: none for nothing, else whether it stays.
fn apply(known: &mut Known, action: &Action, now: Timestamp) -> Option<bool> {
    use State::{Active, Held, Quarantined, Waiting};
    match (action, known.state) {
        (Action::Remove, _) => return Some(false),
        (Action::Hold { .. }, Active | Waiting) => (known.state, known.due) = (Held, None),
        (Action::Release, Held | Quarantined) => {
            (known.state, known.due, known.crashes) = (Waiting, Some(now), 0);
        }
        (Action::Retry, Waiting) => known.due = Some(now),
        (Action::Reroute { to }, state) => {
            if known.domain == to.to_string() {
                return None;
            }
            known.domain = to.to_string();
            if !matches!(state, Held | Quarantined) {
                (known.state, known.due) = (Waiting, Some(now));
            }
        }
        _ => return None,
    }
    Some(true)
}

/// Does the steps, and compares before and after crashes.
async fn run(rig: Rig, steps: Vec<Step>) {
    let store = Some(rig.open());
    let mut world =
        World { rig, store, model: Model::new(), seed: 0, claims: false, claimed: BTreeSet::new() };
    for step in steps {
        world.run(step).await;
    }
    for _ in 0..3 {
        world.compare().await;
        world.reopen(false);
    }
    world.compare().await;
    let report = world.store().verify().await.unwrap();
    assert!(report.is_sound(), "{report:?}");
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(step(), 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, max_shrink_iters: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_store_does_what_the_model_does(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        // Small segments, so that they are opened, deleted and compacted all the time.
        runtime.block_on(async { run(Rig::tuned(|config| config.segment_size = 4096), steps).await });
    }
}

proptest! {
    // Each has a database of its own, so there are fewer.
    #![proptest_config(ProptestConfig { cases: 16, max_shrink_iters: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_store_in_postgresql_does_what_the_model_does(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async { run(Rig::postgres(), steps).await });
    }
}
