//! A report that comes in, from anybody: it is read within its bounds or not at all, and what is read can be shown and
//! classified.
#![no_main]

use libfuzzer_sys::fuzz_target;
use report::dsn;

fuzz_target!(|content: &[u8]| {
    let Some(reports) = dsn::read(content) else { return };
    assert!(!reports.is_empty() && reports.len() <= dsn::REPORT_RECIPIENTS_MAX);
    let classifier = report::Classifier::builtin();
    for report in &reports {
        let outcome = report.outcome();
        // A line for people: no line ends, no more than a thousand characters and a mark that it was cut.
        assert!(!outcome.text.contains(['\r', '\n']) && outcome.text.chars().count() <= 1010);
        // Whoever is not sure never has an address suppressed.
        if outcome.disposition != mail::Disposition::Refused {
            assert!(!classifier.classify(&outcome, None).suppresses());
        }
        for address in [&report.final_recipient, &report.original_recipient].into_iter().flatten() {
            assert!(address.contains('@') && address.len() <= 400);
        }
        report.original_message_id();
    }
});
