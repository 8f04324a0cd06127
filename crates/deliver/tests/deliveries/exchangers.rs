//! Mail exchangers, found through Knot.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use deliver::Settings;
use mail::{Attempt, Destination};
use net::{Resolver, ResolverConfig};
use tempfile::TempDir;
use tokio::net::TcpListener;

use crate::peer::{Act, Behaviour, Peer, bye, say};
use crate::support::{Neighbour, PATIENCE, Rig, attempt, free_address, outcomes, text};

const ZONE: &str = r#"
$ORIGIN mail.test.
$TTL 300
@ SOA ns.mail.test. hostmaster.mail.test. 1 3600 600 86400 60
@ NS ns
ns A 127.0.0.1
mx1 A 127.0.0.1
mx2 A 127.0.0.2
two A 127.0.0.2
two A 127.0.0.1
private A 10.1.2.3
relay A 127.0.0.1
implicit A 127.0.0.1
one MX 10 mx1
both MX 10 mx1
both MX 20 mx2
manyaddresses MX 10 two
null MX 0 .
hidden MX 10 private
gone MX 10 no-such-host
half MX 10 no-such-host
half MX 20 mx2
ours MX 10 relay
behind MX 10 mx1
behind MX 20 relay
behind MX 30 mx2
nothing TXT "no address here"
ready TXT "yes"
also MX 10 mx1
also MX 20 mx2
second MX 10 mx2
alone6 MX 10 six
six AAAA ::1
"#;

/// Knot, serving the zone.
pub(crate) struct Dns {
    at: SocketAddr,
    _dir: TempDir,
    _child: Neighbour,
}

impl Dns {
    pub(crate) async fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let at = free_address();
        fs::write(dir.path().join("mail.test.zone"), ZONE).unwrap();
        // A zone without a file: Knot answers SERVFAIL.
        let config = format!(
            "server:\n  rundir: {dir}\n  listen: {ip}@{port}\ndatabase:\n  storage: {dir}\n\
             log:\n- target: stderr\n  any: info\n\
             template:\n- id: default\n  storage: {dir}\n  zonefile-sync: -1\n  journal-content: none\n  \
             semantic-checks: off\n\
             zone:\n- domain: mail.test\n  file: mail.test.zone\n- domain: broken.test\n  file: missing.zone\n",
            dir = dir.path().display(),
            ip = at.ip(),
            port = at.port(),
        );
        fs::write(dir.path().join("knot.conf"), config).unwrap();
        let child = Neighbour::start("/usr/sbin/knotd", "knot", dir.path(), &["-c", "knot.conf"]);
        let child = child.listening(at).await;
        let loaded = tokio::time::timeout(PATIENCE, async {
            let servers = ResolverConfig { servers: vec![at], ..Default::default() };
            while Resolver::new(&servers).unwrap().txt("ready.mail.test").await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        assert!(loaded.await.is_ok(), "the zone is not served:\n{}", child.said());
        Self { at, _dir: dir, _child: child }
    }

    /// An engine that asks this server, and connects to `port`.
    pub(crate) fn rig(&self, port: u16, change: impl FnOnce(&mut Settings)) -> Rig {
        Rig::with(|s| {
            s.resolver =
                Resolver::new(&ResolverConfig { servers: vec![self.at], ..Default::default() }).unwrap();
            s.mx_port = port;
            s.hostname = "relay.mail.test".into();
            s.timeouts.connect = Duration::from_millis(500);
            change(s);
        })
    }
}

/// Two peers that listen on one port: the first as `mx1`, the second as `mx2`.
pub(crate) async fn pair(first: Vec<Behaviour>, second: Vec<Behaviour>) -> (Peer, Peer) {
    let first = Peer::by_turns(first).await;
    let listener = TcpListener::bind(("127.0.0.2", first.at.port())).await.unwrap();
    (first, Peer::on(listener, second))
}

pub(crate) async fn deliver(rig: &Rig, domain: &str) -> Attempt {
    let mut link = rig.link(&Destination::Mx(domain.into()));
    attempt(&mut link, &rig.letter(&[&format!("a@{domain}")]).await).await
}

#[tokio::test]
async fn the_hosts_of_a_domain_in_their_order() {
    let dns = Dns::new().await;
    let peer = Peer::new(Behaviour::good()).await;
    let rig = dns.rig(peer.at.port(), |_| {});
    for (domain, host) in
        [("one", "mx1"), ("implicit", "implicit"), ("both", "mx1"), ("manyaddresses", "two")]
    {
        let attempt = deliver(&rig, &format!("{domain}.mail.test")).await;
        assert_eq!(outcomes(&attempt), "+250", "{domain}: {:?}", attempt.transcript);
        let remote = attempt.remote.unwrap();
        assert_eq!((remote.name, remote.address), (format!("{host}.mail.test"), Some(peer.at)));
    }
}

#[tokio::test]
async fn the_next_host_when_the_first_does_not_take_it() {
    let dns = Dns::new().await;
    for behaviour in [
        Behaviour::good().on("connect", [bye("421 busy")]),
        Behaviour::good().on("connect", [bye("554 no")]),
        Behaviour::good().on("connect", [Act::Close]),
        Behaviour::good().on("EHLO", [say("450 later")]),
        Behaviour::good().on("MAIL", [bye("421 4.3.2 later")]),
    ] {
        // mx1 is 127.0.0.1, mx2 127.0.0.2; both listen on one port.
        let first = Peer::new(behaviour).await;
        let second = TcpListener::bind(("127.0.0.2", first.at.port())).await.unwrap();
        let at = second.local_addr().unwrap();
        let second = Peer::on(second, vec![Behaviour::good()]);
        let rig = dns.rig(first.at.port(), |_| {});
        let attempt = deliver(&rig, "both.mail.test").await;
        assert_eq!(outcomes(&attempt), "+250", "{:?}", attempt.transcript);
        assert_eq!(attempt.remote.unwrap().address, Some(at));
        assert_eq!((first.seen(|s| s.connections), second.messages().len()), (1, 1));
        // And where a host is not in the DNS.
        assert_eq!(outcomes(&deliver(&rig, "half.mail.test").await), "+250");
    }
}

/// A refusal at the greeting by all hosts is one; as long as one may take it later, it is none.
#[tokio::test]
async fn refused_by_all_or_by_some() {
    let dns = Dns::new().await;
    for (other, expected) in [("554 5.7.1 no", "-554"), ("450 4.7.1 later", "~450")] {
        let first = Peer::new(Behaviour::good().on("connect", [bye(other)])).await;
        let second = TcpListener::bind(("127.0.0.2", first.at.port())).await.unwrap();
        let _second = Peer::on(second, vec![Behaviour::good().on("connect", [bye("554 5.7.1 never")])]);
        let attempt = deliver(&dns.rig(first.at.port(), |_| {}), "both.mail.test").await;
        assert_eq!(outcomes(&attempt), expected, "{:?}", attempt.transcript);
    }
}

#[tokio::test]
async fn what_the_dns_says_about_domains_that_take_no_mail() {
    let dns = Dns::new().await;
    let peer = Peer::new(Behaviour::good()).await;
    let rig = dns.rig(peer.at.port(), |_| {});
    for (domain, expected, words) in [
        ("null.mail.test", "-5.1.10", "does not accept mail"),
        ("no-such-domain.mail.test", "-5.1.2", "does not exist"),
        ("nothing.mail.test", "-5.4.4", "no address"),
        ("gone.mail.test", "-5.4.4", "no address"),
        ("x.broken.test", "~4.4.3", "no answer"),
        ("elsewhere.example", "~4.4.3", "no answer"),
        ("ours.mail.test", "-5.4.6", "this relay itself"),
    ] {
        let attempt = deliver(&rig, domain).await;
        assert_eq!(outcomes(&attempt), expected, "{domain}: {}", text(&attempt));
        assert!(text(&attempt).contains(words), "{domain}: {}", text(&attempt));
        assert!(attempt.transcript.is_some());
    }
    assert_eq!(peer.seen(|s| s.connections), 0);
}

/// Only hosts before ourselves are used: those behind would send it back to us.
#[tokio::test]
async fn where_we_are_one_of_the_hosts() {
    let dns = Dns::new().await;
    let busy = Behaviour::good().on("connect", [bye("421 busy")]);
    let peer = Peer::by_turns(vec![busy, Behaviour::good()]).await;
    let second = TcpListener::bind(("127.0.0.2", peer.at.port())).await.unwrap();
    let behind = Peer::on(second, vec![Behaviour::good()]);
    let rig = dns.rig(peer.at.port(), |_| {});
    assert_eq!(outcomes(&deliver(&rig, "behind.mail.test").await), "~421");
    assert_eq!(outcomes(&deliver(&rig, "behind.mail.test").await), "+250");
    assert_eq!(behind.seen(|s| s.connections), 0);
}

#[tokio::test]
async fn private_targets_are_refused_unless_allowed() {
    let dns = Dns::new().await;
    let peer = Peer::new(Behaviour::good()).await;
    let strict = dns.rig(peer.at.port(), |s| s.allow_private_targets = false);
    for domain in ["one.mail.test", "hidden.mail.test", "implicit.mail.test"] {
        let attempt = deliver(&strict, domain).await;
        assert_eq!(outcomes(&attempt), "-5.4.4", "{domain}");
        assert!(text(&attempt).contains("allow_private_targets"), "{}", text(&attempt));
    }
    assert_eq!(peer.seen(|s| s.connections), 0);
    // What the operator names is the operator's word.
    let mut link = strict.link(&crate::support::smtp(peer.at));
    let job = strict.letter(&["a@example.net"]).await;
    assert_eq!(outcomes(&attempt(&mut link, &job).await), "+250");
}

/// Nobody listens.
#[tokio::test]
async fn refused_connections_are_deferrals() {
    let dns = Dns::new().await;
    let rig = dns.rig(free_address().port(), |_| {});
    let attempt = deliver(&rig, "both.mail.test").await;
    assert_eq!(outcomes(&attempt), "~4.4.1");
    let transcript = attempt.transcript.unwrap();
    assert!(
        transcript.contains("mx1.mail.test (127.0.0.1") && transcript.contains("mx2.mail.test (127.0.0.2")
    );
}
