//! Whether the PostgreSQL of a cluster can be used, and whether it keeps what it acknowledges.

use std::time::Duration;

use cluster::NodeState;
use mail::Clock;
use postgres::{PgError, Pool};

use super::Findings;
use crate::cli::output::size;
use crate::config::{Config, Durability};

/// How long all of this may take.
const PATIENCE: Duration = Duration::from_secs(15);
/// Connections of a node beside those of its pool: beats, notifications, what is asked by people.
const BESIDE: u64 = 8;
/// A commit is some ten of these, and the mail of a whole group waits for it.
const ROUND_TRIP_MAX: Duration = Duration::from_millis(20);
/// Standbys that are further behind would lose much of a day if they had to take over by force.
const LAG_MAX: u64 = 1 << 30;

/// Connects, and looks. None when it could not be reached.
pub(super) async fn look(config: &Config, is_running: bool, found: &mut Findings) -> Option<Pool> {
    let Ok(pool) = tokio::time::timeout(PATIENCE, connect(config, found)).await else {
        found.fail("database", "PostgreSQL does not answer in time", REACH);
        return None;
    };
    let pool = pool?;
    let asked = async {
        round_trip(config, &pool, found).await?;
        standbys(config, &pool, found).await;
        nodes(config, &pool, is_running, found).await
    };
    match tokio::time::timeout(PATIENCE, asked).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => found.fail("database", error.to_string(), REACH),
        Err(_) => found.fail("database", "PostgreSQL does not answer in time", REACH),
    }
    Some(pool)
}

const REACH: &str = "correct store.url, open the way to the servers, and see their logs";

async fn connect(config: &Config, found: &mut Findings) -> Option<Pool> {
    let error = match Pool::connect(crate::service::database(config)).await {
        Ok(pool) => {
            let kept = match config.store.durability {
                Durability::Checked => "commits are on a second machine before they count",
                Durability::Provider => {
                    "that commits are kept is the provider's word (durability = \"provider\")"
                }
            };
            let server = pool.stats().server.unwrap_or_default();
            found.ok("database", format!("PostgreSQL at {server} takes writes; {kept}"));
            return Some(pool);
        }
        Err(error) => error,
    };
    let help = match &error {
        PgError::Unsafe { .. } => "until then nothing is stored: clients are answered 451",
        PgError::Login(_) => "CREATE ROLE and CREATE DATABASE as in the manual, and look at pg_hba.conf",
        PgError::Configuration(_) => "correct store.url",
        PgError::NotWritable(_) => "a primary has to be elected: see `patronictl list`",
        _ => REACH,
    };
    found.fail("database", error.to_string(), help);
    None
}

/// How far away the server is, and how many may connect.
async fn round_trip(config: &Config, pool: &Pool, found: &mut Findings) -> Result<(), PgError> {
    let clock = &Clock::system();
    let (version, most, took) = pool
        .read(|session| async move {
            let sql = "SELECT current_setting('server_version'), current_setting('max_connections')::bigint";
            let row = session.query_one(sql, &[]).await?;
            let started = clock.mono();
            // Prepared by now: the way there and back is all.
            session.query_one(sql, &[]).await?;
            Ok((row.get::<_, String>(0), row.get::<_, i64>(1), clock.mono().since(started)))
        })
        .await?;
    let text = format!("PostgreSQL {version}; a round trip takes {:.1} ms", took.as_secs_f64() * 1000.0);
    if took > ROUND_TRIP_MAX {
        let help = "put the nodes near the server that takes writes: a commit is some ten round trips";
        found.warn("database", text, help);
    } else {
        found.ok("database", text);
    }
    let known = cluster::survey(pool).await.map_or(0, |all| all.nodes.len() as u64).max(1);
    let wanted = known * (config.store.connections as u64 + BESIDE);
    if u64::try_from(most).unwrap_or(0) < wanted {
        let text = format!("max_connections is {most}; {known} nodes may need {wanted} connections");
        found.warn("database", text, "raise max_connections, or lower store.connections of the nodes");
    }
    Ok(())
}

/// Whether there is somebody for commits to wait for.
async fn standbys(config: &Config, pool: &Pool, found: &mut Findings) {
    let is_checked = config.store.durability == Durability::Checked;
    let all = match pool.replication().await {
        Ok(all) => all,
        Err(error) => {
            if is_checked {
                found.warn("database", format!("the standbys can't be seen: {error}"), GRANT);
            }
            return;
        }
    };
    if all.hidden > 0 {
        let text = format!(
            "{} standbys are hidden from this role, and with them how far they are behind",
            all.hidden
        );
        found.warn("database", text, GRANT);
    } else if is_checked && !all.standbys.iter().any(postgres::Standby::is_sync) {
        let help =
            "start a standby: until then every commit waits, and after store.hold clients are answered 451";
        found.fail("database", "no standby that commits wait for is connected", help);
    }
    for standby in &all.standbys {
        let text =
            format!("standby {}: {}, {} behind", standby.name, standby.sync_state, size(standby.lag_bytes));
        if standby.lag_bytes > LAG_MAX {
            found.warn("database", text, "see whether its disk and its network keep up");
        } else {
            found.ok("database", text);
        }
    }
}

const GRANT: &str = "GRANT pg_monitor TO the role of store.url";

/// Whether this node may join.
async fn nodes(config: &Config, pool: &Pool, is_running: bool, found: &mut Findings) -> Result<(), PgError> {
    let all = match cluster::survey(pool).await {
        Ok(all) => all,
        Err(cluster::ClusterError::Postgres(error)) => return Err(error),
        Err(error) => {
            found.warn("cluster", error.to_string(), "see `posthouse cluster status`");
            return Ok(());
        }
    };
    let name = &config.cluster.node;
    let up: Vec<_> = all.nodes.iter().filter(|(node, _)| node.state == NodeState::Up).collect();
    match up.iter().find(|(node, _)| node.name == *name) {
        Some((node, age)) if !is_running && *age < cluster::DEAD_AFTER => {
            let text = format!("a node named {name:?} is up already, at {}", node.address);
            found.fail("cluster", text, "give each node a name of its own: cluster.node");
        }
        _ => {
            let others = up.iter().filter(|(node, _)| node.name != *name).count();
            found.ok("cluster", format!("this is node {name:?}; {others} others are up"));
        }
    }
    for (node, _) in all.nodes.iter().filter(|(node, _)| node.owed && node.state != NodeState::Up) {
        let text = format!("what {:?} had in hand has not been given back yet", node.name);
        found.warn("cluster", text, "another node has to be up for that");
    }
    Ok(())
}

/// Whether a node has made the directory yet.
pub(super) async fn has_directory(pool: &Pool) -> bool {
    let asked = pool.read(|session| async move {
        let row = session.query_one("SELECT to_regnamespace('directory') IS NOT NULL", &[]).await?;
        Ok(row.get::<_, bool>(0))
    });
    asked.await.unwrap_or(false)
}
