//! Asking the next hop about a recipient.

use std::time::Duration;

use deliver::{CalloutAnswer, callout};
use mail::{Address, Destination};

use crate::peer::{Act, Behaviour, Peer, say};
use crate::support::{Rig, host_port, smtp};

const LIMIT: Duration = Duration::from_secs(5);

#[tokio::test]
async fn the_answer_is_that_to_rcpt() {
    let rig = Rig::new();
    let who = Address::parse("a@example.net").unwrap();
    for (reply, lmtp) in
        [("250 ok", false), ("550 5.1.1 no", false), ("450 later", false), ("550 5.1.1 no", true)]
    {
        let behaviour = Behaviour::good().on("RCPT", [say(reply)]);
        let peer = Peer::new(if lmtp { behaviour.lmtp() } else { behaviour }).await;
        let destination = if lmtp { Destination::Lmtp(host_port(peer.at)) } else { smtp(peer.at) };
        let answer = callout(&rig.engine, &destination, &who, LIMIT).await;
        match &reply[..3] {
            "250" => assert_eq!(answer, CalloutAnswer::Accepted),
            "550" => {
                assert!(matches!(answer, CalloutAnswer::Refused(o) if o.code == Some(550) && o.text == "no"))
            }
            _ => assert!(matches!(answer, CalloutAnswer::Unknown(_))),
        }
        let lines = peer.seen(|s| s.lines[1..].join("|"));
        assert!(lines.starts_with("MAIL FROM:<>|RCPT TO:<a@example.net>"), "{lines}");
        assert_eq!(peer.seen(|s| s.count("DATA")), 0);
    }
}

#[tokio::test]
async fn no_answer_is_none() {
    let rig = Rig::new();
    let who = Address::parse("a@example.net").unwrap();
    let silent = Peer::new(Behaviour::good().on("RCPT", [Act::Hang])).await;
    let answer = callout(&rig.engine, &smtp(silent.at), &who, Duration::from_millis(300)).await;
    assert!(
        matches!(&answer, CalloutAnswer::Unknown(o) if o.text.contains("no answer about a@example.net")),
        "{answer:?}"
    );
    let gone = callout(&rig.engine, &smtp(crate::support::free_address()), &who, LIMIT).await;
    assert!(matches!(&gone, CalloutAnswer::Unknown(_)), "{gone:?}");
}

#[tokio::test]
async fn mailboxes_of_our_own_need_no_question() {
    let rig = Rig::new();
    let maildir = Destination::Maildir("/nowhere/{domain}/{user}".into());
    for (who, known) in [("a@example.net", true), ("\"..\"@example.net", false)] {
        let answer = callout(&rig.engine, &maildir, &Address::parse(who).unwrap(), LIMIT).await;
        assert_eq!(answer == CalloutAnswer::Accepted, known, "{who}: {answer:?}");
    }
}
