//! What operators see and do: listings, filters, changes.

use std::time::Duration;

use mail::{Destination, Disposition, EventKind, RecipientStatus, State, Timestamp};
use store::{Action, NewState, Next, QueueFilter};

use crate::common::*;

pub(super) async fn operators_hold_release_retry_reroute_and_remove(rig: Rig) {
    let store = rig.open();
    let id = admit_one(&store, b"x").await.id;
    let all = QueueFilter::default;
    let by = || "root (uid 0)".to_owned();
    let state = async || store.load(id).await.unwrap().map(|w| (w.state, w.due));

    let held = store.change(all(), Action::Hold { reason: "why".into() }, by(), false).await.unwrap();
    assert_eq!(
        (held.count, held.changed[0].was, held.changed[0].state),
        (1, State::Active, Some(State::Held))
    );
    assert_eq!(state().await, Some((State::Held, None)));
    assert_eq!(store.change(all(), Action::Retry, by(), false).await.unwrap().count, 0, "held stays held");
    store.change(all(), Action::Release, by(), false).await.unwrap();
    assert_eq!(state().await, Some((State::Waiting, Some(rig.now()))));

    let later = rig.now().plus(Duration::from_secs(900));
    store.settled(settlement(id, Next::Deferred { due: later, attempts: 1 })).await.unwrap();
    rig.pass(Duration::from_secs(5));
    store.change(all(), Action::Retry, by(), false).await.unwrap();
    assert_eq!(state().await, Some((State::Waiting, Some(rig.now()))));

    let to: Destination = "smarthost:upstream".parse().unwrap();
    let moved = store.change(all(), Action::Reroute { to: to.clone() }, by(), false).await.unwrap();
    assert_eq!(moved.changed[0].queue, mx("dest.example"));
    assert_eq!(moved.changed[0].now_in.as_ref().unwrap().destination, to);
    assert!(store.page(&mx("dest.example"), rig.now(), 5).await.unwrap().is_empty());
    let new_queue = moved.changed[0].now_in.clone().unwrap();
    assert_eq!(store.page(&new_queue, rig.now(), 5).await.unwrap()[0].id, id);

    let removed = store.change(all(), Action::Remove, by(), false).await.unwrap();
    assert_eq!((removed.count, &removed.changed[0].now_in), (1, &None));
    assert_eq!(state().await, None);
    let kinds: Vec<_> = events(&store).await.into_iter().map(|e| e.kind).collect();
    assert!(matches!(
        &kinds[1..],
        [
            EventKind::Held { .. },
            EventKind::Released { .. },
            EventKind::Retried { .. },
            EventKind::Rerouted { .. },
            EventKind::Removed { recipients, .. }
        ] if recipients == &[0]
    ));
}

pub(super) async fn a_dry_run_changes_nothing(rig: Rig) {
    let store = rig.open();
    for _ in 0..3 {
        admit_one(&store, b"x").await;
    }
    let before = events(&store).await.len();
    let dry = store.change(QueueFilter::default(), Action::Remove, "op".into(), true).await.unwrap();
    assert_eq!((dry.count, dry.changed.len()), (3, 3));
    assert_eq!(store.stats().deliveries, 3);
    assert_eq!(events(&store).await.len(), before);
}

pub(super) async fn filters_choose(rig: Rig) {
    let store = rig.open();
    let active = |domain| vec![delivery(domain, 0..2, NewState::Active)];
    let one = admit(&store, b"1", active("one.example")).await.remove(0).id;
    let two = admit(&store, b"2", active("two.example")).await.remove(0).id;
    let mut null = admission(&store, b"3", active("three.example")).await;
    null.message.reverse_path = None;
    null.message.received_at = START.plus(Duration::from_secs(100));
    let three = new(store.admit(null).await.unwrap()).remove(0).id;
    let held = delivery("four.example", 0..1, NewState::Held { reason: "Policy: Too Odd".into() });
    let four = admit(&store, b"4", vec![held]).await.remove(0).id;
    let mut refused = settlement(two, Next::Deferred { due: rig.now(), attempts: 1 });
    refused.recipients =
        vec![(1, RecipientStatus::Pending(Some(outcome(Disposition::Deferred, "Greylisted, come back"))))];
    store.settled(refused).await.unwrap();

    let all = QueueFilter::default;
    let cases: Vec<(QueueFilter, Vec<_>)> = vec![
        (all(), vec![one, two, three, four]),
        (QueueFilter { domain: Some("ONE.example".into()), ..all() }, vec![one]),
        (QueueFilter { to: Some("user1@*".into()), ..all() }, vec![one, two, three]),
        (QueueFilter { to: Some("USER1@two.example".into()), ..all() }, vec![two]),
        (QueueFilter { to: Some("three.example".into()), ..all() }, vec![three]),
        (QueueFilter { to: Some("user_@two.example".into()), ..all() }, vec![]),
        (QueueFilter { from: Some("<>".into()), ..all() }, vec![three]),
        (QueueFilter { from: Some("@origin.example".into()), ..all() }, vec![one, two, four]),
        (QueueFilter { states: vec![State::Held], ..all() }, vec![four]),
        (QueueFilter { states: vec![State::Held, State::Waiting], ..all() }, vec![two, four]),
        (QueueFilter { reason: Some("too odd".into()), ..all() }, vec![four]),
        (QueueFilter { reason: Some("greylisted".into()), ..all() }, vec![two]),
        (QueueFilter { before: Some(START.plus(Duration::from_secs(50))), ..all() }, vec![one, two, four]),
        (QueueFilter { messages: vec![two.message, four.message], ..all() }, vec![two, four]),
        (QueueFilter { deliveries: vec![three], ..all() }, vec![three]),
        (QueueFilter { org: Some(mail::OrgId(9)), ..all() }, vec![]),
        (QueueFilter { stream: Some(mail::Stream::Bulk), ..all() }, vec![]),
        (QueueFilter { destination: Some(Destination::Mx("two.example".into())), ..all() }, vec![two]),
        (QueueFilter { from: Some("' OR 1=1 --".into()), ..all() }, vec![]),
    ];
    for (filter, expected) in cases {
        let found = store.search(filter.clone(), None, 100).await.unwrap();
        assert_eq!(found.iter().map(|e| e.id).collect::<Vec<_>>(), expected, "{filter:?}");
    }
}

pub(super) async fn search_goes_on_where_it_stopped(rig: Rig) {
    let store = rig.open();
    let mut ids = Vec::new();
    for n in 0..25 {
        let domains = if n % 5 == 0 { vec!["odd.example", "dest.example"] } else { vec!["dest.example"] };
        let deliveries = domains.into_iter().map(|d| delivery(d, 0..1, NewState::Active)).collect();
        ids.extend(admit(&store, b"x", deliveries).await.into_iter().map(|w| w.id));
    }
    for filter in [QueueFilter::default(), QueueFilter { to: Some("user*".into()), ..QueueFilter::default() }]
    {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let page = store.search(filter.clone(), after, 7).await.unwrap();
            let Some(last) = page.last() else { break };
            after = Some(last.id);
            found.extend(page.into_iter().map(|e| e.id));
        }
        assert_eq!(found, ids);
    }
}

pub(super) async fn queues_and_counts(rig: Rig) {
    let store = rig.open();
    let at = |n| NewState::Waiting { due: Timestamp(n) };
    for (domain, state) in [
        ("a.example", at(50)),
        ("a.example", at(20)),
        ("b.example", at(10)),
        ("c.example", NewState::Active),
        ("d.example", NewState::Held { reason: "r".into() }),
        ("e.example", NewState::Sandboxed),
    ] {
        admit(&store, b"x", vec![delivery(domain, 0..1, state)]).await;
    }
    let queues: Vec<_> =
        store.queues().await.unwrap().into_iter().map(|q| (q.queue, q.waiting, q.due.millis())).collect();
    assert_eq!(queues, [(mx("b.example"), 1, 10), (mx("a.example"), 2, 20)]);
    let counts = store.counts().await.unwrap();
    assert_eq!(counts, store::Counts { active: 1, waiting: 3, held: 1, sandboxed: 1, quarantined: 0 });
}
