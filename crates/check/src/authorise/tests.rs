//! The whole matrix, and the property that nobody relays who may not.

use std::sync::{Arc, LazyLock};

use directory::{Directory, NewCredential, OrgChange, Password};
use mail::Clock;
use net::Network;
use proptest::prelude::*;

use super::*;
use crate::policy::{RecipientList, RelayNetwork};

/// A directory with a trusted organisation (`default`), one that may use its own domains only (`acme`), and one that
/// is suspended.
static DIRECTORY: LazyLock<Arc<Snapshot>> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let directory = Directory::open(dir.path(), Clock::system()).unwrap();
        let by = "test".to_owned();
        directory.add_org("acme", false, &by).await.unwrap();
        directory.add_org("gone", true, &by).await.unwrap();
        directory.add_domain("acme.example", "acme", &by).await.unwrap();
        directory.add_domain("lent.acme.example", "default", &by).await.unwrap();
        for (login, org, from, networks) in [
            ("any", "default", "", ""),
            ("limited", "default", "brand.example", ""),
            ("wild", "default", "*.brand.example", ""),
            ("home", "default", "", "192.0.2.0/24"),
            ("acme", "acme", "", ""),
            ("acme-limited", "acme", "news.acme.example", ""),
            ("suspended", "gone", "", ""),
            ("off", "default", "", ""),
        ] {
            let new = NewCredential {
                login: login.into(),
                org: org.into(),
                password: Password::Make,
                from_domains: from.split_whitespace().map(|d| d.parse().unwrap()).collect(),
                networks: networks.split_whitespace().map(|n| n.parse().unwrap()).collect(),
                stream: mail::Stream::Transactional,
            };
            directory.add_credential(new, &by).await.unwrap();
        }
        let off = directory::CredentialChange { enabled: Some(false), ..Default::default() };
        directory.set_credential("off", off, &by).await.unwrap();
        for address in ["left@elsewhere.example", "left@local.example"] {
            let it = directory::NewSuppression {
                org: "default".into(),
                address: Address::parse(address).unwrap(),
                class: mail::BounceClass::Recipient,
                reason: "no such user".into(),
                source: directory::SuppressedBy::Bounce,
            };
            directory.suppress(it, &by).await.unwrap();
        }
        let change = OrgChange { state: Some(OrgState::Suspended), ..OrgChange::default() };
        directory.set_org("gone", change, &by).await.unwrap();
        let state = directory.snapshot();
        directory.close().await;
        state
    })
});

const OUTSIDE: &str = "203.0.113.9";
const HOME: &str = "192.0.2.7";
const OFFICE: &str = "10.1.2.3";
const LOCAL: &str = "local.example";

fn policy() -> Policy {
    let network = |text: &str, org: &str| RelayNetwork { network: text.parse().unwrap(), org: org.into() };
    Policy {
        networks: vec![
            network("10.1.0.0/16", "default"),
            network("10.2.0.0/16", "acme"),
            network("10.3.0.0/16", "gone"),
            network("10.4.0.0/16", "nobody"),
        ],
        local_domains: [LOCAL.into()].into(),
        recipients: LocalRecipients::Any,
    }
}

fn client<'a>(address: &str, mode: Mode, login: &'a str) -> Client<'a> {
    Client { address: address.parse().unwrap(), mode, login: (!login.is_empty()).then_some(login) }
}

/// `250`, or the refusal's codes.
fn verdict<T>(result: Result<T, Reply>) -> String {
    match result {
        Ok(_) => "250".into(),
        Err(reply) => {
            assert!(reply.text.len() > 20, "says nothing: {reply}");
            format!("{} {}", reply.code, reply.enhanced.unwrap())
        }
    }
}

fn address(text: &str) -> Option<Address> {
    (!text.is_empty()).then(|| Address::parse(text).unwrap())
}

#[test]
fn who_may_use_which_sender() {
    use Mode::{Smtp, Submission};
    let policy = policy();
    for (from, mode, login, sender_text, wanted) in [
        // Strangers bring mail for local domains, from whomever; on submission they log in.
        (OUTSIDE, Smtp, "", "a@elsewhere.example", "250"),
        (OUTSIDE, Smtp, "", "a@local.example", "250"),
        (OUTSIDE, Smtp, "", "", "250"),
        (OUTSIDE, Submission, "", "a@local.example", "530 5.7.0"),
        (OUTSIDE, Submission, "", "", "530 5.7.0"),
        // Also from a network that may relay.
        (OFFICE, Submission, "", "a@local.example", "530 5.7.0"),
        // An unlimited credential of a trusted organisation.
        (OUTSIDE, Submission, "any", "a@elsewhere.example", "250"),
        (OUTSIDE, Smtp, "ANY", "a@elsewhere.example", "250"),
        (OUTSIDE, Submission, "any", "", "250"),
        // Limited to domains.
        (OUTSIDE, Submission, "limited", "a@brand.example", "250"),
        (OUTSIDE, Submission, "limited", "a@BRAND.example", "250"),
        (OUTSIDE, Submission, "limited", "a@sub.brand.example", "553 5.7.1"),
        (OUTSIDE, Submission, "limited", "a@elsewhere.example", "553 5.7.1"),
        (OUTSIDE, Submission, "limited", "a@notbrand.example", "553 5.7.1"),
        (OUTSIDE, Submission, "limited", "", "250"),
        (OUTSIDE, Submission, "wild", "a@sub.brand.example", "250"),
        (OUTSIDE, Submission, "wild", "a@brand.example", "553 5.7.1"),
        // Limited to networks.
        (HOME, Submission, "home", "a@elsewhere.example", "250"),
        (OUTSIDE, Submission, "home", "a@elsewhere.example", "550 5.7.1"),
        // An organisation that may use its own domains only.
        (OUTSIDE, Submission, "acme", "a@acme.example", "250"),
        (OUTSIDE, Submission, "acme", "a@news.acme.example", "250"),
        (OUTSIDE, Submission, "acme", "a@lent.acme.example", "553 5.7.1"),
        (OUTSIDE, Submission, "acme", "a@elsewhere.example", "553 5.7.1"),
        (OUTSIDE, Submission, "acme", "a@notacme.example", "553 5.7.1"),
        (OUTSIDE, Submission, "acme", "", "250"),
        (OUTSIDE, Submission, "acme-limited", "a@news.acme.example", "250"),
        (OUTSIDE, Submission, "acme-limited", "a@acme.example", "553 5.7.1"),
        // Not any more.
        (OUTSIDE, Submission, "suspended", "a@elsewhere.example", "550 5.7.1"),
        (OUTSIDE, Submission, "off", "a@elsewhere.example", "530 5.7.0"),
        (OUTSIDE, Submission, "removed", "a@elsewhere.example", "530 5.7.0"),
        // Networks.
        (OFFICE, Smtp, "", "a@elsewhere.example", "250"),
        ("::ffff:10.1.2.3", Smtp, "", "a@elsewhere.example", "250"),
        ("10.2.0.1", Smtp, "", "a@acme.example", "250"),
        ("10.2.0.1", Smtp, "", "a@elsewhere.example", "553 5.7.1"),
        ("10.2.0.1", Smtp, "", "", "250"),
        ("10.3.0.1", Smtp, "", "a@elsewhere.example", "550 5.7.1"),
        ("10.4.0.1", Smtp, "", "a@elsewhere.example", "451 4.3.5"),
    ] {
        let client = client(from, mode, login);
        let got = verdict(sender(&policy, &DIRECTORY, &client, address(sender_text).as_ref()));
        assert_eq!(got, wanted, "{from} {mode:?} {login:?} <{sender_text}>");
    }
}

#[test]
fn who_may_reach_whom() {
    use Mode::{Smtp, Submission};
    let policy = policy();
    for (from, mode, login, to, wanted) in [
        (OUTSIDE, Smtp, "", "a@local.example", "250"),
        (OUTSIDE, Smtp, "", "a@LOCAL.example", "250"),
        (OUTSIDE, Smtp, "", "a@sub.local.example", "550 5.7.1"),
        (OUTSIDE, Smtp, "", "a@notlocal.example", "550 5.7.1"),
        (OUTSIDE, Smtp, "", "a@elsewhere.example", "550 5.7.1"),
        (OUTSIDE, Submission, "", "a@local.example", "530 5.7.0"),
        (OUTSIDE, Submission, "", "a@elsewhere.example", "530 5.7.0"),
        (OFFICE, Submission, "", "a@elsewhere.example", "530 5.7.0"),
        (OFFICE, Smtp, "", "a@elsewhere.example", "250"),
        (OUTSIDE, Submission, "any", "a@elsewhere.example", "250"),
        (OUTSIDE, Smtp, "any", "a@elsewhere.example", "250"),
        (OUTSIDE, Submission, "limited", "a@elsewhere.example", "250"),
        (OUTSIDE, Submission, "home", "a@elsewhere.example", "550 5.7.1"),
        (OUTSIDE, Submission, "off", "a@local.example", "530 5.7.0"),
        (OUTSIDE, Submission, "suspended", "a@local.example", "550 5.7.1"),
        ("10.4.0.1", Smtp, "", "a@elsewhere.example", "451 4.3.5"),
        // Suppressed for one organisation, in any case; not for another, and not for strangers.
        (OFFICE, Smtp, "", "Left@elsewhere.example", "550 5.1.1"),
        (OUTSIDE, Submission, "any", "left@elsewhere.example", "550 5.1.1"),
        (OFFICE, Smtp, "", "left@local.example", "550 5.1.1"),
        (OUTSIDE, Submission, "acme", "left@elsewhere.example", "250"),
        (OUTSIDE, Smtp, "", "left@local.example", "250"),
        // Routes inside the address, for strangers and friends, here and elsewhere.
        (OUTSIDE, Smtp, "", "user%elsewhere.example@local.example", "553 5.1.3"),
        (OUTSIDE, Smtp, "", "elsewhere.example!user@local.example", "553 5.1.3"),
        (OUTSIDE, Smtp, "", "\"user@elsewhere.example\"@local.example", "553 5.1.3"),
        (OUTSIDE, Smtp, "", "\"@elsewhere.example:user\"@local.example", "553 5.1.3"),
        (OFFICE, Smtp, "", "user%elsewhere.example@other.example", "553 5.1.3"),
        (OUTSIDE, Submission, "any", "user%elsewhere.example@other.example", "553 5.1.3"),
        (OUTSIDE, Submission, "any", "a!b@other.example", "553 5.1.3"),
        (OUTSIDE, Submission, "any", "\"a@b\"@other.example", "553 5.1.3"),
        // Fine, though odd.
        (OUTSIDE, Submission, "any", "\"a b\"@other.example", "250"),
        (OUTSIDE, Submission, "any", "a/b=c+d@other.example", "250"),
    ] {
        let got = verdict(recipient(&policy, &DIRECTORY, &client(from, mode, login), &address(to).unwrap()));
        assert_eq!(got, wanted, "{from} {mode:?} {login:?} <{to}>");
    }
}

#[test]
fn local_recipients_are_verified() {
    let list = Arc::new(RecipientList::parse("ann@local.example\n").unwrap());
    let ways = [LocalRecipients::Any, LocalRecipients::Callout, LocalRecipients::File(list)];
    for (to, wanted) in [
        ("ann@local.example", [Some(Passage::Local), Some(Passage::Callout), Some(Passage::Local)]),
        ("bob@local.example", [Some(Passage::Local), Some(Passage::Callout), None]),
        ("PostMaster@local.example", [Some(Passage::Local); 3]),
    ] {
        for (way, wanted) in ways.iter().zip(wanted) {
            let policy = Policy { recipients: way.clone(), ..policy() };
            for (from, login) in [(OUTSIDE, ""), (OFFICE, ""), (OUTSIDE, "any")] {
                let got =
                    recipient(&policy, &DIRECTORY, &client(from, Mode::Smtp, login), &address(to).unwrap());
                match wanted {
                    Some(passage) => assert_eq!(got, Ok(passage), "{to} {way:?}"),
                    None => assert_eq!(verdict(got), "550 5.1.1", "{to} {way:?}"),
                }
            }
        }
    }
    // The postmaster of a domain that is not ours is a recipient like any other.
    let elsewhere = address("postmaster@elsewhere.example").unwrap();
    let got = recipient(&policy(), &DIRECTORY, &client(OUTSIDE, Mode::Smtp, ""), &elsewhere);
    assert_eq!(verdict(got), "550 5.7.1");
}

#[test]
fn what_a_callout_means() {
    let ann = address("ann@local.example").unwrap();
    for (answer, stranger, friend) in [
        (Callout::Exists, "250", "250"),
        (Callout::Unknown("550 no such user".into()), "550 5.1.1", "550 5.1.1"),
        (Callout::Unsure("connection refused".into()), "451 4.3.0", "250"),
    ] {
        assert_eq!(verdict(called(false, &ann, &answer)), stranger);
        assert_eq!(verdict(called(true, &ann, &answer)), friend);
    }
}

#[test]
fn the_from_field_follows_the_same_limits() {
    let policy = policy();
    for (from, login, field, wanted) in [
        (OUTSIDE, "any", "a@elsewhere.example", "250"),
        (OUTSIDE, "any", "nonsense", "250"),
        (OUTSIDE, "", "a@elsewhere.example", "250"),
        (OFFICE, "", "a@elsewhere.example", "250"),
        (OUTSIDE, "limited", "Ann <a@brand.example>", "250"),
        (OUTSIDE, "limited", "\"a@brand.example\" <a@elsewhere.example>", "550 5.7.1"),
        (OUTSIDE, "limited", "a@brand.example, b@elsewhere.example", "550 5.7.1"),
        (OUTSIDE, "limited", "nonsense", "550 5.7.1"),
        (OUTSIDE, "acme", "a@news.acme.example", "250"),
        (OUTSIDE, "acme", "a@elsewhere.example", "550 5.7.1"),
        ("10.2.0.1", "", "a@elsewhere.example", "550 5.7.1"),
    ] {
        let access = access(&policy, &DIRECTORY, &client(from, Mode::Smtp, login)).unwrap();
        let got = verdict(crate::author::check(&DIRECTORY, &access, &[field.to_owned()]));
        assert_eq!(got, wanted, "{from} {login:?} {field}");
    }
    let limited = access(&policy, &DIRECTORY, &client(OUTSIDE, Mode::Smtp, "limited")).unwrap();
    let good = "a@brand.example".to_owned();
    assert_eq!(verdict(crate::author::check(&DIRECTORY, &limited, &[])), "550 5.7.1");
    assert_eq!(verdict(crate::author::check(&DIRECTORY, &limited, &[good.clone(), good])), "550 5.7.1");
}

#[test]
fn the_refusal_after_a_right_password_in_the_wrong_place_says_so() {
    let credential = DIRECTORY.credential("home").unwrap();
    assert_eq!(login(credential, HOME.parse().unwrap()), Ok(()));
    let reply = login(credential, OUTSIDE.parse().unwrap()).unwrap_err();
    assert_eq!(reply.code, 535);
    assert!(reply.text.contains(OUTSIDE));
}

fn domains() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("local.example".to_owned()),
        Just("sub.local.example".to_owned()),
        Just("acme.example".to_owned()),
        "[a-z]{1,6}\\.(example|local\\.example|com)",
    ]
}

fn recipients() -> impl Strategy<Value = String> {
    let local = prop_oneof!["[a-zA-Z%!.+=/_-]{1,10}", "\"[a-z@:%! ]{1,10}\"", Just("postmaster".to_owned())];
    (local, domains()).prop_map(|(local, domain)| format!("{local}@{domain}"))
}

proptest! {
    /// Whatever the policy, the listener, the sender and the recipient: a client that has not logged in and is in no
    /// relay network reaches nothing but local domains, and nothing at all on a submission listener.
    #[test]
    fn nobody_relays_who_may_not(
        anywhere in any::<u32>(),
        inside in any::<bool>(),
        networks in proptest::collection::vec((any::<u32>(), 8u8..=32), 0..4),
        local in proptest::collection::hash_set(domains(), 0..3),
        callout in any::<bool>(),
        submission in any::<bool>(),
        to in recipients(),
    ) {
        let Ok(to) = Address::parse(&to) else { return Ok(()) };
        let networks: Vec<Network> = networks.into_iter().map(|(ip, prefix)| Network::new(IpAddr::V4(ip.into()), prefix)).collect();
        let anywhere = IpAddr::V4(anywhere.into());
        let client_ip = networks.first().filter(|_| inside).map_or(anywhere, Network::address);
        let in_network = networks.iter().any(|n| n.contains(client_ip));
        let policy = Policy {
            networks: networks.iter().map(|n| RelayNetwork { network: *n, org: "default".into() }).collect(),
            local_domains: local.iter().map(|d| d.as_str().into()).collect(),
            recipients: if callout { LocalRecipients::Callout } else { LocalRecipients::Any },
        };
        let mode = if submission { Mode::Submission } else { Mode::Smtp };
        for login in [None, Some("off"), Some("suspended"), Some("no such login")] {
            let client = Client { address: client_ip, mode, login };
            let sent = sender(&policy, &DIRECTORY, &client, Some(&to)).is_ok();
            let taken = recipient(&policy, &DIRECTORY, &client, &to);
            let is_local = local.contains(to.domain());
            let may_relay = login.is_none() && in_network && !submission;
            prop_assert_eq!(sent, login.is_none() && !submission);
            if let Ok(passage) = taken {
                prop_assert!(login.is_none() && !submission);
                prop_assert!(!to.has_embedded_route());
                prop_assert!(is_local || may_relay);
                prop_assert_eq!(passage == Passage::Relay, !is_local);
            } else {
                prop_assert!(!(may_relay || is_local && login.is_none() && !submission) || to.has_embedded_route());
            }
        }
    }
}
