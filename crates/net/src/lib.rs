//! The network: listen, dial, TLS in both directions, certificates (files, ACME, self-signed), the PROXY protocol
//! and the resolver. Knows nothing of SMTP.

pub mod acme;
mod dial;
mod error;
mod listener;
mod network;
pub mod proxy;
mod resolver;
mod stream;
pub mod sts;
mod tls;
mod tlsrpt;

pub use dial::{DialOptions, Dialed, Egress, SocksLogin, dial, dial_first};
pub use error::NetError;
pub use listener::{Activation, Listener, Peer};
pub use network::{Network, NetworkError, is_public, normalise};
pub use resolver::{
    ADDRESSES_MAX, AddressAnswer, Dnssec, MX_MAX, MxAnswer, MxHost, NoTlsa, ResolveError, Resolver,
    ResolverConfig, TlsaAnswer, parse_server,
};
pub use stream::{Binding, Stream};
pub use tls::{
    CertificateFacts, CertificateFault, CertificateSource, ClientIdentity, ClientTls, ClientTlsConfig, Dane,
    Named, Pair, Roots, ServerTls, ServerTlsConfig, Tlsa, Trust, tls_words,
};
pub use tlsrpt::{ReportAddress, report_addresses};
