//! Access tokens: asked for when they are needed, kept until shortly before they expire, one question at a time.

use std::sync::Arc;
use std::time::Duration;

use mail::{Clock, Mono, Timestamp};
use parking_lot::Mutex;
use serde::Deserialize;
use smtp::client::Login;
use smtp::sasl::Password;

use super::health::TokenHealth;
use super::oauth::{Grant, OAuth, RefreshToken};
use super::{LoginSource, refresh_file};
use crate::https::{self, What};
use crate::settings::Settings;

/// How long a token is taken to be good where the server does not say.
const LIFE_UNSAID: Duration = Duration::from_secs(300);
/// A token is renewed this long before it expires, or a fifth of its life before, whichever is less.
const MARGIN_MAX: Duration = Duration::from_secs(300);
/// After a refusal by the mail server a token is renewed at most once in this time: a mailbox that may not send at all
/// would else cost two tokens a message.
const RENEW_MIN: Duration = Duration::from_secs(60);
/// Pause after a question that brought no token; twice as long after each further one.
const PAUSE_FIRST: Duration = Duration::from_secs(10);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(300);
/// How much of an error description is repeated.
const WORDS_MAX: usize = 300;

/// Why there is no access token, named by whose doing it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// The network, the DNS or TLS.
    #[error("no access token for {username:?}: cannot reach {url}: {reason}")]
    Unreachable {
        /// Who would log in.
        username: String,
        /// The token endpoint.
        url: String,
        /// In words.
        reason: String,
    },
    /// The token server said no: what we showed is not right, or not any more.
    #[error("no access token for {username:?}: {url} refused: {reason}{hint}")]
    Refused {
        /// Who would log in.
        username: String,
        /// The token endpoint.
        url: String,
        /// Its error code and description.
        reason: String,
        /// What to do about it.
        hint: String,
    },
    /// The token server answers, but not as one.
    #[error("no access token for {username:?}: {url} gave no usable answer: {reason}")]
    Answer {
        /// Who would log in.
        username: String,
        /// The token endpoint.
        url: String,
        /// In words.
        reason: String,
    },
    /// The file of the refresh token.
    #[error("no access token for {username:?}: cannot read the refresh token from {path}: {reason}")]
    File {
        /// Who would log in.
        username: String,
        /// The file.
        path: String,
        /// In words.
        reason: String,
    },
}

impl TokenError {
    /// Whether somebody has to mend the configuration; else it may pass by itself.
    pub fn is_configuration(&self) -> bool {
        matches!(self, Self::Refused { .. } | Self::File { .. })
    }
}

/// The tokens of all logins.
#[derive(Debug)]
pub(super) struct TokenCache {
    clock: Clock,
    slots: Mutex<Vec<Arc<Slot>>>,
}

/// The token of one login.
#[derive(Debug)]
struct Slot {
    oauth: Arc<OAuth>,
    current: Mutex<Current>,
    /// Held while a question is out.
    asking: tokio::sync::Mutex<Asking>,
}

/// What everybody may look at.
#[derive(Debug, Default)]
struct Current {
    token: Option<Token>,
    error: Option<TokenError>,
    not_kept: Option<String>,
}

/// What whoever asks needs to know.
#[derive(Debug, Default)]
struct Asking {
    failures: u32,
    not_before: Option<Mono>,
    /// The refresh token that was shown last.
    shown: Option<Password>,
    /// The new refresh token where it could not be written in place of this one.
    rotated: Option<(Password, Password)>,
    renewed: Option<Mono>,
}

#[derive(Clone, Debug)]
struct Token {
    login: Arc<Login>,
    renew_at: Mono,
    expires_at: Mono,
    expires: Timestamp,
}

impl TokenCache {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, slots: Mutex::default() }
    }

    fn slot(&self, oauth: &Arc<OAuth>) -> Arc<Slot> {
        let mut slots = self.slots.lock();
        if let Some(slot) = slots.iter().find(|s| Arc::ptr_eq(&s.oauth, oauth) || s.oauth == *oauth) {
            return slot.clone();
        }
        let slot = Arc::new(Slot {
            oauth: oauth.clone(),
            current: Mutex::default(),
            asking: tokio::sync::Mutex::default(),
        });
        slots.push(slot.clone());
        slot
    }

    /// Forgets the tokens of logins that are not to be kept.
    pub(super) fn keep(&self, is_kept: impl Fn(&OAuth) -> bool) {
        self.slots.lock().retain(|slot| is_kept(&slot.oauth));
    }

    /// A token that is good now.
    pub(super) async fn get(
        &self,
        oauth: &Arc<OAuth>,
        settings: &Settings,
    ) -> Result<Arc<Login>, TokenError> {
        let slot = self.slot(oauth);
        let now = self.clock.mono();
        let at_hand = slot.current.lock().token.clone();
        match at_hand {
            Some(token) if now < token.renew_at => Ok(token.login),
            // It is still good: nobody waits, one of us asks for the next one.
            Some(token) if now < token.expires_at => match slot.asking.try_lock() {
                Ok(mut asking) => Ok(self.ask(&slot, &mut asking, settings).await.unwrap_or(token.login)),
                Err(_) => Ok(token.login),
            },
            _ => {
                let mut asking = slot.asking.lock().await;
                let meanwhile = slot.current.lock().token.clone();
                match meanwhile.filter(|token| self.clock.mono() < token.renew_at) {
                    Some(token) => Ok(token.login),
                    None => self.ask(&slot, &mut asking, settings).await,
                }
            }
        }
    }

    /// A token other than the one that was refused; none when that would not help.
    pub(super) async fn renew(
        &self,
        oauth: &Arc<OAuth>,
        refused: &Login,
        settings: &Settings,
    ) -> Result<Option<Arc<Login>>, TokenError> {
        let slot = self.slot(oauth);
        let mut asking = slot.asking.lock().await;
        let at_hand = slot.current.lock().token.clone();
        if let Some(token) = at_hand.filter(|t| t.login.secret != refused.secret) {
            return Ok(Some(token.login));
        }
        let now = self.clock.mono();
        if asking.renewed.is_some_and(|at| now.since(at) < RENEW_MIN) {
            return Ok(None);
        }
        asking.renewed = Some(now);
        slot.current.lock().token = None;
        self.ask(&slot, &mut asking, settings).await.map(Some)
    }

    /// Asks the token server, unless it was asked in vain a moment ago.
    async fn ask(
        &self,
        slot: &Slot,
        asking: &mut Asking,
        settings: &Settings,
    ) -> Result<Arc<Login>, TokenError> {
        let refresh = self.refresh_token(slot, asking).await;
        let now = self.clock.mono();
        let is_other = refresh.as_ref().is_ok_and(|token| *token != asking.shown);
        let last = slot.current.lock().error.clone();
        if let Some(error) = last
            && asking.not_before.is_some_and(|until| now < until)
            && !is_other
        {
            return Err(error);
        }
        let asked = match refresh {
            Ok(refresh) => self.exchange(slot, asking, refresh, settings).await,
            Err(error) => Err(error),
        };
        let result = if asked.is_ok() { "ok" } else { "failed" };
        metrics::counter!("posthouse_oauth_refreshes_total", "result" => result).increment(1);
        match &asked {
            Ok(token) => {
                tracing::debug!(username = %slot.oauth.username, until = %token.expires, "got an access token");
                (asking.failures, asking.not_before) = (0, None);
                let mut current = slot.current.lock();
                (current.token, current.error) = (Some(token.clone()), None);
            }
            Err(error) => {
                tracing::warn!(%error, "there is no access token");
                let pause = PAUSE_FIRST.saturating_mul(1 << asking.failures.min(10)).min(PAUSE_MAX);
                asking.failures = asking.failures.saturating_add(1);
                asking.not_before = Some(self.clock.mono().plus(pause));
                slot.current.lock().error = Some(error.clone());
            }
        }
        asked.map(|token| token.login)
    }

    /// The refresh token to show; none with client credentials.
    async fn refresh_token(&self, slot: &Slot, asking: &Asking) -> Result<Option<Password>, TokenError> {
        let written = match &slot.oauth.grant {
            Grant::ClientCredentials => return Ok(None),
            Grant::RefreshToken(RefreshToken::Text(token)) => token.clone(),
            Grant::RefreshToken(RefreshToken::File(path)) => {
                refresh_file::read(path).await.map_err(|error| TokenError::File {
                    username: slot.oauth.username.clone(),
                    path: path.display().to_string(),
                    reason: error.to_string(),
                })?
            }
        };
        // A new one that could not be written counts for as long as nobody has written another.
        Ok(Some(match &asking.rotated {
            Some((old, new)) if *old == written => new.clone(),
            _ => written,
        }))
    }

    async fn exchange(
        &self,
        slot: &Slot,
        asking: &mut Asking,
        refresh: Option<Password>,
        settings: &Settings,
    ) -> Result<Token, TokenError> {
        let oauth = &slot.oauth;
        let (username, url) = (oauth.username.clone(), oauth.token_url.to_string());
        asking.shown.clone_from(&refresh);
        let asked_at = self.clock.mono();
        let what = What {
            kind: "application/x-www-form-urlencoded",
            body: oauth.form(refresh.as_ref()).into(),
            named: true,
        };
        let posted = https::post(settings, &oauth.token_url, what).await;
        let (status, body) = posted.map_err(|reason| TokenError::Unreachable {
            username: username.clone(),
            url: url.clone(),
            reason,
        })?;
        let answer = understand(status, &body).map_err(|wrong| match wrong {
            Wrong::Refused { code, text } => {
                let hint = hint(&code, oauth);
                TokenError::Refused { username: username.clone(), url: url.clone(), reason: text, hint }
            }
            Wrong::Answer(reason) => {
                TokenError::Answer { username: username.clone(), url: url.clone(), reason }
            }
        })?;
        if let (Some(old), Some(new)) = (refresh, answer.refresh_token)
            && old.0 != new
        {
            self.keep_rotated(slot, asking, old, Password(new)).await;
        }
        let secret = Password(answer.access_token);
        let login = Arc::new(Login { username, secret, is_token: true, in_the_clear: false });
        let margin = (answer.life / 5).min(MARGIN_MAX);
        Ok(Token {
            login,
            renew_at: asked_at.plus(answer.life - margin),
            expires_at: asked_at.plus(answer.life),
            expires: self.clock.now().plus(answer.life),
        })
    }

    /// The provider has handed out a new refresh token; the old one may be worth nothing from now on.
    async fn keep_rotated(&self, slot: &Slot, asking: &mut Asking, old: Password, new: Password) {
        let username = &slot.oauth.username;
        // What stands in the file or the configuration, also when it was followed by others.
        let written = asking.rotated.take().map_or(old, |(written, _)| written);
        let not_kept = match &slot.oauth.grant {
            Grant::RefreshToken(RefreshToken::File(path)) => match refresh_file::replace(path, &new).await {
                Ok(()) => None,
                Err(error) => {
                    Some(format!("cannot write the new refresh token to {}: {error}", path.display()))
                }
            },
            _ => Some(
                "the provider hands out new refresh tokens: put it in a file (refresh_token_file)".into(),
            ),
        };
        match &not_kept {
            None => {
                tracing::info!(%username, "the provider has handed out a new refresh token; it is in its file")
            }
            Some(why) => {
                tracing::error!(%username, "{why}; until a restart it is known here, afterwards it is lost");
                asking.rotated = Some((written, new));
            }
        }
        slot.current.lock().not_kept = not_kept;
    }

    pub(super) fn health<'a>(&self, logins: impl Iterator<Item = &'a LoginSource>) -> Vec<TokenHealth> {
        let now = self.clock.mono();
        let mut all: Vec<TokenHealth> = Vec::new();
        for login in logins {
            let LoginSource::OAuth(oauth) = login else { continue };
            let slot = self.slot(oauth);
            let current = slot.current.lock();
            let good = current.token.as_ref().filter(|token| now < token.expires_at);
            let view = TokenHealth {
                username: oauth.username.clone(),
                token_url: oauth.token_url.to_string(),
                valid_until: good.map(|token| token.expires),
                error: current.error.as_ref().map(ToString::to_string),
                not_kept: current.not_kept.clone(),
            };
            if !all.contains(&view) {
                all.push(view);
            }
        }
        all
    }
}

/// What a token server answers (RFC 6749 sections 5.1 and 5.2).
#[derive(Deserialize)]
struct Wire {
    access_token: Option<String>,
    token_type: Option<String>,
    expires_in: Option<serde_json::Value>,
    refresh_token: Option<String>,
    error: Option<String>,
    error_description: Option<String>,
}

struct Answer {
    access_token: String,
    life: Duration,
    refresh_token: Option<String>,
}

enum Wrong {
    Refused { code: String, text: String },
    Answer(String),
}

fn understand(status: u16, body: &[u8]) -> Result<Answer, Wrong> {
    let wire: Wire = serde_json::from_slice(body)
        .map_err(|_| Wrong::Answer(format!("HTTP status {status}, and no JSON object in the answer")))?;
    if let Some(code) = wire.error {
        let mut text = words(&code);
        if let Some(description) = wire.error_description {
            text = format!("{text}: {}", words(&description));
        }
        return Err(if status >= 500 {
            Wrong::Answer(format!("HTTP status {status}, {text}"))
        } else {
            Wrong::Refused { code, text }
        });
    }
    let access_token = wire.access_token.filter(|_| status == 200);
    let access_token = access_token
        .ok_or_else(|| Wrong::Answer(format!("HTTP status {status}, and no access token in the answer")))?;
    if access_token.is_empty() || !access_token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(Wrong::Answer("the access token has characters that no token has".into()));
    }
    if wire.token_type.as_ref().is_some_and(|kind| !kind.eq_ignore_ascii_case("bearer")) {
        return Err(Wrong::Answer("the access token is no bearer token".into()));
    }
    // A number, and with some servers a number in quotes.
    let seconds = wire.expires_in.and_then(|value| match value {
        serde_json::Value::String(text) => text.parse().ok(),
        other => other.as_u64(),
    });
    let life = seconds.map_or(LIFE_UNSAID, Duration::from_secs);
    Ok(Answer { access_token, life, refresh_token: wire.refresh_token.filter(|t| !t.is_empty()) })
}

/// A foreign text for logs and replies: one line, not too long.
fn words(text: &str) -> String {
    let clean = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    clean.take(WORDS_MAX).collect::<String>().split_whitespace().collect::<Vec<_>>().join(" ")
}

/// What to do about an error code of RFC 6749 section 5.2.
fn hint(code: &str, oauth: &OAuth) -> String {
    let advice = match (code, &oauth.grant) {
        ("invalid_grant", Grant::RefreshToken(_)) => {
            "the refresh token has expired or was withdrawn: sign in again and store the new one"
        }
        ("invalid_client", _) => "the client id or the client secret is wrong, or the secret has expired",
        ("unauthorized_client", Grant::ClientCredentials) => {
            "the application may not use client credentials: an administrator has to allow it"
        }
        ("invalid_scope", _) => "the scope is not one that this provider gives to this application",
        _ => return String::new(),
    };
    format!(" ({advice})")
}
