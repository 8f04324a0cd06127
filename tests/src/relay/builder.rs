//! The configuration file of a relay under test, put together.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::Relay;
use crate::neighbours::lan::{LAN, Machine};

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
    log_file: bool,
    data_dir: Option<PathBuf>,
    wrapper: Vec<OsString>,
    env: Vec<(String, OsString)>,
    hostname: String,
    address: Option<IpAddr>,
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
            log_file: false,
            data_dir: None,
            wrapper: Vec::new(),
            env: Vec::new(),
            hostname: "relay.test".to_owned(),
            address: None,
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

    /// Has it log into a file instead of a pipe that the test empties: for measurements.
    #[must_use]
    pub fn log_file(mut self) -> Self {
        self.log_file = true;
        self
    }

    /// Keeps the mail in this PostgreSQL database, of which somebody else answers for the durability.
    #[must_use]
    pub fn postgres(self, url: &str) -> Self {
        let url = format!("\"{url}?sslmode=disable\"");
        self.set("store", "engine", "\"postgres\"")
            .set("store", "durability", "\"provider\"")
            .set("store", "url", &url)
            .set("cluster", "node", "\"relay\"")
    }

    /// Runs it on a machine of the network, with that machine's name and, for clients, its address and the well-known ports. It
    /// is managed on the machine itself.
    #[must_use]
    pub fn on(mut self, machine: &Machine) -> Self {
        self.hostname = format!("{}.test", machine.name());
        self.address = Some(machine.address());
        self.networks.push(LAN.to_owned());
        self.under(machine.prefix())
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
            log_file: self.log_file,
            wrapper: self.wrapper,
            env: self.env,
            daemon: None,
            ports: BTreeMap::new(),
            started: 0,
        }
    }

    fn render(&self, data: &Path) -> String {
        let mut text = format!("hostname = \"{}\"\ndata_dir = \"{}\"\n\n", self.hostname, data.display());
        let address = self.address.unwrap_or(IpAddr::from([127, 0, 0, 1]));
        let in_the_clear: &[&str] =
            if self.address.is_some() { &["127.0.0.0/8", LAN] } else { &["127.0.0.0/8"] };
        for (mode, well_known) in [("smtp", 25), ("submission", 587), ("submissions", 465)] {
            let port = match (self.address, self.fixed_ports) {
                (Some(_), _) => well_known,
                (None, true) => crate::wait::free_port(),
                (None, false) => 0,
            };
            writeln!(text, "[[listener]]\nname = \"{mode}\"\nmode = \"{mode}\"").unwrap();
            writeln!(text, "address = [\"{address}:{port}\"]").unwrap();
            writeln!(text, "auth_without_tls = {}\n{}\n", list(in_the_clear), self.listener_extra).unwrap();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_has_what_was_asked_for() {
        let builder =
            Relay::builder().route(&["a.example"], "smtp://127.0.0.1:1").set("queue", "retry", "[\"2s\"]");
        let text = builder.set("queue", "lifetime", "\"1m\"").render(Path::new("/tmp/d"));
        assert!(text.contains("[queue]\n\nretry = [\"2s\"]\nlifetime = \"1m\"\n"), "{text}");
        assert!(text.contains("[[route]]\ndomains = [\"a.example\"]\nto = \"smtp://127.0.0.1:1\""));
    }
}
