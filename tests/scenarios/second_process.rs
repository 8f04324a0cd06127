//! Two processes on one data directory: the second is refused and says so; the first does not notice.

use posthouse_tests::client::send_one;
use posthouse_tests::prelude::*;

#[test]
fn a_second_process_on_the_same_data_is_refused() {
    let sink = Sink::start();
    let mut relay = Relay::routed_to(&sink.url());
    let (status, output) = relay.try_cli(&["serve"]);
    assert!(!status.success());
    let pid = relay.pid().to_string();
    assert!(output.contains(&pid) || output.contains("already"), "it says who is there: {output}");
    send_one(relay.smtp(), "me@client.example", &["ann@dest.example"], &Letter::new("one", 500).bytes)
        .expect(250);
    sink.wait_one();
    // A lock file left behind by a killed process is no lock.
    relay.crash();
    send_one(relay.smtp(), "me@client.example", &["ann@dest.example"], &Letter::new("two", 500).bytes)
        .expect(250);
    sink.wait(2, Duration::from_secs(20));
}
