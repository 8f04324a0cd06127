//! Accepts connections until it is told to stop.

use tokio_util::sync::CancellationToken;

use crate::{Backend, ListenerConfig};

/// Serves one listener until `shutdown`; returns once its last session is over. A session that has a transaction open
/// finishes it first.
pub async fn serve<B: Backend>(
    listener: net::Listener,
    config: ListenerConfig,
    backend: B,
    shutdown: CancellationToken,
) {
    let _ = (listener, config, backend, shutdown);
}
