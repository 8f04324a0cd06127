//! The system calls prove it: content, commit and directory entries are synced before each 250, and taking away any one of
//! these syncs makes the proof fail.

use std::collections::BTreeSet;

use posthouse_tests::client::send_one;
use posthouse_tests::needs;
use posthouse_tests::prelude::*;
use posthouse_tests::strace::{self, Proof};

#[test]
fn every_250_rests_on_syncs_of_content_commit_and_directories() {
    needs!("strace");
    let sink = Sink::start();
    let mut relay = Relay::builder().route(&[], &sink.url()).prepare();
    strace::assert_starts_empty(relay.data());
    let trace = relay.scratch().join("trace");
    relay.rewrap(strace::command(&trace));
    relay.start();
    let mut ids: Vec<String> = Vec::new();
    for n in 0..5 {
        let letter = Letter::new(format!("alone-{n}"), 4_000);
        let sender = format!("{}@client.example", letter.id);
        send_one(relay.smtp(), &sender, &["ann@dest.example"], &letter.bytes).expect(250);
        ids.push(letter.id);
    }
    // Beyond the memory for one message it streams into a file of its own, which needs its directory synced.
    let big = Letter::new("big", 2_000_000);
    send_one(relay.smtp(), "big@client.example", &["ann@dest.example"], &big.bytes).expect(250);
    ids.push(big.id);
    // Several at a time share their syncs; every one of them must still be covered.
    let addr = relay.smtp();
    std::thread::scope(|scope| {
        for n in 0..8 {
            let id = format!("together-{n}");
            ids.push(id.clone());
            scope.spawn(move || {
                let sender = format!("{id}@client.example");
                send_one(addr, &sender, &["ann@dest.example"], &Letter::new(id, 4_000).bytes).expect(250);
            });
        }
    });
    sink.wait(ids.len(), Duration::from_secs(60));
    assert!(relay.stop().success());

    let calls = strace::parse(&std::fs::read_to_string(&trace).unwrap());
    let data = relay.data().to_owned();
    let proof = Proof { calls: &calls, data: &data };
    let mut rested_on = BTreeSet::new();
    for id in &ids {
        let found = proof.of(id).unwrap_or_else(|e| panic!("{e}"));
        rested_on.extend(found.directory_syncs.iter().copied());
        for (what, index) in [("content", found.content_sync), ("commit", found.wal_sync)] {
            // Without this sync, and without others of the same file in the same stretch, the promise must be seen to break.
            let path = calls[index].path().to_owned();
            let less = proof.without(|_, c| c.is_sync_of(&path));
            let said = Proof { calls: &less, data: &data }.of(id);
            assert!(said.is_err(), "{id}: nothing noticed that the {what} was not synced");
        }
        for index in found.directory_syncs {
            let path = calls[index].path().to_owned();
            let less = proof.without(|_, c| c.is_sync_of(&path));
            assert!(
                Proof { calls: &less, data: &data }.of(id).is_err(),
                "{id}: nothing noticed the directory"
            );
        }
    }
    assert!(rested_on.len() >= 2, "the segment's and the big message's directory entries");
}
