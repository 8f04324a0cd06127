//! Logging in: what is offered where, what a stranger can learn, and what stops guessing.

use posthouse_tests::prelude::*;

#[test]
fn auth_is_not_offered_in_the_clear_except_where_configured() {
    let relay = Relay::builder().networks(&[]).prepare();
    relay.reconfigure(|old| old.replace("auth_without_tls = [\"127.0.0.0/8\"]", "auth_without_tls = []"));
    let mut relay = relay;
    relay.start();
    let password = relay.credential("office", &[]);
    let mut smtp = Smtp::connect(relay.submission());
    assert!(!smtp.ehlo().mentions("AUTH"));
    let reply = smtp.auth_plain("office", &password);
    assert!([530, 538].contains(&reply.code), "{reply}");
    smtp.starttls();
    assert!(smtp.ehlo().mentions("AUTH"));
    smtp.auth_plain("office", &password).expect(235);
    smtp.auth_plain("office", &password).expect(503);
}

#[test]
fn unknown_login_and_wrong_password_look_the_same() {
    let relay = Relay::builder().networks(&[]).start();
    relay.credential("office", &[]);
    let refusal = |login: &str| {
        let mut smtp = Smtp::connect(relay.submission());
        smtp.ehlo();
        smtp.auth_plain(login, "wrong").expect(535)
    };
    assert_eq!(refusal("office"), refusal("nobody-of-this-name"));
}

#[test]
fn a_dialogue_can_be_broken_off_and_nonsense_is_refused() {
    let relay = Relay::builder().networks(&[]).start();
    let mut smtp = Smtp::connect(relay.submission());
    smtp.ehlo();
    smtp.cmd("AUTH LOGIN").expect(334);
    smtp.cmd("*").expect(501);
    smtp.cmd("AUTH PLAIN !!!").expect(501);
    smtp.cmd("AUTH NONSENSE").expect(504);
    smtp.cmd("NOOP").expect(250);
}

#[test]
fn a_credential_that_was_removed_is_dead_at_once() {
    let sink = Sink::start();
    let relay = Relay::builder().networks(&[]).route(&[], &sink.url()).start();
    let password = relay.credential("temp", &[]);
    let login = || {
        let mut smtp = Smtp::connect(relay.submission());
        smtp.ehlo();
        smtp.auth_plain("temp", &password)
    };
    login().expect(235);
    relay.cli(&["credential", "remove", "temp"]);
    login().expect(535);
}

#[test]
fn a_credential_made_while_stopped_works_after_the_start() {
    let sink = Sink::start();
    let mut relay = Relay::builder().networks(&[]).route(&[], &sink.url()).prepare();
    let password = relay.credential("early", &[]);
    relay.start();
    let mut smtp = Smtp::connect(relay.submission());
    smtp.ehlo();
    smtp.auth_plain("early", &password).expect(235);
    smtp.transact("me@client.example", &["ann@dest.example"], &Letter::new("early", 500).bytes).expect(250);
    sink.wait_one();
}

#[test]
fn guessing_is_slowed_down_and_the_owner_still_gets_in() {
    let relay = Relay::builder().networks(&[]).start();
    let password = relay.credential("office", &[]);
    for _ in 0..10 {
        let mut smtp = Smtp::connect(relay.submission());
        smtp.ehlo();
        let reply = smtp.auth_plain("office", "guess");
        assert!([535, 454, 421].contains(&reply.code), "{reply}");
    }
    // From another address the right password must work within 30 s.
    eventually("the owner gets in", Duration::from_secs(31), || {
        let mut smtp = Smtp::connect(relay.submission());
        smtp.ehlo();
        (smtp.auth_plain("office", &password).code == 235).then_some(())
    });
}
