//! A smart host that wants access tokens, from the configuration file to the mail that arrives; and what the command line
//! says when there is no token to be had.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use posthouse_tests::client::send_one;
use posthouse_tests::prelude::*;
use posthouse_tests::sink::{self, Options};
use posthouse_tests::tls::Certificate;

/// A token server that knows one refresh token and hands out a new one at each use.
#[derive(Default)]
struct Tokens {
    good: String,
    uses: usize,
    asked: usize,
}

fn token_server(certificate: Certificate, tokens: &Arc<Mutex<Tokens>>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    let tokens = Arc::clone(tokens);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut tls = certificate.accept(stream.unwrap());
            let Some(form) = form(&mut tls) else { continue };
            let mut tokens = tokens.lock().unwrap();
            tokens.asked += 1;
            let body = if form.contains(&format!("refresh_token={}&", tokens.good)) {
                tokens.uses += 1;
                let uses = tokens.uses;
                tokens.good = format!("refresh-{uses}");
                format!(
                    "{{\"access_token\":\"access\",\"token_type\":\"Bearer\",\"expires_in\":3600,\"refresh_token\":\"refresh-{uses}\"}}"
                )
            } else {
                "{\"error\":\"invalid_grant\",\"error_description\":\"sign in again\"}".into()
            };
            let status = if body.contains("error") { "400 Bad Request" } else { "200 OK" };
            let length = body.len();
            let head = format!(
                "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
            );
            let _ = tls.write_all(format!("{head}{body}").as_bytes());
            let _ = tls.flush();
        }
    });
    at
}

/// The body of one request.
fn form(stream: &mut impl Read) -> Option<String> {
    let mut text = Vec::new();
    let mut room = [0; 4096];
    loop {
        let n = stream.read(&mut room).ok().filter(|n| *n > 0)?;
        text.extend_from_slice(&room[..n]);
        let said = String::from_utf8_lossy(&text).into_owned();
        let Some((head, body)) = said.split_once("\r\n\r\n") else { continue };
        let length =
            head.lines().find_map(|l| l.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
        if body.len() >= length.unwrap_or(0) {
            return Some(body.to_owned());
        }
    }
}

#[test]
fn mail_goes_out_with_a_token_and_waits_without() {
    let dir = tempfile::tempdir().unwrap();
    let certificate = Certificate::make(dir.path(), &["localhost", "127.0.0.1"]);
    let tokens = Arc::new(Mutex::new(Tokens { good: "refresh-0".into(), ..Tokens::default() }));
    let server = token_server(certificate.clone(), &tokens);
    let expected = BASE64.encode("user=relay@company.example\x01auth=Bearer access\x01\x01");
    let options = Options { certificate: Some(certificate.clone()), ..Options::default() };
    let options =
        options.extensions(&["PIPELINING", "8BITMIME", "AUTH XOAUTH2"]).script(move |stage| match stage {
            Stage::Auth(said) if !said.contains(&expected) => {
                sink::reply("535 5.7.3 Authentication unsuccessful")
            }
            _ => Act::Usual,
        });
    let sink = Sink::with(options);
    let file = dir.path().join("refresh");
    fs::write(&file, "withdrawn").unwrap();
    let config = format!(
        "[tls]\nca_file = \"{}\"\n[[route]]\nto = \"smarthost:m365\"\n[smarthost.m365]\nhosts = [\"localhost:{}\"]\n\
         username = \"relay@company.example\"\n[smarthost.m365.oauth]\ntoken_url = \"https://{server}/token\"\n\
         client_id = \"posthouse\"\nrefresh_token_file = \"{}\"\n",
        certificate.certificate.display(),
        sink.addr().port(),
        file.display()
    );
    let relay = Relay::builder().toml(&config).start();
    let letter = Letter::odd("token");
    send_one(relay.smtp(), "relay@company.example", &["ann@dest.example"], &letter.bytes).expect(250);
    eventually("it is put off, with the reason", Duration::from_secs(20), || {
        let trace = relay.try_cli(&["trace", "relay@company.example"]).1;
        (trace.contains("invalid_grant: sign in again") && trace.contains("store the new one")).then_some(())
    });
    let shown = relay.cli(&["smarthost", "show", "m365"]);
    assert!(
        shown.contains("access token for relay@company.example") && shown.contains("invalid_grant"),
        "{shown}"
    );
    let (status, output) = relay.try_cli(&["check"]);
    assert!(status.code() == Some(1) && output.contains("invalid_grant"), "{output}");

    fs::write(&file, "refresh-0").unwrap();
    let (status, output) = relay.try_cli(&["check"]);
    assert!(status.success() || !output.contains("invalid_grant"), "{output}");
    relay.cli(&["queue", "retry", "--all"]);
    let got = sink.wait_one();
    letter.assert_arrived(&got.data);
    assert!(got.tls && got.auth.is_some());
    let tokens = tokens.lock().unwrap();
    assert!(tokens.uses >= 1 && tokens.asked < 12, "{} of {}", tokens.uses, tokens.asked);
    assert_eq!(fs::read_to_string(&file).unwrap().trim(), tokens.good, "the new refresh token is kept");
}
