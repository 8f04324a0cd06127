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
mod tls;

pub use dial::{DialOptions, dial};
pub use error::NetError;
pub use listener::{Activation, Listener, Peer};
pub use network::{Network, NetworkError, is_public, normalise};
pub use resolver::{
    ADDRESSES_MAX, MX_MAX, MxAnswer, MxHost, ResolveError, Resolver, ResolverConfig, parse_server,
};
pub use stream::{Binding, Stream};
pub use tls::{
    CertificateFacts, CertificateSource, ClientTls, ClientTlsConfig, Pair, ServerTls, ServerTlsConfig, Trust,
};
