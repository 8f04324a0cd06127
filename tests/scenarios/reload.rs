//! A new configuration under live sessions; a bad one that leaves the old one running.

use posthouse_tests::client::send_one;
use posthouse_tests::prelude::*;
use posthouse_tests::tls::Certificate;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

#[test]
fn a_reload_changes_routes_under_live_sessions_without_a_reset() {
    let (first, second) = (Sink::start(), Sink::start());
    let relay = Relay::routed_to(&first.url());
    let mut sessions: Vec<Smtp> = (0..100)
        .map(|_| {
            let mut smtp = Smtp::connect(relay.smtp());
            smtp.ehlo();
            smtp.cmd("MAIL FROM:<me@client.example>").expect(250);
            smtp
        })
        .collect();
    relay.reconfigure(|old| old.replace(&first.url(), &second.url()));
    relay.cli(&["reload"]);
    for (n, smtp) in sessions.iter_mut().enumerate() {
        smtp.cmd("RCPT TO:<ann@dest.example>").expect(250);
        smtp.data(&Letter::new(format!("reload-{n}"), 500).bytes).expect(250);
    }
    second.wait(100, Duration::from_secs(30));
    assert_eq!(first.count(), 0);
}

#[test]
fn a_bad_configuration_leaves_the_old_one_running_and_is_told() {
    let sink = Sink::start();
    let mut relay = Relay::routed_to(&sink.url());
    relay.reconfigure(|old| old.replace("[relay]\nnetworks", "[relay]\nnetwroks"));
    let (status, output) = relay.try_cli(&["reload"]);
    assert!(!status.success());
    assert!(output.contains("netwroks") && output.contains("networks"), "line and nearest name:\n{output}");
    let lines = relay.daemon().lines();
    kill(Pid::from_raw(relay.pid()), Signal::SIGHUP).unwrap();
    relay
        .daemon()
        .wait_line("the complaint", Duration::from_secs(10), lines, |l| l.contains("netwroks").then_some(()));
    send_one(relay.smtp(), "me@client.example", &["ann@dest.example"], &Letter::new("still", 500).bytes)
        .expect(250);
    sink.wait_one();
}

#[test]
fn a_new_certificate_is_used_from_the_next_handshake_on_and_no_session_is_cut() {
    let dir = tempfile::tempdir().unwrap();
    let sub = |name: &str| {
        let path = dir.path().join(name);
        std::fs::create_dir(&path).unwrap();
        path
    };
    let old = Certificate::make(&sub("old"), &["relay.test"]);
    let new = Certificate::make(&sub("new"), &["relay.test"]);
    let live = sub("live");
    let place = |c: &Certificate| {
        std::fs::copy(&c.certificate, live.join("certificate.pem")).unwrap();
        std::fs::copy(&c.key, live.join("key.pem")).unwrap();
    };
    place(&old);
    let quoted = |name: &str| format!("\"{}\"", live.join(name).display());
    let builder = Relay::builder().set("tls", "certificate", &quoted("certificate.pem")).set(
        "tls",
        "key",
        &quoted("key.pem"),
    );
    let relay = builder.start();
    let mut before = Smtp::connect_tls(relay.submissions());
    before.ehlo();
    assert_eq!(before.certificate(), old.der());
    place(&new);
    relay.cli(&["reload"]);
    let after = Smtp::connect_tls(relay.submissions());
    assert_eq!(after.certificate(), new.der());
    before.cmd("NOOP").expect(250);
}
