//! Outgoing addresses: where connections come from, and what we call ourselves there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use mail::SourceName;
use net::{DialOptions, Egress};

use crate::error::ConnectError;
use crate::settings::Settings;

/// An outgoing address, or a pair of them: where connections come from.
#[derive(Clone, Debug)]
pub struct SourceAddress {
    /// Its name in the configuration.
    pub name: SourceName,
    /// The IPv4 address. Where only the other one is given, no connections are made by IPv4; where none is given, the
    /// system chooses.
    pub v4: Option<Ipv4Addr>,
    /// The IPv6 address, likewise.
    pub v6: Option<Ipv6Addr>,
    /// The name in EHLO; the relay's own where none is given.
    pub ehlo: Option<Arc<str>>,
    /// Which way connections go.
    pub egress: Egress,
}

impl SourceAddress {
    /// The system's choice of address, with the relay's own name.
    pub fn any(name: SourceName) -> Self {
        Self { name, v4: None, v6: None, ehlo: None, egress: Egress::Direct }
    }

    /// The source of this name. The default one need not be configured.
    pub(crate) fn find(name: &SourceName, settings: &Settings) -> Result<Arc<Self>, ConnectError> {
        match settings.sources.get(name) {
            Some(source) => Ok(source.clone()),
            None if **name == *mail::default_source() => Ok(Arc::new(Self::any(name.clone()))),
            None => Err(ConnectError::Configuration(format!("there is no source {name:?} any more"))),
        }
    }

    /// Whether connections to `ip` can be made from here.
    pub(crate) fn reaches(&self, ip: IpAddr) -> bool {
        match ip {
            IpAddr::V4(_) => self.v4.is_some() || self.v6.is_none(),
            IpAddr::V6(_) => self.v6.is_some() || self.v4.is_none(),
        }
    }

    /// What it can use, in words, where it cannot use everything.
    pub(crate) fn families(&self) -> &'static str {
        match (self.v4, self.v6) {
            (Some(_), None) => "an IPv4 address alone",
            (None, Some(_)) => "an IPv6 address alone",
            _ => "both kinds of address",
        }
    }

    /// What we call ourselves.
    pub(crate) fn hello(&self, settings: &Settings) -> Arc<str> {
        self.ehlo.as_ref().unwrap_or(&settings.hostname).clone()
    }

    /// How to connect from here. `named`: to hosts that the operator named.
    pub(crate) fn dialing(&self, settings: &Settings, named: bool) -> DialOptions {
        DialOptions {
            timeout: settings.timeouts.connect,
            source_v4: self.v4,
            source_v6: self.v6,
            allow_private: named || settings.allow_private_targets,
            egress: self.egress.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_of_one_kind_reaches_that_kind() {
        let (v4, v6): (IpAddr, IpAddr) = ("192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap());
        let mut source = SourceAddress::any("x".into());
        assert!(source.reaches(v4) && source.reaches(v6));
        source.v4 = Some("127.0.0.2".parse().unwrap());
        assert!(source.reaches(v4) && !source.reaches(v6));
        source.v6 = Some("::1".parse().unwrap());
        assert!(source.reaches(v4) && source.reaches(v6));
        source.v4 = None;
        assert!(!source.reaches(v4) && source.reaches(v6));
    }
}
