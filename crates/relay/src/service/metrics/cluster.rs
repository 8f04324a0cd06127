//! The metrics of a node in a cluster: the nodes as it sees them, its own lease, its way to PostgreSQL, the standbys.

use std::time::Duration;

use cluster::{Member, NodeState};
use postgres::{Pool, PoolStats, Replication};
use schedule::Borrowed;
use store::{Latency, ObjectStats, Stats};

use super::text::{Kind, Text};

/// How long the standbys may be asked about: a scrape must not wait for a fail-over.
const PATIENCE: Duration = Duration::from_secs(1);
/// Shared limits that are shown one by one: there is one for each path, and a path may be anywhere.
const LIMITS_MAX: usize = 100;

/// All of them, as text.
pub(super) async fn render(member: &Member, pool: &Pool, store: &Stats, borrowed: Vec<Borrowed>) -> String {
    let mut text = Text::default();
    nodes(member, &mut text);
    commits(&store.commits, &mut text);
    connections(&pool.stats(), &mut text);
    queue(store, &mut text);
    objects(&store.objects, &mut text);
    limits(borrowed, &mut text);
    // While the database does not answer, they are missing.
    if let Ok(Ok(all)) = tokio::time::timeout(PATIENCE, pool.replication()).await {
        standbys(&all, &mut text);
    }
    text.into_string()
}

fn nodes(member: &Member, text: &mut Text) {
    let nodes = member.nodes();
    let count = |name: &'static str, is: &dyn Fn(&cluster::Node) -> bool| {
        (vec![("state", name.to_owned())], float(nodes.iter().filter(|node| is(node)).count() as u64))
    };
    let states = [
        count("up", &|node| node.state == NodeState::Up && !node.draining),
        count("draining", &|node| node.state == NodeState::Up && node.draining),
        count("dead", &|node| node.state == NodeState::Dead),
        count("left", &|node| node.state == NodeState::Left),
    ];
    let help = "Nodes by state, as of this node's last good beat";
    text.many("posthouse_cluster_nodes", Kind::Gauge, help, states);
    let owed = nodes.iter().filter(|node| node.owed).count() as u64;
    let help = "Nodes whose work has still to be given back to others";
    text.one("posthouse_cluster_nodes_owed", Kind::Gauge, help, float(owed));
    let lease = member.lease();
    let age = lease.age().map_or(f64::INFINITY, |age| age.as_secs_f64());
    let help = "Age of this node's last good beat; at 6 it starts nothing, at 8 others may declare it dead";
    text.one("posthouse_cluster_lease_age_seconds", Kind::Gauge, help, age);
    let draining = u64::from(lease.is_draining());
    text.one("posthouse_cluster_draining", Kind::Gauge, "1 while this node drains", float(draining));
    let epoch = u64::try_from(member.token().epoch).unwrap_or(0);
    let help = "Which of its lives this node is in: a new one means that it was started or declared dead";
    text.one("posthouse_cluster_epoch", Kind::Gauge, help, float(epoch));
}

fn commits(commits: &Latency, text: &mut Text) {
    let bounds = Latency::BOUNDS_MS.map(|ms| float(ms) / 1000.0);
    let within = bounds.into_iter().zip(commits.within);
    let help =
        "Time of a commit of the queue, from its group's turn to the server's answer, fail-overs included";
    let all = (commits.count, float(commits.micros) / 1e6);
    text.histogram("posthouse_postgres_commit_seconds", help, within, all);
    let most = float(commits.micros_max) / 1e6;
    let help = "The longest commit of the queue since the start";
    text.one("posthouse_postgres_commit_seconds_max", Kind::Gauge, help, most);
}

fn connections(stats: &PoolStats, text: &mut Text) {
    let help = "Transactions committed to PostgreSQL, those of directory and history included";
    text.one("posthouse_postgres_commits", Kind::Counter, help, float(stats.commits));
    let help =
        "Commits of which nobody could tell what became of them; they were tried again where that is safe";
    text.one("posthouse_postgres_unknown_commits", Kind::Counter, help, float(stats.unknown));
    let open = [("busy", stats.busy), ("idle", stats.open.saturating_sub(stats.busy))];
    let open = open.map(|(state, n)| (vec![("state", state.to_owned())], float(n)));
    text.many("posthouse_postgres_connections", Kind::Gauge, "Connections to PostgreSQL", open);
    let help = "Connections to PostgreSQL that went or were given up";
    text.one("posthouse_postgres_connections_lost", Kind::Counter, help, float(stats.lost));
}

fn queue(store: &Stats, text: &mut Text) {
    let help =
        "Operations of the queue that wait for a commit or are in one; during a fail-over, what is held";
    text.one("posthouse_postgres_held_operations", Kind::Gauge, help, float(store.held));
    let help = "Pages of queues that took deliveries into this node's hands";
    text.one("posthouse_postgres_claims", Kind::Counter, help, float(store.claims));
    let help = "Deliveries taken into this node's hands";
    text.one("posthouse_postgres_claimed", Kind::Counter, help, float(store.claimed));
}

/// Nothing where no object storage is configured: then nothing was ever put there or is there.
fn objects(stats: &ObjectStats, text: &mut Text) {
    if *stats == ObjectStats::default() {
        return;
    }
    let asked = [
        ("put", stats.puts),
        ("get", stats.gets),
        ("delete", stats.deletes),
        ("sweep", stats.swept),
        ("failed", stats.failures),
    ];
    let asked = asked.map(|(what, n)| (vec![("what", what.to_owned())], float(n)));
    text.many("posthouse_objects_requests", Kind::Counter, "What was asked of the object storage", asked);
    let help = "Octets of content put into the object storage";
    text.one("posthouse_objects_put_bytes", Kind::Counter, help, float(stats.put_bytes));
    let help = "Messages whose content is in the object storage, of all nodes";
    text.one("posthouse_objects_messages", Kind::Gauge, help, float(stats.messages));
    let help = "Octets of content in the object storage, of all nodes";
    text.one("posthouse_objects_bytes", Kind::Gauge, help, float(stats.bytes));
}

/// Those that hold something back come first.
fn limits(mut all: Vec<Borrowed>, text: &mut Text) {
    let short = all.iter().filter(|limit| limit.is_short).count();
    let counts = [("all", all.len()), ("short", short)];
    let counts = counts.map(|(which, n)| (vec![("which", which.to_owned())], float(n as u64)));
    let help = "Limits that this node has or wants a part of, and those of them for which something waits";
    text.many("posthouse_borrowed_limits", Kind::Gauge, help, counts);
    all.sort_by(|a, b| b.is_short.cmp(&a.is_short).then_with(|| a.key.cmp(&b.key)));
    all.truncate(LIMITS_MAX);
    let label = |limit: &Borrowed| vec![("key", limit.key.to_string())];
    let help = "What this node may use now of a limit that all nodes share; a hundred limits at most";
    let amounts = all.iter().map(|limit| (label(limit), float(limit.amount)));
    text.many("posthouse_borrowed", Kind::Gauge, help, amounts);
    let help = "What there is of the limit for all nodes together";
    let capacities = all.iter().map(|limit| (label(limit), float(limit.capacity)));
    text.many("posthouse_borrowed_capacity", Kind::Gauge, help, capacities);
}

fn standbys(all: &Replication, text: &mut Text) {
    let labels = |standby: &postgres::Standby| {
        vec![("standby", standby.name.clone()), ("sync", standby.sync_state.clone())]
    };
    let bytes = all.standbys.iter().map(|standby| (labels(standby), float(standby.lag_bytes)));
    let help = "Log that a standby has not on disk yet, in octets";
    text.many("posthouse_postgres_replication_lag_bytes", Kind::Gauge, help, bytes);
    let seconds = all
        .standbys
        .iter()
        .map(|standby| (labels(standby), standby.lag.map_or(0.0, |lag| lag.as_secs_f64())));
    let help = "How long ago what a standby has put on disk last was written";
    text.many("posthouse_postgres_replication_lag_seconds", Kind::Gauge, help, seconds);
}

/// Prometheus' numbers are floats.
#[allow(clippy::cast_precision_loss, reason = "metrics are floats")]
fn float(n: u64) -> f64 {
    n as f64
}
