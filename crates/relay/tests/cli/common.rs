//! Runs the program.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// A configuration on free ports, in a directory of its own.
pub(crate) struct Place {
    pub(crate) dir: TempDir,
}

/// What a command did.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Done {
    /// Fails the test unless the command did what it was told.
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.code, 0, "{self:#?}");
        self
    }

    pub(crate) fn failed(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:#?}");
        self
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}: {self:#?}"))
    }

    pub(crate) fn last_line(&self) -> &str {
        self.out.lines().last().unwrap_or_default()
    }
}

/// Listeners on free ports, and everything caught.
const BASE: &str = "hostname = \"relay.example.net\"\n\
    api = { listen = [] }\n\
    listener = [\n\
      { name = \"smtp\", address = [\"127.0.0.1:0\"] },\n\
      { name = \"submission\", mode = \"submission\", address = [\"127.0.0.1:0\"] },\n\
    ]\n";

impl Place {
    /// With everything caught by the sandbox.
    pub(crate) fn new() -> Self {
        Self::with("route = [{ to = \"sandbox\" }]\n")
    }

    pub(crate) fn with(more: &str) -> Self {
        let place = Self::bare("");
        place.write("posthouse.toml", &format!("{BASE}{more}"));
        place
    }

    /// With this configuration alone.
    pub(crate) fn bare(config: &str) -> Self {
        let place = Self { dir: tempfile::tempdir().unwrap() };
        place.write("posthouse.toml", config);
        place
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Done {
        self.run_with(arguments, "")
    }

    /// Runs a command with this on its standard input.
    pub(crate) fn run_with(&self, arguments: &[&str], input: &str) -> Done {
        self.run_as(Path::new(env!("CARGO_BIN_EXE_posthouse")), arguments, input)
    }

    /// Runs the program under another name.
    pub(crate) fn run_as(&self, program: &Path, arguments: &[&str], input: &str) -> Done {
        let mut child = Command::new(program)
            .args(arguments)
            .env("POSTHOUSE_CONFIG", self.path("posthouse.toml"))
            .current_dir(self.dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A command that does not read its input may be gone before it is written.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let output = child.wait_with_output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Done {
            code: output.status.code().unwrap_or(-1),
            out: text(&output.stdout),
            err: text(&output.stderr),
        }
    }

    /// Starts the relay and waits until it is ready.
    pub(crate) fn serve(&self) -> Running {
        let mut child = Command::new(env!("CARGO_BIN_EXE_posthouse"))
            .args(["serve", "--config"])
            .arg(self.path("posthouse.toml"))
            .env_remove("POSTHOUSE_LOG")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut seen = String::new();
        loop {
            let Some(Ok(line)) = lines.next() else { panic!("the relay did not start:\n{seen}") };
            seen.push_str(&line);
            seen.push('\n');
            if line.contains(" ready ") {
                break;
            }
        }
        // The log is read on, so that the relay never waits for it.
        std::thread::spawn(move || lines.for_each(drop));
        Running { child }
    }

    /// Where the running relay's listener of this name listens.
    pub(crate) fn listens(&self, name: &str) -> SocketAddr {
        let status = self.run(&["top", "--json"]).ok().json();
        let listeners = status["status"]["listeners"].as_array().unwrap().clone();
        let listener = listeners.iter().find(|l| l["name"] == name).unwrap();
        listener["addresses"][0].as_str().unwrap().parse().unwrap()
    }
}

/// A running relay; killed when it is dropped.
pub(crate) struct Running {
    child: Child,
}

impl Running {
    /// A relay that was started elsewhere.
    pub(crate) fn of(child: Child) -> Self {
        Self { child }
    }

    /// Tells it to stop and waits for it.
    pub(crate) fn stop(mut self) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
