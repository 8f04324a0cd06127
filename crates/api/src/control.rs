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
    BackupReport, Envelope, ExplainRequest, Explanation, HostHealth, PathView, Probe, ProviderView, Reloaded,
    Status,
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

    /// Metrics in the Prometheus text format.
    fn metrics(&self) -> String;

    /// Whether this client may read the metrics.
    fn metrics_allowed(&self, client: IpAddr) -> bool;
}
