//! What the program lends to the API.

use std::future::Future;
use std::net::IpAddr;
use std::path::PathBuf;

use directory::Directory;
use history::History;
use mail::{Clock, DeliveryId, Destination, MessageId, QueueKey, Reply, Site};
use store::{Action, ChangedDelivery, Store};

use crate::problem::Problem;
use crate::submit::Upload;
use crate::types::{
    BackupReport, ClusterView, Envelope, ExplainRequest, Explanation, HostHealth, PathView, Probe,
    ProviderView, Reloaded, Status,
};

/// What the program lends to the API. Implemented by the running relay, and by the command line for one that is
/// stopped.
pub trait Control: Clone + Send + Sync + 'static {
    /// The queue.
    fn store(&self) -> &Store;

    /// Organisations, credentials, routes.
    fn directory(&self) -> &Directory;

    /// What became of every message.
    fn history(&self) -> &History;

    /// The time.
    fn clock(&self) -> &Clock;

    /// How things stand.
    fn status(&self) -> Status;

    /// Whether mail is accepted at the moment.
    ///
    /// # Errors
    /// Why not, in words.
    fn ready(&self) -> Result<(), String>;

    /// The directory was changed through the API: what was derived from it is to be made anew before the answer goes
    /// out.
    fn directory_changed(&self) -> impl Future<Output = ()> + Send;

    /// Reads the configuration and the certificates again. A bad configuration changes nothing.
    fn reload(&self) -> impl Future<Output = Result<Reloaded, Problem>> + Send;

    /// What would happen to a message, by the functions that the pipeline itself calls. Sends nothing.
    fn explain(&self, ask: ExplainRequest) -> impl Future<Output = Result<Explanation, Problem>> + Send;

    /// Connects and logs in to a smart host as a delivery would, and sends nothing.
    fn probe(&self, smarthost: &str) -> impl Future<Output = Result<Probe, Problem>> + Send;

    /// Takes a message from `posthouse sendmail` as a submission; `Ok` means on stable storage. `by` is who called.
    fn submit(
        &self,
        by: mail::Actor,
        envelope: Envelope,
        content: Upload,
    ) -> impl Future<Output = Result<MessageId, Reply>> + Send;

    /// Applies a change of the queue that the store has committed. Answers how many of the deliveries are being
    /// attempted right now, so that the change comes into force only after that attempt.
    fn apply(&self, action: Action, changed: Vec<ChangedDelivery>) -> impl Future<Output = u64> + Send;

    /// The paths that the scheduler knows, by source and site: connections, window, rate, health, warm-up.
    ///
    /// # Errors
    /// [`crate::Kind::NotRunning`] where no relay runs.
    fn paths(&self) -> Result<Vec<PathView>, Problem>;

    /// Why a delivery of this queue waits, in plain words: which limit, which window, whose turn, when next. None where
    /// the scheduler knows nothing of it, and where no relay runs.
    fn why(&self, delivery: DeliveryId, queue: &QueueKey) -> Option<String>;

    /// The site that a destination is known to belong to just now; none while it has not been located. Answers from
    /// memory: no DNS.
    fn site_of(&self, destination: &Destination) -> Option<Site>;

    /// How the hosts of a smart host have done, in the order of its `hosts`; empty where nothing has been tried yet.
    fn smarthost_health(&self, smarthost: &str) -> Vec<HostHealth>;

    /// The provider data in force, those of the operator merged in, by name.
    fn providers(&self) -> Vec<ProviderView>;

    /// Copies queue, content, directory and history into a directory that is empty or not there, while mail goes on.
    fn backup(&self, to: PathBuf) -> impl Future<Output = Result<BackupReport, Problem>> + Send;

    /// This node's name in the cluster; none where there is no cluster.
    fn node(&self) -> Option<String>;

    /// How the cluster stands, as the database has it.
    ///
    /// # Errors
    /// [`crate::Kind::Conflict`] where there is no cluster, [`crate::Kind::Unavailable`] where the database does not answer.
    fn cluster(&self) -> impl Future<Output = Result<ClusterView, Problem>> + Send;

    /// Has a node finish what it has and start nothing, or take up its work again, and puts it on record.
    ///
    /// # Errors
    /// As [`cluster`](Self::cluster); [`crate::Kind::NotFound`] where there is no such node, [`crate::Kind::Conflict`] where it is
    /// not up.
    fn drain(
        &self,
        node: &str,
        draining: bool,
        by: &mail::Actor,
    ) -> impl Future<Output = Result<(), Problem>> + Send;

    /// Removes a node that will not come back, and puts it on record.
    ///
    /// # Errors
    /// As [`cluster`](Self::cluster); [`crate::Kind::NotFound`] where there is no such node, [`crate::Kind::Conflict`] while it is
    /// up or what it left has not been given back.
    fn forget_node(&self, node: &str, by: &mail::Actor) -> impl Future<Output = Result<(), Problem>> + Send;

    /// Metrics in the Prometheus text format.
    fn metrics(&self) -> impl Future<Output = String> + Send;

    /// Whether this client may read the metrics.
    fn metrics_allowed(&self, client: IpAddr) -> bool;
}
