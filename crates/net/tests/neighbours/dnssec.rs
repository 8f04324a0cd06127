//! What the resolver makes of signed, unsigned and forged answers: Knot signs, Unbound validates.

use net::{Dnssec, NoTlsa, ResolveError, Resolver};

use crate::signed::SignedDns;

const HASH: &str = "0b9fa5a59eed715c26c1020c711b4f6ec42d58b0015e14337a39dad301c5afc3";
const OTHER: &str = "1b9fa5a59eed715c26c1020c711b4f6ec42d58b0015e14337a39dad301c5afc3";

fn signed_records() -> String {
    format!(
        "dom MX 10 mx1\n\
         implicit A 192.0.2.7\n\
         mx1 A 192.0.2.1\n\
         _25._tcp.mx1 TLSA 3 1 1 {HASH}\n_25._tcp.mx1 TLSA 2 0 1 {OTHER}\n\
         bare A 192.0.2.2\n\
         alias CNAME mx1\n\
         alias2 CNAME bare\n_25._tcp.alias2 TLSA 3 1 1 {OTHER}\n\
         out CNAME host.plain\n_25._tcp.out TLSA 3 1 1 {HASH}\n\
         elsewhere A 192.0.2.3\n_25._tcp.elsewhere CNAME tlsa.mx1\ntlsa.mx1 TLSA 3 1 1 {HASH}\n\
         forged A 192.0.2.4\n_25._tcp.forged CNAME tlsa.bogus\n\
         outside A 192.0.2.5\n_25._tcp.outside CNAME tlsa.plain\n\
         useless A 192.0.2.6\n_25._tcp.useless TLSA 0 0 1 {HASH}\n\
         txt TXT \"v=STSv1; id=1\"\n\
         indom MX 10 host.plain\n"
    )
}

const PLAIN: &str = "@ MX 10 mx1.test.\nhost A 192.0.2.9\n_25._tcp.host TLSA 3 1 1 \
                     0b9fa5a59eed715c26c1020c711b4f6ec42d58b0015e14337a39dad301c5afc3\ntlsa TLSA 3 1 1 \
                     0b9fa5a59eed715c26c1020c711b4f6ec42d58b0015e14337a39dad301c5afc3\nin CNAME mx1.test.\n";
const BOGUS: &str = "@ MX 10 mx1.test.\nhost A 192.0.2.8\ntlsa TLSA 3 1 1 \
                     0b9fa5a59eed715c26c1020c711b4f6ec42d58b0015e14337a39dad301c5afc3\n";

async fn serve() -> SignedDns {
    SignedDns::serve(&signed_records(), PLAIN, BOGUS).await
}

#[tokio::test]
async fn a_validating_resolver_on_loopback_is_believed() {
    let dns = serve().await;
    everything(&dns.resolver()).await;
    // A second time, out of the cache.
    let resolver = dns.resolver();
    for _ in 0..2 {
        assert!(resolver.mx("dom.test").await.unwrap().secure);
        assert!(resolver.tlsa("mx1.test", 25).await.unwrap().secure());
    }
}

#[tokio::test]
async fn validation_in_process_says_the_same() {
    let dns = serve().await;
    everything(&dns.resolver_with(Dnssec::Validate)).await;
}

async fn everything(resolver: &Resolver) {
    assert!(resolver.authenticates());
    for (domain, secure) in
        [("dom.test", true), ("implicit.test", true), ("indom.test", true), ("plain.test", false)]
    {
        let answer = resolver.mx(domain).await.unwrap();
        assert_eq!((answer.secure, answer.implicit), (secure, domain == "implicit.test"), "{domain}");
    }
    for (host, secure) in [
        ("mx1.test", true),
        ("alias.test", true),
        ("host.plain.test", false),
        ("out.test", false),
        ("in.plain.test", false),
    ] {
        assert_eq!(resolver.addresses(host).await.unwrap().secure, secure, "{host}");
    }
    for (host, base, first) in [
        ("mx1.test", "mx1.test", HASH),
        ("MX1.test.", "mx1.test", HASH),
        // The records of what an alias stands for count before its own.
        ("alias.test", "mx1.test", HASH),
        ("alias2.test", "alias2.test", OTHER),
        // An alias into an unsigned zone is signed itself: its own records count.
        ("out.test", "out.test", HASH),
        ("elsewhere.test", "elsewhere.test", HASH),
    ] {
        let answer = resolver.tlsa(host, 25).await.unwrap();
        assert_eq!((&*answer.base, answer.none), (base, None), "{host}");
        let hashes: Vec<String> = answer.records.iter().map(ToString::to_string).collect();
        assert!(hashes.contains(&format!("3 1 1 {first}")), "{host} {hashes:?}");
    }
    assert_eq!(resolver.tlsa("mx1.test", 25).await.unwrap().records.len(), 2);
    let useless = resolver.tlsa("useless.test", 25).await.unwrap();
    assert!(!useless.records[0].is_usable() && useless.secure());
    for (host, port, why) in [
        ("mx1.test", 26, NoTlsa::Absent),
        ("bare.test", 25, NoTlsa::Absent),
        // Records that are not signed are none.
        ("outside.test", 25, NoTlsa::Absent),
        ("host.plain.test", 25, NoTlsa::Unsigned),
        ("in.plain.test", 25, NoTlsa::Unsigned),
    ] {
        let answer = resolver.tlsa(host, port).await.unwrap();
        assert_eq!((answer.records.len(), answer.none), (0, Some(why)), "{host} {port}");
    }
    // What is forged is no answer, and never "there is none".
    let error = resolver.tlsa("forged.test", 25).await.unwrap_err();
    assert!(error.is_temporary(), "{error:?}");
    for host in ["host.bogus.test", "no-such-host.bogus.test"] {
        let error = resolver.tlsa(host, 25).await.unwrap_err();
        assert!(error.is_temporary(), "{host} {error:?}");
        let error = resolver.addresses(host).await.unwrap_err();
        assert!(error.is_temporary(), "{host} {error:?}");
    }
    assert!(resolver.mx("bogus.test").await.unwrap_err().is_temporary());
    let error = resolver.tlsa("no-such-host.test", 25).await.unwrap_err();
    assert!(matches!(error, ResolveError::NoSuchDomain(_)), "{error:?}");
    assert_eq!(resolver.txt("txt.test").await.unwrap(), ["v=STSv1; id=1"]);
}

#[tokio::test]
async fn who_is_not_believed_says_nothing_of_signatures() {
    let dns = serve().await;
    let off = dns.resolver_with(Dnssec::Off);
    assert!(!off.authenticates() && !off.mx("dom.test").await.unwrap().secure);
    assert_eq!(off.tlsa("mx1.test", 25).await.unwrap().none, Some(NoTlsa::NotValidated));
    assert!(dns.resolver_with(Dnssec::Trust).mx("dom.test").await.unwrap().secure);
    // An authoritative server does not validate, so that nothing is authenticated, signatures or not.
    let knot = dns.knot_resolver();
    assert!(!knot.mx("dom.test").await.unwrap().secure);
    assert_eq!(knot.tlsa("mx1.test", 25).await.unwrap().none, Some(NoTlsa::Unsigned));
}

#[tokio::test]
async fn forged_answers_are_found_out_in_process() {
    let dns = serve().await;
    // A resolver that does not validate passes the forged zone on; the in-process validation sees it.
    let config = net::ResolverConfig {
        servers: vec![dns.knot],
        dnssec: Dnssec::Validate,
        trust_anchors: Some(dns.anchor()),
    };
    let resolver = Resolver::new(&config).unwrap();
    assert!(resolver.mx("dom.test").await.unwrap().secure);
    assert!(resolver.addresses("host.bogus.test").await.unwrap_err().is_temporary());
}
