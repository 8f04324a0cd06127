//! Content arrives to the last octet, or not at all.

use crate::peer::{Behaviour, Peer};
use crate::support::{Rig, attempt, outcomes, smtp, text};

#[tokio::test]
async fn all_sizes_arrive_as_they_are() {
    let (rig, peer) = (Rig::new(), Peer::new(Behaviour::good()).await);
    let mut link = rig.link(&smtp(peer.at));
    let line = b".a line that begins with a dot and is longer than most\r\n..\r\n.\r\n";
    // Below, at and above what is encoded at once, kept in memory, kept in a file.
    for size in [0usize, 2, 3, 65_535, 65_536, 65_537, 131_072, 262_144, 262_145, 3_000_000] {
        let mut content: Vec<u8> = line.iter().copied().cycle().take(size.saturating_sub(2)).collect();
        if let Some(last) = content.last_mut().filter(|last| **last == b'\r') {
            *last = b'x';
        }
        content.extend_from_slice(if size == 0 { b"" } else { b"\r\n" });
        let job = rig.job(&["a@example.net"], &content, |_| {}).await;
        let attempt = attempt(&mut link, &job).await;
        assert_eq!(outcomes(&attempt), "+250", "{size}: {:?}", attempt.transcript);
        assert!(peer.messages().last() == Some(&content), "{size}");
    }
    assert_eq!(peer.seen(|s| s.connections), 1);
}

#[tokio::test]
async fn a_missing_last_line_end_is_added_and_nothing_else() {
    let (rig, peer) = (Rig::new(), Peer::new(Behaviour::good()).await);
    let mut link = rig.link(&smtp(peer.at));
    let job = rig.job(&["a@example.net"], b"Subject: x\r\n\r\nno line end", |_| {}).await;
    assert_eq!(outcomes(&attempt(&mut link, &job).await), "+250");
    assert_eq!(peer.messages(), [b"Subject: x\r\n\r\nno line end\r\n"]);
}

/// The smuggling sequences: the message is refused, and a small one before a word about it is said.
#[tokio::test]
async fn what_another_server_could_take_for_the_end_never_leaves() {
    let (rig, peer) = (Rig::new(), Peer::new(Behaviour::good()).await);
    let mut link = rig.link(&smtp(peer.at));
    for bad in
        [&b"\n.\n"[..], b"\n.\r\n", b"\r.\r\n", b"\r\n.\n", b"\r\n.\r", b"\r\n\0.\r\n", b"\r\r\n.\r\r\n"]
    {
        // In one piece; in many from memory; from a file.
        for padding in [0, 200_000, 300_000] {
            let content = [
                b"Subject: x\r\n\r\n".to_vec(),
                b"0123456\r\n".repeat(padding / 9),
                bad.to_vec(),
                b"MAIL FROM:<>\r\n".to_vec(),
            ]
            .concat();
            let job = rig.job(&["a@example.net"], &content, |_| {}).await;
            let begun = peer.seen(|s| s.count("DATA"));
            let attempt = attempt(&mut link, &job).await;
            assert_eq!(outcomes(&attempt), "-5.6.0", "{bad:?}");
            assert!(text(&attempt).contains("without being changed"), "{}", text(&attempt));
            assert!(
                padding > 0 || peer.seen(|s| s.count("DATA")) == begun,
                "a small one is found out before"
            );
            assert!(padding == 0 || !link.is_open(), "half a message is out");
        }
    }
    // Nothing that was begun was ever completed.
    assert!(peer.messages().is_empty());
    assert!(peer.seen(|s| s.reads.iter().all(|r| !r.ends_with(b"\r\n.\r\n"))));
}
