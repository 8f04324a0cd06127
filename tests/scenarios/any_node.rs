//! Two nodes on one PostgreSQL: whatever is changed, asked or ordered at one of them holds at the other.

use posthouse_tests::client::send_one;
use posthouse_tests::engine::SETTINGS;
use posthouse_tests::needs;
use posthouse_tests::neighbours::postgres::Postgres;
use posthouse_tests::prelude::*;
use posthouse_tests::relay::Builder;
use posthouse_tests::sink::Options;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};

/// What a change at one node has for reaching the other.
const AT_ONCE: Duration = Duration::from_secs(1);

/// Two nodes that send everything to `to`.
fn two(server: &Postgres, to: &str, change: impl Fn(Builder) -> Builder) -> (Relay, Relay) {
    let node = |name: &str| {
        let builder = Relay::builder().postgres(&server.url()).route(&[], to);
        change(builder.set("cluster", "node", &format!("\"{name}\""))).start()
    };
    (node("first"), node("second"))
}

fn id_of(reply: &Reply) -> String {
    reply.lines[0].rsplit(' ').next().unwrap().to_owned()
}

#[test]
fn a_change_of_the_directory_is_in_force_everywhere_within_a_second() {
    needs!("postgres", "setpriv");
    let server = Postgres::start(SETTINGS);
    let sink = Sink::start();
    let (first, second) = two(&server, &sink.url(), |b| b);
    let login = |relay: &Relay, password: &str| {
        let mut smtp = Smtp::connect(relay.submission());
        smtp.ehlo();
        smtp.auth_plain("office", password).code
    };
    let password = first.credential("office", &[]);
    eventually("the other node knows the password", AT_ONCE, || {
        (login(&second, &password) == 235).then_some(())
    });
    second.cli(&["credential", "remove", "office"]);
    eventually("the first node knows that it is gone", AT_ONCE, || {
        (login(&first, &password) == 535).then_some(())
    });
    // What is suspended here waits there.
    first.cli(&["queue", "suspend", "--org", "default", "--why", "a test"]);
    // It is listed at once, as the list is that of the database; that it is in force there is another matter.
    assert!(second.cli(&["queue", "suspensions"]).contains("a test"));
    std::thread::sleep(AT_ONCE);
    let letter = Letter::new("suspended", 500);
    send_one(second.smtp(), "me@client.example", &["ann@one.example"], &letter.bytes).expect(250);
    std::thread::sleep(AT_ONCE);
    assert_eq!(sink.count(), 0, "it is suspended");
    first.cli(&["queue", "resume", "--org", "default"]);
    letter.assert_arrived(&sink.wait_one().data);
    let audit = second.cli(&["audit", "list"]);
    assert!(audit.contains("credential") && audit.contains("suspension"), "{audit}");
}

#[test]
fn what_one_node_did_is_traced_at_the_other() {
    needs!("postgres", "setpriv");
    let server = Postgres::start(SETTINGS);
    let sink = Sink::start();
    let (first, mut second) = two(&server, &sink.url(), |b| b);
    let letter = Letter::new("traced", 900);
    let reply = send_one(first.smtp(), "me@client.example", &["ann@dest.example"], &letter.bytes).expect(250);
    sink.wait_one();
    let traced = |relay: &Relay| {
        for query in ["ann@dest.example", "me@client.example", &id_of(&reply), "traced@client.example"] {
            eventually("the history tells of it", Duration::from_secs(10), || {
                let (_, trace) = relay.try_cli(&["trace", query]);
                (trace.contains(&id_of(&reply)) && trace.contains("elivered")).then_some(())
            });
        }
    };
    traced(&second);
    // Also while no relay runs there.
    assert!(second.stop().success());
    traced(&second);
}

/// The next hop answers nobody until the gate is open.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }

    fn wait(&self) {
        let mut open = self.0.0.lock().unwrap();
        while !*open {
            open = self.0.1.wait(open).unwrap();
        }
    }
}

/// One connection to the next hop, which holds the first letter; the others wait in the memory of the first node.
fn in_memory(server: &Postgres) -> (Relay, Relay, Sink, Gate) {
    let gate = Gate::default();
    let held = gate.clone();
    let sink = Sink::with(Options::default().script(move |stage| {
        if matches!(stage, Stage::Message(_)) {
            held.wait();
        }
        Act::Usual
    }));
    let shape = format!("[[shape]]\nsites = [\"{}\"]\nconnections = 1\n", sink.url());
    let (first, second) = two(server, &sink.url(), |b| b.toml(&shape));
    for to in ["under-way", "removed", "held", "stays"] {
        let to = format!("{to}@dest.example");
        send_one(first.smtp(), "me@client.example", &[&to], &Letter::new(&to, 500).bytes).expect(250);
        if to.starts_with("under-way") {
            eventually("it is under way", Duration::from_secs(20), || {
                sink.commands().iter().any(|c| c.ends_with(": DATA")).then_some(())
            });
        }
    }
    (first, second, sink, gate)
}

#[test]
fn what_is_removed_or_held_at_one_node_is_forgotten_by_the_one_that_has_it_in_memory() {
    needs!("postgres", "setpriv");
    let server = Postgres::start(SETTINGS);
    let (first, second, sink, gate) = in_memory(&server);
    assert_eq!(second.queue().len(), 4, "both show the whole queue");
    second.cli(&["queue", "remove", "--to", "removed@dest.example"]);
    second.cli(&["queue", "hold", "--to", "held@dest.example"]);
    assert_eq!(first.queue().len(), 3);
    // The first node hears of it within a second, a little more on a busy machine; before that it may not go on.
    std::thread::sleep(2 * AT_ONCE);
    gate.open();
    let came = sink.wait(2, Duration::from_secs(20));
    let to: Vec<&str> = came.iter().flat_map(Received::recipients).collect();
    assert_eq!(to, ["under-way@dest.example", "stays@dest.example"]);
    second.cli(&["queue", "release", "--to", "held@dest.example"]);
    assert_eq!(sink.wait(3, Duration::from_secs(20))[2].recipients(), ["held@dest.example"]);
    first.wait_empty(Duration::from_secs(20));
    assert_eq!(sink.count(), 3, "removed for good");
}

#[test]
fn a_retry_ordered_at_one_node_is_made_by_the_one_that_has_it() {
    needs!("postgres", "setpriv");
    let server = Postgres::start(SETTINGS);
    let port = free_port();
    let (first, second) =
        two(&server, &format!("smtp://127.0.0.1:{port}"), |b| b.set("queue", "retry", "[\"1h\"]"));
    send_one(first.smtp(), "me@client.example", &["ann@dest.example"], &Letter::new("again", 500).bytes)
        .expect(250);
    eventually("it was tried once", Duration::from_secs(20), || {
        first.queue().first().is_some_and(|m| m["attempts"].as_u64() == Some(1)).then_some(())
    });
    let sink = Sink::on(posthouse_tests::wait::loopback(port), Options::default());
    second.cli(&["queue", "retry", "--all"]);
    sink.wait_one();
    second.wait_empty(Duration::from_secs(20));
}

#[test]
fn a_node_that_is_killed_is_replaced_and_its_mail_goes_on() {
    needs!("postgres", "setpriv");
    let server = Postgres::start(SETTINGS);
    let (mut first, second, sink, gate) = in_memory(&server);
    first.kill9();
    gate.open();
    // What was under way came to the end of its content before the kill: once more, by the other node.
    let killed = mail::Clock::system();
    sink.wait_until("the three others", Duration::from_secs(20), |m| m.len() >= 4);
    println!("MEASURED taken over {:.1?} after the kill", killed.mono().0);
    second.wait_empty(Duration::from_secs(20));
    let under_way = sink.messages().iter().filter(|m| m.recipients() == ["under-way@dest.example"]).count();
    assert!((1..=2).contains(&under_way) && sink.count() == 3 + under_way, "{:?}", sink.count());
    first.start();
    send_one(first.smtp(), "me@client.example", &["back@dest.example"], &Letter::new("back", 500).bytes)
        .expect(250);
    sink.wait(4 + under_way, Duration::from_secs(20));
}

#[test]
fn a_node_that_drains_turns_clients_away_and_others_do_its_work() {
    needs!("postgres", "setpriv");
    let server = Postgres::start(SETTINGS);
    let (first, second, sink, gate) = in_memory(&server);
    second.cli(&["cluster", "drain", "first"]);
    eventually("sessions are sent on", Duration::from_secs(10), || {
        let mut smtp = Smtp::connect(first.smtp());
        smtp.ehlo();
        (smtp.cmd("MAIL FROM:<me@client.example>").code == 421).then_some(())
    });
    let curl = |relay: &Relay| {
        let mut curl = std::process::Command::new("curl");
        curl.args(["-sS", "-i", &format!("http://{}/readyz", relay.api())]);
        posthouse_tests::process::run("curl", curl, Duration::from_secs(10))
    };
    assert!(curl(&first).starts_with("HTTP/1.1 503"), "{}", curl(&first));
    assert!(curl(&second).starts_with("HTTP/1.1 200"), "{}", curl(&second));
    gate.open();
    second.wait_empty(Duration::from_secs(40));
    assert_eq!(sink.count(), 4, "each once");
    second.cli(&["cluster", "resume", "first"]);
    eventually("it takes mail again", Duration::from_secs(10), || {
        let letter = Letter::new("again", 500);
        let reply = posthouse_tests::client::try_send(
            first.smtp(),
            "me@client.example",
            "ann@dest.example",
            &letter.bytes,
        );
        (reply.ok()?.code == 250).then_some(())
    });
    sink.wait(5, Duration::from_secs(20));
}

#[test]
fn nodes_stop_and_start_in_turn_and_no_letter_comes_twice() {
    needs!("postgres", "setpriv");
    let server = Postgres::start(SETTINGS);
    let sink = Sink::start();
    let (mut first, mut second) = two(&server, &sink.url(), Builder::fixed_ports);
    let ledger = Ledger::default();
    let domains = &["one.example", "two.example"];
    let pumps = [first.smtp(), second.smtp()].map(|to| Pump::into(&ledger, to, 3, 3_000, domains));
    for _ in 0..2 {
        for relay in [&mut first, &mut second] {
            let before = ledger.count();
            eventually("some letters are taken", Duration::from_secs(30), || {
                (ledger.count() > before + 60).then_some(())
            });
            relay.restart();
        }
    }
    for pump in pumps {
        pump.stop();
    }
    assert_eq!(ledger.settle(&sink, Duration::from_secs(60)), 0, "a stop in order makes no copies");
    first.wait_empty(Duration::from_secs(20));
    let listed = second.cli(&["cluster", "status"]);
    assert!(listed.contains("first") && listed.contains("second"), "{listed}");
}

/// A limit that both nodes have to keep together is kept, also while one of them is killed.
#[test]
fn one_limit_of_connections_holds_for_both() {
    needs!("postgres", "setpriv");
    const LIMIT: u64 = 4;
    let server = Postgres::start(SETTINGS);
    let wait = Arc::new(AtomicBool::new(true));
    let slow = Arc::clone(&wait);
    let sink = Sink::with(Options::default().script(move |stage| match stage {
        Stage::Message(_) if slow.load(Ordering::Relaxed) => Act::Wait(Duration::from_millis(150)),
        _ => Act::Usual,
    }));
    let shape = format!("[[shape]]\nsites = [\"{}\"]\nconnections = {LIMIT}\n", sink.url());
    let (mut first, second) = two(&server, &sink.url(), |b| b.fixed_ports().toml(&shape));
    let ledger = Ledger::default();
    let pumps = [first.smtp(), second.smtp()].map(|to| Pump::into(&ledger, to, 3, 1_000, &["one.example"]));
    let from_both = |n: usize| {
        let before = sink.count();
        sink.wait(before + n, Duration::from_secs(60));
    };
    from_both(100);
    first.crash();
    from_both(150);
    assert!(sink.connections_max() >= LIMIT, "the limit was never reached: this has shown nothing");
    assert!(sink.connections_max() <= LIMIT, "{} connections at a time", sink.connections_max());
    wait.store(false, Ordering::Relaxed);
    for pump in pumps {
        pump.stop();
    }
    ledger.settle(&sink, Duration::from_secs(120));
    assert!(sink.connections_max() <= LIMIT, "{} connections at a time", sink.connections_max());
    second.wait_empty(Duration::from_secs(20));
}

/// After a power cut machines come up in any order.
#[test]
fn a_node_that_starts_before_its_database_waits_for_it() {
    needs!("postgres", "setpriv");
    let mut server = Postgres::start(SETTINGS);
    let sink = Sink::start();
    let mut relay = Relay::builder()
        .postgres(&server.url())
        .route(&[], &sink.url())
        .set("cluster", "node", "\"early\"")
        .prepare();
    server.kill9();
    relay.launch();
    eventually("it waits", Duration::from_secs(20), || {
        relay.daemon().output().contains("the database is not there yet").then_some(())
    });
    assert!(relay.runs());
    server.start_again();
    relay.await_listening();
    let letter = Letter::new("early", 500);
    send_one(relay.smtp(), "me@client.example", &["ann@one.example"], &letter.bytes).expect(250);
    letter.assert_arrived(&sink.wait_one().data);
    assert!(relay.stop().success());

    // Who waits can be told to stop.
    server.kill9();
    relay.launch();
    eventually("it waits again", Duration::from_secs(20), || {
        (relay.daemon().output().matches("the database is not there yet").count() >= 1).then_some(())
    });
    assert!(relay.stop().success());
}
