//! Starting with a long queue: the banner comes at once, memory stays bounded, and everything arrives.

use std::fs;

use mail::Clock;
use posthouse_tests::prelude::*;
use posthouse_tests::sink::Options;

/// Recipients of each message, every one in a domain of its own and so a delivery of its own.
const SPREAD: usize = 20;

/// Sends `count` letters to [`SPREAD`] domains each, over `sessions` sessions.
fn flood(relay: &Relay, sessions: usize, count: usize) {
    let addr = relay.smtp();
    let rcpts: String = (0..SPREAD).map(|n| format!("RCPT TO:<ann@d{n}.example>\r\n")).collect();
    let envelope = format!("MAIL FROM:<me@client.example>\r\n{rcpts}DATA\r\n");
    std::thread::scope(|scope| {
        for session in 0..sessions {
            let envelope = &envelope;
            scope.spawn(move || {
                let mut smtp = Smtp::connect(addr);
                smtp.ehlo();
                for n in 0..count / sessions {
                    let letter = Letter::new(format!("many-{session}-{n}"), 1_000);
                    smtp.send(envelope.as_bytes()).unwrap();
                    for _ in 0..=SPREAD {
                        smtp.reply().expect(250);
                    }
                    smtp.reply().expect(354);
                    smtp.send(&posthouse_tests::client::stuffed(&letter.bytes)).unwrap();
                    smtp.reply().expect(250);
                }
            });
        }
    });
}

fn resident_mb(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap() / 1024
}

#[test]
fn a_hundred_thousand_queued_deliveries_do_not_hold_up_the_banner() {
    let soak = std::env::var_os("POSTHOUSE_SOAK").is_some();
    let count = if soak { 1_000_000 } else { 100_000 };
    let port = free_port();
    let mut relay = Relay::builder().fixed_ports().route(&[], &format!("smtp://127.0.0.1:{port}")).start();
    flood(&relay, 20, count / SPREAD);
    relay.kill9();
    relay.launch();
    let clock = Clock::system();
    let smtp = relay.smtp_port_of_file();
    eventually("the banner", Duration::from_secs(30), || {
        let mut smtp = Smtp::try_dial(smtp).ok()?;
        smtp.try_reply().ok().filter(|r| r.code == 220)
    });
    let took = clock.mono().0;
    relay.await_listening();
    assert!(took < Duration::from_secs(2), "the banner came after {took:?}");
    let options = Options { keep_content: false, ..Options::default() };
    let sink = Sink::on(posthouse_tests::wait::loopback(port), options);
    // All of them take minutes in a debug build; that they flow is enough for every day.
    let wanted = if soak { count } else { count / 20 };
    let recipients = |m: &[Received]| m.iter().map(|x| x.rcpts.len()).sum::<usize>();
    sink.wait_until("deliveries", Duration::from_secs(1800), |m| recipients(m) >= wanted);
    let memory = resident_mb(relay.pid());
    assert!(memory < 300, "{memory} MB with a memory limit of 256 MB");
    if soak {
        relay.wait_empty(Duration::from_secs(60));
        assert_eq!(recipients(&sink.messages()), count);
    }
}
