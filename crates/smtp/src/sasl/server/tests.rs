//! Both sides against each other, and against the example of RFC 7677.

use proptest::prelude::*;

use super::*;
use crate::sasl::{BindingKind, Client, SaslError, choose, choose_bearer};

const ALL: ServerMechanisms = ServerMechanisms { plain: true, scram: true, scram_plus: true };

fn text(base64: &str) -> String {
    String::from_utf8(decode(base64).unwrap()).unwrap()
}

#[test]
fn rfc_7677_example() {
    let mut client = Client::new(Mechanism::ScramSha256, "user", Password("pencil".into()), None);
    let first = client.scram_first_with("n,,".into(), "rOprNGfwEbeRWgbNEkqO".into());
    assert_eq!(text(&first), "n,,n=user,r=rOprNGfwEbeRWgbNEkqO");

    let offered = ServerMechanisms { scram_plus: false, ..ALL };
    let (exchange, next) = Exchange::begin(Mechanism::ScramSha256, offered, &[], Some(&first)).unwrap();
    assert_eq!(next, Next::Verifier { login: "user".into() });
    let verifier = ScramVerifier::derive("pencil", decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap(), 4096);
    let (exchange, next) = exchange.verifier_with(verifier, "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0").unwrap();
    let Next::Challenge(challenge) = next else { panic!("{next:?}") };
    assert_eq!(
        text(&challenge),
        "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
    );

    let last = client.respond(&challenge).unwrap();
    assert_eq!(
        text(&last),
        "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
    );
    assert_eq!(client.finish(), Err(SaslError::Impostor), "not proved yet");
    let (exchange, next) = exchange.respond(&last).unwrap();
    let Next::Challenge(signature) = next else { panic!("{next:?}") };
    assert_eq!(text(&signature), "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");

    assert_eq!(client.respond(&signature).unwrap(), "");
    assert_eq!(client.finish(), Ok(()));
    let (_, next) = exchange.respond("").unwrap();
    assert_eq!(next, Next::Scram { login: "user".into(), proven: true });
}

/// Runs both sides; the password of the client, of the verifier, and the bindings of both ends.
fn run(mechanism: Mechanism, mine: &str, theirs: &str, ends: [&[u8]; 2]) -> Result<bool, ExchangeError> {
    let binding = |data: &[u8]| ChannelBinding { kind: BindingKind::Exporter, data: data.to_vec() };
    let mut client = Client::new(mechanism, "an,a=1", Password(mine.into()), Some(binding(ends[0])));
    let initial = client.initial().unwrap();
    let mut step = Exchange::begin(mechanism, ALL, &[binding(ends[1])], initial.as_deref())?;
    loop {
        step = match step {
            (exchange, Next::Challenge(challenge)) => {
                exchange.respond(&client.respond(&challenge).unwrap())?
            }
            (_, Next::Check { login, password }) => return Ok(login == "an,a=1" && password.0 == theirs),
            (exchange, Next::Verifier { login }) => {
                assert_eq!(login, "an,a=1");
                exchange.verifier(ScramVerifier::new(theirs).unwrap())?
            }
            (_, Next::Scram { login, proven }) => {
                assert!(!proven || login == "an,a=1");
                assert_eq!(client.finish().is_ok(), proven);
                return Ok(proven);
            }
        }
    }
}

#[test]
fn every_mechanism_tells_right_from_wrong() {
    for mechanism in [Mechanism::Plain, Mechanism::Login, Mechanism::ScramSha256, Mechanism::ScramSha256Plus]
    {
        assert_eq!(run(mechanism, "pa ss", "pa ss", [b"tls", b"tls"]), Ok(true), "{mechanism:?}");
        assert_eq!(run(mechanism, "pa ss", "other", [b"tls", b"tls"]), Ok(false), "{mechanism:?}");
    }
    let relayed = run(Mechanism::ScramSha256Plus, "p", "p", [b"to the attacker", b"to us"]);
    assert_eq!(relayed, Err(ExchangeError::Binding), "a man in the middle");
}

#[test]
fn a_stripped_plus_is_noticed() {
    let y = encode(b"y,,n=user,r=12345678");
    assert!(matches!(
        Exchange::begin(Mechanism::ScramSha256, ALL, &[], Some(&y)),
        Err(ExchangeError::Binding)
    ));
    let offered = ServerMechanisms { scram_plus: false, ..ALL };
    assert!(Exchange::begin(Mechanism::ScramSha256, offered, &[], Some(&y)).is_ok());
}

#[test]
fn nonsense_is_refused() {
    let begin = |m, t: &[u8]| Exchange::begin(m, ALL, &[], Some(&encode(t))).map(|(_, next)| next);
    for plain in [&b"user\0pass"[..], b"\0\0pass", b"\0user\0", b"\0a\0b\0c", b"", b"\0\xff\0pass"] {
        assert_eq!(begin(Mechanism::Plain, plain), Err(ExchangeError::Malformed), "{plain:?}");
    }
    assert_eq!(begin(Mechanism::Plain, b"boss\0user\0pass"), Err(ExchangeError::Authzid));
    assert!(begin(Mechanism::Plain, b"user\0user\0pass").is_ok());
    assert_eq!(begin(Mechanism::Plain, &[b'a'; 9000]), Err(ExchangeError::Malformed));
    for scram in
        [&b"n,,r=12345678,n=user"[..], b"n,,n=us=er,r=12345678", b"n,,n=user,r=1", b"x,,n=user,r=12345678"]
    {
        assert_eq!(begin(Mechanism::ScramSha256, scram), Err(ExchangeError::Malformed), "{scram:?}");
    }
    assert_eq!(begin(Mechanism::ScramSha256, b"n,a=boss,n=user,r=12345678"), Err(ExchangeError::Authzid));
    assert!(Exchange::begin(Mechanism::Plain, ALL, &[], Some("not base 64!")).is_err());
}

#[test]
fn an_impostor_is_noticed() {
    let mut client = Client::new(Mechanism::ScramSha256, "user", Password("pencil".into()), None);
    client.scram_first_with("n,,".into(), "abcdefgh".into());
    let short = encode(b"r=abcdefgh,s=c2FsdA==,i=4096");
    assert!(matches!(client.respond(&short), Err(SaslError::Challenge(_))), "nonce not extended");
    client.scram_first_with("n,,".into(), "abcdefgh".into());
    let few = encode(b"r=abcdefghX,s=c2FsdA==,i=1");
    assert!(matches!(client.respond(&few), Err(SaslError::Challenge(_))), "too few rounds");
    client.scram_first_with("n,,".into(), "abcdefgh".into());
    client.respond(&encode(b"r=abcdefghX,s=c2FsdA==,i=4096")).unwrap();
    let wrong = encode(format!("v={}", encode(&[0; 32])).as_bytes());
    assert_eq!(client.respond(&wrong), Err(SaslError::Impostor));
    assert_eq!(client.finish(), Err(SaslError::Impostor), "a 235 after that is not believed either");
}

#[test]
fn bearer_tokens_and_choice() {
    let mut client = Client::new(Mechanism::XOauth2, "me@example.com", Password("tok".into()), None);
    let initial = client.initial().unwrap().unwrap();
    assert_eq!(text(&initial), "user=me@example.com\x01auth=Bearer tok\x01\x01");
    let refusal = encode(b"{\"status\":\"400\"}");
    assert_eq!(client.respond(&refusal).as_deref(), Ok(""), "the final reply comes after an empty line");
    assert!(matches!(client.respond(&refusal), Err(SaslError::Challenge(_))));

    // RFC 7628 section 4.1; a comma in a name must not end it.
    let mut client = Client::new(Mechanism::OauthBearer, "me,too@example.com", Password("tok".into()), None);
    let initial = client.initial().unwrap().unwrap();
    assert_eq!(text(&initial), "n,a=me=2Ctoo@example.com,\x01auth=Bearer tok\x01\x01");
    assert_eq!(client.respond(&refusal).as_deref(), Ok("AQ=="));
    assert!(client.respond(&refusal).is_err());

    assert_eq!(choose_bearer(&[Mechanism::XOauth2, Mechanism::OauthBearer]), Some(Mechanism::OauthBearer));
    assert_eq!(choose_bearer(&[Mechanism::Plain, Mechanism::XOauth2]), Some(Mechanism::XOauth2));
    assert_eq!(choose_bearer(&[Mechanism::Plain]), None);

    let offered = [Mechanism::Login, Mechanism::Plain, Mechanism::ScramSha256, Mechanism::ScramSha256Plus];
    assert_eq!(choose(&offered, true, true), Some(Mechanism::ScramSha256Plus));
    assert_eq!(choose(&offered, false, false), Some(Mechanism::ScramSha256));
    assert_eq!(choose(&offered[..2], false, true), Some(Mechanism::Plain));
    assert_eq!(choose(&offered[..2], true, false), None, "no password in the clear");
}

#[test]
fn verifiers_are_text_and_decoys_are_stable() {
    let verifier = ScramVerifier::new("secret").unwrap();
    assert_eq!(verifier.to_string().parse(), Ok(verifier.clone()));
    assert!(verifier.verify("secret") && !verifier.verify("Secret"));
    // SASLprep: a no-break space is a space, a soft hyphen is nothing.
    assert!(ScramVerifier::new("a\u{a0}b\u{ad}c").unwrap().verify("a bc"));
    assert_eq!(ScramVerifier::decoy("x", b"k"), ScramVerifier::decoy("x", b"k"));
    assert_ne!(ScramVerifier::decoy("x", b"k").salt, ScramVerifier::decoy("y", b"k").salt);
    for bad in ["", "SCRAM-SHA-256$0:AA==$AA==:AA==", "SCRAM-SHA-256$4096:AA==$AA==:AA==", "SCRAM-SHA-1$"] {
        assert!(bad.parse::<ScramVerifier>().is_err(), "{bad}");
    }
}

proptest! {
    #[test]
    fn no_response_panics(texts in proptest::collection::vec(".{0,60}", 1..5), which in 0..4usize) {
        let mechanism =
            [Mechanism::Plain, Mechanism::Login, Mechanism::ScramSha256, Mechanism::ScramSha256Plus][which];
        let mut step = Exchange::begin(mechanism, ALL, &[], None);
        for text in texts {
            step = match step {
                Ok((exchange, Next::Challenge(_))) => exchange.respond(&encode(text.as_bytes())),
                Ok((exchange, Next::Verifier { login })) => exchange.verifier(ScramVerifier::decoy(&login, b"k")),
                _ => break,
            };
        }
    }

    #[test]
    fn names_survive_escaping(name in ".{0,40}") {
        prop_assert_eq!(scram::unescape_name(&scram::escape_name(&name)), Some(name));
    }
}
