//! Organisations, credentials, keys, domains, routes, smart hosts.

use serde::{Deserialize, Serialize};

use super::HostHealth;

/// An organisation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Org {
    /// Its name.
    pub name: String,
    /// Whether it may use any sender domain.
    pub trusted: bool,
    /// `active` or `suspended`.
    pub state: String,
    /// When it was added.
    pub created: String,
    /// The pool that its mail leaves by, where no `egress` rule says otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
}

/// An organisation to add.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrgNew {
    /// Its name.
    pub name: String,
    /// Whether it may use any sender domain; else only its own domains.
    #[serde(default)]
    pub trusted: bool,
}

/// A change of an organisation: what is given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrgChange {
    /// Another name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Whether it may use any sender domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trusted: Option<bool>,
    /// `active` or `suspended`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// The pool that its mail leaves by; empty: that of the relay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
}

/// A login for SMTP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credential {
    /// What the client sends.
    pub name: String,
    /// Whose mail it sends.
    pub org: String,
    /// Sender domains it may use; empty: whatever its organisation may.
    pub from_domains: Vec<String>,
    /// Client networks it may be used from; empty: any.
    pub networks: Vec<String>,
    /// What kind of mail comes by it: `transactional` or `bulk`.
    #[serde(default)]
    pub stream: String,
    /// Whether it may be used at all.
    pub enabled: bool,
    /// Whether Posthouse made the password.
    pub generated: bool,
    /// Whether SCRAM-SHA-256 can be used.
    pub scram: bool,
    /// When it was added.
    pub created: String,
}

/// A credential to add.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CredentialNew {
    /// The login.
    pub name: String,
    /// Whose mail it sends; `default` when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub org: Option<String>,
    /// A chosen password; without it one is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// Whether a chosen password may serve SCRAM-SHA-256, too; its stored form is then easier to guess from.
    #[serde(default)]
    pub scram: bool,
    /// Sender domains it may use.
    #[serde(default)]
    pub from_domains: Vec<String>,
    /// Client networks it may be used from.
    #[serde(default)]
    pub networks: Vec<String>,
    /// What kind of mail comes by it: `transactional` when not given, or `bulk`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
}

/// A change of a credential: what is given.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CredentialChange {
    /// A chosen password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// Whether to make a new password.
    #[serde(default)]
    pub new_password: bool,
    /// Whether a chosen password may serve SCRAM-SHA-256, too.
    #[serde(default)]
    pub scram: bool,
    /// Sender domains it may use, instead of those before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_domains: Option<Vec<String>>,
    /// Client networks, instead of those before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub networks: Option<Vec<String>>,
    /// Whether it may be used at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// What kind of mail comes by it: `transactional` or `bulk`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
}

/// A credential as made or changed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CredentialMade {
    /// The credential.
    pub credential: Credential,
    /// Its password, when Posthouse made it. Shown this once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
}

/// A domain that an organisation may use as sender.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Domain {
    /// The domain.
    pub name: String,
    /// Whose it is.
    pub org: String,
    /// When it was added.
    pub created: String,
}

/// A domain to add.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DomainNew {
    /// The domain.
    pub name: String,
    /// Whose it is; `default` when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub org: Option<String>,
}

/// A key for the HTTP API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// Its name.
    pub name: String,
    /// For whom it works.
    pub org: String,
    /// `send`, `read`, `manage` or `admin`.
    pub scope: String,
    /// Sender domains it may use; empty: whatever its organisation may.
    pub from_domains: Vec<String>,
    /// Whether it may be used at all.
    pub enabled: bool,
    /// When it was added.
    pub created: String,
}

/// A key to add.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyNew {
    /// Its name.
    pub name: String,
    /// For whom it works; `default` when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub org: Option<String>,
    /// `send` when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// Sender domains it may use.
    #[serde(default)]
    pub from_domains: Vec<String>,
}

/// A change of a key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyChange {
    /// Whether it may be used at all.
    pub enabled: bool,
}

/// A key as made.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyMade {
    /// The key's record.
    pub key: Key,
    /// The key itself. Shown this once.
    pub secret: String,
}

/// Where an entry comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The configuration file; read-only here.
    Config,
    /// The directory.
    Directory,
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Its name: `config-1`, or its number in the directory.
    pub id: String,
    /// Recipient domains; empty: any.
    pub domains: Vec<String>,
    /// Envelope senders; empty: any.
    pub senders: Vec<String>,
    /// Where to.
    pub to: String,
    /// Where it comes from.
    pub source: Source,
}

/// A route to add, or what a route shall say instead.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteNew {
    /// Recipient domains.
    #[serde(default)]
    pub domains: Vec<String>,
    /// Envelope senders.
    #[serde(default)]
    pub senders: Vec<String>,
    /// Where to.
    pub to: String,
    /// The route of the directory to put it before; without it, it comes last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
}

/// A smart host. Passwords are never shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SmartHost {
    /// Its name.
    pub name: String,
    /// Its hosts, in order.
    pub hosts: Vec<String>,
    /// `required`, `opportunistic`, `implicit` or `none`.
    pub tls: String,
    /// The login.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// Whether there is a password.
    pub has_password: bool,
    /// Which host is tried first: `ordered`, `weighted` or `sticky`.
    #[serde(default)]
    pub order: String,
    /// A weight for each host; empty: 1 for each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub weights: Vec<u32>,
    /// Logins for some senders and domains; the first that matches comes before `username`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub logins: Vec<HostLoginView>,
    /// Where access tokens come from; none where it is a password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_url: Option<String>,
    /// The certificate that is shown to its hosts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<String>,
    /// How its hosts have done since the start; empty where none has been tried.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub health: Vec<HostHealth>,
    /// Where it comes from.
    pub source: Source,
}

/// A login of a smart host for some of the mail.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HostLoginView {
    /// Envelope senders that it is for; empty: all.
    pub senders: Vec<String>,
    /// Recipients that it is for; empty: all.
    pub domains: Vec<String>,
    /// The login.
    pub username: String,
    /// Where access tokens come from; none where it is a password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_url: Option<String>,
}

/// A login of a smart host for some of the mail, to add.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HostLoginNew {
    /// Envelope senders that it is for; empty: all.
    pub senders: Vec<String>,
    /// Recipients that it is for; empty: all.
    pub domains: Vec<String>,
    /// The login.
    pub username: String,
    /// The password; without it the one that this login has is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// Where access tokens come from, in place of a password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oauth: Option<OAuthNew>,
}

/// Where access tokens for a smart host come from.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OAuthNew {
    /// The token endpoint; `https://…`.
    pub token_url: String,
    /// The id of this application as the provider knows it.
    pub client_id: String,
    /// Its secret; none for a public client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_secret: Option<String>,
    /// A refresh token; a new one that the provider hands out is kept in memory alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refresh_token: Option<String>,
    /// The absolute path of a file with a refresh token, which is kept up to date.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refresh_token_file: Option<String>,
    /// What the token is to be good for.
    pub scope: String,
}

/// A smart host to add, or to take the place of one with the same name.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SmartHostNew {
    /// Its name.
    pub name: String,
    /// Its hosts, in order.
    pub hosts: Vec<String>,
    /// `required` when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<String>,
    /// The login.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// The password. When one is replaced without it, it keeps the one it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// `ordered` when not given; `weighted` or `sticky`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<String>,
    /// A weight for each host; none: 1 for each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub weights: Vec<u32>,
    /// Logins for some senders and domains; the first that matches comes before `username`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub logins: Vec<HostLoginNew>,
    /// Where access tokens come from, instead of a password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oauth: Option<OAuthNew>,
    /// The absolute path of a certificate with its chain to show to the hosts, PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<String>,
    /// The absolute path of its private key, PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_key: Option<String>,
}

/// What was found about a smart host: connect, TLS, EHLO, AUTH, QUIT.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// The smart host.
    pub name: String,
    /// One step for each of its hosts.
    pub steps: Vec<ProbeStep>,
}

/// What was found about one host of a smart host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeStep {
    /// `host:port`.
    pub host: String,
    /// Whether mail could be sent there.
    pub ok: bool,
    /// What works, or what is wrong, in words.
    pub text: String,
    /// How the connection was protected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<String>,
    /// The dialogue, without passwords.
    pub transcript: String,
}

/// Without its secrets.
impl std::fmt::Debug for HostLoginNew {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HostLoginNew").field("username", &self.username).finish_non_exhaustive()
    }
}
