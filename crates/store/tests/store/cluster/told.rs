//! What operators do at one node, as the others learn of it; and the events that a dead node leaves.

use store::{Changed, ChangedDelivery};
use tokio::sync::mpsc::UnboundedReceiver;

use super::*;

type Told = UnboundedReceiver<Vec<ChangedDelivery>>;

fn one(id: mail::DeliveryId) -> QueueFilter {
    QueueFilter { deliveries: vec![id], ..QueueFilter::default() }
}

async fn change(store: &Store, id: mail::DeliveryId, action: Action) -> Changed {
    store.change(one(id), action, "op".into(), false).await.unwrap()
}

async fn next(told: &mut Told) -> Vec<ChangedDelivery> {
    tokio::time::timeout(Duration::from_secs(20), told.recv()).await.expect("told in time").unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_others_are_told_once_of_every_change_and_who_made_it_is_not() {
    let cluster = Cluster::new();
    let (a, b, c) = (cluster.open(A, 1).await, cluster.open(B, 1).await, cluster.open(3, 1).await);
    let mut told = [a.told().unwrap(), b.told().unwrap(), c.told().unwrap()];
    assert!(b.told().is_none(), "taken");
    let id = admit_one(&b, b"x").await.id;
    let to = mx("other.example").destination;
    let actions = [
        Action::Hold { reason: "why".into() },
        Action::Release,
        Action::Retry,
        Action::Reroute { to: to.clone() },
        Action::Remove,
    ];
    let mut done = Vec::new();
    for action in actions {
        let dry = a.change(one(id), action.clone(), "op".into(), true).await.unwrap();
        let changed = change(&a, id, action).await;
        assert_eq!(dry, changed);
        assert_eq!(
            (changed.count, changed.elsewhere),
            (1, 1),
            "whether it is attempted is known at the other node"
        );
        assert_eq!(changed.changed[0].elsewhere, Some(B));
        done.push(changed.changed);
    }
    assert_eq!(done[3][0].now_in.as_ref().unwrap().destination, to);
    for (n, told) in told[1..].iter_mut().enumerate() {
        for expected in &done {
            assert_eq!(&next(told).await, expected, "node {}", n + 2);
        }
    }
    // A round of the other way shows that nothing came twice, and that nobody hears himself.
    let own = admit_one(&a, b"y").await.id;
    let here = change(&a, own, Action::Remove).await;
    assert_eq!(here.elsewhere, 0);
    let theirs = admit_one(&b, b"z").await.id;
    let there = change(&b, theirs, Action::Remove).await;
    assert_eq!(next(&mut told[0]).await, there.changed);
    assert_eq!(next(&mut told[1]).await, here.changed);
    assert_eq!(next(&mut told[2]).await, here.changed);
    assert_eq!(next(&mut told[2]).await, there.changed);
    // A new life has nothing in memory and need not know.
    b.close().await.unwrap();
    let b = cluster.open(B, 2).await;
    let mut again = b.told().unwrap();
    let last = admit_one(&a, b"last").await.id;
    let changed = change(&a, last, Action::Remove).await;
    assert_eq!(next(&mut again).await, changed.changed);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_told_late_is_heard_and_goes_after_a_while() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.open(A, 1).await, cluster.open(B, 1).await);
    let mut told = b.told().unwrap();
    let ids = [admit_one(&a, b"1").await.id, admit_one(&a, b"2").await.id];
    let first = change(&a, ids[0], Action::Remove).await;
    assert_eq!(next(&mut told).await, first.changed);
    // A commit that was under way when a later one was read already: its number is lower.
    cluster.sql("CREATE TABLE aside AS SELECT node, changes FROM store.told");
    cluster.sql("INSERT INTO store.told (seq, node, changes) OVERRIDING SYSTEM VALUE SELECT -5, node, changes FROM aside");
    assert_eq!(next(&mut told).await, first.changed);
    // A thousand deliveries are one row, and more are several.
    let all: Vec<_> =
        (0..1_200).map(|n| delivery(&format!("d{n}.example"), n..n + 1, waiting(cluster.now()))).collect();
    admit(&a, b"x", all).await;
    let many = a.change(QueueFilter::default(), Action::Retry, "op".into(), false).await.unwrap();
    assert_eq!((many.count, many.elsewhere), (1_200, 0));
    let mut heard = Vec::new();
    while heard.len() < 1_200 {
        heard.extend(next(&mut told).await);
    }
    assert_eq!(heard, many.changed);
    assert!(a.verify().await.unwrap().is_sound());
}

/// The faults of a whole directory with two nodes on one server: B is frozen with work in hand, an operator acts at A, B
/// is taken for dead, and what B has told is handed on by A.
#[tokio::test(flavor = "multi_thread")]
async fn the_events_of_a_dead_node_are_handed_on_once_and_in_order() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.open(A, 1).await, cluster.open(B, 1).await);
    let mut accepted = Vec::new();
    for n in 0..300_u16 {
        accepted.push(admit_one(&b, &n.to_le_bytes()).await.id);
    }
    b.outbox_done(40).await.unwrap();
    admit_one(&b, b"so that it is deleted").await;
    assert_eq!(a.left_outboxes().await.unwrap(), [] as [u16; 0], "it lives");
    assert!(matches!(a.outbox_done_of(B, 100).await, Err(StoreError::Fenced(_))));
    let removed = change(&a, accepted[7], Action::Remove).await;
    assert_eq!((removed.count, removed.elsewhere), (1, 1));

    assert_eq!(a.requeue(Fence { node: B, epoch: 1 }).await.unwrap(), 300);
    assert_eq!(a.left_outboxes().await.unwrap(), [B]);
    let (mut after, mut found) = (0, Vec::new());
    loop {
        let part = a.outbox_of(B, after, 50).await.unwrap();
        let Some((last, _)) = part.last() else { break };
        after = *last;
        found.extend(part);
        a.outbox_done_of(B, after).await.unwrap();
        a.outbox_done_of(B, after).await.unwrap();
    }
    let numbers: Vec<_> = found.iter().map(|(seq, _)| *seq).collect();
    assert_eq!(numbers, (41..=301).collect::<Vec<_>>());
    assert!(found[..260].iter().zip(&accepted[40..]).all(|((_, event), id)| event.message == id.message));
    assert_eq!(a.left_outboxes().await.unwrap(), [] as [u16; 0]);
    assert_eq!(events(&a).await.len(), 1, "its own are its own");

    // The node comes back, and goes on with its numbers.
    let b = cluster.open(B, 2).await;
    assert_eq!(b.stats().outbox, 0);
    admit_one(&b, b"back").await;
    assert_eq!(b.outbox(0, 10).await.unwrap()[0].0, 302);
    b.close().await.unwrap();
    assert_eq!(a.left_outboxes().await.unwrap(), [B], "one that has ended well leaves them as well");
    let b = cluster.open(B, 3).await;
    assert!(matches!(a.outbox_done_of(B, 302).await, Err(StoreError::Fenced(_))), "it lives again");
    assert_eq!(b.outbox(0, 10).await.unwrap()[0].0, 302);
}
