//! What is wrong with a certificate: in a word for reports (RFC 8460 section 4.3), and in plain words.

use rustls::CertificateError;

/// What is wrong with a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CertificateFault {
    /// It is made out for other names.
    Name,
    /// Its time is over, or has not begun.
    Expired,
    /// It is self-signed, or nobody whom we trust has issued it.
    Issuer,
    /// The host's TLSA records name another.
    Tlsa,
    /// Something else.
    Other,
}

/// The result of a check that was not passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) fault: CertificateFault,
    pub(crate) reason: String,
}

impl Verdict {
    pub(crate) fn new(fault: CertificateFault, reason: impl Into<String>) -> Self {
        Self { fault, reason: reason.into() }
    }
}

/// What rustls says about a certificate.
pub(crate) fn judge(error: &rustls::Error) -> Verdict {
    use CertificateFault::{Expired, Issuer, Name, Other};
    let rustls::Error::InvalidCertificate(error) = error else {
        return Verdict::new(Other, error.to_string());
    };
    match error {
        CertificateError::UnknownIssuer => Verdict::new(
            Issuer,
            "it is self-signed or its issuer is not trusted here; if that is right, add the issuer to tls.ca_file",
        ),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            Verdict::new(Expired, "it has expired")
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            Verdict::new(Expired, "it is not valid yet; is this machine's clock right?")
        }
        CertificateError::NotValidForNameContext { presented, .. } => {
            Verdict::new(Name, format!("it is made out for other names ({})", presented.join(", ")))
        }
        CertificateError::NotValidForName => Verdict::new(Name, "it is made out for other names"),
        CertificateError::BadSignature => Verdict::new(
            Issuer,
            "it was not signed by the issuer of that name which is trusted here; is tls.ca_file out of date?",
        ),
        other => Verdict::new(Other, other.to_string()),
    }
}
