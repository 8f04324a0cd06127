//! How connections to a recipient's domain are to be protected, at the operator's word.

use std::path::PathBuf;

use mail::{Pattern, TlsLevel, domain_to_ascii};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::outgoing::domains_only;
use super::{Rule, Wrong};

/// How connections to some recipient domains are protected, instead of what DANE, MTA-STS and the peers' offers say. The
/// first rule that matches the recipient's domain counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TlsPolicy {
    /// Recipient domains: `"partner.example"`, `"*.partner.example"` for everything below it, `"*"` for all.
    #[schemars(with = "Vec<String>")]
    pub domains: Vec<Pattern>,
    /// How far a connection has to be protected.
    #[serde(default)]
    #[schemars(schema_with = "levels")]
    pub level: TlsLevel,
    /// For `verify`: names that the certificate may bear instead of the MX host's.
    #[serde(default)]
    pub names: Vec<String>,
    /// For `verify`: the roots to trust instead of the system's, PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// A certificate with its chain to show to the peer when it asks for one, PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<PathBuf>,
    /// Its private key, PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_key: Option<PathBuf>,
}

/// The levels as users type them.
fn levels(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    let said = |level| match level {
        TlsLevel::None => "Plain text, even where TLS is offered. For peers whose TLS is broken.",
        TlsLevel::Opportunistic => {
            "TLS where it is offered, whatever the certificate; else plain text. DANE and MTA-STS are not asked."
        }
        TlsLevel::Encrypt => "TLS, whatever the certificate, or nothing is sent.",
        TlsLevel::Verify => {
            "TLS with a certificate that a trusted root has signed for the MX host or one of `names`, or nothing is sent."
        }
        TlsLevel::Dane => {
            "TLS with a certificate that secure TLSA records vouch for (RFC 7672), or nothing is sent."
        }
    };
    let words = TlsLevel::ALL.map(|level| {
        schemars::json_schema!({ "const": level.as_str(), "type": "string", "description": said(level) })
    });
    schemars::json_schema!({ "default": "verify", "oneOf": words })
}

impl Rule for TlsPolicy {
    const KIND: &'static str = "tls-policy";

    fn check(&self) -> Result<(), Wrong> {
        if self.domains.is_empty() {
            return Err(Wrong::new(
                "domains",
                "a TLS policy without domains",
                "domains = [\"partner.example\"]",
            ));
        }
        let some: Vec<Pattern> = self.domains.iter().filter(|p| **p != Pattern::Any).cloned().collect();
        domains_only("domains", &some)?;
        if let Some(i) = self.names.iter().position(|name| domain_to_ascii(name).is_none()) {
            let what = format!("{:?} is no host name", self.names[i]);
            return Err(Wrong::new(format!("names[{i}]"), what, ""));
        }
        let of_verify = self.ca_file.is_some() || !self.names.is_empty();
        if of_verify && self.level != TlsLevel::Verify {
            let what = format!("`names` and `ca_file` have no meaning with level {:?}", self.level.as_str());
            return Err(Wrong::new("level", what, "level = \"verify\""));
        }
        if self.client_certificate.is_some() != self.client_key.is_some() {
            let what = "a client certificate and its key go together";
            return Err(Wrong::new("client_certificate", what, "give both or neither"));
        }
        Ok(())
    }
}
