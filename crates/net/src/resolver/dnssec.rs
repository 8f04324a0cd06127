//! Which answers are authenticated (DNSSEC), and who says so.
//!
//! A stub resolver leaves validation to the resolver it asks, and learns the result by the AD bit (RFC 4035 section
//! 3.2.3). Anyone between the two could set that bit, so it is believed only from a resolver on this machine, or where
//! the operator vouches for the way there. To be told at all one has to ask: queries carry the AD bit (RFC 6840 section
//! 5.7), which is cheaper than DO: no signatures come back.

use std::net::IpAddr;
use std::pin::Pin;
use std::str::FromStr;

use hickory_resolver::config::ConnectionConfig;
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::NetError as Net;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::xfer::DnsHandle;
use hickory_resolver::proto::op::DnsRequest;
use hickory_resolver::proto::rr::{Name, RecordType};
use hickory_resolver::{ConnectionProvider, PoolContext};

use super::error::{BOGUS, Failure, Negative};
use super::{ALIASES_MAX, Resolver, alias_of};
use crate::NetError;

/// `dns.dnssec`: whose word on signatures is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Dnssec {
    /// That of the resolvers, if all of them are on loopback.
    #[default]
    Auto,
    /// That of the resolvers wherever they are: the operator vouches for the network between.
    Trust,
    /// Nobody's: signatures are verified here.
    Validate,
    /// Nobody's, and nothing counts as authenticated.
    Off,
}

impl Dnssec {
    /// As in `dns.dnssec`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Trust => "trust",
            Self::Validate => "validate",
            Self::Off => "off",
        }
    }
}

impl FromStr for Dnssec {
    type Err = NetError;
    fn from_str(text: &str) -> Result<Self, NetError> {
        [Self::Auto, Self::Trust, Self::Validate, Self::Off]
            .into_iter()
            .find(|d| d.as_str() == text)
            .ok_or_else(|| {
                NetError::Configuration(format!(
                    "dns.dnssec {text:?} is none of auto, trust, validate and off"
                ))
            })
    }
}

/// How it is found out whether an answer is authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Authentication {
    /// By the AD bit.
    Bit,
    /// By the proofs that hickory found.
    Proof,
    /// Not at all.
    None,
}

impl Authentication {
    pub(super) fn of(dnssec: Dnssec, resolvers: impl IntoIterator<Item = IpAddr>) -> Self {
        match dnssec {
            Dnssec::Off => Self::None,
            Dnssec::Trust => Self::Bit,
            Dnssec::Validate => Self::Proof,
            Dnssec::Auto => {
                if resolvers.into_iter().all(|ip| ip.to_canonical().is_loopback()) {
                    Self::Bit
                } else {
                    Self::None
                }
            }
        }
    }

    /// Whether `lookup` is an authenticated answer about `asked`.
    pub(super) fn is_secure(self, lookup: &Lookup, asked: &Name) -> bool {
        match self {
            // A resolver answers with all of a chain of CNAMEs. Where hickory had to go on asking, the bit speaks of the
            // last link alone.
            Self::Bit => lookup.message().authentic_data && lookup.query().name() == asked,
            Self::Proof => {
                !lookup.answers().is_empty() && lookup.answers().iter().all(|record| record.proof.is_secure())
            }
            Self::None => false,
        }
    }
}

/// An answer with what DNSSEC says of it.
pub(super) struct Found {
    pub(super) lookup: Lookup,
    /// Whether all of it is authenticated, the aliases on the way included.
    pub(super) secure: bool,
    /// What the name is an alias of, in the end.
    pub(super) alias_of: Option<Name>,
}

impl Resolver {
    /// Whether a failure may be of hickory's making: it takes an answer for forged whose signed alias leads into a zone
    /// without signatures.
    pub(super) fn may_be_mixed(&self, negative: &Negative, kind: RecordType) -> bool {
        let is_bogus = matches!(&negative.failure, Failure::Temporary(reason) if reason == BOGUS);
        self.authentication == Authentication::Proof && kind != RecordType::CNAME && is_bogus
    }

    /// Asks for one alias after the other, each validated by itself, and for what they lead to. What is forged stays
    /// so: then there is no valid alias to follow, and the first failure counts.
    pub(super) async fn link_by_link(
        &self,
        asked: Name,
        kind: RecordType,
        failure: Negative,
    ) -> Result<Found, Negative> {
        let (mut at, mut secure) = (asked, true);
        for _ in 0..ALIASES_MAX {
            let Ok(link) = self.ask(&at, RecordType::CNAME).await else { return Err(failure) };
            let Some(next) = alias_of(&link, &at).cloned() else { return Err(failure) };
            secure &= self.authentication.is_secure(&link, &at);
            match self.ask(&next, kind).await {
                Ok(lookup) => {
                    let end = self.found(lookup, &next);
                    let alias_of = Some(end.alias_of.unwrap_or(next));
                    return Ok(Found { lookup: end.lookup, secure: secure && end.secure, alias_of });
                }
                Err(negative) if self.may_be_mixed(&negative, kind) => at = next,
                Err(negative) => return Err(negative),
            }
        }
        Err(failure)
    }
}

/// Connections to resolvers whose queries ask for the AD bit.
#[derive(Clone)]
pub(super) struct Asking(pub(super) TokioRuntimeProvider);

/// Such a connection.
#[derive(Clone)]
pub(super) struct Asker<H>(H);

impl ConnectionProvider for Asking {
    type Conn = Asker<<TokioRuntimeProvider as ConnectionProvider>::Conn>;
    type FutureConn = Pin<Box<dyn Future<Output = Result<Self::Conn, Net>> + Send + 'static>>;
    type RuntimeProvider = TokioRuntimeProvider;

    fn new_connection(
        &self,
        ip: IpAddr,
        config: &ConnectionConfig,
        cx: &PoolContext,
    ) -> Result<Self::FutureConn, Net> {
        let connecting = self.0.new_connection(ip, config, cx)?;
        Ok(Box::pin(async move { connecting.await.map(Asker) }))
    }

    fn runtime_provider(&self) -> &TokioRuntimeProvider {
        &self.0
    }
}

impl<H: DnsHandle> DnsHandle for Asker<H> {
    type Response = H::Response;
    type Runtime = H::Runtime;

    fn is_verifying_dnssec(&self) -> bool {
        self.0.is_verifying_dnssec()
    }

    fn is_using_edns(&self) -> bool {
        self.0.is_using_edns()
    }

    fn send(&self, mut request: DnsRequest) -> Self::Response {
        request.metadata.authentic_data = true;
        self.0.send(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_resolvers_on_this_machine_are_believed_unasked() {
        let at = |ips: &[&str]| ips.iter().map(|ip| ip.parse().unwrap()).collect::<Vec<IpAddr>>();
        for (dnssec, resolvers, wanted) in [
            (Dnssec::Auto, at(&["127.0.0.1", "::1"]), Authentication::Bit),
            (Dnssec::Auto, at(&["127.0.0.53"]), Authentication::Bit),
            (Dnssec::Auto, at(&["::ffff:127.0.0.1"]), Authentication::Bit),
            (Dnssec::Auto, at(&["127.0.0.1", "192.0.2.53"]), Authentication::None),
            (Dnssec::Auto, at(&["10.0.0.1"]), Authentication::None),
            (Dnssec::Trust, at(&["10.0.0.1"]), Authentication::Bit),
            (Dnssec::Validate, at(&["10.0.0.1"]), Authentication::Proof),
            (Dnssec::Off, at(&["127.0.0.1"]), Authentication::None),
        ] {
            assert_eq!(Authentication::of(dnssec, resolvers.clone()), wanted, "{dnssec:?} {resolvers:?}");
        }
        for dnssec in [Dnssec::Auto, Dnssec::Trust, Dnssec::Validate, Dnssec::Off] {
            assert_eq!(dnssec.as_str().parse::<Dnssec>().unwrap(), dnssec);
        }
        assert!("yes".parse::<Dnssec>().is_err());
    }
}
