//! Posthouse as a process: configured by its file, found by the ports it says it listens on, ruled by its command line.

mod builder;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use mail::Clock;
use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

pub use builder::Builder;

use crate::process::{Daemon, descendants, freeze};

/// Time within which the relay must listen, also on a busy machine and under strace.
const START_WITHIN: Duration = Duration::from_secs(60);

/// Every listener that the file has.
const LISTENERS: [&str; 4] = ["smtp", "submission", "submissions", "api"];

/// The binary under test: `POSTHOUSE_BIN`, or the one beside this program in the target directory.
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("POSTHOUSE_BIN") {
        return path.into();
    }
    let me = std::env::current_exe().unwrap();
    let found = me.ancestors().skip(1).take(2).map(|dir| dir.join("posthouse")).find(|p| p.is_file());
    found.unwrap_or_else(|| panic!("no posthouse near {}: cargo build -p relay", me.display()))
}

/// A relay, running or not.
pub struct Relay {
    dir: TempDir,
    data: PathBuf,
    config: PathBuf,
    log_file: bool,
    wrapper: Vec<OsString>,
    env: Vec<(String, OsString)>,
    daemon: Option<Daemon>,
    ports: BTreeMap<String, SocketAddr>,
    started: usize,
}

impl Relay {
    /// A relay that listens on free ports, lets loopback relay, retries after a second and keeps its data in a
    /// temporary directory.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// A relay that sends everything to `to`.
    #[track_caller]
    pub fn routed_to(to: &str) -> Self {
        Self::builder().route(&[], to).start()
    }

    /// Its configuration file.
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// Its data directory.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// A directory for the scenario's own files, gone with the relay.
    pub fn scratch(&self) -> &Path {
        self.dir.path()
    }

    /// Rewrites the configuration file.
    pub fn reconfigure(&self, change: impl FnOnce(String) -> String) {
        let old = fs::read_to_string(&self.config).unwrap();
        fs::write(&self.config, change(old)).unwrap();
    }

    /// Runs it under another program from the next start on; none means by itself.
    pub fn rewrap<S: Into<OsString>>(&mut self, wrapper: impl IntoIterator<Item = S>) {
        self.wrapper = wrapper.into_iter().map(Into::into).collect();
    }

    fn command(&self) -> Command {
        let mut words = self.wrapper.iter().cloned().chain([binary().into_os_string()]);
        let mut command = Command::new(words.next().unwrap());
        command.args(words).args(["serve", "--config"]).arg(&self.config);
        self.surroundings(&mut command);
        command
    }

    fn surroundings(&self, command: &mut Command) {
        command
            .env("NO_COLOR", "1")
            .env_remove("POSTHOUSE_LOG")
            .env_remove("POSTHOUSE_CONFIG")
            .current_dir(self.dir.path());
        command.envs(self.env.iter().map(|(k, v)| (k, v)));
    }

    /// Starts it and waits until it listens.
    #[track_caller]
    pub fn start(&mut self) {
        self.launch();
        self.await_listening();
    }

    /// Starts it without waiting for anything.
    #[track_caller]
    pub fn launch(&mut self) {
        assert!(self.daemon.is_none(), "it runs already");
        self.ports.clear();
        self.started += 1;
        self.daemon = Some(if self.log_file {
            Daemon::start_with_log_file("posthouse", self.command(), &self.dir.path().join("log"))
        } else {
            Daemon::start("posthouse", self.command())
        });
    }

    /// Waits until every listener of the file has said where it listens, and the relay that it is ready.
    #[track_caller]
    pub fn await_listening(&mut self) {
        assert!(self.try_await_listening(START_WITHIN), "it did not come up:\n{}", self.daemon().output());
    }

    /// Waits until it listens or has ended; tells which.
    pub fn try_await_listening(&mut self, within: Duration) -> bool {
        let clock = Clock::system();
        while clock.mono().0 < within {
            let daemon = self.daemon.as_mut().unwrap();
            let output = daemon.output();
            for name in LISTENERS {
                if let Some(addr) = output.lines().find_map(|line| listening(line, name)) {
                    self.ports.insert(name.to_owned(), addr);
                }
            }
            // The ports are bound first; the management socket is there when it says that it is ready.
            let ready = output.lines().any(|l| l.contains("ready") && l.contains("hostname"));
            if ready && self.ports.len() == LISTENERS.len() {
                return true;
            }
            if daemon.exited().is_some() {
                return false;
            }
            std::thread::sleep(Duration::from_millis(3));
        }
        false
    }

    /// Address of the smtp listener as the file has it, for asking before the relay says anything (fixed ports only).
    #[track_caller]
    pub fn smtp_port_of_file(&self) -> SocketAddr {
        let text = fs::read_to_string(&self.config).unwrap();
        let line = text.lines().find_map(|l| l.strip_prefix("address = [\"")).unwrap();
        line.trim_end_matches("\"]").parse().unwrap()
    }

    /// Address of the listener called `name`.
    #[track_caller]
    pub fn addr(&self, name: &str) -> SocketAddr {
        *self.ports.get(name).unwrap_or_else(|| panic!("no listener {name}"))
    }

    /// Address of the smtp listener.
    pub fn smtp(&self) -> SocketAddr {
        self.addr("smtp")
    }

    /// Address of the submission listener.
    pub fn submission(&self) -> SocketAddr {
        self.addr("submission")
    }

    /// Address of the submissions (implicit TLS) listener.
    pub fn submissions(&self) -> SocketAddr {
        self.addr("submissions")
    }

    /// Address of the HTTP listener.
    pub fn api(&self) -> SocketAddr {
        self.addr("api")
    }

    /// Whether it was started and neither stopped nor killed since.
    pub fn runs(&self) -> bool {
        self.daemon.is_some()
    }

    /// The running process.
    #[track_caller]
    pub fn daemon(&mut self) -> &mut Daemon {
        self.daemon.as_mut().expect("it is not running")
    }

    /// Process id of the relay itself, also when it runs under a wrapper.
    pub fn pid(&self) -> i32 {
        let top = self.daemon.as_ref().expect("it is not running").pid();
        let is_relay = |pid: &i32| {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            name.trim_end() == "posthouse"
        };
        descendants(top).into_iter().find(is_relay).unwrap_or(top)
    }

    /// SIGKILL.
    pub fn kill9(&mut self) {
        self.daemon().kill9();
        self.daemon = None;
    }

    /// SIGSTOP, and waits until every thread stands still: from now on it says nothing, as a machine without power.
    pub fn freeze(&self) {
        freeze(&[self.pid()]);
    }

    /// SIGCONT: it goes on as if nothing had been.
    pub fn thaw(&self) {
        // A wrapper may have stopped along with it.
        for pid in descendants(self.daemon.as_ref().expect("it is not running").pid()) {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGCONT);
        }
    }

    /// SIGTERM, and waits for its end.
    #[track_caller]
    pub fn stop(&mut self) -> ExitStatus {
        let pid = self.pid();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGTERM).unwrap();
        self.ended(Duration::from_secs(60))
    }

    /// Waits for it to end by itself.
    #[track_caller]
    pub fn ended(&mut self, within: Duration) -> ExitStatus {
        let status = self.daemon().wait_exit(within);
        self.daemon = None;
        status
    }

    /// kill -9 and a new start.
    #[track_caller]
    pub fn crash(&mut self) {
        self.kill9();
        self.start();
    }

    /// SIGTERM, its end, which must be a success, and a new start.
    #[track_caller]
    pub fn restart(&mut self) {
        let status = self.stop();
        assert!(status.success(), "a stop that was asked for ended with {status}");
        self.start();
    }

    /// Runs `posthouse ARGS --config FILE`: exit status, and what it printed on standard output and then on standard error.
    pub fn try_cli(&self, args: &[&str]) -> (ExitStatus, String) {
        let output = self.output_of(args);
        let text = [output.stdout, output.stderr].concat();
        (output.status, String::from_utf8_lossy(&text).into_owned())
    }

    fn output_of(&self, args: &[&str]) -> Output {
        let mut command = Command::new(binary());
        command.args(args).arg("--config").arg(&self.config).stdin(Stdio::null());
        self.surroundings(&mut command);
        command.output().unwrap_or_else(|e| panic!("posthouse {}: {e}", args.join(" ")))
    }

    /// Runs `posthouse ARGS --config FILE`, which must succeed, and returns its standard output.
    #[track_caller]
    pub fn cli(&self, args: &[&str]) -> String {
        let Output { status, stdout, stderr } = self.output_of(args);
        let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
        assert!(status.success(), "posthouse {}: {status}\n{stdout}{stderr}", args.join(" "));
        stdout.into_owned()
    }

    /// Runs a listing with `--json` and parses what it prints.
    #[track_caller]
    pub fn json(&self, args: &[&str]) -> Value {
        let output = self.cli(&[args, &["--json"]].concat());
        serde_json::from_str(&output)
            .unwrap_or_else(|e| panic!("{}: not JSON ({e}):\n{output}", args.join(" ")))
    }

    /// Makes a credential and returns its password.
    #[track_caller]
    pub fn credential(&self, name: &str, more: &[&str]) -> String {
        let output = self.cli(&[&["credential", "add", name], more].concat());
        output.lines().last().unwrap_or_else(|| panic!("no password was printed")).trim().to_owned()
    }

    /// What waits in the queue, as `posthouse queue list --json` tells it.
    #[track_caller]
    pub fn queue(&self) -> Vec<Value> {
        items(self.json(&["queue", "list"]))
    }

    /// Waits until nothing is queued.
    #[track_caller]
    pub fn wait_empty(&self, within: Duration) {
        crate::wait::eventually("the queue is empty", within, || self.queue().is_empty().then_some(()));
    }
}

/// A listing is either an array or an object that holds one.
fn items(value: Value) -> Vec<Value> {
    match value {
        Value::Array(items) => items,
        Value::Object(map) => map.into_iter().find_map(|(_, v)| v.as_array().cloned()).unwrap_or_default(),
        other => panic!("not a listing: {other}"),
    }
}

/// The address in a log line that says that the listener `name` listens, whether the log is text or JSON.
fn listening(line: &str, name: &str) -> Option<SocketAddr> {
    if let Ok(value) = serde_json::from_str::<Value>(line) {
        let fields = value.get("fields").unwrap_or(&value);
        let is = |key: &str, want: &str| fields.get(key).and_then(Value::as_str) == Some(want);
        let told = is("message", "listening") && is("name", name);
        return if told { fields.get("address")?.as_str()?.parse().ok() } else { None };
    }
    if !line.contains("listening") {
        return None;
    }
    let field = |key: &str| {
        line.split_whitespace()
            .find_map(|w| w.strip_prefix(key)?.strip_prefix('='))
            .map(|v| v.trim_matches('"'))
    };
    if field("name")? == name { field("address")?.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_read_from_text_and_json_logs() {
        let text = "2026-11-24T08:00:00Z  INFO relay: listening name=smtp address=127.0.0.1:4025";
        assert_eq!(listening(text, "smtp"), "127.0.0.1:4025".parse().ok());
        assert_eq!(listening(text, "submission"), None);
        let json =
            r#"{"level":"INFO","fields":{"message":"listening","name":"api","address":"127.0.0.1:80"}}"#;
        assert_eq!(listening(json, "api"), "127.0.0.1:80".parse().ok());
    }
}
