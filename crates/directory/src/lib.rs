//! Who may use the relay, where mail goes and how it leaves: organisations, credentials, domains, API keys, routes, smart
//! hosts, rules about outgoing mail, suppressed addresses, with a log of every change.
//!
//! Everything lives in `data_dir/directory.db`, or on a PostgreSQL that several nodes share, and in memory as an immutable
//! [`Snapshot`]: what is asked while a message passes never touches the database. A change is made of the snapshot first
//! (`draft`), and its statements are committed by one writer (`embedded`, `server`) before anybody sees it.

mod audit;
mod auth;
mod credential;
mod db;
mod directory;
mod draft;
mod embedded;
mod error;
mod key;
mod load;
mod model;
mod org;
mod routing;
pub mod rule;
mod schema;
mod secret;
mod server;
mod shared;
mod smarthost;
mod snapshot;
mod suppression;
mod touched;
pub mod transfer;
mod ways;
mod writer;

pub use audit::{AuditEntry, AuditQuery};
pub use auth::{Authentication, ScramOffer};
pub use credential::{CredentialChange, NewCredential, Password};
pub use directory::Directory;
pub use error::DirectoryError;
pub use key::NewKey;
pub use mail::{Pattern, PatternError};
pub use model::{ApiKey, Credential, Domain, Org, OrgState, Scope};
pub use org::OrgChange;
pub use routing::{NewRoute, Route, RouteTarget, SmartHost, SmartHostTls, Source};
pub use secret::{ScramVerifier, Secret};
pub use smarthost::{HostLogin, HostOAuth, SmartHostMore};
pub use snapshot::Snapshot;
pub use suppression::{NewSuppression, SuppressedBy, Suppression, SuppressionQuery};
pub use ways::{DEFAULT_POOL, PoolChoice};
