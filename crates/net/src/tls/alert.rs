//! What a server says of us when it ends TLS (RFC 8446 section 6.2), in words. The only certificate that a server ever judges
//! is our client certificate; under TLS 1.3 its judgement comes when the handshake is over on our side.

use std::io;

use rustls::AlertDescription as Alert;

/// A connection error in words; for the alerts that are about our client certificate also what they mean.
pub fn tls_words(error: &io::Error) -> String {
    match error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>()) {
        Some(tls) => rustls_words(tls),
        None => error.to_string(),
    }
}

pub(super) fn rustls_words(error: &rustls::Error) -> String {
    let meaning = match error {
        rustls::Error::AlertReceived(alert) => meaning(*alert),
        _ => None,
    };
    match meaning {
        Some(meaning) => format!("{meaning} ({error})"),
        None => error.to_string(),
    }
}

fn meaning(alert: Alert) -> Option<&'static str> {
    match alert {
        Alert::CertificateRequired | Alert::NoCertificate => Some("it wants a client certificate"),
        Alert::BadCertificate
        | Alert::UnsupportedCertificate
        | Alert::CertificateRevoked
        | Alert::CertificateExpired
        | Alert::CertificateUnknown
        | Alert::UnknownCA
        | Alert::AccessDenied => Some("it does not accept our client certificate, or that we showed none"),
        Alert::HandshakeFailure => {
            Some("it found no common ground: TLS versions, ciphers, or a client certificate that it wants")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alerts_about_our_certificate_are_said_in_words() {
        for (alert, words) in [
            (
                Alert::CertificateRequired,
                "it wants a client certificate (received fatal alert: CertificateRequired)",
            ),
            (Alert::UnknownCA, "it does not accept our client certificate"),
            (Alert::HandshakeFailure, "or a client certificate that it wants"),
        ] {
            let error = io::Error::new(io::ErrorKind::InvalidData, rustls::Error::AlertReceived(alert));
            assert!(tls_words(&error).starts_with(words) || tls_words(&error).contains(words), "{error}");
        }
        let other = rustls::Error::AlertReceived(Alert::DecodeError);
        let plain = io::Error::new(io::ErrorKind::InvalidData, other);
        assert_eq!(tls_words(&plain), plain.to_string());
        assert_eq!(tls_words(&io::ErrorKind::TimedOut.into()), "timed out");
    }
}
