//! PostgreSQL: one server with a directory of its own. Clients come over loopback with a password; the test itself asks as
//! the superuser over a socket in that directory.
//!
//! `initdb` takes seconds, so it runs once, into a template below the target directory; each server starts on a copy of it.

use std::cell::Cell;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::process::{Daemon, descendants, freeze, run, try_run};
use crate::wait::{eventually, free_port};

/// The user and the database that a client of the tests is given.
pub const USER: &str = "posthouse";
/// That user's password.
pub const PASSWORD: &str = "kept under the mat";

/// The directory of the newest PostgreSQL programs on this machine.
pub fn programs() -> Option<PathBuf> {
    let version = |path: &Path| path.file_name()?.to_str()?.parse::<u32>().ok();
    let mut found: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .ok()?
        .flatten()
        .filter_map(|entry| Some((version(&entry.path())?, entry.path().join("bin"))))
        .filter(|(_, bin)| bin.join("initdb").is_file() && bin.join("postgres").is_file())
        .collect();
    found.sort();
    found.pop().map(|(_, bin)| bin)
}

/// To a command `env`, adds what makes the rest of the line run as the user `postgres`, because PostgreSQL refuses to be root. It may read
/// whatever root may: programs that are kept in root's home.
pub fn unprivileged(command: &mut Command) {
    if nix::unistd::geteuid().is_root() {
        command.args(["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"]);
        command.args(["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]);
    }
}

/// An empty directory that the server may use.
pub fn own_directory(path: &Path) {
    fs::create_dir_all(path).unwrap();
    if nix::unistd::geteuid().is_root() {
        let user = nix::unistd::User::from_name("postgres").unwrap().expect("a user postgres");
        nix::unistd::chown(path, Some(user.uid), Some(user.gid)).unwrap();
    }
}

/// A running server.
pub struct Postgres {
    dir: TempDir,
    port: u16,
    server: Option<Daemon>,
    databases: Cell<u32>,
}

impl Postgres {
    /// Starts one whose postgresql.conf ends in `settings`; it has the user and the database `posthouse`.
    pub fn start(settings: &str) -> Self {
        Self::in_directory(TempDir::with_prefix("postgres-").unwrap(), settings)
    }

    /// The same with its files below `place`, which may be on a disk that can fail.
    pub fn on(place: &Path, settings: &str) -> Self {
        let server = Self::in_directory(TempDir::with_prefix_in("postgres-", place).unwrap(), settings);
        // What was copied is not the server's to sync.
        let mut sync = Command::new("sync");
        sync.arg("--file-system").arg(place);
        run("sync", sync, Duration::from_secs(60));
        server
    }

    fn in_directory(dir: TempDir, settings: &str) -> Self {
        let template = template();
        let mut server = Self::prepare(dir, settings, |data| copy(&template, data));
        server.start_again();
        server
    }

    /// One that does not run yet, on the files that `make` makes.
    fn prepare(dir: TempDir, settings: &str, make: impl FnOnce(&Path)) -> Self {
        own_directory(dir.path());
        make(&dir.path().join("data"));
        let port = free_port();
        let own = format!(
            "listen_addresses = '127.0.0.1'\nport = {port}\nunix_socket_directories = '{}'\n{settings}\n",
            dir.path().display()
        );
        fs::write(dir.path().join("data/postgresql.auto.conf"), own).unwrap();
        Self { dir, port, server: None, databases: Cell::new(0) }
    }

    /// Starts it again after it was stopped or killed, and waits until it answers.
    pub fn start_again(&mut self) {
        let mut command = Command::new("env");
        unprivileged(&mut command);
        command.arg(programs().unwrap().join("postgres")).arg("-D").arg(self.dir.path().join("data"));
        command.current_dir("/");
        let mut server = Daemon::start("postgres", command);
        // SIGQUIT: no farewell to clients, no checkpoint; nothing of it is needed afterwards.
        server.farewell = Signal::SIGQUIT;
        self.server = Some(server);
        eventually("PostgreSQL answers", Duration::from_secs(60), || {
            assert!(self.server.as_mut()?.exited().is_none(), "PostgreSQL ended");
            self.try_sql("postgres", "SELECT 1").ok()
        });
    }

    /// The URL for the client's user and database.
    pub fn url(&self) -> String {
        url(&[format!("127.0.0.1:{}", self.port)])
    }

    /// A database of its own on it, empty and the client's: its name and its URL.
    pub fn database(&self) -> (String, String) {
        let n = self.databases.get() + 1;
        self.databases.set(n);
        let name = format!("{USER}_{n}");
        self.sql("postgres", &format!("CREATE DATABASE {name} OWNER {USER}"));
        let (server, _) = self.url().rsplit_once('/').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
        let url = format!("{server}/{name}");
        (name, url)
    }

    /// What a statement prints, asked as the superuser: columns apart by `|`, a row a line.
    pub fn sql(&self, database: &str, statement: &str) -> String {
        self.try_sql(database, statement).unwrap_or_else(|why| panic!("{statement}: {why}"))
    }

    /// The same; an error with what psql said when it fails.
    ///
    /// # Errors
    /// What psql printed.
    pub fn try_sql(&self, database: &str, statement: &str) -> Result<String, String> {
        psql(&self.dir.path().display().to_string(), self.port, database, statement)
    }

    /// SIGKILL for the server and all its children.
    pub fn kill9(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.kill9();
        }
    }

    /// SIGSTOP for the server and all its children, and waits until they stand still.
    pub fn freeze(&self) {
        freeze(&self.server.as_ref().map(|s| descendants(s.pid())).unwrap_or_default());
    }

    /// SIGSTOP or SIGCONT for the server and all its children.
    pub fn signal(&self, signal: Signal) {
        for pid in self.server.as_ref().map(|s| descendants(s.pid())).unwrap_or_default() {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal);
        }
    }
}

/// The files of a server with the user and the database, made by whichever test process comes first.
fn template() -> PathBuf {
    let version = programs().unwrap().parent().unwrap().file_name().unwrap().to_string_lossy().into_owned();
    let template = target_dir().join(format!("postgres-neighbour-1-{version}"));
    if template.exists() {
        return template;
    }
    let lock = File::create(template.with_extension("lock")).unwrap();
    lock.lock().unwrap();
    if !template.exists() {
        let dir = TempDir::with_prefix("postgres-").unwrap();
        let mut server = Postgres::prepare(dir, "fsync = off", initdb);
        server.start_again();
        server.sql("postgres", &format!("CREATE ROLE {USER} LOGIN PASSWORD '{PASSWORD}'"));
        server.sql("postgres", &format!("CREATE DATABASE {USER} OWNER {USER}"));
        let mut daemon = server.server.take().unwrap();
        // SIGINT: clients are sent away, everything is written.
        daemon.signal(Signal::SIGINT);
        daemon.wait_exit(Duration::from_secs(60));
        // In place in one step, should this process be killed.
        let partial = template.with_extension("partial");
        let _ = fs::remove_dir_all(&partial);
        copy(&server.dir.path().join("data"), &partial);
        fs::rename(&partial, &template).unwrap();
    }
    template
}

fn initdb(data: &Path) {
    let mut initdb = Command::new("env");
    unprivileged(&mut initdb);
    initdb.arg(programs().unwrap().join("initdb")).arg("-D").arg(data);
    initdb.args(["-U", "postgres", "--auth-local=trust", "--auth-host=scram-sha-256", "--no-sync"]);
    initdb.args(["--encoding=UTF8", "--no-locale", "--wal-segsize=4"]).current_dir("/");
    run("initdb", initdb, Duration::from_secs(60));
}

/// Copies the files, with their owner.
fn copy(from: &Path, to: &Path) {
    let mut cp = Command::new("cp");
    cp.args(["-a", "--reflink=auto"]).arg(from).arg(to);
    run("cp", cp, Duration::from_secs(60));
}

/// The target directory of the build that this test belongs to, or the one for temporary files.
fn target_dir() -> PathBuf {
    let exe = std::env::current_exe().unwrap();
    match exe.ancestors().find(|d| d.join("CACHEDIR.TAG").exists()) {
        Some(target) => target.to_owned(),
        None => std::env::temp_dir(),
    }
}

/// The URL of a database that any of these addresses may have.
pub fn url(addresses: &[String]) -> String {
    let password = PASSWORD.replace(' ', "%20");
    format!("postgres://{USER}:{password}@{}/{USER}", addresses.join(","))
}

/// Asks as the superuser; `host` is an address or the directory of a socket.
///
/// # Errors
/// What psql printed.
pub fn psql(host: &str, port: u16, database: &str, statement: &str) -> Result<String, String> {
    let mut psql = Command::new(programs().unwrap().join("psql"));
    psql.args(["-X", "-At", "-v", "ON_ERROR_STOP=1", "-h", host, "-p", &port.to_string(), "-U", "postgres"]);
    psql.args(["-d", database, "-c", statement]);
    psql.env("PGPASSWORD", PASSWORD).env("PGCONNECT_TIMEOUT", "5");
    match try_run("psql", psql, Duration::from_secs(60)) {
        (status, output) if status.success() => Ok(output),
        (_, output) => Err(output),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_keeps_what_it_committed() {
        crate::needs!("postgres", "setpriv");
        let mut server = Postgres::start("fsync = on");
        assert_eq!(server.sql("postgres", "SHOW fsync"), "on");
        assert!(server.url().starts_with("postgres://posthouse:kept%20under%20the%20mat@127.0.0.1:"));
        server.sql(USER, "CREATE TABLE kept (id int); INSERT INTO kept VALUES (7)");
        server.kill9();
        assert!(server.try_sql(USER, "SELECT 1").is_err());
        server.start_again();
        assert_eq!(server.sql(USER, "SELECT id FROM kept"), "7");
        let ((one, url), (two, _)) = (server.database(), server.database());
        assert!(one != two && url.ends_with(&format!("/{one}")), "{one} {two} {url}");
        assert_eq!(server.sql(&one, "SELECT to_regclass('kept') IS NULL"), "t");
        assert!(server.try_sql(USER, "SELECT no_such_column").unwrap_err().contains("no_such_column"));
    }
}
