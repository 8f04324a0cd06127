//! Outgoing addresses.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use deliver::SourceAddress;
use mail::Destination;

use crate::exchangers::Dns;
use crate::peer::{Behaviour, Peer, bye};
use crate::support::{Rig, attempt, outcomes, smtp, text};

fn source(name: &str, v4: Option<&str>, v6: Option<&str>, ehlo: Option<&str>) -> Arc<SourceAddress> {
    let mut source = SourceAddress::any(name.into());
    source.v4 = v4.map(|a| a.parse().unwrap());
    source.v6 = v6.map(|a| a.parse().unwrap());
    source.ehlo = ehlo.map(Into::into);
    Arc::new(source)
}

fn with(sources: &[Arc<SourceAddress>]) -> impl FnOnce(&mut deliver::Settings) + use<> {
    let sources = sources.iter().map(|s| (s.name.clone(), s.clone())).collect();
    move |s| s.sources = sources
}

#[tokio::test]
async fn each_source_has_its_address_and_its_name() {
    let peer = Peer::new(Behaviour::good()).await;
    let sources = [
        source("fast", Some("127.0.0.9"), None, Some("fast.test")),
        source("slow", Some("127.0.0.8"), None, None),
    ];
    let rig = Rig::with(with(&sources));
    for (name, address, hello) in [
        ("fast", "127.0.0.9", "EHLO fast.test"),
        ("slow", "127.0.0.8", "EHLO relay.test"),
        ("default", "127.0.0.1", "EHLO relay.test"),
    ] {
        let mut link = rig.link_from(name, &smtp(peer.at)).await;
        let attempt = attempt(&mut link, &rig.letter(&["a@example.net"]).await).await;
        assert_eq!((outcomes(&attempt).as_str(), attempt.source.as_deref()), ("+250", Some(name)));
        let (from, last) = peer.seen(|s| {
            (*s.from.last().unwrap(), s.lines.iter().rev().find(|l| l.starts_with("EHLO")).cloned())
        });
        assert_eq!((from, last.as_deref()), (address.parse::<IpAddr>().unwrap(), Some(hello)));
    }
}

#[tokio::test]
async fn kinds_of_addresses_that_a_source_cannot_use_are_passed_over() {
    let dns = Dns::new().await;
    let listener = tokio::net::TcpListener::bind("[::1]:0").await.unwrap();
    let peer = Peer::on(listener, vec![Behaviour::good()]);
    let sources = [source("four", Some("127.0.0.9"), None, None), source("six", None, Some("::1"), None)];
    let rig = dns.rig(peer.at.port(), with(&sources));
    let destination = Destination::Mx("alone6.mail.test".into());
    let mut link = rig.link_from("four", &destination).await;
    let deferred = attempt(&mut link, &rig.letter(&["a@alone6.mail.test"]).await).await;
    assert_eq!(outcomes(&deferred), "~4.4.4");
    assert!(
        text(&deferred).contains("four has an IPv4 address alone, and six.mail.test has none of that kind"),
        "{}",
        text(&deferred)
    );
    let mut link = rig.link_from("six", &destination).await;
    assert_eq!(outcomes(&attempt(&mut link, &rig.letter(&["a@alone6.mail.test"]).await).await), "+250");
}

#[tokio::test]
async fn a_source_that_is_gone_or_has_no_such_address_is_a_deferral() {
    let peer = Peer::new(Behaviour::good()).await;
    let rig = Rig::with(with(&[source("elsewhere", Some("192.0.2.77"), None, None)]));
    for (name, words) in
        [("gone", "there is no source \"gone\""), ("elsewhere", "cannot use source address 192.0.2.77")]
    {
        let mut link = rig.link_from(name, &smtp(peer.at)).await;
        let deferred = attempt(&mut link, &rig.letter(&["a@example.net"]).await).await;
        assert!(
            outcomes(&deferred).starts_with('~') && text(&deferred).contains(words),
            "{}",
            text(&deferred)
        );
    }
    assert_eq!(peer.seen(|s| s.connections), 0);
}

/// A host may let one source in and not another.
#[tokio::test]
async fn what_is_known_of_a_host_is_known_for_one_source() {
    let dns = Dns::new().await;
    let busy = || Behaviour::good().on("connect", [bye("421 4.7.0 not from there")]);
    let (first, second) =
        crate::exchangers::pair(vec![busy(), Behaviour::good()], vec![Behaviour::good()]).await;
    let sources =
        [source("bad", Some("127.0.0.9"), None, None), source("fine", Some("127.0.0.8"), None, None)];
    let rig = dns.rig(first.at.port(), |s| {
        with(&sources)(s);
        s.probe_interval = Duration::from_secs(3600);
    });
    for (name, host) in [("bad", "mx2"), ("bad", "mx2"), ("fine", "mx1"), ("bad", "mx2")] {
        let mut link = rig.link_from(name, &Destination::Mx("both.mail.test".into())).await;
        let attempt = attempt(&mut link, &rig.letter(&["a@both.mail.test"]).await).await;
        assert_eq!(
            (outcomes(&attempt), attempt.remote.unwrap().name),
            ("+250".into(), format!("{host}.mail.test"))
        );
    }
    assert_eq!((first.seen(|s| s.connections), second.messages().len()), (2, 3));
}
