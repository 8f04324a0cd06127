//! Accepts connections until it is told to stop.

use std::net::SocketAddr;
use std::sync::Arc;

use net::Stream;
use smtp::server::{Config, Settings};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info};

use crate::connection::{self, Shared};
use crate::meters::Meters;
use crate::{Backend, ListenerConfig, Mode, Policy};

const TOO_MANY: &[u8] = b"421 4.7.0 Too many connections; try again in a moment\r\n";
pub(crate) const TOO_MANY_FROM_CLIENT: &[u8] =
    b"421 4.7.0 Too many connections from your address; close some or try again in a moment\r\n";

/// Serves one listener until `shutdown`; returns once its last session is over. A session that has a transaction open
/// finishes it first.
pub async fn serve<B: Backend>(
    listener: Arc<net::Listener>,
    config: ListenerConfig,
    backend: B,
    shutdown: CancellationToken,
) {
    let sessions = TaskTracker::new();
    let meters = Meters::new(&config.name);
    let config = Arc::new(config);
    let mut shared = share(&backend, &backend.policy(), &config, &meters, &shutdown);
    info!(listener = %config.name, addresses = ?listener.addresses().collect::<Vec<_>>(), "listening");
    loop {
        let (stream, peer) = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let policy = backend.policy();
        if !Arc::ptr_eq(&policy, &shared.policy) {
            shared = share(&backend, &policy, &config, &meters, &shutdown);
        }
        match backend.connections().enter(policy.limits.connections) {
            Ok(counted) => {
                // In a box of its own: a task's cell is aligned to cache lines, which for something of this size takes
                // the allocator's slow way, and the session would be copied from place to place on the way into it.
                sessions.spawn(Box::pin(connection::run(shared.clone(), stream, peer.address, counted)));
            }
            Err(_) => turn_away(&shared, &stream, peer.address),
        }
    }
    drop(listener);
    sessions.close();
    info!(listener = %config.name, sessions = sessions.len(), "not listening any more");
    sessions.wait().await;
}

fn share<B: Backend>(
    backend: &B,
    policy: &Arc<Policy>,
    listener: &Arc<ListenerConfig>,
    meters: &Meters,
    shutdown: &CancellationToken,
) -> Arc<Shared<B>> {
    let limits = &policy.limits;
    let settings = Settings {
        hostname: policy.hostname.to_string(),
        tls: policy.tls.is_some(),
        auth: listener.auth,
        scram: policy.scram,
        message_size_max: limits.message_size,
        recipients_max: limits.recipients,
        messages_max: limits.messages,
        errors_max: limits.errors,
        idle_commands_max: limits.idle_commands,
        bare_newline: listener.bare_newline,
    };
    Arc::new(Shared {
        backend: backend.clone(),
        policy: policy.clone(),
        listener: listener.clone(),
        smtp: Arc::new(Config::new(settings)),
        meters: meters.clone(),
        shutdown: shutdown.clone(),
    })
}

/// One connection too many: says so if that takes no waiting, and closes.
fn turn_away<B>(shared: &Shared<B>, stream: &Stream, peer: SocketAddr) {
    shared.meters.turned_away.increment(1);
    debug!(listener = %shared.listener.name, client = %peer, "turned away: too many connections");
    if shared.listener.mode != Mode::Submissions
        && let Some(tcp) = stream.tcp()
    {
        let _ = tcp.try_write(TOO_MANY);
    }
}
