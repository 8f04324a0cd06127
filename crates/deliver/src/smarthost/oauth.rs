//! A login by access token: where the token comes from (RFC 6749).

use std::path::PathBuf;

use smtp::sasl::Password;

use crate::https::{HttpsUrl, HttpsUrlError};

/// Where access tokens for a login come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OAuth {
    /// The mailbox that we log in as.
    pub username: String,
    /// The token endpoint; `https://…`.
    pub token_url: HttpsUrl,
    /// The id of this application as the provider knows it.
    pub client_id: String,
    /// Its secret; none for a public client.
    pub client_secret: Option<Password>,
    /// What we show to get a token.
    pub grant: Grant,
    /// What the token is to be good for; empty: what the grant was for.
    pub scope: String,
}

/// What is shown to get an access token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Grant {
    /// A refresh token (RFC 6749 section 6) that somebody got by signing in. The provider may hand out a new one at each
    /// use; it then takes the place of the old one in the file.
    RefreshToken(RefreshToken),
    /// The application's own id and secret (RFC 6749 section 4.4), for providers where an administrator allows an
    /// application to send as others.
    ClientCredentials,
}

/// A refresh token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RefreshToken {
    /// In a file that we keep up to date.
    File(PathBuf),
    /// In the configuration itself; a new one is kept in memory alone.
    Text(Password),
}

/// What is wrong with the settings of an OAuth login.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OAuthError {
    /// The token URL.
    #[error("the token URL: {0}")]
    Url(#[from] HttpsUrlError),
    /// Nothing that could be shown for a token.
    #[error("without a refresh token the client credentials are used, and those need a client secret")]
    NoGrant,
    /// Nobody to log in as.
    #[error("the mailbox to log in as is missing")]
    NoUser,
}

impl OAuth {
    /// A login by access token. With a refresh token that is what is shown for it, without one the client credentials.
    ///
    /// # Errors
    /// [`OAuthError`] says what is missing or wrong.
    pub fn new(
        username: impl Into<String>,
        token_url: &str,
        client_id: impl Into<String>,
        client_secret: Option<String>,
        refresh_token: Option<RefreshToken>,
        scope: impl Into<String>,
    ) -> Result<Self, OAuthError> {
        let username = username.into();
        if username.is_empty() {
            return Err(OAuthError::NoUser);
        }
        let grant = match refresh_token {
            Some(token) => Grant::RefreshToken(token),
            None if client_secret.is_some() => Grant::ClientCredentials,
            None => return Err(OAuthError::NoGrant),
        };
        Ok(Self {
            username,
            token_url: token_url.parse()?,
            client_id: client_id.into(),
            client_secret: client_secret.map(Password),
            grant,
            scope: scope.into(),
        })
    }

    /// The form that is sent to the token endpoint (RFC 6749 sections 4.4.2 and 6, with the client's secret as section
    /// 2.3.1 has it in the body, which is what Microsoft and Google document).
    pub(super) fn form(&self, refresh_token: Option<&Password>) -> String {
        let mut form = Form::default();
        match refresh_token {
            Some(token) => {
                form.add("grant_type", "refresh_token");
                form.add("refresh_token", &token.0);
            }
            None => form.add("grant_type", "client_credentials"),
        }
        form.add("client_id", &self.client_id);
        if let Some(secret) = &self.client_secret {
            form.add("client_secret", &secret.0);
        }
        if !self.scope.is_empty() {
            form.add("scope", &self.scope);
        }
        form.0
    }
}

/// `application/x-www-form-urlencoded`.
#[derive(Default)]
struct Form(String);

impl Form {
    fn add(&mut self, name: &str, value: &str) {
        if !self.0.is_empty() {
            self.0.push('&');
        }
        self.0.push_str(name);
        self.0.push('=');
        for byte in value.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'*' => {
                    self.0.push(char::from(byte));
                }
                b' ' => self.0.push('+'),
                other => {
                    const HEX: &[u8; 16] = b"0123456789ABCDEF";
                    self.0.push('%');
                    self.0.push(char::from(HEX[usize::from(other >> 4)]));
                    self.0.push(char::from(HEX[usize::from(other & 15)]));
                }
            }
        }
    }
}
