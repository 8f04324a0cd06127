//! A flipped bit on the disk: that message is kept aside and told of; all others go on.

use std::fs;
use std::path::{Path, PathBuf};

use posthouse_tests::client::send_one;
use posthouse_tests::prelude::*;

posthouse_tests::on_both_engines!(one_damaged_message_is_quarantined_and_the_others_arrive);

/// What stands before the content that is damaged.
const MARK: &str = "X-Proof-Id: disk-4\r\n";

fn one_damaged_message_is_quarantined_and_the_others_arrive(engine: &Engine) {
    let port = free_port();
    let mut relay = engine.relay().route(&[], &format!("smtp://127.0.0.1:{port}")).start();
    for n in 0..10 {
        let letter = Letter::new(format!("disk-{n}"), 3_000);
        send_one(relay.smtp(), "me@client.example", &["ann@dest.example"], &letter.bytes).expect(250);
    }
    relay.kill9();
    match engine {
        Engine::Embedded => in_the_file(relay.data()),
        Engine::Postgres(server) => {
            let changed = server.sql("posthouse_1", IN_THE_ROW);
            assert!(changed.contains("UPDATE 1"), "{changed}");
        }
    }

    relay.start();
    let sink = Sink::on(posthouse_tests::wait::loopback(port), posthouse_tests::sink::Options::default());
    let all = sink.wait(9, Duration::from_secs(30));
    for message in &all {
        let arrived = Letter::from_arrived(&message.data);
        assert_ne!(arrived.id, "disk-4", "a damaged message was sent");
        assert_eq!(arrived, Letter::new(arrived.id.clone(), 3_000));
    }
    let aside = eventually("it is shown in quarantine", Duration::from_secs(20), || {
        let queue = relay.queue();
        (queue.len() == 1 && queue[0].to_string().contains("quarantine")).then(|| queue[0].to_string())
    });
    assert!(
        aside.contains("damage") || aside.contains("checksum") || aside.contains("CRC"),
        "it says why: {aside}"
    );
    assert_eq!(sink.count(), 9);
    let (status, output) = relay.try_cli(&["verify"]);
    assert!(!status.success(), "verify must find it:\n{output}");
}

fn in_the_file(data: &Path) {
    let (file, at) = find(data, MARK.as_bytes()).expect("the content is on the disk as it came");
    let mut bytes = fs::read(&file).unwrap();
    bytes[at + MARK.len() + 500] ^= 0x10;
    fs::write(&file, bytes).unwrap();
}

/// Checksums of pages find what happens on the disk; this is what they would not find.
const IN_THE_ROW: &str = "UPDATE store.content SET data = set_byte(data, 1000, get_byte(data, 1000) # 16) \
                          WHERE position('disk-4'::bytea IN data) > 0";

/// The file under `dir` that holds `mark`, and where.
fn find(dir: &Path, mark: &[u8]) -> Option<(PathBuf, usize)> {
    for entry in fs::read_dir(dir).ok()?.flatten() {
        let path = entry.path();
        let kind = entry.file_type().ok()?;
        if kind.is_dir() {
            if let Some(found) = find(&path, mark) {
                return Some(found);
            }
        } else if kind.is_file()
            && let Some(at) = fs::read(&path).ok()?.windows(mark.len()).position(|w| w == mark)
        {
            return Some((path, at));
        }
    }
    None
}
