//! TLS in both directions, by rustls on aws-lc-rs: versions 1.2 and 1.3, no others.

mod alert;
mod binding;
mod client;
mod dane;
mod pair;
mod self_signed;
mod server;
mod trust;
mod verdict;

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use mail::{Clock, TlsInfo};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;
use rustls::{ProtocolVersion, SupportedCipherSuite, SupportedProtocolVersion};

pub use alert::tls_words;
pub(crate) use client::ClientSide;
pub use client::{ClientTls, ClientTlsConfig};
pub use dane::{Dane, Tlsa};
pub(crate) use pair::write_private;
pub use pair::{CertificateFacts, Pair};
pub(crate) use server::ServerSide;
pub use server::{CertificateSource, ServerTls, ServerTlsConfig};
pub use trust::{ClientIdentity, Named, Roots, Trust};
pub use verdict::CertificateFault;

pub(crate) static VERSIONS: &[&SupportedProtocolVersion] =
    &[&rustls::version::TLS13, &rustls::version::TLS12];

/// The one cryptographic provider; made once because it is asked for its parts at every turn.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> =
        LazyLock::new(|| Arc::new(aws_lc_rs::default_provider()));
    PROVIDER.clone()
}

/// Lets rustls read the clock port.
#[derive(Debug)]
pub(crate) struct Time(pub(crate) Clock);

impl TimeProvider for Time {
    fn current_time(&self) -> Option<UnixTime> {
        Some(unix_time(&self.0))
    }
}

pub(crate) fn unix_time(clock: &Clock) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_millis(u64::try_from(clock.now().millis()).unwrap_or(0)))
}

fn describe(
    version: Option<ProtocolVersion>,
    suite: Option<SupportedCipherSuite>,
    verified: &str,
) -> TlsInfo {
    let version = match version {
        Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
        Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
        _ => "TLS",
    };
    // As IANA writes it; rustls marks the suites of TLS 1.3.
    let cipher = suite.and_then(|s| s.suite().as_str()).unwrap_or_default().replacen("TLS13_", "TLS_", 1);
    TlsInfo { version: version.to_owned(), cipher, verified: verified.to_owned() }
}

#[cfg(test)]
mod tests;
