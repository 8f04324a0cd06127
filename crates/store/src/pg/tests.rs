//! What upkeep does, with a clock that the test moves.

use std::time::Duration;

use mail::{
    Body, Destination, ManualClock, Message, OrgId, Origin, Protocol, QueueKey, Recipient, Stream, Timestamp,
};
use postgres::Pool;
use postgres::test::Server;

use super::{Engine, schema, upkeep};
use crate::config::{Fence, PostgresConfig};
use crate::model::{Admission, Admitted, Dedupe, NewDelivery, NewState, Next, Settlement, Waiting};

const START: Timestamp = Timestamp(1_795_500_000_000);
const DAY: Duration = Duration::from_secs(86_400);

struct Rig {
    engine: Engine,
    clock: ManualClock,
    database: String,
    _dir: tempfile::TempDir,
}

async fn rig() -> Rig {
    let config = Server::shared().database();
    let database = config.url.rsplit('/').next().unwrap().to_owned();
    let (dir, clock) = (tempfile::tempdir().unwrap(), ManualClock::new(START));
    let fence = Fence { node: 1, epoch: 1 };
    let mut config =
        PostgresConfig::new(Pool::connect(config).await.unwrap(), fence, dir.path().join("spool"));
    config.disk_reserve = 0;
    let engine = Engine::open(config, clock.clock()).await.unwrap().0;
    Rig { engine, clock, database, _dir: dir }
}

impl Rig {
    fn sql(&self, statement: &str) -> String {
        Server::shared().sql_in(&self.database, statement).trim().to_owned()
    }

    fn now(&self) -> Timestamp {
        self.clock.clock().now()
    }

    async fn admit(&self, domain: &str, dedupe: Option<Dedupe>) -> Waiting {
        let id = self.engine.ids().next();
        let queue = QueueKey {
            org: OrgId::DEFAULT,
            stream: Stream::Bulk,
            destination: Destination::Mx(domain.into()),
        };
        let recipients = vec![(0, Recipient::new(format!("a@{domain}").parse().unwrap()))];
        let state = NewState::Waiting { due: self.now() };
        let admission = Admission {
            message: message(id, self.now()),
            content: self.engine.sealed(id, b"content".to_vec()),
            deliveries: vec![NewDelivery { queue, recipients, state }],
            dedupe,
            events: Vec::new(),
        };
        match self.engine.admit(admission).await.unwrap() {
            Admitted::New(mut waiting) => waiting.remove(0),
            Admitted::Duplicate(of) => panic!("a duplicate of {of}"),
        }
    }

    async fn done(&self, waiting: &Waiting) {
        let settlement = Settlement {
            delivery: waiting.id,
            recipients: Vec::new(),
            next: Next::Done,
            warned: false,
            reports: Vec::new(),
            events: Vec::new(),
        };
        assert!(self.engine.settled(settlement).await.unwrap().found);
    }
}

fn message(id: mail::MessageId, received_at: Timestamp) -> Message {
    Message {
        id,
        org: OrgId::DEFAULT,
        stream: Stream::Bulk,
        received_at,
        reverse_path: None,
        ret: None,
        envid: None,
        body: Body::SevenBit,
        smtputf8: false,
        size: 7,
        header_message_id: None,
        require_tls: false,
        tls_optional: false,
        origin: Origin {
            protocol: Protocol::Smtp,
            client: None,
            helo: None,
            credential: None,
            tls: None,
            listener: None,
        },
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_come_with_the_days_and_go_when_nothing_is_left_in_them() {
    let rig = rig().await;
    let pool = &rig.engine.shared.pool;
    let partitions = || {
        let sql = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'store.content'::regclass";
        rig.sql(sql).parse::<u64>().unwrap()
    };
    assert_eq!(partitions(), 4, "today, two days more, and one for all others");
    let kept = rig.admit("kept.example", None).await;
    rig.clock.advance(DAY);
    let gone = rig.admit("gone.example", None).await;
    rig.done(&gone).await;
    rig.clock.advance(9 * DAY);
    // Nobody has made a partition for today yet.
    let elsewhere = rig.admit("late.example", None).await;
    assert_eq!(rig.sql("SELECT count(*) FROM store.content_other"), "1");
    schema::make_partitions(pool, rig.now().0).await.unwrap();
    assert_eq!(partitions(), 6, "not for today: its content is among the others");
    assert_eq!(schema::drop_partitions(pool, rig.now().0).await.unwrap(), 2);
    assert_eq!(partitions(), 4);
    for waiting in [&kept, &elsewhere] {
        assert_eq!(rig.engine.content(waiting.content).await.unwrap().len(), 7);
        rig.done(waiting).await;
    }
    assert_eq!(schema::drop_partitions(pool, rig.now().0).await.unwrap(), 1);
    assert_eq!(schema::drop_partitions(pool, rig.now().0).await.unwrap(), 0);
    assert!(rig.engine.verify().await.unwrap().is_sound());
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_expire_and_idle_queues_go() {
    let rig = rig().await;
    let expires = rig.now().plus(DAY);
    let key = |n| Some(Dedupe { org: OrgId::DEFAULT, key: vec![n], expires });
    let one = rig.admit("one.example", key(1)).await;
    rig.admit("two.example", key(2)).await;
    rig.done(&one).await;
    let shared = &rig.engine.shared;
    upkeep::expire_keys(shared).await.unwrap();
    assert_eq!(rig.sql("SELECT count(*) FROM store.dedupe"), "2");
    assert_eq!(upkeep::drop_idle_queues(shared).await.unwrap(), 0, "used a moment ago");
    rig.clock.advance(2 * DAY);
    upkeep::expire_keys(shared).await.unwrap();
    assert_eq!(rig.sql("SELECT count(*) FROM store.dedupe"), "0");
    assert_eq!(upkeep::drop_idle_queues(shared).await.unwrap(), 1, "in the other something waits");
    assert_eq!(rig.sql("SELECT string_agg(destination, ',') FROM store.queue"), "mx:two.example");
    // The number that was remembered is not used any more.
    let again = rig.admit("one.example", None).await;
    let page = rig.engine.page(again.queue.clone(), rig.now(), 10).await.unwrap();
    assert_eq!(page.iter().map(|w| w.id).collect::<Vec<_>>(), [again.id]);
    assert!(rig.engine.verify().await.unwrap().is_sound());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_node_has_the_turn_to_look_for_objects() {
    let rig = rig().await;
    let pool = &rig.engine.shared.pool;
    let turn = || async { pool.commit_idempotent(super::objects::take_turn).await.unwrap() };
    assert!(turn().await);
    assert!(!turn().await, "somebody has just looked");
    rig.sql("UPDATE store.turn SET at = at - interval '7 hours'");
    assert!(turn().await);
    assert!(!turn().await);
}
