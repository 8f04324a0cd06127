//! Metrics in Prometheus' text format: counters by the stages, gauges read from store and scheduler when asked for.

mod cluster;
mod text;

use std::sync::OnceLock;

use metrics::{describe_counter, describe_gauge, gauge};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use super::Relay;

static RECORDER: OnceLock<Option<PrometheusHandle>> = OnceLock::new();

/// Buckets of latencies, in seconds.
const SECONDS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0, 300.0];

/// Makes the process count. Once is enough; before that, counting costs nothing and counts nothing.
pub(super) fn install() {
    RECORDER.get_or_init(|| {
        PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS)
            .and_then(PrometheusBuilder::install_recorder)
            .inspect_err(|error| tracing::error!(%error, "metrics are off"))
            .ok()
    });
    GAUGES.iter().for_each(|(name, help)| describe_gauge!(*name, *help));
    COUNTERS.iter().for_each(|(name, help)| describe_counter!(*name, *help));
}

/// What each gauge is, for whoever reads `/metrics`.
const GAUGES: [(&str, &str); 25] = [
    ("posthouse_store_messages_admitted", "Messages taken in since the start"),
    ("posthouse_store_deliveries_settled", "Settlements of deliveries since the start"),
    ("posthouse_store_groups", "Commits of the queue since the start"),
    ("posthouse_store_fsyncs", "Syncs to disk since the start"),
    ("posthouse_store_content_bytes_live", "Stored content that is still needed, in octets"),
    ("posthouse_store_content_bytes", "Stored content on disk, in octets"),
    ("posthouse_store_segments", "Files of stored content"),
    ("posthouse_store_wal_bytes", "Write-ahead log of the queue, in octets"),
    ("posthouse_queue_deliveries", "Deliveries in the queue, in whatever state"),
    ("posthouse_outbox_events", "Events that are not in the history yet"),
    ("posthouse_memory_bytes", "Of limits.memory, what is in use"),
    ("posthouse_queue_active", "Deliveries in memory"),
    ("posthouse_connections_out", "Connections to other servers"),
    ("posthouse_queues", "Queues whose state is in memory"),
    ("posthouse_sites", "Sites whose state is in memory"),
    ("posthouse_paths", "Paths (source and site) whose state is in memory"),
    ("posthouse_queue_waiting", "Deliveries that wait on disk for their time or for room"),
    ("posthouse_queue_held", "Deliveries that are held"),
    ("posthouse_queue_sandboxed", "Deliveries that the sandbox caught"),
    ("posthouse_queue_quarantined", "Deliveries with damaged content"),
    ("posthouse_connections_in", "Connections from clients"),
    ("posthouse_history_lag_events", "Events that wait to be written into the history"),
    ("posthouse_history_bytes", "The history on disk, in octets"),
    ("posthouse_ready", "1 while /readyz says 200"),
    ("posthouse_delivery_tasks", "Workers and other tasks of the delivery side"),
];

/// What each counter of the delivery side is; those of the listeners are described where they are counted.
const COUNTERS: [(&str, &str); 5] = [
    ("posthouse_recipients_total", "Recipients by what an attempt or the end of their time came to"),
    ("posthouse_bounces_total", "Refused and deferred recipients by what it was about"),
    ("posthouse_delivery_connections_total", "Connections made for deliveries: tls, clear or failed"),
    (
        "posthouse_delivery_tls_fallbacks_total",
        "Deliveries in the clear after a failed handshake that nobody insisted on",
    ),
    ("posthouse_delivery_panics_total", "Attempts that ended in a fault of this program"),
];

/// All of them, as text.
pub(super) async fn render(relay: &Relay) -> String {
    let Some(Some(recorder)) = RECORDER.get() else { return String::new() };
    read_gauges(relay);
    recorder.run_upkeep();
    let mut all = recorder.render();
    if let Some(of) = &relay.cluster {
        let (store, borrowed) = (relay.store.stats(), relay.driver.borrowed());
        all.push_str(&cluster::render(&of.member, &of.pool, &store, borrowed).await);
    }
    all
}

/// Metrics hold numbers as floats; beyond 2^53 a gauge is not exact, which nobody will mind.
#[allow(clippy::cast_precision_loss, reason = "gauges are floats")]
fn set(name: &'static str, value: u64) {
    gauge!(name).set(value as f64);
}

fn read_gauges(relay: &Relay) {
    let store = relay.store.stats();
    set("posthouse_store_messages_admitted", store.admitted);
    set("posthouse_store_deliveries_settled", store.settled);
    set("posthouse_store_groups", store.groups);
    set("posthouse_store_fsyncs", store.fsyncs);
    set("posthouse_store_content_bytes_live", store.live_bytes);
    set("posthouse_store_content_bytes", store.segment_bytes);
    set("posthouse_store_segments", store.segments);
    set("posthouse_store_wal_bytes", store.wal_bytes);
    set("posthouse_queue_deliveries", store.deliveries);
    set("posthouse_outbox_events", store.outbox);
    set("posthouse_memory_bytes", store.memory);
    let driver = relay.driver.totals();
    set("posthouse_queue_active", driver.active as u64);
    set("posthouse_connections_out", driver.connections as u64);
    set("posthouse_queues", driver.queues as u64);
    set("posthouse_sites", driver.sites as u64);
    set("posthouse_paths", driver.paths as u64);
    set("posthouse_delivery_tasks", relay.driver.tasks() as u64);
    set("posthouse_queue_waiting", store.counts.waiting);
    set("posthouse_queue_held", store.counts.held);
    set("posthouse_queue_sandboxed", store.counts.sandboxed);
    set("posthouse_queue_quarantined", store.counts.quarantined);
    set("posthouse_connections_in", relay.connections.open() as u64);
    let history = relay.history.stats();
    set("posthouse_history_lag_events", relay.history_lag());
    set("posthouse_history_bytes", history.bytes);
    set("posthouse_ready", u64::from(relay.ready().is_ok()));
}
