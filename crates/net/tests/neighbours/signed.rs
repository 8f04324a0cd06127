//! A signed zone `test.` on Knot, with an unsigned and a broken one below it, and Unbound that validates them.

#![allow(dead_code, reason = "the tests of delivery use it, too; not all do everything")]

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use net::{Dnssec, Resolver, ResolverConfig};
use tempfile::TempDir;

use crate::support::{Neighbour, PATIENCE, find, free_address};

/// The zones' heads, and what is in each of them.
const ZONES: [(&str, &str); 3] = [
    // A chain of trust begins here; there is none into `plain`, and a wrong one into `bogus`.
    (
        "test",
        "plain NS ns\nbogus NS ns\n\
         bogus DS 12345 13 2 0000000000000000000000000000000000000000000000000000000000000000\n",
    ),
    ("plain.test", ""),
    ("bogus.test", ""),
];

/// Both servers.
pub(crate) struct SignedDns {
    /// Where Unbound answers.
    pub(crate) at: SocketAddr,
    /// Where Knot answers, with signatures but without a word on them.
    pub(crate) knot: SocketAddr,
    dir: TempDir,
    _knot: Neighbour,
    _unbound: Neighbour,
}

impl SignedDns {
    /// Serves these records: master file lines for `test.`, `plain.test.` and `bogus.test.`
    pub(crate) async fn serve(signed: &str, plain: &str, bogus: &str) -> Self {
        let dir = TempDir::with_prefix("signed-").unwrap();
        let at = free_address();
        for ((zone, head), records) in ZONES.iter().zip([signed, plain, bogus]) {
            write_zone(dir.path(), zone, head, records, 1);
        }
        fs::write(dir.path().join("knot.conf"), knot_conf(dir.path(), at)).unwrap();
        let knot = Neighbour::start("knotd", "knot", dir.path(), |c| {
            c.args(["-c", "knot.conf"]);
        });
        let knot = knot.listening(at).await;
        let anchor = anchor(dir.path(), &knot).await;
        fs::write(dir.path().join("anchor"), &anchor).unwrap();
        let unbound_at = free_address();
        fs::write(dir.path().join("unbound.conf"), unbound_conf(dir.path(), unbound_at, at)).unwrap();
        let unbound = Neighbour::start("unbound", "unbound", dir.path(), |c| {
            c.args(["-d", "-p", "-c", "unbound.conf"]);
        });
        let unbound = unbound.listening(unbound_at).await;
        let dns = Self { at: unbound_at, knot: at, dir, _knot: knot, _unbound: unbound };
        dns.wait_until_secure().await;
        dns
    }

    /// The resolver that believes Unbound, which is on loopback.
    pub(crate) fn resolver(&self) -> Resolver {
        Resolver::new(&ResolverConfig { servers: vec![self.at], ..ResolverConfig::default() }).unwrap()
    }

    /// One that asks Knot, which remembers nothing.
    pub(crate) fn knot_resolver(&self) -> Resolver {
        Resolver::new(&ResolverConfig { servers: vec![self.knot], ..ResolverConfig::default() }).unwrap()
    }

    /// One that asks Unbound, with another attitude.
    pub(crate) fn resolver_with(&self, dnssec: Dnssec) -> Resolver {
        let trust_anchors = (dnssec == Dnssec::Validate).then(|| self.anchor());
        Resolver::new(&ResolverConfig { servers: vec![self.at], dnssec, trust_anchors }).unwrap()
    }

    /// The file with the key that signs `test.`
    pub(crate) fn anchor(&self) -> std::path::PathBuf {
        self.dir.path().join("anchor")
    }

    /// Serves other records in the signed zone from now on, and waits until Knot gives them out.
    pub(crate) async fn change(&self, records: &str, serial: u32) {
        let records = format!("{records}\nserial 1 TXT \"{serial}\"\n");
        write_zone(self.dir.path(), "test", ZONES[0].1, &records, serial);
        let program = find("knotc").unwrap();
        let run = Command::new(program)
            .args(["-c", "knot.conf", "zone-reload", "test."])
            .current_dir(self.dir.path())
            .output()
            .unwrap();
        assert!(run.status.success(), "{run:?}");
        let changed = tokio::time::timeout(PATIENCE, async {
            while self.knot_resolver().txt("serial.test").await.ok() != Some(vec![serial.to_string()]) {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        assert!(changed.await.is_ok(), "the changed zone is not served");
    }

    async fn wait_until_secure(&self) {
        let secure = tokio::time::timeout(PATIENCE, async {
            loop {
                match self.resolver().addresses("ns.test").await {
                    Ok(answer) if answer.secure => break,
                    _ => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            }
        });
        if secure.await.is_err() {
            panic!("nothing is secure:\n{}\n{}", self._knot.said(), self._unbound.said());
        }
    }
}

fn write_zone(dir: &Path, zone: &str, head: &str, records: &str, serial: u32) {
    let text = format!(
        "$ORIGIN {zone}.\n$TTL 1\n@ SOA ns.test. hostmaster.test. {serial} 3600 600 86400 1\n@ NS ns.test.\n\
         ns.test. A 127.0.0.1\n{head}{records}\n"
    );
    // What is out of the zone has no place in its file.
    let text = if zone == "test" { text } else { text.replace("ns.test. A 127.0.0.1\n", "") };
    fs::write(dir.join(format!("{zone}.zone")), text).unwrap();
}

fn knot_conf(dir: &Path, at: SocketAddr) -> String {
    let dir = dir.display();
    let mut conf = format!(
        "server:\n  rundir: {dir}\n  listen: {ip}@{port}\n  udp-workers: 1\n  tcp-workers: 1\n\
         database:\n  storage: {dir}\nlog:\n- target: stderr\n  any: info\n\
         policy:\n- id: fast\n  algorithm: ecdsap256sha256\n  nsec3: off\n  single-type-signing: on\n\
         template:\n- id: default\n  storage: {dir}\n  zonefile-sync: -1\n  zonefile-load: difference-no-serial\n  \
         journal-content: all\n  semantic-checks: off\nzone:\n",
        ip = at.ip(),
        port = at.port(),
    );
    for (zone, _) in ZONES {
        write!(conf, "- domain: {zone}.\n  file: {zone}.zone\n").unwrap();
        if zone == "test" {
            conf.push_str("  dnssec-signing: on\n  dnssec-policy: fast\n");
        }
    }
    conf
}

fn unbound_conf(dir: &Path, at: SocketAddr, knot: SocketAddr) -> String {
    let mut conf = format!(
        "server:\n  interface: {ip}@{port}\n  access-control: 127.0.0.0/8 allow\n  do-daemonize: no\n  chroot: \"\"\n  \
         username: \"\"\n  directory: \"{dir}\"\n  pidfile: \"\"\n  use-syslog: no\n  do-not-query-localhost: no\n  \
         module-config: \"validator iterator\"\n  do-ip6: no\n  num-threads: 1\n  trust-anchor-file: \"anchor\"\n  \
         val-log-level: 2\n  cache-max-negative-ttl: 1\n  infra-host-ttl: 1\n  \
         local-zone: \"test.\" nodefault\nremote-control:\n  control-enable: no\n",
        ip = at.ip(),
        port = at.port(),
        dir = dir.display(),
    );
    for (zone, _) in ZONES {
        write!(conf, "stub-zone:\n  name: {zone}\n  stub-addr: {}@{}\n", knot.ip(), knot.port()).unwrap();
    }
    conf
}

/// The DNSKEY of the signed zone, once Knot has made one.
async fn anchor(dir: &Path, knot: &Neighbour) -> String {
    let program = find("keymgr").expect("keymgr is missing; install it: apt-get install knot");
    for _ in 0..300 {
        let run = Command::new(&program)
            .args(["-c", "knot.conf", "test.", "dnskey"])
            .current_dir(dir)
            .output()
            .unwrap();
        let text = String::from_utf8(run.stdout).unwrap();
        if run.status.success() && text.contains("DNSKEY") {
            return text.lines().map(|line| line.replace(" DNSKEY", " IN DNSKEY") + "\n").collect();
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("Knot has no key:\n{}", knot.said())
}
