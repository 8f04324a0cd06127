//! A From header field of mail whose sender domains are limited: whatever it says, what is taken for its domains are
//! domains that it names, and none of its mailboxes is overlooked.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|field: &str| {
    let Some(domains) = check::author::domains(field) else { return };
    assert!(!domains.is_empty());
    let lower = field.to_lowercase();
    for domain in &domains {
        assert_eq!(mail::domain_to_ascii(domain).as_deref(), Some(domain.as_str()));
        assert!(!field.is_ascii() || lower.contains(domain.as_str()), "{domain:?} is not in {field:?}");
    }
    // Outside quotes and comments every @ belongs to a mailbox or to a name in front of one.
    if !field.contains(['"', '(', '<']) {
        assert_eq!(field.matches('@').count(), domains.len());
    }
});
