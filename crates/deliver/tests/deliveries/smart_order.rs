//! Smart hosts of several hosts: which is tried first, when another takes over, who we are for whom.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use deliver::{HostOrder, LoginRule, LoginSource, SmartHost, SmartHostTls, WeightedHost};
use mail::{Address, Destination, HostPort};

use crate::peer::{Act, Behaviour, Peer, bye, say};
use crate::support::{Line, Rig, attempt, free_address, host_port, outcomes, text};

fn up() -> Destination {
    Destination::SmartHost("up".into())
}

fn rig(hosts: Vec<(HostPort, u32)>, order: HostOrder, change: impl FnOnce(&mut SmartHost)) -> Rig {
    let mut host = SmartHost::new("up", Vec::new(), SmartHostTls::None, None);
    host.hosts = hosts.into_iter().map(|(at, weight)| WeightedHost { at, weight }).collect();
    host.order = order;
    change(&mut host);
    Rig::with(|s| {
        s.smarthosts.insert("up".into(), Arc::new(host));
    })
}

async fn good(count: usize) -> Vec<Peer> {
    let mut peers = Vec::new();
    for _ in 0..count {
        peers.push(Peer::new(Behaviour::good()).await);
    }
    peers
}

fn hosts(peers: &[Peer], weights: &[u32]) -> Vec<(HostPort, u32)> {
    peers.iter().zip(weights).map(|(peer, weight)| (host_port(peer.at), *weight)).collect()
}

/// A letter from this sender over the link.
async fn send(rig: &Rig, link: &mut Line, sender: &str) -> mail::Attempt {
    let sender = Address::parse(sender).ok();
    let job = rig.job(&["a@example.net"], crate::support::LETTER, |m| m.reverse_path = sender).await;
    attempt(link, &job).await
}

fn counts(peers: &[Peer]) -> Vec<usize> {
    peers.iter().map(|p| p.messages().len()).collect()
}

#[tokio::test]
async fn by_weight_connections_are_shared() {
    let peers = good(3).await;
    let rig = rig(hosts(&peers, &[3, 1, 2]), HostOrder::Weighted, |_| {});
    for _ in 0..12 {
        let mut link = rig.link(&up());
        assert_eq!(outcomes(&send(&rig, &mut link, "x@example.com").await), "+250");
        link.close().await;
    }
    assert_eq!(counts(&peers), [6, 2, 4]);
    // Over one link, a connection hands over to the next host after a while.
    let peers = good(2).await;
    let rig = self::rig(hosts(&peers, &[1, 1]), HostOrder::Weighted, |_| {});
    let mut link = rig.link(&up());
    for _ in 0..100 {
        assert_eq!(outcomes(&send(&rig, &mut link, "x@example.com").await), "+250");
    }
    assert_eq!(counts(&peers), [50, 50]);
    assert_eq!(peers.iter().map(|p| p.seen(|s| s.connections)).sum::<usize>(), 2);
}

#[tokio::test]
async fn a_sender_goes_by_its_own_host() {
    let peers = good(3).await;
    let rig = rig(hosts(&peers, &[1, 1, 1]), HostOrder::Sticky, |_| {});
    let mut link = rig.link(&up());
    let mut homes: HashMap<String, Option<std::net::SocketAddr>> = HashMap::new();
    for round in 0..3 {
        for n in 0..12 {
            let sender = format!("user{n}@brand.example");
            let sent = send(&rig, &mut link, &sender).await;
            assert_eq!(outcomes(&sent), "+250");
            let at = sent.remote.unwrap().address;
            assert_eq!(*homes.entry(sender).or_insert(at), at, "round {round}");
        }
    }
    assert!(counts(&peers).iter().filter(|n| **n > 0).count() > 1, "{:?}", counts(&peers));
    // Two letters of one sender use one connection.
    let before: usize = peers.iter().map(|p| p.seen(|s| s.connections)).sum();
    for _ in 0..5 {
        send(&rig, &mut link, "user11@brand.example").await;
    }
    assert_eq!(before, peers.iter().map(|p| p.seen(|s| s.connections)).sum::<usize>());
}

#[tokio::test]
async fn a_host_that_says_not_now_is_passed_over_and_nothing_arrives_twice() {
    for (at, reply) in [
        ("MAIL", say("451 4.3.0 not now")),
        ("MAIL", say("452 4.3.1 full")),
        ("RCPT", say("450 4.7.1 greylisted")),
        ("DATA", say("451 4.3.0 not now")),
        (".", say("451 4.7.1 not now")),
        (".", bye("421 4.3.2 going down")),
        ("MAIL", bye("421 4.7.0 too many messages")),
    ] {
        let busy = Peer::new(Behaviour::good().on(at, [reply.clone()])).await;
        let peers = good(1).await;
        let hosts = vec![(host_port(busy.at), 1), (host_port(peers[0].at), 1)];
        let rig = rig(hosts, HostOrder::Ordered, |_| {});
        let mut link = rig.link(&up());
        let sent = send(&rig, &mut link, "x@example.com").await;
        assert_eq!(outcomes(&sent), "+250", "{at} {reply:?}: {:?}", sent.transcript);
        assert_eq!(sent.remote.unwrap().address, Some(peers[0].at), "{at} {reply:?}");
        assert_eq!(counts(&peers), [1]);
    }
    // Who refuses for good is believed.
    let stern = Peer::new(Behaviour::good().on("RCPT", [say("550 5.1.1 nobody")])).await;
    let peers = good(1).await;
    let hosts = vec![(host_port(stern.at), 1), (host_port(peers[0].at), 1)];
    let rig = rig(hosts, HostOrder::Ordered, |_| {});
    let mut link = rig.link(&up());
    assert_eq!(outcomes(&send(&rig, &mut link, "x@example.com").await), "-550");
    assert_eq!(peers[0].seen(|s| s.connections), 0);
}

#[tokio::test]
async fn some_recipients_here_and_the_others_there() {
    let picky = ["250 ok", "451 4.7.1 later", "550 5.1.1 no"].map(say);
    let picky = Peer::new(Behaviour::good().on("RCPT", picky)).await;
    let peers = good(1).await;
    let hosts = vec![(host_port(picky.at), 1), (host_port(peers[0].at), 1)];
    let rig = rig(hosts, HostOrder::Ordered, |_| {});
    let mut link = rig.link(&up());
    let job = rig.letter(&["a@example.net", "b@example.net", "c@example.net"]).await;
    assert_eq!(outcomes(&attempt(&mut link, &job).await), "+250 +250 -550");
    assert_eq!((picky.messages().len(), counts(&peers)), (1, vec![1]));
    assert_eq!(peers[0].seen(|s| (s.count("RCPT"), s.count("RCPT TO:<b@example.net>"))), (1, 1));
}

/// RFC 5321 section 4.5.4.1: whoever has all of the message and says nothing may have taken it.
#[tokio::test]
async fn after_a_final_reply_that_did_not_come_no_other_host_is_tried() {
    for act in [Act::Close, Act::Hang] {
        let silent = Peer::new(Behaviour::good().on(".", [act])).await;
        let peers = good(1).await;
        let mut host = SmartHost::new(
            "up",
            vec![host_port(silent.at), host_port(peers[0].at)],
            SmartHostTls::None,
            None,
        );
        host.order = HostOrder::Ordered;
        let rig = Rig::with(|s| {
            s.smarthosts.insert("up".into(), Arc::new(host));
            s.timeouts.message = Duration::from_millis(300);
        });
        let mut link = rig.link(&up());
        let sent = send(&rig, &mut link, "x@example.com").await;
        assert!(outcomes(&sent).starts_with('~'), "{}", outcomes(&sent));
        assert_eq!(counts(&peers), [0]);
    }
}

#[tokio::test]
async fn a_dead_host_is_not_tried_for_every_message() {
    let peers = good(1).await;
    let dead = free_address();
    let hosts = vec![(host_port(dead), 1), (host_port(peers[0].at), 1)];
    let rig = rig(hosts, HostOrder::Ordered, |_| {});
    for round in 0..5 {
        let mut link = rig.link(&up());
        let job = {
            let mut job = rig.letter(&["a@example.net"]).await;
            job.full_transcript = true;
            job
        };
        let sent = attempt(&mut link, &job).await;
        assert_eq!(outcomes(&sent), "+250");
        let tried = sent.transcript.unwrap().matches(&format!("connecting to 127.0.0.1 ({dead})")).count();
        assert_eq!(tried, usize::from(round == 0), "round {round}");
        link.close().await;
    }
    let health = rig.engine.smarthost_health();
    let [first, second] = health[0].hosts.as_slice() else { panic!("{health:?}") };
    assert!(!first.up && first.failures == 1 && first.rests_until.is_some());
    assert!(first.error.as_ref().unwrap().contains("refused"), "{first:?}");
    assert!(second.up && second.connections == 5 && second.error.is_none());
    assert_eq!((health[0].name.as_ref(), health[0].order), ("up", "ordered"));
}

#[tokio::test]
async fn who_we_are_depends_on_sender_and_recipient() {
    let peer = Peer::new(Behaviour::offering(&["PIPELINING", "AUTH PLAIN"])).await;
    let login = |name: &str| LoginSource::password(name, "pw", true);
    let rig = rig(vec![(host_port(peer.at), 1)], HostOrder::Ordered, |host| {
        host.login = Some(login("everybody"));
        host.logins = vec![
            LoginRule {
                senders: vec!["*@brand.example".parse().unwrap()],
                domains: vec!["example.org".parse().unwrap()],
                login: login("brand-org"),
            },
            LoginRule {
                senders: vec!["*@brand.example".parse().unwrap()],
                domains: vec![],
                login: login("brand"),
            },
        ];
    });
    let mut link = rig.link(&up());
    for (sender, to) in [
        ("x@brand.example", vec!["a@example.org", "b@example.net", "c@example.org"]),
        ("x@brand.example", vec!["d@example.net"]),
        ("x@other.example", vec!["e@example.org", "f@example.net"]),
        ("x@other.example", vec!["g@example.org"]),
    ] {
        let sender = Address::parse(sender).ok();
        let job = rig.job(&to, crate::support::LETTER, |m| m.reverse_path = sender).await;
        let sent = attempt(&mut link, &job).await;
        assert!(sent.all_delivered(), "{:?}", sent.transcript);
    }
    let mut who = String::new();
    let mut used: HashMap<String, String> = HashMap::new();
    for line in peer.seen(|s| s.lines.clone()) {
        if let Some(initial) = line.strip_prefix("AUTH PLAIN ") {
            let plain = String::from_utf8(smtp::sasl::decode(initial).unwrap()).unwrap();
            who = plain.split('\0').nth(1).unwrap().to_owned();
        } else if let Some(to) = line.strip_prefix("RCPT TO:<") {
            used.insert(to[..1].to_owned(), who.clone());
        }
    }
    for (to, expected) in [
        ("a", "brand-org"),
        ("b", "brand"),
        ("c", "brand-org"),
        ("d", "brand"),
        ("e", "everybody"),
        ("f", "everybody"),
        ("g", "everybody"),
    ] {
        assert_eq!(used[to], expected, "{to}");
    }
    assert_eq!(
        peer.seen(|s| s.count("AUTH")),
        3,
        "a connection is kept for as long as the login is the same"
    );
}

#[tokio::test]
async fn a_wrong_password_of_one_login_does_not_stop_the_others() {
    let offering = || Behaviour::offering(&["PIPELINING", "AUTH PLAIN"]);
    let peer = Peer::by_turns(vec![offering().on("AUTH", [bye("535 5.7.8 wrong")]), offering()]).await;
    let rig = rig(vec![(host_port(peer.at), 1)], HostOrder::Ordered, |host| {
        host.login = Some(LoginSource::password("everybody", "pw", true));
        host.logins = vec![LoginRule {
            senders: vec![],
            domains: vec!["example.org".parse().unwrap()],
            login: LoginSource::password("org", "wrong", true),
        }];
    });
    let mut link = rig.link(&up());
    let job = rig.letter(&["a@example.org", "b@example.net"]).await;
    let sent = attempt(&mut link, &job).await;
    assert_eq!(outcomes(&sent), "~535 +250", "{:?}", sent.transcript);
    assert!(text(&sent).contains("login of \"org\""), "{}", text(&sent));
}
