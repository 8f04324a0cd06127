//! The names that TLS reports have for what happened (RFC 8460).

use serde::{Deserialize, Serialize};

/// What kind of policy a connection was under (RFC 8460 section 4.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum TlsPolicyType {
    /// TLSA records.
    #[serde(rename = "tlsa")]
    Tlsa,
    /// MTA-STS.
    #[serde(rename = "sts")]
    Sts,
    /// None.
    #[serde(rename = "no-policy-found")]
    NoPolicyFound,
}

/// How a connection failed (RFC 8460 section 4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TlsResultType {
    /// No STARTTLS.
    StarttlsNotSupported,
    /// The certificate is made out for other names.
    CertificateHostMismatch,
    /// The certificate's time is over.
    CertificateExpired,
    /// Nobody whom we trust has issued the certificate.
    CertificateNotTrusted,
    /// Everything that has no name of its own.
    ValidationFailure,
    /// No TLSA record matches.
    TlsaInvalid,
    /// The DNS gives no answer that is authenticated.
    DnssecInvalid,
    /// The operator's rule wants DANE, and there are no TLSA records.
    DaneRequired,
    /// The policy cannot be fetched.
    StsPolicyFetchError,
    /// The policy is not valid.
    StsPolicyInvalid,
    /// The certificate of the policy's web server is not to be trusted.
    StsWebpkiInvalid,
}

impl TlsResultType {
    /// All of them.
    pub const ALL: [TlsResultType; 11] = [
        TlsResultType::StarttlsNotSupported,
        TlsResultType::CertificateHostMismatch,
        TlsResultType::CertificateExpired,
        TlsResultType::CertificateNotTrusted,
        TlsResultType::ValidationFailure,
        TlsResultType::TlsaInvalid,
        TlsResultType::DnssecInvalid,
        TlsResultType::DaneRequired,
        TlsResultType::StsPolicyFetchError,
        TlsResultType::StsPolicyInvalid,
        TlsResultType::StsWebpkiInvalid,
    ];

    /// As in a report.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::StarttlsNotSupported => "starttls-not-supported",
            Self::CertificateHostMismatch => "certificate-host-mismatch",
            Self::CertificateExpired => "certificate-expired",
            Self::CertificateNotTrusted => "certificate-not-trusted",
            Self::ValidationFailure => "validation-failure",
            Self::TlsaInvalid => "tlsa-invalid",
            Self::DnssecInvalid => "dnssec-invalid",
            Self::DaneRequired => "dane-required",
            Self::StsPolicyFetchError => "sts-policy-fetch-error",
            Self::StsPolicyInvalid => "sts-policy-invalid",
            Self::StsWebpkiInvalid => "sts-webpki-invalid",
        }
    }
}
