//! The running relay: everything opened and wired together, and how it starts, reloads and stops.

mod cluster;
mod control;
mod convert;
mod convert_deliver;
pub(crate) mod convert_forward;
mod convert_schedule;
mod doors;
mod explain;
mod explain_outgoing;
mod forwarding;
mod gate;
mod housekeeping;
mod logging;
mod metrics;
mod opening;
mod privileges;
mod reload;
mod run;
mod security;
mod standing;
mod submit;
mod tell;
mod tls_reports;

use std::path::PathBuf;
use std::sync::Arc;

use api::types::ListenerStatus;
use arc_swap::ArcSwap;
use directory::Directory;
use history::History;
use mail::{Clock, Mono};
use receive::Connections;
use store::Store;

use crate::config::Config;
use crate::driver::Driver;

pub(crate) use control::{Members, RelayControl, database};
pub(crate) use convert::{
    config_smarthosts, delivering, history as history_config, postgres as postgres_config,
    routes as config_routes, store as store_config,
};
pub(crate) use forwarding::{Applied, Forwarding, Opened, Special};
pub(crate) use gate::Gate;
pub(crate) use opening::open;
pub(crate) use run::{ServeError, serve};
pub(crate) use security::Security;
pub(crate) use tell::tell;

/// Everything that a running relay is made of.
pub(crate) struct Relay {
    pub(crate) clock: Clock,
    pub(crate) started: Mono,
    /// False when the command line opened the stores of a relay that does not run.
    pub(crate) is_serving: bool,
    /// The listeners and where they really listen.
    pub(crate) listening: Vec<ListenerStatus>,
    pub(crate) config: ArcSwap<Config>,
    /// Where the configuration came from, to read it again.
    pub(crate) config_path: Option<PathBuf>,
    pub(crate) store: Store,
    pub(crate) directory: Directory,
    pub(crate) history: History,
    pub(crate) engine: Arc<deliver::Engine>,
    pub(crate) driver: Driver,
    pub(crate) tls: net::ServerTls,
    pub(crate) policy: ArcSwap<receive::Policy>,
    pub(crate) gate: Gate,
    /// What is done to envelopes.
    pub(crate) forwarding: ArcSwap<Forwarding>,
    /// What forwarding signs with.
    pub(crate) keys: forward::Keys,
    /// MTA-STS policies and TLS results: what outlives a reload.
    pub(crate) security: Security,
    pub(crate) connections: Connections,
    /// Makes reloads one after the other.
    pub(crate) reloading: tokio::sync::Mutex<()>,
    /// This node's place in its cluster; none for a relay alone.
    pub(crate) cluster: Option<cluster::Cluster>,
}
