//! What is done beside the work: runs are merged, partitions made and dropped, figures read.

use std::sync::Weak;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{interval, sleep};
use tokio_util::sync::CancellationToken;

use super::{Shared, days, runs, sweep};
use crate::error::HistoryError;

/// How often old days are looked for.
const SWEEP: Duration = Duration::from_secs(600);
/// After batches were written, so long until runs are merged.
const MERGE: Duration = Duration::from_secs(5);

/// Goes on until the history is closed.
pub(super) async fn run(shared: Weak<Shared>, closed: CancellationToken) {
    let mut sweeps = interval(SWEEP);
    loop {
        let Some(strong) = shared.upgrade() else { return };
        let written = std::pin::pin!(async {
            strong.written.notified().await;
            sleep(MERGE).await;
        });
        let result = tokio::select! {
            () = closed.cancelled() => return,
            _ = sweeps.tick() => turn(&strong).await,
            () = written => runs::merge(&strong, false).await,
        };
        match result {
            Ok(()) | Err(HistoryError::Closed) => {}
            Err(error) => tracing::info!(%error, "upkeep of the history"),
        }
    }
}

/// All of it.
pub(super) async fn turn(shared: &Shared) -> Result<(), HistoryError> {
    shared.open()?;
    shared.make_days().await;
    sweep::sweep(shared).await?;
    runs::merge(shared, (shared.may_sweep)()).await?;
    figures(shared).await
}

/// Reads how many days there are and how large the tables are.
pub(super) async fn figures(shared: &Shared) -> Result<(), HistoryError> {
    let days = days::list(&shared.pool).await?.len();
    let bytes = shared
        .pool
        .read(|session| async move {
            let row = session
                .query_one(
                    "SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint FROM pg_class c
                     JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'history' AND c.relkind = 'r'",
                    &[],
                )
                .await?;
            Ok(row.try_get::<_, i64>(0)?)
        })
        .await?;
    shared.days.store(days as u64, Ordering::Relaxed);
    shared.bytes.store(bytes.cast_unsigned(), Ordering::Relaxed);
    Ok(())
}
