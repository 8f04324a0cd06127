//! Logins by access token: where tokens come from, how long they are kept, and what happens when one is refused. The
//! peers that are written here believe what the token server says; Postfix with Dovecot's oauth2 asks it itself.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use deliver::{LoginRule, LoginSource, OAuth, RefreshToken, SmartHost, SmartHostTls};
use mail::{Destination, HostPort};
use smtp::sasl::Password;

use crate::peer::{Behaviour, Peer};
use crate::support::{Rig, attempt, host_port, outcomes, text, until};
use crate::tls::Certificates;
use crate::token_server::TokenServer;

struct Place {
    certificates: Certificates,
    server: TokenServer,
    peer: Peer,
}

impl Place {
    /// A token server, and a mail server that asks for its tokens.
    async fn new(mechanisms: &str) -> Self {
        let certificates = Certificates::new(&["127.0.0.1"]);
        let server = TokenServer::new(&certificates.acceptor).await;
        let offer = format!("AUTH {mechanisms}");
        let behaviour =
            Behaviour::offering(&["PIPELINING", &offer]).starttls(&certificates.acceptor).tokens(&server);
        let peer = Peer::new(behaviour).await;
        Self { certificates, server, peer }
    }

    fn oauth(&self, refresh: Option<RefreshToken>) -> LoginSource {
        let secret = self.server.with(|state| state.secret.clone());
        let scope = "https://outlook.office.com/SMTP.Send offline_access";
        let oauth =
            OAuth::new("me@example.com", &self.server.url(), "posthouse", Some(secret), refresh, scope);
        LoginSource::OAuth(Arc::new(oauth.unwrap()))
    }

    fn rig(&self, login: LoginSource, hosts: Vec<HostPort>) -> Rig {
        let mut host = SmartHost::new("up", hosts, SmartHostTls::Required, None);
        host.login = Some(login);
        self.rig_of(host)
    }

    fn rig_of(&self, host: SmartHost) -> Rig {
        Rig::with(|s| {
            self.certificates.trust(s);
            s.smarthosts.insert("up".into(), Arc::new(host));
        })
    }

    fn usual_rig(&self) -> Rig {
        self.rig(self.oauth(Some(refresh("refresh-0"))), vec![host_port(self.peer.at)])
    }
}

fn refresh(token: &str) -> RefreshToken {
    RefreshToken::Text(Password(token.into()))
}

fn up() -> Destination {
    Destination::SmartHost("up".into())
}

/// One letter over a connection of its own.
async fn send(rig: &Rig) -> mail::Attempt {
    let mut link = rig.link(&up());
    let mut job = rig.letter(&["a@example.net"]).await;
    job.full_transcript = true;
    let attempt = attempt(&mut link, &job).await;
    link.close().await;
    attempt
}

#[tokio::test]
async fn both_grants_and_both_mechanisms() {
    for (mechanisms, used) in
        [("PLAIN XOAUTH2", "AUTH XOAUTH2 "), ("PLAIN XOAUTH2 OAUTHBEARER", "AUTH OAUTHBEARER ")]
    {
        for (token, grant) in [(Some(refresh("refresh-0")), "refresh_token"), (None, "client_credentials")] {
            let place = Place::new(mechanisms).await;
            let rig = place.rig(place.oauth(token), vec![host_port(place.peer.at)]);
            let sent = send(&rig).await;
            assert_eq!(outcomes(&sent), "+250", "{:?}", sent.transcript);
            assert_eq!(place.peer.seen(|s| s.count(used)), 1, "{mechanisms}");
            assert!(!sent.transcript.unwrap().contains("access-"), "no record shows the token");
            place.server.with(|state| {
                let form = &state.asked[0];
                assert_eq!(form["grant_type"], grant);
                assert_eq!(form["scope"], "https://outlook.office.com/SMTP.Send offline_access");
                assert_eq!(form["client_secret"], "top secret&");
            });
        }
    }
}

#[tokio::test]
async fn a_token_is_kept_until_shortly_before_it_expires() {
    let place = Place::new("XOAUTH2").await;
    let rig = place.usual_rig();
    for _ in 0..3 {
        assert_eq!(outcomes(&send(&rig).await), "+250");
    }
    assert_eq!(
        (place.server.asked(), place.peer.seen(|s| s.count("AUTH"))),
        (1, 3),
        "one token for three connections"
    );
    let health = rig.engine.smarthost_health();
    assert!(health[0].tokens[0].valid_until.is_some() && health[0].tokens[0].error.is_none());

    // One that lives for two seconds is not used in its last four tenths.
    let place = Place::new("XOAUTH2").await;
    place.server.with(|state| state.life = 2);
    let rig = place.usual_rig();
    assert_eq!(outcomes(&send(&rig).await), "+250");
    let begun = mail::Clock::system();
    while place.server.asked() == 1 {
        assert_eq!(outcomes(&send(&rig).await), "+250", "never a token that has expired");
        assert!(begun.mono().0 < Duration::from_secs(10));
    }
    assert!(begun.mono().0 > Duration::from_secs(1), "it was thrown away early");
    assert_eq!(place.peer.seen(|s| s.refused_tokens), 0);
}

#[tokio::test]
async fn one_question_at_a_time() {
    let place = Place::new("XOAUTH2").await;
    place.server.with(|state| state.slow = Duration::from_millis(300));
    let rig = Arc::new(place.usual_rig());
    let mut all = tokio::task::JoinSet::new();
    for _ in 0..12 {
        let rig = rig.clone();
        all.spawn(async move { outcomes(&send(&rig).await) });
    }
    while let Some(outcome) = all.join_next().await {
        assert_eq!(outcome.unwrap(), "+250");
    }
    assert_eq!(place.server.asked(), 1);
}

/// The answer may hold the only refresh token that is still good: it is waited for by whoever asked, and by nobody.
#[tokio::test]
async fn an_attempt_that_is_cut_off_loses_no_refresh_token() {
    let place = Place::new("XOAUTH2").await;
    place.server.with(|state| (state.slow, state.rotates) = (Duration::from_millis(500), true));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("refresh");
    fs::write(&file, "refresh-0").unwrap();
    let rig = place.rig(place.oauth(Some(RefreshToken::File(file.clone()))), vec![host_port(place.peer.at)]);
    let mut link = rig.link(&up());
    let job = rig.letter(&["a@example.net"]).await;
    let cut_off = tokio::time::timeout(Duration::from_millis(200), link.attempt(&job)).await;
    assert!(cut_off.is_err());
    until("the new one is in the file", || fs::read_to_string(&file).unwrap() == "refresh-1\n").await;
    assert_eq!(outcomes(&send(&rig).await), "+250");
    assert_eq!(place.server.asked(), 1);
}

#[tokio::test]
async fn a_refused_token_is_renewed_once() {
    let place = Place::new("XOAUTH2").await;
    let rig = place.usual_rig();
    assert_eq!(outcomes(&send(&rig).await), "+250");
    place.server.with(super::token_server::State::withdraw);
    let sent = send(&rig).await;
    assert_eq!(outcomes(&sent), "+250", "{:?}", sent.transcript);
    assert_eq!((place.server.asked(), place.peer.seen(|s| s.refused_tokens)), (2, 1));
    // A mailbox that may not send at all: no token helps, and no token is asked for at every message.
    place.peer.seen_mut(|s| s.refuses_all_tokens = true);
    for _ in 0..3 {
        let sent = send(&rig).await;
        assert_eq!(outcomes(&sent), "~535");
        assert!(text(&sent).contains("login of \"me@example.com\""), "{}", text(&sent));
    }
    assert_eq!(place.server.asked(), 2, "it was renewed a moment ago");
}

#[tokio::test]
async fn a_new_refresh_token_takes_the_place_of_the_old_one() {
    let place = Place::new("XOAUTH2").await;
    place.server.with(|state| state.rotates = true);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("refresh");
    fs::write(&file, "refresh-0\n").unwrap();
    let source = || place.oauth(Some(RefreshToken::File(file.clone())));
    // Each time with an engine that knows nothing: as after a restart.
    for number in 1..=3 {
        let rig = place.rig(source(), vec![host_port(place.peer.at)]);
        assert_eq!(outcomes(&send(&rig).await), "+250");
        assert_eq!(fs::read_to_string(&file).unwrap(), format!("refresh-{number}\n"));
    }
    // Without a file it is known until the restart, and somebody is told.
    let place = Place::new("XOAUTH2").await;
    place.server.with(|state| state.rotates = true);
    let rig = place.usual_rig();
    for _ in 0..2 {
        assert_eq!(outcomes(&send(&rig).await), "+250");
        place.server.with(super::token_server::State::withdraw);
    }
    assert_eq!(place.server.with(|s| s.asked[1]["refresh_token"].clone()), "refresh-1");
    let not_kept = rig.engine.smarthost_health()[0].tokens[0].not_kept.clone();
    assert!(not_kept.unwrap().contains("refresh_token_file"));
}

#[tokio::test]
async fn what_goes_wrong_is_said_in_words() {
    let place = Place::new("XOAUTH2").await;
    let error = |code: &str, words: &str| {
        Some((400, format!("{{\"error\":\"{code}\",\"error_description\":\"{words}\"}}")))
    };
    for (trouble, words) in [
        (
            error("invalid_grant", "AADSTS70008: expired\\r\\nTrace"),
            "invalid_grant: AADSTS70008: expired Trace (the refresh token has expired",
        ),
        (error("invalid_client", "x"), "the client secret is wrong"),
        (error("invalid_scope", "x"), "the scope is not one"),
        (Some((503, "<html>busy</html>".into())), "HTTP status 503"),
        (Some((302, String::new())), "HTTP status 302"),
        (Some((200, "{}".into())), "no access token in the answer"),
        (Some((200, "{\"access_token\":\"a\\u0001b\"}".into())), "characters that no token has"),
        (Some((200, "{\"access_token\":\"ab\",\"token_type\":\"mac\"}".into())), "no bearer token"),
    ] {
        place.server.with(|state| state.trouble.clone_from(&trouble));
        let rig = place.usual_rig();
        let sent = send(&rig).await;
        assert_eq!(outcomes(&sent), "~4.7.0", "{trouble:?}");
        assert!(text(&sent).contains(words), "{}", text(&sent));
        assert!(text(&sent).contains("no access token for \"me@example.com\""), "{}", text(&sent));
        assert!(rig.engine.smarthost_health()[0].tokens[0].error.as_ref().unwrap().contains(words));
        // A token server that says no is left alone for a while.
        let before = place.server.asked();
        assert_eq!(outcomes(&send(&rig).await), "~4.7.0");
        assert_eq!(place.server.asked(), before);
    }
    assert_eq!(place.peer.seen(|s| s.count("AUTH")), 0, "nothing was said without a token");

    // A certificate that nobody vouches for, and a file that is not there.
    let stranger = Certificates::new(&["127.0.0.1"]);
    let untrusted = TokenServer::new(&stranger.acceptor).await;
    let oauth =
        OAuth::new("me@example.com", &untrusted.url(), "posthouse", None, Some(refresh("x")), "").unwrap();
    let rig = place.rig(LoginSource::OAuth(Arc::new(oauth)), vec![host_port(place.peer.at)]);
    let sent = send(&rig).await;
    assert!(text(&sent).contains("cannot reach") && text(&sent).contains("trusted"), "{}", text(&sent));
    assert_eq!(untrusted.asked(), 0, "nothing was shown to it");
    let nowhere = place.oauth(Some(RefreshToken::File("/nonexistent/token".into())));
    let sent = send(&place.rig(nowhere, vec![host_port(place.peer.at)])).await;
    assert!(text(&sent).contains("/nonexistent/token"), "{}", text(&sent));
}

#[tokio::test]
async fn a_new_refresh_token_in_the_file_is_tried_at_once() {
    let place = Place::new("XOAUTH2").await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("refresh");
    fs::write(&file, "an old one").unwrap();
    let rig = place.rig(place.oauth(Some(RefreshToken::File(file.clone()))), vec![host_port(place.peer.at)]);
    for _ in 0..2 {
        assert_eq!(outcomes(&send(&rig).await), "~4.7.0");
    }
    assert_eq!(place.server.asked(), 1);
    fs::write(&file, "refresh-0").unwrap();
    assert_eq!(outcomes(&send(&rig).await), "+250");
}

/// Rules choose between a password and a token, too, and no connection is used with another's login.
#[tokio::test]
async fn tokens_and_passwords_side_by_side() {
    let place = Place::new("PLAIN XOAUTH2").await;
    let mut host = SmartHost::new("up", vec![host_port(place.peer.at)], SmartHostTls::Required, None);
    host.login = Some(LoginSource::password("user", "secret", false));
    host.logins = vec![LoginRule {
        senders: Vec::new(),
        domains: vec!["example.org".parse().unwrap()],
        login: place.oauth(None),
    }];
    let rig = place.rig_of(host);
    let mut link = rig.link(&up());
    for _ in 0..2 {
        let job = rig.letter(&["a@example.net", "b@example.org", "c@example.net"]).await;
        assert_eq!(outcomes(&attempt(&mut link, &job).await), "+250 +250 +250");
    }
    let lines = place.peer.seen(|s| s.lines.clone());
    let mut who = "";
    for line in &lines {
        if line.starts_with("AUTH") {
            who = if line.starts_with("AUTH XOAUTH2") { "token" } else { "password" };
        } else if let Some(to) = line.strip_prefix("RCPT TO:") {
            assert_eq!(who, if to.contains("example.org") { "token" } else { "password" }, "{lines:#?}");
        }
    }
    assert_eq!(place.peer.messages().len(), 4);
}
