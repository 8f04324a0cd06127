//! DANE for SMTP (RFC 7672, RFC 7671): TLSA records, and what they ask of a server's certificates.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, SHA512, digest};
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::{CertificateDer, Der, ServerName, TrustAnchor, UnixTime};
use rustls::server::ParsedCertificate;
use x509_parser::parse_x509_certificate;

use super::provider;
use super::verdict::{Verdict, judge};
use crate::CertificateFault;

/// A TLSA record (RFC 6698 section 2.1), as it is in the DNS.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tlsa {
    /// 2: the record names an authority (DANE-TA). 3: it names the server's own certificate (DANE-EE). 0 and 1 mean
    /// nothing to SMTP (RFC 7672 section 3.1.3).
    pub usage: u8,
    /// What is compared. 0: the whole certificate. 1: its public key.
    pub selector: u8,
    /// How. 0: as it is. 1: its SHA-256. 2: its SHA-512.
    pub matching: u8,
    /// What it must be.
    pub data: Box<[u8]>,
}

impl Tlsa {
    /// Whether a certificate can be compared with it. Records that are not usable count as if they were not there, but
    /// for this: a host that has records has TLS (RFC 7672 section 2.2).
    pub fn is_usable(&self) -> bool {
        let length = match self.matching {
            0 => !self.data.is_empty() && self.readable(),
            1 => self.data.len() == 32,
            2 => self.data.len() == 64,
            _ => false,
        };
        matches!(self.usage, 2 | 3) && matches!(self.selector, 0 | 1) && length
    }

    /// Whether data that are neither hash is what the selector says.
    fn readable(&self) -> bool {
        match self.selector {
            0 => parse_x509_certificate(&self.data).is_ok(),
            _ => sequence(&self.data).is_some(),
        }
    }

    fn matches(&self, certificate: &CertificateDer<'_>) -> bool {
        let Ok((_, parsed)) = parse_x509_certificate(certificate) else { return false };
        let selected: &[u8] = match self.selector {
            0 => certificate,
            _ => parsed.tbs_certificate.subject_pki.raw,
        };
        match self.matching {
            0 => selected == &*self.data,
            1 => digest(&SHA256, selected).as_ref() == &*self.data,
            2 => digest(&SHA512, selected).as_ref() == &*self.data,
            _ => false,
        }
    }
}

/// As in a zone file, hashes and keys shortened by nobody: `3 1 1 0b9fa5…`.
impl fmt::Display for Tlsa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {} ", self.usage, self.selector, self.matching)?;
        self.data.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

/// What a server must show: one of these records must match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dane {
    /// The records to go by: usable ones, and of those the ones with the strongest hash.
    records: Box<[Tlsa]>,
    /// The names that a certificate of an authority (usage 2) must be made out for one of: the TLSA base domain and the
    /// recipient's domain (RFC 7672 section 3.2.2).
    names: Box<[Arc<str>]>,
}

impl Dane {
    /// None where no record is usable: then there must be TLS, but nothing can be verified.
    pub fn new(records: &[Tlsa], names: Vec<Arc<str>>) -> Option<Self> {
        let usable: Vec<&Tlsa> = records.iter().filter(|r| r.is_usable()).collect();
        // Who publishes both hashes means the stronger one to count (RFC 7671 section 9).
        let outdone = |weak: &Tlsa| {
            weak.matching == 1
                && usable
                    .iter()
                    .any(|r| r.matching == 2 && (r.usage, r.selector) == (weak.usage, weak.selector))
        };
        let kept: Box<[Tlsa]> = usable.iter().filter(|r| !outdone(r)).map(|r| (*r).clone()).collect();
        (!kept.is_empty()).then(|| Self { records: kept, names: names.into() })
    }

    /// The records that count.
    pub fn records(&self) -> &[Tlsa] {
        &self.records
    }

    /// Verifies the certificates that a server showed, its own first.
    pub(super) fn verify(&self, chain: &[CertificateDer<'_>], now: UnixTime) -> Result<(), Verdict> {
        let (leaf, others) = chain
            .split_first()
            .ok_or_else(|| Verdict::new(CertificateFault::Other, "the server showed no certificate"))?;
        if ParsedCertificate::try_from(leaf).is_err() {
            // The handshake's signature was not verified for such a one: anybody could have shown it.
            let why = "the server's certificate cannot be read, so nothing proves that it has the key to it";
            return Err(Verdict::new(CertificateFault::Other, why));
        }
        // Neither names nor dates matter where the record names the certificate itself (RFC 7671 section 5.1).
        if self.records.iter().any(|r| r.usage == 3 && r.matches(leaf)) {
            return Ok(());
        }
        let anchors = self.anchors(chain);
        if anchors.is_empty() {
            return Err(Verdict::new(
                CertificateFault::Tlsa,
                "none of its certificates matches a TLSA record of the host",
            ));
        }
        self.verify_chain(leaf, others, anchors, now)
    }

    /// The authorities that records of usage 2 name, out of the chain or out of the records themselves.
    fn anchors(&self, chain: &[CertificateDer<'_>]) -> RootCertStore {
        let mut anchors = RootCertStore::empty();
        for record in self.records.iter().filter(|r| r.usage == 2) {
            for certificate in chain.iter().filter(|c| record.matches(c)) {
                anchors.add_parsable_certificates([certificate.clone().into_owned()]);
            }
            if record.matching != 0 {
                continue;
            }
            if record.selector == 0 {
                anchors.add_parsable_certificates([CertificateDer::from(record.data.to_vec())]);
            } else {
                anchors.roots.extend(bare_key(&record.data, chain));
            }
        }
        anchors
    }

    fn verify_chain(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        anchors: RootCertStore,
        now: UnixTime,
    ) -> Result<(), Verdict> {
        let built = WebPkiServerVerifier::builder_with_provider(Arc::new(anchors), provider()).build();
        let verifier = built.map_err(|e| Verdict::new(CertificateFault::Other, e.to_string()))?;
        let mut failed = Verdict::new(CertificateFault::Other, "there is no name to verify it for");
        for name in &self.names {
            let Ok(name) = ServerName::try_from(&**name) else { continue };
            match verifier.verify_server_cert(leaf, others, &name, &[], now) {
                Ok(_) => return Ok(()),
                Err(error) => failed = judge(&error),
            }
        }
        Err(failed)
    }
}

/// An authority of which only the key is known: it may have issued the last certificate that the server showed.
fn bare_key(key: &[u8], chain: &[CertificateDer<'_>]) -> Option<TrustAnchor<'static>> {
    let (_, last) = parse_x509_certificate(chain.last()?).ok()?;
    Some(TrustAnchor {
        subject: Der::from(sequence(last.issuer().as_raw())?.to_vec()),
        subject_public_key_info: Der::from(sequence(key)?.to_vec()),
        name_constraints: None,
    })
}

/// What a DER SEQUENCE that fills `der` holds.
fn sequence(der: &[u8]) -> Option<&[u8]> {
    let (tag, rest) = der.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, content) = match *first {
        short @ 0..=0x7f => (usize::from(short), rest),
        long @ 0x81..=0x83 => {
            let (length, content) = rest.split_at_checked(usize::from(long - 0x80))?;
            (length.iter().fold(0, |sum, octet| sum << 8 | usize::from(*octet)), content)
        }
        _ => return None,
    };
    (*tag == 0x30 && content.len() == length).then_some(content)
}

#[cfg(test)]
mod tests;
