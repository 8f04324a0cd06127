//! The handle: the published snapshot, the way to the writer, and password verification.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use aws_lc_rs::hmac;
use mail::Clock;
use parking_lot::Mutex;
use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot, watch};

use crate::auth::Verification;
use crate::db::{Bad, Row, Value};
use crate::draft::{Asked, Draft};
use crate::embedded;
use crate::error::DirectoryError;
use crate::routing::{NewRoute, Route, SmartHost};
use crate::server::{self, Seen, Server};
use crate::snapshot::{Edit, Snapshot};
use crate::writer::{Job, Published};

/// The directory. Clones share one writer and one snapshot.
#[derive(Clone)]
pub struct Directory(pub(crate) Arc<Shared>);

pub(crate) struct Shared {
    pub(crate) published: Arc<Published>,
    pub(crate) verification: Verification,
    /// Makes verifiers for logins that do not exist; kept in the database, so that they stay the same.
    pub(crate) fake_key: hmac::Key,
    engine: Engine,
    jobs: mpsc::UnboundedSender<Job>,
    writer: Mutex<Option<Writer>>,
}

/// Where what is not in memory is read from.
pub(crate) enum Engine {
    /// The file: the writer reads it.
    Sqlite,
    Postgres {
        pool: postgres::Pool,
        seen: Seen,
        clock: Clock,
    },
}

enum Writer {
    Thread(thread::JoinHandle<()>),
    Task(tokio::task::JoinHandle<()>),
}

impl std::fmt::Debug for Directory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Directory")
    }
}

impl Directory {
    /// Opens `data_dir/directory.db`, and makes it with the organisation `default` when it is not there. Blocking.
    ///
    /// # Errors
    /// [`DirectoryError::Newer`] for a file that a newer version wrote, [`DirectoryError::Damaged`], or the disk.
    pub fn open(data_dir: &Path, clock: Clock) -> Result<Self, DirectoryError> {
        let path = data_dir.join("directory.db");
        let (db, state, fake_key) = embedded::open(&path, &clock)?;
        let published = Published::new(state);
        let (jobs, receiver) = mpsc::unbounded_channel();
        let for_writer = Arc::clone(&published);
        let thread = thread::Builder::new()
            .name("posthouse-directory".into())
            .spawn(move || embedded::run(db, receiver, &for_writer, &clock))
            .map_err(|source| DirectoryError::Io { path, source })?;
        Ok(Self::new(published, fake_key, Engine::Sqlite, jobs, Writer::Thread(thread)))
    }

    /// Opens the directory that several nodes share on PostgreSQL; the first one makes it, with the organisation `default`.
    /// What another node changes is in the snapshot within a second. A change is made by one node after the other, each
    /// time from what the others have made, and waits for the database as long as the pool holds.
    ///
    /// # Errors
    /// [`DirectoryError::Postgres`] for a server that cannot be used or a schema that a newer version wrote,
    /// [`DirectoryError::Damaged`].
    pub async fn open_postgres(pool: postgres::Pool, clock: Clock) -> Result<Self, DirectoryError> {
        let (state, fake_key) = server::open(&pool, clock.now()).await?;
        let published = Published::new(state);
        let (jobs, receiver) = mpsc::unbounded_channel();
        let seen = Seen::new(&clock);
        let server = Server::new(pool.clone(), Arc::clone(&published), clock.clone(), seen.clone());
        let task = tokio::spawn(server.run(receiver));
        let engine = Engine::Postgres { pool, seen, clock };
        Ok(Self::new(published, fake_key, engine, jobs, Writer::Task(task)))
    }

    fn new(
        published: Arc<Published>,
        fake_key: hmac::Key,
        engine: Engine,
        jobs: mpsc::UnboundedSender<Job>,
        writer: Writer,
    ) -> Self {
        let verification = Verification::new();
        let writer = Mutex::new(Some(writer));
        Self(Arc::new(Shared { published, verification, fake_key, engine, jobs, writer }))
    }

    /// The directory as it stands.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.0.published.load()
    }

    /// Counts the snapshots that this node has published since the directory was opened: one for each commit of its own and
    /// for each look that found another node's. When it changes, what was made of [`Directory::snapshot`] is made anew.
    /// What [`Directory::set_config`] sets does not count, as whoever does that knows.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.published.changes()
    }

    /// How old the snapshot may be: how long it is since this node last saw that no other one had changed anything. Some
    /// half a second at most while the database answers, more during a fail-over; none for a file, which nobody else
    /// changes.
    pub fn behind(&self) -> Duration {
        match &self.0.engine {
            Engine::Sqlite => Duration::ZERO,
            Engine::Postgres { seen, clock, .. } => clock.mono().since(seen.at()),
        }
    }

    /// Takes the routes and smart hosts of the config file. They come before those of the directory and can only be
    /// changed there.
    ///
    /// # Errors
    /// None yet.
    pub async fn set_config(
        &self,
        routes: Vec<NewRoute>,
        smarthosts: Vec<SmartHost>,
    ) -> Result<(), DirectoryError> {
        self.0.published.configure(|state| {
            state.config_routes =
                (1i64..).zip(routes).map(|(n, route)| Arc::new(Route::from_config(n, route))).collect();
            let hosts = smarthosts.into_iter().map(|h| (h.name.clone(), Arc::new(h.in_config())));
            state.config_smarthosts = Arc::new(hosts.collect());
        });
        Ok(())
    }

    /// Writes a consistent copy of the directory to `file`, which must not be there, while everything goes on.
    ///
    /// # Errors
    /// The disk, the directory is closed, or it is on PostgreSQL, which has better ways.
    pub async fn backup(&self, file: PathBuf) -> Result<(), DirectoryError> {
        if let Engine::Postgres { .. } = self.0.engine {
            return Err(DirectoryError::Invalid(
                "the directory is in PostgreSQL: back that up as a whole, with pg_basebackup and the archived WAL".into(),
            ));
        }
        self.read(move |db| {
            let made = |source| DirectoryError::Io { path: file.clone(), source };
            // Made here, so that nobody else can read it while SQLite fills it; it takes an empty file.
            let copy =
                OpenOptions::new().write(true).create_new(true).mode(0o600).open(&file).map_err(made)?;
            db.execute("VACUUM INTO $1", [file.to_string_lossy()])?;
            copy.sync_all().map_err(made)
        })
        .await
    }

    /// Waits for what was asked and closes the database. Later changes are refused; reading goes on.
    pub async fn close(&self) {
        let _ = self.0.jobs.send(Job::Close);
        let writer = self.0.writer.lock().take();
        let ended = match writer {
            Some(Writer::Thread(thread)) => {
                matches!(tokio::task::spawn_blocking(move || thread.join()).await, Ok(Ok(())))
            }
            Some(Writer::Task(task)) => task.await.is_ok(),
            None => true,
        };
        if !ended {
            tracing::error!("the directory's writer has died");
        }
    }

    /// Has the writer make a change; ready when it is committed and in the snapshot. The change may be made several
    /// times before that, each time of another snapshot.
    pub(crate) async fn change<T: Send + 'static>(
        &self,
        change: impl Fn(&mut Draft) -> Result<(T, Vec<Edit>), DirectoryError> + Send + 'static,
    ) -> Result<T, DirectoryError> {
        let (done, wait) = oneshot::channel();
        self.send(Job::Change(Asked::boxed(change, done)))?;
        wait.await.map_err(|_| DirectoryError::Closed)?
    }

    /// Reads rows from the database.
    pub(crate) async fn list<T: Send + 'static>(
        &self,
        sql: String,
        values: Vec<Value>,
        read: fn(&Row<'_>) -> Result<T, Bad>,
    ) -> Result<Vec<T>, DirectoryError> {
        match &self.0.engine {
            Engine::Sqlite => {
                self.read(move |db| {
                    let mut all = Vec::new();
                    let mut take = |row: &Row<'_>| read(row).map(|it| all.push(it));
                    let done = embedded::each(db, &sql, &values, &mut take);
                    done.map(|()| all).map_err(unreadable)
                })
                .await
            }
            Engine::Postgres { pool, .. } => {
                let rows = server::rows(pool, &sql, &values).await?;
                rows.iter().map(|row| read(&Row::Postgres(row)).map_err(unreadable)).collect()
            }
        }
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.0.engine
    }

    /// Has the writer read from the file.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, DirectoryError> + Send + 'static,
    ) -> Result<T, DirectoryError> {
        let (done, wait) = oneshot::channel();
        self.send(Job::Read(Box::new(move |db| {
            let _ = done.send(read(db));
        })))?;
        wait.await.map_err(|_| DirectoryError::Closed)?
    }

    pub(crate) fn send(&self, job: Job) -> Result<(), DirectoryError> {
        self.0.jobs.send(job).map_err(|_| DirectoryError::Closed)
    }
}

fn unreadable(bad: Bad) -> DirectoryError {
    DirectoryError::Damaged { place: "the directory".into(), what: bad.0 }
}
