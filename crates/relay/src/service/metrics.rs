//! Metrics in Prometheus' text format: counters by the stages, gauges read from store and scheduler when asked for.

use std::sync::OnceLock;

use metrics::gauge;
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
}

/// All of them, as text.
pub(super) fn render(relay: &Relay) -> String {
    let Some(Some(recorder)) = RECORDER.get() else { return String::new() };
    read_gauges(relay);
    recorder.run_upkeep();
    recorder.render()
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
    set("posthouse_destinations", driver.sites as u64);
    set("posthouse_connections_in", relay.connections.open() as u64);
    let history = relay.history.stats();
    set("posthouse_history_lag_events", history.lag);
    set("posthouse_history_bytes", history.bytes);
    set("posthouse_ready", u64::from(relay.ready().is_ok()));
}
