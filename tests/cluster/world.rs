//! A cluster, a pool and a table: what every scenario begins with, and the judgement it ends with.

use std::collections::BTreeSet;
use std::time::Duration;

use nix::sys::signal::Signal;
use postgres::{Config, Pool};
use posthouse_tests::neighbours::lan::Lan;
use posthouse_tests::neighbours::patroni::{Builder, Patroni};
use posthouse_tests::neighbours::postgres::USER;
use posthouse_tests::wait::eventually;
use tokio::runtime::Runtime;

use crate::writer::{Outcome, Writer};

/// How many clients write.
pub(crate) const CLIENTS: usize = 8;

/// How long anything may take that has no bound of its own.
pub(crate) const EVER: Duration = Duration::from_secs(120);

/// Everything that a scenario holds. Fields are dropped in this order: clients first, machines then.
pub(crate) struct World {
    pub(crate) runtime: Runtime,
    pub(crate) patroni: Patroni,
    _lan: Lan,
}

impl World {
    /// The usual cluster: three nodes, strictly synchronous.
    pub(crate) fn new() -> Self {
        Self::with(|cluster| cluster)
    }

    /// The cluster that `change` makes of the usual one.
    pub(crate) fn with(change: impl FnOnce(Builder) -> Builder) -> Self {
        let mut lan = Lan::new();
        // After the network: its threads have to be on it.
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let patroni = change(Patroni::builder()).start(&mut lan);
        let world = Self { runtime, patroni, _lan: lan };
        let table = "CREATE TABLE kept (id bigint PRIMARY KEY, body text NOT NULL, tries int NOT NULL); \
                     ALTER TABLE kept OWNER TO posthouse";
        world.patroni.sql(world.leader(), USER, table);
        world
    }

    /// A pool over all nodes that gives a commit up after `hold`.
    pub(crate) fn pool(&self, hold: Duration) -> Pool {
        let config = Config { hold, ..self.config() };
        self.runtime.block_on(Pool::connect(config)).unwrap()
    }

    /// Its configuration. The clients share the connections, as sessions do.
    pub(crate) fn config(&self) -> Config {
        let url = format!("{}?sslmode=disable", self.patroni.url());
        Config { pool: CLIENTS, application_name: "writer".to_owned(), ..Config::new(url) }
    }

    /// Clients that write, and have begun to.
    pub(crate) fn writer(&self, hold: Duration) -> Writer {
        let writer = Writer::start(&self.runtime, &self.pool(hold), CLIENTS);
        writer.wait_acknowledged("commits are acknowledged", Duration::ZERO, 100, EVER);
        writer
    }

    /// The leader as etcd has it.
    pub(crate) fn leader(&self) -> usize {
        self.patroni.wait_leader("there is a leader", |_| true)
    }

    /// The nodes that are not `n`.
    pub(crate) fn others(&self, n: usize) -> Vec<usize> {
        (0..self.patroni.len()).filter(|m| *m != n).collect()
    }

    /// How many commits wait for a standby on a node.
    pub(crate) fn waiting(&self, n: usize) -> usize {
        let count =
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND usename = 'posthouse'";
        self.patroni.sql(n, "postgres", count).parse().unwrap()
    }

    /// Waits until every client's commit waits for a standby on a node that has none, and returns how many were acknowledged
    /// by then. From now on nothing may be.
    pub(crate) fn all_wait(&self, writer: &Writer, n: usize) -> usize {
        eventually("every client's commit waits for a standby", EVER, || {
            (self.waiting(n) >= CLIENTS).then_some(())
        });
        writer.acknowledged()
    }

    /// Cancels what waits for a standby, again and again, until that was done to so many commits.
    pub(crate) fn cancel(&self, n: usize, commits: usize) {
        let mut cancelled = 0;
        eventually("commits are cancelled, and tried and cancelled again", EVER, || {
            cancelled += self.to_waiting(n, "pg_cancel_backend");
            (cancelled >= commits).then_some(())
        });
    }

    /// Does something to every backend of a client that waits for a standby: `pg_cancel_backend`, `pg_terminate_backend`.
    /// Returns to how many.
    pub(crate) fn to_waiting(&self, n: usize, what: &str) -> usize {
        let statement = format!(
            "SELECT count({what}(pid)) FROM pg_stat_activity \
             WHERE wait_event = 'SyncRep' AND usename = 'posthouse'"
        );
        self.patroni.sql(n, "postgres", &statement).parse().unwrap()
    }

    /// SIGSTOP or SIGCONT for a whole node, agent and engine.
    pub(crate) fn freeze(&self, n: usize, signal: Signal) {
        self.patroni.signal_agent(n, signal);
        self.patroni.signal_engine(n, signal);
    }

    /// Waits until every node whose agent runs is in use, stops the clients, and judges: all that was acknowledged is on the
    /// leader and, a moment later, on every standby; nothing is there of which it was said that it is not.
    pub(crate) fn judge(&self, name: &str, mut writer: Writer) {
        let nodes: Vec<_> = (0..self.patroni.len()).filter(|n| self.patroni.agent_runs(*n)).collect();
        let leader = self.patroni.wait_standbys(nodes.len() - 1);
        writer.stop(&self.runtime);
        let (acknowledged, not_committed) = writer.promises();
        let stored = self.stored(leader);
        let lost: Vec<_> = acknowledged.difference(&stored).collect();
        assert!(
            lost.is_empty(),
            "{name}: {} acknowledged and lost, such as {:?}",
            lost.len(),
            &lost[..lost.len().min(10)]
        );
        let wrong: Vec<_> = not_committed.intersection(&stored).collect();
        assert!(wrong.is_empty(), "{name}: said to be not committed, and stored: {wrong:?}");
        let spoilt = "SELECT count(*) FROM kept WHERE body <> repeat(id::text || ' ', 200)";
        assert_eq!(self.patroni.sql(leader, USER, spoilt), "0");
        for standby in nodes.into_iter().filter(|n| *n != leader) {
            eventually("a standby has the same", EVER, || (self.stored(standby) == stored).then_some(()));
        }
        let commits = writer.commits();
        let unknown = commits.iter().filter(|c| matches!(c.outcome, Outcome::Unknown(_))).count();
        println!(
            "MEASURED {name}: {} acknowledged, {} stored, {} not committed, {unknown} unknown",
            acknowledged.len(),
            stored.len(),
            not_committed.len(),
        );
    }

    /// The ids that a node has.
    pub(crate) fn stored(&self, n: usize) -> BTreeSet<i64> {
        let rows = self.patroni.sql(n, USER, "SELECT id FROM kept");
        rows.lines().map(|l| l.parse().unwrap()).collect()
    }
}
