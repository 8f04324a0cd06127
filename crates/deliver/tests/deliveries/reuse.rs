//! One connection for many messages, and what happens when it is gone.

use std::sync::Arc;
use std::time::Duration;

use deliver::SmartHost;

use crate::peer::{Act, Behaviour, Peer, bye, say};
use crate::support::{Rig, attempt, free_address, outcomes, smtp, until};

#[tokio::test]
async fn many_messages_over_one_connection() {
    let (rig, peer) = (Rig::new(), Peer::new(Behaviour::good()).await);
    let mut link = rig.link(&smtp(peer.at));
    for _ in 0..20 {
        let job = rig.letter(&["a@example.net"]).await;
        let attempt = attempt(&mut link, &job).await;
        assert_eq!(outcomes(&attempt), "+250");
        assert_eq!(attempt.remote.unwrap().name, "127.0.0.1");
        assert!(link.is_open());
    }
    link.close().await;
    assert!(!link.is_open());
    assert_eq!(
        peer.seen(|s| (s.connections, s.messages.len(), s.count("QUIT"), s.count("RSET"))),
        (1, 20, 1, 0)
    );
}

/// A peer closes idle connections; it may say so first. The message knows nothing of it.
#[tokio::test]
async fn a_stale_connection_is_opened_anew_without_an_attempt_being_lost() {
    for last in [Act::Close, bye("421 4.4.2 timeout")] {
        let once = Behaviour::good().on("MAIL", [say("250 ok"), last]);
        let (rig, peer) = (Rig::new(), Peer::by_turns(vec![once, Behaviour::good()]).await);
        let mut link = rig.link(&smtp(peer.at));
        let job = rig.letter(&["a@example.net", "b@example.net"]).await;
        assert_eq!(outcomes(&attempt(&mut link, &job).await), "+250 +250");
        let again = attempt(&mut link, &job).await;
        assert_eq!(outcomes(&again), "+250 +250");
        assert_eq!(peer.seen(|s| (s.connections, s.messages.len())), (2, 2));
    }
}

#[tokio::test]
async fn a_connection_that_the_peer_closes_while_idle_is_noticed() {
    for last in [Act::Bye("250 2.0.0 queued\r\n".into()), Act::Say("250 2.0.0 queued\r\n".into())] {
        let closes = matches!(last, Act::Bye(_));
        let (rig, peer) = (Rig::new(), Peer::new(Behaviour::good().on(".", [last])).await);
        let mut link = rig.link(&smtp(peer.at));
        let job = rig.letter(&["a@example.net"]).await;
        assert_eq!(outcomes(&attempt(&mut link, &job).await), "+250");
        assert!(link.is_open());
        let noticed = tokio::time::timeout(Duration::from_millis(500), link.closed_by_peer()).await;
        assert_eq!((noticed.is_ok(), link.is_open()), (closes, !closes));
        assert_eq!(outcomes(&attempt(&mut link, &job).await), "+250");
        assert_eq!(peer.seen(|s| s.connections), if closes { 2 } else { 1 });
    }
}

/// A site that cannot be reached is told apart from a message that was not taken.
#[tokio::test]
async fn unreachable_or_not() {
    let rig = Rig::new();
    let refused = Peer::new(Behaviour::good().on("RCPT", [say("450 later")])).await;
    let busy = Peer::new(Behaviour::good().on("connect", [bye("421 busy")])).await;
    for (at, unreachable) in [(refused.at, false), (busy.at, true), (free_address(), true)] {
        let mut link = rig.link(&smtp(at));
        let job = rig.letter(&["a@example.net"]).await;
        let attempt = attempt(&mut link, &job).await;
        assert!(outcomes(&attempt).starts_with('~'));
        assert_eq!(link.unreachable().is_some(), unreachable, "{:?}", attempt.transcript);
        assert_eq!(link.is_open(), !unreachable);
    }
}

/// Opened anew once, not for ever.
#[tokio::test]
async fn a_peer_that_always_hangs_up_is_a_deferral() {
    let first = Behaviour::good().on("MAIL", [say("250 ok"), Act::Close]);
    let always = Behaviour::good().on("MAIL", [Act::Close]);
    let (rig, peer) = (Rig::new(), Peer::by_turns(vec![first, always]).await);
    let mut link = rig.link(&smtp(peer.at));
    let job = rig.letter(&["a@example.net"]).await;
    assert_eq!(outcomes(&attempt(&mut link, &job).await), "+250");
    assert_eq!(outcomes(&attempt(&mut link, &job).await), "~4.4.2");
    assert_eq!(peer.seen(|s| s.connections), 2);
}

#[tokio::test]
async fn mailmax_is_kept_over_many_messages() {
    let (rig, peer) = (Rig::new(), Peer::new(Behaviour::offering(&["PIPELINING", "LIMITS MAILMAX=2"])).await);
    let mut link = rig.link(&smtp(peer.at));
    for _ in 0..5 {
        let job = rig.letter(&["a@example.net"]).await;
        assert_eq!(outcomes(&attempt(&mut link, &job).await), "+250");
    }
    assert_eq!(peer.seen(|s| (s.connections, s.messages.len())), (3, 5));
    until("both full connections are left politely", || peer.seen(|s| s.count("QUIT")) == 2).await;
}

/// After a reload, the next message goes where the new settings say.
#[tokio::test]
async fn new_settings_mean_a_new_connection() {
    let (old, new) = (Peer::new(Behaviour::good()).await, Peer::new(Behaviour::good()).await);
    let rig = Rig::new();
    let point_to = |at| {
        let mut settings = (*rig.engine.settings()).clone();
        let hosts = vec![crate::support::host_port(at)];
        let host = SmartHost::new("up", hosts, deliver::SmartHostTls::None, None);
        settings.smarthosts.insert("up".into(), Arc::new(host));
        rig.engine.configure(settings);
    };
    point_to(old.at);
    let mut link = rig.link(&mail::Destination::SmartHost("up".into()));
    let job = rig.letter(&["a@example.net"]).await;
    for _ in 0..2 {
        assert_eq!(outcomes(&attempt(&mut link, &job).await), "+250");
    }
    point_to(new.at);
    assert_eq!(outcomes(&attempt(&mut link, &job).await), "+250");
    assert_eq!((old.messages().len(), new.messages().len()), (2, 1));
    until("the old connection is closed", || old.seen(|s| s.closed) == 1).await;
}

/// An attempt that is dropped half-way leaves no connection behind that is out of step.
#[tokio::test]
async fn a_dropped_attempt_leaves_nothing_behind() {
    let first = Behaviour::good().on("DATA", [Act::Hang]);
    let (rig, peer) = (Rig::new(), Peer::by_turns(vec![first, Behaviour::good()]).await);
    let mut link = rig.link(&smtp(peer.at));
    let job = rig.letter(&["a@example.net"]).await;
    let cut = tokio::time::timeout(Duration::from_millis(300), link.attempt(&job)).await;
    assert!(cut.is_err() && !link.is_open());
    assert_eq!(outcomes(&attempt(&mut link, &job).await), "+250");
    assert_eq!(peer.seen(|s| (s.connections, s.messages.len())), (2, 1));
}

#[tokio::test]
async fn messages_per_connection_as_the_path_says() {
    let (rig, peer) = (Rig::with(|s| s.messages_per_connection = 3), Peer::new(Behaviour::good()).await);
    let mut link = rig.link(&smtp(peer.at));
    for (limit, connections) in [(Some(2), 3), (None, 2), (Some(0), 1)] {
        link.set_limit(limit);
        let before = peer.seen(|s| s.connections);
        for n in 1..=6 {
            let job = rig.letter(&["a@example.net"]).await;
            assert_eq!(outcomes(&attempt(&mut link, &job).await), "+250");
            let most = limit.unwrap_or(3);
            assert_eq!(link.is_open(), most == 0 || n % most != 0, "{limit:?} {n}");
        }
        assert_eq!(peer.seen(|s| s.connections) - before, connections, "{limit:?}");
        link.close().await;
    }
}

/// RFC 5321 section 3.8: a server may end a session; one that does so after so many messages each time has a limit.
#[tokio::test]
async fn a_limit_that_the_peer_shows_is_learned() {
    let enough = || {
        let ok = || say("250 ok");
        Behaviour::good()
            .on("MAIL", [ok(), ok(), ok(), bye("421 4.7.0 too many messages in this connection")])
    };
    let (rig, peer) = (Rig::new(), Peer::new(enough()).await);
    let mut link = rig.link(&smtp(peer.at));
    for _ in 0..30 {
        let job = rig.letter(&["a@example.net"]).await;
        assert_eq!(outcomes(&attempt(&mut link, &job).await), "+250");
    }
    assert_eq!(peer.seen(|s| (s.connections, s.messages.len())), (10, 30));
    // Twice it was told off; from then on it left by itself.
    until("QUIT", || peer.seen(|s| s.count("QUIT")) == 8).await;
    assert_eq!(peer.seen(|s| s.count("MAIL")), 30 + 2);
}

#[tokio::test]
async fn no_connection_is_used_for_ever() {
    let (rig, peer) =
        (Rig::with(|s| s.connection_age_max = Duration::from_millis(50)), Peer::new(Behaviour::good()).await);
    let mut link = rig.link(&smtp(peer.at));
    let job = rig.letter(&["a@example.net"]).await;
    assert_eq!(outcomes(&attempt(&mut link, &job).await), "+250");
    tokio::time::sleep(Duration::from_millis(60)).await;
    let mut job = rig.letter(&["a@example.net"]).await;
    job.full_transcript = true;
    let again = attempt(&mut link, &job).await;
    assert_eq!(outcomes(&again), "+250");
    assert!(again.transcript.unwrap().contains("open for long enough"));
    assert_eq!(peer.seen(|s| s.connections), 2);
}

/// The host's own time for a message, which is what a scheduler slows down by.
#[tokio::test]
async fn the_time_that_the_peer_takes_for_a_message_is_told() {
    let slow = Behaviour::good().on(".", [Act::Drip("250 ok\r\n".into(), Duration::from_millis(25))]);
    let (rig, peer) = (Rig::new(), Peer::new(slow).await);
    let mut link = rig.link(&smtp(peer.at));
    assert_eq!(link.latency(), None);
    let job = rig.letter(&["a@example.net"]).await;
    assert_eq!(outcomes(&attempt(&mut link, &job).await), "+250");
    let latency = link.latency().unwrap();
    assert!((Duration::from_millis(150)..Duration::from_secs(5)).contains(&latency), "{latency:?}");
    let job = rig.job(&["a@example.net"], b"bare\nline feed", |_| {}).await;
    assert_eq!(outcomes(&attempt(&mut link, &job).await), "-5.6.0");
    assert_eq!(link.latency(), None);
}
