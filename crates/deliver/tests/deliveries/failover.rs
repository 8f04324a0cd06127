//! Another exchanger where the first one turns the message away.

use crate::exchangers::{Dns, deliver, pair};
use crate::peer::{Act, Behaviour, bye, say};
use crate::support::{attempt, outcomes};

#[tokio::test]
async fn trouble_of_one_host_is_no_trouble_of_the_next() {
    let dns = Dns::new().await;
    for (when, said) in [
        ("MAIL", "451 4.3.0 local error"),
        ("RCPT", "451 4.3.0 local error"),
        ("RCPT", "452 4.3.1 disk full"),
        ("RCPT", "451 temporary lookup failure"),
        ("DATA", "451 4.3.0 queue file write error"),
        (".", "451 4.3.0 queue file write error"),
        ("RCPT", "421 4.3.2 going down"),
    ] {
        let turn = if said.starts_with("421") { bye(said) } else { say(said) };
        let (first, second) = pair(vec![Behaviour::good().on(when, [turn])], vec![Behaviour::good()]).await;
        let rig = dns.rig(first.at.port(), |_| {});
        let attempt = deliver(&rig, "both.mail.test").await;
        assert_eq!(outcomes(&attempt), "+250", "{when} {said}: {:?}", attempt.transcript);
        assert_eq!(attempt.remote.unwrap().name, "mx2.mail.test");
        assert_eq!((first.seen(|s| s.connections), second.messages().len()), (1, 1), "{when} {said}");
    }
    // It hangs up in the middle of the envelope.
    let (first, second) =
        pair(vec![Behaviour::good().on("RCPT", [Act::Close])], vec![Behaviour::good()]).await;
    let rig = dns.rig(first.at.port(), |_| {});
    assert_eq!(outcomes(&deliver(&rig, "both.mail.test").await), "+250");
    assert_eq!(second.messages().len(), 1);
}

/// What one exchanger says of the message, its sender or its recipients, all of them would.
#[tokio::test]
async fn an_answer_about_the_message_is_the_answer() {
    let dns = Dns::new().await;
    for (when, said, expected) in [
        ("RCPT", "450 4.2.0 greylisted, come back later", "~450"),
        ("RCPT", "451 4.7.1 greylisting in action", "~451"),
        ("RCPT", "451 greylisted", "~451"),
        ("RCPT", "452 4.2.2 mailbox full", "~452"),
        ("MAIL", "450 4.7.1 sender is limited", "~450"),
        ("RCPT", "550 5.1.1 no such user", "-550"),
        ("MAIL", "554 5.7.1 no", "-554"),
        (".", "554 5.7.1 spam", "-554"),
    ] {
        let (first, second) =
            pair(vec![Behaviour::good().on(when, [say(said)])], vec![Behaviour::good()]).await;
        let rig = dns.rig(first.at.port(), |_| {});
        assert_eq!(outcomes(&deliver(&rig, "both.mail.test").await), expected, "{when} {said}");
        assert_eq!(second.seen(|s| s.connections), 0, "{when} {said}");
    }
}

/// A host that has all of the message and does not answer may have taken it.
#[tokio::test]
async fn no_other_host_gets_what_the_first_may_have() {
    let dns = Dns::new().await;
    let (first, second) = pair(vec![Behaviour::good().on(".", [Act::Close])], vec![Behaviour::good()]).await;
    let rig = dns.rig(first.at.port(), |_| {});
    assert_eq!(outcomes(&deliver(&rig, "both.mail.test").await), "~4.4.2");
    assert_eq!((first.messages().len(), second.seen(|s| s.connections)), (1, 0));
}

#[tokio::test]
async fn the_words_of_the_first_host_stay_when_the_second_is_not_there() {
    let dns = Dns::new().await;
    let trouble =
        || Behaviour::good().on("RCPT", [say("451 4.3.0 local error"), say("550 5.1.1 no such user")]);
    let (first, second) =
        pair(vec![trouble()], vec![Behaviour::good().on("connect", [bye("554 5.7.1 go away")])]).await;
    let rig = dns.rig(first.at.port(), |_| {});
    let mut link = rig.link(&mail::Destination::Mx("both.mail.test".into()));
    let job = rig.letter(&["a@both.mail.test", "b@both.mail.test"]).await;
    let attempt = attempt(&mut link, &job).await;
    assert_eq!(outcomes(&attempt), "~451 -550", "{:?}", attempt.transcript);
    assert_eq!(attempt.remote.unwrap().name, "mx1.mail.test");
    assert!(link.unreachable().is_none());
    assert_eq!((first.seen(|s| s.connections), second.seen(|s| s.connections)), (1, 1));
}

#[tokio::test]
async fn some_are_refused_and_the_others_go_to_the_next_host() {
    let dns = Dns::new().await;
    let first = Behaviour::good().on("RCPT", [say("550 5.1.1 no such user"), say("451 4.3.0 local error")]);
    let (first, second) = pair(vec![first], vec![Behaviour::good()]).await;
    let rig = dns.rig(first.at.port(), |_| {});
    let mut link = rig.link(&mail::Destination::Mx("both.mail.test".into()));
    let job = rig.letter(&["a@both.mail.test", "b@both.mail.test"]).await;
    assert_eq!(outcomes(&attempt(&mut link, &job).await), "-550 +250");
    assert_eq!(second.seen(|s| (s.count("RCPT"), s.count("RCPT TO:<b@"))), (1, 1));
    // The connection that is left open is the second host's, for a while.
    let job = rig.letter(&["c@both.mail.test"]).await;
    assert_eq!(outcomes(&attempt(&mut link, &job).await), "+250");
    assert_eq!((first.seen(|s| s.connections), second.messages().len()), (1, 2));
}

#[tokio::test]
async fn from_an_open_connection_too() {
    let dns = Dns::new().await;
    let first = Behaviour::good().on("RCPT", [say("250 ok"), say("451 4.3.0 local error")]);
    let (first, second) = pair(vec![first], vec![Behaviour::good()]).await;
    let rig = dns.rig(first.at.port(), |_| {});
    let mut link = rig.link(&mail::Destination::Mx("both.mail.test".into()));
    for _ in 0..2 {
        let job = rig.letter(&["a@both.mail.test"]).await;
        assert_eq!(outcomes(&attempt(&mut link, &job).await), "+250");
    }
    assert_eq!((first.seen(|s| s.count("MAIL")), second.messages().len()), (2, 1));
    assert_eq!(first.seen(|s| s.connections), 1, "it is not asked twice");
}
