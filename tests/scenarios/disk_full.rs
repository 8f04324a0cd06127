//! A full disk: 452 ahead of time, deliveries go on, and mail is taken again when there is room.

use posthouse_tests::client::try_send;
use posthouse_tests::disk::Disk;
use posthouse_tests::needs;
use posthouse_tests::prelude::*;

#[test]
fn a_full_disk_means_452_while_deliveries_go_on() {
    needs!("mounts");
    let disk = Disk::tmpfs(48 * 1024);
    let sink = Sink::start();
    sink.rescript(|stage| match stage {
        Stage::Mail(_) => posthouse_tests::sink::reply("451 4.3.0 later"),
        _ => Act::Usual,
    });
    let data = disk.path().join("data");
    let builder = Relay::builder().data_dir(&data).route(&[], &sink.url());
    let mut relay = builder.set("limits", "disk_reserve", "\"8MB\"").start();
    let ledger = Ledger::default();
    let send = |n: usize| {
        let letter = Letter::new(format!("full-{n}"), 20_000);
        ledger.sending(&letter);
        let reply = try_send(relay.smtp(), "me@client.example", "ann@dest.example", &letter.bytes).unwrap();
        if reply.code == 250 {
            ledger.acknowledged(&letter);
        }
        reply
    };
    for n in 0..100 {
        send(n).expect(250);
    }
    let ballast = disk.fill(7 << 20);
    // The free room is looked at now and then, not at every message.
    let reply = eventually("a refusal for want of room", Duration::from_secs(15), || {
        let reply = send(1000 + ledger.count());
        (reply.code != 250).then_some(reply)
    });
    assert_eq!(reply.code, 452, "{reply}");
    assert!(reply.mentions("4.3.1") || reply.mentions("space"), "{reply}");

    sink.rescript(|_| Act::Usual);
    assert_eq!(ledger.settle(&sink, Duration::from_secs(30)), 0);
    relay.wait_empty(Duration::from_secs(20));

    std::fs::remove_file(ballast).unwrap();
    eventually("mail is taken again", Duration::from_secs(15), || (send(90_000).code == 250).then_some(()));
    ledger.settle(&sink, Duration::from_secs(30));
    assert!(relay.stop().success());
}

#[test]
fn when_somebody_else_takes_the_last_block_all_is_settled_once_there_is_room_again() {
    needs!("mounts");
    let disk = Disk::tmpfs(48 * 1024);
    let port = free_port();
    let data = disk.path().join("data");
    let relay = Relay::builder().data_dir(&data).route(&[], &format!("smtp://127.0.0.1:{port}")).start();
    let ledger = Ledger::default();
    for n in 0..200 {
        let letter = Letter::new(format!("last-{n}"), 20_000);
        ledger.sending(&letter);
        let reply = try_send(relay.smtp(), "me@client.example", "ann@dest.example", &letter.bytes);
        reply.unwrap().expect(250);
        ledger.acknowledged(&letter);
    }
    let ballast = disk.fill(0);
    let sink = Sink::on(posthouse_tests::wait::loopback(port), posthouse_tests::sink::Options::default());
    std::thread::sleep(Duration::from_secs(3));
    let refused =
        try_send(relay.smtp(), "me@client.example", "ann@dest.example", &Letter::new("no", 500).bytes)
            .unwrap();
    assert_eq!(refused.code, 452, "{refused}");
    std::fs::remove_file(ballast).unwrap();
    // What could not be recorded in between may go out once more (promise 3); nothing is lost and nothing hangs.
    ledger.settle(&sink, Duration::from_secs(60));
    relay.wait_empty(Duration::from_secs(60));
}

#[test]
fn a_disk_that_fills_up_between_two_octets_loses_nothing() {
    needs!("mounts");
    let disk = Disk::tmpfs(24 * 1024);
    let port = free_port();
    let data = disk.path().join("data");
    // No reserve to speak of: the writes themselves meet the end of the disk.
    let builder =
        Relay::builder().data_dir(&data).route(&[], &format!("smtp://127.0.0.1:{port}")).fixed_ports();
    let mut relay = builder.set("limits", "disk_reserve", "\"1B\"").start();
    let pump = Pump::start(relay.smtp(), 6, 60_000, &["dest.example"]);
    eventually("the disk is full", Duration::from_secs(60), || {
        (!pump.ledger.refusals().is_empty()).then_some(())
    });
    std::thread::sleep(Duration::from_millis(500));
    let ledger = pump.stop();
    assert!(ledger.count() > 50);
    assert!(ledger.refusals().iter().all(|r| r.starts_with('4')), "{:?}", ledger.refusals());
    relay.kill9();
    // The operator copies the data to a bigger disk.
    let bigger = tempfile::tempdir().unwrap();
    let copied = bigger.path().join("data");
    let mut copy = std::process::Command::new("cp");
    copy.arg("-a").arg(&data).arg(&copied);
    posthouse_tests::process::run("cp", copy, Duration::from_secs(30));
    relay.reconfigure(|old| old.replace(data.to_str().unwrap(), copied.to_str().unwrap()));
    relay.start();
    let sink = Sink::on(posthouse_tests::wait::loopback(port), posthouse_tests::sink::Options::default());
    ledger.settle(&sink, Duration::from_secs(60));
    relay.kill9();
}
