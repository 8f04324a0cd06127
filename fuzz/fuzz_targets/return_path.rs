//! Recipients that pretend to be signed here: whatever they say, nothing but what we made is believed, and what is made of
//! any sender is turned back into it.
#![no_main]

use forward::{Keys, ReturnPaths, Srs};
use libfuzzer_sys::fuzz_target;
use mail::{Address, Timestamp};

const NOW: Timestamp = Timestamp(1_795_500_000_000);

fuzz_target!(|text: &str| {
    let keys = Keys::parse("a key that no fuzzer knows of").unwrap();
    let srs = Srs::new("ours.example", keys.clone()).unwrap();
    let paths = ReturnPaths::new("ours.example", keys).unwrap();
    if let Ok(pretended) = Address::parse(&format!("{text}@ours.example")) {
        // In a local part of 64 octets four characters of hash are enough, which a fuzzer may come upon.
        assert!(pretended.local().len() == 64 || srs.reverse(&pretended, NOW).is_err(), "{pretended}");
        assert!(paths.verify(&pretended, NOW).is_err(), "{pretended}");
    }
    let Ok(sender) = Address::parse(text) else { return };
    if sender.domain() == "ours.example" {
        return;
    }
    if let Ok(made) = srs.forward(&sender, NOW) {
        assert!(made.local().len() <= 64, "{made}");
        // Of an address that another forwarder made, its end is kept, not its middle.
        if made.local().trim_start_matches('"').starts_with("SRS0=") {
            let back = srs.reverse(&made, NOW).expect("what we made");
            // An international domain comes back in A-labels, which is what it is routed by.
            assert_eq!((back.local(), back.domain()), (sender.local(), sender.domain()));
        }
    }
});
