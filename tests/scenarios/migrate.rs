//! `posthouse migrate`: from files to PostgreSQL and back, killed again and again on the way. What waits, what was, who may
//! do what: all of it is there afterwards, and a relay works with nothing that is half there or has gone.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use mail::Clock;
use posthouse_tests::client::send_one;
use posthouse_tests::engine::SETTINGS;
use posthouse_tests::fill::{Fill, To};
use posthouse_tests::needs;
use posthouse_tests::neighbours::postgres::Postgres;
use posthouse_tests::prelude::*;
use posthouse_tests::relay::binary;
use posthouse_tests::sink::{self, Options};
use serde_json::Value;

/// Messages that wait from the start.
const WAITING: u64 = 1500;
/// Where the command is killed: behind which line that it prints, and how long behind it, in milliseconds.
const KILLS: [(&str, u64); 6] =
    [("queue:", 0), ("queue:", 120), ("queue:", 300), ("history", 0), ("comparing", 0), ("comparing", 150)];

/// A relay with files that knows where PostgreSQL is. Nothing goes a second time by itself.
fn relay(url: &str, sink: &Sink) -> Relay {
    Relay::builder()
        .set("store", "url", &format!("\"{url}?sslmode=disable\""))
        .set("store", "durability", "\"provider\"")
        .set("cluster", "node", "\"relay\"")
        .set("queue", "retry", "[\"1h\"]")
        .route(&[], &sink.url())
        .prepare()
}

/// Who sends.
const ME: &str = "me@client.example";

/// Turns down what a test says.
fn fussy() -> Sink {
    Sink::with(Options::default().script(|stage| match stage {
        Stage::Rcpt(r) if r.contains("later.example") => sink::reply("451 4.2.1 come back later"),
        Stage::Rcpt(r) if r.contains("never.example") => sink::reply("550 5.1.1 no such user"),
        _ => Act::Usual,
    }))
}

fn set_engine(relay: &Relay, engine: &str) {
    relay.reconfigure(|text| {
        let kept: Vec<&str> = text.lines().filter(|line| !line.starts_with("engine =")).collect();
        kept.join("\n").replace("[store]", &format!("[store]\nengine = \"{engine}\""))
    });
}

/// The command at work.
fn begin(relay: &Relay, to: &str) -> Daemon {
    let mut command = Command::new(binary());
    command.args(["migrate", "--to", to, "--config"]).arg(relay.config()).stdin(Stdio::null());
    Daemon::start("migrate", command)
}

/// Lets it run to its end, after it was killed on the way; what it compared in the end.
#[track_caller]
fn migrate(relay: &Relay, to: &str) -> Value {
    let mut killed = 0;
    for (line, behind) in KILLS {
        let mut run = begin(relay, to);
        // The one before may have come to its end before it was killed; then this one has nothing to say.
        let said = eventually("it is there, or has ended", Duration::from_secs(60), || {
            let said = run.output().lines().any(|said| said.starts_with(line));
            (said || run.exited().is_some()).then_some(said)
        });
        if !said {
            break;
        }
        std::thread::sleep(Duration::from_millis(behind));
        run.kill9();
        if run.exited().is_some_and(|status| status.signal().is_some()) {
            killed += 1;
            let (status, said) = relay.try_cli(&["queue", "list", "--limit", "1"]);
            let goes_on = status.success() || said.contains("migrat");
            assert!(goes_on, "{said}");
        }
    }
    assert!(killed >= 3, "it was killed {killed} times only");
    // The last one may have come to its end before it was killed.
    let (status, said) = relay.try_cli(&["migrate", "--to", to]);
    assert!(status.success() || said.contains("has been migrated already"), "{said}");
    relay.json(&["migrate", "--to", to, "--verify"])
}

/// How many there are of something on the two sides.
fn count(report: &Value, what: &str) -> (u64, u64) {
    let parts = report["parts"].as_array().unwrap();
    let part = parts.iter().find(|part| part["what"].as_str().unwrap().starts_with(what));
    let part = part.unwrap_or_else(|| panic!("{what}: not compared: {report}"));
    assert_eq!(part["source"], part["target"], "{what}");
    (part["source"]["count"].as_u64().unwrap(), part["target"]["count"].as_u64().unwrap())
}

/// Everything that an operator sees of a relay that does not run.
fn look(relay: &Relay) -> Vec<Value> {
    let mut all: Vec<Value> = [
        &["queue", "list", "--limit", "0"][..],
        &["credential", "list"],
        &["key", "list"],
        &["route", "list"],
        &["suppression", "list"],
        &["alias", "list"],
        &["audit", "list"],
        &["trace", "ann@dest.example"],
        &["trace", "sue@never.example"],
        &["trace", "ida@later.example"],
    ]
    .iter()
    .map(|args| relay.json(args))
    .collect();
    // Whoever looks says where from, and that differs.
    all.iter_mut().for_each(without_node);
    all
}

fn without_node(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.remove("node");
            map.values_mut().for_each(without_node);
        }
        Value::Array(items) => items.iter_mut().for_each(without_node),
        _ => {}
    }
}

fn assert_same(before: &[Value], after: &[Value]) {
    for (before, after) in before.iter().zip(after) {
        let (b, a) = (before.to_string(), after.to_string());
        let at = b.bytes().zip(a.bytes()).take_while(|(b, a)| b == a).count();
        let around = |text: &str| text.chars().skip(at.saturating_sub(200)).take(400).collect::<String>();
        assert!(b == a, "it was\n…{}\nand is\n…{}", around(&b), around(&a));
    }
}

/// Something of everything that a relay keeps: what came to an end, what waits, what is held, and the directory. Returns a
/// password, and the letters that must have arrived in the end.
fn live(relay: &mut Relay, sink: &Sink) -> (String, [Letter; 2]) {
    relay.start();
    let password = relay.credential("office", &[]);
    relay.cli(&["key", "add", "shop"]);
    relay.cli(&["route", "add", "--domain", "elsewhere.example", "--to", "discard"]);
    relay.cli(&["suppression", "add", "gone@dest.example"]);
    relay.cli(&["alias", "add", "team@dest.example", "--to", "one@dest.example", "--to", "two@dest.example"]);
    let (small, large) = (Letter::new("small", 900), Letter::new("large", 3_000_000));
    send_one(relay.smtp(), ME, &["ann@dest.example"], &small.bytes).expect(250);
    send_one(relay.smtp(), ME, &["sue@never.example"], &Letter::new("refused", 700).bytes).expect(250);
    send_one(relay.smtp(), ME, &["ida@later.example", "tom@later.example"], &large.bytes).expect(250);
    send_one(relay.smtp(), ME, &["eve@later.example"], &Letter::new("held", 800).bytes).expect(250);
    // The letter to ann, and the report to me.
    sink.wait(2, Duration::from_secs(20));
    eventually("the deliveries are deferred", Duration::from_secs(20), || {
        let list = relay.cli(&["queue", "list", "--to", "*@later.example"]);
        (list.matches("come back later").count() >= 2).then_some(())
    });
    relay.cli(&["queue", "hold", "--to", "eve@later.example", "--why", "a look first"]);
    assert!(relay.stop().success());
    (password, [small, large])
}

/// Judges what arrived in the end.
fn judge(sink: &Sink, letters: [&Letter; 3], filled: usize) {
    let all = sink.messages();
    for letter in letters {
        let found: Vec<&Received> = all.iter().filter(|m| m.text().contains(&letter.id)).collect();
        assert!(!found.is_empty(), "{} has not arrived", letter.id);
        found.iter().for_each(|m| letter.assert_arrived(&m.data));
    }
    let of_fill = all.iter().filter(|m| m.recipients().iter().any(|to| to.ends_with("fill.example"))).count();
    assert_eq!(of_fill, filled, "each of those that waited all the way, once");
}

#[test]
fn everything_arrives_on_the_other_side_and_comes_back_however_often_it_is_killed() {
    needs!("postgres", "setpriv");
    let server = Postgres::start(SETTINGS);
    let (database, url) = server.database();
    let sink = fussy();
    let mut relay = relay(&url, &sink);
    let due = Clock::system().now().plus(Duration::from_secs(86_400));
    Fill { messages: WAITING, size: 6_000, to: To::Hosts(vec![sink.addr()]), due }.run(relay.data());
    let (password, [small, large]) = live(&mut relay, &sink);

    let before = look(&relay);
    assert!(
        before.iter().all(|listing| listing.to_string().len() > 50),
        "there is something of everything: {before:?}"
    );
    let report = migrate(&relay, "postgres");
    assert_eq!(count(&report, "messages").0, WAITING + 2);
    assert_eq!(count(&report, "recipients").0, WAITING + 3);
    assert_eq!(count(&report, "directory: credential").0, 1);
    assert_eq!(count(&report, "keys of return paths").0, 1);
    assert!(count(&report, "history").0 >= 3);
    // What has gone is not worked with any more.
    let (status, said) = relay.try_cli(&["serve"]);
    assert!(!status.success() && said.contains("PostgreSQL"), "{said}");
    set_engine(&relay, "postgres");
    assert_same(&before, &look(&relay));

    relay.start();
    let mut smtp = Smtp::connect(relay.submission());
    smtp.ehlo();
    smtp.auth_plain("office", &password).expect(235);
    let more = Letter::new("more", 2_000);
    send_one(relay.smtp(), ME, &["ida@later.example"], &more.bytes).expect(250);
    eventually("the new letter is deferred", Duration::from_secs(20), || {
        (relay.cli(&["queue", "list", "--to", "ida@later.example"]).matches("come back later").count() >= 2)
            .then_some(())
    });
    // It ends as badly as can be.
    relay.kill9();
    let before = look(&relay);
    let report = migrate(&relay, "embedded");
    assert_eq!(count(&report, "messages").0, WAITING + 3);
    let (status, said) = relay.try_cli(&["serve"]);
    assert!(!status.success() && said.contains("data directory"), "{said}");
    set_engine(&relay, "embedded");
    assert_same(&before, &look(&relay));

    relay.start();
    sink.rescript(|_| Act::Usual);
    relay.cli(&["queue", "release", "--all"]);
    relay.cli(&["queue", "retry", "--all"]);
    relay.wait_empty(Duration::from_secs(120));
    judge(&sink, [&small, &large, &more], usize::try_from(WAITING).unwrap());
    let trace = relay.cli(&["trace", "ida@later.example"]);
    assert!(trace.matches("elivered").count() >= 2, "{trace}");
    assert!(relay.stop().success());

    // Once more: what was there before is set aside, not deleted.
    relay.cli(&["migrate", "--to", "postgres"]);
    let schemas =
        server.sql(&database, "SELECT nspname FROM pg_namespace WHERE nspname LIKE '%moved%' ORDER BY 1");
    assert_eq!(schemas.lines().count(), 3, "{schemas}");
}

#[test]
fn a_running_relay_a_full_target_and_a_source_that_went_on_are_noticed() {
    needs!("postgres", "setpriv");
    let server = Postgres::start(SETTINGS);
    let (_, url) = server.database();
    let sink = fussy();
    let mut relay = relay(&url, &sink);
    let due = Clock::system().now().plus(Duration::from_secs(86_400));
    Fill { messages: WAITING, size: 3_000, to: To::Hosts(vec![sink.addr()]), due }.run(relay.data());
    relay.start();
    let (status, said) = relay.try_cli(&["migrate", "--to", "postgres"]);
    assert!(!status.success() && said.contains("stop it first"), "{said}");
    assert!(relay.stop().success());

    // Interrupted, and then thought better of: the relay goes on with its files.
    let mut run = begin(&relay, "postgres");
    run.wait_line("queue:", Duration::from_secs(60), 0, |said| said.starts_with("queue:").then_some(()));
    std::thread::sleep(Duration::from_millis(100));
    run.kill9();
    set_engine(&relay, "postgres");
    let (status, said) = relay.try_cli(&["queue", "list"]);
    assert!(!status.success() && said.contains("not finished"), "{said}");
    set_engine(&relay, "embedded");
    relay.start();
    let late = Letter::new("late", 600);
    send_one(relay.smtp(), "me@client.example", &["ida@later.example"], &late.bytes).expect(250);
    assert!(relay.stop().success());
    let report = relay.json(&["migrate", "--to", "postgres"]);
    assert_eq!(count(&report, "messages").0, WAITING + 1);

    // Nothing is mixed with what another relay has.
    let mut other = self::relay(&url, &sink);
    other.start();
    other.credential("office", &[]);
    assert!(other.stop().success());
    let (status, said) = other.try_cli(&["migrate", "--to", "postgres"]);
    assert!(!status.success() && said.contains("data of its own"), "{said}");
    // Nor is anything carried away while a node works with it.
    set_engine(&relay, "postgres");
    relay.start();
    let (status, said) = other.try_cli(&["migrate", "--to", "embedded"]);
    assert!(!status.success() && said.contains("is running"), "{said}");
}
