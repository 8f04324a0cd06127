//! One question to a token server, and what comes of it: an access token, perhaps a new refresh token, or a reason.

use std::sync::Arc;
use std::time::Duration;

use mail::Clock;
use serde::Deserialize;
use smtp::client::Login;
use smtp::sasl::Password;
use tokio::sync::OwnedMutexGuard;

use super::oauth::{Grant, OAuth, RefreshToken};
use super::refresh_file;
use super::token::{Asking, Slot, Token, TokenError};
use crate::https::{self, What};
use crate::settings::Settings;

/// How long a token is taken to be good where the server does not say.
const LIFE_UNSAID: Duration = Duration::from_secs(300);
/// A token is renewed this long before it expires, or a fifth of its life before, whichever is less.
const MARGIN_MAX: Duration = Duration::from_secs(300);
/// Pause after a question that brought no token; twice as long after each further one.
const PAUSE_FIRST: Duration = Duration::from_secs(10);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(300);
/// How much of an error description is repeated.
const WORDS_MAX: usize = 300;

/// A question that is about to be asked.
pub(super) struct Question {
    pub(super) clock: Clock,
    pub(super) slot: Arc<Slot>,
    pub(super) settings: Settings,
}

impl Question {
    /// Asks, and notes what came of it.
    pub(super) async fn see_through(
        self,
        mut asking: OwnedMutexGuard<Asking>,
        refresh: Result<Option<Password>, TokenError>,
    ) -> Result<Arc<Login>, TokenError> {
        let asked = match refresh {
            Ok(refresh) => self.exchange(&mut asking, refresh).await,
            Err(error) => Err(error),
        };
        let result = if asked.is_ok() { "ok" } else { "failed" };
        metrics::counter!("posthouse_oauth_refreshes_total", "result" => result).increment(1);
        let mut current = self.slot.current.lock();
        match &asked {
            Ok(token) => {
                let username = &self.slot.oauth.username;
                tracing::debug!(%username, until = %token.expires, "got an access token");
                (asking.failures, asking.not_before) = (0, None);
                (current.token, current.error) = (Some(token.clone()), None);
            }
            Err(error) => {
                tracing::warn!(%error, "there is no access token");
                let pause = PAUSE_FIRST.saturating_mul(1 << asking.failures.min(10)).min(PAUSE_MAX);
                asking.failures = asking.failures.saturating_add(1);
                asking.not_before = Some(self.clock.mono().plus(pause));
                current.error = Some(error.clone());
            }
        }
        asked.map(|token| token.login)
    }

    async fn exchange(&self, asking: &mut Asking, refresh: Option<Password>) -> Result<Token, TokenError> {
        let oauth = &self.slot.oauth;
        let (username, url) = (oauth.username.clone(), oauth.token_url.to_string());
        asking.shown.clone_from(&refresh);
        let asked_at = self.clock.mono();
        let what = What {
            kind: "application/x-www-form-urlencoded",
            body: oauth.form(refresh.as_ref()).into(),
            named: true,
        };
        let posted = https::post(&self.settings, &oauth.token_url, what).await;
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
            self.keep_rotated(asking, old, Password(new)).await;
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
    async fn keep_rotated(&self, asking: &mut Asking, old: Password, new: Password) {
        let slot = &self.slot;
        let username = &slot.oauth.username;
        // What stands in the file or the configuration, also when it was followed by others.
        let written = match asking.rotated.take() {
            Some((written, followed)) if followed == old => written,
            _ => old,
        };
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
}

/// The refresh token to show; none with client credentials.
pub(super) async fn refresh_token(slot: &Slot, asking: &Asking) -> Result<Option<Password>, TokenError> {
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
