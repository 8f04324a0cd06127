//! What keeps a connection from being made, named by whose doing it is, and the outcome that it means.

use mail::{Disposition, EnhancedStatus, Outcome};
use net::{NetError, ResolveError};
use smtp::client::{Lost, OpenFailure, Wait};

use crate::smarthost::TokenError;

/// Why there is no session with a host.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    /// The DNS has no answer that leads anywhere.
    #[error("{0}")]
    Dns(#[from] ResolveError),
    /// The network.
    #[error("{0}")]
    Net(#[from] NetError),
    /// The TLS handshake.
    #[error("no TLS with {host}: {source}")]
    Handshake {
        /// The host.
        host: String,
        /// What went wrong.
        source: NetError,
    },
    /// The socket of an LMTP server on this machine.
    #[error("cannot connect to {path}: {source}")]
    Socket {
        /// Its path.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The peer, in the greeting or what follows.
    #[error("{0}")]
    Open(#[from] OpenFailure),
    /// The connection got lost before there was a session.
    #[error("{0}")]
    Lost(String),
    /// The source has no address of the kind that the host has.
    #[error("{0}")]
    Family(String),
    /// There is no access token to log in with.
    #[error("{0}")]
    Token(#[from] TokenError),
    /// The host lacks what the domain's policy or the message asks for.
    #[error("{}", .0.text)]
    Unmet(Outcome),
    /// The operator named no host, or a smart host that does not exist.
    #[error("{0}")]
    Configuration(String),
    /// We are the best mail exchanger ourselves.
    #[error(
        "the mail exchanger for {0} is this relay itself: if the domain is local, it needs a route to its mailboxes"
    )]
    Ourselves(String),
}

impl ConnectError {
    /// The connection got lost while we waited for this.
    pub(crate) fn lost(lost: &Lost, wait: Wait) -> Self {
        let waited = wait.words();
        Self::Lost(match lost {
            Lost::Closed => format!("the peer closed the connection while we waited for {waited}"),
            Lost::TimedOut(after) => {
                format!("the peer was silent for {} s: no {waited}", after.as_secs_f32())
            }
            Lost::Broken(error) => format!("the connection broke while we waited for {waited}: {error}"),
            Lost::Fault(fault) => format!("{fault}, while we waited for {waited}"),
        })
    }

    /// What it means for the recipients. `named`: the hosts were named by the operator, so whatever is wrong with them
    /// can be mended, and no mail is sent back for it.
    pub(crate) fn outcome(&self, named: bool) -> Outcome {
        let (mut disposition, (subject, detail), code) = self.judge();
        // What the sender asked for and cannot have, he is told at once.
        if named && !matches!(self, Self::Unmet(_)) {
            disposition = Disposition::Deferred;
        }
        let class = if disposition == Disposition::Refused { 5 } else { 4 };
        let status = EnhancedStatus::new(class, subject, detail);
        Outcome { disposition, status, code, text: self.to_string() }
    }

    fn judge(&self) -> (Disposition, (u16, u16), Option<u16>) {
        use Disposition::{Deferred, Refused};
        match self {
            Self::Dns(ResolveError::NoSuchDomain(_)) => (Refused, (1, 2), None),
            Self::Dns(ResolveError::NoMail(_)) => (Refused, (1, 10), None),
            Self::Dns(ResolveError::NoAddress(_)) => (Refused, (4, 4), None),
            Self::Dns(_) => (Deferred, (4, 3), None),
            Self::Family(_) => (Deferred, (4, 4), None),
            Self::Token(_) => (Deferred, (7, 0), None),
            Self::Unmet(outcome) => {
                (outcome.disposition, (outcome.status.subject, outcome.status.detail), outcome.code)
            }
            Self::Net(NetError::PrivateTarget(_)) => (Refused, (4, 4), None),
            Self::Handshake { .. } => (Deferred, (7, 5), None),
            Self::Net(NetError::Configuration(_)) | Self::Configuration(_) => (Deferred, (3, 5), None),
            Self::Net(NetError::Bug(_)) => (Deferred, (3, 0), None),
            Self::Net(_) | Self::Socket { .. } => (Deferred, (4, 1), None),
            Self::Lost(_) => (Deferred, (4, 2), None),
            Self::Ourselves(_) => (Refused, (4, 6), None),
            Self::Open(failure) => judge_opening(failure),
        }
    }

    /// Whether it makes no sense to try the next host: the login is wrong everywhere.
    pub(crate) fn ends_it(&self) -> bool {
        match self {
            Self::Open(OpenFailure::LoginRefused { reply, .. }) => reply.code / 100 == 5,
            Self::Configuration(_) | Self::Ourselves(_) | Self::Token(_) => true,
            _ => false,
        }
    }

    /// Whether it is about who we are, and not about the host.
    pub(crate) fn is_about_the_login(&self) -> bool {
        matches!(
            self,
            Self::Open(OpenFailure::LoginRefused { .. } | OpenFailure::NoLogin { .. })
                | Self::Configuration(_)
                | Self::Token(_)
        )
    }

    /// Whether it says that the host is not there or lets nobody in: the same for every domain and every message.
    pub(crate) fn is_of_the_site(&self) -> bool {
        match self {
            Self::Net(error) => !matches!(error, NetError::PrivateTarget(_) | NetError::Bug(_)),
            Self::Socket { .. } | Self::Lost(_) | Self::Family(_) => true,
            Self::Open(_) => !self.is_about_the_login(),
            _ => false,
        }
    }

    /// Whether it is a fault of this address, which is then passed over for a while.
    pub(crate) fn is_of_the_address(&self) -> bool {
        matches!(
            self,
            Self::Net(NetError::Network { .. } | NetError::Timeout { .. })
                | Self::Lost(_)
                | Self::Handshake { source: NetError::Timeout { .. }, .. }
                | Self::Open(OpenFailure::Refused { .. } | OpenFailure::Peer(_))
        )
    }
}

fn judge_opening(failure: &OpenFailure) -> (Disposition, (u16, u16), Option<u16>) {
    use Disposition::Deferred;
    match failure {
        OpenFailure::Refused { reply, .. } => {
            let outcome = Outcome::from_reply(reply);
            (outcome.disposition, (outcome.status.subject, outcome.status.detail), outcome.code)
        }
        OpenFailure::NoTls(reply) => (Deferred, (7, 4), reply.as_ref().map(|r| r.code)),
        OpenFailure::LoginRefused { reply, .. } => (Deferred, (7, 8), Some(reply.code)),
        OpenFailure::NoLogin { .. } => (Deferred, (7, 4), None),
        OpenFailure::Peer(_) => (Deferred, (5, 0), None),
    }
}
