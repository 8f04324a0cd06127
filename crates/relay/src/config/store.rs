//! Where the queue is kept, and what this node is in a cluster.

use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::values::{self, AsText, Secret};

/// The engine that keeps the queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum StoreEngine {
    /// SQLite and content segments in `data_dir`.
    #[default]
    Embedded,
    /// A PostgreSQL that all nodes of a cluster share; queue, directory and history are in it.
    Postgres,
}

/// Who answers for it that an acknowledged message is on two machines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// The settings of the server are looked at, and nothing is stored while commits wait for no standby.
    #[default]
    Checked,
    /// Whoever runs the server, by other means than PostgreSQL's own (Aurora, Neon, a replicated volume).
    Provider,
}

/// How the queue is kept.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Store {
    /// The engine that keeps the queue.
    pub engine: StoreEngine,
    /// The server, or several of which one takes writes: `postgres://user:password@host1,host2/database`. Better in a
    /// file of its own: `url_file`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<Secret>,
    /// A file with the URL in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url_file: Option<PathBuf>,
    /// Who answers for it that an acknowledged message is on two machines.
    pub durability: Durability,
    /// Connections to the server. A few more are used for beats and notifications.
    #[schemars(range(min = 4, max = 1000))]
    pub connections: usize,
    /// How long a commit is held while another server takes over, before the client is told to try again.
    #[serde(with = "values::text")]
    #[schemars(with = "AsText<Duration>")]
    pub hold: Duration,
    /// Object storage for the content of large messages, the same for all nodes. Without it all content is in
    /// PostgreSQL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub objects: Option<Objects>,
}

/// S3, or what speaks its language: MinIO, Ceph, Garage, R2.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Objects {
    /// `s3://BUCKET` or `s3://BUCKET/PREFIX`.
    pub url: String,
    /// Where the service answers, such as `https://minio.example.com:9000`. Without it that of AWS in the region.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The region.
    pub region: String,
    /// The access key.
    pub access_key: String,
    /// Its secret. Better in a file of its own: `secret_key_file`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_key: Option<Secret>,
    /// A file with the secret in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_key_file: Option<PathBuf>,
    /// Content larger than this goes there; 256 KiB at least.
    #[serde(with = "values::text")]
    #[schemars(with = "AsText<u64>")]
    pub above: u64,
}

impl Default for Objects {
    fn default() -> Self {
        Self {
            url: String::new(),
            endpoint: None,
            region: "us-east-1".into(),
            access_key: String::new(),
            secret_key: None,
            secret_key_file: None,
            above: 1_000_000,
        }
    }
}

impl Default for Store {
    fn default() -> Self {
        Self {
            engine: StoreEngine::Embedded,
            url: None,
            url_file: None,
            durability: Durability::Checked,
            connections: 16,
            hold: Duration::from_secs(60),
            objects: None,
        }
    }
}

/// What this node is in a cluster. Without effect when the engine is `embedded`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Cluster {
    /// The node's name, unlike those of all others.
    #[schemars(extend("x-default" = "hostname"))]
    pub node: String,
    /// Where the node is reached, for the operator who reads the list of nodes.
    #[schemars(extend("x-default" = "the first of `api.listen`"))]
    pub address: String,
    /// Whether limits of connections and rates hold for all nodes together. Without it each node has them for itself:
    /// for nodes that send from addresses of their own.
    pub share_limits: bool,
}

impl Default for Cluster {
    fn default() -> Self {
        Self { node: String::new(), address: String::new(), share_limits: true }
    }
}
