//! A throwaway server for tests: one for each test process, deleted when the process ends, however it ends.
//!
//! `initdb` takes seconds, so it runs once into a template below the target directory and each server starts on a
//! copy. A shell that holds a pipe to the test process stops the server and deletes its files when the pipe closes,
//! which it does also after a panic or a SIGKILL.
#![allow(clippy::unwrap_used, reason = "a helper for tests: what fails here fails the test")]

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::unistd::{Uid, User};
use parking_lot::Mutex;

use crate::{Config, Durability};

/// The template's name; another number when what `initdb` is told changes.
const TEMPLATE: &str = "postgres-template-1";

/// Starts the server in its directory when it is told to, and cleans up when standard input ends.
const KEEPER: &str = r#"
gone() { rm -rf "$2"; exit; }
# What copies its files may have outlived the test by a moment.
read -r go || { sleep 1; gone "$@"; }
$3 "$1/postgres" -D "$2/data" >>"$2/log" 2>&1 </dev/null &
server=$!
echo $server
exec 1>&-
while read -r line; do :; done
kill -QUIT $server 2>/dev/null
wait $server
gone "$@"
"#;

/// A PostgreSQL server that belongs to this process. Its superuser is `postgres`, without a password.
pub struct Server {
    dir: PathBuf,
    keeper: Mutex<Child>,
    databases: AtomicU32,
    port: u16,
}

impl Server {
    /// The one server of this process; started when first asked for.
    ///
    /// # Panics
    /// When PostgreSQL is not installed or does not start; the text says what to do.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Server> = OnceLock::new();
        SHARED.get_or_init(|| Self::start(&[]))
    }

    /// A server of its own, with these settings in postgresql.conf; stopped and deleted when dropped. For tests that
    /// change or stop it. It listens on a Unix socket and, at the same port, on 127.0.0.1.
    ///
    /// # Panics
    /// As [`shared`](Self::shared).
    pub fn start(settings: &[(&str, &str)]) -> Self {
        let template = template();
        Self::started(|data| copy(&template, data), settings)
    }

    /// A streaming standby of this server, on a server of its own.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn standby(&self, settings: &[(&str, &str)]) -> Self {
        let make = |data: &Path| {
            let mut backup = Command::new(bin().join("pg_basebackup"));
            backup.arg("-h").arg(&self.dir).arg("-p").arg(self.port.to_string());
            backup.args(["-U", "postgres", "-c", "fast", "-R", "-D"]).arg(data);
            let output = as_owner(backup).output().unwrap();
            assert!(output.status.success(), "pg_basebackup: {}", String::from_utf8_lossy(&output.stderr));
        };
        Self::started(make, settings)
    }

    fn started(make_data: impl FnOnce(&Path), settings: &[(&str, &str)]) -> Self {
        let dir = new_dir();
        // First, so that nothing is left of a start that is killed half-way.
        let keeper = keep(&dir);
        make_data(&dir.join("data"));
        let port = free_port();
        let mut conf = fs::read_to_string(dir.join("data/postgresql.conf")).unwrap();
        let socket = dir.display().to_string();
        let number = port.to_string();
        let ours = [
            ("unix_socket_directories", socket.as_str()),
            ("listen_addresses", "127.0.0.1"),
            ("port", &number),
            ("max_connections", "100"),
            ("shared_buffers", "16MB"),
            ("fsync", "on"),
            ("autovacuum_naptime", "1h"),
        ];
        for (name, value) in ours.iter().chain(settings) {
            conf.push_str(&format!("{name} = '{}'\n", value.replace('\'', "''")));
        }
        fs::write(dir.join("data/postgresql.conf"), conf).unwrap();
        own(&dir);
        let server = Self { dir, keeper: Mutex::new(keeper), databases: AtomicU32::new(0), port };
        server.go();
        server
    }

    /// Its files: `data`, `log`, and what a test puts beside them.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its port, also in the name of its socket.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// A fresh empty database on it; durability is [`Provider`](crate::Durability::Provider), by Unix socket.
    ///
    /// # Panics
    /// When the server does not make it.
    pub fn database(&self) -> Config {
        let n = self.databases.fetch_add(1, Ordering::Relaxed);
        let name = format!("test_{n}");
        self.sql(&format!("CREATE DATABASE {name}"));
        let host = self.dir.display().to_string().replace('/', "%2F");
        let mut config = Config::new(format!("postgres://postgres@{host}:{}/{name}", self.port));
        config.durability = Durability::Provider;
        config.pool = 8;
        config
    }

    /// Runs statements as the superuser, by `psql` on a connection that nothing here touches; returns the rows,
    /// unaligned. Each argument of one call is a transaction of its own.
    ///
    /// # Panics
    /// When they fail.
    pub fn sql(&self, statements: &str) -> String {
        self.sql_in("postgres", statements)
    }

    /// The same in one database.
    ///
    /// # Panics
    /// When they fail.
    pub fn sql_in(&self, database: &str, statements: &str) -> String {
        let mut psql = self.psql(database, statements);
        // In a server that waits for a standby, what a test prepares must not wait.
        psql.env("PGOPTIONS", "-c synchronous_commit=local -c statement_timeout=0");
        let output = psql.output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{statements}: {error}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// `psql` as the superuser, about to run these statements with the defaults of the server.
    pub fn psql(&self, database: &str, statements: &str) -> Command {
        let mut psql = Command::new(bin().join("psql"));
        psql.args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-h"]).arg(&self.dir);
        psql.arg("-p").arg(self.port.to_string()).args(["-d", database, "-c", statements]);
        psql
    }

    /// Changes settings while it runs (`ALTER SYSTEM`, reload), and waits until a new connection sees them.
    ///
    /// # Panics
    /// When the server does not take them.
    pub fn set(&self, name: &str, value: &str) {
        self.sql(&format!("ALTER SYSTEM SET {name} = '{}'", value.replace('\'', "''")));
        self.sql("SELECT pg_reload_conf()");
        while self.sql(&format!("SHOW {name}")) != value {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }

    /// The process id of the server; 0 when it is down.
    pub fn pid(&self) -> u32 {
        let file = fs::read_to_string(self.dir.join("data/postmaster.pid")).unwrap_or_default();
        file.lines().next().and_then(|l| l.trim().parse().ok()).unwrap_or(0)
    }

    /// Lets all its processes stand still, until [`thaw`](Self::thaw).
    ///
    /// # Panics
    /// When it cannot be told to.
    pub fn freeze(&self) -> Vec<u32> {
        let children = self.sql("SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid()");
        let all = children.lines().map(|pid| pid.parse().unwrap()).chain([self.pid()]).collect::<Vec<u32>>();
        signal("-STOP", &all);
        all
    }

    /// Lets what [`freeze`](Self::freeze) stopped go on.
    ///
    /// # Panics
    /// When it cannot be told to.
    pub fn thaw(&self, frozen: &[u32]) {
        signal("-CONT", frozen);
    }

    /// Stops it at once, as a crash would (the files stay). All connections break.
    ///
    /// # Panics
    /// When it cannot be told to.
    pub fn down(&self) {
        let pid = self.pid();
        signal("-QUIT", &[pid]);
        while self.pid() == pid || Path::new(&format!("/proc/{pid}")).exists() {
            if fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|s| s.contains(") Z ")) {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    /// Starts it after [`down`](Self::down).
    ///
    /// # Panics
    /// When it does not start; the text has its log.
    pub fn up(&self) {
        let new = keep(&self.dir);
        let mut old = std::mem::replace(&mut *self.keeper.lock(), new);
        // Before it notices that the server has gone, or it would clean up.
        let _ = old.kill();
        let _ = old.wait();
        self.go();
    }

    /// Lets the keeper start the server, and waits until it answers.
    fn go(&self) {
        let pid = {
            let mut keeper = self.keeper.lock();
            keeper.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
            let mut pid = String::new();
            BufReader::new(keeper.stdout.take().unwrap()).read_line(&mut pid).unwrap();
            pid
        };
        let process = PathBuf::from(format!("/proc/{}", pid.trim()));
        while !self.answers() {
            let log = || fs::read_to_string(self.dir.join("log")).unwrap_or_default();
            assert!(process.exists(), "PostgreSQL did not start:\n{}", log());
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }

    fn answers(&self) -> bool {
        let mut ready = Command::new(bin().join("pg_isready"));
        ready.arg("-q").arg("-h").arg(&self.dir).arg("-p").arg(self.port.to_string());
        ready.status().unwrap().success()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let mut keeper = self.keeper.lock();
        drop(keeper.stdin.take());
        let _ = keeper.wait();
    }
}

fn signal(name: &str, pids: &[u32]) {
    let pids = pids.iter().map(u32::to_string);
    // One of them may have ended by itself meanwhile.
    Command::new("kill").arg(name).args(pids).stderr(Stdio::null()).status().unwrap();
}

/// A shell that waits for `go`.
fn keep(dir: &Path) -> Child {
    let mut shell = Command::new("sh");
    shell.args(["-c", KEEPER, "keeper"]).arg(bin()).arg(dir).current_dir("/");
    // Root's shell: it can delete whatever was copied before it was given to the server.
    if let Some(user) = owner() {
        shell.arg(format!("setpriv --reuid {} --regid {} --clear-groups", user.uid, user.gid));
    }
    // Of its own group, so that what kills the test's does not kill it before it has cleaned up.
    shell.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    shell.spawn().unwrap()
}

/// Where the programs of PostgreSQL are, the newest version if there are several.
fn bin() -> &'static Path {
    static BIN: OnceLock<PathBuf> = OnceLock::new();
    BIN.get_or_init(|| {
        let mut found: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|e| Some((e.file_name().to_str()?.parse().ok()?, e.path().join("bin"))))
            .filter(|(_, bin)| bin.join("initdb").exists())
            .collect();
        found.sort();
        match found.pop() {
            Some((_, bin)) => bin,
            None => panic!(
                "PostgreSQL is not installed (no /usr/lib/postgresql/*/bin/initdb): apt-get install postgresql"
            ),
        }
    })
}

/// PostgreSQL refuses to run as root: then it is the user `postgres`, whom Debian's package makes.
fn owner() -> Option<User> {
    Uid::effective().is_root().then(|| {
        User::from_name("postgres").unwrap().expect("there is no user postgres: apt-get install postgresql")
    })
}

fn as_owner(mut command: Command) -> Command {
    if let Some(user) = owner() {
        command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
    }
    command.current_dir("/");
    command
}

fn new_dir() -> PathBuf {
    let dir = tempfile::Builder::new().prefix("posthouse-pg-").tempdir().unwrap().keep();
    own(&dir);
    dir
}

/// Gives a tree to whom the server runs as.
fn own(dir: &Path) {
    if let Some(user) = owner() {
        let who = format!("{}:{}", user.uid, user.gid);
        let status = Command::new("chown").arg("-R").arg(who).arg(dir).status().unwrap();
        assert!(status.success());
    }
}

fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").args(["-r", "--reflink=auto"]).arg(from).arg(to).status().unwrap();
    assert!(status.success());
    let status = Command::new("chmod").arg("700").arg(to).status().unwrap();
    assert!(status.success());
}

/// The files of a server that has never run, made by whichever test process comes first.
fn template() -> PathBuf {
    let version = bin().parent().and_then(Path::file_name).unwrap().to_string_lossy().into_owned();
    let template = target_dir().join(format!("{TEMPLATE}-{version}"));
    if template.exists() {
        return template;
    }
    let lock = File::create(template.with_extension("lock")).unwrap();
    lock.lock().unwrap();
    if !template.exists() {
        let dir = new_dir();
        let mut initdb = Command::new(bin().join("initdb"));
        initdb.arg("-D").arg(dir.join("data")).args(["-U", "postgres", "-A", "trust", "-E", "UTF8"]);
        initdb.args(["--locale=C.UTF-8", "--wal-segsize=1", "--no-sync", "--no-instructions"]);
        let output = as_owner(initdb).output().unwrap();
        assert!(output.status.success(), "initdb: {}", String::from_utf8_lossy(&output.stderr));
        // In place in one step, should this process be killed.
        let partial = template.with_extension("partial");
        let _ = fs::remove_dir_all(&partial);
        copy(&dir.join("data"), &partial);
        fs::rename(&partial, &template).unwrap();
        fs::remove_dir_all(dir).unwrap();
    }
    template
}

/// The target directory of the build that this test belongs to, or the one for temporary files.
fn target_dir() -> PathBuf {
    let exe = std::env::current_exe().unwrap();
    match exe.ancestors().find(|d| d.join("CACHEDIR.TAG").exists()) {
        Some(target) => target.to_owned(),
        None => std::env::temp_dir(),
    }
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
