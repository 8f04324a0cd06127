//! TLS and logins inside it.

use net::{Binding, Stream};
use receive::Mode;
use smtp::sasl::{BindingKind, ChannelBinding, Client, Mechanism, Password};

use crate::relay::{Running, limits, listener};
use crate::wire::Wire;

async fn log_in(
    wire: &mut Wire,
    mechanism: Mechanism,
    password: &str,
    binding: Option<ChannelBinding>,
) -> String {
    let mut client = Client::new(mechanism, "user", Password(password.into()), binding);
    let initial = client.initial().unwrap().map(|i| format!(" {i}")).unwrap_or_default();
    let mut reply = wire.say(&format!("AUTH {}{initial}\r\n", mechanism.name()), "").await;
    while let Some(challenge) = reply.strip_prefix("334 ") {
        let response = client.respond(challenge.trim_end()).unwrap();
        reply = wire.say(&format!("{response}\r\n"), "").await;
    }
    assert_eq!(client.finish().is_ok(), reply.starts_with("235") || !mechanism.name().starts_with("SCRAM"));
    reply
}

fn binding(stream: &Stream, binding: Binding, kind: BindingKind) -> Option<ChannelBinding> {
    Some(ChannelBinding { kind, data: stream.channel_binding(binding).expect("it has that binding") })
}

#[tokio::test]
async fn starttls_and_every_mechanism() {
    let mut running = Running::start(listener(Mode::Submission), limits());
    let exporter = (Binding::TlsExporter, BindingKind::Exporter);
    let end_point = (Binding::TlsServerEndPoint, BindingKind::ServerEndPoint);
    for (mechanism, bound) in [
        (Mechanism::Plain, None),
        (Mechanism::Login, None),
        (Mechanism::ScramSha256, None),
        (Mechanism::ScramSha256Plus, Some(exporter)),
        (Mechanism::ScramSha256Plus, Some(end_point)),
    ] {
        let mut wire = Wire::silent(running.address).await;
        wire.expect("220").await;
        let offered = wire.say("EHLO client.example\r\n", "250").await;
        assert!(offered.contains("STARTTLS") && !offered.contains("AUTH"), "{offered}");
        wire.say("AUTH PLAIN AHVzZXIAc2VjcmV0\r\n", "538 5.7.11").await;
        wire.say("STARTTLS\r\n", "220").await;
        let mut wire = wire.start_tls().await;
        wire.say("MAIL FROM:<a@b.example>\r\n", "503").await;
        let offered = wire.say("EHLO client.example\r\n", "250").await;
        assert!(offered.contains("AUTH SCRAM-SHA-256-PLUS SCRAM-SHA-256 PLAIN LOGIN"), "{offered}");
        assert!(!offered.contains("STARTTLS"));
        let bound = bound.and_then(|(kind, name)| binding(&wire.stream, kind, name));
        let refused = log_in(&mut wire, mechanism, "wrong", bound.clone()).await;
        assert!(refused.starts_with("535 5.7.8"), "{mechanism:?}: {refused}");
        let accepted = log_in(&mut wire, mechanism, "secret", bound).await;
        assert!(accepted.starts_with("235 2.7.0"), "{mechanism:?}: {accepted}");
        wire.deliver("a@b.example", &["c@d.example"], "x\r\n", "250").await;
        let got = running.next().await;
        assert!(got.content.contains("with ESMTPSA id"), "{}", got.content);
        assert!(got.message.origin.tls.expect("TLS").version.starts_with("TLS"));
        wire.say("QUIT\r\n", "221").await;
        wire.closed().await;
    }
}

#[tokio::test]
async fn a_binding_of_another_connection_is_refused() {
    let running = Running::start(listener(Mode::Submissions), limits());
    let mut wire = Wire::silent(running.address).await.start_tls().await;
    wire.expect("220").await;
    wire.say("EHLO client.example\r\n", "250").await;
    let foreign = ChannelBinding { kind: BindingKind::Exporter, data: vec![0; 32] };
    let mut client =
        Client::new(Mechanism::ScramSha256Plus, "user", Password("secret".into()), Some(foreign));
    let initial = client.initial().unwrap().unwrap();
    let challenge = wire.say(&format!("AUTH SCRAM-SHA-256-PLUS {initial}\r\n"), "334 ").await;
    let response = client.respond(challenge[4..].trim_end()).unwrap();
    wire.say(&format!("{response}\r\n"), "535 5.7.8").await;
}

#[tokio::test]
async fn implicit_tls_greets_inside() {
    let mut running = Running::start(listener(Mode::Submissions), limits());
    let mut wire = Wire::silent(running.address).await.start_tls().await;
    wire.expect("220").await;
    let offered = wire.say("EHLO client.example\r\n", "250").await;
    assert!(!offered.contains("STARTTLS") && offered.contains("AUTH"), "{offered}");
    wire.say("STARTTLS\r\n", "503").await;
    wire.say("AUTH PLAIN AHVzZXIAc2VjcmV0\r\n", "235").await;
    wire.deliver("a@b.example", &["c@d.example"], "x\r\n", "250").await;
    running.next().await;
    // In the clear nothing is said.
    let mut plain = Wire::silent(running.address).await;
    plain.send("EHLO client.example\r\n").await;
    let mut answer = Vec::new();
    let _ = tokio::io::AsyncReadExt::read_to_end(&mut plain.stream, &mut answer).await;
    assert!(!answer.starts_with(b"220"));
}

#[tokio::test]
async fn what_follows_starttls_is_never_answered() {
    let running = Running::start(listener(Mode::Smtp), limits());
    let mut wire = Wire::connect(running.address).await;
    wire.say("STARTTLS\r\nMAIL FROM:<x@y.example>\r\n", "421").await;
    wire.closed().await;
    let mut hello = Wire::silent(running.address).await;
    hello.expect("220").await;
    hello.send("\x16\x03\x01\x02\x00\x01").await;
    hello.closed().await;
}

#[tokio::test]
async fn a_chunk_cut_off_by_close_notify_is_nothing() {
    let running = Running::start(listener(Mode::Smtp), limits());
    let mut wire = Wire::connect(running.address).await;
    wire.say("STARTTLS\r\n", "220").await;
    let mut wire = wire.start_tls().await;
    wire.say("EHLO client.example\r\n", "250").await;
    wire.say("MAIL FROM:<a@b.example>\r\n", "250").await;
    wire.say("RCPT TO:<c@d.example>\r\n", "250").await;
    wire.send("BDAT 100 LAST\r\nSubject: x\r\n").await;
    tokio::io::AsyncWriteExt::shutdown(&mut wire.stream).await.unwrap();
    wire.closed().await;
    running.nothing().await;
}

/// REQUIRETLS and `TLS-Required: No` (RFC 8689) reach the message, and the stream of the login with them.
#[tokio::test]
async fn wishes_about_tls_are_noted() {
    let mut running = Running::start(listener(Mode::Smtp), limits());
    let mut wire = Wire::silent(running.address).await;
    wire.expect("220").await;
    let offered = wire.say("EHLO client.example\r\n", "250").await;
    assert!(!offered.contains("REQUIRETLS"), "{offered}");
    wire.say("MAIL FROM:<a@b.example> REQUIRETLS\r\n", "530 5.7.10").await;
    wire.deliver("a@b.example", &["c@d.example"], "TLS-Required: No\r\n\r\nx\r\n", "250").await;
    let message = running.next().await.message;
    assert_eq!((message.require_tls, message.tls_optional), (false, true));
    assert_eq!(message.stream, mail::Stream::Transactional);

    wire.say("STARTTLS\r\n", "220").await;
    let mut wire = wire.start_tls().await;
    let offered = wire.say("EHLO client.example\r\n", "250").await;
    assert!(offered.contains("250-REQUIRETLS\r\n"), "{offered}");
    log_in(&mut wire, Mechanism::Plain, "secret", None).await;
    wire.say("MAIL FROM:<a@b.example> REQUIRETLS\r\n", "250").await;
    wire.say("RCPT TO:<c@d.example>\r\n", "250").await;
    wire.say("DATA\r\n", "354").await;
    wire.say("TLS-Required: No\r\n\r\nx\r\n.\r\n", "250").await;
    let message = running.next().await.message;
    assert_eq!((message.require_tls, message.tls_optional), (true, false), "REQUIRETLS counts for more");
    assert_eq!(message.stream, mail::Stream::Bulk, "the login's");
}
