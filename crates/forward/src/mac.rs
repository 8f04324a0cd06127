//! Message authentication codes as text that survives a mail system: truncated, and compared without regard to case,
//! because some systems fold the case of local parts.

use aws_lc_rs::{constant_time, hmac};

/// HMAC over the parts, which the caller has made unambiguous.
pub(crate) fn hmac(algorithm: hmac::Algorithm, key: &[u8], parts: &[&[u8]]) -> hmac::Tag {
    let mut context = hmac::Context::with_key(&hmac::Key::new(algorithm, key));
    for part in parts {
        context.update(part);
    }
    context.sign()
}

/// Whether two texts are the same but for the case of ASCII letters, in a time that tells nothing about where they differ.
pub(crate) fn same_folded(a: &str, b: &str) -> bool {
    let (a, b) = (a.to_ascii_lowercase(), b.to_ascii_lowercase());
    constant_time::verify_slices_are_equal(a.as_bytes(), b.as_bytes()).is_ok()
}
