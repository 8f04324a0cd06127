//! What the operator says about TLS to mail exchangers.

use std::sync::Arc;

use mail::{Pattern, TlsLevel};
use net::ClientIdentity;
use net::sts::StsCache;

use super::results::TlsResults;

/// How connections to mail exchangers are protected; part of the settings, replaced as a whole on reload.
#[derive(Clone, Debug, Default)]
pub struct TlsRules {
    /// Whether TLSA records are asked for and kept to (RFC 7672). Needs a resolver whose answers are authenticated.
    pub dane: bool,
    /// The MTA-STS policies (RFC 8461); none where they are not kept to.
    pub sts: Option<StsCache>,
    /// The operator's rules; the first that names the recipient's domain counts.
    pub overrides: Vec<TlsOverride>,
    /// Where results are counted for TLS reports (RFC 8460); none where nobody wants them.
    pub results: Option<Arc<TlsResults>>,
}

impl TlsRules {
    /// The rule for a domain (lower case, A-labels).
    pub(super) fn rule_for(&self, domain: &str) -> Option<&TlsOverride> {
        self.overrides.iter().find(|rule| rule.domains.iter().any(|pattern| pattern.matches_domain(domain)))
    }
}

/// A rule for some recipient domains. It takes the place of DANE and MTA-STS there, in both directions: it can ask for
/// more than they do, and for less.
#[derive(Clone, Debug)]
pub struct TlsOverride {
    /// The recipients' domains.
    pub domains: Vec<Pattern>,
    /// What is asked for.
    pub level: TlsLevel,
    /// With [`TlsLevel::Verify`]: the names that the certificate must be made out for one of, in place of the mail
    /// exchanger's, which comes out of the DNS.
    pub names: Vec<String>,
    /// With [`TlsLevel::Verify`]: who must have issued it, in place of the system's roots.
    pub roots: Option<net::Roots>,
    /// The certificate that we show where we are asked for one.
    pub identity: Option<ClientIdentity>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rule_that_names_the_domain_counts() {
        let rule = |domains: &[&str], level: &str| TlsOverride {
            domains: domains.iter().map(|d| d.parse().unwrap()).collect(),
            level: level.parse().unwrap(),
            names: vec![],
            roots: None,
            identity: None,
        };
        let overrides =
            vec![rule(&["a.example"], "none"), rule(&["*.example"], "verify"), rule(&["*"], "encrypt")];
        let rules = TlsRules { overrides, ..TlsRules::default() };
        let level = |domain| rules.rule_for(domain).map(|rule| rule.level.as_str());
        assert_eq!(level("a.example"), Some("none"));
        assert_eq!(level("b.example"), Some("verify"));
        assert_eq!(level("example"), Some("encrypt"));
        assert!(TlsRules::default().rule_for("a.example").is_none());
        assert!("secure".parse::<TlsLevel>().is_err());
    }
}
