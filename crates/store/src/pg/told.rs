//! What operators change is told to the other nodes: whichever node an operator speaks to, the one that has the delivery
//! in memory has to see to it. A change writes what it did to a table in its own commit; each node reads there once a
//! second, or when it is notified, and keeps in mind what it has read.
//!
//! Numbers of rows become visible in another order than they were given, so a node asks for all that are there and reads
//! those that are new to it. They are few: a row is a commit of up to a thousand deliveries, and goes after five minutes.

use std::collections::HashSet;
use std::sync::{Arc, Weak};
use std::time::Duration;

use postgres::{PgError, Session, Tx};
use tokio::sync::mpsc;

use super::errors::committed;
use super::shared::Shared;
use super::work::Outcome;
use crate::codec;
use crate::error::StoreError;
use crate::filter::ChangedDelivery;

type Result<T> = std::result::Result<T, PgError>;
type Sender = mpsc::UnboundedSender<Vec<ChangedDelivery>>;

/// How often a node reads, notified or not.
const EVERY: Duration = Duration::from_secs(1);
/// Hints go here.
const CHANNEL: &str = "posthouse_store_told";
/// Rows read at a time.
const ROWS: usize = 32;
/// A row is kept for longer than any node that lives goes without reading: by the server's clock.
const KEEP: &str = "5 minutes";

/// Writes what a group's changes did.
pub(crate) async fn write(tx: &Tx, node: i32, outcomes: &[Outcome]) -> Result<()> {
    let mut rows = Vec::new();
    for outcome in outcomes {
        if let Outcome::Changed(changed, _) = outcome
            && !changed.is_empty()
        {
            let mut row = Vec::new();
            codec::encode(changed, &mut row);
            rows.push(row);
        }
    }
    if rows.is_empty() {
        return Ok(());
    }
    let sql = "INSERT INTO store.told (node, changes) SELECT $1, * FROM unnest($2::bytea[])";
    tx.execute(sql, &[&node, &rows]).await?;
    tx.execute("SELECT pg_notify($1, '')", &[&CHANNEL]).await.map(drop)
}

/// The numbers of what other nodes have told.
pub(crate) async fn numbers(session: Session, node: i32) -> Result<Vec<i64>> {
    let rows = session.query("SELECT seq FROM store.told WHERE node <> $1 ORDER BY seq", &[&node]).await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

async fn changes(session: Session, numbers: &[i64]) -> Result<Vec<Vec<u8>>> {
    let sql = "SELECT changes FROM store.told WHERE seq = ANY($1) ORDER BY seq";
    let rows = session.query(sql, &[&numbers]).await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

/// Deletes what every node has read long ago.
pub(crate) async fn forget(shared: &Shared) -> std::result::Result<(), StoreError> {
    let deleted = shared.pool.commit_idempotent(|tx| async move {
        let sql = format!("DELETE FROM store.told WHERE at < now() - interval '{KEEP}'");
        tx.execute(&sql, &[]).await
    });
    committed(deleted.await, "forgetting what was told").map(drop)
}

/// Begins to listen. None when somebody does already.
pub(crate) fn start(shared: &Arc<Shared>) -> Option<mpsc::UnboundedReceiver<Vec<ChangedDelivery>>> {
    let heard = shared.told_before.lock().take()?;
    let (sender, receiver) = mpsc::unbounded_channel();
    shared.runtime.spawn(listen(Arc::downgrade(shared), heard, sender));
    Some(receiver)
}

/// Goes on until the engine is gone or closed, or nobody listens.
async fn listen(shared: Weak<Shared>, mut heard: HashSet<i64>, sender: Sender) {
    let Some(pool) = shared.upgrade().map(|shared| shared.pool.clone()) else { return };
    let mut hints = pool.listen(&[CHANNEL]);
    loop {
        tokio::select! {
            () = sender.closed() => return,
            _ = hints.next() => {}
            () = tokio::time::sleep(EVERY) => {}
        }
        let Some(shared) = shared.upgrade() else { return };
        if shared.open().is_err() {
            return;
        }
        if let Err(error) = hear(&shared, &mut heard, &sender).await {
            tracing::debug!(%error, "hearing what other nodes tell");
        }
    }
}

/// Reads what is new, in order of its numbers.
async fn hear(
    shared: &Shared,
    heard: &mut HashSet<i64>,
    sender: &Sender,
) -> std::result::Result<(), StoreError> {
    let node = shared.node();
    let there = shared.read(|session| numbers(session, node)).await?;
    let unheard: Vec<i64> = there.iter().filter(|number| !heard.contains(number)).copied().collect();
    for numbers in unheard.chunks(ROWS) {
        for changes in shared.read(|session| changes(session, numbers)).await? {
            match codec::decode(&changes) {
                // Nobody listens any more: the next turn ends.
                Ok(changes) => drop(sender.send(changes)),
                // Of a version to come, perhaps. Whoever has such a delivery in hand finds out when it settles it.
                Err(error) => tracing::warn!(%error, "what another node tells is not understood"),
            }
        }
        heard.extend(numbers);
    }
    let there: HashSet<i64> = there.into_iter().collect();
    heard.retain(|number| there.contains(number));
    Ok(())
}
