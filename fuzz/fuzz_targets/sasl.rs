//! SASL: responses on the server's side, challenges on the client's.
#![no_main]

use libfuzzer_sys::fuzz_target;
use smtp::sasl::{
    BindingKind, ChannelBinding, Client, Exchange, Mechanism, Next, Password, ScramVerifier, ServerMechanisms, encode,
};

const MECHANISMS: [Mechanism; 6] = [
    Mechanism::Plain,
    Mechanism::Login,
    Mechanism::ScramSha256,
    Mechanism::ScramSha256Plus,
    Mechanism::XOauth2,
    Mechanism::OauthBearer,
];

fuzz_target!(|input: (u8, bool, Vec<&[u8]>)| {
    let (which, raw, texts) = input;
    let mechanism = MECHANISMS[usize::from(which) % MECHANISMS.len()];
    let line = |text: &[u8]| if raw { String::from_utf8_lossy(text).into_owned() } else { encode(text) };
    let binding = ChannelBinding { kind: BindingKind::Exporter, data: vec![1; 32] };

    let mut client = Client::new(mechanism, "user", Password("secret".into()), Some(binding.clone()));
    let _ = client.initial();
    for text in &texts {
        if client.respond(&line(text)).is_err() {
            break;
        }
    }
    if matches!(mechanism, Mechanism::ScramSha256 | Mechanism::ScramSha256Plus) {
        assert!(client.finish().is_err(), "nobody guesses a server's signature");
    }

    let offered = ServerMechanisms { plain: true, scram: true, scram_plus: true };
    let mut step = Exchange::begin(mechanism, offered, &[binding], None);
    for text in texts {
        step = match step {
            Ok((exchange, Next::Challenge(_))) => exchange.respond(&line(text)),
            Ok((exchange, Next::Verifier { login })) => exchange.verifier(ScramVerifier::decoy(&login, b"key")),
            Ok((_, Next::Scram { proven, .. })) => {
                assert!(!proven, "nobody guesses a decoy");
                break;
            }
            _ => break,
        };
    }
});
