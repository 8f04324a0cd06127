//! Access tokens: asked for when they are needed, kept until shortly before they expire, one question at a time.

use std::sync::Arc;
use std::time::Duration;

use mail::{Clock, Mono, Timestamp};
use parking_lot::Mutex;
use smtp::client::Login;
use smtp::sasl::Password;
use tokio::sync::OwnedMutexGuard;

use super::LoginSource;
use super::ask::{self, Question};
use super::health::TokenHealth;
use super::oauth::OAuth;
use crate::settings::Settings;

/// After a refusal by the mail server a token is renewed at most once in this time: a mailbox that may not send at all
/// would else cost two tokens a message.
const RENEW_MIN: Duration = Duration::from_secs(60);
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
pub(super) struct Slot {
    pub(super) oauth: Arc<OAuth>,
    pub(super) current: Mutex<Current>,
    /// Held while a question is out.
    asking: Arc<tokio::sync::Mutex<Asking>>,
}

/// What everybody may look at.
#[derive(Debug, Default)]
pub(super) struct Current {
    pub(super) token: Option<Token>,
    pub(super) error: Option<TokenError>,
    pub(super) not_kept: Option<String>,
}

/// What whoever asks needs to know.
#[derive(Debug, Default)]
pub(super) struct Asking {
    pub(super) failures: u32,
    pub(super) not_before: Option<Mono>,
    /// The refresh token that was shown last.
    pub(super) shown: Option<Password>,
    /// The new refresh token where it could not be written in place of this one.
    pub(super) rotated: Option<(Password, Password)>,
    renewed: Option<Mono>,
}

#[derive(Clone, Debug)]
pub(super) struct Token {
    pub(super) login: Arc<Login>,
    pub(super) renew_at: Mono,
    pub(super) expires_at: Mono,
    pub(super) expires: Timestamp,
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
        let slot = Arc::new(Slot { oauth: oauth.clone(), current: Mutex::default(), asking: Arc::default() });
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
            Some(token) if now < token.expires_at => match slot.asking.clone().try_lock_owned() {
                Ok(asking) => Ok(self.ask(slot, asking, settings).await.unwrap_or(token.login)),
                Err(_) => Ok(token.login),
            },
            _ => {
                let asking = slot.asking.clone().lock_owned().await;
                let meanwhile = slot.current.lock().token.clone();
                match meanwhile.filter(|token| self.clock.mono() < token.renew_at) {
                    Some(token) => Ok(token.login),
                    None => self.ask(slot, asking, settings).await,
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
        let mut asking = slot.asking.clone().lock_owned().await;
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
        self.ask(slot, asking, settings).await.map(Some)
    }

    /// Asks the token server, unless it was asked in vain a moment ago. Whoever waits may go away: the question is seen
    /// through to its end all the same, as the answer may hold the only refresh token that is still good.
    async fn ask(
        &self,
        slot: Arc<Slot>,
        asking: OwnedMutexGuard<Asking>,
        settings: &Settings,
    ) -> Result<Arc<Login>, TokenError> {
        let refresh = ask::refresh_token(&slot, &asking).await;
        let is_other = refresh.as_ref().is_ok_and(|token| *token != asking.shown);
        let last = slot.current.lock().error.clone();
        if let Some(error) = last
            && asking.not_before.is_some_and(|until| self.clock.mono() < until)
            && !is_other
        {
            return Err(error);
        }
        let bug = |reason: String| TokenError::Answer {
            username: slot.oauth.username.clone(),
            url: slot.oauth.token_url.to_string(),
            reason,
        };
        let question = Question { clock: self.clock.clone(), slot: slot.clone(), settings: settings.clone() };
        let asked = tokio::spawn(question.see_through(asking, refresh)).await;
        asked.unwrap_or_else(|error| Err(bug(error.to_string())))
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
