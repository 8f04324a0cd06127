//! Answers that get lost on the way: what was committed counts once, whoever asks again.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;

use super::*;

/// Stands between a node and the server. Told to, it lets the next COMMIT through and keeps the answer.
struct Between {
    port: u16,
    armed: Arc<AtomicBool>,
    lost: Arc<AtomicU32>,
}

impl Between {
    fn start(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (armed, lost) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
        let between = Self { port, armed: armed.clone(), lost: lost.clone() };
        thread::spawn(move || {
            for client in listener.incoming() {
                let client = client.unwrap();
                let server = TcpStream::connect(("127.0.0.1", server)).unwrap();
                let keep = Arc::new(AtomicBool::new(false));
                let back = (server.try_clone().unwrap(), client.try_clone().unwrap(), keep.clone());
                let (armed, lost) = (armed.clone(), lost.clone());
                thread::spawn(move || to_server(client, server, &armed, &keep));
                thread::spawn(move || to_client(back.0, back.1, &back.2, &lost));
            }
        });
        between
    }
}

fn to_server(mut client: TcpStream, mut server: TcpStream, armed: &AtomicBool, keep: &AtomicBool) {
    let mut buffer = [0; 65_536];
    while let Ok(n @ 1..) = client.read(&mut buffer) {
        let is_commit = buffer[..n].windows(7).any(|w| w == b"COMMIT\0" || w == b" COMMIT");
        if is_commit && armed.swap(false, Ordering::SeqCst) {
            keep.store(true, Ordering::SeqCst);
        }
        if server.write_all(&buffer[..n]).is_err() {
            break;
        }
    }
    let _ = server.shutdown(Shutdown::Both);
}

fn to_client(mut server: TcpStream, mut client: TcpStream, keep: &AtomicBool, lost: &AtomicU32) {
    let mut buffer = [0; 65_536];
    while let Ok(n @ 1..) = server.read(&mut buffer) {
        if keep.load(Ordering::SeqCst) {
            // The answer to the COMMIT is here, so it is committed: nobody is told.
            lost.fetch_add(1, Ordering::SeqCst);
            break;
        }
        if client.write_all(&buffer[..n]).is_err() {
            break;
        }
    }
    let _ = client.shutdown(Shutdown::Both);
    let _ = server.shutdown(Shutdown::Both);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_answer_is_lost_counts_once() {
    let cluster = Cluster::new();
    let between = Between::start(Server::shared().port());
    let database = cluster.config.url.rsplit('/').next().unwrap();
    let mut config = cluster.config.clone();
    config.url = format!("postgres://postgres@127.0.0.1:{}/{database}?sslmode=disable", between.port);
    let a = cluster.try_open(A, 1, Pool::connect(config).await.unwrap()).await.unwrap().0;
    let mut last = None;
    for n in 0..5_u8 {
        between.armed.store(true, Ordering::SeqCst);
        let waiting = admit_one(&a, &[n]).await;
        assert_eq!(between.lost.load(Ordering::SeqCst), u32::from(n) * 2 + 1);
        between.armed.store(true, Ordering::SeqCst);
        let due = cluster.now();
        let deferred = settlement(waiting.id, Next::Deferred { due, attempts: 1 });
        assert!(a.settled(deferred).await.unwrap().found);
        assert_eq!(between.lost.load(Ordering::SeqCst), u32::from(n) * 2 + 2);
        last = Some(waiting.id);
    }
    between.armed.store(true, Ordering::SeqCst);
    let hold = Action::Hold { reason: "why".into() };
    let one = QueueFilter { deliveries: vec![last.unwrap()], ..QueueFilter::default() };
    assert_eq!(a.change(one.clone(), hold, "op".into(), false).await.unwrap().count, 1);
    assert_eq!(between.lost.load(Ordering::SeqCst), 11);
    assert_eq!(a.change(one, Action::Release, "op".into(), false).await.unwrap().count, 1);
    assert_eq!(cluster.sql("SELECT count(*) FROM store.told"), "2", "other nodes are told once of each");
    // Each once, and the sums and the numbers of events as if nothing had happened.
    assert_eq!(a.counts().await.unwrap().waiting, 5);
    let numbers: Vec<_> = a.outbox(0, 100).await.unwrap().into_iter().map(|(seq, _)| seq).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(cluster.sql("SELECT count(*), max(seq) FROM store.outbox"), "7|7");
    assert_eq!(a.load(last.unwrap()).await.unwrap().unwrap().attempts, 1);
    let report = a.verify().await.unwrap();
    assert!(report.is_sound(), "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_server_is_away_settlements_wait_and_admissions_are_told_to_come_again() {
    let server = Server::start(&[]);
    let mut config = server.database();
    config.hold = Duration::from_millis(500);
    let cluster = Cluster { config, dir: tempfile::tempdir().unwrap(), clock: ManualClock::new(START) };
    let a = cluster.open(A, 1).await;
    let waiting = admit_one(&a, b"before").await;
    let late = admission(&a, b"meanwhile", vec![delivery("dest.example", 0..1, NewState::Active)]).await;
    server.down();
    let settling = tokio::spawn({
        let a = a.clone();
        async move { a.settled(settlement(waiting.id, Next::Done)).await }
    });
    let refused = a.admit(late).await;
    assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
    assert!(matches!(a.room(), Err(store::NoRoom::Unavailable)), "nothing new is taken meanwhile");
    assert!(!settling.is_finished());
    server.up();
    assert!(settling.await.unwrap().unwrap().found);
    assert!(a.room().is_ok());
    admit_one(&a, b"after").await;
    assert_eq!(a.counts().await.unwrap().all(), 1);
}
