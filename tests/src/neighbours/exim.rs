//! Exim, unpacked from its package beside Postfix (the two packages exclude each other).

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use tempfile::TempDir;

use super::namespace::with_own_etc;
use super::program;
use crate::process::Daemon;
use crate::tls::Certificate;
use crate::wait::{free_port, loopback, until_listening};

/// A running Exim.
pub struct Exim {
    dir: TempDir,
    addr: SocketAddr,
    /// The listening process.
    pub daemon: Daemon,
}

impl Exim {
    /// Starts one that relays everything to `next`.
    pub fn relaying_to(next: SocketAddr) -> Self {
        let dir = TempDir::with_prefix("exim-").unwrap();
        Self::start(dir, next, "tls_advertise_hosts =\n")
    }

    /// The same with STARTTLS, for clients that show the certificate in the PEM file `known` and nobody else: the handshake
    /// fails without it.
    pub fn for_holders_of(known: &Path, own: &Certificate, next: SocketAddr) -> Self {
        let dir = TempDir::with_prefix("exim-").unwrap();
        for (from, to) in [(known, "known.pem"), (&own.certificate, "own.pem"), (&own.key, "own.key")] {
            fs::copy(from, dir.path().join(to)).unwrap();
        }
        let root = dir.path().display();
        let tls = format!(
            "tls_advertise_hosts = *\ntls_certificate = {root}/own.pem\ntls_privatekey = {root}/own.key\n\
             tls_verify_hosts = *\ntls_verify_certificates = {root}/known.pem\n"
        );
        Self::start(dir, next, &tls)
    }

    fn start(dir: TempDir, next: SocketAddr, tls: &str) -> Self {
        let port = free_port();
        let root = dir.path().display();
        let conf = format!(
            "primary_hostname = exim.test\nspool_directory = /var/spool/exim4\nlog_file_path = {root}/log/%slog\n\
             pid_file_path = /run/exim.pid\nexim_path = {root}/exim4\nlocal_interfaces = <; [127.0.0.1]:{port}\n\
             daemon_smtp_ports = {port}\n{tls}host_lookup =\nrfc1413_hosts =\nkeep_environment =\n\
             acl_smtp_rcpt = accept\nacl_smtp_data = accept\nsmtp_accept_max = 200\nmessage_size_limit = 100M\n\
             smtp_enforce_sync = true\nnever_users =\n\
             begin routers\nall:\n  driver = manualroute\n  route_list = * {}::{}\n  self = send\n  transport = out\n\
             begin transports\nout:\n  driver = smtp\n  allow_localhost\n  hosts_try_fastopen =\n  hosts_avoid_tls = *\n\
             begin retry\n* * F,1h,2s\n",
            next.ip(),
            next.port()
        );
        fs::write(dir.path().join("exim4.conf"), conf).unwrap();
        let script = format!(
            "mkdir -p /etc/exim4 '{root}/log'\ncp '{root}/exim4.conf' /etc/exim4/exim4.conf\nchmod 644 /etc/exim4/exim4.conf\n\
             mkdir -m 750 /var/spool/exim4\nchown 7901:7901 '{root}/log' /var/spool/exim4\n\
             cp '{}' '{root}/exim4'\nchmod 4755 '{root}/exim4'\nexec '{root}/exim4' -bdf -q1s\n",
            program("exim4").unwrap().display()
        );
        let daemon = Daemon::start("exim", with_own_etc(dir.path(), &[("Debian-exim", 7901)], &script));
        until_listening("exim", loopback(port));
        Self { dir, addr: loopback(port), daemon }
    }

    /// Where it takes mail.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Its main log.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log/mainlog")).unwrap_or_default()
    }
}

impl Drop for Exim {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- exim log:\n{}", self.log());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::send_one;
    use crate::letter::Letter;
    use crate::sink::Sink;

    #[test]
    fn what_goes_through_exim_arrives() {
        crate::needs!("root", "exim4");
        let sink = Sink::start();
        let exim = Exim::relaying_to(sink.addr());
        let letter = Letter::new("e1", 5000);
        send_one(exim.addr(), "a@x.example", &["b@y.example"], &letter.bytes).expect(250);
        letter.assert_arrived(&sink.wait_one().data);
    }
}
