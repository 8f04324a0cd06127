//! The parts that need no network: order, health, logins by rule, forms, answers of token servers, the file of a refresh
//! token.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::Duration;

use mail::{EnhancedStatus, ManualClock, Recipient, Timestamp};
use smtp::sasl::Password;

use super::*;

fn host(name: &str, weight: u32) -> WeightedHost {
    WeightedHost { at: HostPort { host: name.into(), port: 587 }, weight }
}

fn smarthost(order: HostOrder, hosts: &[(&str, u32)]) -> SmartHost {
    let hosts = hosts.iter().map(|(name, weight)| host(name, *weight)).collect();
    SmartHost { hosts, order, ..SmartHost::new("up", Vec::new(), SmartHostTls::Required, None) }
}

fn rig() -> (SmartHosts, ManualClock) {
    let clock = ManualClock::new(Timestamp(1_795_503_600_000));
    (SmartHosts::new(clock.clock()), clock)
}

fn names(plan: &[HostPort]) -> String {
    plan.iter().map(|at| &*at.host).collect::<Vec<_>>().join(" ")
}

fn address(text: &str) -> Address {
    Address::parse(text).unwrap()
}

fn at(name: &str) -> HostPort {
    host(name, 1).at
}

#[test]
fn in_order_the_first_that_works() {
    let (known, clock) = rig();
    let up = smarthost(HostOrder::Ordered, &[("a", 1), ("b", 1), ("c", 1)]);
    let plan = || names(&known.plan(&up, None));
    assert_eq!(plan(), "a b c");
    known.failed(&up, &at("a"), "refused");
    assert_eq!(plan(), "b c a", "who does not work comes last");
    known.failed(&up, &at("b"), "refused");
    clock.advance(Duration::from_secs(1));
    known.failed(&up, &at("c"), "refused");
    assert_eq!(plan(), "a b c", "where none works, all are tried, and who has rested longest first");
    known.worked(&up, &at("b"));
    assert_eq!(plan(), "b a c");
}

#[test]
fn a_spare_is_left_when_the_first_may_be_back() {
    let (known, clock) = rig();
    let up = smarthost(HostOrder::Ordered, &[("a", 1), ("b", 1)]);
    let keeps = |name: &str| known.keeps(&up, &at(name), None, 1000);
    assert!(keeps("a") && !keeps("b"));
    known.failed(&up, &at("a"), "refused");
    assert!(keeps("b"), "as long as the first rests");
    clock.advance(Duration::from_secs(15));
    assert!(!keeps("b"), "whoever asks now looks whether it is back");
    assert_eq!(names(&known.plan(&up, None)), "a b");
    assert!(keeps("b"), "and nobody else does meanwhile");
    known.worked(&up, &at("a"));
    assert!(!keeps("b"), "it is");
}

#[test]
fn a_dead_host_costs_one_probe_per_interval() {
    let (known, clock) = rig();
    let up = smarthost(HostOrder::Ordered, &[("a", 1), ("b", 1)]);
    let plan = || names(&known.plan(&up, None));
    let mut intervals = Vec::new();
    for _ in 0..9 {
        // Twenty connections were under way when it went: together they are one failure.
        for _ in 0..20 {
            known.failed(&up, &at("a"), "refused");
        }
        let mut waited = 0;
        while plan() == "b a" {
            clock.advance(Duration::from_secs(1));
            waited += 1;
        }
        assert_eq!(plan(), "b a", "one attempt tries it, the others do not wait for that");
        intervals.push(waited);
    }
    assert_eq!(intervals, [15, 30, 60, 120, 240, 480, 600, 600, 600]);
    // Whoever should have tried it never said how it went.
    clock.advance(Duration::from_secs(60));
    assert_eq!(plan(), "a b");
    known.worked(&up, &at("a"));
    assert_eq!(plan(), "a b");
    known.failed(&up, &at("a"), "refused");
    clock.advance(Duration::from_secs(15));
    assert_eq!(plan(), "a b", "after it worked it begins with the short interval again");
}

#[test]
fn by_weight_each_gets_its_share_evenly_spread() {
    let (known, _) = rig();
    let up = smarthost(HostOrder::Weighted, &[("a", 5), ("b", 1), ("c", 2)]);
    let firsts =
        |n: usize| -> Vec<String> { (0..n).map(|_| known.plan(&up, None)[0].host.to_string()).collect() };
    let count =
        |of: &[String]| ["a", "b", "c"].map(|name| of.iter().filter(|host| host.as_str() == name).count());
    assert_eq!(count(&firsts(800)), [500, 100, 200]);
    assert_eq!(count(&firsts(8)), [5, 1, 2], "in every round");
    known.failed(&up, &at("a"), "refused");
    assert_eq!(count(&firsts(300)), [0, 100, 200], "the others share what is left by their weights");
    assert!(known.keeps(&up, &at("b"), None, 49) && !known.keeps(&up, &at("b"), None, 50));
    let alone = smarthost(HostOrder::Weighted, &[("a", 1)]);
    assert!(known.keeps(&alone, &at("a"), None, 1000), "there is nobody whose turn it could be");
}

#[test]
fn a_sender_stays_with_its_host() {
    let (known, _) = rig();
    let senders: Vec<Address> =
        (0..4000).map(|n| address(&format!("user{n}@brand{}.example", n % 7))).collect();
    let homes = |up: &SmartHost| -> HashMap<Address, String> {
        senders.iter().map(|s| (s.clone(), known.plan(up, Some(s))[0].host.to_string())).collect()
    };
    let three = smarthost(HostOrder::Sticky, &[("a", 1), ("b", 1), ("c", 2)]);
    let before = homes(&three);
    assert_eq!(before, homes(&three));
    let share = |homes: &HashMap<Address, String>, name: &str| homes.values().filter(|h| *h == name).count();
    for (name, expected) in [("a", 1000), ("b", 1000), ("c", 2000)] {
        assert!(share(&before, name).abs_diff(expected) < 150, "{name}: {}", share(&before, name));
    }
    // A host more takes its share and moves nobody else.
    let four = smarthost(HostOrder::Sticky, &[("a", 1), ("new", 1), ("b", 1), ("c", 2)]);
    let after = homes(&four);
    let moved: Vec<&Address> = senders.iter().filter(|s| before[*s] != after[*s]).collect();
    assert!(moved.iter().all(|s| after[*s] == "new"));
    assert!(moved.len().abs_diff(800) < 150, "{}", moved.len());
    // One that goes takes only its own senders along, and they spread over the others.
    known.failed(&three, &at("c"), "refused");
    let without = homes(&three);
    assert!(senders.iter().all(|s| before[s] == "c" || before[s] == without[s]));
    assert!(share(&without, "a") > 1500 && share(&without, "c") == 0);
    known.worked(&three, &at("c"));
    assert_eq!(homes(&three), before);
    // A connection is for the senders of its host.
    for sender in &senders[..100] {
        for name in ["a", "b", "c"] {
            assert_eq!(known.keeps(&three, &at(name), Some(sender), 1), before[sender] == name);
        }
    }
    let (big, small) = (address("User1@Brand.example"), address("user1@brand.example"));
    assert_eq!(known.plan(&three, Some(&big)), known.plan(&three, Some(&small)));
    assert_eq!(known.plan(&three, None), known.plan(&three, None), "the null sender has a home, too");
}

/// The lots are part of what an upgrade must not change.
#[test]
fn homes_are_the_same_in_every_version() {
    let (known, _) = rig();
    let up = smarthost(HostOrder::Sticky, &[("a", 1), ("b", 1), ("c", 1)]);
    let homes: Vec<String> = (0..12)
        .map(|n| known.plan(&up, Some(&address(&format!("user{n}@brand.example"))))[0].host.to_string())
        .collect();
    assert_eq!(homes.concat(), "bcacbcabbbcc");
}

#[test]
fn what_is_known_outlives_a_reload() {
    let (known, _) = rig();
    let up = smarthost(HostOrder::Ordered, &[("a", 1), ("b", 1)]);
    known.failed(&up, &at("a"), "connection refused");
    let other = smarthost(HostOrder::Ordered, &[("new", 1), ("a", 3), ("b", 1)]);
    assert_eq!(names(&known.plan(&other, None)), "new b a");
    known.worked(&other, &at("gone"));
    known.failed(&other, &at("gone"), "x");
}

#[test]
fn the_first_rule_that_matches_says_who_we_are() {
    let login = |name: &str| LoginSource::password(name, "secret", false);
    let patterns = |texts: &[&str]| texts.iter().map(|t| t.parse().unwrap()).collect();
    let rule = |senders: &[&str], domains: &[&str], name: &str| LoginRule {
        senders: patterns(senders),
        domains: patterns(domains),
        login: login(name),
    };
    let mut up = smarthost(HostOrder::Ordered, &[("a", 1)]);
    up.login = Some(login("default"));
    up.logins = vec![
        rule(&["ann@brand.example"], &[], "ann"),
        rule(&["*@brand.example"], &["example.org", "*.example.org"], "brand-to-org"),
        rule(&["*@brand.example", "*@*.brand.example"], &[], "brand"),
        rule(&["<>"], &[], "reports"),
        rule(&[], &["example.net"], "net"),
    ];
    let who = |sender: &str, recipient: &str| {
        let sender = (!sender.is_empty()).then(|| address(sender));
        up.login_for(sender.as_ref(), &address(recipient)).map(LoginSource::username).unwrap_or_default()
    };
    for (sender, recipient, expected) in [
        ("ann@brand.example", "x@example.org", "ann"),
        ("ben@brand.example", "x@example.org", "brand-to-org"),
        ("ben@brand.example", "x@mx.example.org", "brand-to-org"),
        ("ben@brand.example", "x@elsewhere.example", "brand"),
        ("ben@news.brand.example", "x@example.org", "brand"),
        ("ben@other.example", "x@example.net", "net"),
        ("ben@other.example", "x@example.com", "default"),
        ("", "x@example.net", "reports"),
    ] {
        assert_eq!(who(sender, recipient), expected, "{sender} to {recipient}");
    }
    let pending = |number: u16, to: &str| PendingRecipient {
        number,
        recipient: Recipient::new(address(to)),
        last: None,
    };
    let all = [
        pending(0, "a@example.org"),
        pending(1, "b@elsewhere.example"),
        pending(2, "c@example.org"),
        pending(3, "d@elsewhere.example"),
    ];
    let sender = address("ben@brand.example");
    let groups: Vec<(String, Vec<usize>)> = up
        .by_login(Some(&sender), &all, vec![0, 1, 2, 3])
        .into_iter()
        .map(|(login, places)| (login.unwrap().username().to_owned(), places))
        .collect();
    assert_eq!(groups, [("brand-to-org".to_owned(), vec![0, 2]), ("brand".to_owned(), vec![1, 3])]);
    up.logins.clear();
    assert_eq!(up.by_login(None, &all, vec![1, 2]), [(up.login.clone(), vec![1, 2])]);
}

#[test]
fn only_a_reply_allows_another_host() {
    let outcome = |code: Option<u16>, disposition, status: (u8, u16, u16)| Outcome {
        disposition,
        status: EnhancedStatus::new(status.0, status.1, status.2),
        code,
        text: String::new(),
    };
    use Disposition::{Deferred, Delivered, Refused};
    for (outcome, next, trouble) in [
        (outcome(Some(451), Deferred, (4, 7, 1)), true, false),
        (outcome(Some(452), Deferred, (4, 3, 1)), true, true),
        (outcome(Some(421), Deferred, (4, 0, 0)), true, true),
        (outcome(None, Deferred, (4, 4, 2)), false, false),
        (outcome(Some(550), Refused, (5, 1, 1)), false, false),
        (outcome(Some(550), Deferred, (4, 0, 0)), false, false),
        (outcome(Some(250), Delivered, (2, 0, 0)), false, false),
    ] {
        assert_eq!(
            (next_host_may_take_it(&outcome), is_trouble_of_the_host(&outcome)),
            (next, trouble),
            "{outcome:?}"
        );
    }
}

#[test]
fn what_a_login_needs() {
    let token = || Some(RefreshToken::Text(Password("r".into())));
    let url = "https://login.example/token";
    let secret = || Some("s e&c=r/é".to_owned());
    let made = |secret, token| OAuth::new("me@example.com", url, "id", secret, token, "a b");
    assert_eq!(made(None, None), Err(OAuthError::NoGrant));
    assert_eq!(OAuth::new("", url, "id", None, token(), ""), Err(OAuthError::NoUser));
    assert!(matches!(OAuth::new("me", "ftp://x", "id", None, token(), ""), Err(OAuthError::Url(_))));
    assert_eq!(
        made(secret(), None).unwrap().form(None),
        "grant_type=client_credentials&client_id=id&client_secret=s+e%26c%3Dr%2F%C3%A9&scope=a+b"
    );
    let refresh = Password("1//0g-x~y".into());
    assert_eq!(
        OAuth::new("me", url, "id", None, token(), "").unwrap().form(Some(&refresh)),
        "grant_type=refresh_token&refresh_token=1%2F%2F0g-x%7Ey&client_id=id"
    );
    let shown = format!("{:?}", made(secret(), token()).unwrap());
    assert!(!shown.contains("c=r"), "no log shows the secret: {shown}");
}

#[tokio::test]
async fn a_refresh_token_is_replaced_as_a_whole() {
    let dir = tempfile::tempdir().unwrap();
    let (file, link) = (dir.path().join("token"), dir.path().join("link"));
    fs::write(&file, "  first\r\n").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    std::os::unix::fs::symlink(&file, &link).unwrap();
    assert_eq!(refresh_file::read(&link).await.unwrap(), Password("first".into()));
    refresh_file::replace(&link, &Password("second".into())).await.unwrap();
    assert_eq!(refresh_file::read(&file).await.unwrap(), Password("second".into()));
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink(), "a link keeps leading there");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640, "never open to everybody");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "nothing is left beside it");
    if nix::unistd::getuid().is_root() {
        std::os::unix::fs::chown(&file, Some(65534), Some(65534)).unwrap();
        refresh_file::replace(&file, &Password("third".into())).await.unwrap();
        let (uid, gid) = (fs::metadata(&file).unwrap().uid(), fs::metadata(&file).unwrap().gid());
        assert_eq!((uid, gid), (65534, 65534), "whoever could read it still can");
    }
    fs::write(&file, "\n").unwrap();
    assert!(refresh_file::read(&file).await.unwrap_err().to_string().contains("no refresh token"));
    assert!(refresh_file::replace(&dir.path().join("none"), &Password("x".into())).await.is_err());
    // Where the folder cannot be written to, the old one stays.
    fs::write(&file, "third").unwrap();
    fs::create_dir(dir.path().join(".token.new")).unwrap();
    assert!(refresh_file::replace(&file, &Password("fourth".into())).await.is_err());
    assert_eq!(refresh_file::read(&file).await.unwrap(), Password("third".into()));
}

#[test]
fn orders_have_names() {
    for order in [HostOrder::Ordered, HostOrder::Weighted, HostOrder::Sticky] {
        assert_eq!(order.as_str().parse(), Ok(order));
    }
    assert!("random".parse::<HostOrder>().is_err());
}
