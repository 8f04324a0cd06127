//! Knot DNS with zones of the scenario's own.

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use super::program;
use crate::process::Daemon;
use crate::wait::{eventually, free_port, loopback};

/// A running name server.
pub struct Dns {
    addr: SocketAddr,
    /// The server process.
    pub daemon: Daemon,
    _dir: TempDir,
}

impl Dns {
    /// Serves `zones`: a domain and its records, without SOA and NS, in master file form.
    pub fn serve(zones: &[(&str, &str)]) -> Self {
        Self::serve_at(loopback(free_port()), zones)
    }

    /// The same on a given loopback port.
    pub fn serve_at(addr: SocketAddr, zones: &[(&str, &str)]) -> Self {
        let dir = TempDir::with_prefix("knot-").unwrap();
        let root = dir.path().display();
        let mut conf = format!(
            "server:\n    rundir: {root}\n    listen: 127.0.0.1@{}\n    udp-workers: 1\n    tcp-workers: 1\n\
             database:\n    storage: {root}\nlog:\n  - target: stderr\n    any: info\nzone:\n",
            addr.port()
        );
        for (domain, records) in zones {
            let file = dir.path().join(format!("{domain}.zone"));
            let head = format!(
                "$ORIGIN {domain}.\n$TTL 60\n@ SOA ns.{domain}. host.{domain}. 1 60 60 60 60\n@ NS ns.{domain}.\nns A 127.0.0.1\n"
            );
            fs::write(&file, format!("{head}{records}\n")).unwrap();
            conf.push_str(&format!(
                "  - domain: {domain}.\n    file: {}\n    semantic-checks: off\n",
                file.display()
            ));
        }
        fs::write(dir.path().join("knot.conf"), conf).unwrap();
        let mut command = Command::new(program("knotd").unwrap());
        command.arg("-c").arg(dir.path().join("knot.conf"));
        let daemon = Daemon::start("knot", command);
        let dns = Self { addr, daemon, _dir: dir };
        eventually("knot answers", Duration::from_secs(20), || dns.answers(zones[0].0).then_some(()));
        dns
    }

    /// Where it answers.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Asks for the SOA of `domain` and tells whether there is an answer without an error.
    fn answers(&self, domain: &str) -> bool {
        let socket = UdpSocket::bind(loopback(0)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let mut query = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in domain.split('.') {
            query.push(u8::try_from(label.len()).unwrap());
            query.extend_from_slice(label.as_bytes());
        }
        query.extend_from_slice(&[0, 0, 6, 0, 1]);
        let mut reply = [0; 512];
        let sent = socket.send_to(&query, self.addr).is_ok();
        sent && matches!(socket.recv(&mut reply), Ok(n) if n > 12 && reply[3] & 15 == 0 && reply[7] > 0)
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_zone_is_served() {
        crate::needs!("knotd");
        let dns = super::Dns::serve(&[("dest.example", "@ MX 10 mx\nmx A 203.0.113.5")]);
        assert!(dns.answers("dest.example"));
        assert!(!dns.answers("other.example"));
    }
}
