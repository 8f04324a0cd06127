//! Postfix with a configuration, a queue and a port of its own: takes mail in by SMTP and sends it on.

use std::ffi::OsString;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, chown};
use std::process::Command;
use std::time::Duration;

use nix::unistd::User;
use tempfile::TempDir;

use super::program;
use crate::process::Daemon;
use crate::wait::{free_port, loopback, until_listening};

/// A running Postfix.
pub struct Postfix {
    dir: TempDir,
    addr: SocketAddr,
    /// The master process.
    pub daemon: Daemon,
}

impl Postfix {
    /// Starts one that relays everything to `next` (`[127.0.0.1]:port`), with more lines for its main.cf.
    pub fn relaying_to(next: SocketAddr, more: &str) -> Self {
        Self::under(Vec::new(), next, more)
    }

    /// The same under another program, such as an strace.
    pub fn under(wrapper: Vec<OsString>, next: SocketAddr, more: &str) -> Self {
        let dir = TempDir::with_prefix("postfix-").unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let port = free_port();
        for sub in ["queue", "data", "etc"] {
            fs::create_dir(dir.path().join(sub)).unwrap();
        }
        let user = User::from_name("postfix").unwrap().expect("the postfix package brings its user");
        chown(dir.path().join("data"), Some(user.uid.as_raw()), Some(user.gid.as_raw())).unwrap();
        let root = dir.path().display();
        let main = format!(
            "compatibility_level = 3.6\nqueue_directory = {root}/queue\ndata_directory = {root}/data\n\
             maillog_file = {root}/log\nmaillog_file_prefixes = {root}\n\
             myhostname = postfix.test\nmydestination =\nmynetworks = 127.0.0.0/8\ninet_interfaces = 127.0.0.1\n\
             inet_protocols = ipv4\nrelayhost = [{}]:{}\nsmtp_host_lookup = native\nsmtp_dns_support_level = disabled\n\
             alias_maps =\nalias_database =\nsmtpd_recipient_restrictions = permit_mynetworks, reject\n\
             smtputf8_enable = yes\nminimal_backoff_time = 1s\nmaximal_backoff_time = 2s\nqueue_run_delay = 1s\n\
             append_dot_mydomain = no\nmessage_size_limit = 104857600\n\
             smtpd_client_connection_count_limit = 0\nsmtpd_client_connection_rate_limit = 0\n{more}\n",
            next.ip(),
            next.port()
        );
        fs::write(dir.path().join("etc/main.cf"), main).unwrap();
        fs::write(dir.path().join("etc/master.cf"), master(port)).unwrap();
        let mut words = wrapper.into_iter().chain([program("postfix").unwrap().into_os_string()]);
        let mut command = Command::new(words.next().unwrap());
        command.args(words).arg("-c").arg(dir.path().join("etc")).arg("start-fg");
        let daemon = Daemon::start("postfix", command);
        until_listening("postfix", loopback(port));
        Self { dir, addr: loopback(port), daemon }
    }

    /// Where it takes mail.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Stops it and waits for its end.
    pub fn stop(&mut self) {
        self.postfix("stop");
        self.daemon.wait_exit(Duration::from_secs(30));
    }

    fn postfix(&self, word: &str) {
        let mut command = Command::new(program("postfix").unwrap());
        command.arg("-c").arg(self.dir.path().join("etc")).arg(word);
        let _ = command.output();
    }

    /// Its log.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("--- postfix log:\n{}", lines[lines.len().saturating_sub(60)..].join("\n"));
        }
        if self.daemon.exited().is_none() {
            self.postfix("abort");
        }
    }
}

/// The services that relaying takes, none in a chroot.
pub fn master(port: u16) -> String {
    let unix = [
        ("cleanup", "unix n - n - 0 cleanup"),
        ("qmgr", "unix n - n 300 1 qmgr"),
        ("rewrite", "unix - - n - - trivial-rewrite"),
        ("bounce", "unix - - n - 0 bounce"),
        ("defer", "unix - - n - 0 bounce"),
        ("trace", "unix - - n - 0 bounce"),
        ("verify", "unix - - n - 1 verify"),
        ("flush", "unix n - n 1000? 0 flush"),
        ("proxymap", "unix - - n - - proxymap"),
        ("proxywrite", "unix - - n - 1 proxymap"),
        ("smtp", "unix - - n - - smtp"),
        ("relay", "unix - - n - - smtp"),
        ("error", "unix - - n - - error"),
        ("retry", "unix - - n - - error"),
        ("discard", "unix - - n - - discard"),
        ("anvil", "unix - - n - 1 anvil"),
        ("scache", "unix - - n - 1 scache"),
        ("tlsmgr", "unix - - n 1000? 1 tlsmgr"),
        ("postlog", "unix-dgram n - n - 1 postlogd"),
    ];
    let mut text = format!("127.0.0.1:{port} inet n - n - - smtpd\n");
    for (name, rest) in unix {
        text.push_str(&format!("{name} {rest}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::send_one;
    use crate::letter::Letter;
    use crate::sink::Sink;

    #[test]
    fn what_goes_through_postfix_arrives() {
        crate::needs!("root", "postfix");
        let sink = Sink::start();
        let postfix = Postfix::relaying_to(sink.addr(), "");
        let letter = Letter::odd("p1");
        send_one(postfix.addr(), "a@x.example", &["b@y.example", "c@y.example"], &letter.bytes).expect(250);
        let got = sink.wait_one();
        letter.assert_arrived(&got.data);
        assert_eq!(got.recipients(), ["b@y.example", "c@y.example"]);
    }
}
