//! The handle: the published snapshot, the way to the writer, and password verification.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;

use arc_swap::ArcSwap;
use aws_lc_rs::hmac;
use mail::Clock;
use parking_lot::Mutex;
use rusqlite::Connection;
use tokio::sync::oneshot;

use crate::auth::Verification;
use crate::error::DirectoryError;
use crate::routing::{NewRoute, Route, SmartHost};
use crate::snapshot::{Edit, Snapshot};
use crate::writer::{Draft, Job};
use crate::{load, schema, writer};

/// The directory. Clones share one writer thread and one snapshot.
#[derive(Clone)]
pub struct Directory(pub(crate) Arc<Shared>);

pub(crate) struct Shared {
    pub(crate) state: Arc<ArcSwap<Snapshot>>,
    pub(crate) verification: Verification,
    /// Makes verifiers for logins that do not exist; kept in the database, so that they stay the same.
    pub(crate) fake_key: hmac::Key,
    jobs: mpsc::Sender<Job>,
    thread: Mutex<Option<thread::JoinHandle<()>>>,
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
        let db = schema::open(&path)?;
        let fake_key = load::founding(&db, clock.now())?;
        let state = Arc::new(ArcSwap::from_pointee(load::snapshot(&db, &path)?));
        let (jobs, receiver) = mpsc::channel();
        let published = Arc::clone(&state);
        let thread = thread::Builder::new()
            .name("posthouse-directory".into())
            .spawn(move || writer::run(db, &receiver, &published, &clock))
            .map_err(|source| DirectoryError::Io { path, source })?;
        let verification = Verification::new();
        Ok(Self(Arc::new(Shared { state, verification, fake_key, jobs, thread: Mutex::new(Some(thread)) })))
    }

    /// The directory as it stands.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.0.state.load_full()
    }

    /// Takes the routes and smart hosts of the config file. They come before those of the directory and can only be
    /// changed there.
    ///
    /// # Errors
    /// When the directory is closed.
    pub async fn set_config(
        &self,
        routes: Vec<NewRoute>,
        smarthosts: Vec<SmartHost>,
    ) -> Result<(), DirectoryError> {
        let (done, wait) = oneshot::channel();
        let set = move |state: &mut Snapshot| {
            state.config_routes =
                (1i64..).zip(routes).map(|(n, route)| Arc::new(Route::from_config(n, route))).collect();
            let hosts = smarthosts.into_iter().map(|h| (h.name.clone(), Arc::new(h.in_config())));
            state.config_smarthosts = Arc::new(hosts.collect());
        };
        self.send(Job::Config(Box::new(set), done))?;
        wait.await.map_err(|_| DirectoryError::Closed)
    }

    /// Writes a consistent copy of the directory to `file`, which must not be there, while everything goes on.
    ///
    /// # Errors
    /// The disk, or the directory is closed.
    pub async fn backup(&self, file: PathBuf) -> Result<(), DirectoryError> {
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

    /// Waits for what was asked and closes the file. Later changes are refused; reading goes on.
    pub async fn close(&self) {
        let _ = self.0.jobs.send(Job::Close);
        let thread = self.0.thread.lock().take();
        if let Some(thread) = thread
            && tokio::task::spawn_blocking(move || thread.join()).await.is_err()
        {
            tracing::error!("the directory's writer has died");
        }
    }

    /// Has the writer make a change; ready when it is committed and in the snapshot.
    pub(crate) async fn change<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Draft<'_>) -> Result<(T, Vec<Edit>), DirectoryError> + Send + 'static,
    ) -> Result<T, DirectoryError> {
        let (done, wait) = oneshot::channel();
        self.send(Job::Change(Box::new(move |draft| {
            let result = draft.run(change);
            Box::new(move |committed| {
                let result = match committed {
                    Ok(()) => result,
                    Err(why) => result.and(Err(DirectoryError::Commit(why))),
                };
                // Nobody waits any more: the change stands all the same.
                let _ = done.send(result);
            })
        })))?;
        wait.await.map_err(|_| DirectoryError::Closed)?
    }

    /// Has the writer read from the database.
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
