//! The resolver against Knot (authoritative) directly, and through Unbound (recursive) in front of it.

use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use net::{ADDRESSES_MAX, MX_MAX, ResolveError, Resolver, ResolverConfig};
use tempfile::TempDir;

use crate::support::{Neighbour, PATIENCE, free_address};

const ZONE: &str = r#"
$ORIGIN mail.test.
$TTL 300
@ SOA ns.mail.test. hostmaster.mail.test. 1 3600 600 86400 60
@ NS ns
ns A 127.0.0.1
mx1 A 192.0.2.1
mx1 A 192.0.2.2
mx1 A 192.0.2.3
mx1 AAAA 2001:db8::1
mx1 AAAA 2001:db8::2
ties MX 20 last
ties MX 10 a
ties MX 10 b
ties MX 10 c
ties MX 5 First
null MX 0 .
notquitenull MX 0 .
notquitenull MX 10 mx1
implicit A 192.0.2.10
implicit AAAA 2001:db8::10
implicit6 AAAA 2001:db8::6
nothing TXT "no address here"
alias CNAME real
real MX 10 mx1
chain1 CNAME chain2
chain2 CNAME chain3
chain3 CNAME chain4
chain4 CNAME real
loop1 CNAME loop2
loop2 CNAME loop1
self CNAME self
dangling CNAME no-such-name
evil MX 5 mx\013\010RSET
evil MX 6 mx\032with\032space
evil MX 7 192.0.2.1.
evil MX 20 mx1
onlyevil MX 10 mx\027\0912J
twice MX 20 mx1
twice MX 10 mx1
gone MX 10 no-such-host
txt TXT "v=spf1 " "-all"
txt TXT "second\013\010line"
short 1 MX 10 mx1
"#;

const REVERSE: &str = r"
$ORIGIN 2.0.192.in-addr.arpa.
$TTL 300
@ SOA ns.mail.test. hostmaster.mail.test. 1 3600 600 86400 60
@ NS ns.mail.test.
1 PTR mx1.mail.test.
1 PTR other.mail.test.
";

/// The zone above with a domain of 500 mail exchangers, each with 50 addresses.
fn zone() -> String {
    let mut zone = ZONE.to_owned();
    for mx in 0..500 {
        writeln!(zone, "big MX {} mx{mx}.big", mx / 100).unwrap();
        for address in 1..=50 {
            writeln!(zone, "mx{mx}.big A 198.51.100.{address}").unwrap();
        }
    }
    // About as much as an answer can hold, and more than that.
    for mx in 0..1_200 {
        writeln!(zone, "full MX 10 exchanger{mx}").unwrap();
    }
    for mx in 0..9_000 {
        writeln!(zone, "overfull MX 10 exchanger{mx}").unwrap();
    }
    zone
}

struct Knot {
    at: SocketAddr,
    dir: TempDir,
    _child: Neighbour,
}

async fn knot() -> Knot {
    let dir = TempDir::new().unwrap();
    let at = free_address();
    let path = |name: &str| dir.path().join(name);
    fs::write(path("mail.test.zone"), zone()).unwrap();
    fs::write(path("reverse.zone"), REVERSE).unwrap();
    // A zone without a file: Knot answers SERVFAIL.
    let config = format!(
        "server:\n  rundir: {dir}\n  listen: {ip}@{port}\ndatabase:\n  storage: {dir}\n\
         log:\n- target: stderr\n  any: info\n\
         template:\n- id: default\n  storage: {dir}\n  zonefile-sync: -1\n  journal-content: none\n  \
         semantic-checks: off\n\
         zone:\n- domain: mail.test\n  file: mail.test.zone\n- domain: 2.0.192.in-addr.arpa\n  file: reverse.zone\n\
         - domain: broken.test\n  file: missing.zone\n",
        dir = dir.path().display(),
        ip = at.ip(),
        port = at.port(),
    );
    fs::write(path("knot.conf"), config).unwrap();
    let child = Neighbour::start("knotd", "knot", dir.path(), |c| {
        c.args(["-c", "knot.conf"]);
    });
    let child = child.listening(at).await;
    // It listens first and loads its zones then.
    let loaded = tokio::time::timeout(PATIENCE, async {
        while resolver(at).txt("txt.mail.test").await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(loaded.await.is_ok(), "the zone is not served:\n{}", child.said());
    Knot { at, dir, _child: child }
}

/// Unbound, which resolves what Knot serves.
async fn unbound(knot: &Knot) -> (Neighbour, SocketAddr) {
    let at = free_address();
    let dir = knot.dir.path();
    let mut config = format!(
        "server:\n  interface: {ip}@{port}\n  access-control: 127.0.0.0/8 allow\n  do-daemonize: no\n  chroot: \"\"\n  \
         username: \"\"\n  directory: \"{dir}\"\n  pidfile: \"\"\n  use-syslog: no\n  do-not-query-localhost: no\n  \
         module-config: \"iterator\"\n  do-ip6: no\n  num-threads: 1\n  local-zone: \"test.\" nodefault\n  \
         local-zone: \"2.0.192.in-addr.arpa.\" nodefault\nremote-control:\n  control-enable: no\n",
        ip = at.ip(),
        port = at.port(),
        dir = dir.display(),
    );
    for zone in ["mail.test", "broken.test", "2.0.192.in-addr.arpa"] {
        write!(config, "stub-zone:\n  name: {zone}\n  stub-addr: {}@{}\n", knot.at.ip(), knot.at.port())
            .unwrap();
    }
    fs::write(dir.join("unbound.conf"), config).unwrap();
    let child = Neighbour::start("unbound", "unbound", dir, |c| {
        c.args(["-d", "-p", "-c", "unbound.conf"]);
    });
    (child.listening(at).await, at)
}

fn resolver(at: SocketAddr) -> Resolver {
    Resolver::new(&ResolverConfig { servers: vec![at], ..Default::default() }).unwrap()
}

/// Names of the hosts, in order.
async fn names(resolver: &Resolver, domain: &str) -> Result<Vec<String>, ResolveError> {
    Ok(resolver.mx(domain).await?.hosts.iter().map(|h| h.name.to_string()).collect())
}

#[tokio::test]
async fn knot_answers() {
    let knot = knot().await;
    all_answers(&resolver(knot.at)).await;
    // Only an authoritative server shows the circle; a recursive one says SERVFAIL.
    let resolver = resolver(knot.at);
    for domain in ["loop1.mail.test", "self.mail.test"] {
        let error = resolver.mx(domain).await.unwrap_err();
        assert!(matches!(error, ResolveError::Loop(_)), "{domain} {error:?}");
    }
    // A server that is not ours to ask: REFUSED.
    let error = resolver.mx("elsewhere.example").await.unwrap_err();
    assert!(
        matches!(&error, ResolveError::Temporary { reason, .. } if reason.contains("efused")),
        "{error:?}"
    );
}

#[tokio::test]
async fn unbound_answers() {
    let knot = knot().await;
    let (_unbound, at) = unbound(&knot).await;
    all_answers(&resolver(at)).await;
}

/// Everything that must be so whoever answers.
async fn all_answers(resolver: &Resolver) {
    mail_exchangers(resolver).await;
    failures(resolver).await;
    hostile_answers(resolver).await;
    other_records(resolver).await;
}

async fn mail_exchangers(resolver: &Resolver) {
    let mut firsts = std::collections::HashSet::new();
    for _ in 0..60 {
        let answer = resolver.mx("ties.mail.test").await.unwrap();
        assert!(!answer.implicit);
        let hosts: Vec<_> = answer.hosts.iter().map(|h| (h.preference, &*h.name)).collect();
        assert_eq!(hosts[0], (5, "first.mail.test"));
        assert_eq!(hosts[4], (20, "last.mail.test"));
        let mut tied: Vec<_> = hosts[1..4].to_vec();
        firsts.insert(tied[0].1.to_owned());
        tied.sort_unstable();
        assert_eq!(tied, [(10, "a.mail.test"), (10, "b.mail.test"), (10, "c.mail.test")]);
    }
    assert_eq!(firsts.len(), 3, "60 answers, and never all three of the tie came first: {firsts:?}");

    let implicit = resolver.mx("implicit.mail.test").await.unwrap();
    assert!(implicit.implicit);
    assert_eq!(&*implicit.hosts[0].name, "implicit.mail.test");
    assert!(resolver.mx("implicit6.mail.test").await.unwrap().implicit);

    for alias in ["alias.mail.test", "chain1.mail.test", "real.mail.test", "notquitenull.mail.test"] {
        assert_eq!(names(resolver, alias).await.unwrap(), ["mx1.mail.test"], "{alias}");
    }
    let twice = resolver.mx("twice.mail.test").await.unwrap();
    assert_eq!(twice.hosts.len(), 1);
    assert_eq!(twice.hosts[0].preference, 10);
}

async fn failures(resolver: &Resolver) {
    let null = resolver.mx("null.mail.test").await.unwrap_err();
    assert!(matches!(null, ResolveError::NoMail(_)) && !null.is_temporary(), "{null:?}");
    for domain in ["no-such-name.mail.test", "dangling.mail.test"] {
        let error = resolver.mx(domain).await.unwrap_err();
        assert_eq!(error, ResolveError::NoSuchDomain(domain.into()));
    }
    let error = resolver.mx("nothing.mail.test").await.unwrap_err();
    assert_eq!(error, ResolveError::NoAddress("nothing.mail.test".into()));
    assert_eq!(names(resolver, "gone.mail.test").await.unwrap(), ["no-such-host.mail.test"]);
    let error = resolver.addresses("no-such-host.mail.test").await.unwrap_err();
    assert!(!error.is_temporary(), "{error:?}");
    // What could be a passing trouble must never bounce anything.
    for domain in ["example.broken.test", "loop1.mail.test", "self.mail.test"] {
        let error = resolver.mx(domain).await.unwrap_err();
        assert!(error.is_temporary(), "{domain} {error:?}");
        let error = resolver.addresses(domain).await.unwrap_err();
        assert!(error.is_temporary(), "{domain} {error:?}");
    }
}

async fn hostile_answers(resolver: &Resolver) {
    // 500 exchangers with 50 addresses each: more than fits into a datagram, and more than is used.
    let answer = resolver.mx("big.mail.test").await.unwrap();
    assert_eq!(answer.hosts.len(), MX_MAX);
    assert!(answer.hosts.iter().all(|h| h.preference == 0), "{answer:?}");
    let addresses = resolver.addresses(&answer.hosts[0].name).await.unwrap();
    assert_eq!(addresses.len(), ADDRESSES_MAX);
    assert_eq!(resolver.mx("full.mail.test").await.unwrap().hosts.len(), MX_MAX);
    match resolver.mx("overfull.mail.test").await {
        Ok(answer) => assert_eq!(answer.hosts.len(), MX_MAX),
        Err(error) => assert!(error.is_temporary(), "{error:?}"),
    }
    // Names that would be something else in a command or on a terminal.
    assert_eq!(names(resolver, "evil.mail.test").await.unwrap(), ["mx1.mail.test"]);
    let error = resolver.mx("onlyevil.mail.test").await.unwrap_err();
    assert!(matches!(error, ResolveError::Unusable(_)), "{error:?}");
    for name in ["", ".", "a..b", "mx\r\nRSET.mail.test", &"a.".repeat(200), &"a".repeat(70)] {
        assert!(resolver.mx(name).await.is_err(), "{name:?}");
    }
}

async fn other_records(resolver: &Resolver) {
    let addresses = resolver.addresses("mx1.mail.test").await.unwrap();
    // In which order depends on the way that this machine has to IPv6.
    assert_eq!(addresses.iter().filter(|ip| ip.is_ipv6()).count(), 2, "{addresses:?}");
    assert_eq!(addresses.len(), 5, "{addresses:?}");
    assert_eq!(resolver.addresses("MX1.Mail.Test.").await.unwrap().len(), 5);
    let literal: IpAddr = "192.0.2.77".parse().unwrap();
    assert_eq!(*resolver.addresses("192.0.2.77").await.unwrap(), [literal]);
    assert_eq!(*resolver.addresses("::ffff:192.0.2.77").await.unwrap(), [literal]);

    let mut names = resolver.ptr("192.0.2.1".parse().unwrap()).await.unwrap();
    names.sort();
    assert_eq!(names, ["mx1.mail.test", "other.mail.test"]);
    assert!(!resolver.ptr("192.0.2.99".parse().unwrap()).await.unwrap_err().is_temporary());
    let mut texts = resolver.txt("txt.mail.test").await.unwrap();
    texts.sort();
    assert_eq!(texts, ["second??line", "v=spf1 -all"]);
}

#[tokio::test]
async fn answers_are_kept_for_their_ttl_and_no_longer() {
    let knot = knot().await;
    let resolver = resolver(knot.at);
    resolver.mx("real.mail.test").await.unwrap();
    resolver.mx("short.mail.test").await.unwrap();
    resolver.mx("no-such-name.mail.test").await.unwrap_err();
    drop(knot);
    // TTL 300, and of the negative answer 60.
    assert!(resolver.mx("real.mail.test").await.is_ok());
    assert!(matches!(resolver.mx("no-such-name.mail.test").await, Err(ResolveError::NoSuchDomain(_))));
    // TTL 1: soon it is asked for again, and nobody answers.
    let forgotten = tokio::time::timeout(PATIENCE, async {
        loop {
            match resolver.mx("short.mail.test").await {
                Ok(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                Err(error) => break error,
            }
        }
    });
    let error = forgotten.await.expect("a TTL of a second outlived half a minute");
    assert!(error.is_temporary(), "{error:?}");
}

#[tokio::test]
async fn one_dead_server_of_two_is_no_trouble() {
    let knot = knot().await;
    let dead = free_address();
    for servers in [vec![dead, knot.at], vec![knot.at, dead]] {
        let resolver = Resolver::new(&ResolverConfig { servers, ..Default::default() }).unwrap();
        let answer = tokio::time::timeout(Duration::from_secs(8), names(&resolver, "real.mail.test")).await;
        assert_eq!(answer.expect("too slow").unwrap(), ["mx1.mail.test"]);
    }
}

#[tokio::test]
async fn silence_is_temporary_and_bounded() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let resolver = resolver(silent.local_addr().unwrap());
    let answer = tokio::time::timeout(Duration::from_secs(40), resolver.mx("example.test")).await;
    let error = answer.expect("the lookup has no end").unwrap_err();
    assert!(error.is_temporary(), "{error:?}");
}
