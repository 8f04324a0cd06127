//! What the next hop was given: by whom, when, and whether it took it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use mail::Clock;
use posthouse_tests::letter::Letter;
use posthouse_tests::sink::{Act, Received, Stage, reply};
use posthouse_tests::wait::eventually;

/// A message whose last octet has come.
#[derive(Clone, Debug)]
pub(crate) struct Arrival {
    /// The letter's id; of a report, that of the letter which it is about.
    pub(crate) id: String,
    /// Whether it is a report.
    pub(crate) report: bool,
    /// The node that brought it.
    pub(crate) from: IpAddr,
    /// When its last octet came, by the world's clock.
    pub(crate) at: Duration,
    /// Whether it was answered by 250.
    pub(crate) taken: bool,
}

/// What mail for a domain meets with at the next hop.
#[derive(Clone)]
pub(crate) enum Manner {
    /// It has to wait at this gate after DATA, before its content is asked for.
    BeforeContent(Arc<Gate>),
    /// It has to wait at this gate when all of it has come, and then for its answer.
    BeforeAnswer(Arc<Gate>),
    /// It is taken after so long.
    Slowly(Duration),
}

/// Where sessions wait until they are let through.
#[derive(Default)]
pub(crate) struct Gate {
    /// What those are told who come from a node; nothing yet: they wait.
    answers: Mutex<BTreeMap<IpAddr, Act>>,
    changed: Condvar,
}

impl Gate {
    /// From now on this is what everybody from that node is told.
    pub(crate) fn answer(&self, node: IpAddr, act: Act) {
        self.answers.lock().unwrap().insert(node, act);
        self.changed.notify_all();
    }

    fn wait(&self, node: IpAddr) -> Act {
        let mut answers = self.answers.lock().unwrap();
        loop {
            if let Some(act) = answers.get(&node) {
                return act.clone();
            }
            answers = self.changed.wait(answers).unwrap();
        }
    }
}

/// The account of the next hop.
pub(crate) struct Arrivals {
    clock: Clock,
    arrivals: Mutex<Vec<Arrival>>,
    manners: Mutex<BTreeMap<String, Manner>>,
    /// SHA-256 of each letter, as its sender has noted it.
    hashes: Mutex<BTreeMap<String, String>>,
    spoilt: Mutex<Vec<String>>,
    /// Who waits before the content is asked for: node and recipient.
    asked: Mutex<Vec<(IpAddr, String)>>,
}

/// A domain whose recipients do not exist.
pub(crate) const REFUSED: &str = "refused.example";

impl Arrivals {
    pub(crate) fn new(clock: Clock) -> Arc<Self> {
        Arc::new(Self {
            clock,
            arrivals: Mutex::default(),
            manners: Mutex::default(),
            hashes: Mutex::default(),
            spoilt: Mutex::default(),
            asked: Mutex::default(),
        })
    }

    /// Mail for this domain is treated like that from now on.
    pub(crate) fn treat(&self, domain: &str, manner: Manner) {
        self.manners.lock().unwrap().insert(domain.to_owned(), manner);
    }

    /// Notes what a letter is, before any octet of it is sent.
    pub(crate) fn sending(&self, letter: &Letter) {
        self.hashes.lock().unwrap().insert(letter.id.clone(), letter.hash());
    }

    /// All that came so far.
    pub(crate) fn all(&self) -> Vec<Arrival> {
        self.arrivals.lock().unwrap().clone()
    }

    /// How many messages were taken so far, reports included.
    pub(crate) fn taken(&self) -> usize {
        self.arrivals.lock().unwrap().iter().filter(|a| a.taken).count()
    }

    /// The ids of those that were taken, and of those that were reported.
    pub(crate) fn accounted(&self) -> BTreeSet<String> {
        self.arrivals.lock().unwrap().iter().filter(|a| a.taken).map(|a| a.id.clone()).collect()
    }

    /// Waits until so many wait before their content, and returns which nodes brought them.
    pub(crate) fn wait_asked(&self, domain: &str, n: usize) -> Vec<IpAddr> {
        eventually(&format!("{n} letters for {domain} wait for 354"), Duration::from_secs(60), || {
            let asked = self.asked.lock().unwrap();
            let found: Vec<IpAddr> =
                asked.iter().filter(|(_, rcpt)| domain_of(rcpt) == domain).map(|(node, _)| *node).collect();
            (found.len() >= n).then_some(found)
        })
    }

    /// Waits until all of so many letters has come whose id begins like this, `from` that node or any.
    pub(crate) fn wait_offered(
        &self,
        prefix: &str,
        from: Option<IpAddr>,
        n: usize,
        within: Duration,
    ) -> Vec<Arrival> {
        eventually(&format!("{n} letters {prefix} from {from:?}"), within, || {
            let found: Vec<Arrival> = self
                .all()
                .into_iter()
                .filter(|a| a.id.starts_with(prefix) && from.is_none_or(|from| from == a.from))
                .collect();
            (found.len() >= n).then_some(found)
        })
    }

    /// What the next hop does at a stage.
    pub(crate) fn act(&self, stage: &Stage<'_>) -> Act {
        match stage {
            Stage::Rcpt(path) if domain_of(path) == REFUSED => reply("550 5.1.1 There is no such user here"),
            Stage::Data(envelope) => self.data(envelope),
            Stage::Message(message) => self.message(message),
            _ => Act::Usual,
        }
    }

    fn data(&self, envelope: &Received) -> Act {
        let Some(Manner::BeforeContent(gate)) = self.manner(envelope) else { return Act::Usual };
        let node = node_of(envelope);
        self.asked.lock().unwrap().push((node, envelope.rcpts[0].clone()));
        gate.wait(node)
    }

    fn manner(&self, envelope: &Received) -> Option<Manner> {
        let rcpt = envelope.rcpts.first()?;
        self.manners.lock().unwrap().get(domain_of(rcpt)).cloned()
    }

    fn message(&self, message: &Received) -> Act {
        let at = self.clock.mono().0;
        let from = node_of(message);
        let report = message.sender().is_empty();
        let id = if report { subject_of_report(message) } else { self.verified(message) };
        let index = {
            let mut arrivals = self.arrivals.lock().unwrap();
            arrivals.push(Arrival { id, report, from, at, taken: false });
            arrivals.len() - 1
        };
        let act = match self.manner(message) {
            Some(Manner::BeforeAnswer(gate)) => gate.wait(from),
            Some(Manner::Slowly(time)) => Act::Wait(time),
            _ => Act::Usual,
        };
        // What is answered late is taken all the same: the node may have gone by then, but the next hop has it.
        self.arrivals.lock().unwrap()[index].taken = !matches!(act, Act::Reply(_) | Act::Close);
        act
    }

    /// The id of a letter, which has to be what was sent, octet for octet.
    fn verified(&self, message: &Received) -> String {
        let letter = Letter::from_arrived(&message.data);
        let hash = self.hashes.lock().unwrap().get(&letter.id).cloned();
        if hash.as_ref() != Some(&letter.hash()) {
            let what = if hash.is_none() { "was never sent" } else { "was changed on its way" };
            self.spoilt.lock().unwrap().push(format!("letter {} {what}", letter.id));
        }
        letter.id
    }

    /// What is wrong with what came.
    pub(crate) fn spoilt(&self) -> Vec<String> {
        self.spoilt.lock().unwrap().clone()
    }
}

fn node_of(message: &Received) -> IpAddr {
    message.client.expect("a client").ip()
}

fn domain_of(path: &str) -> &str {
    path.split_once('@').map_or("", |(_, domain)| domain.split('>').next().unwrap_or_default())
}

fn subject_of_report(message: &Received) -> String {
    let text = message.text();
    let id = text.lines().find_map(|line| line.strip_prefix("X-Proof-Id: "));
    id.unwrap_or_else(|| panic!("a report without the header it is about:\n{text}")).to_owned()
}
