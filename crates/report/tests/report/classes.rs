//! Bounce classes of replies as they were seen, and what never may be of the class that suppresses an address.

use mail::{BounceClass, Disposition, EnhancedStatus, Outcome};
use proptest::prelude::*;
use report::Classifier;

const SEEN: &str = include_str!("replies.tsv");

/// A reply as it stands in a log.
pub(crate) fn outcome(line: &str) -> Outcome {
    let (code, rest) = line.split_once(' ').unwrap();
    let code: u16 = code.parse().unwrap();
    let class = (code / 100) as u8;
    let (first, others) = rest.split_once(' ').unwrap_or((rest, ""));
    let (status, text) = match first.parse::<EnhancedStatus>() {
        Ok(status) => (status, others),
        Err(_) => (EnhancedStatus::new(class, 0, 0), rest),
    };
    let disposition = if class == 5 { Disposition::Refused } else { Disposition::Deferred };
    Outcome { disposition, status, code: Some(code), text: text.to_owned() }
}

#[test]
fn replies_seen_in_the_world() {
    let classifier = Classifier::builtin();
    let mut seen = 0;
    let mut wrong = Vec::new();
    for (number, line) in SEEN.lines().enumerate().filter(|(_, line)| !line.starts_with('#')) {
        let fields: Vec<&str> = line.split('\t').collect();
        let [class, provider, source, reply] = fields[..] else { panic!("line {}: {line}", number + 1) };
        let class: BounceClass = class.parse().unwrap();
        let provider = Some(provider).filter(|p| *p != "-");
        assert!(!source.is_empty(), "line {}", number + 1);
        let (got, rule) = classifier.explain(&outcome(reply), provider);
        if got != class {
            wrong.push(format!("line {}: {reply}\n  is {class}, was taken for {got} by {rule}", number + 1));
        }
        seen += 1;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(seen >= 150, "only {seen} replies");
}

#[test]
fn every_class_is_seen_often() {
    for class in BounceClass::ALL {
        let seen = SEEN.lines().filter(|line| line.starts_with(&format!("{class}\t"))).count();
        assert!(seen >= 7, "{class}: {seen}");
    }
}

#[test]
fn what_we_say_ourselves() {
    let classifier = Classifier::builtin();
    for (status, disposition, class) in [
        // Null MX: the domain takes no mail. A domain that is not there may be back tomorrow, or our resolver may be wrong.
        ("5.1.10", Disposition::Refused, BounceClass::Recipient),
        ("5.1.2", Disposition::Refused, BounceClass::Network),
        ("5.4.4", Disposition::Refused, BounceClass::Network),
        ("4.4.1", Disposition::Deferred, BounceClass::Network),
        ("4.4.2", Disposition::Deferred, BounceClass::Network),
        ("4.4.3", Disposition::Deferred, BounceClass::Network),
        ("4.3.5", Disposition::Deferred, BounceClass::Network),
        ("4.7.5", Disposition::Deferred, BounceClass::Authentication),
        ("5.7.30", Disposition::Refused, BounceClass::Authentication),
        ("5.6.7", Disposition::Refused, BounceClass::Content),
        ("5.3.4", Disposition::Refused, BounceClass::Policy),
        ("4.2.2", Disposition::Deferred, BounceClass::Quota),
    ] {
        // Whatever words stand in it: a peer said none of them.
        let text = "connection to mx.example.net: user unknown, greylisted, spam";
        let own = Outcome::own(disposition, status.parse().unwrap(), text);
        assert_eq!(classifier.classify(&own, None), class, "{status}");
    }
}

/// Words for an address that is not there.
const GONE: &[&str] = &[
    "User unknown",
    "No such user here",
    "Recipient address rejected: User unknown in local recipient table",
    "mailbox does not exist",
    "The email account that you tried to reach does not exist",
    "Invalid recipient",
    "account is disabled",
    "unknown recipient",
    "",
];

/// Words about us, our message or the peer's rules.
const ABOUT_US: &[&str] = &[
    "spam",
    "blocked",
    "blocked using zen.spamhaus.org",
    "policy",
    "message rejected for policy reasons",
    "access denied",
    "your IP has a poor reputation",
    "blacklisted",
    "SPF check failed",
    "DMARC",
    "virus found",
    "not allowed",
    "relaying denied",
    "unsolicited mail",
    "Sender address rejected",
    "mailbox full",
    "over quota",
    "greylisted",
    "too many connections",
    "rate limit exceeded",
    "suspicious",
    "refused",
    "suspended",
    "prohibited",
    "temporarily unavailable",
];

const PROVIDERS: &[&str] = &[
    "gmail",
    "outlook",
    "microsoft365",
    "yahoo",
    "icloud",
    "comcast",
    "gmx",
    "orange",
    "mailru",
    "yandex",
    "qq",
    "viettel",
    "vnpt",
    "fpt",
];

fn provider() -> impl Strategy<Value = Option<&'static str>> {
    proptest::option::of(proptest::sample::select(PROVIDERS))
}

fn any_status(class: u8) -> impl Strategy<Value = EnhancedStatus> {
    prop_oneof![
        (0u16..8, 0u16..40).prop_map(move |(subject, detail)| EnhancedStatus::new(class, subject, detail)),
        Just(EnhancedStatus::new(class, 1, 1)),
        Just(EnhancedStatus::new(class, 7, 1)),
        Just(EnhancedStatus::new(class, 0, 0)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 2000, ..ProptestConfig::default() })]

    /// The one promise: what may be about us never suppresses an address.
    #[test]
    fn words_about_us_never_suppress(
        code in 500u16..=571,
        status in any_status(5),
        gone in proptest::sample::select(GONE),
        about_us in proptest::sample::select(ABOUT_US),
        order in any::<bool>(),
        shout in any::<bool>(),
        provider in provider(),
    ) {
        // A null MX is no opinion; it stands in the DNS.
        prop_assume!(status != EnhancedStatus::new(5, 1, 10));
        let text = if order { format!("{gone}; {about_us}") } else { format!("{about_us}: {gone}") };
        let text = if shout { text.to_uppercase() } else { text };
        let outcome = Outcome { disposition: Disposition::Refused, status, code: Some(code), text };
        let classifier = Classifier::builtin();
        let (class, rule) = classifier.explain(&outcome, provider);
        prop_assert!(!class.suppresses(), "{outcome:?}: {rule}");
    }

    /// 5.7.x is about security or policy, whatever the words; only where a provider is known to say it so.
    #[test]
    fn a_policy_status_never_suppresses(
        detail in 0u16..60,
        gone in proptest::sample::select(GONE),
        provider in provider(),
    ) {
        prop_assume!(provider != Some("yandex"));
        let outcome = Outcome {
            disposition: Disposition::Refused,
            status: EnhancedStatus::new(5, 7, detail),
            code: Some(550),
            text: gone.to_owned(),
        };
        prop_assert!(!Classifier::builtin().classify(&outcome, provider).suppresses());
    }

    /// Who defers is not sure.
    #[test]
    fn a_deferral_never_suppresses(
        code in proptest::option::of(400u16..=499),
        status in any_status(4),
        gone in proptest::sample::select(GONE),
        provider in provider(),
    ) {
        let outcome = Outcome { disposition: Disposition::Deferred, status, code, text: gone.to_owned() };
        prop_assert!(!Classifier::builtin().classify(&outcome, provider).suppresses());
    }

    #[test]
    fn any_text_has_a_class(text in "\\PC{0,300}", code in proptest::option::of(0u16..1000), status in any_status(5)) {
        let outcome = Outcome { disposition: Disposition::Refused, status, code, text };
        Classifier::builtin().classify(&outcome, None);
    }
}

#[test]
fn an_operators_rules_come_first() {
    let classifier = Classifier::builtin()
        .with(
            r#"
            [[rule]]
            name = "partner-gone"
            class = "recipient"
            code = 550
            text = "mailbox blocked for ever"
            [[rule]]
            name = "gmx-no-such-mailbox"
            off = true
            "#,
        )
        .unwrap();
    let gone = outcome("550 5.7.1 Mailbox blocked\nfor ever");
    assert_eq!(Classifier::builtin().classify(&gone, None), BounceClass::Policy);
    assert_eq!(classifier.explain(&gone, None), (BounceClass::Recipient, "partner-gone"));
    let gmx = outcome("550 Requested action not taken: mailbox unavailable");
    assert_eq!(Classifier::builtin().classify(&gmx, Some("gmx")), BounceClass::Recipient);
    assert_eq!(classifier.classify(&gmx, Some("gmx")), BounceClass::Policy);
}

#[test]
fn mistakes_in_an_operators_rules_are_told() {
    for (source, line, message) in [
        ("[[rule]]\nname = \"a\"\nclass = \"recipent\"\ncode = 550", 3, "did you mean `recipient`?"),
        ("[[rule]]\nname = \"a\"\ncode = 550", 1, "needs a `class`"),
        ("[[rule]]\nclass = \"quota\"\ncode = 550", 1, "needs a `name`"),
        ("[[rule]]\nname = \"a\"\nclass = \"quota\"", 1, "would match every reply"),
        ("[[rule]]\nname = \"a\"\nclass = \"quota\"\ncode = 550\nwords = \"x\"", 5, "unknown key"),
        ("[[rule]]\nname = \"qouta\"\noff = true", 1, "did you mean `quota`?"),
        ("[[rul]]\nname = \"a\"", 1, "did you mean `rule`?"),
    ] {
        let error = Classifier::builtin().with(source).unwrap_err();
        let text = error.to_string();
        assert!(error.line == line && text.contains(message), "{source:?}:\n{text}");
    }
}

/// The block of TOML on the page for operators that shows a file of rules.
#[test]
fn the_example_for_operators_works() {
    let page = include_str!("../../../../docs/src/operate/bounces.md");
    let blocks: Vec<&str> =
        page.split("```toml bounces\n").skip(1).map(|rest| rest.split_once("```").unwrap().0).collect();
    assert!(!blocks.is_empty());
    for block in blocks {
        let classifier = Classifier::builtin().with(block).unwrap_or_else(|error| panic!("{block}\n{error}"));
        let gone = outcome("550 5.7.1 mailbox retired");
        assert_eq!(classifier.classify(&gone, None), BounceClass::Recipient);
    }
}
