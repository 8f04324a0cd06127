//! TLSA records with anything in them: what counts can be compared with a certificate, what does not is passed over, and
//! as text a record is one line of a zone file.
#![no_main]

use libfuzzer_sys::fuzz_target;
use net::{Dane, Tlsa};

fuzz_target!(|input: Vec<(u8, u8, u8, Vec<u8>)>| {
    let records: Vec<Tlsa> = input
        .into_iter()
        // Fields of the registry are small; larger ones are kept as they are now and then.
        .map(|(usage, selector, matching, data)| Tlsa {
            usage: if usage < 240 { usage % 4 } else { usage },
            selector: if selector < 240 { selector % 3 } else { selector },
            matching: if matching < 240 { matching % 4 } else { matching },
            data: data.into(),
        })
        .collect();
    for record in &records {
        let text = record.to_string();
        assert!(text.bytes().all(|b| b.is_ascii_hexdigit() || b == b' '), "{text}");
        assert!(!record.is_usable() || (matches!(record.usage, 2 | 3) && !record.data.is_empty()));
    }
    match Dane::new(&records, vec!["mx.example".into()]) {
        None => assert!(!records.iter().any(Tlsa::is_usable)),
        Some(dane) => {
            assert!(!dane.records().is_empty());
            assert!(dane.records().iter().all(|kept| kept.is_usable() && records.contains(kept)));
        }
    }
});
