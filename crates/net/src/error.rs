//! What can go wrong here, named by who has to do something about it.

use std::error::Error;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::CertificateFault;

/// An error of this crate. Its text is for the operator: it says what is wrong and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetError {
    /// The operator has to change the configuration or a file it names.
    #[error("{0}")]
    Configuration(String),
    /// The peer does not keep to the protocol.
    #[error("{0}")]
    Peer(String),
    /// The peer's certificate is not to be trusted for this name.
    #[error("the certificate of {name} cannot be trusted: {reason}")]
    Untrusted {
        /// The host as we looked it up.
        name: String,
        /// What is wrong with the certificate.
        reason: String,
        /// The same in a word.
        fault: CertificateFault,
    },
    /// Nothing came in time.
    #[error("{what} took longer than {} s", .after.as_secs_f32())]
    Timeout {
        /// What was waited for.
        what: &'static str,
        /// How long it was waited for.
        after: Duration,
    },
    /// The address is private, loopback or otherwise none to send foreign mail to.
    #[error("{0} is not a public address; set dns.allow_private_targets = true to deliver there")]
    PrivateTarget(IpAddr),
    /// The network failed.
    #[error("{what}: {source}")]
    Network {
        /// What was being done.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// A file that we keep ourselves cannot be read or written.
    #[error("{}: {source}", .path.display())]
    Disk {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The ACME server or the way to it failed.
    #[error("ACME: {what}")]
    Acme {
        /// What failed, in words.
        what: String,
        /// What instant-acme said.
        source: Option<Box<dyn Error + Send + Sync>>,
    },
    /// Our own fault.
    #[error("{0}; this is a bug in Posthouse")]
    Bug(String),
}

impl NetError {
    pub(crate) fn network(what: impl Into<String>, source: io::Error) -> Self {
        Self::Network { what: what.into(), source }
    }

    pub(crate) fn disk(path: &Path, source: io::Error) -> Self {
        Self::Disk { path: path.to_owned(), source }
    }
}
