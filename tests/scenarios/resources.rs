//! Bounds: long commands, endless lines, too many recipients, connections and headers, too big messages.

use std::fs;

use posthouse_tests::prelude::*;

fn memory_mb(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap() / 1024
}

#[test]
fn a_long_command_is_refused_and_the_session_goes_on() {
    let relay = Relay::builder().start();
    let mut smtp = Smtp::connect(relay.smtp());
    smtp.ehlo();
    smtp.cmd(&format!("MAIL FROM:<{}@client.example>", "a".repeat(4096))).expect(500);
    smtp.cmd("NOOP").expect(250);
}

#[test]
fn an_endless_line_takes_no_memory() {
    let sink = Sink::start();
    let relay = Relay::routed_to(&sink.url());
    let before = memory_mb(relay.pid());
    let mut smtp = Smtp::connect(relay.smtp());
    smtp.ehlo();
    let block = vec![b'a'; 1 << 20];
    for _ in 0..64 {
        if smtp.send(&block).is_err() {
            break;
        }
    }
    assert!(memory_mb(relay.pid()) < before + 24, "it grew from {before} to {} MB", memory_mb(relay.pid()));
    let said = smtp.drain(Duration::from_secs(2));
    assert!(said.is_empty() || said.starts_with("500") || said.starts_with("421"), "{said}");
}

#[test]
fn a_big_message_streams_and_one_that_is_too_big_is_refused() {
    let sink = Sink::start();
    let relay = Relay::builder().route(&[], &sink.url()).set("queue", "max_message_size", "\"20MB\"").start();
    let before = memory_mb(relay.pid());
    let letter = Letter::new("big", 15_000_000);
    let mut smtp = Smtp::connect(relay.smtp());
    assert!(smtp.ehlo().mentions("SIZE 20000000") || smtp.ehlo().mentions("SIZE 20971520"));
    smtp.transact("me@client.example", &["ann@dest.example"], &letter.bytes).expect(250);
    letter.assert_arrived(&sink.wait(1, Duration::from_secs(60))[0].data);
    let grown = memory_mb(relay.pid()).saturating_sub(before);
    assert!(grown < 40, "it grew by {grown} MB for a message of 15 MB");
    smtp.cmd("MAIL FROM:<me@client.example> SIZE=99000000").expect(552);
    smtp.cmd("MAIL FROM:<me@client.example>").expect(250);
    smtp.cmd("RCPT TO:<ann@dest.example>").expect(250);
    smtp.data(&Letter::new("too-big", 22_000_000).bytes).expect(552);
    smtp.cmd("NOOP").expect(250);
    assert_eq!(sink.count(), 1);
}

#[test]
fn recipients_beyond_the_limit_are_put_off_and_the_others_get_it() {
    let sink = Sink::start();
    let relay = Relay::builder().route(&[], &sink.url()).set("limits", "recipients", "100").start();
    let mut smtp = Smtp::connect(relay.smtp());
    smtp.ehlo();
    smtp.cmd("MAIL FROM:<me@client.example>").expect(250);
    for n in 0..110 {
        let reply = smtp.cmd(&format!("RCPT TO:<r{n}@dest.example>"));
        let wanted = if n < 100 { 250 } else { 452 };
        assert_eq!(reply.code, wanted, "{n}: {reply}");
        assert!(n < 100 || reply.mentions("4.5.3"));
    }
    smtp.data(&Letter::new("many", 500).bytes).expect(250);
    sink.wait_until("all hundred", Duration::from_secs(20), |m| {
        m.iter().map(|x| x.rcpts.len()).sum::<usize>() == 100
    });
}

#[test]
fn connections_beyond_the_limit_are_turned_away_politely() {
    let relay = Relay::builder().set("limits", "connections", "20").start();
    let mut open: Vec<Smtp> = (0..20).map(|_| Smtp::connect(relay.smtp())).collect();
    let mut more = Smtp::dial(relay.smtp());
    let reply = more.reply();
    assert_eq!(reply.code, 421, "{reply}");
    open.pop().unwrap().quit();
    eventually("there is room again", Duration::from_secs(10), || {
        let mut smtp = Smtp::try_dial(relay.smtp()).ok()?;
        (smtp.try_reply().ok()?.code == 220).then_some(())
    });
}

#[test]
fn a_thousand_slow_clients_do_not_stop_a_quick_one() {
    let sink = Sink::start();
    let relay = Relay::builder()
        .route(&[], &sink.url())
        .set("limits", "connections", "3000")
        .set("limits", "connections_per_address", "3000")
        .start();
    let mut slow: Vec<Smtp> = (0..1000)
        .map(|_| {
            let mut smtp = Smtp::dial(relay.smtp());
            smtp.send(b"E").unwrap();
            smtp
        })
        .collect();
    for byte in b"HLO x" {
        for smtp in &mut slow {
            smtp.send(&[*byte]).unwrap();
        }
    }
    let letter = Letter::new("quick", 500);
    posthouse_tests::client::send_one(relay.smtp(), "a@client.example", &["b@dest.example"], &letter.bytes)
        .expect(250);
    letter.assert_arrived(&sink.wait_one().data);
    let memory = memory_mb(relay.pid());
    assert!(memory < 200, "{memory} MB for a thousand idle sessions");
}

#[test]
fn with_few_file_descriptors_it_goes_on() {
    let sink = Sink::start();
    let relay = Relay::builder().route(&[], &sink.url()).under(["prlimit", "--nofile=64:64", "--"]).start();
    let open: Vec<Smtp> = (0..100).filter_map(|_| Smtp::try_dial(relay.smtp()).ok()).collect();
    std::thread::sleep(Duration::from_millis(300));
    drop(open);
    let letter = Letter::new("after", 500);
    eventually("it takes mail again", Duration::from_secs(20), || {
        let sent = posthouse_tests::client::try_send(
            relay.smtp(),
            "a@client.example",
            "b@dest.example",
            &letter.bytes,
        );
        sent.is_ok_and(|r| r.code == 250).then_some(())
    });
    letter.assert_arrived(&sink.wait_one().data);
}

#[test]
fn ten_thousand_headers_and_a_header_of_a_megabyte_pass_or_are_refused_whole() {
    let sink = Sink::start();
    let relay = Relay::routed_to(&sink.url());
    let many: Vec<String> = (0..10_000).map(|n| format!("X-{n}: y")).collect();
    let wide: Vec<String> =
        std::iter::once("X-Wide: a".to_owned()).chain((0..15_000).map(|n| format!("\t{n:064}"))).collect();
    for (id, lines) in [("many-headers", many), ("wide-header", wide)] {
        let mut lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        lines.extend(["From: me@client.example", "", "body"]);
        let letter = Letter::of(id, &lines);
        let before = sink.count();
        let mut smtp = Smtp::connect(relay.smtp());
        smtp.ehlo();
        let reply = smtp.transact("me@client.example", &["ann@dest.example"], &letter.bytes);
        if reply.code == 250 {
            letter.assert_arrived(&sink.wait(before + 1, Duration::from_secs(20))[before].data);
        } else {
            assert!(reply.code >= 500, "{reply}");
        }
    }
}
