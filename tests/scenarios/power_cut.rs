//! The plug is pulled: the file system stops without flushing anything, under load and straight after the last 250.

use posthouse_tests::disk::Disk;
use posthouse_tests::needs;
use posthouse_tests::prelude::*;

/// Cuts the power of a relay that cannot deliver, mounts the disk again, and wants everything that was acknowledged.
fn cut(rounds: usize, clients: usize, idle: bool) {
    let mut disk = Disk::ext4(512);
    let port = free_port();
    let next = format!("smtp://127.0.0.1:{port}");
    let mut relay =
        Relay::builder().fixed_ports().data_dir(&disk.path().join("data")).route(&[], &next).start();
    let ledger = Ledger::default();
    for round in 0..rounds {
        let pump = Pump::into(&ledger, relay.smtp(), clients, 5_000, &["one.example", "two.example"]);
        let wanted = ledger.count() + 50 + round * 13;
        eventually("letters are taken", Duration::from_secs(30), || (ledger.count() >= wanted).then_some(()));
        if idle {
            pump.stop();
            cut_off(&disk, &mut relay);
        } else {
            cut_off(&disk, &mut relay);
            pump.stop();
        }
        disk.power_on();
        relay.start();
    }
    let sink = Sink::on(posthouse_tests::wait::loopback(port), posthouse_tests::sink::Options::default());
    // What was under way in three crashes is held, for it may be the cause; here it is not.
    relay.cli(&["queue", "release", "--all"]);
    assert_eq!(ledger.settle(&sink, Duration::from_secs(60)), 0);
    assert!(ledger.count() >= rounds * 50);
    relay.kill9();
}

/// Without power the machine says nothing more. A relay that went on running on the dead disk would: an fsync that was
/// under way when ext4 was shut down may return success although its transaction was thrown away.
fn cut_off(disk: &Disk, relay: &mut Relay) {
    relay.freeze();
    disk.power_cut();
    relay.kill9();
}

#[test]
fn under_load() {
    needs!("mounts", "mkfs.ext4", "python3");
    cut(if std::env::var_os("POSTHOUSE_SOAK").is_some() { 40 } else { 4 }, 8, false);
}

#[test]
fn straight_after_the_last_250() {
    needs!("mounts", "mkfs.ext4", "python3");
    cut(if std::env::var_os("POSTHOUSE_SOAK").is_some() { 20 } else { 3 }, 3, true);
}
