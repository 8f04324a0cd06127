//! Smart hosts: TLS modes, logins, fail-over, and what `posthouse check` says about them.

use std::sync::Arc;
use std::time::Duration;

use deliver::{SmartHost, SmartHostTls, probe};
use mail::{Destination, HostPort};

use crate::peer::{Act, Behaviour, Peer, bye, say};
use crate::support::{Rig, attempt, free_address, host_port, outcomes, text};
use crate::tls::Certificates;

fn up() -> Destination {
    Destination::SmartHost("up".into())
}

fn smart_host(hosts: Vec<HostPort>, tls: SmartHostTls, login: bool) -> SmartHost {
    SmartHost::new("up", hosts, tls, login.then(|| ("user".into(), "secret".into())))
}

/// An engine that knows the smart host, and trusts these certificates.
fn rig(host: SmartHost, trusted: Option<&Certificates>) -> Rig {
    Rig::with(|s| {
        s.smarthosts.insert("up".into(), Arc::new(host));
        if let Some(certificates) = trusted {
            certificates.trust(s);
        }
    })
}

fn with_auth() -> Behaviour {
    Behaviour::offering(&["PIPELINING", "AUTH PLAIN LOGIN"])
}

#[tokio::test]
async fn tls_and_login() {
    let certificates = Certificates::new(&["127.0.0.1"]);
    let tls = &certificates.acceptor;
    for (mode, behaviour) in [
        (SmartHostTls::Required, with_auth().starttls(tls)),
        (SmartHostTls::Opportunistic, with_auth().starttls(tls)),
        (SmartHostTls::Implicit, with_auth().implicit_tls(tls)),
    ] {
        let peer = Peer::new(behaviour).await;
        let rig = rig(smart_host(vec![host_port(peer.at)], mode, true), Some(&certificates));
        let mut link = rig.link(&up());
        let mut job = rig.letter(&["a@example.net"]).await;
        job.full_transcript = true;
        let attempt = attempt(&mut link, &job).await;
        assert_eq!(outcomes(&attempt), "+250", "{mode:?}: {:?}", attempt.transcript);
        assert_eq!(attempt.tls.unwrap().verified, "verified");
        assert_eq!(peer.seen(|s| (s.handshakes, s.count("AUTH PLAIN AHVzZXIAc2VjcmV0"))), (1, 1));
        assert!(!attempt.transcript.unwrap().contains("AHVzZXIAc2VjcmV0"));
    }
}

/// The password itself is shown to nobody, and the login is bound to the TLS connection where that is offered.
#[tokio::test]
async fn scram_before_anything_else() {
    let certificates = Certificates::new(&["127.0.0.1"]);
    let all = "AUTH PLAIN LOGIN SCRAM-SHA-256 SCRAM-SHA-256-PLUS";
    for (mode, offer, password, command, expected) in [
        (SmartHostTls::Required, all, "secret", "AUTH SCRAM-SHA-256-PLUS ", "+250"),
        (SmartHostTls::Required, "AUTH SCRAM-SHA-256", "secret", "AUTH SCRAM-SHA-256 ", "+250"),
        (SmartHostTls::None, all, "secret", "AUTH SCRAM-SHA-256 ", "+250"),
        (SmartHostTls::Required, "AUTH SCRAM-SHA-256-PLUS", "another", "AUTH SCRAM-SHA-256-PLUS ", "~535"),
    ] {
        let mut behaviour = Behaviour::offering(&["PIPELINING", offer]).scram(password);
        if mode == SmartHostTls::Required {
            behaviour = behaviour.starttls(&certificates.acceptor);
        }
        let peer = Peer::new(behaviour).await;
        let rig = rig(smart_host(vec![host_port(peer.at)], mode, true), Some(&certificates));
        let mut link = rig.link(&up());
        let attempt = attempt(&mut link, &rig.letter(&["a@example.net"]).await).await;
        assert_eq!(outcomes(&attempt), expected, "{offer}: {:?}", attempt.transcript);
        assert_eq!(peer.seen(|s| (s.count("AUTH"), s.count(command))), (1, 1), "{offer}");
    }
}

#[tokio::test]
async fn required_means_required() {
    let certificates = Certificates::new(&["127.0.0.1"]);
    let other_name = Certificates::new(&["mail.other.example"]);
    let tls = &certificates.acceptor;
    let cases = [
        ("not offered", with_auth(), "~4.7.4", "does not offer TLS"),
        (
            "refused",
            with_auth().starttls(tls).on("STARTTLS", [say("454 4.7.0 no")]),
            "~454",
            "does not offer TLS",
        ),
        ("HELO only", with_auth().on("EHLO", [say("500 what")]), "~4.7.4", "does not offer TLS"),
        (
            "broken",
            with_auth().starttls(tls).on("STARTTLS", [Act::BreakTls("220 go\r\n".into())]),
            "~4.7.5",
            "no TLS with 127.0.0.1",
        ),
        ("another name", with_auth().starttls(&other_name.acceptor), "~4.7.5", "cannot be trusted"),
    ];
    for (what, behaviour, expected, words) in cases {
        let peer = Peer::new(behaviour).await;
        let host = smart_host(vec![host_port(peer.at)], SmartHostTls::Required, true);
        let rig = rig(host, Some(&certificates));
        let mut link = rig.link(&up());
        let attempt = attempt(&mut link, &rig.letter(&["a@example.net"]).await).await;
        assert_eq!(outcomes(&attempt), expected, "{what}: {}", text(&attempt));
        assert!(text(&attempt).contains(words), "{what}: {}", text(&attempt));
        assert_eq!(peer.seen(|s| (s.count("AUTH"), s.count("MAIL"))), (0, 0), "{what}");
    }
}

/// Passwords go in the clear where the operator said `tls = "none"`, and nowhere else.
#[tokio::test]
async fn no_password_in_the_clear_by_accident() {
    let certificates = Certificates::new(&["127.0.0.1"]);
    let no_tls = [
        with_auth(),
        with_auth().starttls(&certificates.acceptor).on("STARTTLS", [say("454 no")]),
        with_auth().starttls(&certificates.acceptor).on("STARTTLS", [Act::BreakTls("220 go\r\n".into())]),
    ];
    for behaviour in no_tls {
        let peer = Peer::new(behaviour).await;
        let rig = rig(smart_host(vec![host_port(peer.at)], SmartHostTls::Opportunistic, true), None);
        let mut link = rig.link(&up());
        let attempt = attempt(&mut link, &rig.letter(&["a@example.net"]).await).await;
        assert_eq!(outcomes(&attempt), "~4.7.4", "{}", text(&attempt));
        assert!(text(&attempt).contains("not sent in the clear"), "{}", text(&attempt));
        assert_eq!(peer.seen(|s| s.count("AUTH")), 0);
    }
    let peer = Peer::new(with_auth()).await;
    let rig = rig(smart_host(vec![host_port(peer.at)], SmartHostTls::None, true), None);
    let mut link = rig.link(&up());
    assert_eq!(outcomes(&attempt(&mut link, &rig.letter(&["a@example.net"]).await).await), "+250");
}

#[tokio::test]
async fn a_wrong_password_is_said_once_and_bounces_nothing() {
    let wrong = || with_auth().on("AUTH", [bye("535 5.7.8 authentication failed")]);
    let (first, second) = (Peer::new(wrong()).await, Peer::new(wrong()).await);
    let hosts = vec![host_port(first.at), host_port(second.at)];
    let rig = rig(smart_host(hosts, SmartHostTls::None, true), None);
    let mut link = rig.link(&up());
    let attempt = attempt(&mut link, &rig.letter(&["a@example.net"]).await).await;
    assert_eq!(outcomes(&attempt), "~535");
    assert!(text(&attempt).contains("login of \"user\""), "{}", text(&attempt));
    // It is as wrong at the next host, where it would count against us.
    assert_eq!((first.seen(|s| s.connections), second.seen(|s| s.connections)), (1, 0));
}

#[tokio::test]
async fn the_next_host_is_tried_when_one_does_not_work() {
    let good = Peer::new(Behaviour::good()).await;
    let closed = free_address();
    let mut bad = vec![host_port(closed)];
    let mut peers = Vec::new();
    for behaviour in [
        Behaviour::good().on("connect", [bye("421 busy")]),
        Behaviour::good().on("connect", [bye("554 no")]),
        Behaviour::good().on("EHLO", [bye("451 later")]),
        Behaviour::good().on("connect", [Act::Close]),
        Behaviour::good().on("connect", [Act::Say("hello\r\n".into())]),
        // It lets us in, and goes before it has heard of the message.
        Behaviour::good().on("MAIL", [bye("421 4.3.2 too much to do")]),
        Behaviour::good().on("MAIL", [Act::Close]),
    ] {
        let peer = Peer::new(behaviour).await;
        bad.push(host_port(peer.at));
        peers.push(peer);
    }
    for first in &bad {
        let hosts = vec![first.clone(), host_port(good.at)];
        let rig = rig(smart_host(hosts, SmartHostTls::None, false), None);
        let mut link = rig.link(&up());
        let attempt = attempt(&mut link, &rig.letter(&["a@example.net"]).await).await;
        assert_eq!(outcomes(&attempt), "+250", "{first}");
        assert_eq!(attempt.remote.unwrap().address, Some(good.at));
    }
    // All of them, one after the other; no more than we allow.
    bad.push(host_port(good.at));
    let host = smart_host(bad, SmartHostTls::None, false);
    let all = rig(host.clone(), None);
    let mut link = all.link(&up());
    assert_eq!(outcomes(&attempt(&mut link, &all.letter(&["a@example.net"]).await).await), "+250");
    let few = Rig::with(|s| {
        s.smarthosts.insert("up".into(), Arc::new(host));
        s.addresses_max = 3;
    });
    let mut link = few.link(&up());
    assert_eq!(outcomes(&attempt(&mut link, &few.letter(&["a@example.net"]).await).await), "~554");
}

#[tokio::test]
async fn a_smart_host_that_is_not_there() {
    let rig = Rig::new();
    let mut link = rig.link(&up());
    let attempt = attempt(&mut link, &rig.letter(&["a@example.net"]).await).await;
    assert_eq!(outcomes(&attempt), "~4.3.5");
    assert!(text(&attempt).contains("no smart host \"up\""), "{}", text(&attempt));
}

#[tokio::test]
async fn check_says_what_is_wrong_in_words() {
    let certificates = Certificates::new(&["127.0.0.1"]);
    let good = Peer::new(with_auth().starttls(&certificates.acceptor)).await;
    let wrong =
        Peer::new(with_auth().starttls(&certificates.acceptor).on("AUTH", [say("535 5.7.8 bad password")]))
            .await;
    let plain = Peer::new(with_auth()).await;
    let silent = Peer::new(with_auth().on("connect", [Act::Hang])).await;
    let closed = free_address();
    let hosts = [good.at, wrong.at, plain.at, silent.at, closed].map(host_port).to_vec();
    let host = smart_host(hosts, SmartHostTls::Required, true);
    let rig = Rig::with(|s| {
        certificates.trust(s);
        s.timeouts.greeting = Duration::from_millis(300);
    });
    let report = probe(&rig.engine, &host).await;
    assert!(report.usable() && !report.all_ok());
    let expected = [
        (true, "certificate verified; login as \"user\" accepted"),
        (false, "did not accept the login of \"user\" by PLAIN: 535 5.7.8 bad password"),
        (false, "does not offer TLS, which is required"),
        (false, "silent for 0.3 s"),
        (false, "onnection refused"),
    ];
    for (step, (ok, words)) in report.steps.iter().zip(expected) {
        assert_eq!(step.ok, ok, "{step:?}");
        assert!(step.text.contains(words), "{step:?}");
        assert!(!step.transcript.contains("AHVzZXIAc2VjcmV0"));
    }
    assert_eq!(good.seen(|s| (s.count("QUIT"), s.count("MAIL"))), (1, 0));
    let alone = smart_host(vec![host_port(good.at)], SmartHostTls::Required, true);
    let untrusting = probe(&Rig::new().engine, &alone).await;
    assert!(untrusting.steps[0].text.contains("tls.ca_file"), "{:?}", untrusting.steps[0]);
}
