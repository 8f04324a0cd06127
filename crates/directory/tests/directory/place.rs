//! Where a directory is kept while it is tested: a file, or a database on a PostgreSQL of the test's own. What is true of one
//! engine is true of the other, so that nearly every test runs on both.

use directory::{Directory, DirectoryError};
use mail::Clock;
use postgres::test::Server;

pub(crate) enum Place {
    File(tempfile::TempDir),
    Postgres(postgres::Config),
}

impl Place {
    pub(crate) fn file() -> Self {
        Place::File(tempfile::tempdir().unwrap())
    }

    pub(crate) fn postgres() -> Self {
        Place::Postgres(Server::shared().database())
    }

    pub(crate) async fn try_open(&self) -> Result<Directory, DirectoryError> {
        match self {
            Place::File(dir) => Directory::open(dir.path(), Clock::system()),
            Place::Postgres(config) => {
                let pool = postgres::Pool::connect(config.clone()).await?;
                Directory::open_postgres(pool, Clock::system()).await
            }
        }
    }

    pub(crate) async fn open(&self) -> Directory {
        self.try_open().await.unwrap()
    }

    /// All that is kept, as it is kept.
    pub(crate) fn contents(&self) -> Vec<u8> {
        match self {
            Place::File(dir) => std::fs::read(dir.path().join("directory.db")).unwrap(),
            Place::Postgres(config) => {
                sql(config, "SELECT database_to_xml(true, true, '')::text").into_bytes()
            }
        }
    }
}

/// Runs statements behind the directory's back.
pub(crate) fn sql(config: &postgres::Config, statements: &str) -> String {
    let database = config.url.rsplit('/').next().unwrap();
    Server::shared().sql_in(database, statements)
}

/// Runs these tests on both engines.
macro_rules! on_both {
    ($($test:ident),* $(,)?) => {
        mod on_sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test($crate::place::Place::file()).await;
            })*
        }
        mod on_postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test($crate::place::Place::postgres()).await;
            })*
        }
    };
}
pub(crate) use on_both;
