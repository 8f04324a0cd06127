//! `posthouse cluster`: the nodes of a cluster. Asks the relay of this machine; while that does not run, the database.

use std::time::Duration;

use api::Actor;
use api::types::{ClusterView, DatabaseView, NodeView};
use clap::Subcommand;
use hyper::Method;
use mail::Clock;

use super::client::{Client, NOTHING, encode};
use super::context::{CliError, Context};
use super::output::{self, Rows, clean, size};
use crate::config::Config;
use crate::config::values::{format_duration, parse_duration};
use crate::service::Members;

/// How often a node that drains is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);

#[derive(Debug, Subcommand)]
pub(super) enum ClusterCommand {
    /// Show all nodes, what only one of them may do, and the database that they share.
    Status,
    /// Have a node finish what it has and take in nothing more; what it only had in memory goes to the others.
    Drain {
        /// Its name [default: the node of this machine].
        node: Option<String>,
        /// Wait until it has nothing in hand any more, at most so long.
        #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
        wait: Option<Duration>,
    },
    /// Have a node that was drained take up its work again.
    Resume {
        /// Its name [default: the node of this machine].
        node: Option<String>,
    },
    /// Remove a node that will not come back, so that its number is free.
    Remove {
        /// Its name.
        node: String,
    },
}

pub(super) fn cluster(context: &Context, command: ClusterCommand) -> Result<(), CliError> {
    let config = context.config()?;
    let json = context.json;
    context.block_on(async {
        let way = Way::find(&config).await?;
        run(&way, &config, command, json).await
    })
}

async fn run(way: &Way, config: &Config, command: ClusterCommand, json: bool) -> Result<(), CliError> {
    let me = || config.cluster.node.clone();
    match command {
        ClusterCommand::Status => {
            let all = way.view().await?;
            if json { output::json(&all) } else { show(&all) }
        }
        ClusterCommand::Drain { node, wait } => {
            let node = node.unwrap_or_else(me);
            way.drain(&node, true).await?;
            let now = match wait {
                Some(wait) => way.drained(&node, wait).await?,
                None => way.node(&node).await?,
            };
            match (json, now.in_hand) {
                (true, _) => output::json(&now),
                (_, 0) => output::line(&clean(&format!("{node} is drained: it has nothing in hand"))),
                (_, n) => {
                    output::line(&clean(&format!("{node} drains; {n} deliveries are still in its hands")))
                }
            }
        }
        ClusterCommand::Resume { node } => {
            let node = node.unwrap_or_else(me);
            way.drain(&node, false).await?;
            if json {
                output::json(&way.node(&node).await?);
            } else {
                output::line(&clean(&format!("{node} takes up its work again with its next beat")));
            }
        }
        ClusterCommand::Remove { node } => {
            way.remove(&node).await?;
            if !json {
                output::line(&clean(&format!("{node} is removed; its number is free")));
            }
        }
    }
    Ok(())
}

/// How the cluster is reached.
enum Way {
    Running(Client),
    Database(Members),
}

impl Way {
    async fn find(config: &Config) -> Result<Self, CliError> {
        match Client::running(config).await? {
            Some(client) => Ok(Self::Running(client)),
            None => Ok(Self::Database(Members::connect(config).await?)),
        }
    }

    async fn view(&self) -> Result<ClusterView, CliError> {
        match self {
            Self::Running(client) => client.get("/api/cluster").await,
            Self::Database(members) => Ok(members.view().await?),
        }
    }

    async fn node(&self, name: &str) -> Result<NodeView, CliError> {
        let found = self.view().await?.nodes.into_iter().find(|node| node.name == name);
        found.ok_or_else(|| CliError::Failed(format!("there is no node {name:?}")))
    }

    async fn drain(&self, name: &str, draining: bool) -> Result<(), CliError> {
        match self {
            Self::Running(client) => {
                let word = if draining { "drain" } else { "resume" };
                let path = format!("{}/{word}", at(name));
                client.call::<NodeView>(Method::POST, &path, NOTHING).await.map(drop)
            }
            Self::Database(members) => {
                Ok(members.drain(name, draining, &members.by(&Actor::ourselves())).await?)
            }
        }
    }

    async fn remove(&self, name: &str) -> Result<(), CliError> {
        match self {
            Self::Running(client) => client.call(Method::DELETE, &at(name), NOTHING).await,
            Self::Database(members) => Ok(members.forget(name, &members.by(&Actor::ourselves())).await?),
        }
    }

    /// Looks at a node that drains until it has nothing in hand, or the time is over.
    async fn drained(&self, name: &str, wait: Duration) -> Result<NodeView, CliError> {
        let clock = Clock::system();
        let started = clock.mono();
        loop {
            let now = self.node(name).await?;
            let passed = clock.mono().since(started);
            // It knows of it only since its next beat.
            let knows = now.state != "draining" || now.beat_age_s < passed.as_secs_f64();
            if now.in_hand == 0 && knows {
                return Ok(now);
            }
            if passed >= wait {
                let (n, wait) = (now.in_hand, format_duration(wait));
                let why = format!("{name} drains, but {n} deliveries are still in its hands after {wait}");
                return Err(CliError::Temporary(why));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

fn at(name: &str) -> String {
    format!("/api/cluster/nodes/{}", encode(name))
}

fn show(all: &ClusterView) {
    if all.nodes.is_empty() {
        output::line("no node has joined yet");
    } else {
        let mut rows = Rows::new(&[
            "NODE",
            "STATE",
            "LAST BEAT",
            "IN HAND",
            "UNTOLD",
            "EPOCH",
            "VERSION",
            "ADDRESS",
            "OWED",
        ]);
        for node in &all.nodes {
            rows.row(&cells(node, node.name == all.node));
        }
        rows.print();
    }
    for role in &all.roles {
        let who = role.node.as_deref().unwrap_or("nobody at the moment");
        output::line(&clean(&format!("{}: {who} (term {})", role.role, role.term)));
    }
    show_database(&all.database);
}

fn cells(node: &NodeView, is_this: bool) -> [String; 9] {
    let mark = if is_this { " (this)" } else { "" };
    [
        format!("{}{mark}", node.name),
        node.state.clone(),
        format!("{:.1} s ago", node.beat_age_s),
        node.in_hand.to_string(),
        node.untold.to_string(),
        node.epoch.to_string(),
        node.version.clone(),
        node.address.clone(),
        if node.owed { "yes" } else { "-" }.to_owned(),
    ]
}

fn show_database(it: &DatabaseView) {
    let say = |text: String| output::line(&clean(&text));
    say(format!("database: PostgreSQL {} at {}, durability = {:?}", it.version, it.server, it.durability));
    if let Some(why) = &it.is_unsafe {
        say(format!("  NOTHING IS STORED: {why}"));
    }
    for standby in &it.standbys {
        let behind = standby.lag_bytes.map_or_else(|| "?".to_owned(), size);
        let time = standby.lag_ms.map_or_else(String::new, |ms| format!(" ({ms} ms)"));
        say(format!("  standby {}: {}, {behind}{time} behind", standby.name, standby.sync));
    }
    if it.standbys.is_empty() && it.unseen.is_none() {
        say("  no standby is connected".into());
    }
    if let Some(why) = &it.unseen {
        say(format!("  {why}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_in_a_row() {
        let node = NodeView {
            name: "relay1".into(),
            number: 1,
            state: "up".into(),
            epoch: 7,
            beat_age_s: 0.43,
            version: "1.0.0".into(),
            address: "10.0.0.1:8080".into(),
            in_hand: 12,
            untold: 3,
            owed: false,
        };
        let row = cells(&node, true);
        assert_eq!(row.join("|"), "relay1 (this)|up|0.4 s ago|12|3|7|1.0.0|10.0.0.1:8080|-");
        assert_eq!(cells(&NodeView { owed: true, ..node }, false)[8], "yes");
    }

    #[test]
    fn a_name_cannot_leave_its_place() {
        assert_eq!(at("a/../b c"), "/api/cluster/nodes/a%2F..%2Fb%20c");
    }
}
