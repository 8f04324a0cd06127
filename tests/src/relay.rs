//! Posthouse as a process: configured by its file, found by the ports it says it listens on, ruled by its command line.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use mail::Clock;
use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::process::{self, Daemon, descendants};

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

/// How a relay is to be started.
pub struct Builder {
    networks: Vec<String>,
    local_domains: Vec<String>,
    recipients: Option<String>,
    routes: String,
    sections: BTreeMap<String, String>,
    tail: String,
    listener_extra: String,
    fixed_ports: bool,
    data_dir: Option<PathBuf>,
    wrapper: Vec<OsString>,
    env: Vec<(String, OsString)>,
}

impl Default for Builder {
    fn default() -> Self {
        let sections = BTreeMap::from([
            ("queue".to_owned(), "retry = [\"1s\"]".to_owned()),
            ("limits".to_owned(), "disk_reserve = \"1MB\"\nconnections_per_address = 1000".to_owned()),
        ]);
        Self {
            networks: vec!["127.0.0.0/8".to_owned()],
            local_domains: Vec::new(),
            recipients: None,
            routes: String::new(),
            sections,
            tail: String::new(),
            listener_extra: String::new(),
            fixed_ports: false,
            data_dir: None,
            wrapper: Vec::new(),
            env: Vec::new(),
        }
    }
}

impl Builder {
    /// Which client networks may relay without AUTH; by default loopback.
    #[must_use]
    pub fn networks(mut self, networks: &[&str]) -> Self {
        self.networks = networks.iter().map(|n| (*n).to_owned()).collect();
        self
    }

    /// Domains whose mail is taken from anyone, and how their recipients are verified.
    #[must_use]
    pub fn local(mut self, domains: &[&str], recipients: &str) -> Self {
        self.local_domains = domains.iter().map(|d| (*d).to_owned()).collect();
        self.recipients = Some(recipients.to_owned());
        self
    }

    /// Adds a route for these recipient domains; none means every one.
    #[must_use]
    pub fn route(mut self, domains: &[&str], to: &str) -> Self {
        self.routes.push_str("[[route]]\n");
        if !domains.is_empty() {
            writeln!(self.routes, "domains = {}", list(domains)).unwrap();
        }
        writeln!(self.routes, "to = \"{to}\"\n").unwrap();
        self
    }

    /// Adds keys to a section of the file, such as `queue` or `limits`.
    #[must_use]
    pub fn set(mut self, section: &str, key: &str, value: &str) -> Self {
        let body = self.sections.entry(section.to_owned()).or_default();
        let kept: Vec<&str> = body.lines().filter(|l| !l.starts_with(&format!("{key} ="))).collect();
        *body = format!("{}\n{key} = {value}", kept.join("\n"));
        self
    }

    /// Adds lines to every listener.
    #[must_use]
    pub fn listeners(mut self, lines: &str) -> Self {
        self.listener_extra = lines.to_owned();
        self
    }

    /// Listens on ports that stay the same over restarts, for clients that know nothing of them.
    #[must_use]
    pub fn fixed_ports(mut self) -> Self {
        self.fixed_ports = true;
        self
    }

    /// Appends tables to the file as they are.
    #[must_use]
    pub fn toml(mut self, tables: &str) -> Self {
        self.tail.push_str(tables);
        self.tail.push('\n');
        self
    }

    /// Keeps the data in `dir` instead of in a temporary directory that goes with the relay.
    #[must_use]
    pub fn data_dir(mut self, dir: &Path) -> Self {
        self.data_dir = Some(dir.to_owned());
        self
    }

    /// Runs the relay under another program: `strace`, `faketime`, `prlimit`.
    #[must_use]
    pub fn under<S: Into<OsString>>(mut self, wrapper: impl IntoIterator<Item = S>) -> Self {
        self.wrapper = wrapper.into_iter().map(Into::into).collect();
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, key: &str, value: impl Into<OsString>) -> Self {
        self.env.push((key.to_owned(), value.into()));
        self
    }

    /// Writes the file and starts the relay; returns when it listens.
    #[track_caller]
    pub fn start(self) -> Relay {
        let mut relay = self.prepare();
        relay.start();
        relay
    }

    /// Writes the file; the relay is not started yet.
    pub fn prepare(self) -> Relay {
        let dir = TempDir::with_prefix("posthouse-").unwrap();
        let data = self.data_dir.clone().unwrap_or_else(|| dir.path().join("data"));
        let config = dir.path().join("posthouse.toml");
        fs::write(&config, self.render(&data)).unwrap();
        Relay {
            dir,
            data,
            config,
            wrapper: self.wrapper,
            env: self.env,
            daemon: None,
            ports: BTreeMap::new(),
            started: 0,
        }
    }

    fn render(&self, data: &Path) -> String {
        let mut text = format!("hostname = \"relay.test\"\ndata_dir = \"{}\"\n\n", data.display());
        for mode in ["smtp", "submission", "submissions"] {
            let port = if self.fixed_ports { crate::wait::free_port() } else { 0 };
            writeln!(text, "[[listener]]\nname = \"{mode}\"\nmode = \"{mode}\"").unwrap();
            writeln!(text, "address = [\"127.0.0.1:{port}\"]").unwrap();
            writeln!(text, "auth_without_tls = [\"127.0.0.0/8\"]\n{}\n", self.listener_extra).unwrap();
        }
        writeln!(text, "[relay]\nnetworks = {}", list(&self.networks)).unwrap();
        writeln!(text, "local_domains = {}", list(&self.local_domains)).unwrap();
        if let Some(recipients) = &self.recipients {
            writeln!(text, "recipients = \"{recipients}\"").unwrap();
        }
        writeln!(text, "\n[api]\nlisten = [\"127.0.0.1:0\"]\n").unwrap();
        for (name, body) in &self.sections {
            writeln!(text, "[{name}]\n{body}\n").unwrap();
        }
        text.push_str(&self.routes);
        text.push_str(&self.tail);
        text
    }
}

fn list(items: &[impl AsRef<str>]) -> String {
    let quoted: Vec<String> = items.iter().map(|i| format!("\"{}\"", i.as_ref())).collect();
    format!("[{}]", quoted.join(", "))
}

/// A relay, running or not.
pub struct Relay {
    dir: TempDir,
    data: PathBuf,
    config: PathBuf,
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
        command.env("NO_COLOR", "1").env_remove("RUST_LOG").current_dir(self.dir.path());
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
        self.daemon = Some(Daemon::start("posthouse", self.command()));
    }

    /// Waits until every listener of the file has said where it listens.
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
            if self.ports.len() == LISTENERS.len() {
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

    /// Runs `posthouse ARGS --config FILE`: exit status and output.
    pub fn try_cli(&self, args: &[&str]) -> (ExitStatus, String) {
        let mut command = Command::new(binary());
        command.args(args).arg("--config").arg(&self.config);
        self.surroundings(&mut command);
        process::try_run(&format!("posthouse {}", args.join(" ")), command, Duration::from_secs(60))
    }

    /// Runs `posthouse ARGS --config FILE`, which must succeed, and returns its output.
    #[track_caller]
    pub fn cli(&self, args: &[&str]) -> String {
        let (status, output) = self.try_cli(args);
        assert!(status.success(), "posthouse {}: {status}\n{output}", args.join(" "));
        output
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

    #[test]
    fn the_file_has_what_was_asked_for() {
        let builder =
            Relay::builder().route(&["a.example"], "smtp://127.0.0.1:1").set("queue", "retry", "[\"2s\"]");
        let text = builder.set("queue", "lifetime", "\"1m\"").render(Path::new("/tmp/d"));
        assert!(text.contains("[queue]\n\nretry = [\"2s\"]\nlifetime = \"1m\"\n"), "{text}");
        assert!(text.contains("[[route]]\ndomains = [\"a.example\"]\nto = \"smtp://127.0.0.1:1\""));
    }
}
