//! What is asked of a server's certificate, and who we say that we are.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, RootCertStore};

use super::dane::Dane;
use super::verdict::{Verdict, judge};
use super::{Pair, provider};
use crate::{CertificateFault, NetError};

/// What is asked of the server's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// It must be valid for the name and issued by a trusted root; else there is no connection.
    Verified,
    /// The same for one of these names in place of the host's, or by these roots in place of the system's.
    Named(Arc<Named>),
    /// It must match the host's TLSA records (RFC 7672); else there is no connection.
    Dane(Arc<Dane>),
    /// It is checked as by [`Trust::Verified`], but the connection is made whatever the result, which
    /// [`TlsInfo::verified`](mail::TlsInfo) tells.
    Opportunistic,
}

/// Names and roots that the operator set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// The certificate must be made out for one of these; none: for the host's name.
    pub names: Vec<String>,
    /// Who must have issued it; none: whom the system and `tls.ca_file` trust.
    pub roots: Option<Roots>,
}

impl Named {
    /// Verifies what a server showed; `system` are the roots to use where there are no others.
    pub(super) fn verify(
        &self,
        chain: &[CertificateDer<'_>],
        host: &ServerName<'_>,
        system: Option<&Arc<WebPkiServerVerifier>>,
        now: UnixTime,
    ) -> Result<(), Verdict> {
        let verifier = match (&self.roots, system) {
            (Some(roots), _) => &roots.0,
            (None, Some(system)) => system,
            (None, None) => {
                return Err(Verdict::new(CertificateFault::Issuer, "this machine has no trusted roots"));
            }
        };
        let (leaf, others) = chain
            .split_first()
            .ok_or_else(|| Verdict::new(CertificateFault::Other, "the server showed no certificate"))?;
        let verify =
            |name: &ServerName<'_>| verifier.verify_server_cert(leaf, others, name, &[], now).map(drop);
        if self.names.is_empty() {
            return verify(host).map_err(|e| judge(&e));
        }
        let mut failed = Verdict::new(CertificateFault::Name, "none of the names asked for is a host name");
        for name in &self.names {
            let Ok(name) = ServerName::try_from(name.as_str()) else { continue };
            match verify(&name) {
                Ok(()) => return Ok(()),
                Err(error) => failed = judge(&error),
            }
        }
        Err(failed)
    }
}

/// Roots out of a file, in place of the system's. Two of the same file are not equal: each is as the file was when it
/// was read.
#[derive(Clone)]
pub struct Roots(Arc<WebPkiServerVerifier>);

impl Roots {
    /// Reads them from PEM.
    ///
    /// # Errors
    /// [`NetError::Configuration`], which says what is wrong with the file.
    pub fn load(path: &Path) -> Result<Self, NetError> {
        let mut roots = RootCertStore::empty();
        add_roots(&mut roots, path, "the CA file")?;
        let built = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider()).build();
        Ok(Self(built.map_err(|e| NetError::Bug(format!("cannot set up TLS: {e}")))?))
    }
}

impl PartialEq for Roots {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Roots {}

impl fmt::Debug for Roots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Roots")
    }
}

/// Adds what is in a PEM file; `option` is its name in the configuration.
pub(super) fn add_roots(roots: &mut RootCertStore, path: &Path, option: &str) -> Result<(), NetError> {
    let shown = path.display();
    let wrong = |e: &dyn fmt::Display| NetError::Configuration(format!("{option}: {shown}: {e}"));
    let pem = std::fs::read(path).map_err(|e| wrong(&e))?;
    let mut count = 0;
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        roots.add(certificate.map_err(|e| wrong(&e))?).map_err(|e| wrong(&e))?;
        count += 1;
    }
    if count == 0 {
        return Err(wrong(&"no certificate in it; it must contain -----BEGIN CERTIFICATE----- (PEM)"));
    }
    Ok(())
}

/// A certificate with its key that we show to servers which ask for one. Sessions resumed with one identity are never
/// used by another, or by nobody.
#[derive(Clone)]
pub struct ClientIdentity(Arc<Identity>);

struct Identity {
    pair: Pair,
    config: OnceLock<Arc<ClientConfig>>,
}

impl ClientIdentity {
    /// Reads it from a PEM chain and a PEM key.
    ///
    /// # Errors
    /// [`NetError::Configuration`] says what is wrong with which file.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, NetError> {
        Ok(Self::new(Pair::load(certificate, key)?))
    }

    /// The same of a pair at hand.
    pub fn new(pair: Pair) -> Self {
        Self(Arc::new(Identity { pair, config: OnceLock::new() }))
    }

    /// The certificate and its key.
    pub fn pair(&self) -> &Pair {
        &self.0.pair
    }

    /// The configuration with it, made once.
    pub(super) fn config(
        &self,
        make: impl FnOnce() -> Result<Arc<ClientConfig>, NetError>,
    ) -> Result<Arc<ClientConfig>, NetError> {
        match self.0.config.get() {
            Some(config) => Ok(config.clone()),
            None => {
                let made = make()?;
                Ok(self.0.config.get_or_init(|| made).clone())
            }
        }
    }
}

impl PartialEq for ClientIdentity {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for ClientIdentity {}

impl fmt::Debug for ClientIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ClientIdentity").field(&self.0.pair.facts().names).finish()
    }
}
