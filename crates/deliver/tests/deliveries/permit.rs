//! Without its permit this node completes nothing: no final dot, no last chunk, no file in a mailbox.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use deliver::{Permit, withheld};
use mail::Destination;

use crate::peer::{Behaviour, Peer};
use crate::support::{Rig, attempt, outcomes, smtp};

/// A permit that is given so many times.
fn times(given: usize) -> (Permit, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    (Permit::when(move || counter.fetch_add(1, Ordering::Relaxed) < given), asked)
}

/// Attempts a message with a permit that is given `given` times, and once more with one that stays.
async fn withheld_then_sent(behaviour: Behaviour, content: &[u8], given: usize) {
    let peer = Peer::new(behaviour).await;
    let (permit, asked) = times(given);
    let rig = Rig::permitted(permit);
    let mut link = rig.link(&smtp(peer.at));
    let job = rig.job(&["a@example.net", "b@example.net"], content, |_| {}).await;
    let first = attempt(&mut link, &job).await;
    assert_eq!(asked.load(Ordering::Relaxed), given + 1, "asked at the end, and not again");
    assert!(first.outcomes.iter().all(|of| of.outcome == withheld()), "{first:?}");
    assert_eq!(first.outcomes.len(), 2);
    assert!(!link.is_open(), "the connection is of no use any more");
    assert_eq!(peer.messages().len(), 0, "the peer was not given it");

    let rig = Rig::permitted(times(usize::MAX).0);
    let mut link = rig.link(&smtp(peer.at));
    let job = rig.job(&["a@example.net", "b@example.net"], content, |_| {}).await;
    assert_eq!(outcomes(&attempt(&mut link, &job).await), "+250 +250");
    assert_eq!(peer.messages(), [content]);
}

#[tokio::test]
async fn no_dot_after_small_and_large_content() {
    let small = b"Subject: small\r\n\r\nx\r\n".to_vec();
    let large = b"0123456789\r\n".repeat(40_000);
    for content in [small, large] {
        for given in [0, 1] {
            withheld_then_sent(Behaviour::offering(&["PIPELINING"]), &content, given).await;
            withheld_then_sent(Behaviour::offering(&[]), &content, given).await;
        }
    }
}

#[tokio::test]
async fn no_last_chunk() {
    for offers in [&["CHUNKING"][..], &["PIPELINING", "CHUNKING"]] {
        for given in [0, 1] {
            withheld_then_sent(Behaviour::offering(offers), b"Subject: x\r\n\r\nx\r\n", given).await;
        }
    }
}

#[tokio::test]
async fn no_file_in_a_mailbox_and_nothing_thrown_away() {
    let rig = Rig::permitted(times(0).0);
    let mailbox = rig.dir.path().join("box");
    let job = rig.letter(&["a@example.net"]).await;
    for destination in [Destination::Maildir(mailbox.to_str().unwrap().into()), Destination::Discard] {
        let mut link = rig.link(&destination);
        let first = attempt(&mut link, &job).await;
        assert!(first.outcomes.iter().all(|of| of.outcome == withheld()), "{first:?}");
    }
    for part in ["new", "tmp"] {
        assert_eq!(std::fs::read_dir(mailbox.join(part)).unwrap().count(), 0, "{part}");
    }
}
