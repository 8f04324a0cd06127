//! Delivery: connect, drive the SMTP client session, write to a Maildir; outcomes as values.
//!
//! ```text
//!  Engine ──link(source, site)──► Link ──attempt(job)──► Attempt: an outcome for every recipient
//!                                 │
//!                                 ├──── delivery: may the open connection be used (reuse), is another host asked (failover)
//!                                 │        way, target: which hosts ── open: connect, TLS, EHLO, AUTH ── transact
//!                                 └──── maildir, discard
//! ```
//!
//! A [`Link`] keeps its connection between attempts, so that messages go one behind the other over the same connection,
//! also those for different domains of a site, as far as each domain's mail exchangers and TLS policy allow it. Nothing
//! here decides about retries or reports: that is the driver's business.

mod callout;
mod delivery;
mod engine;
mod error;
mod failover;
mod hosts;
mod https;
mod link;
mod locate;
mod look;
mod maildir;
mod open;
mod permit;
mod probe;
mod reuse;
mod security;
mod settings;
mod smarthost;
mod source;
mod target;
mod transact;
mod way;
mod wire;

pub use callout::{CalloutAnswer, callout};
pub use engine::{Engine, EngineConfig};
pub use https::{HttpsUrl, HttpsUrlError, post_tls_report};
pub use link::{Job, Link};
pub use locate::Located;
pub use permit::{Permit, withheld};
pub use probe::{ProbeReport, ProbeStep, probe};
pub use security::{
    FailureDetail, FailureSeen, OTHER, PolicySeen, PolicyType, ResultType, TlsOverride, TlsResult,
    TlsResults, TlsRules,
};
pub use settings::{ProviderOf, Settings, Timeouts};
pub use smarthost::{
    Grant, HostHealth, HostOrder, LoginRule, LoginSource, OAuth, OAuthError, RefreshToken, SmartHost,
    SmartHostHealth, SmartHostTls, SmartHostTlsError, SmartHosts, TokenError, TokenHealth, WeightedHost,
};
pub use source::SourceAddress;
