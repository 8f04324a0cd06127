//! A PostgreSQL cluster under Patroni as operators build it: etcd on a machine of its own, and machines with an agent (Patroni)
//! and an engine (PostgreSQL) each, replicating synchronously to any one of the others. Agent, engine or machine can be killed,
//! stopped, cut off and brought back; everything ends with the value, or with the test.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::cache;
use super::lan::{Lan, Machine};
use super::postgres::{PASSWORD, USER, own_directory, programs, psql, unprivileged, url};
use crate::process::Daemon;
use crate::wait::{eventually, until_listening};

mod rest;

pub use rest::Member;

/// What a test that uses the cluster needs.
pub const NEEDS: [&str; 8] = ["root", "ip", "unshare", "nsenter", "setpriv", "postgres", "patroni", "etcd"];

/// How long a lost leader's lock is good for, seconds: the least that Patroni accepts. A leader that is gone with its whole
/// machine is replaced after about this time.
pub const TTL_S: u64 = 20;

/// How long things may take that take seconds, on a machine that is busy with something else.
const SOON: Duration = Duration::from_secs(120);

/// What the cluster is to be like.
pub struct Builder {
    nodes: usize,
    strict: bool,
    place: Option<PathBuf>,
}

impl Builder {
    /// So many engines; three unless said.
    pub fn nodes(mut self, nodes: usize) -> Self {
        self.nodes = nodes;
        self
    }

    /// Without strict mode, Patroni gives up synchronous replication when no standby is left.
    pub fn strict(mut self, strict: bool) -> Self {
        self.strict = strict;
        self
    }

    /// Puts the engines' data below `place`, which may be on a disk that can fail.
    pub fn on(mut self, place: &Path) -> Self {
        self.place = Some(place.to_owned());
        self
    }

    /// Starts it, and waits until every standby replicates and may become the leader.
    pub fn start(self, lan: &mut Lan) -> Patroni {
        let dir = TempDir::with_prefix("patroni-").unwrap();
        let place = self.place.unwrap_or_else(|| dir.path().to_owned());
        for path in [dir.path(), &place] {
            fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        }
        let mut dcs = Dcs { machine: lan.machine("etcd"), place: place.clone(), etcd: None };
        dcs.start();
        let nodes = (1..=self.nodes)
            .map(|n| {
                let machine = lan.machine(&format!("pg{n}"));
                own_directory(&place.join(machine.name()));
                let config = dir.path().join(format!("{}.yml", machine.name()));
                fs::write(&config, configuration(&machine, &dcs.machine, &place, self.strict)).unwrap();
                Node { machine, config, agents: Vec::new() }
            })
            .collect();
        let mut patroni = Patroni { nodes, dcs, _dir: dir };
        patroni.start_agent(0);
        // From here on it is clear that the first node makes the database; the others wait for it.
        let begun = place.join("pg1/data/PG_VERSION");
        eventually("the first node makes the database", SOON, || begun.exists().then_some(()));
        for n in 1..patroni.nodes.len() {
            patroni.start_agent(n);
        }
        patroni.wait_leader("the first node is the leader", |n| n == 0);
        for statement in [
            format!("CREATE ROLE {USER} LOGIN PASSWORD '{PASSWORD}'"),
            format!("CREATE DATABASE {USER} OWNER {USER}"),
        ] {
            eventually("the user and the database are made", SOON, || {
                let done = patroni.try_sql(0, "postgres", &statement);
                (done.is_ok() || done.is_err_and(|why| why.contains("already exists"))).then_some(())
            });
        }
        patroni.wait_settled();
        patroni
    }
}

/// A running cluster. Nodes are counted from 0; node 0 is the first leader.
pub struct Patroni {
    nodes: Vec<Node>,
    dcs: Dcs,
    _dir: TempDir,
}

/// The machine with etcd.
struct Dcs {
    machine: Machine,
    place: PathBuf,
    etcd: Option<Daemon>,
}

struct Node {
    machine: Machine,
    config: PathBuf,
    /// The agent, and those before it, whose output is still of interest when a test fails.
    agents: Vec<Daemon>,
}

/// Whether a command line is the agent's.
fn is_agent(line: &str) -> bool {
    line.contains("/bin/patroni")
}

/// Whether a command line is the engine's.
fn is_engine(line: &str) -> bool {
    line.starts_with("postgres:") || (line.contains("/bin/postgres ") && !is_agent(line))
}

impl Patroni {
    /// Three nodes, strictly synchronous, data in a temporary directory, unless said otherwise.
    pub fn builder() -> Builder {
        Builder { nodes: 3, strict: true, place: None }
    }

    /// The URL with every node for the client's user and database.
    pub fn url(&self) -> String {
        let addresses: Vec<_> = self.nodes.iter().map(|n| format!("{}:5432", n.machine.address())).collect();
        url(&addresses)
    }

    /// How many nodes there are, whatever their state.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there is no node.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The machine of a node.
    pub fn machine(&mut self, n: usize) -> &mut Machine {
        &mut self.nodes[n].machine
    }

    /// SIGKILL for the engine, all its processes, and nothing else.
    pub fn kill_engine(&self, n: usize) {
        let killed = self.nodes[n].machine.signal(Signal::SIGKILL, is_engine);
        assert!(killed > 0, "the engine of node {n} did not run");
    }

    /// SIGKILL for the agent only: its engine runs on, and nobody looks after it.
    pub fn kill_agent(&self, n: usize) {
        let killed = self.nodes[n].machine.signal(Signal::SIGKILL, is_agent);
        assert!(killed > 0, "the agent of node {n} did not run");
    }

    /// SIGKILL for both: what is left is a machine that runs nothing.
    pub fn kill_both(&self, n: usize) {
        let killed = self.nodes[n].machine.signal(Signal::SIGKILL, |line| is_agent(line) || is_engine(line));
        assert!(killed > 0, "nothing ran on node {n}");
    }

    /// SIGSTOP (or SIGCONT) for the engine.
    pub fn signal_engine(&self, n: usize, signal: Signal) {
        self.nodes[n].machine.signal(signal, is_engine);
    }

    /// SIGSTOP (or SIGCONT) for the agent.
    pub fn signal_agent(&self, n: usize, signal: Signal) {
        self.nodes[n].machine.signal(signal, is_agent);
    }

    /// The processes of the engine of a node.
    pub fn engine_pids(&self, n: usize) -> Vec<i32> {
        self.nodes[n].machine.processes(is_engine)
    }

    /// Whether the engine of a node has a process.
    pub fn engine_runs(&self, n: usize) -> bool {
        !self.nodes[n].machine.processes(is_engine).is_empty()
    }

    /// Whether the agent of a node has a process.
    pub fn agent_runs(&self, n: usize) -> bool {
        !self.nodes[n].machine.processes(is_agent).is_empty()
    }

    /// Starts the agent of a node, which starts its engine; the machine is switched on if need be.
    pub fn start_agent(&mut self, n: usize) {
        let node = &mut self.nodes[n];
        if !node.machine.is_on() {
            node.machine.power_on();
        }
        let mut command = node.machine.command("env");
        command.args(["LC_ALL=C", "PYTHONUNBUFFERED=1"]);
        unprivileged(&mut command);
        command.arg(cache().join("venv/bin/patroni")).arg(&node.config).current_dir("/");
        node.agents.push(Daemon::start(&format!("agent of {}", node.machine.name()), command));
    }

    /// Switches the machine of a node off: agent and engine are gone at once, and so is its address.
    pub fn power_off(&mut self, n: usize) {
        self.nodes[n].machine.power_off();
    }

    /// Switches every machine off, that of etcd as well.
    pub fn power_off_all(&mut self) {
        for n in 0..self.len() {
            self.power_off(n);
        }
        self.dcs.machine.power_off();
    }

    /// Switches every machine on again and starts what belongs there.
    pub fn start_all(&mut self) {
        self.dcs.machine.power_on();
        self.dcs.start();
        for n in 0..self.len() {
            self.start_agent(n);
        }
    }

    /// The address of a node.
    pub fn address(&self, n: usize) -> IpAddr {
        self.nodes[n].machine.address()
    }

    /// The members as etcd knows them, asked from any agent that answers.
    pub fn members(&self) -> Vec<Member> {
        self.nodes
            .iter()
            .filter(|node| node.machine.is_on())
            .find_map(|node| rest::members(node.machine.address()))
            .unwrap_or_default()
    }

    /// The node that holds the leader's lock and runs.
    pub fn leader(&self) -> Option<usize> {
        let members = self.members();
        let leader = members.iter().find(|m| m.role == "leader" && m.state == "running")?;
        self.nodes.iter().position(|n| n.machine.name() == leader.name)
    }

    /// Waits for a leader that is `wanted`, and returns it.
    pub fn wait_leader(&self, what: &str, wanted: impl Fn(usize) -> bool) -> usize {
        eventually(what, SOON, || self.leader().filter(|n| wanted(*n)))
    }

    /// Waits until there is a leader and every other node replicates from it and counts for a commit; returns the leader.
    pub fn wait_settled(&self) -> usize {
        self.wait_standbys(self.nodes.len() - 1)
    }

    /// Waits until so many standbys count for a commit, for etcd as well as for the leader's engine; returns the leader.
    pub fn wait_standbys(&self, standbys: usize) -> usize {
        let mut last = Vec::new();
        let clock = mail::Clock::system();
        loop {
            assert!(clock.mono().0 < SOON, "{standbys} standbys do not count for a commit: {last:?}");
            last = self.members();
            let counting = last.iter().filter(|m| m.is_standby_that_counts()).count();
            if counting == standbys
                && let Some(leader) = self.leader()
                && self.engine_counts(leader) == standbys
            {
                return leader;
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    fn engine_counts(&self, n: usize) -> usize {
        let statement = "SELECT count(*) FROM pg_stat_replication \
                         WHERE state = 'streaming' AND sync_state IN ('sync', 'quorum')";
        self.try_sql(n, "postgres", statement).ok().and_then(|s| s.parse().ok()).unwrap_or(0)
    }

    /// What a statement prints on one node, asked as the superuser: columns apart by `|`, a row a line.
    pub fn sql(&self, n: usize, database: &str, statement: &str) -> String {
        self.try_sql(n, database, statement).unwrap_or_else(|why| panic!("node {n}: {statement}: {why}"))
    }

    /// The same.
    ///
    /// # Errors
    /// What psql printed.
    pub fn try_sql(&self, n: usize, database: &str, statement: &str) -> Result<String, String> {
        psql(&self.nodes[n].machine.address().to_string(), 5432, database, statement)
    }
}

impl Dcs {
    fn start(&mut self) {
        let machine = &self.machine;
        let of = |port: u16| format!("http://{}:{port}", machine.address());
        let mut etcd = machine.command(&super::program("etcd").unwrap().display().to_string());
        etcd.args(["--name=etcd", "--initial-cluster-state=new", "--log-level=warn"]);
        etcd.arg(format!("--data-dir={}", self.place.join("etcd").display()));
        for flag in ["--listen-client-urls", "--advertise-client-urls"] {
            etcd.arg(format!("{flag}={}", of(2379)));
        }
        for flag in ["--listen-peer-urls", "--initial-advertise-peer-urls"] {
            etcd.arg(format!("{flag}={}", of(2380)));
        }
        etcd.arg(format!("--initial-cluster=etcd={}", of(2380)));
        self.etcd = Some(Daemon::start("etcd", etcd));
        until_listening("etcd", (machine.address(), 2379).into());
    }
}

/// The agent's configuration: the shortest times that Patroni allows, a fail-over at once when the engine crashes, and a
/// commit that waits for any one standby.
fn configuration(machine: &Machine, dcs: &Machine, place: &Path, strict: bool) -> String {
    let (name, address) = (machine.name(), machine.address());
    let (bin, own) = (programs().unwrap(), place.join(name));
    let (bin, own, dcs) = (bin.display(), own.display(), dcs.address());
    format!(
        "scope: posthouse\nname: {name}\n\
         restapi: {{listen: '{address}:8008', connect_address: '{address}:8008'}}\n\
         etcd3: {{host: '{dcs}:2379'}}\n\
         watchdog: {{mode: 'off'}}\n\
         bootstrap:\n  initdb: [data-checksums, encoding: UTF8, no-locale]\n  dcs:\n    \
           ttl: {TTL_S}\n    loop_wait: 2\n    retry_timeout: 5\n    primary_start_timeout: 0\n    \
           synchronous_mode: quorum\n    synchronous_mode_strict: {strict}\n    \
           postgresql:\n      use_pg_rewind: true\n      parameters:\n        \
             synchronous_commit: 'on'\n        wal_log_hints: 'on'\n        max_connections: 100\n        \
             shared_buffers: 32MB\n        wal_keep_size: 64MB\n        max_wal_size: 256MB\n        \
             wal_sender_timeout: 30s\n\
         postgresql:\n  listen: '{address}:5432'\n  connect_address: '{address}:5432'\n  \
           data_dir: '{own}/data'\n  bin_dir: '{bin}'\n  pgpass: '{own}/pgpass'\n  \
           remove_data_directory_on_rewind_failure: true\n  \
           remove_data_directory_on_diverged_timelines: true\n  \
           basebackup: [checkpoint: fast]\n  \
           parameters: {{unix_socket_directories: '{own}'}}\n  \
           authentication:\n    \
             superuser: {{username: postgres, password: '{PASSWORD}'}}\n    \
             replication: {{username: replicator, password: '{PASSWORD}'}}\n  \
           pg_hba:\n    - local all all trust\n    \
             - host replication replicator 10.77.0.0/24 scram-sha-256\n    \
             - host all all 10.77.0.0/24 scram-sha-256\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_lines_are_told_apart() {
        let agent = "/root/venv/bin/python /root/venv/bin/patroni /tmp/pg1.yml";
        let engine = "/usr/lib/postgresql/15/bin/postgres -D /tmp/patroni-1/pg1/data --config_file=x";
        assert!(is_agent(agent) && !is_engine(agent));
        assert!(is_engine(engine) && !is_agent(engine));
        assert!(is_engine("postgres: posthouse: walsender replicator 10.77.0.12(1) streaming 0/1"));
        assert!(!is_engine("sleep 3600") && !is_agent("sleep 3600"));
    }
}
