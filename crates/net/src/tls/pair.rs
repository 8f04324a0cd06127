//! A certificate with its key: read from files with errors that say what to do, and what is to be known about it.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use mail::Timestamp;
use rustls::pki_types::pem::{PemObject, SectionKind};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;

use super::provider;
use crate::NetError;

/// What a certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFacts {
    /// Where it came from: the file, or in words.
    pub from: String,
    /// The names and addresses it is made out for.
    pub names: Vec<String>,
    /// Who issued it.
    pub issuer: String,
    /// Valid from.
    pub not_before: Timestamp,
    /// Valid until.
    pub not_after: Timestamp,
    /// Whether nobody but ourselves vouches for it.
    pub self_signed: bool,
    /// The SHA-256 of its public key, for a TLSA record `3 1 1`.
    pub key_hash: [u8; 32],
}

impl CertificateFacts {
    /// Whether it is made out for `name`: exactly, or by a wildcard for one label (RFC 9525).
    pub fn covers(&self, name: &str) -> bool {
        self.names.iter().any(|n| {
            n.eq_ignore_ascii_case(name)
                || n.strip_prefix("*.").is_some_and(|parent| {
                    name.split_once('.').is_some_and(|(_, rest)| rest.eq_ignore_ascii_case(parent))
                })
        })
    }

    /// The SHA-256 of its public key in hexadecimal digits: what follows `3 1 1` in a TLSA record.
    pub fn key_sha256(&self) -> String {
        self.key_hash.iter().map(|octet| format!("{octet:02x}")).collect()
    }

    /// Whether it is valid at `now`.
    pub fn is_valid_at(&self, now: Timestamp) -> bool {
        self.not_before <= now && now < self.not_after
    }
}

/// A certificate chain and the key to its first certificate.
#[derive(Clone, Debug)]
pub struct Pair {
    pub(crate) certified: Arc<CertifiedKey>,
    pub(crate) facts: Arc<CertificateFacts>,
}

impl Pair {
    /// Reads a PEM chain and a PEM key (they may be the same file).
    ///
    /// # Errors
    /// [`NetError::Configuration`] says what is wrong with which file.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, NetError> {
        let chain = fs::read(certificate).map_err(|e| unreadable("tls.certificate", certificate, &e))?;
        let key_pem = fs::read(key).map_err(|e| unreadable("tls.key", key, &e))?;
        let key = read_key(&key_pem, key)?;
        Self::from_parts(read_chain(&chain, certificate)?, key, &certificate.display().to_string())
    }

    /// The same from PEM in memory; `from` says where it came from.
    ///
    /// # Errors
    /// [`NetError::Configuration`] says what is wrong.
    pub fn from_pem(chain: &[u8], key: &[u8], from: &str) -> Result<Self, NetError> {
        let at = Path::new(from);
        Self::from_parts(read_chain(chain, at)?, read_key(key, at)?, from)
    }

    fn from_parts(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        from: &str,
    ) -> Result<Self, NetError> {
        let facts = Arc::new(facts_of(&chain[0], from)?);
        let signer = provider().key_provider.load_private_key(key).map_err(|e| {
            NetError::Configuration(format!(
                "the private key for {from} cannot be used ({e}); RSA needs 2048 bits or more, elliptic keys P-256, \
                 P-384, P-521 or Ed25519"
            ))
        })?;
        let certified = CertifiedKey::new(chain, signer);
        match certified.keys_match() {
            Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {}
            Err(_) => return Err(mismatch(&certified, from)),
        }
        Ok(Self { certified: Arc::new(certified), facts })
    }

    /// What the certificate says.
    pub fn facts(&self) -> &CertificateFacts {
        &self.facts
    }

    /// The server's own certificate.
    pub(crate) fn leaf(&self) -> &CertificateDer<'static> {
        &self.certified.cert[0]
    }
}

/// Says whether certificate and key belong to different pairs or the chain is in the wrong order.
fn mismatch(certified: &CertifiedKey, from: &str) -> NetError {
    let later = certified.cert.iter().skip(1).any(|certificate| {
        CertifiedKey::new(vec![certificate.clone()], certified.key.clone()).keys_match().is_ok()
    });
    NetError::Configuration(if later {
        format!("{from}: the chain is in the wrong order; the server's own certificate goes first")
    } else {
        format!("{from}: the certificate does not belong to the private key; give the two files of one pair")
    })
}

fn unreadable(option: &str, path: &Path, error: &io::Error) -> NetError {
    let advice = match error.kind() {
        io::ErrorKind::NotFound => "; correct the path, or remove [tls] to use a self-signed certificate",
        io::ErrorKind::PermissionDenied => "; let the user that the relay runs as read it",
        _ => "",
    };
    NetError::Configuration(format!("{option}: cannot read {}: {error}{advice}", path.display()))
}

fn read_chain(pem: &[u8], path: &Path) -> Result<Vec<CertificateDer<'static>>, NetError> {
    let path = path.display();
    let chain = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| NetError::Configuration(format!("{path} is not intact PEM: {e}")))?;
    if !chain.is_empty() {
        return Ok(chain);
    }
    Err(NetError::Configuration(if holds_key(pem) {
        format!("{path} holds a private key but no certificate; are tls.certificate and tls.key swapped?")
    } else {
        format!(
            "{path} holds no certificate; it must contain -----BEGIN CERTIFICATE----- (PEM, not DER or PKCS#12)"
        )
    }))
}

fn read_key(pem: &[u8], path: &Path) -> Result<PrivateKeyDer<'static>, NetError> {
    let shown = path.display();
    if let Ok(key) = PrivateKeyDer::from_pem_slice(pem) {
        return Ok(key);
    }
    let text = String::from_utf8_lossy(pem);
    Err(NetError::Configuration(if text.contains("ENCRYPTED") {
        format!(
            "the private key in {shown} is encrypted; decrypt it: openssl pkey -in {shown} -out plain.key"
        )
    } else if text.contains("BEGIN CERTIFICATE") {
        format!("{shown} holds a certificate but no private key; are tls.certificate and tls.key swapped?")
    } else {
        format!(
            "{shown} holds no private key; it must contain -----BEGIN PRIVATE KEY----- (PEM, not DER or PKCS#12)"
        )
    }))
}

fn holds_key(pem: &[u8]) -> bool {
    <(SectionKind, Vec<u8>)>::pem_slice_iter(pem).any(|section| {
        matches!(
            section,
            Ok((SectionKind::PrivateKey | SectionKind::RsaPrivateKey | SectionKind::EcPrivateKey, _))
        )
    })
}

fn facts_of(leaf: &CertificateDer<'_>, from: &str) -> Result<CertificateFacts, NetError> {
    let (_, parsed) = parse_x509_certificate(leaf)
        .map_err(|e| NetError::Configuration(format!("{from}: not a certificate that can be read: {e}")))?;
    let alternative = parsed.subject_alternative_name().ok().flatten();
    let names = alternative.iter().flat_map(|san| &san.value.general_names).filter_map(|name| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(octets) => match **octets {
            [a, b, c, d] => Some(std::net::Ipv4Addr::new(a, b, c, d).to_string()),
            _ => <[u8; 16]>::try_from(*octets).ok().map(|o| std::net::Ipv6Addr::from(o).to_string()),
        },
        _ => None,
    });
    let mut key_hash = [0; 32];
    key_hash.copy_from_slice(digest(&SHA256, parsed.tbs_certificate.subject_pki.raw).as_ref());
    let millis = |seconds: i64| Timestamp(seconds.saturating_mul(1000));
    Ok(CertificateFacts {
        from: from.to_owned(),
        names: names.collect(),
        issuer: parsed.issuer().to_string(),
        not_before: millis(parsed.validity().not_before.timestamp()),
        not_after: millis(parsed.validity().not_after.timestamp()),
        self_signed: parsed.issuer().as_raw() == parsed.subject().as_raw(),
        key_hash,
    })
}

/// Writes a file that only its owner may read, whole or not at all: beside it first, flushed, then moved over it,
/// and the directory flushed. Directories on the way are made, closed to others.
pub(crate) fn write_private(path: &Path, content: &[u8]) -> Result<(), NetError> {
    let failed = |e| NetError::disk(path, e);
    let directory = path.parent().ok_or_else(|| failed(io::ErrorKind::InvalidInput.into()))?;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
    let beside = path.with_extension("new");
    match fs::remove_file(&beside) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed(e)),
        _ => {}
    }
    let mut file =
        fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside).map_err(failed)?;
    file.write_all(content).and_then(|()| file.sync_all()).map_err(failed)?;
    fs::rename(&beside, path).map_err(failed)?;
    fs::File::open(directory).and_then(|d| d.sync_all()).map_err(failed)
}
