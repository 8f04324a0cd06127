//! What a smart host may have beside its hosts, TLS and one login.

use std::path::PathBuf;

use mail::{HostOrder, Pattern};
use serde::{Deserialize, Serialize};

use crate::error::DirectoryError;
use crate::routing::SmartHost;
use crate::secret::Secret;

/// The largest weight of a host.
const WEIGHT_MAX: u32 = 10_000;

/// Who we are at a smart host for some of the mail. All that is given must match.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostLogin {
    /// Envelope senders that it is for; empty: all, the null sender too.
    #[serde(default)]
    pub senders: Vec<Pattern>,
    /// Recipients that it is for; empty: all.
    #[serde(default)]
    pub domains: Vec<Pattern>,
    /// The login.
    pub username: String,
    /// The password; none where it logs in by access token.
    #[serde(default, skip_serializing)]
    pub password: Option<Secret>,
    /// Where access tokens for this login come from, in place of a password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oauth: Option<HostOAuth>,
}

/// Where access tokens for a login come from (XOAUTH2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostOAuth {
    /// The token endpoint; `https://…`.
    pub token_url: String,
    /// The id of this application as the provider knows it.
    pub client_id: String,
    /// Its secret; none for a public client.
    #[serde(default, skip_serializing)]
    pub client_secret: Option<Secret>,
    /// A refresh token; a new one that the provider hands out is kept in memory alone.
    #[serde(default, skip_serializing)]
    pub refresh_token: Option<Secret>,
    /// A file with a refresh token, which is kept up to date.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh_token_file: Option<PathBuf>,
    /// What the token is to be good for.
    #[serde(default)]
    pub scope: String,
}

/// What a smart host may have beside its hosts, TLS and one login.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SmartHostMore {
    /// Which host is tried first.
    pub order: HostOrder,
    /// A weight for each host; empty: 1 for each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub weights: Vec<u32>,
    /// Logins for some senders and domains; the first that matches comes before the smart host's own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub logins: Vec<HostLogin>,
    /// Where access tokens for the smart host's own login come from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oauth: Option<HostOAuth>,
    /// A certificate with its chain to show to the hosts, PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<PathBuf>,
    /// Its private key, PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_key: Option<PathBuf>,
}

/// The secrets, as they are kept in the database.
#[derive(Default, Serialize, Deserialize)]
struct Secrets {
    #[serde(default)]
    logins: Vec<Option<String>>,
    #[serde(default)]
    client_secret: Option<String>,
    #[serde(default)]
    refresh_token: Option<String>,
    /// Of the logins.
    #[serde(default)]
    oauth: Vec<OAuthSecrets>,
}

/// The secrets of a login by access token.
#[derive(Default, Serialize, Deserialize)]
struct OAuthSecrets {
    client_secret: Option<String>,
    refresh_token: Option<String>,
}

impl HostOAuth {
    fn secrets(&self) -> OAuthSecrets {
        let text = |secret: &Option<Secret>| secret.as_ref().map(|s| s.expose().to_owned());
        OAuthSecrets { client_secret: text(&self.client_secret), refresh_token: text(&self.refresh_token) }
    }

    fn put(&mut self, secrets: OAuthSecrets) {
        self.client_secret = secrets.client_secret.map(Secret::new);
        self.refresh_token = secrets.refresh_token.map(Secret::new);
    }

    /// Takes over the secrets that are not said anew, as long as they are for the same application.
    fn keep_secrets(&mut self, before: &Self) {
        if (&self.token_url, &self.client_id) != (&before.token_url, &before.client_id) {
            return;
        }
        self.client_secret = self.client_secret.take().or_else(|| before.client_secret.clone());
        if self.refresh_token_file.is_none() {
            self.refresh_token = self.refresh_token.take().or_else(|| before.refresh_token.clone());
        }
    }

    fn check(&self) -> Result<(), DirectoryError> {
        let wrong = |text: &str| Err(DirectoryError::Invalid(text.into()));
        if !self.token_url.starts_with("https://") || self.client_id.is_empty() {
            return wrong("access tokens come from a token_url, which begins with https://, for a client_id");
        }
        if self.client_secret.is_none() && self.refresh_token.is_none() && self.refresh_token_file.is_none() {
            return wrong(
                "without a refresh token the client credentials are used, and those need a client secret",
            );
        }
        Ok(())
    }
}

impl SmartHostMore {
    /// `more` and `secrets` as they are kept.
    pub(crate) fn to_columns(&self) -> (String, String) {
        let text = |secret: &Option<Secret>| secret.as_ref().map(|s| s.expose().to_owned());
        let of = |oauth: &Option<HostOAuth>| oauth.as_ref().map(HostOAuth::secrets).unwrap_or_default();
        let OAuthSecrets { client_secret, refresh_token } = of(&self.oauth);
        let secrets = Secrets {
            logins: self.logins.iter().map(|login| text(&login.password)).collect(),
            client_secret,
            refresh_token,
            oauth: self.logins.iter().map(|login| of(&login.oauth)).collect(),
        };
        let json = |r: Result<String, serde_json::Error>| r.unwrap_or_else(|_| "{}".into());
        (json(serde_json::to_string(self)), json(serde_json::to_string(&secrets)))
    }

    pub(crate) fn from_columns(more: &str, secrets: &str) -> Result<Self, serde_json::Error> {
        let mut made: Self = serde_json::from_str(more)?;
        let secrets: Secrets = serde_json::from_str(secrets)?;
        for (login, password) in made.logins.iter_mut().zip(secrets.logins) {
            login.password = password.map(Secret::new);
        }
        for (login, secrets) in made.logins.iter_mut().zip(secrets.oauth) {
            if let Some(oauth) = &mut login.oauth {
                oauth.put(secrets);
            }
        }
        if let Some(oauth) = &mut made.oauth {
            oauth.put(OAuthSecrets {
                client_secret: secrets.client_secret,
                refresh_token: secrets.refresh_token,
            });
        }
        Ok(made)
    }

    /// Takes over the secrets that are not said anew, as long as they belong to the same login.
    pub(crate) fn keep_secrets(&mut self, before: &Self) {
        for login in &mut self.logins {
            let same = before.logins.iter().find(|b| b.username == login.username);
            match (&mut login.oauth, same.and_then(|b| b.oauth.as_ref())) {
                (Some(new), Some(old)) => new.keep_secrets(old),
                (Some(_), None) => {}
                (None, _) => {
                    let kept = same.and_then(|b| b.password.clone());
                    login.password = login.password.take().or(kept);
                }
            }
        }
        if let (Some(new), Some(old)) = (&mut self.oauth, &before.oauth) {
            new.keep_secrets(old);
        }
    }
}

impl SmartHost {
    /// Whether what it says can be, in words for whoever wrote it.
    ///
    /// # Errors
    /// What is wrong.
    pub(crate) fn check(&self) -> Result<(), DirectoryError> {
        let more = &self.more;
        let wrong = |text: &str| Err(DirectoryError::Invalid(text.into()));
        if !more.weights.is_empty() && more.weights.len() != self.hosts.len() {
            return wrong("either every host has a weight, or none has");
        }
        if more.weights.iter().any(|w| *w == 0 || *w > WEIGHT_MAX) {
            return Err(DirectoryError::Invalid(format!("a host's weight is 1 to {WEIGHT_MAX}")));
        }
        for login in &more.logins {
            if login.username.is_empty() || login.password.is_some() == login.oauth.is_some() {
                return wrong("a login has a username, and either a password or access tokens");
            }
            login.oauth.iter().try_for_each(HostOAuth::check)?;
        }
        if more.client_certificate.is_some() != more.client_key.is_some() {
            return wrong("a client certificate and its key go together");
        }
        let Some(oauth) = &more.oauth else {
            return if self.username.is_some() == self.password.is_some() {
                Ok(())
            } else {
                wrong("a login has a username and a password")
            };
        };
        if self.username.is_none() || self.password.is_some() {
            return wrong("a login by access token has a username, and no password");
        }
        oauth.check()
    }
}
