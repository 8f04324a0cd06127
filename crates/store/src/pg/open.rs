//! The start of a node: the schema is brought up to date, a new life of the node begins, and what earlier lives had in hand
//! is given back.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use mail::{Clock, IdGenerator};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc};

use super::inbox::{Inbox, Op, Suspects};
use super::shared::{Counters, Queues, Shared};
use super::{claim::Marks, errors::read_error, objects, release, schema, told};
use crate::config::{Fence, PostgresConfig};
use crate::content::{Segments, make_dir};
use crate::error::StoreError;
use crate::health::Health;
use crate::lock::Lock;
use crate::model::Recovery;
use crate::notes::Notes;
use crate::outbox::Outbox;
use crate::room::Room;

/// So many large messages are sent at the same time, on a connection each.
const ASIDE: usize = 4;

/// What the engine begins with.
pub(crate) struct Start {
    pub(crate) shared: Arc<Shared>,
    pub(crate) inbox: mpsc::UnboundedReceiver<Op>,
    pub(crate) recovery: Recovery,
}

/// Opens; nothing is given back yet, as the committer has to do that.
pub(crate) async fn start(config: PostgresConfig, clock: Clock) -> Result<Start, StoreError> {
    make_dir(&config.spool)?;
    let lock = Lock::take(&config.spool)?;
    let health = Arc::new(Health::new());
    if let Some(objects) = &config.objects {
        match objects.probe().await {
            Err(error @ StoreError::Unavailable(_)) => {
                tracing::warn!(%error, "large content goes into the database until it answers");
            }
            other => other?,
        }
    }
    let spool = Segments::spool(config.spool.join("content"), config.memory.clone(), health.clone())?;
    let pool = config.pool.clone();
    schema::migrate(&pool).await?;
    schema::make_partitions(&pool, clock.now().0).await?;
    let me = config.fence;
    let Some(begun) = release::begin(&pool, me).await? else {
        return Err(StoreError::Fenced(format!("epoch {} of node {} is over", me.epoch, me.node)));
    };
    let ids = IdGenerator::new(clock.clone(), me.node);
    ids.advance_past(mail::MessageId(begun.last_id));
    let told_before = pool.read(|session| told::numbers(session, i32::from(me.node))).await;
    let told_before = told_before.map_err(|error| read_error(&error))?.into_iter().collect();
    let (inbox, receiver) = Inbox::new();
    let (sender, orphans) = mpsc::unbounded_channel();
    let counters = Counters::default();
    counters.set_own(begun.own);
    let shared = Arc::new(Shared {
        pool,
        me,
        clock,
        ids,
        health,
        spool: Arc::new(spool),
        inbox,
        outbox: Outbox::new(begun.last_event, begun.outbox_done),
        notes: Notes::default(),
        room: Room::new(&config.spool, config.disk_reserve),
        counters,
        queues: Queues::default(),
        marks: Marks::default(),
        objects: config.objects.clone().map(objects::Side::start),
        orphans: (sender, Mutex::new(Some(orphans))),
        told_before: Mutex::new(Some(told_before)),
        turn: Arc::default(),
        aside: Semaphore::new(ASIDE),
        runtime: tokio::runtime::Handle::current(),
        down: AtomicBool::new(false),
        abandoned: AtomicBool::new(false),
        lock: Mutex::new(Some(lock)),
        config,
    });
    Ok(Start { shared, inbox: receiver, recovery: Recovery { clean: begun.clean, ..Recovery::default() } })
}

/// Gives back what earlier lives of this node had in hand, and counts.
pub(crate) async fn recover(shared: &Shared, recovery: &mut Recovery) -> Result<(), StoreError> {
    let earlier = Fence { epoch: shared.me.epoch - 1, ..shared.me };
    let suspects = match &shared.config.attempted {
        _ if recovery.clean => Suspects::None,
        Some(attempted) => Suspects::Only(attempted.clone().into()),
        None => Suspects::All,
    };
    let released = release::all(shared, earlier, &suspects).await?;
    (recovery.requeued, recovery.held) = (released.active, released.held);
    super::upkeep::others(shared).await?;
    recovery.deliveries = shared.counts().all();
    Ok(())
}
