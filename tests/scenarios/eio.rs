//! fsync fails, or the process dies, at every boundary: no 250 after a failure, and a restart finds everything that was
//! acknowledged.

use posthouse_tests::needs;
use posthouse_tests::prelude::*;

/// The boundaries to try: some of each stretch, or all in the soak.
fn boundaries() -> Vec<usize> {
    if std::env::var_os("POSTHOUSE_SOAK").is_some() {
        (1..200).collect()
    } else {
        vec![1, 2, 3, 4, 6, 9, 14, 22, 35]
    }
}

fn strace(what: &str) -> Vec<String> {
    let line =
        format!("strace -f -qq -o /dev/null -e trace=fsync,fdatasync -e inject=fsync,fdatasync:{what}");
    line.split(' ').map(str::to_owned).collect()
}

/// Starts the relay under an injection, sends letters until it refuses, dies, or `most` were taken; then starts it anew
/// without the injection and wants everything that was acknowledged. Returns how many were taken and whether the injection
/// showed.
fn under(injection: &str, most: usize) -> (usize, bool) {
    let sink = Sink::start();
    sink.rescript(|stage| match stage {
        // Nothing is delivered before the restart, so that all of it rests on the disk.
        Stage::Mail(_) => posthouse_tests::sink::reply("451 4.3.0 later"),
        _ => Act::Usual,
    });
    let mut relay = Relay::builder().fixed_ports().route(&[], &sink.url()).prepare();
    relay.rewrap(strace(injection));
    relay.launch();
    let came_up = relay.try_await_listening(Duration::from_secs(30));
    let ledger = Ledger::default();
    let mut refusal = None;
    if came_up {
        let addr = relay.smtp();
        for n in 0..most {
            let letter = Letter::new(format!("eio-{n}"), 3_000);
            ledger.sending(&letter);
            match posthouse_tests::client::try_send(
                addr,
                "me@client.example",
                "ann@dest.example",
                &letter.bytes,
            ) {
                Ok(reply) if reply.code == 250 => {
                    assert!(refusal.is_none(), "{injection}: 250 after {refusal:?}");
                    ledger.acknowledged(&letter);
                }
                Ok(reply) => refusal = Some(reply.to_string()),
                Err(e) => {
                    refusal = Some(e.to_string());
                    break;
                }
            }
        }
    }
    relay.kill9();
    relay.rewrap(Vec::<String>::new());
    relay.start();
    sink.rescript(|_| Act::Usual);
    ledger.settle(&sink, Duration::from_secs(30));
    (ledger.count(), refusal.is_some() || !came_up)
}

#[test]
fn no_250_after_a_failed_sync_and_a_restart_recovers() {
    needs!("strace");
    let mut shown = 0;
    for n in boundaries() {
        let (taken, noticed) = under(&format!("error=EIO:when={n}"), 30);
        assert!(noticed || taken == 30, "sync {n}: {taken} taken and nothing refused");
        shown += usize::from(noticed);
        if !noticed {
            break;
        }
    }
    assert!(shown >= 3, "the injection showed only {shown} times");
}

#[test]
fn death_at_any_sync_loses_nothing() {
    needs!("strace");
    let mut shown = 0;
    for n in boundaries() {
        let (_, noticed) = under(&format!("signal=KILL:when={n}"), 30);
        shown += usize::from(noticed);
        if !noticed {
            break;
        }
    }
    assert!(shown >= 3, "the kill came only {shown} times");
}
