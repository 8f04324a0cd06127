//! TLSA records of a mail exchanger, by the rules of RFC 7672 section 2.2.

use std::sync::Arc;

use hickory_resolver::proto::rr::RecordType;

use super::cache::{Answer, Kept};
use super::error::{Failure, ResolveError};
use super::{NoTlsa, Resolver, TlsaAnswer};
use crate::resolver::dnssec::Authentication;

impl Resolver {
    /// What DANE says of `host` at `port`. Only a host whose addresses are signed, or at least the alias that it is, is
    /// asked about: servers for unsigned zones are known to answer badly to such questions, and nothing they say would
    /// count.
    ///
    /// # Errors
    /// [`ResolveError`]. When it [is temporary](ResolveError::is_temporary) nothing is known (an answer with a bad
    /// signature comes out as this): the host must not be used, else whoever can disturb the DNS could switch DANE off.
    pub async fn tlsa(&self, host: &str, port: u16) -> Result<TlsaAnswer, ResolveError> {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let none =
            |why| Ok(TlsaAnswer { records: Arc::from([]), base: host.as_str().into(), none: Some(why) });
        if self.authentication == Authentication::None || host.parse::<std::net::IpAddr>().is_ok() {
            return none(NoTlsa::NotValidated);
        }
        let (secure, alias_of) = self.address_chain(&host).await?;
        let bases: Vec<Arc<str>> = match (secure, alias_of) {
            (true, Some(end)) => vec![end, host.as_str().into()],
            (true, None) => vec![host.as_str().into()],
            (false, Some(_)) if self.is_signed_alias(&host).await? => vec![host.as_str().into()],
            (false, _) => return none(NoTlsa::Unsigned),
        };
        for base in bases {
            let name = format!("_{port}._tcp.{base}");
            let answer = self.kept(&name, RecordType::TLSA).await;
            match answer.kept {
                Kept::Tlsa(records) if answer.secure => {
                    return Ok(TlsaAnswer { records, base, none: None });
                }
                Kept::Failed(Failure::NoName | Failure::NoData) => {}
                // A name too long to be asked for cannot have records.
                Kept::Failed(Failure::Unusable) => {}
                Kept::Failed(failure) => return Err(failure.of(&name)),
                _ => {}
            }
        }
        none(NoTlsa::Absent)
    }

    /// Whether the addresses of `host` are signed, and what it is an alias of.
    async fn address_chain(&self, host: &str) -> Result<(bool, Option<Arc<str>>), ResolveError> {
        let (v6, v4) = tokio::join!(self.kept(host, RecordType::AAAA), self.kept(host, RecordType::A));
        if let (Kept::Failed(a), Kept::Failed(b)) = (&v6.kept, &v4.kept) {
            return Err(a.clone().graver(b.clone()).of(host));
        }
        let found: Vec<Answer> =
            [v6, v4].into_iter().filter(|a| matches!(a.kept, Kept::Addresses(_))).collect();
        let alias_of = found.iter().find_map(|answer| answer.alias_of.clone());
        Ok((found.iter().all(|answer| answer.secure), alias_of))
    }

    /// Whether `host` is an alias by a signed record, wherever that leads to.
    async fn is_signed_alias(&self, host: &str) -> Result<bool, ResolveError> {
        let answer = self.kept(host, RecordType::CNAME).await;
        match answer.kept {
            Kept::Alias => Ok(answer.secure),
            Kept::Failed(failure @ (Failure::Temporary(_) | Failure::Loop)) => Err(failure.of(host)),
            _ => Ok(false),
        }
    }
}
