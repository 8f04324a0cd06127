//! What the directory holds, but for routing. Passwords and keys are never part of what is serialised.

use std::str::FromStr;
use std::sync::Arc;

use mail::{OrgId, Stream, Timestamp};
use net::Network;
use serde::{Deserialize, Serialize};

use crate::Pattern;
use crate::error::DirectoryError;
use crate::secret::Verifier;

/// An organisation: whose mail it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Org {
    /// Its number; 1 is `default`.
    pub id: OrgId,
    /// Its name: unique, lower case.
    pub name: Arc<str>,
    /// Whether it may use any sender domain; otherwise only its own [`Domain`]s.
    pub trusted: bool,
    /// Whether it may send.
    pub state: OrgState,
    /// When it was added.
    pub created: Timestamp,
    /// The pool that its mail leaves by, where no `egress` rule says otherwise.
    pub pool: Option<Arc<str>>,
}

/// Whether an organisation may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OrgState {
    /// It may.
    Active,
    /// Its mail is refused until it is active again; what is queued goes on.
    Suspended,
}

impl OrgState {
    /// Its name as users type it.
    pub fn as_str(self) -> &'static str {
        match self {
            OrgState::Active => "active",
            OrgState::Suspended => "suspended",
        }
    }
}

impl FromStr for OrgState {
    type Err = DirectoryError;
    fn from_str(text: &str) -> Result<Self, DirectoryError> {
        match text {
            "active" => Ok(OrgState::Active),
            "suspended" => Ok(OrgState::Suspended),
            other => Err(DirectoryError::Invalid(format!("{other:?} is no state: active or suspended"))),
        }
    }
}

/// A login for SMTP.
#[derive(Clone, Debug, Serialize)]
pub struct Credential {
    /// Its number.
    pub id: i64,
    /// What the client sends; unique over the whole relay, whatever the case.
    pub login: Arc<str>,
    /// Whose mail it sends.
    pub org: OrgId,
    /// Sender domains it may use; empty: whatever its organisation may.
    pub from_domains: Vec<Pattern>,
    /// Client networks it may be used from; empty: any.
    pub networks: Vec<Network>,
    /// What kind of mail comes by it, unless the message says so itself.
    pub stream: Stream,
    /// Whether it may be used at all.
    pub enabled: bool,
    /// Whether the password was made here (then SCRAM works) or chosen.
    pub generated: bool,
    /// Whether SCRAM-SHA-256 can be used.
    pub scram: bool,
    /// Grows with every change; sessions and caches tell by it that they know an old version.
    pub generation: i64,
    /// When it was added.
    pub created: Timestamp,
    #[serde(skip)]
    pub(crate) verifier: Arc<Verifier>,
}

/// A domain that an organisation may use as sender, at the operator's word.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Domain {
    /// Lower case, A-labels; unique over the whole relay.
    pub name: Arc<str>,
    /// Whose it is.
    pub org: OrgId,
    /// When it was added.
    pub created: Timestamp,
}

/// A key for the HTTP API. Only its SHA-256 is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ApiKey {
    /// Its number.
    pub id: i64,
    /// Its name: unique over the whole relay, whatever the case.
    pub name: Arc<str>,
    /// For whom it works.
    pub org: OrgId,
    /// What it may do.
    pub scope: Scope,
    /// Sender domains it may use; empty: whatever its organisation may.
    pub from_domains: Vec<Pattern>,
    /// Whether it may be used at all.
    pub enabled: bool,
    /// When it was added.
    pub created: Timestamp,
    #[serde(skip)]
    pub(crate) hash: [u8; 32],
}

/// What a key may do. Each includes the ones before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Send mail.
    #[default]
    Send,
    /// See what became of it.
    Read,
    /// Change what belongs to its organisation.
    Manage,
    /// Everything, for every organisation.
    Admin,
}

impl Scope {
    /// Its name as users type it.
    pub fn as_str(self) -> &'static str {
        match self {
            Scope::Send => "send",
            Scope::Read => "read",
            Scope::Manage => "manage",
            Scope::Admin => "admin",
        }
    }
}

impl FromStr for Scope {
    type Err = DirectoryError;
    fn from_str(text: &str) -> Result<Self, DirectoryError> {
        [Scope::Send, Scope::Read, Scope::Manage, Scope::Admin]
            .into_iter()
            .find(|s| s.as_str() == text)
            .ok_or_else(|| {
                DirectoryError::Invalid(format!("{text:?} is no scope: send, read, manage or admin"))
            })
    }
}

/// The longest name of anything.
const NAME_MAX: usize = 255;

/// A login, a key's or a smart host's name: printable ASCII without spaces, 1 to 255 octets.
pub(crate) fn check_name(what: &'static str, name: &str) -> Result<(), DirectoryError> {
    let fine = !name.is_empty() && name.len() <= NAME_MAX && name.bytes().all(|b| b.is_ascii_graphic());
    if fine {
        Ok(())
    } else {
        Err(DirectoryError::Invalid(format!(
            "a {what} is 1 to {NAME_MAX} printable ASCII characters without spaces"
        )))
    }
}

/// How names are compared.
pub(crate) fn folded(name: &str) -> Arc<str> {
    name.to_ascii_lowercase().into()
}
