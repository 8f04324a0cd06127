//! A long queue for hosts that never answer holds up nobody else, before a crash and after it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use mail::Clock;
use posthouse_tests::client::send_one;
use posthouse_tests::prelude::*;
use posthouse_tests::sink::Options;

const TARPITS: usize = 10;
const PROBES: usize = 100;

/// Sends `count` letters to the tarpits' domains in turn, over `sessions` sessions that stay.
fn flood(relay: &Relay, sessions: usize, count: usize) {
    let addr = relay.smtp();
    std::thread::scope(|scope| {
        for session in 0..sessions {
            scope.spawn(move || {
                let mut smtp = Smtp::connect(addr);
                smtp.ehlo();
                for n in (session..count).step_by(sessions) {
                    let to = format!("ann@t{}.example", n % TARPITS);
                    let letter = Letter::new(format!("stuck-{n}"), 600);
                    smtp.transact("me@client.example", &[&to], &letter.bytes).expect(250);
                }
            });
        }
    });
}

/// When each recipient's message came, by the recipient's local part.
type Arrivals = Arc<Mutex<BTreeMap<String, Duration>>>;

/// A healthy sink that notes when what arrives.
fn healthy(clock: &Clock) -> (Sink, Arrivals) {
    let arrivals = Arrivals::default();
    let (noted, clock) = (arrivals.clone(), clock.clone());
    let options = Options { keep_content: false, ..Options::default() };
    let sink = Sink::with(options.script(move |stage| {
        if let Stage::Message(received) = stage {
            let now = clock.mono().0;
            let mut noted = noted.lock().unwrap();
            for to in received.recipients() {
                noted.insert(to.split('@').next().unwrap_or_default().to_owned(), now);
            }
        }
        Act::Usual
    }));
    (sink, arrivals)
}

/// Sends to the healthy one, and tells the time below which 95 of 100 messages were there, from before they were sent.
fn p95(relay: &Relay, clock: &Clock, arrivals: &Arrivals, round: &str) -> Duration {
    let mut sent = Vec::new();
    for n in 0..PROBES {
        let name = format!("{round}-{n}");
        sent.push((name.clone(), clock.mono().0));
        let letter = Letter::new(&name, 1_000);
        send_one(relay.smtp(), "me@client.example", &[&format!("{name}@good.example")], &letter.bytes)
            .expect(250);
    }
    eventually("all are there", Duration::from_secs(60), || {
        let arrivals = arrivals.lock().unwrap();
        sent.iter().all(|(name, _)| arrivals.contains_key(name)).then_some(())
    });
    let arrivals = arrivals.lock().unwrap();
    let mut took: Vec<Duration> = sent.iter().map(|(name, at)| arrivals[name].saturating_sub(*at)).collect();
    took.sort_unstable();
    took[PROBES * 95 / 100]
}

#[test]
fn a_healthy_host_is_served_beside_ten_tarpits() {
    let soak = std::env::var_os("POSTHOUSE_SOAK").is_some();
    let count = if soak { 200_000 } else { 5_000 };
    let clock = Clock::system();
    let (good, arrivals) = healthy(&clock);
    let tarpits: Vec<Sink> = (0..TARPITS)
        .map(|_| {
            Sink::with(Options::default().script(|stage| match stage {
                Stage::Connect => Act::Wait(Duration::from_secs(600)),
                _ => Act::Usual,
            }))
        })
        .collect();
    let mut builder = Relay::builder().route(&["good.example"], &good.url());
    for (n, tarpit) in tarpits.iter().enumerate() {
        builder = builder.route(&[&format!("t{n}.example")], &tarpit.url());
    }
    let mut relay = builder.start();
    flood(&relay, 20, count);
    let before = p95(&relay, &clock, &arrivals, "before");
    assert!(before < Duration::from_secs(5), "95 of 100 took {before:?} beside {count} stuck messages");
    relay.crash();
    let after = p95(&relay, &clock, &arrivals, "after");
    assert!(after < Duration::from_secs(5), "95 of 100 took {after:?} after a kill");
    assert!(tarpits.iter().all(|t| t.connections() > 0), "every tarpit was tried");
}
