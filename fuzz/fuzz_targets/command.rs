//! Command lines: no line panics, what parses as an address is one, and each error has a reply that stands.
#![no_main]

use libfuzzer_sys::fuzz_target;
use smtp::grammar::{Command, ForwardPath, parse, xtext};

fuzz_target!(|line: &[u8]| {
    match parse(line) {
        Ok(Command::Mail(mail)) => {
            if let Some(address) = mail.reverse_path {
                assert_eq!(mail::Address::parse(address.as_str()), Ok(address));
            }
            assert!(mail.envid.is_none_or(|e| xtext::decode(&e).is_some()));
        }
        Ok(Command::Rcpt(rcpt)) => {
            if let ForwardPath::Mailbox(address) = rcpt.path {
                assert!(!address.as_str().contains(['\r', '\n', '\0']));
                assert_eq!(mail::Address::parse(address.as_str()), Ok(address));
            }
        }
        Ok(_) => {}
        Err(error) => assert!((400..600).contains(&error.reply().code)),
    }
});
