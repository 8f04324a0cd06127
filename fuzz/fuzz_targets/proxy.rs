//! The PROXY protocol: no header panics, and an address that comes out is in its plain form.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(Some(told)) = net::proxy::parse(bytes) {
        assert_eq!(net::normalise(told.source.ip()), told.source.ip());
    }
});
