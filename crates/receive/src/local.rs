//! A message from a program on this machine that speaks no SMTP (`posthouse sendmail`): the same intake as a session's.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use mail::{EnhancedStatus, OrgId, Protocol, Reply};
use smtp::server::Envelope;

use crate::backend::{Backend, Client, Submission};
use crate::intake::Intake;
use crate::policy::{BareNewline, ListenerConfig, Mode, Policy};

/// A message that is coming in. Its header is completed and `Bcc` removed, as on a submission listener.
pub struct LocalMessage {
    intake: Intake,
    policy: Arc<Policy>,
    client: Client,
    envelope: Envelope,
    scratch: Vec<u8>,
    octets: u64,
}

impl LocalMessage {
    /// Begins a message.
    ///
    /// # Errors
    /// The reply, when there is no room.
    pub async fn begin<B: Backend>(backend: &B, envelope: Envelope) -> Result<Self, Reply> {
        let policy = backend.policy();
        let client = this_machine();
        let intake = Intake::begin(backend, &policy, &client, true, &envelope).await?;
        Ok(Self { intake, policy, client, envelope, scratch: Vec::new(), octets: 0 })
    }

    /// Takes a piece of content; lines end in CRLF.
    ///
    /// # Errors
    /// The reply; the message is to be abandoned.
    pub async fn write(&mut self, piece: &[u8]) -> Result<(), Reply> {
        self.octets += piece.len() as u64;
        if self.octets > self.policy.limits.message_size {
            let text = format!("The message is larger than {} octets", self.policy.limits.message_size);
            return Err(Reply::new(552, EnhancedStatus::new(5, 3, 4), text));
        }
        self.intake.write(piece, &mut self.scratch, &self.policy.limits).await
    }

    /// The content is complete.
    ///
    /// # Errors
    /// The reply, when it cannot be stored.
    pub async fn finish<B: Backend>(self, backend: &B, org: OrgId) -> Result<Submission, Reply> {
        let mut submission = self.intake.finish(backend, &self.client, org, self.envelope).await?;
        submission.message.origin.protocol = Protocol::Sendmail;
        submission.message.origin.listener = None;
        Ok(submission)
    }
}

fn this_machine() -> Client {
    let listener = ListenerConfig {
        name: "sendmail".into(),
        mode: Mode::Submission,
        auth: false,
        auth_without_tls: Vec::new(),
        bare_newline: BareNewline::Refuse,
        proxy_protocol: Vec::new(),
        xclient: Vec::new(),
    };
    Client {
        listener: Arc::new(listener),
        peer: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        helo: Some("localhost".into()),
        tls: None,
        identity: None,
    }
}
