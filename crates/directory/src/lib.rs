//! Who may use the relay and where mail goes: organisations, credentials, domains, API keys, routes and smart hosts,
//! with a log of every change.
//!
//! Everything lives in `data_dir/directory.db`, written by one thread of its own, and in memory as an immutable
//! [`Snapshot`]: what is asked while a message passes never touches the database.

mod audit;
mod auth;
mod credential;
mod directory;
mod error;
mod key;
mod load;
mod model;
mod org;
mod routing;
mod schema;
mod secret;
mod snapshot;
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
pub use snapshot::Snapshot;
