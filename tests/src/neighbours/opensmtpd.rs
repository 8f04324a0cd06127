//! OpenSMTPD, unpacked from its package: the neighbour that refuses commands sent ahead of the replies.

use std::fs;
use std::net::SocketAddr;

use tempfile::TempDir;

use super::namespace::with_own_etc;
use super::program;
use crate::process::Daemon;
use crate::wait::{free_port, loopback, until_listening};

/// A running OpenSMTPD.
pub struct OpenSmtpd {
    addr: SocketAddr,
    /// The parent process.
    pub daemon: Daemon,
    _dir: TempDir,
}

impl OpenSmtpd {
    /// Starts one that relays everything to `next`.
    pub fn relaying_to(next: SocketAddr) -> Self {
        let dir = TempDir::with_prefix("opensmtpd-").unwrap();
        let port = free_port();
        let conf = dir.path().join("smtpd.conf");
        let text = format!(
            "listen on 127.0.0.1 port {port} hostname opensmtpd.test\n\
             smtp max-message-size \"100M\"\n\
             action \"out\" relay host \"smtp://{next}\"\nmatch from any for any action \"out\"\n"
        );
        fs::write(&conf, text).unwrap();
        let script = format!(
            "mkdir -m 711 /var/spool/smtpd\nmkdir -p /var/lib/opensmtpd/empty\nexec '{}' -d -f '{}'\n",
            program("smtpd").unwrap().display(),
            conf.display()
        );
        let command = with_own_etc(dir.path(), &[("opensmtpd", 7902), ("opensmtpq", 7903)], &script);
        let daemon = Daemon::start("opensmtpd", command);
        until_listening("opensmtpd", loopback(port));
        Self { addr: loopback(port), daemon, _dir: dir }
    }

    /// Where it takes mail.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::send_one;
    use crate::letter::Letter;
    use crate::sink::Sink;

    #[test]
    fn what_goes_through_opensmtpd_arrives() {
        crate::needs!("root", "smtpd");
        let sink = Sink::start();
        let neighbour = OpenSmtpd::relaying_to(sink.addr());
        let letter = Letter::new("o1", 5000);
        send_one(neighbour.addr(), "a@x.example", &["b@y.example"], &letter.bytes).expect(250);
        letter.assert_arrived(&sink.wait_one().data);
    }
}
