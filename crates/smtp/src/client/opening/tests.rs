use super::*;

fn opening(tls: TlsPolicy, login: Option<Login>) -> Opening {
    let config = OpeningConfig {
        hostname: "relay.example".into(),
        lmtp: false,
        tls,
        tls_active: false,
        binding: None,
        login: login.map(Arc::new),
    };
    Opening::new(config, Transcript::default())
}

fn password(in_the_clear: bool) -> Login {
    Login { username: "user".into(), secret: Password("secret".into()), is_token: false, in_the_clear }
}

/// Plays a dialogue: what the peer says, and what we say to it. Returns what the last thing led to.
fn play(opening: &mut Opening, dialogue: &[(&str, &str)]) -> Result<OpenStep, OpenFailure> {
    let mut step = Ok(OpenStep::Read(Wait::Greeting));
    for (theirs, ours) in dialogue {
        assert!(matches!(step, Ok(OpenStep::Read(_))), "{step:?} before {theirs:?}");
        let mut input = BytesMut::from(theirs.as_bytes());
        step = opening.input(&mut input);
        let said = String::from_utf8(opening.output().split().to_vec()).unwrap();
        assert_eq!(&said, ours, "after {theirs:?}");
    }
    step
}

const EHLO: &str = "EHLO relay.example\r\n";

#[test]
fn ehlo_and_ready() {
    let mut opening = opening(TlsPolicy::WhenOffered, None);
    let step = play(&mut opening, &[("220-hi\r\n220 there\r\n", EHLO), ("250-x\r\n250 PIPELINING\r\n", "")]);
    assert_eq!(step, Ok(OpenStep::Ready));
    assert!(opening.into_session().capabilities().pipelining);
}

#[test]
fn the_peer_is_called_what_it_calls_itself() {
    for (greeting, ehlo, name) in [
        ("220 mx.example ESMTP\r\n", "250-inner.example hello\r\n250 8BITMIME\r\n", Some("inner.example")),
        ("220 mx.example ESMTP\r\n", "250 Hello\r\n", Some("mx.example")),
        ("220-[192.0.2.1]\r\n220 hi\r\n", "250 ok\r\n", Some("[192.0.2.1]")),
        ("220 welcome, friend\r\n", "250 <script>.example\r\n", None),
        ("220 x\r\n", "250 x\r\n", None),
    ] {
        let mut opening = opening(TlsPolicy::Never, None);
        assert_eq!(play(&mut opening, &[(greeting, EHLO), (ehlo, "")]), Ok(OpenStep::Ready));
        assert_eq!(opening.peer_name(), name, "{greeting}{ehlo}");
    }
    // What was said before TLS is forgotten, but for what it called itself until it says so again.
    let mut opening = opening(TlsPolicy::Required, None);
    let before = [
        ("220 mx.example\r\n", EHLO),
        ("250-mx.example\r\n250 STARTTLS\r\n", "STARTTLS\r\n"),
        ("220 go\r\n", ""),
    ];
    assert_eq!(play(&mut opening, &before), Ok(OpenStep::StartTls));
    assert_eq!(opening.peer_name(), Some("mx.example"));
}

#[test]
fn lmtp_says_lhlo_and_never_helo() {
    let mut opening = opening(TlsPolicy::Never, None);
    opening.config.lmtp = true;
    let step = play(&mut opening, &[("220 x\r\n", "LHLO relay.example\r\n"), ("500 what\r\n", "")]);
    assert!(matches!(step, Err(OpenFailure::Refused { .. })), "{step:?}");
}

#[test]
fn helo_where_ehlo_is_unknown() {
    let dialogue = [("220 x\r\n", EHLO), ("502 what\r\n", "HELO relay.example\r\n"), ("250 x\r\n", "")];
    assert_eq!(play(&mut opening(TlsPolicy::WhenOffered, None), &dialogue), Ok(OpenStep::Ready));
    let step = play(&mut opening(TlsPolicy::Required, None), &dialogue);
    assert_eq!(step, Err(OpenFailure::NoTls(None)));
    // Not now is not never.
    let step = play(&mut opening(TlsPolicy::Never, None), &[("220 x\r\n", EHLO), ("451 later\r\n", "")]);
    assert!(matches!(step, Err(OpenFailure::Refused { .. })), "{step:?}");
}

#[test]
fn refusals_are_kept_as_values() {
    for code in [421, 450, 521, 554] {
        let step = play(&mut opening(TlsPolicy::Never, None), &[(&format!("{code} go away\r\n"), "")]);
        let Err(OpenFailure::Refused { what, reply }) = step else { panic!("{step:?}") };
        assert_eq!((what, reply.code), ("greeting", code));
    }
}

#[test]
fn starttls_forgets_what_was_said_before() {
    let mut opening = opening(TlsPolicy::Required, None);
    let hello = "250-x\r\n250-AUTH PLAIN\r\n250 STARTTLS\r\n";
    let step = play(&mut opening, &[("220 x\r\n", EHLO), (hello, "STARTTLS\r\n"), ("220 go\r\n", "")]);
    assert_eq!(step, Ok(OpenStep::StartTls));
    opening.tls_started(None);
    assert_eq!(opening.output().split(), EHLO);
    assert_eq!(opening.input(&mut BytesMut::from("250-x\r\n250 DSN\r\n")), Ok(OpenStep::Ready));
    let caps = opening.into_session().capabilities().clone();
    assert!(caps.dsn && !caps.auth.plain && !caps.starttls);
}

#[test]
fn octets_behind_the_220_to_starttls_end_it() {
    let mut opening = opening(TlsPolicy::WhenOffered, None);
    let injected = "220 go\r\n250-x\r\n250 AUTH PLAIN\r\n";
    let step = play(
        &mut opening,
        &[("220 x\r\n", EHLO), ("250-x\r\n250 STARTTLS\r\n", "STARTTLS\r\n"), (injected, "")],
    );
    assert_eq!(step, Err(OpenFailure::Peer(Fault::BytesBeforeTls)));
}

#[test]
fn starttls_refused() {
    let dialogue = [("220 x\r\n", EHLO), ("250-x\r\n250 STARTTLS\r\n", "STARTTLS\r\n"), ("454 no\r\n", "")];
    assert_eq!(play(&mut opening(TlsPolicy::WhenOffered, None), &dialogue), Ok(OpenStep::Ready));
    let step = play(&mut opening(TlsPolicy::Required, None), &dialogue);
    assert!(matches!(step, Err(OpenFailure::NoTls(Some(_)))), "{step:?}");
}

#[test]
fn more_than_one_answer_at_a_time_ends_it() {
    let step = play(&mut opening(TlsPolicy::Never, None), &[("220 x\r\n250 y\r\n", EHLO)]);
    assert!(matches!(step, Err(OpenFailure::Peer(Fault::Unasked(_)))), "{step:?}");
}

#[test]
fn a_password_needs_tls_or_the_operators_word() {
    let hello = "250-x\r\n250 AUTH PLAIN LOGIN\r\n";
    let step = play(
        &mut opening(TlsPolicy::WhenOffered, Some(password(false))),
        &[("220 x\r\n", EHLO), (hello, "")],
    );
    assert!(matches!(step, Err(OpenFailure::NoLogin { .. })), "{step:?}");

    let mut opening = opening(TlsPolicy::Never, Some(password(true)));
    let plain = "AUTH PLAIN AHVzZXIAc2VjcmV0\r\n";
    let step = play(&mut opening, &[("220 x\r\n", EHLO), (hello, plain), ("235 2.7.0 welcome\r\n", "")]);
    assert_eq!(step, Ok(OpenStep::Ready));
    let transcript = opening.into_transcript();
    assert!(transcript.as_str().contains("> AUTH PLAIN ********\n"), "{}", transcript.as_str());
    assert!(!transcript.as_str().contains("AHVzZXIAc2VjcmV0"));
}

#[test]
fn login_where_there_is_no_plain() {
    let mut opening = opening(TlsPolicy::Never, Some(password(true)));
    let step = play(
        &mut opening,
        &[
            ("220 x\r\n", EHLO),
            ("250-x\r\n250 AUTH=LOGIN\r\n", "AUTH LOGIN\r\n"),
            ("334 VXNlcm5hbWU6\r\n", "dXNlcg==\r\n"),
            ("334 UGFzc3dvcmQ6\r\n", "c2VjcmV0\r\n"),
            ("535 5.7.8 no\r\n", ""),
        ],
    );
    let Err(OpenFailure::LoginRefused { username, mechanism, reply }) = step else { panic!("{step:?}") };
    assert_eq!((username.as_str(), mechanism, reply.code), ("user", "LOGIN", 535));
    assert!(!opening.into_transcript().as_str().contains("c2VjcmV0"));
}

#[test]
fn scram_first_and_the_next_when_the_account_has_no_verifier() {
    let mut opening = opening(TlsPolicy::Never, Some(password(true)));
    let hello = "250-x\r\n250 AUTH PLAIN SCRAM-SHA-256 SCRAM-SHA-256-PLUS\r\n";
    let mut input = BytesMut::from("220 x\r\n");
    assert_eq!(opening.input(&mut input), Ok(OpenStep::Read(Wait::Hello)));
    opening.output().clear();
    assert_eq!(opening.input(&mut BytesMut::from(hello)), Ok(OpenStep::Read(Wait::Hello)));
    assert!(opening.output().split().starts_with(b"AUTH SCRAM-SHA-256 biws"));
    let step =
        play(&mut opening, &[("535 5.7.8 no\r\n", "AUTH PLAIN AHVzZXIAc2VjcmV0\r\n"), ("235 ok\r\n", "")]);
    assert_eq!(step, Ok(OpenStep::Ready));
}

#[test]
fn a_235_out_of_nowhere_is_no_proof() {
    let mut opening = opening(TlsPolicy::Never, Some(password(true)));
    for said in ["220 x\r\n", "250-x\r\n250 AUTH SCRAM-SHA-256\r\n"] {
        assert_eq!(opening.input(&mut BytesMut::from(said)), Ok(OpenStep::Read(Wait::Hello)));
        opening.output().clear();
    }
    let step = opening.input(&mut BytesMut::from("235 come in\r\n"));
    assert!(matches!(step, Err(OpenFailure::NoLogin { .. })), "{step:?}");
}

#[test]
fn xoauth2_takes_tokens_and_nothing_else_does() {
    let token = Login { is_token: true, ..password(true) };
    let step = play(
        &mut opening(TlsPolicy::Never, Some(token.clone())),
        &[
            ("220 x\r\n", EHLO),
            (
                "250-x\r\n250 AUTH PLAIN XOAUTH2\r\n",
                "AUTH XOAUTH2 dXNlcj11c2VyAWF1dGg9QmVhcmVyIHNlY3JldAEB\r\n",
            ),
            ("334 eyJzdGF0dXMiOiI0MDAifQ==\r\n", "\r\n"),
            ("535 5.7.8 expired\r\n", ""),
        ],
    );
    assert!(matches!(step, Err(OpenFailure::LoginRefused { .. })), "{step:?}");
    let step = play(
        &mut opening(TlsPolicy::Never, Some(token.clone())),
        &[
            ("220 x\r\n", EHLO),
            (
                "250-x\r\n250 AUTH XOAUTH2 OAUTHBEARER\r\n",
                "AUTH OAUTHBEARER bixhPXVzZXIsAWF1dGg9QmVhcmVyIHNlY3JldAEB\r\n",
            ),
            ("504 5.5.4 unknown\r\n", "AUTH XOAUTH2 dXNlcj11c2VyAWF1dGg9QmVhcmVyIHNlY3JldAEB\r\n"),
            ("235 ok\r\n", ""),
        ],
    );
    assert_eq!(step, Ok(OpenStep::Ready));
    let hello = ("250-x\r\n250 AUTH PLAIN\r\n", "");
    let step = play(&mut opening(TlsPolicy::Never, Some(token)), &[("220 x\r\n", EHLO), hello]);
    assert!(matches!(step, Err(OpenFailure::NoLogin { .. })), "{step:?}");
    let hello = ("250-x\r\n250 AUTH XOAUTH2\r\n", "");
    let step = play(&mut opening(TlsPolicy::Never, Some(password(true))), &[("220 x\r\n", EHLO), hello]);
    assert!(matches!(step, Err(OpenFailure::NoLogin { .. })), "{step:?}");
}

#[test]
fn a_long_secret_waits_for_the_334() {
    let long = Login { secret: Password("x".repeat(600)), ..password(true) };
    let mut opening = opening(TlsPolicy::Never, Some(long));
    let dialogue = [("220 x\r\n", EHLO), ("250-x\r\n250 AUTH PLAIN\r\n", "AUTH PLAIN\r\n")];
    play(&mut opening, &dialogue).unwrap();
    opening.input(&mut BytesMut::from("334 \r\n")).unwrap();
    assert!(opening.output().len() > 800);
}

#[test]
fn questions_without_end() {
    let mut opening = opening(TlsPolicy::Never, Some(password(true)));
    play(&mut opening, &[("220 x\r\n", EHLO)]).unwrap();
    opening.input(&mut BytesMut::from("250-x\r\n250 AUTH LOGIN\r\n")).unwrap();
    let failure = (0..20).find_map(|_| opening.input(&mut BytesMut::from("334 eA==\r\n")).err());
    assert!(matches!(failure, Some(OpenFailure::NoLogin { .. })), "{failure:?}");
}
