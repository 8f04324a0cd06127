//! BDAT to peers that offer CHUNKING.

use std::time::Duration;

use crate::peer::{Act, Behaviour, Peer, bye, say};
use crate::support::{LETTER, Rig, attempt, outcomes, smtp, text};

fn chunking() -> Behaviour {
    Behaviour::offering(&["PIPELINING", "8BITMIME", "CHUNKING"])
}

#[tokio::test]
async fn a_message_is_one_write_and_one_round_trip() {
    let (rig, peer) = (Rig::new(), Peer::new(chunking()).await);
    let mut link = rig.link(&smtp(peer.at));
    for _ in 0..3 {
        let job = rig.letter(&["a@example.net", "b@example.net"]).await;
        assert_eq!(outcomes(&attempt(&mut link, &job).await), "+250 +250");
        assert!(link.is_open() && link.latency().is_some());
    }
    assert_eq!(peer.messages(), [LETTER, LETTER, LETTER], "no dot is doubled");
    let reads = peer.seen(|s| s.reads.clone());
    assert_eq!(reads.len(), 1 + 3, "EHLO, and one read a message");
    let whole = String::from_utf8_lossy(&reads[1]).into_owned();
    assert!(
        whole.starts_with("MAIL FROM:<sender@example.com>") && whole.contains(" LAST\r\nFrom: "),
        "{whole}"
    );
    assert_eq!(peer.seen(|s| (s.count("RSET"), s.count("DATA"))), (0, 0));
}

#[tokio::test]
async fn without_pipelining_it_saves_the_354() {
    let (rig, peer) = (Rig::new(), Peer::new(Behaviour::offering(&["CHUNKING"])).await);
    let mut link = rig.link(&smtp(peer.at));
    let mut job = rig.job(&["a@example.net"], b"Subject: no line end", |_| {}).await;
    job.full_transcript = true;
    let attempt = attempt(&mut link, &job).await;
    assert_eq!(outcomes(&attempt), "+250");
    assert_eq!(peer.messages(), [b"Subject: no line end\r\n"]);
    assert_eq!(peer.seen(|s| s.reads.len()), 4, "EHLO, MAIL, RCPT, BDAT");
    let transcript = attempt.transcript.unwrap();
    assert!(transcript.contains("> BDAT 22 LAST\n* 22 octets of content sent\n"), "{transcript}");
}

#[tokio::test]
async fn large_content_and_lmtp_go_by_data_and_so_does_all_where_it_is_switched_off() {
    let large = b"0123456789\r\n".repeat(10_000);
    let (rig, peer) = (Rig::new(), Peer::new(chunking()).await);
    let mut link = rig.link(&smtp(peer.at));
    let job = rig.job(&["a@example.net"], &large, |_| {}).await;
    assert_eq!(outcomes(&attempt(&mut link, &job).await), "+250");
    assert_eq!(peer.seen(|s| (s.count("BDAT"), s.count("DATA"))), (0, 1));
    assert!(peer.messages()[0] == large);

    let lmtp = Peer::new(chunking().lmtp()).await;
    let mut link = rig.link(&mail::Destination::Lmtp(crate::support::host_port(lmtp.at)));
    assert_eq!(outcomes(&attempt(&mut link, &rig.letter(&["a@example.net"]).await).await), "+250");
    assert_eq!(lmtp.seen(|s| (s.count("BDAT"), s.count("DATA"))), (0, 1));

    let off = Rig::with(|s| (s.bdat, s.pipelining) = (false, false));
    let peer = Peer::new(chunking()).await;
    let mut link = off.link(&smtp(peer.at));
    assert_eq!(outcomes(&attempt(&mut link, &off.letter(&["a@example.net"]).await).await), "+250");
    assert_eq!(peer.seen(|s| (s.count("BDAT"), s.count("DATA"), s.reads.len())), (0, 1, 5));
}

#[tokio::test]
async fn what_the_peer_does_not_want_is_no_command() {
    let behaviour = chunking().on("RCPT", [say("550 5.1.1 no"), say("550 5.1.1 no")]);
    let (rig, peer) = (Rig::new(), Peer::new(behaviour).await);
    let mut link = rig.link(&smtp(peer.at));
    let content = b"Subject: x\r\n\r\nMAIL FROM:<evil@example.com>\r\n";
    let job = rig.job(&["a@example.net", "b@example.net"], content, |_| {}).await;
    assert_eq!(outcomes(&attempt(&mut link, &job).await), "-550 -550");
    assert_eq!(peer.messages().len(), 0);
    // And the next one goes over the same connection.
    assert_eq!(outcomes(&attempt(&mut link, &rig.letter(&["c@example.net"]).await).await), "+250");
    assert_eq!(peer.seen(|s| (s.connections, s.count("RSET"), s.count("MAIL FROM:<evil"))), (1, 1, 0));
}

#[tokio::test]
async fn content_that_smtp_cannot_carry_is_not_sent_by_bdat_either() {
    let (rig, peer) = (Rig::new(), Peer::new(chunking()).await);
    let mut link = rig.link(&smtp(peer.at));
    for bad in [&b"Subject: x\n\nbare"[..], b"Subject: x\r\n\r\na\rb\r\n", b"Subject: x\r\n\r\n\0\r\n"] {
        let refused = attempt(&mut link, &rig.job(&["a@example.net"], bad, |_| {}).await).await;
        assert_eq!(outcomes(&refused), "-5.6.0");
    }
    assert_eq!(peer.seen(|s| s.connections), 0);
}

#[tokio::test]
async fn refused_by_the_last_reply_or_by_none() {
    let late = chunking()
        .on("BDAT", [say("451 4.3.0 disk full"), say("554 5.7.1 no spam"), bye("421 4.3.2 enough")]);
    let (rig, peer) = (Rig::new(), Peer::new(late).await);
    let mut link = rig.link(&smtp(peer.at));
    for expected in ["~451", "-554", "~421"] {
        let job = rig.letter(&["a@example.net"]).await;
        assert_eq!(outcomes(&attempt(&mut link, &job).await), expected);
    }
    let silent = Peer::new(chunking().on("BDAT", [Act::Hang])).await;
    let rig = Rig::with(|s| s.timeouts.message = Duration::from_millis(200));
    let mut link = rig.link(&smtp(silent.at));
    let lost = attempt(&mut link, &rig.letter(&["a@example.net"]).await).await;
    assert_eq!((outcomes(&lost).as_str(), link.latency()), ("~4.4.2", None));
    assert!(text(&lost).contains("it may have the message"), "{}", text(&lost));
}
