//! The cluster for operators: what the database tells of its nodes, and what they can be told. Works for a relay that runs
//! and, over connections of its own, beside one that does not.

use std::time::Duration;

use api::types::{ClusterView, DatabaseView, NodeView, RoleView, StandbyView};
use api::{Kind, Problem};
use cluster::{ClusterError, LEASE, Node, NodeState, Survey};
use directory::Directory;
use mail::{Actor, Clock};
use postgres::{PgError, Pool};
use store::Hand;

use crate::config::{Config, Durability};
use crate::service::convert;

/// How long the database may take to answer a person.
const PATIENCE: Duration = Duration::from_secs(10);

/// The cluster, as one of its nodes reaches it.
#[derive(Clone)]
pub(crate) struct Members {
    pool: Pool,
    /// What is done to nodes is put on record there; none where it is opened only for that.
    directory: Option<Directory>,
    /// The node that asks.
    node: String,
    durability: Durability,
}

impl Members {
    pub(crate) fn new(pool: Pool, directory: Directory, config: &Config) -> Self {
        let durability = config.store.durability;
        Self { pool, directory: Some(directory), node: config.cluster.node.clone(), durability }
    }

    /// Over two connections of its own: for a command beside a relay that does not run.
    ///
    /// # Errors
    /// In words; [`Kind::Conflict`] where the configuration names no cluster.
    pub(crate) async fn connect(config: &Config) -> Result<Self, Problem> {
        if !config.is_clustered() {
            return Err(no_cluster());
        }
        let pool =
            in_time(async { Pool::connect(database(config)).await.map_err(|e| of_postgres(&e)) }).await?;
        let durability = config.store.durability;
        Ok(Self { pool, directory: None, node: config.cluster.node.clone(), durability })
    }

    /// Who does something here, as it stands on record.
    pub(crate) fn by(&self, who: &api::Actor) -> Actor {
        format!("{} at {}", who.0, self.node)
    }

    /// Everything about the cluster.
    pub(crate) async fn view(&self) -> Result<ClusterView, Problem> {
        in_time(async {
            let survey = async { cluster::survey(&self.pool).await.map_err(|e| of_cluster(&e)) };
            let hands = async { store::hands(&self.pool).await.map_err(Problem::from) };
            let (survey, hands, database) = tokio::try_join!(survey, hands, self.database())?;
            Ok(ClusterView {
                node: self.node.clone(),
                nodes: survey.nodes.iter().map(|(node, age)| node_view(node, *age, &hands)).collect(),
                roles: roles(&survey),
                database,
            })
        })
        .await
    }

    /// Has a node finish what it has, or take up its work again.
    pub(crate) async fn drain(&self, name: &str, draining: bool, by: &Actor) -> Result<(), Problem> {
        in_time(async {
            let node = self.find(name).await?;
            if node.state != NodeState::Up {
                return Err(Problem::new(
                    Kind::Conflict,
                    format!("{name:?} is not up: it has nothing to do"),
                ));
            }
            cluster::set_draining(&self.pool, name, draining).await.map_err(|e| of_cluster(&e))?;
            self.record(by, if draining { "drain" } else { "resume" }, &node).await
        })
        .await
    }

    /// Removes a node that will not come back.
    pub(crate) async fn forget(&self, name: &str, by: &Actor) -> Result<(), Problem> {
        in_time(async {
            let node = self.find(name).await?;
            // That it is there has been seen: what is left to say is that it can't go now.
            let conflict = |error: ClusterError| match error {
                ClusterError::NoSuchNode(why) => Problem::new(Kind::Conflict, why),
                error => of_cluster(&error),
            };
            cluster::forget(&self.pool, name).await.map_err(conflict)?;
            self.record(by, "remove", &node).await
        })
        .await
    }

    async fn find(&self, name: &str) -> Result<Node, Problem> {
        let survey = cluster::survey(&self.pool).await.map_err(|e| of_cluster(&e))?;
        let found = survey.nodes.into_iter().map(|(node, _)| node).find(|node| node.name == name);
        found.ok_or_else(|| Problem::not_found(format!("there is no node {name:?}")))
    }

    async fn record(&self, by: &Actor, action: &'static str, node: &Node) -> Result<(), Problem> {
        let detail = serde_json::json!({ "number": node.token.node, "address": node.address });
        let what = ("node", node.name.clone());
        if let Some(directory) = &self.directory {
            return Ok(directory.record(by, action, what, detail).await?);
        }
        let directory = Directory::open_postgres(self.pool.clone(), Clock::system()).await?;
        let recorded = directory.record(by, action, what, detail).await;
        directory.close().await;
        Ok(recorded?)
    }

    /// The server, as far as this role may see it.
    async fn database(&self) -> Result<DatabaseView, Problem> {
        let version = self.pool.read(|session| async move {
            let row = session.query_one("SELECT current_setting('server_version')", &[]).await?;
            Ok(row.get::<_, String>(0))
        });
        let (version, replication, safe) = tokio::join!(version, self.pool.replication(), self.pool.check());
        let version = version.map_err(|e| of_postgres(&e))?;
        let hidden = |n: u64| format!("{n} standbys are hidden from this role: GRANT pg_monitor TO it");
        let (standbys, unseen) = match replication {
            Ok(all) => (all.standbys, (all.hidden > 0).then(|| hidden(all.hidden))),
            Err(error) => (Vec::new(), Some(error.to_string())),
        };
        Ok(DatabaseView {
            server: self.pool.stats().server.unwrap_or_default(),
            // Debian's says which package it is.
            version: version.split(' ').next().unwrap_or_default().to_owned(),
            durability: match self.durability {
                Durability::Checked => "checked",
                Durability::Provider => "provider",
            }
            .into(),
            is_unsafe: match safe {
                Err(error @ PgError::Unsafe { .. }) => Some(error.to_string()),
                _ => None,
            },
            standbys: standbys
                .into_iter()
                .map(|it| StandbyView {
                    name: it.name,
                    sync: it.sync_state,
                    lag_bytes: Some(it.lag_bytes),
                    lag_ms: it.lag.map(|lag| u64::try_from(lag.as_millis()).unwrap_or(u64::MAX)),
                })
                .collect(),
            unseen,
        })
    }
}

/// How the database of a cluster is reached by a command: it does not wait for long.
pub(crate) fn database(config: &Config) -> postgres::Config {
    let node = &config.cluster.node;
    postgres::Config {
        pool: 3,
        hold: PATIENCE,
        application_name: format!("posthouse command at {node}"),
        ..convert::postgres(config)
    }
}

/// There is one node, which keeps everything on its own disk.
pub(crate) fn no_cluster() -> Problem {
    Problem::new(
        Kind::Conflict,
        "there is no cluster: this relay keeps its queue in data_dir (store.engine = \"embedded\")",
    )
}

async fn in_time<T>(ask: impl Future<Output = Result<T, Problem>>) -> Result<T, Problem> {
    let late =
        || Problem::new(Kind::Unavailable, "the database does not answer in time: see `posthouse check`");
    tokio::time::timeout(PATIENCE, ask).await.unwrap_or_else(|_| Err(late()))
}

fn of_cluster(error: &ClusterError) -> Problem {
    let kind = match error {
        ClusterError::NoSuchNode(_) => Kind::NotFound,
        ClusterError::Postgres(error) => return of_postgres(error),
        ClusterError::Unknown(_) => Kind::Unavailable,
        ClusterError::NameTaken { .. } | ClusterError::Full | ClusterError::Deposed => Kind::Conflict,
    };
    Problem::new(kind, error.to_string())
}

fn of_postgres(error: &PgError) -> Problem {
    let kind = match error {
        error if error.is_transient() => Kind::Unavailable,
        PgError::Configuration(_) | PgError::Login(_) => Kind::Conflict,
        _ => Kind::Internal,
    };
    Problem::new(kind, error.to_string())
}

fn node_view(node: &Node, age: Duration, hands: &[Hand]) -> NodeView {
    let hand = hands.iter().find(|hand| hand.node == node.token.node);
    let state = match node.state {
        NodeState::Dead => "dead",
        NodeState::Left => "left",
        NodeState::Up if age >= LEASE => "late",
        NodeState::Up if node.draining => "draining",
        NodeState::Up => "up",
    };
    NodeView {
        name: node.name.clone(),
        number: node.token.node,
        state: state.into(),
        epoch: node.token.epoch,
        beat_age_s: (age.as_secs_f64() * 10.0).round() / 10.0,
        version: node.version.clone(),
        address: node.address.clone(),
        in_hand: hand.map_or(0, |hand| hand.deliveries),
        untold: hand.map_or(0, |hand| hand.untold),
        owed: node.owed,
    }
}

fn roles(survey: &Survey) -> Vec<RoleView> {
    let name = |holder: &cluster::Holder| {
        let nodes = survey.nodes.iter().map(|(node, _)| node);
        let mut up = nodes.filter(|node| node.state == NodeState::Up);
        up.find(|node| node.token == holder.token).map(|node| node.name.clone())
    };
    let view = |holder: &cluster::Holder| RoleView {
        role: holder.role.clone(),
        node: name(holder),
        term: holder.term,
    };
    survey.roles.iter().map(view).collect()
}
