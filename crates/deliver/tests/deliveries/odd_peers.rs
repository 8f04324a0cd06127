//! Peers that do what no server should, at every point of the dialogue.

use std::time::Duration;

use crate::peer::{Act, Behaviour, Peer, bye, say};
use crate::support::{Rig, attempt, outcomes, smtp, text};

/// Delivers one letter to two recipients; what became of it.
async fn deliver(behaviour: Behaviour) -> (String, String) {
    let (rig, peer) = (Rig::new(), Peer::new(behaviour).await);
    let mut link = rig.link(&smtp(peer.at));
    let job = rig.letter(&["a@example.net", "b@example.net"]).await;
    let attempt = attempt(&mut link, &job).await;
    (outcomes(&attempt), text(&attempt).to_owned())
}

#[tokio::test]
async fn refuses_at_connect() {
    // A host that the operator named: what is wrong with it can be mended, so no mail is sent back.
    for greeting in ["554 no service here", "521 no mail", "450 later", "421 4.3.2 busy"] {
        let (outcomes, text) = deliver(Behaviour::good().on("connect", [bye(greeting)])).await;
        assert_eq!(outcomes, format!("~{0} ~{0}", &greeting[..3]));
        assert!(text.contains("greeting was") && text.contains("127.0.0.1"), "{text}");
    }
}

#[tokio::test]
async fn closes_after_each_command() {
    for (when, what) in
        [("connect", "greeting"), ("EHLO", "EHLO"), ("MAIL", "MAIL"), ("RCPT", "RCPT"), ("DATA", "DATA")]
    {
        let (outcomes, text) = deliver(Behaviour::good().on(when, [Act::Close])).await;
        assert_eq!(outcomes, "~4.4.2 ~4.4.2", "{when}");
        assert!(text.contains("closed the connection") && text.contains(what), "{when}: {text}");
    }
}

#[tokio::test]
async fn goes_away_with_421_at_each_command() {
    for when in ["connect", "EHLO", "MAIL", "RCPT", "DATA", "."] {
        let (outcomes, text) = deliver(Behaviour::good().on(when, [bye("421 4.3.2 shutting down")])).await;
        assert_eq!(outcomes, "~421 ~421", "{when}");
        assert!(text.contains("shutting down"), "{when}: {text}");
    }
}

#[tokio::test]
async fn loses_the_final_reply() {
    for act in [Act::Close, Act::Hang] {
        let rig = Rig::with(|s| s.timeouts.message = Duration::from_millis(300));
        let peer = Peer::by_turns(vec![Behaviour::good().on(".", [act]), Behaviour::good()]).await;
        let mut link = rig.link(&smtp(peer.at));
        let job = rig.letter(&["a@example.net"]).await;
        let lost = attempt(&mut link, &job).await;
        assert_eq!(outcomes(&lost), "~4.4.2");
        assert!(text(&lost).contains("it may have the message"), "{}", text(&lost));
        assert!(!link.is_open());
        assert_eq!(peer.messages().len(), 1);
        // It is sent again, and nobody is told that it failed.
        assert_eq!(outcomes(&attempt(&mut link, &job).await), "+250");
    }
}

#[tokio::test]
async fn is_silent_at_each_command() {
    for when in ["connect", "EHLO", "MAIL", "RCPT", "DATA"] {
        let rig = Rig::with(|s| {
            let limit = Duration::from_millis(200);
            let t = &mut s.timeouts;
            (t.greeting, t.hello, t.mail, t.rcpt, t.data) = (limit, limit, limit, limit, limit);
        });
        let peer = Peer::new(Behaviour::good().on(when, [Act::Hang])).await;
        let mut link = rig.link(&smtp(peer.at));
        let attempt = attempt(&mut link, &rig.letter(&["a@example.net"]).await).await;
        assert_eq!(outcomes(&attempt), "~4.4.2", "{when}");
        assert!(text(&attempt).contains("silent for 0.2 s"), "{when}: {}", text(&attempt));
        assert!(attempt.transcript.is_some_and(|t| t.contains("silent")));
    }
}

/// A reply that trickles in is no reply until it is whole: the time runs from the command.
#[tokio::test]
async fn drips() {
    let rig = Rig::with(|s| s.timeouts.mail = Duration::from_millis(400));
    let slow = Act::Drip("250 this goes on and on and on\r\n".into(), Duration::from_millis(100));
    let peer = Peer::new(Behaviour::good().on("MAIL", [slow])).await;
    let mut link = rig.link(&smtp(peer.at));
    let attempt = attempt(&mut link, &rig.letter(&["a@example.net"]).await).await;
    assert_eq!(outcomes(&attempt), "~4.4.2");
    assert!(attempt.duration_ms < 2000, "{}", attempt.duration_ms);
}

/// Each reply just in time, and all of them together much too long.
#[tokio::test]
async fn tarpits() {
    let rig = Rig::with(|s| s.timeouts.envelope = Duration::from_millis(500));
    let late = || Act::Drip("250 ok\r\n".into(), Duration::from_millis(20));
    let to: Vec<String> = (0..50).map(|n| format!("r{n}@example.net")).collect();
    let to: Vec<&str> = to.iter().map(String::as_str).collect();
    let peer = Peer::new(Behaviour::good().on("RCPT", (0..50).map(|_| late()))).await;
    let mut link = rig.link(&smtp(peer.at));
    let attempt = attempt(&mut link, &rig.letter(&to).await).await;
    assert!(outcomes(&attempt).split(' ').all(|o| o == "~4.4.2"));
    assert!(attempt.duration_ms < 3000, "{}", attempt.duration_ms);
}

#[tokio::test]
async fn talks_garbage() {
    let endless = "250-".to_owned() + &"x".repeat(100_000);
    for garbage in ["HTTP/1.1 400 Bad Request\r\n\r\n", "\u{0}\u{1}\u{2}\r\n", "250-a\r\n550 b\r\n", &endless]
    {
        for when in ["connect", "EHLO", "MAIL", "."] {
            let (outcomes, text) = deliver(Behaviour::good().on(when, [Act::Say(garbage.to_owned())])).await;
            assert_eq!(outcomes, "~4.5.0 ~4.5.0", "{when}: {garbage:.30} {text}");
            assert!(!text.contains('\u{0}'));
        }
    }
}

#[tokio::test]
async fn says_it_in_many_lines_with_terminal_tricks() {
    let reply = "550-5.7.1 \u{1b}[31mred\r\n550-5.7.1 \u{7}bell\r\n550 5.7.1 end\r\n";
    let (outcomes, text) = deliver(Behaviour::good().on("MAIL", [Act::Say(reply.into())])).await;
    assert_eq!((outcomes.as_str(), text.as_str()), ("-550 -550", "?[31mred\n?bell\nend"));
}

#[tokio::test]
async fn answers_twice() {
    let rig = Rig::new();
    let peer = Peer::by_turns(vec![
        Behaviour::good().on(".", [Act::Say("250 once\r\n250 twice\r\n".into())]),
        Behaviour::good(),
    ])
    .await;
    let mut link = rig.link(&smtp(peer.at));
    let job = rig.letter(&["a@example.net"]).await;
    assert_eq!(outcomes(&attempt(&mut link, &job).await), "+250");
    assert!(!link.is_open(), "replies and commands may be out of step on this connection");
    assert_eq!(outcomes(&attempt(&mut link, &job).await), "+250");
    assert_eq!(peer.seen(|s| s.connections), 2);
}

#[tokio::test]
async fn sends_the_354_late_or_never() {
    for (act, expected) in [
        (say("250 what do you mean"), "~4.5.0"),
        (say("554 5.5.1 no valid recipients"), "-554"),
        (say("451 4.3.0 not now"), "~451"),
        (say("503 5.5.1 what"), "-503"),
    ] {
        let (outcomes, _) = deliver(Behaviour::good().on("DATA", [act])).await;
        assert_eq!(outcomes, format!("{expected} {expected}"));
    }
}

/// Refuses in the middle of a large message and hangs up: its words count, not the broken pipe.
#[tokio::test]
async fn hangs_up_in_the_middle_of_the_content() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut room = vec![0; 65536];
        stream.write_all(b"220 x\r\n").await.unwrap();
        for reply in ["250-x\r\n250 PIPELINING\r\n", "250 ok\r\n250 ok\r\n354 go\r\n"] {
            assert!(stream.read(&mut room).await.unwrap() > 0);
            stream.write_all(reply.as_bytes()).await.unwrap();
        }
        stream.read_exact(&mut room).await.unwrap();
        stream.write_all(b"552 5.3.4 too much\r\n").await.unwrap();
        // What it does not read any more is left to the system.
        while stream.read(&mut room).await.is_ok_and(|n| n > 0) {}
    });
    let rig = Rig::new();
    let job =
        rig.job(&["a@example.net"], &b"0123456789012345678901234567890\r\n".repeat(1 << 20), |_| {}).await;
    let mut link = rig.link(&smtp(at));
    let attempt = attempt(&mut link, &job).await;
    assert_eq!(outcomes(&attempt), "-552", "{:?}", attempt.transcript);
}

/// Does not read what it asked for.
#[tokio::test]
async fn stops_reading() {
    let rig = Rig::with(|s| s.timeouts.block = Duration::from_millis(300));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut room = vec![0; 4096];
        stream.write_all(b"220 x\r\n").await.unwrap();
        for reply in ["250-x\r\n250 PIPELINING\r\n", "250 ok\r\n250 ok\r\n354 go\r\n"] {
            assert!(stream.read(&mut room).await.unwrap() > 0);
            stream.write_all(reply.as_bytes()).await.unwrap();
        }
        std::future::pending::<()>().await;
    });
    let job =
        rig.job(&["a@example.net"], &b"0123456789012345678901234567890\r\n".repeat(1 << 20), |_| {}).await;
    let mut link = rig.link(&smtp(at));
    let attempt = attempt(&mut link, &job).await;
    assert_eq!(outcomes(&attempt), "~4.4.2");
    assert!(text(&attempt).contains("while the message was being sent"), "{}", text(&attempt));
}
