//! Content in the database: pieces, partitions, damage.

use mail::EventKind;
use store::{Content, NewState, QueueFilter, StoreError};

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn content_from_nothing_to_five_megabytes_comes_back_on_every_node() {
    const PIECE: usize = 256 << 10;
    let cluster = Cluster::new();
    let (a, b) = (cluster.open(A, 1).await, cluster.open(B, 1).await);
    let sizes = [
        0,
        1,
        2_000,
        8_191,
        65_536,
        PIECE - 1,
        PIECE,
        PIECE + 1,
        3 * PIECE,
        3 * PIECE + 1,
        2 << 20,
        5 << 20,
        (5 << 20) + 1,
    ];
    let mut admitted = Vec::new();
    for (seed, size) in (1..).zip(sizes) {
        let content = octets(seed, size);
        let waiting = admit_one(&a, &content).await;
        let body = waiting.body.clone().unwrap();
        assert_eq!(body.read_all_up_to(usize::MAX).await.unwrap(), content, "{size} as handed back");
        admitted.push((waiting, content));
    }
    for (waiting, content) in &admitted {
        let found = b.content(&waiting.content).await.unwrap();
        assert_eq!(matches!(found, Content::Memory(_)), content.len() <= PIECE, "small ones in memory alone");
        assert_eq!(found.read_all_up_to(usize::MAX).await.unwrap(), content);
        let middle = found.chunk(content.len() as u64 / 2, 1000).await.unwrap();
        assert_eq!(middle, content[content.len() / 2..(content.len() / 2 + 1000).min(content.len())]);
    }
    assert_eq!(a.stats().live_bytes, sizes.iter().map(|size| *size as u64).sum::<u64>());
    assert!(b.verify().await.unwrap().is_sound());
    // As it is written there: in pieces, outside of the row, not compressed, filed under its day.
    assert_eq!(cluster.sql("SELECT max(octet_length(data)) FROM store.content"), PIECE.to_string());
    let storage = "SELECT string_agg(DISTINCT a.attstorage::text, '') FROM pg_attribute a JOIN pg_inherits i
        ON i.inhrelid = a.attrelid WHERE i.inhparent = 'store.content'::regclass AND a.attname = 'data'";
    assert_eq!(cluster.sql(storage), "e");
    let day = START.millis().div_euclid(86_400_000);
    assert_eq!(
        cluster.sql("SELECT DISTINCT tableoid::regclass FROM store.content"),
        format!("store.content_{day}")
    );
    drop(admitted);
    let files = std::fs::read_dir(cluster.dir.path().join("spool-1-1/content")).unwrap().count();
    assert_eq!(files, 0, "the spool is empty when nobody has anything open");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_memory_to_spare_content_goes_through_files() {
    let cluster = Cluster::new();
    let pool = cluster.pool().await;
    let mut config = PostgresConfig::new(pool, Fence { node: A, epoch: 1 }, cluster.dir.path().join("spool"));
    (config.disk_reserve, config.memory) = (0, store::MemoryBudget::new(0));
    let a = Store::open_postgres(config, cluster.clock.clock()).await.unwrap().0;
    let content = octets(7, 3_000);
    let waiting = admit_one(&a, &content).await;
    let found = a.content(&waiting.content).await.unwrap();
    assert!(matches!(found, Content::File(_)));
    assert_eq!(found.read_all_up_to(usize::MAX).await.unwrap(), content);
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_is_found_told_once_and_quarantined() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.open(A, 1).await, cluster.open(B, 1).await);
    let one = admit_one(&a, &octets(1, 300_000)).await;
    let two = admit_one(&a, &octets(2, 3_000)).await;
    let sound = admit_one(&a, &octets(3, 3_000)).await;
    let (first, second) = (one.id.message.0, two.id.message.0);
    cluster.sql(&format!("DELETE FROM store.content WHERE message = {first} AND n = 1"));
    cluster.sql(&format!("UPDATE store.content SET data = set_byte(data, 5, 1 + get_byte(data, 5) % 200) WHERE message = {second}"));
    assert_eq!(a.verify().await.unwrap().damaged.len(), 2);
    for waiting in [&one, &two, &one] {
        assert!(matches!(b.content(&waiting.content).await, Err(StoreError::Damaged { .. })));
    }
    assert_eq!(stored(&b, &sound).await, octets(3, 3_000));
    assert_eq!(a.load(one.id).await.unwrap().unwrap().state, State::Quarantined);
    let told = events(&b).await;
    assert_eq!(told.iter().filter(|e| matches!(e.kind, EventKind::Damaged { .. })).count(), 2);
    // What is gone is no damage.
    let all = QueueFilter { messages: vec![one.id.message], ..QueueFilter::default() };
    a.change(all, Action::Remove, "op".into(), false).await.unwrap();
    assert!(matches!(b.content(&one.content).await, Err(StoreError::Invalid(_))));
    let left = admit(&a, b"", vec![delivery("dest.example", 0..1, NewState::Active)]).await;
    assert_eq!(stored(&b, &left[0]).await, b"", "nothing is something else than missing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_message_on_its_way_keeps_nobody_waiting() {
    let cluster = Cluster::new();
    let a = cluster.open(A, 1).await;
    let content = octets(5, 3 << 20);
    let active = || vec![delivery("dest.example", 0..1, NewState::Active)];
    let large = admission(&a, &content, active()).await;
    let id = large.message.id;
    // Another transaction has the place of its last piece, so it stops there.
    let (go_on, wait_for) = tokio::sync::oneshot::channel::<()>();
    let (there, is_there) = tokio::sync::oneshot::channel::<()>();
    let ends = std::sync::Mutex::new(Some((there, wait_for)));
    let pool = cluster.pool().await;
    let blocking = pool.commit(|tx| {
        let ends = ends.lock().unwrap().take();
        async move {
            let day = i32::try_from(id.accepted_at().millis().div_euclid(86_400_000)).unwrap();
            let sql = "INSERT INTO store.content (day, message, n, data) VALUES ($1, $2, 11, '')";
            tx.execute(sql, &[&day, &id.0.cast_signed()]).await?;
            if let Some((there, wait_for)) = ends {
                there.send(()).unwrap();
                wait_for.await.unwrap();
            }
            tx.abandon();
            Ok(())
        }
    });
    let rest = async {
        is_there.await.unwrap();
        let admitting = tokio::spawn({
            let a = a.clone();
            async move { a.admit(large).await }
        });
        for n in 0..20 {
            let small = admit_one(&a, &[n]).await;
            assert!(a.settled(settlement(small.id, Next::Done)).await.unwrap().found);
        }
        assert!(!admitting.is_finished(), "it waits for the other transaction");
        go_on.send(()).unwrap();
        new(admitting.await.unwrap().unwrap()).remove(0)
    };
    let (blocked, waiting) = tokio::join!(blocking, rest);
    blocked.unwrap();
    assert_eq!(stored(&a, &waiting).await, content);
    // Sent for nothing, it leaves nothing.
    let expires = cluster.now().plus(Duration::from_secs(60));
    let key = Dedupe { org: mail::OrgId::DEFAULT, key: vec![1], expires };
    for n in 0..2 {
        let mut keyed = admission(&a, &content, active()).await;
        keyed.dedupe = Some(key.clone());
        assert_eq!(matches!(a.admit(keyed).await.unwrap(), Admitted::Duplicate(_)), n == 1);
    }
    assert_eq!(cluster.sql("SELECT count(DISTINCT message) FROM store.content"), "2");
    assert!(a.verify().await.unwrap().is_sound());
    a.close().await.unwrap();
}
