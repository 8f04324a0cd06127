//! The data that are built in, replies as they were seen in the world, and operators' files.

use std::time::Duration;

use mail::{Disposition, EnhancedStatus};

use super::*;
use crate::signal::{Advice, Signal};

/// A reply as it stands in a log: `421 4.7.0 [TSS04] …`.
fn outcome(line: &str) -> Outcome {
    let (code, rest) = line.split_once(' ').unwrap();
    let code: u16 = code.parse().unwrap();
    let (first, others) = rest.split_once(' ').unwrap_or((rest, ""));
    let class = (code / 100) as u8;
    let (status, text) = match first.parse::<EnhancedStatus>() {
        Ok(status) => (status, others),
        Err(_) => (EnhancedStatus::new(class, 0, 0), rest),
    };
    let disposition = if class == 5 { Disposition::Refused } else { Disposition::Deferred };
    Outcome { disposition, status, code: Some(code), text: text.to_owned() }
}

fn site(provider: &str) -> Site {
    match provider {
        "" => Site::of_hosts(["mx.example.net"]),
        name => Site::Provider(name.into()),
    }
}

/// What is done about a reply, in short: `slow, suspend 1800, retry 300, keep, bounce, full 13`.
fn done(providers: &Providers, provider: &str, line: &str) -> String {
    let judgement = providers.judge(&site(provider), &outcome(line));
    let actions = judgement.actions.iter().map(|action| match action {
        Signal::Slow => "slow".to_owned(),
        Signal::Suspend { path_for, reason } => {
            assert!(!reason.is_empty() && reason.chars().count() <= 201, "{reason}");
            format!("suspend {}", path_for.as_secs())
        }
        Signal::Full { connections } => format!("full {connections}"),
    });
    let advice = judgement.advice.map(|advice| match advice {
        Advice::RetryAfter(wait) => format!("retry {}", wait.as_secs()),
        Advice::Bounce => "bounce".to_owned(),
        Advice::KeepTrying => "keep".to_owned(),
    });
    actions.chain(advice).collect::<Vec<_>>().join(", ")
}

/// (provider, the reply as it was seen, what is done). Sources are those of the rules in providers.toml.
const SEEN: &[(&str, &str, &str)] = &[
    // Gmail
    (
        "gmail",
        "421 4.7.28 [203.0.113.42] Our system has detected an unusual rate of\nunsolicited mail originating from your IP \
         address. To protect our\nusers from spam, mail sent from your IP address has been temporarily\nrate limited.",
        "slow, suspend 1800",
    ),
    (
        "gmail",
        "421 4.7.28 Gmail has detected an unusual rate of mail originating from your DKIM domain [example.org 35]. To \
         protect our users from spam, mail has been temporarily rate limited.",
        "retry 3600",
    ),
    (
        "gmail",
        "550 5.7.28 There is an unusual rate of unsolicited mail originating from your IP address. To protect our \
         users from spam, mail sent from your IP address has been blocked.",
        "slow, suspend 7200",
    ),
    (
        "gmail",
        "450 4.2.1 The user you are trying to contact is receiving mail at a rate that prevents additional messages \
         from being delivered.",
        "retry 3600",
    ),
    (
        "gmail",
        "421 4.7.0 This message is suspicious due to the very low reputation of the sending IP address. To protect \
         our users from spam, mail sent from your IP address has been temporarily rate limited.",
        "slow, suspend 3600",
    ),
    (
        "gmail",
        "421 4.7.26 This mail has been rate limited because it is unauthenticated. Gmail requires all senders to \
         authenticate with either SPF or DKIM.",
        "retry 3600",
    ),
    ("gmail", "421 4.4.5 Server busy, try again later.", "slow"),
    ("gmail", "421 4.7.0 Connection expired, try reconnecting.", ""),
    ("gmail", "550 5.1.1 The email account that you tried to reach does not exist.", ""),
    // Microsoft
    (
        "outlook",
        "451 4.7.650 The mail server [192.0.2.5] has been temporarily rate limited due to IP reputation. For e-mail \
         delivery information, see https://postmaster.live.com (S775)",
        "slow, suspend 1800",
    ),
    (
        "outlook",
        "421 RP-001 (SNT0-MC2-F19) Unfortunately, some messages from 50.57.111.177 weren't sent. Please try again. We \
         have limits for how many messages can be sent per hour and per day.",
        "slow, suspend 1800",
    ),
    (
        "outlook",
        "550 5.7.1 Unfortunately, messages from [204.11.58.44] weren't sent. Please contact your Internet service \
         provider since part of their network is on our block list (S3150).",
        "slow, suspend 3600",
    ),
    (
        "outlook",
        "421 4.3.2 The mail server [192.0.2.5] has exceeded the maximum number of connections. (S3114)",
        "full 0",
    ),
    (
        "outlook",
        "451 4.7.500 Server busy. Please try again later from [192.0.2.5]. (S77714)",
        "slow, suspend 300",
    ),
    (
        "microsoft365",
        "550 5.7.606 Access denied, banned sending IP [185.234.72.45]. To request removal from this list please visit \
         https://sender.office.com/ and follow the directions.",
        "slow, suspend 3600",
    ),
    ("microsoft365", "451 4.7.550 Access denied, please try again later [S450]", "slow, suspend 900"),
    ("microsoft365", "432 4.3.2 STOREDRV.Deliver; recipient thread limit exceeded", "retry 900"),
    (
        "microsoft365",
        "550 5.4.1 Recipient address rejected: Access denied. AS(201806281) [x.eop-eur04.prod.protection.outlook.com]",
        "",
    ),
    // Yahoo
    (
        "yahoo",
        "421 4.7.0 [TSS04] Messages from 162.241.243.209 temporarily deferred due to user complaints - 4.16.55.1; see \
         https://help.yahoo.com/kb/postmaster/SLN3434.html",
        "slow, suspend 3600",
    ),
    (
        "yahoo",
        "421 4.7.0 [TS01] Messages from 50.57.111.177 temporarily deferred due to user complaints - 4.16.55.1",
        "slow, suspend 3600",
    ),
    (
        "yahoo",
        "421 4.7.1 [TS03] All messages from 96.127.190.236 will be permanently deferred; Retrying will NOT succeed.",
        "slow, suspend 14400, bounce",
    ),
    (
        "yahoo",
        "553 5.7.2 [TSS09] All messages from 192.0.2.25 will be permanently deferred; Retrying will NOT succeed.",
        "slow, suspend 14400",
    ),
    (
        "yahoo",
        "553 5.7.1 [BL21] Connections will not be accepted from 192.0.2.25, because the ip is in Spamhaus's list",
        "slow, suspend 14400",
    ),
    ("yahoo", "421 Max message per connection reached, closing transmission channel", ""),
    ("yahoo", "450 User is receiving mail too quickly", "retry 3600"),
    // Apple, Comcast, GMX, Orange
    (
        "icloud",
        "421 4.7.1 Messages to x@icloud.com deferred due to excessive volume. Try again later",
        "slow, retry 1800",
    ),
    ("icloud", "421 [HCM1] Your mail from 192.0.2.1 was deferred.", "slow, suspend 900"),
    (
        "icloud",
        "550 5.7.1 Mail from IP 192.0.2.1 was rejected due to listing in Spamhaus SBL. For details please see \
         http://www.spamhaus.org/query/bl?ip=192.0.2.1",
        "slow, suspend 3600",
    ),
    (
        "comcast",
        "421 resimta-po-18v.sys.comcast.net 192.185.15.239 Throttled - try again later. Please see \
         http://postmaster.comcast.net/smtp-error-codes.php#RL000002",
        "slow, suspend 900",
    ),
    ("comcast", "421 Too many sessions opened", "full 0"),
    (
        "gmx",
        "421 web.de (mxweb113) Nemesis ESMTP Service not available\nService unavailable\nReject due to policy \
         restrictions\nPlease try again later.",
        "slow, suspend 7200",
    ),
    (
        "gmx",
        "554 gmx.net (mxgmx104) Nemesis ESMTP Service not available\nNo SMTP service\nIP address is block listed.\nFor \
         explanation visit https://postmaster.gmx.net/en/case?c=r0201",
        "slow, suspend 3600",
    ),
    (
        "orange",
        "421 mwinf5c04 ME Trop de connexions, veuillez verifier votre configuration. OFR004_104 [104]",
        "full 0",
    ),
    (
        "orange",
        "421 mwinf5c77 ME Service refuse. Veuillez essayer plus tard. OFR_999 [999]",
        "slow, suspend 3600",
    ),
    (
        "orange",
        "550 mwinf5c04 ME Adresse IP source bloquee pour incident de spam. Client host blocked for spamming issues. \
         OFR006_102 Ref http://csi.cloudmark.com/reset-request/?ip=192.0.2.1 [102]",
        "slow, suspend 7200",
    ),
    // Mail.ru, Yandex, QQ
    (
        "mailru",
        "421 Try again later (185.4.74.152). Please contact abuse@corp.mail.ru.",
        "slow, suspend 1800",
    ),
    ("mailru", "451 Ratelimit exceeded for mailbox x@mail.ru. Try again later.", "retry 3600"),
    (
        "yandex",
        "451 4.7.1 Sorry, the service is currently unavailable. Please come back later. 8ohqT2RI-8ohqQZ6F",
        "slow, retry 1800",
    ),
    (
        "yandex",
        "451 4.5.1 The recipient <x@yandex.ru> has exceeded their message rate limit. Try again later. sbr47PA4",
        "retry 3600",
    ),
    (
        "yandex",
        "554 5.7.1 Service unavailable; Client host [212.47.241.40] blocked using spamsource.yandex.ru; Blocked by \
         spam statistics",
        "slow, suspend 3600",
    ),
    (
        "qq",
        "550 Ip frequency limited. http://service.mail.qq.com/cgi-bin/help?id=20022",
        "slow, suspend 3600, keep",
    ),
    ("qq", "550 Domain frequency limited", "keep"),
    ("qq", "550 Mailbox unavailable or access denied", "keep"),
    ("qq", "550 Mailbox not found. http://service.exmail.qq.com/cgi-bin/help?id=20022", ""),
    // The Vietnamese providers have no rules of their own: what is known of all hosts.
    (
        "viettel",
        "450 4.2.0 <a@b.vn>: Recipient address rejected: Greylisted, see http://postgrey.schweikert.ch/help",
        "retry 300",
    ),
    ("vnpt", "421 4.7.0 mx.vnn.vn Error: too many connections from 192.0.2.1", "full 0"),
    ("fpt", "450 4.7.1 Error: too much mail from 192.0.2.1", "slow, retry 600"),
    // Greylisting, everywhere
    (
        "",
        "450 4.2.0 <a@example.com>: Recipient address rejected: Greylisted, see http://postgrey.schweikert.ch",
        "retry 300",
    ),
    ("", "451 4.7.1 Greylisting in action, please come back in 00:05:00", "retry 300"),
    ("", "451 4.7.1 Greylisting in action, please come back in 00:04:59", "retry 299"),
    ("", "451 4.7.1 greylisting, please try again later", "retry 300"),
    ("", "450 4.7.1 Client host rejected: Greylisted for 60 seconds", "retry 60"),
    ("", "451 4.7.1 Try again later", "retry 300"),
    ("", "451 4.7.1 Service unavailable - try again later", "retry 300"),
    ("", "451 Temporary failure, please try again later.", "retry 1500"),
    ("", "450 4.1.1 Graylisted, please try again in 3 minutes", "retry 180"),
    ("", "550 5.7.1 Greylisted, please try again later", "keep"),
    ("", "451 4.3.0 please try again in 10 minutes", "retry 600"),
    // Rates and connections, everywhere
    ("", "421 4.7.0 mx.example.net Error: too many connections from 192.0.2.1", "full 0"),
    ("", "421 Too many concurrent SMTP connections from this IP address; please try again later.", "full 0"),
    ("", "421 4.3.2 Too many open connections.", "full 0"),
    ("", "421 4.7.0 The maximum is 12 connections, goodbye", "full 13"),
    ("", "450 too many connections from your IP (rate controlled)", "full 0"),
    ("", "452 4.3.2 Connection rate limit exceeded.", "slow, retry 600"),
    (
        "",
        "450 4.7.1 Error: Message delivery request rate limit exceeded: too much mail from 192.0.2.1",
        "slow, retry 600",
    ),
    ("", "421 mtaig-mbe02.mx.aol.com Service unavailable - try again later", "slow"),
    // Nothing to be done
    ("", "451 4.3.0 Error: queue file write error", ""),
    ("", "452 4.2.2 The email account that you tried to reach is over quota.", ""),
    ("", "550 5.1.1 <a@example.com>: Recipient address rejected: User unknown in local recipient table", ""),
    ("", "554 5.7.1 Service unavailable; Client host [192.0.2.1] blocked using zen.spamhaus.org", ""),
];

#[test]
fn replies_seen_in_the_world_are_understood() {
    let providers = Providers::builtin();
    let wrong: Vec<String> = SEEN
        .iter()
        .map(|(provider, line, expected)| (provider, line, expected, done(&providers, provider, line)))
        .filter(|(_, _, expected, done)| **expected != done)
        .map(|(provider, line, expected, done)| {
            format!("{provider}: {line}\n  expected: {expected}\n  done: {done}")
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn hosts_lead_to_providers() {
    let providers = Providers::builtin();
    let of = |hosts: &[&str]| providers.provider_of(hosts).map(|name| name.to_string());
    for (host, provider) in [
        ("gmail-smtp-in.l.google.com.", "gmail"),
        ("ASPMX.L.GOOGLE.COM", "gmail"),
        ("smtp.google.com", "gmail"),
        ("aspmx2.googlemail.com", "gmail"),
        ("outlook-com.olc.protection.outlook.com", "outlook"),
        ("contoso-com.mail.protection.outlook.com", "microsoft365"),
        ("contoso-com.o-v1.mx.microsoft", "microsoft365"),
        ("mta7.am0.yahoodns.net", "yahoo"),
        ("mx-aol.mail.gm0.yahoodns.net", "yahoo"),
        ("mx01.mail.icloud.com", "icloud"),
        ("mx1.comcast.net", "comcast"),
        ("mx00.emig.gmx.net", "gmx"),
        ("mx-ha03.web.de", "gmx"),
        ("mx01.mail.com", "gmx"),
        ("smtp-in.orange.fr", "orange"),
        ("mxs.mail.ru", "mailru"),
        ("mx.yandex.ru", "yandex"),
        ("mx3.qq.com", "qq"),
        ("mxbiz1.qq.com", "qq"),
        ("mx.viettelidc.com.vn", "viettel"),
        ("mx.vnn.vn", "vnpt"),
        ("mx.fpt.vn", "fpt"),
    ] {
        assert_eq!(of(&[host]).as_deref(), Some(provider), "{host}");
    }
    assert_eq!(of(&["alt1.aspmx.l.google.com", "aspmx.l.google.com"]).as_deref(), Some("gmail"));
    // Another's host among them, names that only look alike, and nothing at all.
    for hosts in [
        &["aspmx.l.google.com", "mx.tarpit.example"][..],
        &["mx.tarpit.example", "aspmx.l.google.com"],
        &["aspmx.l.google.com", "mx01.mail.icloud.com"],
        &["google.com"],
        &["aspmx.l.google.com.evil.example"],
        &["notgoogle.com"],
        &[""],
        &[],
    ] {
        assert_eq!(of(hosts), None, "{hosts:?}");
    }
}

#[test]
fn traffic_is_the_providers_and_else_the_default() {
    let providers = Providers::builtin();
    let yahoo = providers.traffic(&site("yahoo"));
    assert_eq!((yahoo.connections, yahoo.messages_per_connection), (Some(10), Some(20)));
    // Of others nothing is said: the configuration's keys count.
    for other in [site(""), site("nobody"), "mx:example.com".parse().unwrap()] {
        assert_eq!(providers.traffic(&other), Traffic::default());
        let slow = providers.with("[default]\nconnections = 3").unwrap();
        assert_eq!(slow.traffic(&other).connections, Some(3));
    }
    let slow = providers.with("[default]\nconnections = 3").unwrap();
    assert_eq!(slow.traffic(&site("yahoo")).connections, Some(10));
    // Hosts that the operator named are the operator's business.
    assert_eq!(providers.traffic(&"smarthost:up".parse().unwrap()), Traffic::default());
}

#[test]
fn every_value_says_where_it_comes_from() {
    let mut replies = 0;
    for view in Providers::builtin().iter() {
        let provider = &view.provider;
        assert!(!provider.operators);
        if &*view.name != "default" {
            assert!(!provider.mx.is_empty() && provider.traffic.connections.is_some(), "{}", view.name);
            assert!(!provider.sources.is_empty() || !provider.note.is_empty(), "{}", view.name);
        }
        for reply in &view.replies {
            assert!(reply.source.len() > 10, "{}", reply.name);
            assert!(!reply.pattern.is_empty() && !reply.action.is_empty());
            replies += 1;
        }
    }
    assert!(replies > 45, "{replies}");
}

#[test]
fn every_rule_is_used_by_a_reply_that_was_seen() {
    let providers = Providers::builtin();
    let mut unused: Vec<String> = providers.rules.iter().map(|rule| rule.name.to_string()).collect();
    for (provider, line, _) in SEEN {
        let reply = ReplyText::of(&outcome(line));
        let key = Some(Arc::from(*provider)).filter(|_| !provider.is_empty());
        if let Some(rule) = providers.asked[&key].iter().find(|rule| rule.pattern.matches(&reply)) {
            unused.retain(|name| **name != *rule.name);
        }
    }
    // Those that stand in a document, of which no log was at hand.
    let documented = [
        "gmail-suspicious",
        "microsoft-messages-on-a-connection",
        "yahoo-deferred-for-hours",
        "comcast-block-list",
        "gmx-too-many-connections",
    ];
    unused.retain(|name| !documented.contains(&name.as_str()));
    assert!(unused.is_empty(), "{unused:?}");
}

#[test]
fn what_no_peer_said_says_nothing() {
    let providers = Providers::builtin();
    let own = Outcome::own(
        Disposition::Deferred,
        EnhancedStatus::new(4, 4, 1),
        "connection refused: too many connections, greylisted",
    );
    assert_eq!(providers.judge(&site(""), &own), Judgement::default());
    let delivered = Outcome { disposition: Disposition::Delivered, ..outcome("421 greylisted") };
    assert_eq!(providers.judge(&site(""), &delivered), Judgement::default());
}

#[test]
fn an_operators_file_is_laid_over() {
    let builtin = Providers::builtin();
    let merged = builtin
        .with(
            r#"
            [default]
            connections = 7
            [provider.gmail]
            connections = 3
            rate = "100/1m"
            [provider.partner]
            title = "A partner"
            mx = ["mx.partner.example", "*.mail.partner.example"]
            connection_rate = "10/1m"
            [[reply]]
            name = "partner-busy"
            providers = ["partner", "gmail"]
            code = 450
            text = "come back tomorrow"
            suspend = "12h"
            [[reply]]
            name = "yahoo-deferred"
            providers = ["yahoo"]
            text = "[TSS04]"
            slow = true
            [[reply]]
            name = "wait-as-told"
            off = true
            "#,
        )
        .unwrap();
    let gmail = merged.traffic(&site("gmail"));
    assert_eq!((gmail.connections, gmail.messages_per_connection), (Some(3), Some(50)));
    assert_eq!(gmail.rate.unwrap().period, Duration::from_secs(60));
    let partner = merged.traffic(&site("partner"));
    assert_eq!((partner.connections, partner.messages_per_connection), (Some(7), None));
    assert_eq!(
        merged.provider_of(&["a.mail.partner.example", "MX.partner.example."]).as_deref(),
        Some("partner")
    );
    assert_eq!(merged.provider_of(&["mx.google.com"]).as_deref(), Some("gmail"));
    for provider in ["partner", "gmail"] {
        assert_eq!(done(&merged, provider, "450 4.3.0 Come back\ntomorrow"), "suspend 43200");
    }
    assert_eq!(done(&merged, "", "450 4.3.0 come back tomorrow"), "");
    assert_eq!(
        done(&merged, "yahoo", "421 4.7.0 [TSS04] Messages from 192.0.2.1 temporarily deferred"),
        "slow"
    );
    assert_eq!(done(&merged, "", "451 4.3.0 please try again in 10 minutes"), "");
    let views: Vec<ProviderView> = merged.iter().collect();
    let view = views.iter().find(|view| &*view.name == "partner").unwrap();
    assert!(view.provider.operators && view.provider.title == "A partner");
    assert_eq!(view.replies[0].action, "suspend this source here for 43200 s");
    assert!(views.iter().find(|view| &*view.name == "gmail").unwrap().provider.sources.len() == 2);
    // What was built in is as it was.
    assert_eq!(done(&builtin, "", "451 4.3.0 please try again in 10 minutes"), "retry 600");
}

#[test]
fn mistakes_in_an_operators_file_are_told() {
    for (source, line, message) in [
        ("[provider.gmail]\nconections = 3", 2, "did you mean `connections`?"),
        ("[default]\nconnections = 0", 2, "from 1 to"),
        ("[provider.gmail]\nrate = \"fast\"", 2, "no rate"),
        ("[provider.new]\nconnections = 3", 1, "needs `mx`"),
        ("[provider.New]\nmx = \"mx.example.net\"", 1, "no name for a provider"),
        ("[provider.new]\nmx = \"example\"", 1, "no mail exchanger"),
        ("[provider.new]\n\nmx = \"*.google.com\"", 3, "claimed by two providers"),
        ("[[reply]]\ntext = \"no name\"", 1, "needs a `name`"),
        ("[[reply]]\nname = \"a\"\nslow = true", 1, "would match every reply"),
        ("[[reply]]\nname = \"a\"\ncode = 421\nretry = \"5m\"\nkeep = true", 1, "only one of"),
        ("\n[[reply]]\nname = \"a\"\ncode = 421\nproviders = [\"gmial\"]", 2, "did you mean `gmail`?"),
        ("[[reply]]\nname = \"a\"\noff = true", 1, "can't be off"),
        (
            "[[reply]]\nname = \"a\"\ncode = 421\n[[reply]]\nname = \"a\"\ncode = 450",
            4,
            "two replies with the name",
        ),
        ("[[reply]]\nname = \"a\"\ncode = 421\nsuspend = 5", 4, "has to be a text"),
        ("[[repyl]]\nname = \"a\"", 1, "did you mean `reply`?"),
    ] {
        let error = Providers::builtin().with(source).unwrap_err();
        let text = error.to_string();
        assert!(error.line == line && text.contains(message), "{source:?}:\n{text}");
    }
}

/// The block of TOML on the page for operators that shows a file of provider data.
#[test]
fn the_example_for_operators_works() {
    let page = include_str!("../../../../docs/src/operate/providers.md");
    let blocks: Vec<&str> =
        page.split("```toml providers\n").skip(1).map(|rest| rest.split_once("```").unwrap().0).collect();
    assert!(!blocks.is_empty());
    for block in blocks {
        Providers::builtin().with(block).unwrap_or_else(|error| panic!("{block}\n{error}"));
    }
}
