//! What a transaction looks like on the wire, and what each recipient gets out of it.

use mail::{Body, Notify, Ret};

use crate::peer::{Act, Behaviour, Peer, bye, say};
use crate::support::{LETTER, Rig, attempt, outcomes, smtp, text};

#[tokio::test]
async fn with_pipelining_the_envelope_is_one_write_and_the_content_another() {
    let (rig, peer) = (Rig::new(), Peer::new(Behaviour::good()).await);
    let mut link = rig.link(&smtp(peer.at));
    let attempt = attempt(&mut link, &rig.letter(&["a@example.net", "b@example.net"]).await).await;
    assert_eq!(outcomes(&attempt), "+250 +250");
    assert_eq!(text(&attempt), "queued");
    assert!(attempt.dsn && attempt.tls.is_none() && attempt.transcript.is_none());
    assert_eq!(attempt.remote.unwrap().address, Some(peer.at));
    assert_eq!(peer.messages(), [LETTER]);
    let reads = peer.seen(|s| s.reads.clone());
    assert_eq!(reads.len(), 3, "EHLO, the envelope, the content");
    let envelope = String::from_utf8_lossy(&reads[1]).into_owned();
    assert!(
        envelope.starts_with("MAIL FROM:<sender@example.com>") && envelope.ends_with("DATA\r\n"),
        "{envelope}"
    );
    assert!(reads[2].ends_with(b"\r\n..leading dot\r\n.\r\n"));
}

/// Some servers, OpenSMTPD among them, treat a client that sends ahead without being asked to as an attacker.
#[tokio::test]
async fn without_pipelining_nothing_is_sent_ahead() {
    let (rig, peer) = (Rig::new(), Peer::new(Behaviour::offering(&["8BITMIME"])).await);
    let mut link = rig.link(&smtp(peer.at));
    let job = rig.letter(&["a@example.net", "b@example.net"]).await;
    for _ in 0..2 {
        assert_eq!(outcomes(&attempt(&mut link, &job).await), "+250 +250");
    }
    let reads = peer.seen(|s| s.reads.clone());
    let commands = reads.iter().filter(|r| !r.ends_with(b"\r\n.\r\n"));
    assert!(commands.clone().all(|r| r.iter().filter(|&&b| b == b'\n').count() == 1), "{reads:?}");
    assert_eq!(commands.count(), 1 + 2 * 4);
    assert_eq!(peer.messages(), [LETTER, LETTER]);
}

#[tokio::test]
async fn helo_where_ehlo_is_unknown() {
    let behaviour = Behaviour::good().on("EHLO", [say("500 5.5.1 what")]);
    let (rig, peer) = (Rig::new(), Peer::new(behaviour).await);
    let mut link = rig.link(&smtp(peer.at));
    let attempt = attempt(&mut link, &rig.letter(&["a@example.net"]).await).await;
    assert_eq!((outcomes(&attempt).as_str(), attempt.dsn), ("+250", false));
    assert_eq!(
        peer.seen(|s| s.lines.join("|")),
        "EHLO relay.test|HELO relay.test|MAIL FROM:<sender@example.com>|RCPT TO:<a@example.net>|DATA"
    );
}

#[tokio::test]
async fn ipv6() {
    let listener = tokio::net::TcpListener::bind("[::1]:0").await.unwrap();
    let (rig, peer) = (Rig::new(), Peer::on(listener, vec![Behaviour::good()]));
    let destination = format!("smtp://{}", peer.at).parse().unwrap();
    let mut link = rig.link(&destination);
    let attempt = attempt(&mut link, &rig.letter(&["a@example.net"]).await).await;
    assert_eq!(outcomes(&attempt), "+250");
    assert_eq!(attempt.remote.unwrap().address, Some(peer.at));
}

/// What operators write.
#[tokio::test]
async fn localhost_needs_no_dns() {
    let (rig, peer) = (Rig::new(), Peer::new(Behaviour::good()).await);
    let destination = format!("smtp://localhost:{}", peer.at.port()).parse().unwrap();
    let mut link = rig.link(&destination);
    let attempt = attempt(&mut link, &rig.letter(&["a@example.net"]).await).await;
    assert_eq!(outcomes(&attempt), "+250", "{:?}", attempt.transcript);
}

#[tokio::test]
async fn each_recipient_has_an_outcome_of_its_own() {
    let behaviour = Behaviour::good().on(
        "RCPT",
        [say("250 ok"), say("550 5.1.1 no such user"), say("450 4.2.1 greylisted"), say("251 will forward")],
    );
    let (rig, peer) = (Rig::new(), Peer::new(behaviour).await);
    let mut link = rig.link(&smtp(peer.at));
    let to = ["a@example.net", "b@example.net", "c@example.net", "d@example.net"];
    let attempt = attempt(&mut link, &rig.letter(&to).await).await;
    assert_eq!(outcomes(&attempt), "+250 -550 ~450 +250");
    assert_eq!(attempt.outcomes[1].outcome.text, "no such user");
    assert_eq!(peer.messages().len(), 1);
    let transcript = attempt.transcript.expect("there were failures");
    assert!(transcript.contains("< 550 5.1.1 no such user\n"), "{transcript}");
}

#[tokio::test]
async fn nobody_is_accepted_and_data_is_let_through() {
    let refused = || say("550 5.1.1 no");
    let behaviour = Behaviour::good().on("RCPT", [refused(), refused()]);
    let (rig, peer) = (Rig::new(), Peer::new(behaviour).await);
    let mut link = rig.link(&smtp(peer.at));
    let first = attempt(&mut link, &rig.letter(&["a@example.net", "b@example.net"]).await).await;
    assert_eq!(outcomes(&first), "-550 -550");
    // The message that the peer wanted had no octet, and the connection is as good as before.
    assert_eq!(peer.messages(), [b""]);
    assert!(link.is_open());
    assert_eq!(outcomes(&attempt(&mut link, &rig.letter(&["c@example.net"]).await).await), "+250");
    assert_eq!(peer.seen(|s| (s.connections, s.count("RSET"))), (1, 0));
}

#[tokio::test]
async fn rset_after_a_transaction_that_was_given_up() {
    let behaviour = Behaviour::good().on("RCPT", [say("550 no")]).on("DATA", [say("503 no recipients")]);
    let (rig, peer) = (Rig::new(), Peer::new(behaviour).await);
    let mut link = rig.link(&smtp(peer.at));
    assert_eq!(outcomes(&attempt(&mut link, &rig.letter(&["a@example.net"]).await).await), "-550");
    assert_eq!(outcomes(&attempt(&mut link, &rig.letter(&["b@example.net"]).await).await), "+250");
    assert_eq!(peer.seen(|s| (s.connections, s.count("RSET"))), (1, 1));
}

#[tokio::test]
async fn too_many_recipients_go_in_the_next_transaction() {
    let enough = || say("452 4.5.3 too many recipients");
    let behaviour =
        Behaviour::good().on("RCPT", [say("250 ok"), say("250 ok"), enough(), enough(), enough()]);
    let (rig, peer) = (Rig::new(), Peer::by_turns(vec![behaviour, Behaviour::good()]).await);
    let mut link = rig.link(&smtp(peer.at));
    let to: Vec<String> = (0..5).map(|n| format!("r{n}@example.net")).collect();
    let to: Vec<&str> = to.iter().map(String::as_str).collect();
    let first = attempt(&mut link, &rig.letter(&to).await).await;
    assert_eq!(outcomes(&first), "+250 +250 +250 +250 +250");
    // Five asked and two taken, then two, then one: it is not asked for more than it takes.
    assert_eq!(peer.seen(|s| (s.connections, s.messages.len(), s.count("RCPT"))), (1, 3, 8));
    // Nor by anybody else.
    let mut other = rig.link(&smtp(peer.at));
    assert_eq!(outcomes(&attempt(&mut other, &rig.letter(&to).await).await), "+250 +250 +250 +250 +250");
    assert_eq!(peer.seen(|s| (s.messages.len(), s.count("RCPT"))), (6, 13));
}

#[tokio::test]
async fn never_more_recipients_than_the_peer_or_we_allow() {
    for (offers, recipients_max, transactions, connections) in [
        (vec!["PIPELINING"], 2, 3, 1),
        (vec!["PIPELINING", "LIMITS RCPTMAX=3"], 100, 2, 1),
        (vec!["LIMITS RCPTMAX=3"], 100, 2, 1),
        (vec!["PIPELINING", "LIMITS RCPTMAX=2 MAILMAX=1"], 100, 3, 3),
        (vec!["PIPELINING", "LIMITS RCPTDOMAINMAX=1"], 100, 5, 1),
    ] {
        let rig = Rig::with(|s| s.recipients_max = recipients_max);
        let peer = Peer::new(Behaviour::offering(&offers)).await;
        let mut link = rig.link(&smtp(peer.at));
        let to: Vec<String> = (0..5).map(|n| format!("r@d{n}.example.net")).collect();
        let to: Vec<&str> = to.iter().map(String::as_str).collect();
        let attempt = attempt(&mut link, &rig.letter(&to).await).await;
        assert_eq!(outcomes(&attempt), "+250 +250 +250 +250 +250", "{offers:?}");
        assert_eq!(
            peer.seen(|s| (s.messages.len(), s.connections)),
            (transactions, connections),
            "{offers:?}"
        );
    }
}

/// The connection goes away between two transactions of one message: who was delivered stays delivered.
#[tokio::test]
async fn the_rest_is_tried_again_when_the_connection_ends_between_transactions() {
    let rig = Rig::with(|s| s.recipients_max = 1);
    let first = Behaviour::good().on("MAIL", [say("250 ok"), bye("421 4.7.0 one is enough")]);
    let peer = Peer::by_turns(vec![first, Behaviour::good()]).await;
    let mut link = rig.link(&smtp(peer.at));
    let attempt = attempt(&mut link, &rig.letter(&["a@example.net", "b@example.net"]).await).await;
    assert_eq!(outcomes(&attempt), "+250 ~421");
}

#[tokio::test]
async fn dsn_parameters_go_where_dsn_is_offered_and_nowhere_else() {
    for (offers, has_dsn) in [(vec!["PIPELINING", "DSN"], true), (vec!["PIPELINING"], false)] {
        let (rig, peer) = (Rig::new(), Peer::new(Behaviour::offering(&offers)).await);
        let mut link = rig.link(&smtp(peer.at));
        let mut job = rig
            .job(&["a@example.net"], LETTER, |m| {
                m.ret = Some(Ret::Headers);
                m.envid = Some("id+2B1".into());
            })
            .await;
        let recipient = &mut job.waiting.recipients[0].recipient;
        recipient.notify = Notify::On { success: true, failure: false, delay: true };
        recipient.orcpt = Some("rfc822;orig@example.org".into());
        let attempt = attempt(&mut link, &job).await;
        assert_eq!((outcomes(&attempt).as_str(), attempt.dsn), ("+250", has_dsn));
        let lines = peer.seen(|s| s.lines[1..3].join("|"));
        let expected = if has_dsn {
            "MAIL FROM:<sender@example.com> RET=HDRS ENVID=id+2B1|\
             RCPT TO:<a@example.net> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;orig@example.org"
        } else {
            "MAIL FROM:<sender@example.com>|RCPT TO:<a@example.net>"
        };
        assert_eq!(lines, expected);
    }
}

#[tokio::test]
async fn what_the_peer_cannot_carry_is_refused_and_never_changed() {
    type Change = fn(&mut mail::Message);
    let cases: [(&[&str], Change, &str); 3] = [
        (&["PIPELINING"], |m| m.body = Body::EightBitMime, "-5.6.3"),
        (&["PIPELINING", "8BITMIME"], |m| m.smtputf8 = true, "-5.6.7"),
        (&["PIPELINING", "SIZE 10"], |_| {}, "-5.3.4"),
    ];
    for (offers, change, expected) in cases {
        let (rig, peer) = (Rig::new(), Peer::new(Behaviour::offering(offers)).await);
        let mut link = rig.link(&smtp(peer.at));
        let refused = attempt(&mut link, &rig.job(&["a@example.net"], LETTER, change).await).await;
        assert_eq!(outcomes(&refused), expected);
        assert_eq!(peer.seen(|s| s.count("MAIL")), 0);
        assert!(link.is_open(), "the connection is good for other messages");
    }
}

#[tokio::test]
async fn one_recipient_needs_smtputf8_and_the_other_does_not() {
    let (rig, peer) = (Rig::new(), Peer::new(Behaviour::offering(&["PIPELINING"])).await);
    let mut link = rig.link(&smtp(peer.at));
    let attempt = attempt(&mut link, &rig.letter(&["bücher@example.net", "a@example.net"]).await).await;
    assert_eq!(outcomes(&attempt), "-5.6.7 +250");
}

#[tokio::test]
async fn lmtp_has_an_outcome_for_each_recipient_after_the_dot() {
    let behaviour = Behaviour::good()
        .lmtp()
        .on("RCPT", [say("250 ok"), say("550 5.1.1 no"), say("250 ok"), say("250 ok")])
        .on(".", [say("250 2.0.0 saved"), say("452 4.2.2 quota"), say("554 5.6.0 virus")]);
    let (rig, peer) = (Rig::new(), Peer::new(behaviour).await);
    let destination = mail::Destination::Lmtp(crate::support::host_port(peer.at));
    let mut link = rig.link(&destination);
    let to = ["a@example.net", "b@example.net", "c@example.net", "d@example.net"];
    let first = attempt(&mut link, &rig.letter(&to).await).await;
    assert_eq!(outcomes(&first), "+250 -550 ~452 -554");
    assert_eq!(first.outcomes[2].outcome.text, "quota");
    assert_eq!(peer.seen(|s| s.lines[0].clone()), "LHLO relay.test");
    assert!(link.is_open());
    // It breaks off between two of its replies.
    let behaviour = Behaviour::good().lmtp().on(".", [say("250 2.0.0 saved"), Act::Close]);
    let peer = Peer::new(behaviour).await;
    let mut link = rig.link(&mail::Destination::Lmtp(crate::support::host_port(peer.at)));
    let broken = attempt(&mut link, &rig.letter(&["a@example.net", "b@example.net"]).await).await;
    assert_eq!(outcomes(&broken), "+250 ~4.4.2");
}
