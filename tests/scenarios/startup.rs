//! Starting with a long queue: the banner comes at once, memory stays bounded, and everything arrives.

use std::fs;

use mail::Clock;
use posthouse_tests::prelude::*;
use posthouse_tests::sink::Options;

/// Sends `count` letters over `sessions` pipelined sessions.
fn flood(relay: &Relay, sessions: usize, count: usize) {
    let addr = relay.smtp();
    std::thread::scope(|scope| {
        for session in 0..sessions {
            scope.spawn(move || {
                let mut smtp = Smtp::connect(addr);
                smtp.ehlo();
                for n in 0..count / sessions {
                    let letter = Letter::new(format!("many-{session}-{n}"), 1_000);
                    let to = format!("RCPT TO:<ann@d{}.example>\r\nDATA\r\n", n % 50);
                    smtp.send(format!("MAIL FROM:<me@client.example>\r\n{to}").as_bytes()).unwrap();
                    for code in [250, 250, 354] {
                        smtp.reply().expect(code);
                    }
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
fn a_hundred_thousand_queued_messages_do_not_hold_up_the_banner() {
    let count = if std::env::var_os("POSTHOUSE_SOAK").is_some() { 1_000_000 } else { 100_000 };
    let port = free_port();
    let mut relay = Relay::builder().fixed_ports().route(&[], &format!("smtp://127.0.0.1:{port}")).start();
    flood(&relay, 20, count);
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
    let sink = Sink::on(
        posthouse_tests::wait::loopback(port),
        Options { keep_content: false, ..Options::default() },
    );
    sink.wait(count, Duration::from_secs(240));
    relay.wait_empty(Duration::from_secs(30));
    let memory = resident_mb(relay.pid());
    assert!(memory < 300, "{memory} MB with a memory limit of 256 MB");
    assert_eq!(sink.count(), count);
}
