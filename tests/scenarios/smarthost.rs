//! Smart hosts: logging in, TLS modes, a second host when the first is dead, and what `check` says about them.

use posthouse_tests::client::send_one;
use posthouse_tests::prelude::*;
use posthouse_tests::sink::{self, Options};
use posthouse_tests::tls::Certificate;

fn upstream(dir: &std::path::Path, implicit_tls: bool) -> (Sink, Certificate) {
    let certificate = Certificate::make(dir, &["localhost", "127.0.0.1"]);
    let options = Options { certificate: Some(certificate.clone()), implicit_tls, ..Options::default() };
    let options = options.extensions(&["PIPELINING", "8BITMIME", "DSN", "AUTH PLAIN LOGIN"]).script(
        |stage| match stage {
            Stage::Auth(said) if !said.contains("AHVwAHNlc2FtZQ==") => sink::reply("535 5.7.8 wrong"),
            _ => Act::Usual,
        },
    );
    (Sink::with(options), certificate)
}

fn config(sink: &Sink, certificate: &Certificate, tls: &str, password: &str) -> String {
    let hosts = format!("localhost:{}", sink.addr().port());
    let ca = certificate.certificate.display();
    format!(
        "[tls]\nca_file = \"{ca}\"\n[[route]]\nto = \"smarthost:upstream\"\n[smarthost.upstream]\nhosts = [\"{hosts}\"]\n\
         tls = \"{tls}\"\nusername = \"up\"\npassword = \"{password}\"\n"
    )
}

#[test]
fn it_logs_in_inside_verified_tls() {
    for (tls, implicit) in [("required", false), ("implicit", true)] {
        let dir = tempfile::tempdir().unwrap();
        let (sink, certificate) = upstream(dir.path(), implicit);
        let relay = Relay::builder().toml(&config(&sink, &certificate, tls, "sesame")).start();
        let letter = Letter::odd(format!("smarthost-{tls}"));
        send_one(relay.smtp(), "me@client.example", &["ann@dest.example"], &letter.bytes).expect(250);
        let got = sink.wait_one();
        letter.assert_arrived(&got.data);
        assert!(got.tls && got.auth.is_some());
        let (status, output) = relay.try_cli(&["check"]);
        assert!(output.contains("upstream"), "{status}: {output}");
    }
}

#[test]
fn without_tls_or_with_a_foreign_certificate_required_means_wait() {
    let dir = tempfile::tempdir().unwrap();
    let (with_tls, certificate) = upstream(dir.path(), false);
    let plain = Sink::with(Options::default().extensions(&["AUTH PLAIN"]));
    for (sink, config) in [
        (&plain, config(&plain, &certificate, "required", "sesame")),
        (&with_tls, config(&with_tls, &certificate, "required", "sesame").replace("ca_file", "# ca_file")),
    ] {
        let relay = Relay::builder().toml(&config).start();
        send_one(relay.smtp(), "me@client.example", &["ann@dest.example"], &Letter::new("never", 500).bytes)
            .expect(250);
        eventually("it was put off with the reason", Duration::from_secs(20), || {
            let (_, trace) = relay.try_cli(&["trace", "me@client.example"]);
            (trace.contains("TLS") || trace.contains("certificate")).then_some(())
        });
        assert_eq!(sink.count(), 0);
        assert!(
            !sink.commands().iter().any(|c| c.contains("AUTH")),
            "the password was shown: {:?}",
            sink.commands()
        );
    }
}

#[test]
fn a_wrong_password_is_told_by_check_and_keeps_the_mail() {
    let dir = tempfile::tempdir().unwrap();
    let (sink, certificate) = upstream(dir.path(), false);
    let relay = Relay::builder().toml(&config(&sink, &certificate, "required", "wrong")).start();
    let (status, output) = relay.try_cli(&["check"]);
    assert_eq!(status.code(), Some(1), "{output}");
    assert!(
        output.contains("upstream") && (output.contains("password") || output.contains("535")),
        "{output}"
    );
    send_one(relay.smtp(), "me@client.example", &["ann@dest.example"], &Letter::new("kept", 500).bytes)
        .expect(250);
    eventually("it was tried", Duration::from_secs(20), || {
        relay.try_cli(&["trace", "me@client.example"]).1.contains("535").then_some(())
    });
    assert_eq!(relay.queue().len(), 1);
    relay.reconfigure(|old| old.replace("password = \"wrong\"", "password = \"sesame\""));
    relay.cli(&["reload"]);
    sink.wait_one();
}

#[test]
fn the_second_host_takes_over_when_the_first_is_dead() {
    let sink = Sink::start();
    let dead = free_port();
    let relay = Relay::builder()
        .toml(&format!(
            "[[route]]\nto = \"smarthost:pair\"\n[smarthost.pair]\nhosts = [\"127.0.0.1:{dead}\", \"{}\"]\ntls = \"none\"\n",
            sink.addr()
        ))
        .start();
    let letter = Letter::new("second", 500);
    send_one(relay.smtp(), "me@client.example", &["ann@dest.example"], &letter.bytes).expect(250);
    letter.assert_arrived(&sink.wait_one().data);
}

#[test]
fn a_host_that_is_not_ready_is_passed_over_and_shown() {
    let busy = Sink::with(Options::default().script(|stage| match stage {
        Stage::Mail(_) => sink::reply("451 4.3.2 come back later"),
        _ => Act::Usual,
    }));
    let (good, dead) = (Sink::start(), free_port());
    let relay = Relay::builder()
        .toml(&format!(
            "[[route]]\nto = \"smarthost:three\"\n[smarthost.three]\n\
             hosts = [\"127.0.0.1:{dead}\", \"{}\", \"{}\"]\ntls = \"none\"\n",
            busy.addr(),
            good.addr()
        ))
        .start();
    for n in 0..5 {
        let letter = Letter::new(format!("passed-over-{n}"), 500);
        send_one(relay.smtp(), "me@client.example", &["ann@dest.example"], &letter.bytes).expect(250);
        letter.assert_arrived(&good.wait(n + 1, Duration::from_secs(20))[n].data);
    }
    relay.wait_empty(Duration::from_secs(10));
    // Each cost one try, not one for each message.
    assert_eq!(busy.connections(), 1, "{:?}", busy.commands());
    let shown = relay.cli(&["smarthost", "show", "three"]);
    let says = |port: u16, words: &str| {
        let start = format!("127.0.0.1:{port}: ");
        assert!(shown.lines().any(|line| line.starts_with(&start) && line.contains(words)), "{shown}");
    };
    says(dead, "refused");
    says(busy.addr().port(), "come back later");
    says(good.addr().port(), "ok");
}
