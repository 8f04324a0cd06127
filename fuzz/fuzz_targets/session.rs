//! A server session fed with anything: it ends every reply, keeps its memory, hands out no content that could be
//! taken for something else, and never loops.
#![no_main]

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use mail::{EnhancedStatus, Reply};
use smtp::sasl::ScramVerifier;
use smtp::server::{AuthVerdict, BareNewline, Config, Connection, Session, Settings, Step};

/// Made once: preparing the replies costs more than a session.
static CONFIGS: LazyLock<Vec<Arc<Config>>> = LazyLock::new(|| (0..16).map(|c| Arc::new(config(c))).collect());

fn config(choices: u8) -> Config {
    Config::new(Settings {
        hostname: "relay.example".into(),
        tls: choices & 1 != 0,
        auth: choices & 2 != 0,
        scram: choices & 4 != 0,
        message_size_max: 500,
        recipients_max: 3,
        messages_max: 5,
        errors_max: 50,
        idle_commands_max: 50,
        bare_newline: if choices & 8 != 0 { BareNewline::Normalise } else { BareNewline::Refuse },
    })
}

fn session(choices: u8) -> Session {
    let connection = Connection {
        auth_in_clear: choices & 16 != 0,
        xclient: choices & 32 != 0,
        ..Connection::default()
    };
    Session::new(CONFIGS[usize::from(choices & 15)].clone(), connection)
}

fuzz_target!(|input: (u8, Vec<&[u8]>)| {
    let (choices, pieces) = input;
    let mut session = session(choices);
    let mut buffer = BytesMut::new();
    let mut content: Vec<u8> = Vec::new();
    for piece in pieces {
        buffer.extend_from_slice(piece);
        let mut steps = 0;
        loop {
            steps += 1;
            assert!(steps < 10_000, "it loops");
            let no = Reply::new(450, EnhancedStatus::new(4, 0, 0), "no");
            match session.input(&mut buffer) {
                Step::Read => break,
                Step::Close => {
                    let said = session.output().to_vec();
                    assert!(said.is_empty() || said.ends_with(b"\r\n"));
                    return;
                }
                Step::StartTls => {
                    buffer.clear();
                    session.tls_started(Connection { tls: true, ..Connection::default() });
                }
                Step::Content(octets) => content.extend_from_slice(octets),
                Step::Abandoned(_) => content.clear(),
                Step::Password { login, .. } if login.len() > 3 => session.authenticated(AuthVerdict::Ok),
                Step::Password { .. } => session.authenticated(AuthVerdict::TryLater(Duration::ZERO)),
                Step::Verifier { login } => session.verifier(ScramVerifier::decoy(&login, b"key")),
                Step::Scram { proven, .. } => {
                    assert!(!proven, "nobody guesses a decoy");
                    session.authenticated(AuthVerdict::Failed);
                }
                Step::Mail { .. } => session.allow(),
                Step::Rcpt { recipient, .. } if recipient.address.local().len() % 5 == 4 => session.refuse(&no),
                Step::Rcpt { .. } => session.allow(),
                Step::Begin { envelope, .. } if envelope.recipients.len() == 2 => session.refuse(&no),
                Step::Begin { .. } => session.allow(),
                Step::End(envelope) => {
                    assert!(!envelope.recipients.is_empty());
                    assert!(content.len() <= 502 && (content.is_empty() || content.ends_with(b"\r\n")));
                    let text = String::from_utf8_lossy(&content).replace("\r\n", "");
                    assert!(!text.contains(['\r', '\n', '\0']));
                    content.clear();
                    session.accepted("ID");
                }
                Step::XClient(_) => session.client_changed(Connection::default()),
            }
        }
        assert!(buffer.len() < 13_000, "memory is bounded");
        let said = session.output().to_vec();
        assert!(said.is_empty() || said.ends_with(b"\r\n"));
        session.output().clear();
    }
});
