//! What `posthouse check` finds out over the network, in a network of the scenario's own: our name and what it leads to,
//! whether port 25 can be reached, and what smart hosts say to our logins.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::Path;

use posthouse_tests::needs;
use posthouse_tests::neighbours::dns::Dns;
use posthouse_tests::neighbours::namespace::own_network;
use posthouse_tests::neighbours::signed::{SignedDns, Signing};
use posthouse_tests::prelude::*;
use posthouse_tests::sink::{self, Options};
use posthouse_tests::tls::Certificate;
use serde_json::Value;

/// Ours, as the world sees it.
const OURS: &str = "185.199.108.1";
/// The mail exchanger of far.example, and its policy server.
const FAR: &str = "185.199.108.2";

/// `hostname` is relay.test, which is what this says, and the names of the addresses.
fn names<'a>(relay: &'a str, reverse: &'a str) -> [(&'static str, &'a str); 3] {
    let far = "@ MX 10 mx\nmx A 185.199.108.2\nmta-sts A 185.199.108.2\nnothing MX 10 nohost\nnull MX 0 .";
    [("test", relay), ("108.199.185.in-addr.arpa", reverse), ("far.example", far)]
}

fn network() {
    let addresses: Vec<IpAddr> = [OURS, FAR].iter().map(|a| a.parse().unwrap()).collect();
    own_network(&addresses);
}

fn far(port: u16) -> SocketAddr {
    SocketAddr::new(FAR.parse().unwrap(), port)
}

/// A relay that isn't started: `check` is what one runs before.
fn prepared(dns: SocketAddr, extra: &str) -> Relay {
    let dns = format!("[\"{dns}\"]");
    Relay::builder().set("dns", "servers", &dns).set("delivery", "dane", "false").toml(extra).prepare()
}

/// What was found, and how `check` ended.
struct Found {
    all: Vec<Value>,
    code: Option<i32>,
}

fn check(relay: &Relay, more: &[&str]) -> Found {
    let (status, output) = relay.try_cli(&[&["check", "--json"], more].concat());
    let all = serde_json::from_str(&output).unwrap_or_else(|e| panic!("not JSON ({e}):\n{output}"));
    Found { all, code: status.code() }
}

impl Found {
    /// The finding about `about` that has `words`; it must be of this level, and whatever is wrong must say what to do.
    #[track_caller]
    fn has(&self, level: &str, about: &str, words: &str) {
        let text = |f: &Value, key: &str| f[key].as_str().unwrap_or_default().to_owned();
        let finding = self.all.iter().find(|f| text(f, "about") == about && text(f, "text").contains(words));
        let Some(finding) = finding else {
            panic!("nothing about {about} says {words:?}: {:#?}", self.all);
        };
        assert_eq!(text(finding, "level"), level, "{finding}");
        let help = text(finding, "help");
        assert_eq!(help.is_empty(), level == "ok", "{finding}");
        assert!(help.is_empty() || help.contains(' '), "not in words: {finding}");
    }

    fn levels(&self, about: &str) -> Vec<&str> {
        self.all.iter().filter(|f| f["about"] == about).filter_map(|f| f["level"].as_str()).collect()
    }
}

#[test]
fn all_is_well() {
    needs!("root", "knotd", "ip");
    network();
    let dns = Dns::serve(&names("relay A 185.199.108.1", "1 PTR relay.test."));
    let _mx = Sink::on(far(25), Options::default());
    let _web = TcpListener::bind(far(443)).unwrap();
    let relay = prepared(dns.addr(), "");
    let found = check(&relay, &["--reach", "far.example"]);
    assert_eq!(found.code, Some(0), "{:#?}", found.all);
    found.has("ok", "dns", "relay.test is 185.199.108.1");
    found.has("ok", "dns", "185.199.108.1 leads back to relay.test");
    found.has("ok", "port 25", "mx.far.example [185.199.108.2]:25 answers: 220 sink.test ESMTP");
    found.has("ok", "mta-sts", "mta-sts.far.example [185.199.108.2]:443 can be reached");
    // The same to a person, and nothing of it without the network.
    let (status, text) = relay.try_cli(&["check", "--reach", "far.example"]);
    assert!(status.success(), "{text}");
    assert!(text.contains("ok    dns        185.199.108.1 leads back to relay.test\n"), "{text}");
    assert!(text.contains("0 failures"), "{text}");
    let offline = check(&relay, &["--offline", "--reach", "far.example"]);
    assert_eq!(offline.code, Some(0), "{:#?}", offline.all);
    for about in ["dns", "port 25", "mta-sts"] {
        assert!(offline.levels(about).is_empty(), "{:#?}", offline.all);
    }
}

#[test]
fn a_hostname_that_leads_nowhere_or_elsewhere_is_told() {
    needs!("root", "knotd", "ip");
    network();
    let _mx = Sink::on(far(25), Options::default());
    let reach = ["--reach", "far.example"];
    for (relay, reverse, level, words) in [
        ("other A 185.199.108.1", "1 PTR relay.test.", "warn", "relay.test"),
        (
            "relay A 185.199.108.1",
            "1 PTR pool-1.isp.example.",
            "warn",
            "185.199.108.1 is called pool-1.isp.example, not relay.test",
        ),
        ("relay A 185.199.108.1", "9 PTR relay.test.", "warn", "185.199.108.1 has no name (PTR)"),
        // One of several names is enough, however it is written.
        (
            "relay A 185.199.108.1",
            "1 PTR pool-1.isp.example.\n1 PTR RELAY.Test.",
            "ok",
            "185.199.108.1 leads back to relay.test",
        ),
    ] {
        let dns = Dns::serve(&names(relay, reverse));
        let found = check(&prepared(dns.addr(), ""), &reach);
        found.has(level, "dns", words);
        assert_eq!(found.code, Some(0), "mail can leave, others may refuse it: {:#?}", found.all);
    }
}

#[test]
fn a_source_with_a_name_of_its_own_is_held_to_it() {
    needs!("root", "knotd", "ip");
    network();
    let _mx = Sink::on(far(25), Options::default());
    let zone = "relay A 185.199.108.1\nnews A 185.199.108.2\nmoved A 185.199.108.9";
    let dns = Dns::serve(&names(zone, "1 PTR relay.test.\n2 PTR news.test."));
    let sources = "[source.news]\nipv4 = \"185.199.108.2\"\nehlo = \"news.test\"\n\
        [source.moved]\nipv4 = \"185.199.108.1\"\nehlo = \"moved.test\"\n\
        [source.gone]\nipv4 = \"185.199.108.77\"\nehlo = \"gone.test\"\n\
        [pool.default]\nsources = { news = 1, moved = 1, gone = 1 }\n";
    let found = check(&prepared(dns.addr(), sources), &["--reach", "far.example"]);
    found.has("ok", "source", "news: news.test leads to its addresses");
    found.has("ok", "source", "185.199.108.2 leads back to news.test");
    found.has("warn", "source", "moved: moved.test does not lead to 185.199.108.1");
    found.has("warn", "source", "185.199.108.1 is called relay.test, not moved.test");
    found.has("warn", "source", "gone: EHLO gone.test");
    found.has("warn", "source", "185.199.108.77 has no name (PTR)");
    found.has("fail", "source", "gone: 185.199.108.77 cannot be used here");
    assert_eq!(found.code, Some(1), "a connection can't come from there: {:#?}", found.all);
}

#[test]
fn a_port_25_that_cannot_be_reached_fails() {
    needs!("root", "knotd", "ip");
    network();
    let dns = Dns::serve(&names("relay A 185.199.108.1", "1 PTR relay.test."));
    let relay = prepared(dns.addr(), "");
    let fails = |domain: &str, words: &str| {
        let found = check(&relay, &["--reach", domain]);
        found.has("fail", "port 25", words);
        assert_eq!(found.code, Some(1), "{:#?}", found.all);
    };
    fails("far.example", "no mail exchanger of far.example can be reached: ");
    fails("far.example", "refused");
    fails("missing.far.example", "the mail exchangers of missing.far.example are not known");
    fails(
        "nothing.far.example",
        "no mail exchanger of nothing.far.example can be reached: it has no addresses",
    );
    fails("null.far.example", "null.far.example");
    // A provider that answers itself where mail should go out.
    let no = Options::default().script(|stage| match stage {
        Stage::Connect => sink::reply("554 port 25 is closed for you"),
        _ => Act::Usual,
    });
    let _wall = Sink::on(far(25), no);
    fails("far.example", "554 port 25 is closed for you");
}

#[test]
fn a_hostname_that_leads_only_into_a_private_network_is_told() {
    needs!("root", "knotd", "ip");
    network();
    let _mx = Sink::on(far(25), Options::default());
    for (relay, level) in [("relay A 10.1.2.3", "warn"), ("relay A 10.1.2.3\nrelay A 185.199.108.1", "ok")] {
        let dns = Dns::serve(&names(relay, "1 PTR relay.test."));
        let found = check(&prepared(dns.addr(), ""), &["--reach", "far.example"]);
        let words = "an address of a private network only";
        let told = found.all.iter().any(|f| f["text"].as_str().unwrap_or_default().contains(words));
        assert_eq!(told, level == "warn", "{:#?}", found.all);
        found.has(level, "dns", "relay.test is ");
    }
}

/// However many questions there are, they are asked side by side, and a person does not wait for one after the other.
#[test]
fn a_dns_that_says_nothing_at_all_takes_one_budget() {
    needs!("root", "ip");
    network();
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let sources: String = (1..5)
        .map(|n| format!("[source.s{n}]\nipv4 = \"185.199.108.{n}\"\nehlo = \"s{n}.test\"\n"))
        .collect();
    let relay = prepared(silent.local_addr().unwrap(), &sources);
    let clock = mail::Clock::system();
    let begun = clock.mono();
    let found = check(&relay, &["--reach", "far.example"]);
    let took = clock.mono().since(begun);
    found.has("fail", "dns", "relay.test");
    found.has("fail", "port 25", "the mail exchangers of far.example are not known");
    found.has("warn", "source", "s4: EHLO s4.test");
    assert!(took < Duration::from_secs(25), "{took:?}");
}

#[test]
fn name_servers_that_are_silent_fail() {
    needs!("root", "ip");
    network();
    let nobody = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let relay = prepared(nobody, "");
    relay.reconfigure(|old| old.replace("dane = false", "dane = false\nmta_sts = false"));
    let found = check(&relay, &["--reach", "far.example"]);
    found.has("fail", "dns", "relay.test");
    found.has("fail", "port 25", "the mail exchangers of far.example are not known");
    assert_eq!(found.code, Some(1), "{:#?}", found.all);
}

#[test]
fn silent_name_servers_are_only_worth_a_word_where_smart_hosts_take_all() {
    needs!("root", "ip");
    network();
    let nobody = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let sink = Sink::start();
    let found = check(&prepared(nobody, &smarthost(&[&sink.addr().to_string()], "none", "")), &[]);
    found.has("warn", "dns", "relay.test");
    found.has("ok", "smarthost", "connected without TLS; no login configured");
    assert!(found.levels("port 25").is_empty(), "{:#?}", found.all);
    assert_eq!(found.code, Some(0), "{:#?}", found.all);
}

#[test]
fn a_resolver_that_validates_is_told_from_one_that_does_not() {
    needs!("root", "knotd", "unbound", "keymgr", "kdig", "ip");
    network();
    let _mx = Sink::on(far(25), Options::default());
    let far = "@ MX 10 mx\nmx A 185.199.108.2\n";
    let dane = |relay: Relay| {
        relay.reconfigure(|old| old.replace("dane = false", "dane = true"));
        check(&relay, &["--reach", "far.example"])
    };
    let dns = SignedDns::serve(&[
        ("far.example", Signing::Secure, far),
        ("ietf.org", Signing::Insecure, ""),
        ("nic.cz", Signing::Insecure, ""),
        ("test", Signing::Insecure, "relay A 127.0.0.1"),
    ]);
    dane(prepared(dns.addr(), "")).has("ok", "dane", "signed answers are recognised (far.example)");
    let dns = Dns::serve(&[("far.example", far), ("test", "relay A 127.0.0.1")]);
    dane(prepared(dns.addr(), "")).has("warn", "dane", "the resolver does not validate");
}

/// A smart host that wants the password `sesame`.
fn upstream(dir: &Path) -> (Sink, Certificate) {
    let certificate = Certificate::make(dir, &["up.far.example", "localhost"]);
    let options = Options { certificate: Some(certificate.clone()), ..Options::default() };
    let options = options.extensions(&["PIPELINING", "8BITMIME", "AUTH PLAIN"]).script(|stage| match stage {
        Stage::Auth(said) if !said.contains("AHVwAHNlc2FtZQ==") => sink::reply("535 5.7.8 no such login"),
        _ => Act::Usual,
    });
    (Sink::with(options), certificate)
}

fn smarthost(hosts: &[&str], tls: &str, more: &str) -> String {
    format!("[[route]]\nto = \"smarthost:up\"\n[smarthost.up]\nhosts = {hosts:?}\ntls = \"{tls}\"\n{more}\n")
}

#[test]
fn a_smart_host_is_tried_with_our_login_before_anything_runs() {
    needs!("root", "knotd", "ip");
    network();
    let dir = tempfile::tempdir().unwrap();
    let (sink, certificate) = upstream(dir.path());
    let port = sink.addr().port();
    // The name leads to loopback, as the sink is there: smart hosts may be anywhere.
    let dns = Dns::serve(&[("far.example", "up A 127.0.0.1\nother A 127.0.0.1"), ("test", "")]);
    let ca = format!("[tls]\nca_file = \"{}\"\n", certificate.certificate.display());
    let login = |word: &str| format!("username = \"up\"\npassword = \"{word}\"\n");
    let up = format!("up.far.example:{port}");
    let try_out = |hosts: &[&str], tls: &str, more: &str| {
        let relay = prepared(dns.addr(), &smarthost(hosts, tls, more));
        let found = check(&relay, &[]);
        // Nothing goes by MX: our own name is nobody's business, and port 25 isn't used.
        found.has("ok", "dns", "with smart hosts alone that does not matter");
        assert!(found.levels("port 25").is_empty(), "{:#?}", found.all);
        found
    };
    let good = try_out(&[&up], "required", &(login("sesame") + &ca));
    good.has(
        "ok",
        "smarthost",
        &format!("up at {up}: connected with TLSv1.3, certificate verified; login as \"up\" accepted"),
    );
    assert_eq!((good.code, sink.count()), (Some(0), 0), "{:#?}", good.all);
    let other = format!("other.far.example:{port}");
    let dead = format!("127.0.0.1:{}", free_port());
    for (hosts, tls, more, words) in [
        ([&up], "required", login("wrong") + &ca, "535 5.7.8 no such login"),
        ([&up], "required", login("sesame"), "certificate"),
        ([&other], "required", login("sesame") + &ca, "certificate"),
        ([&dead], "required", login("sesame") + &ca, "refused"),
        ([&format!("gone.far.example:{port}")], "required", login("sesame") + &ca, "gone.far.example"),
    ] {
        let found = try_out(&hosts.map(String::as_str), tls, &more);
        found.has("fail", "smarthost", words);
        assert_eq!(found.code, Some(1), "{:#?}", found.all);
    }
    // One host that works is enough for mail to go out.
    let found = try_out(&[&dead, &up], "required", &(login("sesame") + &ca));
    found.has("warn", "smarthost", &format!("up at {dead}"));
    found.has("ok", "smarthost", &format!("up at {up}"));
    assert_eq!(found.code, Some(0), "{:#?}", found.all);
}
