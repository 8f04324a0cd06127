//! What the dialogues cannot show: SCRAM with a real client, shutdown, abandoned content.

use super::*;
use crate::sasl::{BindingKind, ChannelBinding, Client, Mechanism, ScramVerifier};

fn session(connection: Connection) -> Session {
    let settings = Settings {
        hostname: "relay.example".into(),
        tls: true,
        auth: true,
        scram: true,
        message_size_max: 1000,
        recipients_max: 10,
        messages_max: 10,
        errors_max: 5,
        idle_commands_max: 10,
        bare_newline: BareNewline::Refuse,
    };
    Session::new(Arc::new(Config::new(settings)), connection)
}

fn said(session: &mut Session) -> String {
    let text = String::from_utf8(session.output().to_vec()).unwrap();
    session.output().clear();
    text
}

#[test]
fn scram_with_channel_binding() {
    let binding = ChannelBinding { kind: BindingKind::ServerEndPoint, data: vec![7; 32] };
    let connection = Connection { tls: true, bindings: vec![binding.clone()], ..Connection::default() };
    let mut session = session(connection);
    let mut client =
        Client::new(Mechanism::ScramSha256Plus, "user", Password("secret".into()), Some(binding));
    let initial = client.initial().unwrap().unwrap();
    let mut buffer = BytesMut::from(&b"EHLO a\r\n"[..]);
    assert!(matches!(session.input(&mut buffer), Step::Read));
    assert!(said(&mut session).contains("AUTH SCRAM-SHA-256-PLUS SCRAM-SHA-256 PLAIN LOGIN\r\n"));

    buffer.extend_from_slice(format!("AUTH SCRAM-SHA-256-PLUS {initial}\r\n").as_bytes());
    let Step::Verifier { login } = session.input(&mut buffer) else { panic!() };
    assert_eq!(login, "user");
    session.verifier(ScramVerifier::new("secret").unwrap());
    for _ in 0..2 {
        assert!(matches!(session.input(&mut buffer), Step::Read));
        let challenge = said(&mut session);
        let response = client.respond(challenge.strip_prefix("334 ").unwrap().trim_end()).unwrap();
        buffer.extend_from_slice(format!("{response}\r\n").as_bytes());
    }
    let Step::Scram { login, proven } = session.input(&mut buffer) else { panic!() };
    assert!(login == "user" && proven && client.finish().is_ok());
    session.authenticated(AuthVerdict::Ok);
    assert!(said(&mut session).starts_with("235 "));
    buffer.extend_from_slice(b"EHLO a\r\n");
    assert!(matches!(session.input(&mut buffer), Step::Read));
    assert!(!said(&mut session).contains("AUTH"), "nobody authenticates twice");
}

/// Brings a session to where content is expected.
fn in_data(buffer: &mut BytesMut) -> Session {
    let mut session = session(Connection::default());
    buffer.extend_from_slice(b"EHLO a\r\nMAIL FROM:<>\r\nRCPT TO:<a@b.example>\r\nDATA\r\n");
    assert!(matches!(session.input(buffer), Step::Mail { .. }));
    session.allow();
    assert!(matches!(session.input(buffer), Step::Rcpt { .. }));
    session.allow();
    assert!(matches!(session.input(buffer), Step::Begin { .. }));
    session.allow();
    assert!(matches!(session.input(buffer), Step::Read));
    said(&mut session);
    session
}

#[test]
fn a_transaction_is_finished_before_the_shutdown() {
    let mut buffer = BytesMut::new();
    let mut session = in_data(&mut buffer);
    session.shut_down();
    buffer.extend_from_slice(b"x\r\n.\r\nMAIL FROM:<>\r\n");
    assert!(matches!(session.input(&mut buffer), Step::Content(b"x\r\n")));
    let Step::End(envelope) = session.input(&mut buffer) else { panic!() };
    assert_eq!(envelope.recipients.len(), 1);
    session.accepted("ID");
    assert!(matches!(session.input(&mut buffer), Step::Close));
    let text = said(&mut session);
    assert!(text.starts_with("250 2.0.0 OK, queued as ID\r\n421 4.3.2 "), "{text}");

    let mut idle = self::session(Connection::default());
    idle.shut_down();
    assert!(said(&mut idle).contains("\r\n421 4.3.2 "));
    assert!(matches!(idle.input(&mut buffer), Step::Close));
}

#[test]
fn abandoned_content_is_read_to_its_end_and_refused_once() {
    let mut buffer = BytesMut::new();
    let mut session = in_data(&mut buffer);
    buffer.extend_from_slice(b"one\r\n");
    assert!(matches!(session.input(&mut buffer), Step::Content(_)));
    session.abandon(Reply::new(452, EnhancedStatus::new(4, 3, 1), "No room"));
    assert!(matches!(session.input(&mut buffer), Step::Read));
    buffer.extend_from_slice(b"two\r\n.\r\nNOOP\r\n");
    assert!(matches!(session.input(&mut buffer), Step::Read));
    assert_eq!(said(&mut session), "452 4.3.1 No room\r\n250 2.0.0 OK\r\n");
}

#[test]
fn an_unanswered_question_ends_the_session() {
    let mut buffer = BytesMut::from(&b"EHLO a\r\nMAIL FROM:<>\r\n"[..]);
    let mut session = session(Connection::default());
    assert!(matches!(session.input(&mut buffer), Step::Mail { .. }));
    assert!(matches!(session.input(&mut buffer), Step::Close));
}
