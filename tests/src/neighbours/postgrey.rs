//! Postgrey, the greylisting policy server that Postfix asks: the first attempt of a stranger is put off.

use std::process::Command;

use tempfile::TempDir;

use super::program;
use crate::process::Daemon;
use crate::wait::{free_port, loopback, until_listening};

/// A running policy server.
pub struct Postgrey {
    port: u16,
    /// The server process.
    pub daemon: Daemon,
    _dir: TempDir,
}

impl Postgrey {
    /// Puts a triplet off until it comes again after `delay_s`; `words` is what it says, `%s` the seconds that are left.
    pub fn delaying(delay_s: u32, words: &str) -> Self {
        let dir = TempDir::with_prefix("postgrey-").unwrap();
        let port = free_port();
        let mut command = Command::new(program("postgrey").unwrap());
        command
            .arg(format!("--inet=127.0.0.1:{port}"))
            .arg(format!("--delay={delay_s}"))
            .arg(format!("--greylist-text={words}"))
            .arg(format!("--dbdir={}", dir.path().display()))
            .args(["--user=root", "--group=root", "--auto-whitelist-clients=0", "--lookup-by-host"])
            .args(["--whitelist-clients=/dev/null", "--whitelist-recipients=/dev/null"]);
        let daemon = Daemon::start("postgrey", command);
        until_listening("postgrey", loopback(port));
        Self { port, daemon, _dir: dir }
    }

    /// The lines of a main.cf that have Postfix ask it.
    pub fn main_cf(&self) -> String {
        format!(
            "smtpd_recipient_restrictions = check_policy_service inet:127.0.0.1:{}, permit_mynetworks, reject",
            self.port
        )
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::client::Smtp;
    use crate::neighbours::postfix::Postfix;
    use crate::sink::Sink;
    use crate::wait::eventually;

    #[test]
    fn a_stranger_is_put_off_once() {
        crate::needs!("root", "postfix", "postgrey");
        let sink = Sink::start();
        let postgrey = Postgrey::delaying(2, "come again in %s seconds");
        let postfix = Postfix::relaying_to(sink.addr(), &postgrey.main_cf());
        let asked = || {
            let mut smtp = Smtp::connect(postfix.addr());
            smtp.ehlo();
            smtp.cmd("MAIL FROM:<a@x.example>").expect(250);
            smtp.cmd("RCPT TO:<b@y.example>")
        };
        let first = asked();
        assert!(first.code == 450 && first.mentions("come again in 2 seconds"), "{first}");
        eventually("it is let in", Duration::from_secs(20), || (asked().code == 250).then_some(()));
    }
}
