//! Signed zones: Knot signs and serves them, Unbound validates in front of it. For DANE there have to be signatures that
//! hold, some that do not, and zones without any.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use super::program;
use crate::process::{Daemon, run};
use crate::wait::{eventually, free_port, loopback};

/// How a zone is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signing {
    /// Signed, and Unbound has the key.
    Secure,
    /// Signed, but Unbound was told another key: every answer is bogus (SERVFAIL).
    Bogus,
    /// Not signed.
    Insecure,
}

/// Knot and a validating Unbound in front of it.
pub struct SignedDns {
    addr: SocketAddr,
    /// The name server.
    pub knot: Daemon,
    /// The validating resolver.
    pub unbound: Daemon,
    _dir: TempDir,
}

impl SignedDns {
    /// Serves `zones`: a domain, how it is signed, and its records without SOA and NS.
    pub fn serve(zones: &[(&str, Signing, &str)]) -> Self {
        let dir = TempDir::with_prefix("signed-").unwrap();
        let (authority, addr) = (loopback(free_port()), loopback(free_port()));
        let knot = knot(dir.path(), authority, zones);
        for (domain, ..) in zones {
            eventually(&format!("knot serves {domain}"), Duration::from_secs(20), || {
                dig(authority, domain, "SOA").contains("SOA").then_some(())
            });
        }
        let unbound = unbound(dir.path(), addr, authority, zones);
        for (domain, signing, _) in zones {
            eventually(&format!("unbound judges {domain}"), Duration::from_secs(20), || {
                let answer = dig(addr, domain, "SOA");
                let flags = answer.lines().find(|l| l.contains("Flags:")).unwrap_or_default();
                match signing {
                    Signing::Secure => flags.contains(" ad"),
                    Signing::Insecure => answer.contains("NOERROR") && !flags.contains(" ad"),
                    Signing::Bogus => answer.contains("SERVFAIL"),
                }
                .then_some(())
            });
        }
        Self { addr, knot, unbound, _dir: dir }
    }

    /// Where the validating resolver answers.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}

fn knot(dir: &Path, at: SocketAddr, zones: &[(&str, Signing, &str)]) -> Daemon {
    let root = dir.display();
    let mut conf = format!(
        "server:\n    rundir: {root}\n    listen: 127.0.0.1@{}\n    udp-workers: 1\n    tcp-workers: 1\n\
         database:\n    storage: {root}\nlog:\n  - target: stderr\n    any: info\n\
         policy:\n  - id: plain\n    algorithm: ecdsap256sha256\n    single-type-signing: on\n    nsec3: off\nzone:\n",
        at.port()
    );
    for (domain, signing, records) in zones {
        let file = dir.join(format!("{domain}.zone"));
        let head = format!(
            "$ORIGIN {domain}.\n$TTL 60\n@ SOA ns.{domain}. host.{domain}. 1 60 60 60 60\n@ NS ns.{domain}.\nns A 127.0.0.1\n"
        );
        fs::write(&file, format!("{head}{records}\n")).unwrap();
        writeln!(conf, "  - domain: {domain}.\n    file: {}\n    zonefile-sync: -1", file.display()).unwrap();
        writeln!(conf, "    journal-content: all\n    semantic-checks: off").unwrap();
        if *signing != Signing::Insecure {
            conf.push_str("    dnssec-signing: on\n    dnssec-policy: plain\n");
        }
    }
    fs::write(dir.join("knot.conf"), conf).unwrap();
    let mut command = Command::new(program("knotd").unwrap());
    command.arg("-c").arg(dir.join("knot.conf"));
    Daemon::start("knot", command)
}

fn unbound(dir: &Path, at: SocketAddr, authority: SocketAddr, zones: &[(&str, Signing, &str)]) -> Daemon {
    let mut conf = format!(
        "server:\n  interface: {}\n  port: {}\n  do-daemonize: no\n  username: \"\"\n  chroot: \"\"\n  directory: \"{}\"\n  \
         pidfile: \"\"\n  use-syslog: no\n  logfile: \"\"\n  log-servfail: yes\n  module-config: \"validator iterator\"\n  \
         do-not-query-localhost: no\n  access-control: 127.0.0.0/8 allow\n  minimal-responses: no\n  aggressive-nsec: no\n  qname-minimisation: no\n",
        at.ip(),
        at.port(),
        dir.display()
    );
    for (domain, signing, _) in zones {
        match signing {
            Signing::Insecure => writeln!(conf, "  domain-insecure: \"{domain}\"").unwrap(),
            Signing::Secure => writeln!(conf, "  trust-anchor: \"{}\"", anchor(dir, domain)).unwrap(),
            Signing::Bogus => {
                // Another key's digest: what Knot signed can't be verified with it.
                let (head, digest) =
                    anchor(dir, domain).rsplit_once(' ').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
                let other: String =
                    digest.chars().map(|c| if c.is_ascii_digit() { '7' } else { 'a' }).collect();
                writeln!(conf, "  trust-anchor: \"{head} {other}\"").unwrap();
            }
        }
    }
    for (domain, ..) in zones {
        let (ip, port) = (authority.ip(), authority.port());
        writeln!(conf, "stub-zone:\n  name: \"{domain}\"\n  stub-addr: {ip}@{port}\n  stub-prime: no")
            .unwrap();
    }
    fs::write(dir.join("unbound.conf"), conf).unwrap();
    let mut command = Command::new(program("unbound").unwrap());
    command.args(["-d", "-p", "-c"]).arg(dir.join("unbound.conf"));
    Daemon::start("unbound", command)
}

/// `domain. DS tag algorithm 2 digest` of the zone's key.
fn anchor(dir: &Path, domain: &str) -> String {
    let mut keymgr = Command::new(program("keymgr").unwrap());
    keymgr.arg("-c").arg(dir.join("knot.conf")).args([domain, "ds"]);
    let all = run("keymgr", keymgr, Duration::from_secs(20));
    let sha256 = all.lines().find(|l| l.split_whitespace().nth(4) == Some("2"));
    sha256.unwrap_or_else(|| panic!("no DS of {domain} in {all:?}")).to_owned()
}

/// What `kdig` says of a name.
fn dig(at: SocketAddr, name: &str, kind: &str) -> String {
    let mut kdig = Command::new(program("kdig").unwrap());
    let (server, port) = (format!("@{}", at.ip()), at.port().to_string());
    kdig.args([&server, "-p", &port, "+dnssec", "+timeout=1", "+retry=0", name, kind]);
    let output = kdig.output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn right_wrong_and_no_signatures_are_told_apart() {
        crate::needs!("knotd", "unbound", "kdig", "keymgr");
        // `serve` waits until each is judged as it should be.
        let dns = SignedDns::serve(&[
            ("good.example", Signing::Secure, "_25._tcp.mx TLSA 3 1 1 00"),
            ("bad.example", Signing::Bogus, ""),
            ("plain.example", Signing::Insecure, ""),
        ]);
        assert!(dig(dns.addr(), "_25._tcp.mx.good.example", "TLSA").contains("TLSA"));
    }
}
