//! What every engine has to do, a function a case. A case gets a rig and knows nothing of files.

use std::time::Duration;

use mail::{Disposition, Event, EventKind, Notify, Recipient, RecipientStatus, ReportKind, State, Timestamp};
use store::{Action, Admitted, Dedupe, NewState, Next, QueueFilter, Settlement, StoreError};

use crate::common::*;

mod operators;
use operators::*;

/// Runs each case on both engines.
macro_rules! cases {
    ($($case:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                super::$case(crate::common::Rig::new()).await;
            })*
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                super::$case(crate::common::Rig::postgres()).await;
            })*
        }
    };
}

cases!(
    what_is_admitted_is_there_after_a_crash,
    content_of_every_size_comes_back,
    a_settled_message_is_gone,
    a_message_lives_as_long_as_one_of_its_deliveries,
    a_deferred_delivery_is_paged_when_it_is_due,
    pages_are_by_due_time_then_id,
    only_pending_recipients_are_handed_out,
    reports_are_admitted_in_the_commit_that_settles,
    settling_what_was_removed_is_no_error,
    settling_what_was_held_keeps_it_held,
    a_clean_stop_counts_no_crash,
    crashes_are_counted_and_three_hold,
    a_crash_while_paged_in_counts_as_well,
    an_attempt_that_ended_forgets_crashes,
    a_dedupe_key_is_admitted_once,
    a_dedupe_key_can_be_used_again_when_it_has_expired,
    a_dropped_admission_is_withdrawn_or_adopted,
    the_outbox_keeps_events_until_they_are_done,
    event_numbers_go_on_after_a_restart,
    ids_go_on_after_a_restart,
    operators_hold_release_retry_reroute_and_remove,
    a_dry_run_changes_nothing,
    filters_choose,
    search_goes_on_where_it_stopped,
    queues_and_counts,
    bad_admissions_harm_nobody_else,
    a_closed_store_says_so,
    memory_is_given_back,
    states_at_admission,
);

async fn what_is_admitted_is_there_after_a_crash(rig: Rig) {
    let store = rig.open();
    let mut recipient = Recipient::new(address("first.last@dest.example"));
    recipient.notify = Notify::On { success: true, failure: false, delay: true };
    recipient.orcpt = Some("rfc822;other@dest.example".into());
    let mut deliveries = vec![delivery("dest.example", 0..2, NewState::Active)];
    deliveries[0].recipients.push((2, recipient));
    let admitted = admit(&store, b"From: a\r\n\r\nhello\r\n", deliveries).await.remove(0);
    assert_eq!(admitted.body.as_ref().unwrap().len(), 18);

    let (store, recovery) = rig.crash(store);
    assert!(!recovery.clean);
    assert_eq!((recovery.deliveries, recovery.requeued), (1, 1));
    let page = store.page(&mx("dest.example"), rig.now(), 10).await.unwrap();
    let [found] = &page[..] else { panic!("{page:?}") };
    assert_eq!(
        (found.id, &found.message, &found.recipients),
        (admitted.id, &admitted.message, &admitted.recipients)
    );
    assert_eq!(
        (found.state, found.crashes, found.attempts, found.due),
        (State::Waiting, 1, 0, Some(rig.now()))
    );
    assert!(found.body.is_none());
    assert_eq!(stored(&store, found).await, b"From: a\r\n\r\nhello\r\n");
}

async fn content_of_every_size_comes_back(rig: Rig) {
    let store = rig.open();
    let sizes = [0, 1, 9_999, 10_000, 65_536, 262_143, 262_144, 262_145, 700_001];
    let mut admitted = Vec::new();
    for (seed, size) in (1..).zip(sizes) {
        let content = octets(seed, size);
        let waiting = admit_one(&store, &content).await;
        let body = waiting.body.clone().unwrap();
        assert_eq!(body.read_all_up_to(usize::MAX).await.unwrap(), content, "{size} as handed back");
        let middle = body.chunk(size as u64 / 2, 100).await.unwrap();
        assert_eq!(middle, content[size / 2..(size / 2 + 100).min(size)]);
        admitted.push((waiting, content));
    }
    for (waiting, content) in &admitted {
        assert_eq!(&stored(&store, waiting).await, content);
    }
    let (store, _) = rig.crash(store);
    for (waiting, content) in &admitted {
        let loaded = store.load(waiting.id).await.unwrap().unwrap();
        assert_eq!(&stored(&store, &loaded).await, content);
    }
    assert!(store.verify().await.unwrap().is_sound());
}

async fn a_settled_message_is_gone(rig: Rig) {
    let store = rig.open();
    let waiting = admit_one(&store, b"x").await;
    let settled = store.settled(settlement(waiting.id, Next::Done)).await.unwrap();
    assert!(settled.found && settled.state.is_none());
    assert!(store.load(waiting.id).await.unwrap().is_none());
    assert!(matches!(store.content(&waiting.content).await, Ok(_) | Err(StoreError::Invalid(_))));
    assert_eq!((store.stats().deliveries, store.stats().live_bytes), (0, 0));
    let (_, recovery) = rig.crash(store);
    assert_eq!(recovery.deliveries, 0);
}

async fn a_message_lives_as_long_as_one_of_its_deliveries(rig: Rig) {
    let store = rig.open();
    let deliveries = vec![
        delivery("one.example", 0..1, NewState::Active),
        delivery("two.example", 1..3, NewState::Active),
    ];
    let waiting = admit(&store, b"shared", deliveries).await;
    assert_eq!((waiting[0].id.index, waiting[1].id.index), (0, 1));
    store.settled(settlement(waiting[0].id, Next::Done)).await.unwrap();
    assert_eq!(stored(&store, &waiting[1]).await, b"shared");
    store.settled(settlement(waiting[1].id, Next::Done)).await.unwrap();
    assert_eq!(store.stats().live_bytes, 0);
}

async fn a_deferred_delivery_is_paged_when_it_is_due(rig: Rig) {
    let store = rig.open();
    let waiting = admit_one(&store, b"x").await;
    let due = rig.now().plus(Duration::from_secs(60));
    let last = outcome(Disposition::Deferred, "mailbox full");
    let mut deferral = settlement(waiting.id, Next::Deferred { due, attempts: 3 });
    deferral.recipients = vec![(0, RecipientStatus::Pending(Some(last.clone())))];
    deferral.warned = true;
    assert_eq!(store.settled(deferral).await.unwrap().state, Some(State::Waiting));
    let queue = mx("dest.example");
    assert!(store.page(&queue, rig.now(), 10).await.unwrap().is_empty(), "not yet");
    rig.pass(Duration::from_secs(60));
    let page = store.page(&queue, rig.now(), 10).await.unwrap();
    assert_eq!((page[0].attempts, page[0].warned, page[0].due), (3, true, Some(due)));
    assert_eq!(page[0].recipients[0].last, Some(last));
    // It stays due until it is settled.
    assert_eq!(store.page(&queue, rig.now(), 10).await.unwrap().len(), 1);
    assert!(store.page(&mx("other.example"), rig.now(), 10).await.unwrap().is_empty());
}

async fn pages_are_by_due_time_then_id(rig: Rig) {
    let store = rig.open();
    let mut expected = Vec::new();
    for due in [30, 10, 20, 10, 40] {
        let due = Timestamp(due);
        let waiting =
            admit(&store, b"x", vec![delivery("dest.example", 0..1, NewState::Waiting { due })]).await;
        expected.push((due, waiting[0].id));
    }
    expected.sort();
    let page = store.page(&mx("dest.example"), Timestamp(30), 3).await.unwrap();
    let found: Vec<_> = page.iter().map(|w| (w.due.unwrap(), w.id)).collect();
    assert_eq!(found, expected[..3]);
    assert_eq!(store.page(&mx("dest.example"), Timestamp(30), 9).await.unwrap().len(), 4);
}

async fn only_pending_recipients_are_handed_out(rig: Rig) {
    let store = rig.open();
    let waiting = admit(&store, b"x", vec![delivery("dest.example", 0..4, NewState::Active)]).await.remove(0);
    let mut partly = settlement(waiting.id, Next::Deferred { due: rig.now(), attempts: 1 });
    partly.recipients = vec![
        (0, RecipientStatus::Delivered(outcome(Disposition::Delivered, "ok"))),
        (1, RecipientStatus::Pending(Some(outcome(Disposition::Deferred, "later")))),
        (3, RecipientStatus::Failed(outcome(Disposition::Refused, "no such user"))),
    ];
    store.settled(partly).await.unwrap();
    let loaded = store.load(waiting.id).await.unwrap().unwrap();
    let numbers: Vec<_> = loaded.recipients.iter().map(|r| (r.number, r.last.is_some())).collect();
    assert_eq!(numbers, [(1, true), (2, false)]);
    // A listing shows them all.
    let listed = store.search(QueueFilter::default(), None, 10).await.unwrap();
    assert_eq!(listed[0].recipients.len(), 4);
    assert!(matches!(&listed[0].recipients[3].2, RecipientStatus::Failed(o) if o.text == "no such user"));
}

async fn reports_are_admitted_in_the_commit_that_settles(rig: Rig) {
    let store = rig.open();
    let waiting = admit_one(&store, b"original").await;
    let report_id = store.ids().next();
    let report = store::Admission {
        message: message(report_id, 6),
        content: store.sealed(report_id, b"report".to_vec()),
        deliveries: vec![delivery("origin.example", 0..1, NewState::Active)],
        dedupe: None,
        events: Vec::new(),
    };
    let kind = EventKind::Reported { kind: ReportKind::Failure, report: report_id, recipients: vec![0] };
    let told = Event { at: rig.now(), message: waiting.id.message, kind };
    let done = Settlement { reports: vec![report], events: vec![told], ..settlement(waiting.id, Next::Done) };
    let settled = store.settled(done).await.unwrap();
    let [Admitted::New(report)] = &settled.reports[..] else { panic!("{settled:?}") };
    assert_eq!((report[0].id.message, report[0].body.as_ref().unwrap().len()), (report_id, 6));
    let (store, recovery) = rig.crash(store);
    assert_eq!(recovery.deliveries, 1, "the report alone");
    let page = store.page(&mx("origin.example"), rig.now(), 9).await.unwrap();
    assert_eq!(stored(&store, &page[0]).await, b"report");
    assert!(matches!(events(&store).await.last().unwrap().kind, EventKind::Reported { .. }));
}

async fn settling_what_was_removed_is_no_error(rig: Rig) {
    let store = rig.open();
    let waiting = admit_one(&store, b"x").await;
    let by = "root (uid 0)".to_owned();
    assert_eq!(store.change(QueueFilter::default(), Action::Remove, by, false).await.unwrap().count, 1);
    let report_id = store.ids().next();
    for next in
        [Next::Done, Next::Deferred { due: rig.now(), attempts: 1 }, Next::Held { reason: "r".into() }]
    {
        let report = store::Admission {
            message: message(report_id, 1),
            content: store.sealed(report_id, vec![b'r']),
            deliveries: vec![delivery("origin.example", 0..1, NewState::Active)],
            dedupe: None,
            events: Vec::new(),
        };
        let kind = EventKind::Reported { kind: ReportKind::Failure, report: report_id, recipients: vec![0] };
        let reported = Event { at: rig.now(), message: waiting.id.message, kind };
        let expired = EventKind::Expired { recipients: vec![0] };
        let told = Event { at: rig.now(), message: waiting.id.message, kind: expired };
        let settled = store
            .settled(Settlement {
                reports: vec![report],
                events: vec![told, reported],
                ..settlement(waiting.id, next)
            })
            .await
            .unwrap();
        assert!(!settled.found && settled.reports.is_empty());
    }
    assert_eq!(store.counts().await.unwrap(), store::Counts::default(), "no report about what was removed");
    let told = events(&store).await;
    assert_eq!(told.iter().filter(|e| matches!(e.kind, EventKind::Expired { .. })).count(), 3);
    assert_eq!(told.iter().filter(|e| matches!(e.kind, EventKind::Reported { .. })).count(), 0);
}

async fn settling_what_was_held_keeps_it_held(rig: Rig) {
    let store = rig.open();
    let one = admit_one(&store, b"1").await;
    let two = admit_one(&store, b"2").await;
    let hold = Action::Hold { reason: "looks odd".into() };
    store.change(QueueFilter::default(), hold, "op".into(), false).await.unwrap();
    let due = rig.now().plus(Duration::from_secs(1));
    let settled = store.settled(settlement(one.id, Next::Deferred { due, attempts: 1 })).await.unwrap();
    assert_eq!(settled.state, Some(State::Held));
    let loaded = store.load(one.id).await.unwrap().unwrap();
    assert_eq!((loaded.state, loaded.attempts, loaded.due), (State::Held, 1, None));
    assert_eq!(loaded.reason.as_deref(), Some("looks odd"));
    assert!(
        store.settled(settlement(two.id, Next::Done)).await.unwrap().found,
        "what is delivered is delivered"
    );
    assert!(store.load(two.id).await.unwrap().is_none());
}

async fn a_clean_stop_counts_no_crash(rig: Rig) {
    let store = rig.open();
    let waiting = admit_one(&store, b"x").await;
    for _ in 0..4 {
        store.close().await.unwrap();
    }
    drop(store);
    for _ in 0..4 {
        let (store, recovery) = rig.recover();
        assert!(recovery.clean);
        let loaded = store.load(waiting.id).await.unwrap().unwrap();
        assert_eq!((loaded.crashes, loaded.state), (0, State::Waiting));
        store.close().await.unwrap();
    }
}

async fn crashes_are_counted_and_three_hold(rig: Rig) {
    let mut store = rig.open();
    let mut ids = Vec::new();
    for crashes in 1..=3 {
        if crashes == 1 {
            ids.push(admit_one(&store, b"x").await.id);
        } else {
            // The driver pages it in and is about to try.
            assert_eq!(store.page(&mx("dest.example"), rig.now(), 5).await.unwrap().len(), 1);
        }
        let (next, recovery) = rig.crash(store);
        store = next;
        let loaded = store.load(ids[0]).await.unwrap().unwrap();
        assert_eq!(loaded.crashes, crashes);
        if crashes < 3 {
            assert_eq!((loaded.state, recovery.held.len()), (State::Waiting, 0));
        } else {
            assert_eq!((loaded.state, recovery.held), (State::Held, ids.clone()));
            assert!(loaded.reason.unwrap().contains('3'));
        }
    }
    assert!(matches!(events(&store).await.last().unwrap().kind, EventKind::Held { .. }));
    // Released it has all its chances again.
    store.change(QueueFilter::default(), Action::Release, "op".into(), false).await.unwrap();
    assert_eq!(store.load(ids[0]).await.unwrap().unwrap().crashes, 0);
}

async fn a_crash_while_paged_in_counts_as_well(rig: Rig) {
    let store = rig.open();
    let waiting =
        admit(&store, b"x", vec![delivery("dest.example", 0..1, NewState::Waiting { due: rig.now() })])
            .await
            .remove(0);
    let mut store = rig.crash(store).0;
    for _ in 0..3 {
        store.page(&mx("dest.example"), rig.now(), 5).await.unwrap();
        store = rig.crash(store).0;
    }
    let loaded = store.load(waiting.id).await.unwrap().unwrap();
    assert_eq!((loaded.crashes, loaded.state), (3, State::Held));
}

async fn an_attempt_that_ended_forgets_crashes(rig: Rig) {
    let store = rig.open();
    let waiting = admit_one(&store, b"x").await;
    let (store, _) = rig.crash(store);
    let (store, _) = rig.crash(store);
    assert_eq!(store.load(waiting.id).await.unwrap().unwrap().crashes, 1, "nobody had paged it in");
    store.settled(settlement(waiting.id, Next::Deferred { due: rig.now(), attempts: 1 })).await.unwrap();
    assert_eq!(store.load(waiting.id).await.unwrap().unwrap().crashes, 0);
    let (store, _) = rig.crash(store);
    assert_eq!(store.load(waiting.id).await.unwrap().unwrap().crashes, 0);
}

async fn a_dedupe_key_is_admitted_once(rig: Rig) {
    let store = rig.open();
    let key = Dedupe {
        org: mail::OrgId::DEFAULT,
        key: b"idempotency-1".to_vec(),
        expires: rig.now().plus(Duration::from_secs(60)),
    };
    let keyed = |mut admission: store::Admission| {
        admission.dedupe = Some(key.clone());
        admission
    };
    let active = || vec![delivery("dest.example", 0..1, NewState::Active)];
    // At once, so that they may meet in one group.
    let a = keyed(admission(&store, b"same", active()).await);
    let b = keyed(admission(&store, &octets(1, 300_000), active()).await);
    let ids = [a.message.id, b.message.id];
    let (a, b) = tokio::join!(store.admit(a), store.admit(b));
    let (first, second) = (a.unwrap(), b.unwrap());
    match (&first, &second) {
        (Admitted::New(_), Admitted::Duplicate(of)) => assert_eq!(*of, ids[0]),
        (Admitted::Duplicate(of), Admitted::New(_)) => assert_eq!(*of, ids[1]),
        other => panic!("{other:?}"),
    }
    let (store, _) = rig.crash(store);
    let again = keyed(admission(&store, b"same", active()).await);
    assert!(matches!(store.admit(again).await.unwrap(), Admitted::Duplicate(_)), "after a restart");
    assert_eq!(store.stats().deliveries, 1);
    let mut other = keyed(admission(&store, b"same", active()).await);
    other.dedupe.as_mut().unwrap().org = mail::OrgId(2);
    assert!(matches!(store.admit(other).await.unwrap(), Admitted::New(_)), "another organisation's key");
}

async fn a_dedupe_key_can_be_used_again_when_it_has_expired(rig: Rig) {
    let store = rig.open();
    for round in 0..3 {
        let mut admission =
            admission(&store, b"x", vec![delivery("dest.example", 0..1, NewState::Active)]).await;
        let expires = rig.now().plus(Duration::from_secs(60));
        admission.dedupe = Some(Dedupe { org: mail::OrgId::DEFAULT, key: vec![1], expires });
        assert!(matches!(store.admit(admission).await.unwrap(), Admitted::New(_)), "{round}");
        rig.pass(Duration::from_secs(60));
    }
}

async fn a_dropped_admission_is_withdrawn_or_adopted(rig: Rig) {
    let store = rig.open();
    let mut orphans = store.orphans().unwrap();
    assert!(store.orphans().is_none(), "one taker");
    let mut kept = 0;
    for n in 0..200 {
        let admission = admission(&store, b"x", vec![delivery("dest.example", 0..1, NewState::Active)]).await;
        let mut admitting = Box::pin(store.admit(admission));
        // Handed in, and dropped at one moment or another.
        let first = futures_poll_once(&mut admitting).await;
        if n % 3 == 0 {
            tokio::time::sleep(Duration::from_micros(100 * (n % 7))).await;
        }
        drop(admitting);
        kept += usize::from(first);
    }
    // Everything before it in the inbox is decided when this is.
    let last = admit_one(&store, b"last").await;
    let mut adopted = Vec::new();
    while let Ok(waiting) = orphans.try_recv() {
        adopted.extend(waiting.into_iter().map(|w| w.id));
    }
    let mut there: Vec<_> =
        store.search(QueueFilter::default(), None, 1000).await.unwrap().into_iter().map(|e| e.id).collect();
    there.retain(|id| *id != last.id);
    adopted.sort();
    assert_eq!(there.len(), adopted.len() + kept, "each that stands was handed to somebody");
    assert!(adopted.iter().all(|id| there.contains(id)));
}

/// Polls once; whether it was ready.
async fn futures_poll_once<F: Future + Unpin>(future: &mut F) -> bool {
    std::future::poll_fn(|cx| std::task::Poll::Ready(std::pin::Pin::new(&mut *future).poll(cx).is_ready()))
        .await
}

async fn the_outbox_keeps_events_until_they_are_done(rig: Rig) {
    let store = rig.open();
    let mut wait = store.outbox_wait();
    for _ in 0..5 {
        admit_one(&store, b"x").await;
    }
    wait.wait_for(|last| *last == 5).await.unwrap();
    let first = store.outbox(0, 3).await.unwrap();
    assert_eq!(first.iter().map(|(seq, _)| *seq).collect::<Vec<_>>(), [1, 2, 3]);
    assert!(matches!(first[0].1.kind, EventKind::Accepted(_)));
    assert_eq!(store.outbox(0, 3).await.unwrap(), first, "they come again until they are done");
    store.outbox_done(3).await.unwrap();
    admit_one(&store, b"rides along").await;
    let (store, _) = rig.crash(store);
    let rest: Vec<_> = store.outbox(0, 10).await.unwrap().into_iter().map(|(seq, _)| seq).collect();
    assert_eq!(rest, [4, 5, 6]);
    assert_eq!(store.stats().outbox, 3);
}

async fn event_numbers_go_on_after_a_restart(rig: Rig) {
    let store = rig.open();
    admit_one(&store, b"x").await;
    let waiting = admit_one(&store, b"x").await;
    store.outbox_done(2).await.unwrap();
    store.settled(settlement(waiting.id, Next::Done)).await.unwrap();
    store.close().await.unwrap();
    drop(store);
    let store = rig.open();
    assert_eq!(*store.outbox_wait().borrow(), 2);
    admit_one(&store, b"x").await;
    assert_eq!(store.outbox(2, 9).await.unwrap()[0].0, 3);
}

async fn ids_go_on_after_a_restart(rig: Rig) {
    let store = rig.open();
    rig.pass(Duration::from_secs(3600));
    let waiting = admit_one(&store, b"x").await;
    store.outbox_done(1).await.unwrap();
    store.settled(settlement(waiting.id, Next::Done)).await.unwrap();
    let (store, _) = {
        // The clock was set back meanwhile, and nothing is stored that shows the id.
        rig.clock.jump_to(START);
        rig.crash(store)
    };
    assert!(store.ids().next() > waiting.id.message);
}

async fn bad_admissions_harm_nobody_else(rig: Rig) {
    let store = rig.open();
    let first = admit_one(&store, b"first").await;
    let mut admissions = Vec::new();
    for n in 0..20 {
        let deliveries = vec![delivery("dest.example", 0..1, NewState::Active)];
        let mut next = admission(&store, &octets(n, 100), deliveries).await;
        match n {
            // The same recipient number twice, which no transaction takes.
            7 => {
                let twice = next.deliveries[0].recipients[0].clone();
                next.deliveries[0].recipients.push(twice);
            }
            // Another message's content.
            11 => next.message.id = first.id.message,
            _ => {}
        }
        admissions.push(next);
    }
    let admitting: Vec<_> = admissions
        .into_iter()
        .map(|admission| {
            let store = store.clone();
            tokio::spawn(async move { store.admit(admission).await })
        })
        .collect();
    for (n, admitting) in (0..).zip(admitting) {
        match (n, admitting.await.unwrap()) {
            (7 | 11, result) => assert!(matches!(result, Err(StoreError::Invalid(_))), "{n}: {result:?}"),
            (_, result) => {
                let waiting = new(result.unwrap()).remove(0);
                assert_eq!(stored(&store, &waiting).await, octets(n, 100));
            }
        }
    }
    assert_eq!(store.stats().deliveries, 19);
    assert!(store.verify().await.unwrap().is_sound());
}

async fn a_closed_store_says_so(rig: Rig) {
    let store = rig.open();
    let waiting = admit_one(&store, b"x").await;
    let late = admission(&store, b"x", vec![delivery("dest.example", 0..1, NewState::Active)]).await;
    store.close().await.unwrap();
    assert!(matches!(store.admit(late).await, Err(StoreError::Closed)));
    assert!(matches!(store.settled(settlement(waiting.id, Next::Done)).await, Err(StoreError::Closed)));
    assert!(matches!(store.load(waiting.id).await, Err(StoreError::Closed)));
    assert!(store.failed().borrow().is_none());
}

async fn memory_is_given_back(rig: Rig) {
    let store = rig.open();
    let mut sink = store.sink(store.ids().next());
    sink.write(&[0; 5000]).await.unwrap();
    assert!(store.stats().memory >= 5000);
    drop(sink);
    let waiting = admit_one(&store, &octets(1, 100_000)).await;
    assert!(store.stats().memory >= 100_000);
    let content = store.content(&waiting.content).await.unwrap();
    drop((waiting, content));
    let big = admit_one(&store, &octets(1, 400_000)).await;
    assert_eq!(store.stats().memory, 0, "a large one is in a file");
    drop(big);
}

async fn states_at_admission(rig: Rig) {
    let store = rig.open();
    let states = [
        (NewState::Active, State::Active),
        (NewState::Waiting { due: Timestamp(5) }, State::Waiting),
        (NewState::Held { reason: "because".into() }, State::Held),
        (NewState::Sandboxed, State::Sandboxed),
    ];
    for (new, expected) in states {
        let waiting = admit(&store, b"x", vec![delivery("dest.example", 0..1, new)]).await.remove(0);
        let loaded = store.load(waiting.id).await.unwrap().unwrap();
        assert_eq!((waiting.state, loaded.state), (expected, expected));
        assert_eq!((waiting.due, waiting.reason), (loaded.due, loaded.reason));
    }
}
