//! Aliases, rewriting and SRS, end to end.

use posthouse_tests::client::send_one;
use posthouse_tests::prelude::*;
use posthouse_tests::sink::{self, Options};

/// Refuses `gone@`, takes all else.
fn picky() -> Sink {
    Sink::with(Options::default().script(|stage| match stage {
        Stage::Rcpt(r) if r.contains("gone@") => sink::reply("550 5.1.1 No such user"),
        _ => Act::Usual,
    }))
}

fn relay(sink: &Sink, rules: &str) -> Relay {
    Relay::builder()
        .networks(&[])
        .local(&["local.example", "old.example"], "any")
        .route(&[], &sink.url())
        .toml(rules)
        .start()
}

/// What `to` became: who got the letter, sorted.
fn became(relay: &Relay, sink: &Sink, to: &str) -> Vec<String> {
    let before: usize = sink.messages().iter().map(|m| m.rcpts.len()).sum();
    let letter = Letter::new(format!("alias-{before}"), 800);
    send_one(relay.smtp(), "me@far.example", &[to], &letter.bytes).expect(250);
    relay.wait_empty(Duration::from_secs(20));
    let mut found: Vec<String> = Vec::new();
    for message in sink.messages() {
        if Letter::from_arrived(&message.data).id == letter.id {
            letter.assert_arrived(&message.data);
            found.extend(message.recipients().into_iter().map(str::to_owned));
        }
    }
    found.sort();
    found
}

const RULES: &str = "\
    [[alias]]\nfrom = \"sales@local.example\"\nto = [\"ann@x.example\", \"bob@y.example\"]\n\
    [[alias]]\nfrom = \"ann@local.example\"\nto = [\"ann@local.example\", \"archive@local.example\"]\n\
    [[alias]]\nfrom = \"archive@local.example\"\nto = [\"archive@local.example\"]\n\
    [[alias]]\nfrom = \"round@local.example\"\nto = [\"robin@local.example\"]\n\
    [[alias]]\nfrom = \"robin@local.example\"\nto = [\"round@local.example\"]\n\
    [[alias]]\nfrom = \"@local.example\"\nto = [\"office@x.example\"]\n\
    [[rewrite]]\npattern = '^(.+)@old\\.example$'\nreplace = \"$1.moved@x.example\"\nof = [\"recipient\"]\n";

#[test]
fn aliases_catch_alls_and_patterns_lead_to_their_addresses() {
    let sink = Sink::start();
    let relay = relay(&sink, RULES);
    assert_eq!(became(&relay, &sink, "Sales@local.example"), ["ann@x.example", "bob@y.example"]);
    assert_eq!(became(&relay, &sink, "ann@local.example"), ["ann@local.example", "archive@local.example"]);
    assert_eq!(became(&relay, &sink, "anyone@local.example"), ["office@x.example"]);
    assert_eq!(became(&relay, &sink, "carol@old.example"), ["carol.moved@x.example"]);
    // Found by the address that was written and by the one that it became.
    for query in ["sales@local.example", "bob@y.example"] {
        let trace = relay.cli(&["trace", query]);
        assert!(
            trace.contains("bob@y.example")
                && trace.contains("sales@local.example") | trace.contains("Sales@local.example"),
            "{trace}"
        );
    }
    let mut smtp = Smtp::connect(relay.smtp());
    smtp.ehlo();
    smtp.cmd("MAIL FROM:<me@far.example>").expect(250);
    let refused = smtp.cmd("RCPT TO:<round@local.example>");
    assert!(refused.code == 550 && refused.mentions("5.4.6"), "{refused}");
    assert!(!refused.to_string().contains("robin"), "what is behind it is nobody's business: {refused}");
    smtp.cmd("RCPT TO:<me@far.example>").expect(550);
}

#[test]
fn aliases_come_and_go_at_run_time_and_survive() {
    let sink = Sink::start();
    let mut relay = relay(&sink, "");
    assert_eq!(became(&relay, &sink, "info@local.example"), ["info@local.example"]);
    relay.cli(&["alias", "add", "info@local.example", "--to", "ann@x.example", "--to", "bob@y.example"]);
    assert_eq!(became(&relay, &sink, "info@local.example"), ["ann@x.example", "bob@y.example"]);
    relay.restart();
    assert_eq!(became(&relay, &sink, "info@local.example"), ["ann@x.example", "bob@y.example"]);
    let listed = relay.cli(&["alias", "list"]);
    assert!(listed.contains("info@local.example") && listed.contains("bob@y.example"), "{listed}");
    relay.cli(&["alias", "remove", "info@local.example"]);
    assert_eq!(became(&relay, &sink, "info@local.example"), ["info@local.example"]);
}

#[test]
fn an_organisation_has_its_own() {
    let sink = Sink::start();
    let relay = Relay::builder().route(&[], &sink.url()).start();
    relay.cli(&["org", "add", "acme", "--trusted"]);
    let password = relay.credential("acme-login", &["--org", "acme"]);
    relay.cli(&["alias", "add", "boss@d.example", "--to", "global@x.example"]);
    relay.cli(&["alias", "add", "boss@d.example", "--to", "acme@x.example", "--org", "acme"]);
    for (login, expected) in [(None, "global@x.example"), (Some(&password), "acme@x.example")] {
        let before = sink.count();
        let port = if login.is_some() { relay.submission() } else { relay.smtp() };
        let mut smtp = Smtp::connect(port);
        smtp.ehlo();
        if let Some(password) = login {
            smtp.auth_plain("acme-login", password).expect(235);
        }
        smtp.transact("me@client.example", &["boss@d.example"], &Letter::new(expected, 500).bytes)
            .expect(250);
        let all = sink.wait(before + 1, Duration::from_secs(20));
        assert_eq!(all[before].recipients(), [expected]);
    }
}

#[test]
fn a_failure_behind_an_alias_is_reported_in_the_senders_own_terms() {
    let sink = picky();
    let rule = "[[alias]]\nfrom = \"team@local.example\"\nto = [\"gone@x.example\", \"ann@x.example\"]\n";
    let relay = relay(&sink, rule);
    let letter = Letter::new("behind", 600);
    send_one(relay.smtp(), "me@far.example", &["team@local.example"], &letter.bytes).expect(250);
    let all = sink.wait_until("the mail and the report", Duration::from_secs(20), |m| m.len() >= 2);
    let report = all.iter().find(|m| m.sender().is_empty()).unwrap();
    assert_eq!(report.recipients(), ["me@far.example"]);
    let text = report.text().replace("rfc822; ", "rfc822;");
    assert!(text.contains("Original-Recipient: rfc822;team@local.example"), "{text}");
    assert!(text.contains("Final-Recipient: rfc822;gone@x.example"), "{text}");
    assert!(
        text.contains("Status: 5.1.1") && !text.contains("Final-Recipient: rfc822;ann@x.example"),
        "{text}"
    );
}

#[test]
fn success_is_asked_of_one_behind_an_alias_and_of_several_answered_here() {
    let sink = Sink::start();
    let rule = "[[alias]]\nfrom = \"one@local.example\"\nto = [\"ann@x.example\"]\n\
                [[alias]]\nfrom = \"all@local.example\"\nto = [\"bob@x.example\", \"cy@x.example\"]\n";
    let relay = relay(&sink, rule);
    for (to, n) in [("one@local.example", 1), ("all@local.example", 4)] {
        let mut smtp = Smtp::connect(relay.smtp());
        smtp.ehlo();
        smtp.cmd("MAIL FROM:<me@far.example> ENVID=e1").expect(250);
        smtp.cmd(&format!("RCPT TO:<{to}> NOTIFY=SUCCESS,FAILURE")).expect(250);
        smtp.data(&Letter::new(to, 500).bytes).expect(250);
        sink.wait_until("all of it", Duration::from_secs(20), |m| {
            m.iter().map(|x| x.rcpts.len()).sum::<usize>() >= n
        });
    }
    let all = sink.messages();
    let rcpts: Vec<&String> = all.iter().flat_map(|m| &m.rcpts).collect();
    let of = |name: &str| rcpts.iter().find(|r| r.contains(name)).unwrap().as_str();
    assert!(of("ann@").contains("NOTIFY=SUCCESS,FAILURE"), "{rcpts:?}");
    assert!(of("ann@").contains("ORCPT=rfc822;one@local.example"), "{rcpts:?}");
    assert!(of("bob@").contains("NOTIFY=FAILURE") && !of("bob@").contains("SUCCESS"), "{rcpts:?}");
    let report = all.iter().find(|m| m.sender().is_empty()).expect("a report for the alias");
    let text = report.text();
    assert!(text.contains("Action: expanded") && text.contains("all@local.example"), "{text}");
}

#[test]
fn forwarded_mail_goes_on_with_a_sender_of_ours_and_its_bounce_goes_back() {
    use posthouse_tests::needs;
    use posthouse_tests::neighbours::dns::Dns;
    use posthouse_tests::neighbours::namespace::own_network;
    needs!("root", "knotd", "ip");
    // Two hosts of strangers: one is forwarded to, the other is where the mail came from.
    let hosts = ["185.199.108.1", "185.199.108.2"];
    own_network(&hosts.map(|a| a.parse().unwrap()));
    let dns = Dns::serve(&[
        ("x.example", "@ MX 10 a\na A 185.199.108.1\n"),
        ("far.example", "@ MX 10 b\nb A 185.199.108.2\n"),
    ]);
    let [there, back] = hosts.map(|a| Sink::on(format!("{a}:25").parse().unwrap(), Options::default()));
    let own = Sink::start();
    let relay = Relay::builder()
        .networks(&[])
        .local(&["local.example", "srs.local.example"], "any")
        .route(&["local.example"], &own.url())
        .set("dns", "servers", &format!("[\"{}\"]", dns.addr()))
        .toml("[forward]\nsrs_domain = \"srs.local.example\"\n")
        .toml("[[alias]]\nfrom = \"team@local.example\"\nto = [\"ann@x.example\"]\n")
        .toml("[[alias]]\nfrom = \"desk@local.example\"\nto = [\"bob@local.example\"]\n")
        .start();
    let letter = Letter::odd("forwarded");
    send_one(relay.smtp(), "Al@far.example", &["team@local.example"], &letter.bytes).expect(250);
    let got = there.wait_one();
    letter.assert_arrived(&got.data);
    let sender = got.sender().to_owned();
    assert!(sender.starts_with("SRS0=") && sender.ends_with("=far.example=Al@srs.local.example"), "{sender}");

    // Its bounce, in lower case as some systems make of it, goes to whom the mail came from.
    send_one(relay.smtp(), "", &[&sender.to_lowercase()], &Letter::new("bounce", 600).bytes).expect(250);
    let bounced = back.wait_one();
    assert_eq!((bounced.sender(), bounced.recipients()), ("", vec!["al@far.example"]));

    // Forged ones reach nobody.
    let mut smtp = Smtp::connect(relay.smtp());
    smtp.ehlo();
    smtp.cmd("MAIL FROM:<>").expect(250);
    let forged = sender.replace("=Al@", "=victim@");
    smtp.cmd(&format!("RCPT TO:<{forged}>")).expect(550);
    smtp.cmd(&format!("RCPT TO:<{}>", sender.replace("far.example", "x.example"))).expect(550);

    // What stays here keeps its sender.
    send_one(relay.smtp(), "al@far.example", &["desk@local.example"], &Letter::new("stays", 500).bytes)
        .expect(250);
    let stayed = own.wait_one();
    assert_eq!((stayed.sender(), stayed.recipients()), ("al@far.example", vec!["bob@local.example"]));
    assert_eq!(back.count(), 1);
}

#[test]
fn limits_are_kept_and_a_bad_rule_takes_no_other_with_it() {
    let sink = Sink::start();
    let relay = relay(&sink, "[forward]\nalias_depth = 2\nalias_recipients = 3\n");
    for n in 0..3 {
        let (from, to) = (format!("a{n}@local.example"), format!("a{}@local.example", n + 1));
        relay.cli(&["alias", "add", &from, "--to", &to]);
    }
    let many: Vec<String> = (0..4).map(|n| format!("m{n}@x.example")).collect();
    let mut add = vec!["alias", "add", "many@local.example"];
    many.iter().for_each(|to| add.extend(["--to", to]));
    relay.cli(&add);
    let mut smtp = Smtp::connect(relay.smtp());
    smtp.ehlo();
    smtp.cmd("MAIL FROM:<me@far.example>").expect(250);
    smtp.cmd("RCPT TO:<a1@local.example>").expect(250);
    let deep = smtp.cmd("RCPT TO:<a0@local.example>").expect(550);
    assert!(deep.mentions("5.4.6"), "{deep}");
    let many = smtp.cmd("RCPT TO:<many@local.example>").expect(550);
    assert!(many.mentions("5.3.5"), "{many}");

    let (status, words) = relay.try_cli(&["rewrite", "add", "^(.+)@old.example$", "$2@new.example"]);
    assert!(!status.success() && words.contains("group"), "{words}");
    relay.cli(&["alias", "add", "round@local.example", "--to", "round2@local.example"]);
    relay.cli(&["alias", "add", "round2@local.example", "--to", "round@local.example"]);
    let (_, found) = relay.try_cli(&["check", "--offline"]);
    assert!(found.contains("round@local.example → round2@local.example → round@local.example"), "{found}");
    assert_eq!(became(&relay, &sink, "b@local.example"), ["b@local.example"]);
}
