//! Pebble: an ACME server that checks challenges for real, with a name server that points every name at loopback.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use super::program;
use crate::process::Daemon;
use crate::tls::Certificate;
use crate::wait::{free_port, loopback, until_listening};

/// A running ACME server.
pub struct Pebble {
    dir: TempDir,
    addr: SocketAddr,
    /// The ACME server.
    pub daemon: Daemon,
    /// Its name server.
    pub names: Daemon,
}

impl Pebble {
    /// Starts one that checks HTTP-01 on `http_port` and TLS-ALPN-01 on `tls_port`, both on loopback.
    pub fn start(http_port: u16, tls_port: u16) -> Self {
        let dir = TempDir::with_prefix("pebble-").unwrap();
        let (addr, management, dns) = (loopback(free_port()), loopback(free_port()), loopback(free_port()));
        let certificate = Certificate::make(dir.path(), &["localhost", "127.0.0.1"]);
        let config = format!(
            r#"{{"pebble": {{"listenAddress": "{addr}", "managementListenAddress": "{management}",
                "certificate": "{}", "privateKey": "{}", "httpPort": {http_port}, "tlsPort": {tls_port},
                "ocspResponderURL": "", "externalAccountBindingRequired": false}}}}"#,
            certificate.certificate.display(),
            certificate.key.display()
        );
        let file = dir.path().join("pebble.json");
        fs::write(&file, config).unwrap();
        let mut names = Command::new(program("pebble-challtestsrv").unwrap());
        names.args(["-defaultIPv4", "127.0.0.1", "-defaultIPv6", "", "-dns01", &dns.to_string()]);
        names.args([
            "-http01",
            "",
            "-https01",
            "",
            "-tlsalpn01",
            "",
            "-management",
            &loopback(free_port()).to_string(),
        ]);
        let names = Daemon::start("pebble-challtestsrv", names);
        let mut command = Command::new(program("pebble").unwrap());
        command.arg("-config").arg(&file).args(["-dnsserver", &dns.to_string()]);
        command.env("PEBBLE_VA_NOSLEEP", "1").env("PEBBLE_WFE_NONCEREJECT", "0");
        let daemon = Daemon::start("pebble", command);
        until_listening("pebble", addr);
        Self { dir, addr, daemon, names }
    }

    /// The directory's URL.
    pub fn directory(&self) -> String {
        format!("https://localhost:{}/dir", self.addr.port())
    }

    /// The root that vouches for the ACME server's own HTTPS.
    pub fn ca_file(&self) -> PathBuf {
        self.dir.path().join("certificate.pem")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn its_directory_is_served() {
        crate::needs!("pebble", "pebble-challtestsrv", "curl");
        let pebble = Pebble::start(free_port(), free_port());
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--cacert", pebble.ca_file().to_str().unwrap(), &pebble.directory()]);
        assert!(crate::process::run("curl", curl, Duration::from_secs(10)).contains("newAccount"));
    }
}
