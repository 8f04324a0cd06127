//! The two engines, for tests that both have to pass.

use std::path::PathBuf;
use std::sync::Arc;

use history::{Config, History};
use mail::ManualClock;
use postgres::Pool;
use postgres::test::Server;

/// Makes a test of each of these functions for each engine.
macro_rules! on_both {
    ($($name:ident),* $(,)?) => {
        mod files {
            $(#[tokio::test]
            async fn $name() {
                super::$name($crate::engine::Engine::files()).await;
            })*
        }
        mod postgres {
            $(#[tokio::test]
            async fn $name() {
                super::$name($crate::engine::Engine::postgres()).await;
            })*
        }
    };
}
pub(crate) use on_both;

/// Where a history is, while it may be opened several times.
pub(crate) enum Engine {
    Files(tempfile::TempDir),
    Postgres(postgres::Config),
}

impl Engine {
    pub(crate) fn files() -> Self {
        Self::Files(tempfile::tempdir().unwrap())
    }

    /// A fresh database.
    pub(crate) fn postgres() -> Self {
        Self::Postgres(Server::shared().database())
    }

    pub(crate) async fn open(&self, clock: &ManualClock) -> History {
        self.open_with(clock, Config::default()).await
    }

    pub(crate) async fn open_with(&self, clock: &ManualClock, config: Config) -> History {
        match self {
            Engine::Files(dir) => History::open(dir.path(), config, clock.clock()).unwrap(),
            Engine::Postgres(_) => self.node(1, clock, config).await,
        }
    }

    /// As this node of a cluster, which may sweep.
    pub(crate) async fn node(&self, node: u16, clock: &ManualClock, config: Config) -> History {
        let may_sweep = Arc::new(|| true);
        History::open_postgres(self.pool().await, node, config, may_sweep, clock.clock()).await.unwrap()
    }

    pub(crate) async fn pool(&self) -> Pool {
        let Engine::Postgres(config) = self else { panic!("not in PostgreSQL") };
        Pool::connect(config.clone()).await.unwrap()
    }

    /// What a statement gives, in PostgreSQL.
    pub(crate) fn sql(&self, statement: &str) -> String {
        let Engine::Postgres(config) = self else { panic!("not in PostgreSQL") };
        let database = config.url.rsplit('/').next().unwrap();
        Server::shared().sql_in(database, statement)
    }

    /// Rows of a table.
    pub(crate) fn rows(&self, table: &str) -> i64 {
        match self {
            Engine::Files(dir) => crate::common::count(dir, table),
            Engine::Postgres(_) => {
                self.sql(&format!("SELECT count(*) FROM history.{table}")).parse().unwrap()
            }
        }
    }

    /// Days that there are rows of.
    pub(crate) fn days(&self) -> usize {
        match self {
            Engine::Files(dir) => {
                let name = |path: PathBuf| path.file_name().unwrap().to_str().unwrap()[..10].to_owned();
                let days: std::collections::BTreeSet<String> =
                    crate::common::files(dir).into_iter().map(name).collect();
                days.len()
            }
            Engine::Postgres(_) => {
                let days = "SELECT count(*) FROM (SELECT day FROM history.message UNION SELECT day FROM history.event) d";
                self.sql(days).parse().unwrap()
            }
        }
    }
}
