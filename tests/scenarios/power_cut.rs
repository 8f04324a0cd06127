//! The plug is pulled: the file system stops without flushing anything, under load and straight after the last 250.

use posthouse_tests::disk::Disk;
use posthouse_tests::engine::SETTINGS;
use posthouse_tests::needs;
use posthouse_tests::neighbours::postgres::Postgres;
use posthouse_tests::prelude::*;

/// What has its data on the disk that loses its power: the relay itself, or the server that it keeps its mail in.
enum Victim {
    Relay,
    Server(Postgres),
}

/// Cuts the power of a relay that cannot deliver, mounts the disk again, and wants everything that was acknowledged.
fn cut(rounds: usize, clients: usize, idle: bool, victim: impl FnOnce(&Disk) -> Victim) {
    let mut disk = Disk::ext4(512);
    let mut victim = victim(&disk);
    let port = free_port();
    let builder = match &victim {
        Victim::Relay => Relay::builder().data_dir(&disk.path().join("data")),
        Victim::Server(server) => Relay::builder().postgres(&server.url()),
    };
    let mut relay = builder.fixed_ports().route(&[], &format!("smtp://127.0.0.1:{port}")).start();
    let ledger = Ledger::default();
    for round in 0..rounds {
        let pump = Pump::into(&ledger, relay.smtp(), clients, 5_000, &["one.example", "two.example"]);
        let wanted = ledger.count() + 50 + round * 13;
        eventually("letters are taken", Duration::from_secs(30), || (ledger.count() >= wanted).then_some(()));
        if idle {
            pump.stop();
            cut_off(&disk, &mut relay, &mut victim);
        } else {
            cut_off(&disk, &mut relay, &mut victim);
            pump.stop();
        }
        disk.power_on();
        if let Victim::Server(server) = &mut victim {
            server.start_again();
        }
        relay.start();
    }
    let sink = Sink::on(posthouse_tests::wait::loopback(port), posthouse_tests::sink::Options::default());
    // What was under way in three crashes is held, for it may be the cause; here it is not.
    relay.cli(&["queue", "release", "--all"]);
    assert_eq!(ledger.settle(&sink, Duration::from_secs(60)), 0);
    assert!(ledger.count() >= rounds * 50);
    relay.kill9();
    drop(victim);
}

/// Without power the machine says nothing more. A relay that went on running on the dead disk would: an fsync that was
/// under way when ext4 was shut down may return success although its transaction was thrown away.
fn cut_off(disk: &Disk, relay: &mut Relay, victim: &mut Victim) {
    relay.freeze();
    match victim {
        Victim::Relay => disk.power_cut(),
        Victim::Server(server) => {
            server.freeze();
            disk.power_cut();
            server.kill9();
        }
    }
    relay.kill9();
}

fn server(disk: &Disk) -> Victim {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(disk.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let above = disk.path();
    std::fs::set_permissions(above.parent().unwrap(), std::fs::Permissions::from_mode(0o755)).unwrap();
    Victim::Server(Postgres::on(&disk.path(), SETTINGS))
}

fn rounds(quick: usize, soak: usize) -> usize {
    if std::env::var_os("POSTHOUSE_SOAK").is_some() { soak } else { quick }
}

#[test]
fn under_load() {
    needs!("mounts", "mkfs.ext4", "python3");
    cut(rounds(4, 40), 8, false, |_| Victim::Relay);
}

#[test]
fn straight_after_the_last_250() {
    needs!("mounts", "mkfs.ext4", "python3");
    cut(rounds(3, 20), 3, true, |_| Victim::Relay);
}

#[test]
fn of_the_database_under_load() {
    needs!("mounts", "mkfs.ext4", "python3", "postgres", "setpriv");
    cut(rounds(3, 20), 8, false, server);
}

#[test]
fn of_the_database_straight_after_the_last_250() {
    needs!("mounts", "mkfs.ext4", "python3", "postgres", "setpriv");
    cut(rounds(2, 20), 3, true, server);
}
