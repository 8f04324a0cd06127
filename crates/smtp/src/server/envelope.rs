//! A mail transaction: the envelope, and what is known of the content that is coming in.

use mail::{Body, Recipient, Reply, Ret, ReversePath};

use crate::grammar::Mail;
use crate::stuffing::decode::Decoder;

/// An envelope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// The sender.
    pub reverse_path: ReversePath,
    /// Recipients that were accepted.
    pub recipients: Vec<Recipient>,
    /// SIZE as declared.
    pub size: Option<u64>,
    /// BODY as declared.
    pub body: Option<Body>,
    /// Whether SMTPUTF8 was given.
    pub smtputf8: bool,
    /// RET
    pub ret: Option<Ret>,
    /// ENVID as given, xtext.
    pub envid: Option<String>,
    /// Whether REQUIRETLS was given (RFC 8689).
    pub require_tls: bool,
}

impl From<Mail> for Envelope {
    fn from(mail: Mail) -> Self {
        Self {
            reverse_path: mail.reverse_path,
            recipients: Vec::new(),
            size: mail.size,
            body: mail.body,
            smtputf8: mail.smtputf8,
            ret: mail.ret,
            envid: mail.envid,
            require_tls: mail.require_tls,
        }
    }
}

/// A transaction.
#[derive(Debug)]
pub(super) struct Transaction {
    pub(super) envelope: Envelope,
    /// RCPT commands that were refused.
    pub(super) refused: u32,
    /// Content, once BDAT began.
    pub(super) chunks: Option<Content>,
}

impl Transaction {
    pub(super) fn new(envelope: Envelope) -> Self {
        Self { envelope, refused: 0, chunks: None }
    }
}

/// Content that is coming in.
#[derive(Debug)]
pub(super) struct Content {
    pub(super) decoder: Decoder,
    /// Octets handed out or thrown away.
    pub(super) octets: u64,
    /// Why it will be refused; what still comes is thrown away.
    pub(super) refused: Option<Reply>,
    /// Whether the driver knows that it is refused.
    pub(super) told: bool,
}

impl Content {
    pub(super) fn new(decoder: Decoder) -> Self {
        Self { decoder, octets: 0, refused: None, told: false }
    }

    pub(super) fn refuse(&mut self, reply: Reply) {
        self.refused.get_or_insert(reply);
    }

    /// Content that is consumed and never looked at.
    pub(super) fn thrown_away(reply: Reply) -> Self {
        Self { refused: Some(reply), told: true, ..Self::new(Decoder::bdat(false)) }
    }
}
