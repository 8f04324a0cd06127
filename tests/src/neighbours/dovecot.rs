//! Dovecot's LMTP server over Maildir: the usual end of a local domain's mail.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, chown};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use super::program;
use crate::process::Daemon;
use crate::wait::{eventually, free_port, loopback, until_listening};

/// The user under which mailboxes are kept: nobody, on every Debian.
const OWNER: u32 = 65534;

/// A running Dovecot. The mailboxes that exist are those it was started with; others are refused in session.
pub struct Dovecot {
    dir: TempDir,
    addr: SocketAddr,
    /// The master process.
    pub daemon: Daemon,
}

impl Dovecot {
    /// Starts one with mailboxes for these addresses.
    pub fn with_mailboxes(addresses: &[&str]) -> Self {
        let dir = TempDir::with_prefix("dovecot-").unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let root = dir.path().display();
        let port = free_port();
        fs::create_dir(dir.path().join("mail")).unwrap();
        chown(dir.path().join("mail"), Some(OWNER), Some(OWNER)).unwrap();
        let users: String = addresses.iter().map(|a| format!("{a}:{{PLAIN}}x::::::\n")).collect();
        fs::write(dir.path().join("users"), users).unwrap();
        let conf = format!(
            "protocols = lmtp\nbase_dir = {root}/run\nstate_dir = {root}/state\nlog_path = /dev/stderr\nssl = no\n\
             listen = 127.0.0.1\nmail_location = maildir:{root}/mail/%u\nmail_save_crlf = yes\n\
             first_valid_uid = 1\nfirst_valid_gid = 1\nhostname = dovecot.test\npostmaster_address = postmaster@dovecot.test\n\
             passdb {{\n driver = passwd-file\n args = {root}/users\n}}\n\
             userdb {{\n driver = passwd-file\n args = {root}/users\n override_fields = uid={OWNER} gid={OWNER} home={root}/mail/%u\n}}\n\
             service lmtp {{\n inet_listener lmtp {{\n  address = 127.0.0.1\n  port = {port}\n }}\n}}\n\
             service stats {{\n unix_listener stats-writer {{\n  mode = 0666\n }}\n}}\n\
             service anvil {{\n chroot =\n}}\n"
        );
        fs::write(dir.path().join("dovecot.conf"), conf).unwrap();
        let mut command = Command::new(program("dovecot").unwrap());
        command.arg("-F").arg("-c").arg(dir.path().join("dovecot.conf"));
        let daemon = Daemon::start("dovecot", command);
        until_listening("dovecot", loopback(port));
        Self { dir, addr: loopback(port), daemon }
    }

    /// Where it speaks LMTP.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// As the target of a route.
    pub fn url(&self) -> String {
        format!("lmtp://{}", self.addr)
    }

    /// What is in a mailbox.
    pub fn mailbox(&self, address: &str) -> Vec<Vec<u8>> {
        let new = self.dir.path().join("mail").join(address).join("new");
        let Ok(entries) = fs::read_dir(new) else { return Vec::new() };
        entries.flatten().map(|e| fs::read(e.path()).unwrap()).collect()
    }

    /// Waits for the first message in a mailbox.
    pub fn wait_one(&self, address: &str) -> Vec<u8> {
        eventually(&format!("mail for {address}"), Duration::from_secs(20), || self.mailbox(address).pop())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Smtp;
    use crate::letter::Letter;

    #[test]
    fn what_is_given_to_dovecot_is_in_the_mailbox() {
        crate::needs!("root", "dovecot");
        let dovecot = Dovecot::with_mailboxes(&["ann@local.example"]);
        let letter = Letter::odd("d1");
        let mut lmtp = Smtp::connect(dovecot.addr());
        lmtp.cmd("LHLO x").expect(250);
        lmtp.cmd("MAIL FROM:<a@x.example>").expect(250);
        lmtp.cmd("RCPT TO:<nobody@local.example>").expect(550);
        lmtp.cmd("RCPT TO:<ann@local.example>").expect(250);
        lmtp.data(&letter.bytes).expect(250);
        letter.assert_arrived(&dovecot.wait_one("ann@local.example"));
    }
}
