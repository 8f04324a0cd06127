//! The next hop takes the message, but its reply is lost (RFC 1047): the same message again, no report, no other harm.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use posthouse_tests::client::send_one;
use posthouse_tests::prelude::*;
use posthouse_tests::sink::Options;

posthouse_tests::on_both_engines!(
    a_lost_final_reply_means_one_more_copy_and_no_report,
    a_peer_that_closes_at_any_stage_is_tried_again,
);

fn a_lost_final_reply_means_one_more_copy_and_no_report(engine: &Engine) {
    let lost = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&lost);
    let sink = Sink::with(Options::default().script(move |stage| match stage {
        Stage::Message(_) if count.fetch_add(1, Ordering::SeqCst) == 0 => Act::LoseReply,
        _ => Act::Usual,
    }));
    let relay = engine.routed_to(&sink.url());
    let letter = Letter::odd("lost");
    send_one(relay.smtp(), "me@client.example", &["ann@dest.example"], &letter.bytes).expect(250);
    let all = sink.wait(2, Duration::from_secs(30));
    for message in &all {
        letter.assert_arrived(&message.data);
        assert_eq!(message.sender(), "me@client.example");
    }
    relay.wait_empty(Duration::from_secs(10));
    assert_eq!(sink.count(), 2);
}

fn a_peer_that_closes_at_any_stage_is_tried_again(engine: &Engine) {
    for stage_number in 0..5 {
        let first = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&first);
        let sink = Sink::with(Options::default().extensions(&["8BITMIME"]).script(move |stage| {
            let at = match stage {
                Stage::Connect => 0,
                Stage::Hello(_) => 1,
                Stage::Mail(_) => 2,
                Stage::Rcpt(_) => 3,
                Stage::Data(_) => 4,
                _ => return Act::Usual,
            };
            if at == stage_number && count.fetch_add(1, Ordering::SeqCst) == 0 {
                Act::Close
            } else {
                Act::Usual
            }
        }));
        let relay = engine.routed_to(&sink.url());
        let letter = Letter::new(format!("closed-at-{stage_number}"), 1_000);
        send_one(relay.smtp(), "me@client.example", &["ann@dest.example"], &letter.bytes).expect(250);
        letter.assert_arrived(&sink.wait_one().data);
        relay.wait_empty(Duration::from_secs(10));
        assert_eq!(sink.count(), 1);
    }
}
