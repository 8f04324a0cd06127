//! The configuration: one TOML file as typed values. What the fields say in their comments is what
//! `posthouse config reference` prints, so the comments speak to the person who writes the file.

mod delivery;
mod diagnose;
mod keys;
mod load;
mod reference;
mod routing;
mod rules;
mod service;
mod smarthost;
mod store;
mod validate;
pub mod values;

use std::collections::BTreeMap;
use std::path::PathBuf;

use directory::rule;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use delivery::{Automatic, Delivery, Dns, Forward, Suppression};
pub use diagnose::{ConfigError, ConfigErrors, Source};
pub use reference::{reference, schema};
pub use routing::{Recipients, Relay, RelayNetwork, Route, RouteTo};
pub use service::{
    Acme, Api, BareNewline, Challenge, History, Limits, Listener, Log, LogFormat, Mode, Queue, Tls,
};
pub use smarthost::{Hosts, LoginRule, OAuth, SmartHost};
pub use store::{Cluster, Durability, Objects, Store, StoreEngine};
pub use values::Secret;

/// The configuration of Posthouse. An empty file is a working relay on loopback.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The name this relay gives itself in its greeting, in EHLO, in `Received` fields and in reports. It should
    /// resolve to the relay's public address, and that address back to the name.
    #[schemars(extend("x-default" = "the machine's name"))]
    pub hostname: String,
    /// Where everything is kept: queue, content, directory, history, certificates, the management socket.
    pub data_dir: PathBuf,
    /// The user to become once the listeners are bound, when started as root. Empty: stay who we are.
    pub user: String,
    /// The group to become with `user`. Empty: that user's own group.
    pub group: String,
    /// Where mail is taken in. Without any: `smtp` on 127.0.0.1:2525, `submission` on 127.0.0.1:2587 and `submissions`
    /// on 127.0.0.1:2465.
    #[schemars(extend("x-default" = "the three on loopback"))]
    pub listener: Vec<Listener>,
    /// Certificates. With neither a pair of files nor `[acme]`, a self-signed certificate is made on first start.
    pub tls: Tls,
    /// Certificates from an ACME server such as Let's Encrypt. Left out: none are asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acme: Option<Acme>,
    /// Who may relay without a password, and which domains are ours.
    pub relay: Relay,
    /// Where mail goes. All keys given in a route must match; the first route that matches wins; without one, the
    /// recipient domain's MX. Routes here come before those added by `posthouse route add`.
    pub route: Vec<Route>,
    /// Smart hosts, by name: `[smarthost.upstream]`.
    pub smarthost: BTreeMap<String, SmartHost>,
    /// Outgoing addresses, by name: `[source.fast]`. The source `default` is always there: the address that the system
    /// chooses, with `hostname` in EHLO; a source of that name says otherwise.
    #[serde(rename = "source")]
    pub sources: BTreeMap<String, rule::Source>,
    /// Sources that share the work, by name: `[pool.news]`. The pool `default` is always there: the source `default`; a pool of
    /// that name says otherwise.
    pub pool: BTreeMap<String, rule::Pool>,
    /// Which pool mail leaves by. All keys given must match; the first rule that matches counts; without one, the
    /// organisation's own pool if it has one, else the pool `default`.
    pub egress: Vec<rule::Egress>,
    /// How much traffic sites are given. Goes before what the provider data say, key by key; of several rules that say the
    /// same key, the first one counts.
    pub shape: Vec<rule::Shape>,
    /// How much an organisation, a credential or a route may take. Give exactly one of `org`, `credential` and `to` in each.
    pub ceiling: Vec<rule::Ceiling>,
    /// How connections to some recipient domains are protected, instead of what DANE, MTA-STS and the peers' offers say. The
    /// first rule that matches the recipient's domain counts.
    pub tls_policy: Vec<rule::TlsPolicy>,
    /// Addresses that stand for others.
    pub alias: Vec<rule::Alias>,
    /// Envelope addresses that are written anew by a regular expression. The first rule that matches counts.
    pub rewrite: Vec<rule::Rewrite>,
    /// Mail that goes on to other addresses, and reports that come back late.
    pub forward: Forward,
    /// Addresses that are written to no more.
    pub suppression: Suppression,
    /// Name resolving.
    pub dns: Dns,
    /// How long and how often delivery is tried.
    pub queue: Queue,
    /// Connections to other hosts.
    pub delivery: Delivery,
    /// Bounds on what clients may use.
    pub limits: Limits,
    /// How the queue is kept.
    pub store: Store,
    /// What this node is in a cluster.
    pub cluster: Cluster,
    /// The record of what became of every message.
    pub history: History,
    /// Health checks and metrics over HTTP.
    pub api: Api,
    /// The program's own log.
    pub log: Log,
    /// The text it was read from, to show places in it.
    #[serde(skip)]
    #[schemars(skip)]
    pub source: Source,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            hostname: String::new(),
            data_dir: PathBuf::from("posthouse-data"),
            user: String::new(),
            group: String::new(),
            listener: Vec::new(),
            tls: Tls::default(),
            acme: None,
            relay: Relay::default(),
            route: Vec::new(),
            smarthost: BTreeMap::new(),
            sources: BTreeMap::new(),
            pool: BTreeMap::new(),
            egress: Vec::new(),
            shape: Vec::new(),
            ceiling: Vec::new(),
            tls_policy: Vec::new(),
            alias: Vec::new(),
            rewrite: Vec::new(),
            forward: Forward::default(),
            suppression: Suppression::default(),
            dns: Dns::default(),
            queue: Queue::default(),
            delivery: Delivery::default(),
            limits: Limits::default(),
            store: Store::default(),
            cluster: Cluster::default(),
            history: History::default(),
            api: Api::default(),
            log: Log::default(),
            source: Source::default(),
        }
    }
}

impl Config {
    /// Where the management socket is.
    pub fn socket(&self) -> PathBuf {
        self.data_dir.join("posthouse.sock")
    }

    /// Whether this is a node of a cluster.
    pub fn is_clustered(&self) -> bool {
        self.store.engine == StoreEngine::Postgres
    }
}

#[cfg(test)]
mod tests;
