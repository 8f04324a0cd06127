//! Clients of the cluster: each sends letter after letter, to whichever node takes them, and writes down what it was promised.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use mail::Clock;
use posthouse_tests::client::{Smtp, stuffed};
use posthouse_tests::letter::Letter;
use posthouse_tests::wait::eventually;

use super::arrivals::{Arrivals, REFUSED};
use crate::journal::Journal;

/// How long a client waits for an answer: longer than a commit is held.
const PATIENCE: Duration = Duration::from_secs(100);

/// How large letters are.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Sizes {
    /// 1 to 16 KB.
    Small,
    /// From 1 KB to 49 MB: beyond what is kept in one row, one piece, memory.
    All,
}

impl Sizes {
    fn of(self, n: u64) -> usize {
        let small = 1_000 + usize::try_from(n.wrapping_mul(7_919) % 15_000).unwrap();
        match self {
            Self::Small => small,
            Self::All if n % 400 == 57 => 49_000_000,
            Self::All if n % 100 == 33 => 5_000_000,
            Self::All if n % 20 == 7 => 300_000,
            Self::All => small,
        }
    }
}

/// How a try came out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// 250 after the final dot.
    Acknowledged,
    /// Anything else that was said.
    Refused(String),
    /// The connection went without a word.
    Cut(String),
}

/// One letter that somebody tried to send.
#[derive(Clone, Debug)]
pub(crate) struct Try {
    pub(crate) id: String,
    pub(crate) node: IpAddr,
    pub(crate) begun: Duration,
    pub(crate) ended: Duration,
    pub(crate) outcome: Outcome,
}

struct Book {
    clock: Clock,
    nodes: Vec<SocketAddr>,
    sizes: Sizes,
    arrivals: Arc<Arrivals>,
    journal: Journal,
    tries: Mutex<Vec<Try>>,
    next: AtomicU64,
    stop: AtomicBool,
}

/// Clients at work.
pub(crate) struct Driver {
    book: Arc<Book>,
    clients: Vec<JoinHandle<()>>,
}

impl Driver {
    /// Starts so many clients.
    pub(crate) fn start(
        clock: Clock,
        nodes: Vec<SocketAddr>,
        arrivals: &Arc<Arrivals>,
        clients: usize,
        sizes: Sizes,
    ) -> Self {
        let book = Arc::new(Book {
            clock,
            nodes,
            sizes,
            arrivals: Arc::clone(arrivals),
            journal: Journal::new(),
            tries: Mutex::default(),
            next: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        });
        let client = |n: usize| {
            let book = Arc::clone(&book);
            std::thread::spawn(move || client(&book, n))
        };
        Self { clients: (0..clients).map(client).collect(), book }
    }

    /// This moment by the world's clock.
    pub(crate) fn now(&self) -> Duration {
        self.book.clock.mono().0
    }

    /// The letters that came out like this.
    pub(crate) fn with(&self, wanted: impl Fn(&Outcome) -> bool) -> BTreeSet<String> {
        let tries = self.book.tries.lock().unwrap();
        tries.iter().filter(|t| wanted(&t.outcome)).map(|t| t.id.clone()).collect()
    }

    /// The letters that were promised, by the journal.
    pub(crate) fn promised(&self) -> BTreeSet<String> {
        self.book.journal.read()
    }

    /// How many letters were acknowledged so far.
    pub(crate) fn acknowledged(&self) -> usize {
        self.count(|_| true)
    }

    /// How many letters were acknowledged that are `wanted`.
    pub(crate) fn count(&self, wanted: impl Fn(&Try) -> bool) -> usize {
        let tries = self.book.tries.lock().unwrap();
        tries.iter().filter(|t| t.outcome == Outcome::Acknowledged && wanted(t)).count()
    }

    /// Waits until `n` letters that were begun from now on are acknowledged.
    pub(crate) fn wait_more(&self, what: &str, n: usize, within: Duration) {
        self.wait_since(what, self.now(), n, within);
    }

    /// Waits until `n` letters that were begun at `since` or later are acknowledged.
    pub(crate) fn wait_since(&self, what: &str, since: Duration, n: usize, within: Duration) {
        self.wait_for(what, n, within, |t| t.begun >= since);
    }

    /// Waits until `n` letters that are `wanted` are acknowledged.
    pub(crate) fn wait_for(&self, what: &str, n: usize, within: Duration, wanted: impl Fn(&Try) -> bool) {
        eventually(what, within, || {
            assert!(self.clients.iter().all(|c| !c.is_finished()), "{what}: a client has panicked");
            (self.count(&wanted) >= n).then_some(())
        });
    }

    /// The longest time without an acknowledgement since `since`, counting from the last one before it.
    pub(crate) fn longest_gap(&self, since: Duration) -> Duration {
        let ends = self.acknowledgements();
        let before = ends.iter().rposition(|t| *t <= since).unwrap_or(0);
        ends[before..].windows(2).map(|pair| pair[1].saturating_sub(pair[0])).max().unwrap_or_default()
    }

    /// From `since` to the first acknowledgement after it.
    pub(crate) fn first_after(&self, since: Duration) -> Duration {
        let first = self.acknowledgements().into_iter().find(|t| *t > since);
        first.expect("an acknowledgement after it") - since
    }

    fn acknowledgements(&self) -> Vec<Duration> {
        let tries = self.book.tries.lock().unwrap();
        tries.iter().filter(|t| t.outcome == Outcome::Acknowledged).map(|t| t.ended).collect()
    }

    /// Lets every client finish its letter.
    pub(crate) fn stop(&mut self) {
        self.book.stop.store(true, Ordering::Relaxed);
        for client in self.clients.drain(..) {
            client.join().expect("a client of the driver");
        }
    }
}

/// Sends until it is stopped. Every other client keeps its connection; each begins at another node, and goes on to the next one
/// when it is not served, and now and then.
fn client(book: &Book, number: usize) {
    let mut at = number;
    let mut kept: Option<Smtp> = None;
    while !book.stop.load(Ordering::Relaxed) {
        let n = book.next.fetch_add(1, Ordering::Relaxed);
        let letter = Letter::new(format!("letter-{n}"), book.sizes.of(n));
        let domain = match n % 50 {
            11 => REFUSED,
            n if n % 2 == 0 => "one.example",
            _ => "two.example",
        };
        let node = book.nodes[at % book.nodes.len()];
        let begun = book.clock.mono().0;
        let outcome =
            send(book, &mut kept, node, &letter, domain).unwrap_or_else(|e| Outcome::Cut(e.to_string()));
        // The moment of the answer, not that of the journal: the disk may be busy.
        let ended = book.clock.mono().0;
        let served = outcome == Outcome::Acknowledged;
        if served {
            book.journal.acknowledged(&letter.id);
        }
        book.tries.lock().unwrap().push(Try { id: letter.id, node: node.ip(), begun, ended, outcome });
        if !served || number.is_multiple_of(2) {
            kept = None;
        }
        if served && n.is_multiple_of(16) {
            // Who was sent away by one node comes back to it one day.
            (kept, at) = (None, at + 1);
        }
        if !served {
            at += 1;
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// One letter, in the connection that is kept or in a new one.
fn send(
    book: &Book,
    kept: &mut Option<Smtp>,
    node: SocketAddr,
    letter: &Letter,
    domain: &str,
) -> io::Result<Outcome> {
    let mut smtp = match kept.take() {
        Some(smtp) => smtp,
        None => {
            let mut smtp = Smtp::try_dial_within(node, Duration::from_secs(2))?;
            smtp.be_patient(PATIENCE);
            let greeting = smtp.try_reply()?;
            if greeting.code != 220 {
                return Ok(Outcome::Refused(greeting.to_string()));
            }
            smtp.try_cmd("EHLO client.example")?;
            smtp
        }
    };
    for line in ["MAIL FROM:<sender@client.example>", &format!("RCPT TO:<someone@{domain}>"), "DATA"] {
        let reply = smtp.try_cmd(line)?;
        if reply.code >= 400 {
            return Ok(Outcome::Refused(reply.to_string()));
        }
    }
    book.arrivals.sending(letter);
    smtp.send(&stuffed(&letter.bytes))?;
    let reply = smtp.try_reply()?;
    if reply.code != 250 {
        return Ok(Outcome::Refused(reply.to_string()));
    }
    *kept = Some(smtp);
    Ok(Outcome::Acknowledged)
}
