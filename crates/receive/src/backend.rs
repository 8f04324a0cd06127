//! The seam to the rest of the relay: what a session asks that it cannot decide itself. Implemented in `relay`.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use mail::{Clock, Message, MessageId, OrgId, Recipient, Reply, ReversePath, Stream, TlsInfo};
use smtp::sasl::{Password, ScramVerifier};
use std::time::Duration;

use crate::limits::Connections;
use crate::policy::{ListenerConfig, Policy};

/// Who authenticated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The organisation whose mail it is.
    pub org: OrgId,
    /// The login, as the directory writes it.
    pub login: Arc<str>,
    /// What kind of mail it sends.
    pub stream: Stream,
}

/// A login and a password to check, whatever the mechanism.
#[derive(Debug)]
pub struct AuthAsk {
    /// Who it says it is.
    pub login: String,
    /// With which password.
    pub password: Password,
}

/// What became of an attempt to log in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthAnswer {
    /// It is.
    Ok(Identity),
    /// Unknown login or wrong password; never said which.
    Failed,
    /// Too many failures: not before this time has passed.
    TryLater(Duration),
    /// We cannot tell now.
    Unavailable,
    /// The password is right, and still no; only who knows it reads why.
    Refused(Reply),
}

/// The client of a session, as far as it is known.
#[derive(Clone, Debug)]
pub struct Client {
    /// The listener it came by, and its rules.
    pub listener: Arc<ListenerConfig>,
    /// Its address and port, as PROXY or XCLIENT told where they are believed.
    pub peer: SocketAddr,
    /// The name in EHLO or HELO.
    pub helo: Option<String>,
    /// How the connection is protected.
    pub tls: Option<TlsInfo>,
    /// Who it authenticated as.
    pub identity: Option<Identity>,
}

impl Client {
    pub(crate) fn is_called(&mut self, helo: &str) {
        if self.helo.as_deref() != Some(helo) {
            self.helo = Some(helo.to_owned());
        }
    }
}

/// May this sender be used by this client?
#[derive(Clone, Copy, Debug)]
pub struct MailAsk<'a> {
    /// The client.
    pub client: &'a Client,
    /// The envelope's sender.
    pub reverse_path: &'a ReversePath,
}

/// May this client send to this recipient?
#[derive(Clone, Copy, Debug)]
pub struct RcptAsk<'a> {
    /// The client.
    pub client: &'a Client,
    /// What [`Backend::mail`] said whose mail it is.
    pub org: OrgId,
    /// The envelope's sender.
    pub reverse_path: &'a ReversePath,
    /// The recipient.
    pub recipient: &'a Recipient,
}

/// A complete message that waits to be admitted.
#[derive(Debug)]
pub struct Submission {
    /// The message.
    pub message: Message,
    /// Its recipients, at least one.
    pub recipients: Vec<Recipient>,
    /// Its content.
    pub content: store::Sealed,
}

/// What a session asks of the relay.
pub trait Backend: Clone + Send + Sync + 'static {
    /// The current configuration. A session keeps what it began with.
    fn policy(&self) -> Arc<Policy>;

    /// The clock.
    fn clock(&self) -> &Clock;

    /// The connections of all listeners, counted.
    fn connections(&self) -> &Connections;

    /// A new message id.
    fn next_id(&self) -> MessageId;

    /// Where the content of a new message goes.
    fn sink(&self, id: MessageId) -> store::Sink;

    /// Whether there is room for a message of this size (0: not known yet).
    ///
    /// # Errors
    /// The reply, 452, when there is none.
    fn room(&self, size: u64) -> Result<(), Reply>;

    /// Checks a password.
    fn authenticate(&self, ask: AuthAsk, peer: IpAddr) -> impl Future<Output = AuthAnswer> + Send;

    /// The SCRAM verifier of this login; none when there is no such login or it has none. The session then goes on
    /// with a decoy.
    fn scram(&self, login: &str, peer: IpAddr) -> impl Future<Output = Option<ScramVerifier>> + Send;

    /// A SCRAM exchange is over; `proven` is whether the client knows the password. Counts for the back-off. With
    /// `proven` false the answer is never [`AuthAnswer::Ok`].
    fn scram_done(&self, login: &str, peer: IpAddr, proven: bool) -> impl Future<Output = AuthAnswer> + Send;

    /// Whether this sender may be used here, and whose mail it is then.
    ///
    /// # Errors
    /// The refusal as it is said to the client.
    fn mail(&self, ask: MailAsk<'_>) -> impl Future<Output = Result<OrgId, Reply>> + Send;

    /// Whether this client may send to this recipient.
    ///
    /// # Errors
    /// The refusal as it is said to the client.
    fn rcpt(&self, ask: RcptAsk<'_>) -> impl Future<Output = Result<(), Reply>> + Send;

    /// Takes responsibility: when this is `Ok`, the message is on stable storage.
    ///
    /// # Errors
    /// The refusal as it is said to the client.
    fn admit(&self, submission: Submission) -> impl Future<Output = Result<MessageId, Reply>> + Send;
}
