//! Who was told `250` for what: clients that never stop sending, and the account that must balance in the end.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use mail::Clock;

use crate::client::Smtp;
use crate::letter::Letter;
use crate::sink::{Received, Sink};

#[derive(Default)]
struct Book {
    /// Every letter of which an octet may have left, by id, with its hash.
    sent: HashMap<String, String>,
    /// Those that were answered by 250.
    acknowledged: BTreeSet<String>,
    /// Those that were refused, with the reply.
    refused: BTreeMap<String, String>,
}

/// What was sent and what was promised.
#[derive(Clone, Default)]
pub struct Ledger(Arc<Mutex<Book>>);

impl Ledger {
    /// Notes that a letter is about to be sent.
    pub fn sending(&self, letter: &Letter) {
        self.0.lock().unwrap().sent.insert(letter.id.clone(), letter.hash());
    }

    /// Notes that a letter was acknowledged.
    pub fn acknowledged(&self, letter: &Letter) {
        self.0.lock().unwrap().acknowledged.insert(letter.id.clone());
    }

    /// How many were acknowledged so far.
    pub fn count(&self) -> usize {
        self.0.lock().unwrap().acknowledged.len()
    }

    /// The replies that letters were refused with.
    pub fn refusals(&self) -> Vec<String> {
        self.0.lock().unwrap().refused.values().cloned().collect()
    }

    /// The ids that were acknowledged.
    pub fn promised(&self) -> BTreeSet<String> {
        self.0.lock().unwrap().acknowledged.clone()
    }

    /// The ids that were promised and are in none of `arrived`.
    pub fn missing(&self, arrived: &BTreeSet<String>) -> Vec<String> {
        self.0.lock().unwrap().acknowledged.difference(arrived).cloned().collect()
    }

    /// Waits until everything that was promised has arrived, then judges it; returns the number of copies beyond the first.
    #[track_caller]
    pub fn settle(&self, sink: &Sink, within: Duration) -> usize {
        let clock = Clock::system();
        while clock.mono().0 < within && sink.count() < self.count() {
            std::thread::sleep(Duration::from_millis(5));
        }
        eventually_none(within, || self.missing(&ids(&sink.messages())));
        self.judge(&sink.messages())
    }

    /// Panics unless every message is, octet for octet, a letter that was sent. Returns the number of copies beyond the first.
    #[track_caller]
    pub fn judge(&self, messages: &[Received]) -> usize {
        let book = self.0.lock().unwrap();
        let mut seen = BTreeSet::new();
        for message in messages {
            let letter = Letter::from_arrived(&message.data);
            let hash = book.sent.get(&letter.id).unwrap_or_else(|| panic!("{} was never sent", letter.id));
            assert_eq!(&letter.hash(), hash, "letter {} was changed on its way", letter.id);
            seen.insert(letter.id);
        }
        messages.len() - seen.len()
    }
}

/// Waits until nothing is missing; says what is.
#[track_caller]
fn eventually_none(within: Duration, missing: impl Fn() -> Vec<String>) {
    let clock = Clock::system();
    loop {
        let gone = missing();
        if gone.is_empty() {
            return;
        }
        let some = &gone[..gone.len().min(10)];
        assert!(
            clock.mono().0 < within,
            "{} acknowledged letters did not arrive, such as {some:?}",
            gone.len()
        );
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// The ids of the letters in `messages`.
pub fn ids(messages: &[Received]) -> BTreeSet<String> {
    messages.iter().map(|m| Letter::from_arrived(&m.data).id).collect()
}

/// Clients that send letter after letter, reconnect when they are cut off, and keep the ledger.
pub struct Pump {
    /// The account.
    pub ledger: Ledger,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Pump {
    /// Starts `clients` clients that send letters of `size` octets to one of `domains` in turn, each in a new connection or,
    /// every other client, in a connection that it keeps.
    pub fn start(to: SocketAddr, clients: usize, size: usize, domains: &'static [&'static str]) -> Self {
        Self::into(&Ledger::default(), to, clients, size, domains)
    }

    /// The same, into a ledger that other pumps have written before.
    pub fn into(
        ledger: &Ledger,
        to: SocketAddr,
        clients: usize,
        size: usize,
        domains: &'static [&'static str],
    ) -> Self {
        static PUMPS: AtomicU64 = AtomicU64::new(0);
        let (ledger, pump) = (ledger.clone(), PUMPS.fetch_add(1, Ordering::Relaxed));
        let stop = Arc::new(AtomicBool::new(false));
        let next = Arc::new(AtomicU64::new(0));
        let threads = (0..clients)
            .map(|client| {
                let (ledger, stop, next) = (ledger.clone(), Arc::clone(&stop), Arc::clone(&next));
                std::thread::spawn(move || {
                    let mut kept = None;
                    while !stop.load(Ordering::Relaxed) {
                        let n = next.fetch_add(1, Ordering::Relaxed);
                        let domain = domains[usize::try_from(n).unwrap() % domains.len()];
                        let letter = Letter::new(format!("pump-{pump}-{n}"), size);
                        if send(&mut kept, to, &letter, domain, &ledger).is_none() {
                            kept = None;
                            std::thread::sleep(Duration::from_millis(10));
                        }
                        if client % 2 == 0 {
                            kept = None;
                        }
                    }
                })
            })
            .collect();
        Self { ledger, stop, threads }
    }

    /// Lets every client finish its letter, and returns the account.
    pub fn stop(self) -> Ledger {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("a client of the pump");
        }
        self.ledger
    }
}

/// One letter; `None` when the connection is of no more use.
fn send(
    kept: &mut Option<Smtp>,
    to: SocketAddr,
    letter: &Letter,
    domain: &str,
    ledger: &Ledger,
) -> Option<()> {
    if kept.is_none() {
        let mut smtp = Smtp::try_dial(to).ok()?;
        (smtp.try_reply().ok()?.code == 220).then_some(())?;
        (smtp.try_cmd("EHLO client.example").ok()?.code == 250).then_some(())?;
        *kept = Some(smtp);
    }
    let smtp = kept.as_mut()?;
    let refused = |reply: String| ledger.0.lock().unwrap().refused.insert(letter.id.clone(), reply);
    for line in [
        "MAIL FROM:<sender@client.example>".to_owned(),
        format!("RCPT TO:<someone@{domain}>"),
        "DATA".to_owned(),
    ] {
        let reply = smtp.try_cmd(&line).ok()?;
        if reply.code >= 400 {
            refused(reply.to_string());
            return None;
        }
    }
    ledger.sending(letter);
    smtp.send(&crate::client::stuffed(&letter.bytes)).ok()?;
    let reply = smtp.try_reply().ok()?;
    if reply.code == 250 {
        ledger.acknowledged(letter);
        Some(())
    } else {
        refused(reply.to_string());
        None
    }
}
