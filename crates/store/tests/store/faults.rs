//! Every fsync fails once, and every fsync kills once, by strace's injection: what was acknowledged is there after the
//! next start, and after a failed fsync nothing more is acknowledged.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use mail::{Clock, MessageId};
use store::{Config, NewState, Next, QueueFilter, Store};

use crate::common::*;

/// Set in a process that these tests start from themselves: the data directory it works in.
const CHILD: &str = "POSTHOUSE_STORE_FAULTS_DIR";
/// Set when it shall wait for a line once the store is open.
const WAITS: &str = "POSTHOUSE_STORE_FAULTS_WAITS";

/// When faults begin. strace counts calls by thread, so that those of the start would hide those of the writer.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Begin {
    AtTheStart,
    OnceOpen,
}

/// Not a test: what the child process does. One line for each thing acknowledged.
#[tokio::test]
async fn child() {
    let Ok(dir) = std::env::var(CHILD) else { return };
    let mut config = Config::new(dir);
    config.segment_size = 8 << 10;
    let Ok((store, _)) = Store::open(config, Clock::system()) else { return };
    println!("\nopen");
    // Where the faults are to begin after the start, somebody attaches now.
    if std::env::var_os(WAITS).is_some() {
        std::io::stdin().read_line(&mut String::new()).unwrap();
    }
    for n in 0..6u64 {
        let size = if n == 3 { 300_000 } else { 5_000 };
        let id = store.ids().next();
        let mut sink = store.sink(id);
        let written = match sink.write(&octets(n, size)).await {
            Ok(()) => sink.finish().await,
            Err(error) => Err(error),
        };
        let Ok(content) = written else { break };
        let deliveries = vec![delivery("dest.example", 0..1, NewState::Active)];
        let message = message(id, size as u64);
        let admission = store::Admission { message, content, deliveries, dedupe: None, events: Vec::new() };
        let Ok(admitted) = store.admit(admission).await else { break };
        println!("admitted {id} {n}");
        if n % 2 == 0 {
            println!("settling {id}");
            if store.settled(settlement(new(admitted)[0].id, Next::Done)).await.is_err() {
                break;
            }
            println!("settled {id}");
        }
    }
    if let Some(reason) = &*store.failed().borrow() {
        println!("failed {reason}");
        assert!(store.room().is_err());
        let late = admission(&store, b"late", vec![delivery("dest.example", 0..1, NewState::Active)]).await;
        assert!(matches!(store.admit(late).await, Err(store::StoreError::Failed(_))));
        assert!(store.queues().await.is_err(), "nothing is delivered either");
    }
    println!("closed {}", store.close().await.is_ok());
}

/// Runs the child with one fault at one of these calls.
fn run(calls: &str, fault: &str, n: u32, begin: Begin, dir: &Path) -> Output {
    let inject = format!("inject={calls}:{fault}:when={n}");
    let strace = || {
        let mut strace = Command::new("strace");
        strace.args(["-f", "-o", "/dev/null", "-e", "trace=fsync,fdatasync", "-e", &inject]);
        strace
    };
    let test = std::env::current_exe().unwrap();
    let arguments = ["--exact", "faults::child", "--nocapture"];
    if begin == Begin::AtTheStart {
        return strace().arg(test).args(arguments).env(CHILD, dir).output().unwrap();
    }
    let mut child = Command::new(test)
        .args(arguments)
        .env(CHILD, dir)
        .env(WAITS, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut text = String::new();
    while !text.ends_with("open\n") {
        assert!(stdout.read_line(&mut text).unwrap() > 0, "{text}");
    }
    let mut tracer = strace().args(["-p", &child.id().to_string()]).stderr(Stdio::piped()).spawn().unwrap();
    let mut attached = String::new();
    let mut messages = BufReader::new(tracer.stderr.take().unwrap());
    assert!(messages.read_line(&mut attached).unwrap() > 0 && attached.contains("attached"), "{attached}");
    child.stdin.take().unwrap().write_all(b"\n").unwrap();
    stdout.read_to_string(&mut text).unwrap();
    let output = child.wait_with_output().unwrap();
    tracer.wait().unwrap();
    Output { stdout: text.into_bytes(), ..output }
}

/// Runs the child with one fault, and checks what it left. Whether the fault came about.
async fn with_fault(calls: &str, fault: &str, n: u32, begin: Begin) -> bool {
    let rig = Rig::new();
    let output = run(calls, fault, n, begin, &rig.path());
    let text = String::from_utf8(output.stdout).unwrap();
    let mut admitted = BTreeSet::new();
    let (mut settling, mut settled) = (BTreeSet::new(), BTreeSet::new());
    let mut reached_the_end = false;
    for line in text.lines() {
        let id = || line.split(' ').nth(1).unwrap().parse::<MessageId>().unwrap();
        match line.split(' ').next() {
            Some("admitted") => drop(admitted.insert(id())),
            Some("settling") => drop(settling.insert(id())),
            Some("settled") => drop(settled.insert(id())),
            Some("closed") => reached_the_end = line.ends_with("true"),
            _ => {}
        }
    }
    let (store, recovery) = rig.recover();
    assert!(recovery.quarantined.is_empty(), "{fault} {n}: {recovery:?}\n{text}");
    let mut there = BTreeSet::new();
    for entry in store.search(QueueFilter::default(), None, 100).await.unwrap() {
        let waiting = store.load(entry.id).await.unwrap().unwrap();
        let content = stored(&store, &waiting).await;
        assert!((0..6).any(|n| content == octets(n, content.len())), "{fault} {n}: whole or not there");
        there.insert(entry.id.message);
    }
    for id in &admitted {
        assert!(there.contains(id) || settling.contains(id), "{fault} {n}: {id} is lost\n{text}");
    }
    assert!(settled.iter().all(|id| !there.contains(id)), "{fault} {n}: back again\n{text}");
    assert!(store.verify().await.unwrap().is_sound());
    // The child ends as it should exactly when nothing came in its way.
    !(reached_the_end && output.status.success() && admitted.len() == 6)
}

async fn all_faults(fault: &str) {
    if Command::new("strace").arg("-V").output().is_err() {
        eprintln!("skipped: strace is not installed");
        return;
    }
    // Content is synced by one thread with fdatasync, rows and directories by others with fsync: taken together, the first
    // of one would hide the first of the other.
    for (begin, calls, least) in [
        (Begin::AtTheStart, "fsync,fdatasync", 8),
        (Begin::OnceOpen, "fsync", 10),
        (Begin::OnceOpen, "fdatasync", 5),
    ] {
        let mut n = 1;
        while with_fault(calls, fault, n, begin).await {
            n += 1;
        }
        assert!(n > least, "only {n} faults came about {begin:?} {calls}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_fsync_may_fail() {
    all_faults("error=EIO").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_fsync_may_be_the_last_thing() {
    all_faults("signal=KILL").await;
}

/// Eight clients at a time, so that the content of one group is synced while another commits: whichever of the two syncs
/// fails or is the last, what was acknowledged is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_fsync_may_fail_while_another_is_under_way() {
    if Command::new("strace").arg("-V").output().is_err() {
        eprintln!("skipped: strace is not installed");
        return;
    }
    for fault in ["error=EIO", "signal=KILL"] {
        // The child has no end of its own, so every fault comes about. The start of a store that is there has
        // fewer fsyncs than these.
        for (calls, n) in [
            ("fsync", 20),
            ("fsync", 37),
            ("fsync", 90),
            ("fdatasync", 7),
            ("fdatasync", 19),
            ("fdatasync", 40),
        ] {
            let rig = Rig::tuned(|config| config.crashes_max = 1000);
            drop(rig.open());
            let output = Command::new("strace")
                .args(["-f", "-o", "/dev/null", "-e", "trace=fsync,fdatasync", "-e"])
                .arg(format!("inject={calls}:{fault}:when={n}"))
                .arg(std::env::current_exe().unwrap())
                .args(["--exact", "crash::child", "--nocapture"])
                .env(crate::crash::CHILD, rig.path())
                .output()
                .unwrap();
            assert!(!output.status.success(), "{calls} {fault} {n}");
            let mut said = crate::crash::Said::default();
            // The last line may be cut short.
            let text = String::from_utf8_lossy(&output.stdout);
            text.split_inclusive('\n').filter_map(|l| l.strip_suffix('\n')).for_each(|l| said.heard(l));
            assert!(!said.admitted.is_empty(), "{calls} {fault} {n}");
            said.holds(&rig).await;
        }
    }
}
