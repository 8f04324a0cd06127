//! What is asked of a connection to one mail exchanger for one domain, and whether a connection meets it.

use std::net::IpAddr;
use std::sync::Arc;

use mail::{Disposition, EnhancedStatus, Outcome, Security};
use net::{ClientIdentity, ClientTls, NetError, Stream, Trust};

use super::results::{PolicySeen, ResultType};

/// Whether STARTTLS is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Starttls {
    /// There is no mail without it.
    Must,
    /// Where it is offered; mail goes in the clear where it is not, or does not work.
    May,
    /// Not even where it is offered, or TLS is there from the start.
    Never,
}

/// What is asked of a connection.
#[derive(Clone, Debug)]
pub(crate) struct Requirement {
    /// The level, and where it comes from, for the trace.
    pub(crate) why: Security,
    pub(crate) starttls: Starttls,
    /// What is asked of the certificate, once there is TLS.
    pub(crate) trust: Trust,
    /// The name for SNI, and that the certificate is verified for: the mail exchanger's, or the TLSA base domain.
    pub(crate) tls_name: Arc<str>,
    /// The certificate that we show.
    pub(crate) identity: Option<ClientIdentity>,
    /// Whether the peer must offer REQUIRETLS, and MAIL says it.
    pub(crate) requiretls_param: bool,
    /// Why this host gets nothing, if so: try the next one. What it means when there is no next one.
    pub(crate) barred: Option<Outcome>,
    /// What is told in TLS reports.
    pub(super) report: Report,
}

/// The policy that a connection is counted under.
#[derive(Clone, Debug)]
pub(super) struct Report {
    /// None for what is not reported: rules of the operator are nobody else's business.
    pub(super) policy: Option<PolicySeen>,
    /// A failure that there was before any connection.
    pub(super) before: Option<(PolicySeen, ResultType, String)>,
    /// What a policy in testing mode would have asked for.
    pub(super) tested: Option<Tested>,
}

/// What a policy in testing mode would have said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tested {
    /// The certificate must be right.
    Verify,
    /// The host is not in it.
    NotNamed,
}

/// What was negotiated on an open connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Negotiated<'a> {
    pub(crate) stream: &'a Stream,
    pub(crate) tls: &'a ClientTls,
    /// Whether the peer offers REQUIRETLS.
    pub(crate) requiretls: bool,
}

/// What a connection lacks that it must have.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Lacking<'a> {
    /// STARTTLS is not offered, or refused.
    Starttls,
    /// The handshake failed, or the certificate is not the right one.
    Handshake(&'a NetError),
    /// REQUIRETLS is not offered.
    RequireTls,
}

impl Requirement {
    /// With this certificate to show.
    pub(crate) fn showing(self, identity: Option<ClientIdentity>) -> Self {
        Self { identity, ..self }
    }

    /// Whether this host may get the message at all.
    pub(crate) fn allowed(&self) -> bool {
        self.barred.is_none()
    }

    /// Whether to go on in the clear when TLS does not work.
    pub(crate) fn may_go_in_the_clear(&self) -> bool {
        self.starttls != Starttls::Must
    }

    /// Whether a connection that is open to the very host serves.
    pub(crate) fn satisfied_by(&self, negotiated: &Negotiated<'_>) -> bool {
        if !self.allowed() || (self.requiretls_param && !negotiated.requiretls) {
            return false;
        }
        // Who we are to a server is asked for once, at the handshake.
        if negotiated.stream.is_tls() && negotiated.stream.identity() != self.identity.as_ref() {
            return false;
        }
        match &self.trust {
            Trust::Opportunistic => self.may_go_in_the_clear() || negotiated.stream.is_tls(),
            trust => negotiated.tls.would_satisfy(negotiated.stream, &self.tls_name, trust).is_ok(),
        }
    }

    /// What it means for the recipients that a connection to `host` lacks something. Mail waits, for what is wrong may be
    /// mended; only who asked for REQUIRETLS hears of it at once (RFC 8689 section 4.2.1).
    pub(crate) fn unmet(&self, host: &str, lacking: Lacking<'_>) -> Outcome {
        let what = match lacking {
            Lacking::Starttls => format!("{host} offers no STARTTLS"),
            Lacking::Handshake(error) => format!("no TLS with {host}: {error}"),
            Lacking::RequireTls => format!("{host} does not offer REQUIRETLS"),
        };
        let passing =
            matches!(lacking, Lacking::Handshake(error) if !matches!(error, NetError::Untrusted { .. }));
        if self.requiretls_param && !passing {
            return refused_requiretls(&what);
        }
        let detail = if matches!(lacking, Lacking::Handshake(_)) { 5 } else { 4 };
        let text = format!("{what}; the connection must be protected ({}: {})", self.why.level, self.why.why);
        Outcome::own(Disposition::Deferred, EnhancedStatus::new(4, 7, detail), text)
    }
}

/// A message that asks for REQUIRETLS and cannot have it here.
pub(super) fn refused_requiretls(why: &str) -> Outcome {
    let text = format!("the sender requires TLS all the way (REQUIRETLS): {why}");
    Outcome::own(Disposition::Refused, EnhancedStatus::new(5, 7, 30), text)
}

/// The other end of a connection, and ours.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Session<'a> {
    /// The address that we came from, where it is known.
    pub(crate) sending_ip: Option<IpAddr>,
    /// The mail exchanger.
    pub(crate) host: &'a str,
    /// What it calls itself, where it said so.
    pub(crate) helo: Option<&'a str>,
    /// Its address.
    pub(crate) receiving_ip: Option<IpAddr>,
}
