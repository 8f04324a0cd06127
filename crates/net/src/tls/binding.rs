//! What a login can be bound to: RFC 9266 and RFC 5929.

use aws_lc_rs::digest::{self, Algorithm};
use rustls::pki_types::CertificateDer;
use rustls::{ConnectionCommon, ProtocolVersion};
use x509_parser::oid_registry::Oid;
use x509_parser::parse_x509_certificate;
use x509_parser::signature_algorithm::SignatureAlgorithm;

/// `tls-exporter` (RFC 9266). Only for TLS 1.3: below it, it is safe only with an extension that rustls does not
/// tell us of.
pub(super) fn exporter<Data>(connection: &ConnectionCommon<Data>) -> Option<Vec<u8>> {
    if connection.protocol_version() != Some(ProtocolVersion::TLSv1_3) {
        return None;
    }
    let secret = connection.export_keying_material([0u8; 32], b"EXPORTER-Channel-Binding", Some(b"")).ok()?;
    Some(secret.to_vec())
}

/// `tls-server-end-point` (RFC 5929 section 4.1): the certificate under the hash of its own signature, MD5 and SHA-1
/// replaced by SHA-256. None where the signature has no hash of its own.
pub(super) fn server_end_point(certificate: &CertificateDer<'_>) -> Option<Vec<u8>> {
    let (_, parsed) = parse_x509_certificate(certificate).ok()?;
    let signature = &parsed.signature_algorithm;
    let algorithm = match SignatureAlgorithm::try_from(signature).ok()? {
        SignatureAlgorithm::RSASSA_PSS(parameters) => hash_named(parameters.hash_algorithm_oid()),
        _ => hash_of_signature(&signature.algorithm),
    }?;
    Some(digest::digest(algorithm, certificate).as_ref().to_vec())
}

fn hash_named(oid: &Oid<'_>) -> Option<&'static Algorithm> {
    match oid.to_id_string().as_str() {
        // SHA-1 counts as SHA-256.
        "1.3.14.3.2.26" | "2.16.840.1.101.3.4.2.1" => Some(&digest::SHA256),
        "2.16.840.1.101.3.4.2.2" => Some(&digest::SHA384),
        "2.16.840.1.101.3.4.2.3" => Some(&digest::SHA512),
        "2.16.840.1.101.3.4.2.4" => Some(&digest::SHA224),
        _ => None,
    }
}

fn hash_of_signature(oid: &Oid<'_>) -> Option<&'static Algorithm> {
    match oid.to_id_string().as_str() {
        // RSA or ECDSA with MD5, SHA-1 or SHA-256.
        "1.2.840.113549.1.1.4" | "1.2.840.113549.1.1.5" | "1.2.840.113549.1.1.11" => Some(&digest::SHA256),
        "1.2.840.10045.4.1" | "1.2.840.10045.4.3.2" => Some(&digest::SHA256),
        "1.2.840.113549.1.1.12" | "1.2.840.10045.4.3.3" => Some(&digest::SHA384),
        "1.2.840.113549.1.1.13" | "1.2.840.10045.4.3.4" => Some(&digest::SHA512),
        "1.2.840.113549.1.1.14" | "1.2.840.10045.4.3.1" => Some(&digest::SHA224),
        _ => None,
    }
}
