//! MTA-STS policies and the TXT records of MTA-STS and TLS reports: what is read can be written and read again, and
//! nothing in it is more than it says.
#![no_main]

use libfuzzer_sys::fuzz_target;
use net::sts::StsPolicy;
use net::sts::policy::{MAX_AGE_S, record_id};

fuzz_target!(|text: &str| {
    if let Ok(policy) = text.parse::<StsPolicy>() {
        assert!(policy.max_age_s <= MAX_AGE_S);
        assert_eq!(policy.lines().join("\r\n").parse::<StsPolicy>().as_ref(), Ok(&policy));
        for mx in &policy.mx {
            assert!(mx.is_ascii() && !mx.contains(char::is_whitespace), "{mx:?}");
        }
    }
    let records: Vec<String> = text.split('\n').map(str::to_owned).collect();
    if let Some(id) = record_id(&records) {
        assert!((1..=32).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric()));
    }
    for address in net::report_addresses(&records) {
        let shown = format!("{address:?}");
        assert!(!shown.contains(['\r', '\n']), "{shown}");
    }
    if let Ok(egress) = text.parse::<net::Egress>() {
        assert!(egress.to_string().contains("://"));
    }
});
