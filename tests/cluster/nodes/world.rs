//! A cluster as a company would build it: relays and engines on machines of their own, the next hop elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mail::Clock;
use posthouse_tests::client::{self, Reply};
use posthouse_tests::letter::Letter;
use posthouse_tests::neighbours::lan::{Lan, Machine};
use posthouse_tests::neighbours::patroni::{Builder as ClusterBuilder, Patroni};
use posthouse_tests::neighbours::postgres::USER;
use posthouse_tests::relay::{Builder, Relay};
use posthouse_tests::sink::{Options, Sink};
use posthouse_tests::wait::eventually;

use super::arrivals::Arrivals;
use super::driver::{Driver, Sizes};

/// How long anything may take that has no bound of its own.
pub(crate) const EVER: Duration = Duration::from_secs(150);

/// What a node had in hand is somebody else's this long after it was killed, frozen or cut off; half as much again, for a
/// busy machine.
pub(crate) const TAKEN_OVER: Duration = Duration::from_secs(18);

/// Skips a test where the cluster cannot be built.
macro_rules! cluster {
    ($($more:literal),*) => {
        let needs = [&posthouse_tests::neighbours::patroni::NEEDS[..], &[$($more),*]].concat();
        if let Some(why) = posthouse_tests::neighbours::missing(&needs) {
            return posthouse_tests::neighbours::skip(&why);
        }
    };
}
pub(crate) use cluster;

/// A time in which a node could not tell what it had done: it was killed, frozen or cut off.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    pub(crate) node: IpAddr,
    pub(crate) from: Duration,
    /// Until it was whole again; open while it is not.
    pub(crate) until: Option<Duration>,
}

/// What the world is to be like.
pub(crate) struct Setup<'a> {
    relays: usize,
    place: Option<PathBuf>,
    change: Box<dyn Fn(Builder) -> Builder + 'a>,
}

impl<'a> Setup<'a> {
    /// So many relays on three engines.
    pub(crate) fn relays(relays: usize) -> Self {
        Self { relays, place: None, change: Box::new(|builder| builder) }
    }

    /// Everything that is kept is kept below `place`.
    pub(crate) fn on(mut self, place: &Path) -> Self {
        self.place = Some(place.to_owned());
        self
    }

    /// Configures the relays.
    pub(crate) fn with(mut self, change: impl Fn(Builder) -> Builder + 'a) -> Self {
        self.change = Box::new(change);
        self
    }

    /// Builds and starts it all.
    pub(crate) fn start(self) -> Nodes {
        let mut lan = Lan::new();
        let clock = Clock::system();
        let mut cluster: ClusterBuilder = Patroni::builder();
        if let Some(place) = &self.place {
            cluster = cluster.on(place);
        }
        let patroni = cluster.start(&mut lan);
        let arrivals = Arrivals::new(clock.clone());
        let judge = Arc::clone(&arrivals);
        let options = Options { keep_content: false, ..Options::default() };
        let sink =
            Sink::on(SocketAddr::from(([10, 77, 0, 1], 25)), options.script(move |stage| judge.act(stage)));
        let url = format!("\"{}?sslmode=disable\"", patroni.url());
        let relays = (1..=self.relays)
            .map(|n| {
                let machine = lan.machine(&format!("relay{n}"));
                let mut builder = Relay::builder()
                    .on(&machine)
                    .set("store", "engine", "\"postgres\"")
                    .set("store", "url", &url)
                    .set("store", "connections", "10")
                    .set("cluster", "node", &format!("\"{}\"", machine.name()));
                if let Some(place) = &self.place {
                    builder = builder.data_dir(&place.join(machine.name()));
                }
                Node { relay: (self.change)(builder).route(&[], &sink.url()).prepare(), machine }
            })
            .collect();
        let mut nodes = Nodes {
            relays,
            faults: Mutex::default(),
            arrivals,
            sink,
            patroni,
            clock,
            sent: Mutex::default(),
            _lan: lan,
        };
        nodes.start_all();
        nodes
    }
}

/// A relay and its machine.
pub(crate) struct Node {
    pub(crate) relay: Relay,
    pub(crate) machine: Machine,
}

/// All of it. Fields are dropped in this order: relays first, then what they stand on.
pub(crate) struct Nodes {
    pub(crate) relays: Vec<Node>,
    faults: Mutex<Vec<Fault>>,
    pub(crate) arrivals: Arc<Arrivals>,
    pub(crate) sink: Sink,
    pub(crate) patroni: Patroni,
    pub(crate) clock: Clock,
    /// What the test sent itself.
    sent: Mutex<BTreeSet<String>>,
    _lan: Lan,
}

impl Nodes {
    /// Clients that send to all nodes, and have begun to.
    pub(crate) fn drive(&self, clients: usize, sizes: Sizes) -> Driver {
        let addresses = self.relays.iter().map(|node| SocketAddr::new(node.machine.address(), 25)).collect();
        let driver = Driver::start(self.clock.clone(), addresses, &self.arrivals, clients, sizes);
        driver.wait_for("letters are acknowledged", 60, EVER, |_| true);
        driver
    }

    /// This moment.
    pub(crate) fn now(&self) -> Duration {
        self.clock.mono().0
    }

    /// Sends one letter of the test's own to a node, which has to take it.
    pub(crate) fn send(&self, n: usize, id: &str, to: &str) -> Reply {
        let letter = Letter::new(id, 2_000);
        self.arrivals.sending(&letter);
        let smtp = self.relays[n].relay.smtp();
        let reply = client::send_one(smtp, "sender@client.example", &[to], &letter.bytes).expect(250);
        self.sent.lock().unwrap().insert(letter.id);
        reply
    }

    /// The letters that the test sent itself, each of which was acknowledged.
    pub(crate) fn sent(&self) -> BTreeSet<String> {
        self.sent.lock().unwrap().clone()
    }

    /// The address of a node.
    pub(crate) fn address(&self, n: usize) -> IpAddr {
        self.relays[n].machine.address()
    }

    /// The nodes whose relay runs.
    pub(crate) fn running(&self) -> Vec<usize> {
        (0..self.relays.len()).filter(|n| self.relays[*n].relay.runs()).collect()
    }

    fn start_all(&mut self) {
        for node in &mut self.relays {
            node.relay.rewrap(node.machine.prefix());
            node.relay.launch();
        }
        for node in &mut self.relays {
            node.relay.await_listening();
        }
    }

    /// SIGKILL for a relay.
    pub(crate) fn kill(&mut self, n: usize) {
        self.fault(n);
        self.relays[n].relay.kill9();
    }

    /// Starts the relay of a node again, and its machine if need be.
    pub(crate) fn start(&mut self, n: usize) {
        let node = &mut self.relays[n];
        if !node.machine.is_on() {
            node.machine.power_on();
        }
        node.relay.rewrap(node.machine.prefix());
        node.relay.start();
        self.whole(n);
    }

    /// SIGSTOP for a relay.
    pub(crate) fn freeze(&self, n: usize) {
        self.fault(n);
        self.relays[n].relay.freeze();
    }

    /// SIGCONT.
    pub(crate) fn thaw(&self, n: usize) {
        self.relays[n].relay.thaw();
    }

    /// Cuts the machine of a relay off from all others.
    pub(crate) fn cut_off(&mut self, n: usize) {
        self.fault(n);
        self.relays[n].machine.cut_off();
    }

    /// Joins it again.
    pub(crate) fn join(&mut self, n: usize) {
        self.relays[n].machine.join();
    }

    /// Cuts a relay off from every engine, and from nothing else; or joins it again.
    pub(crate) fn without_engines(&self, n: usize, without: bool) {
        if without {
            self.fault(n);
        }
        for engine in 0..self.patroni.len() {
            self.relays[n].machine.deaf_to(self.patroni.address(engine), without);
        }
    }

    /// Takes the power from every machine, and from the disk that everything is on.
    pub(crate) fn power_off_all(&mut self, cut: impl FnOnce()) {
        for n in self.running() {
            // Before the disk: what comes to pass on a dead disk must not be told to anybody.
            self.freeze(n);
        }
        cut();
        for node in &mut self.relays {
            // It stands still: it says nothing more. A stopped wrapper would keep what is left of it.
            node.relay.kill9();
            node.machine.power_off();
        }
        self.patroni.power_off_all();
    }

    /// Switches everything on again.
    pub(crate) fn power_on_all(&mut self) {
        self.patroni.start_all();
        for node in &mut self.relays {
            node.machine.power_on();
        }
        self.start_all();
        for n in 0..self.relays.len() {
            self.whole(n);
        }
    }

    /// From now on a node cannot tell what it has done.
    pub(crate) fn fault(&self, n: usize) {
        let fault = Fault { node: self.address(n), from: self.now(), until: None };
        self.faults.lock().unwrap().push(fault);
    }

    /// Now it can.
    pub(crate) fn whole(&self, n: usize) {
        let (node, now) = (self.address(n), self.now());
        for fault in self.faults.lock().unwrap().iter_mut().filter(|f| f.node == node) {
            fault.until.get_or_insert(now);
        }
    }

    /// Waits until a node has begun a new life, and notes that it is whole. Returns when that was.
    pub(crate) fn wait_reborn(&self, n: usize, old: i64) -> Duration {
        eventually("it has a new epoch", EVER, || (self.epochs().get(self.name(n))? > &old).then_some(()));
        self.whole(n);
        self.now()
    }

    /// Waits until a node has been declared dead and all that it had in hand was given back. Returns when that was.
    pub(crate) fn wait_given_back(&self, n: usize) -> Duration {
        let name = self.name(n);
        let statement = format!("SELECT state = 'dead' AND NOT owed FROM cluster.node WHERE name = '{name}'");
        eventually("what it had in hand is given back", EVER, || {
            (self.patroni.try_sql(self.patroni.leader()?, USER, &statement).ok()? == "t").then_some(())
        });
        self.now()
    }

    /// The times in which nodes could not tell what they had done.
    pub(crate) fn faults(&self) -> Vec<Fault> {
        self.faults.lock().unwrap().clone()
    }

    /// What a node is called.
    pub(crate) fn name(&self, n: usize) -> &str {
        self.relays[n].machine.name()
    }

    /// The leader of the engines.
    pub(crate) fn leader(&self) -> usize {
        self.patroni.wait_leader("there is a leader", |_| true)
    }

    /// The engines that are not `n`.
    pub(crate) fn standbys(&self, n: usize) -> Vec<usize> {
        (0..self.patroni.len()).filter(|m| *m != n).collect()
    }

    /// The epoch of each node: a new one means that it was started anew or declared dead.
    pub(crate) fn epochs(&self) -> BTreeMap<String, i64> {
        self.column("epoch")
    }

    /// How often each node has beaten in this life.
    pub(crate) fn beats(&self) -> BTreeMap<String, i64> {
        self.column("beat")
    }

    fn column(&self, column: &str) -> BTreeMap<String, i64> {
        let statement = format!("SELECT name, {column} FROM cluster.node WHERE state = 'up'");
        let rows = eventually("the leader tells of the nodes", EVER, || {
            self.patroni.try_sql(self.patroni.leader()?, USER, &statement).ok()
        });
        let pair = |line: &str| line.split_once('|').map(|(name, n)| (name.to_owned(), n.parse().unwrap()));
        rows.lines().filter_map(pair).collect()
    }

    /// How many commits of relays wait for a standby on an engine.
    pub(crate) fn waiting(&self, engine: usize) -> usize {
        self.to_waiting(engine, "")
    }

    /// Does something to every backend of a relay that waits for a standby: `pg_cancel_backend`, or nothing. Returns to how many.
    pub(crate) fn to_waiting(&self, engine: usize, what: &str) -> usize {
        let statement = format!(
            "SELECT count({what}(pid)) FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND usename = '{USER}'"
        );
        self.patroni.sql(engine, "postgres", &statement).parse().unwrap()
    }
}
