//! A message on its way in: from the session, through the header filter, into the store's sink.

use mail::{Body, EnhancedStatus, Message, MessageId, OrgId, Origin, Protocol, Reply, Stream};
use smtp::server::Envelope;
use store::{Sink, StoreError};
use tracing::error;

use crate::backend::{Backend, Client, Submission};
use crate::header::{Additions, HeaderFault, HeaderFilter};
use crate::policy::{Limits, Policy};
use crate::received;

/// Content that is coming in.
pub(crate) struct Intake {
    id: MessageId,
    sink: Sink,
    header: HeaderFilter,
    submission: bool,
    /// Octets over 127 anywhere.
    eight_bit: bool,
}

impl Intake {
    /// Opens a sink and writes the Received field.
    ///
    /// # Errors
    /// The reply, when there is no room.
    pub(crate) async fn begin<B: Backend>(
        backend: &B,
        policy: &Policy,
        client: &Client,
        esmtp: bool,
        envelope: &Envelope,
    ) -> Result<Self, Reply> {
        backend.room(envelope.size.unwrap_or(0))?;
        let id = backend.next_id();
        let now = backend.clock().now();
        let submission = client.listener.mode.is_submission();
        let additions = submission
            .then(|| Additions { date: now.rfc5322(), message_id: format!("{id}@{}", policy.hostname) });
        let mut sink = backend.sink(id);
        let field = received::field(client, esmtp, envelope, &policy.hostname, id, now);
        sink.write(field.as_bytes()).await.map_err(|e| disk_reply(&e))?;
        Ok(Self { id, sink, header: HeaderFilter::new(additions), submission, eight_bit: false })
    }

    /// Takes a piece of content. `scratch` is for the header section of a submission.
    ///
    /// # Errors
    /// The reply; the content is to be abandoned.
    pub(crate) async fn write(
        &mut self,
        piece: &[u8],
        scratch: &mut Vec<u8>,
        limits: &Limits,
    ) -> Result<(), Reply> {
        self.eight_bit |= !piece.is_ascii();
        let mut body = piece;
        if !self.header.is_over() {
            scratch.clear();
            let used = self.header.push(piece, scratch, limits).map_err(header_reply)?;
            if self.submission {
                self.sink.write(scratch).await.map_err(|e| disk_reply(&e))?;
                body = &piece[used..];
            }
        }
        if body.is_empty() {
            return Ok(());
        }
        self.sink.write(body).await.map_err(|e| disk_reply(&e))
    }

    /// The content is complete: seals it and describes the message.
    ///
    /// # Errors
    /// The reply, when it cannot be stored.
    pub(crate) async fn finish<B: Backend>(
        mut self,
        backend: &B,
        client: &Client,
        org: OrgId,
        envelope: Envelope,
    ) -> Result<Submission, Reply> {
        let mut rest = Vec::new();
        self.header.finish(&mut rest);
        if self.submission && !rest.is_empty() {
            self.sink.write(&rest).await.map_err(|e| disk_reply(&e))?;
        }
        let size = self.sink.len();
        let eight_bit = self.eight_bit || envelope.body == Some(Body::EightBitMime);
        let utf8_envelope =
            envelope.reverse_path.iter().chain(envelope.recipients.iter().map(|r| &r.address));
        // Without SMTPUTF8 raw octets in a header are only raw octets, as they always were.
        let smtputf8 = envelope.smtputf8
            && (self.header.non_ascii() || utf8_envelope.into_iter().any(|address| !address.is_ascii()));
        let message = Message {
            id: self.id,
            org,
            stream: client.identity.as_ref().map_or(Stream::Transactional, |i| i.stream),
            received_at: backend.clock().now(),
            body: if eight_bit { Body::EightBitMime } else { Body::SevenBit },
            smtputf8,
            size,
            header_message_id: self.header.message_id(),
            origin: origin(client),
            reverse_path: envelope.reverse_path,
            ret: envelope.ret,
            // REQUIRETLS counts for more (RFC 8689 section 4.1).
            tls_optional: !envelope.require_tls && self.header.tls_optional(),
            require_tls: envelope.require_tls,
            envid: envelope.envid,
        };
        let content = self.sink.finish().await.map_err(|e| disk_reply(&e))?;
        Ok(Submission { message, recipients: envelope.recipients, content })
    }
}

fn origin(client: &Client) -> Origin {
    let protocol = if client.listener.mode.is_submission() { Protocol::Submission } else { Protocol::Smtp };
    Origin {
        protocol,
        client: Some(client.peer.ip()),
        helo: client.helo.clone(),
        credential: client.identity.as_ref().map(|i| i.login.to_string()),
        tls: client.tls.clone(),
        listener: Some(client.listener.name.to_string()),
    }
}

fn header_reply(fault: HeaderFault) -> Reply {
    match fault {
        HeaderFault::Loop => Reply::new(
            554,
            EnhancedStatus::new(5, 4, 6),
            "The message has passed too many servers already; it goes round in circles",
        ),
        HeaderFault::TooBig => {
            Reply::new(552, EnhancedStatus::new(5, 3, 4), "The header of the message is too big")
        }
        HeaderFault::TooMany => {
            Reply::new(554, EnhancedStatus::new(5, 6, 0), "The header of the message has too many fields")
        }
    }
}

/// What a failure of the store is for the client: try again.
fn disk_reply(failure: &StoreError) -> Reply {
    match failure {
        StoreError::NoSpace => Reply::new(
            452,
            EnhancedStatus::new(4, 3, 1),
            "There is no room for mail right now; try again later",
        ),
        other => {
            error!(error = %other, "a message could not be stored");
            Reply::new(451, EnhancedStatus::new(4, 3, 0), "The message could not be stored; try again later")
        }
    }
}
