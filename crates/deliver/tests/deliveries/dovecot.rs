//! Dovecot's LMTP server, over TCP and over its socket.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use deliver::{CalloutAnswer, callout};
use mail::{Address, Destination};
use nix::unistd::{Group, User, getuid};
use tempfile::TempDir;

use crate::support::{LETTER, Neighbour, Rig, attempt, free_address, host_port, outcomes};

struct Dovecot {
    at: SocketAddr,
    dir: TempDir,
    _child: Neighbour,
}

impl Dovecot {
    async fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let at = free_address();
        let path = dir.path().display().to_string();
        let user = User::from_uid(getuid()).unwrap().unwrap();
        // Dovecot stores no mail as root.
        let owner =
            if getuid().is_root() { User::from_name("nobody").unwrap().unwrap() } else { user.clone() };
        let mut users = String::new();
        for who in ["ann", "ben"] {
            let home = dir.path().join(who);
            fs::create_dir(&home).unwrap();
            nix::unistd::chown(&home, Some(owner.uid), Some(owner.gid)).unwrap();
            writeln!(users, "{who}@example.net::{}:{}::{}", owner.uid, owner.gid, home.display()).unwrap();
        }
        fs::write(dir.path().join("users"), users).unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let config = format!(
            "base_dir = {path}/run\nstate_dir = {path}/state\nlog_path = /dev/stderr\nprotocols = lmtp\nssl = no\n\
             default_internal_user = {name}\ndefault_login_user = {name}\ndefault_internal_group = {group}\n\
             first_valid_uid = 0\nfirst_valid_gid = 0\n\
             mail_location = maildir:~/Maildir\nmail_fsync = never\n\
             passdb {{\n  driver = passwd-file\n  args = {path}/users\n}}\n\
             userdb {{\n  driver = passwd-file\n  args = {path}/users\n}}\n\
             service anvil {{\n  chroot =\n}}\nservice stats {{\n  chroot =\n}}\n\
             service lmtp {{\n  chroot =\n  unix_listener lmtp {{\n    mode = 0600\n  }}\n  inet_listener lmtp {{\n    address = {ip}\n    \
             port = {port}\n  }}\n}}\n",
            name = user.name,
            group = Group::from_gid(user.gid).unwrap().unwrap().name,
            ip = at.ip(),
            port = at.port(),
        );
        fs::write(dir.path().join("dovecot.conf"), config).unwrap();
        let child =
            Neighbour::start("/usr/sbin/dovecot", "dovecot-lmtpd", dir.path(), &["-F", "-c", "dovecot.conf"]);
        let child = child.listening(at).await.listening_on(&dir.path().join("run/lmtp")).await;
        Self { at, dir, _child: child }
    }

    fn destinations(&self) -> [Destination; 2] {
        let socket = self.dir.path().join("run/lmtp");
        [Destination::Lmtp(host_port(self.at)), Destination::LmtpUnix(socket.to_string_lossy().into())]
    }

    fn mailbox(&self, who: &str) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(self.dir.path().join(who).join("Maildir/new")) else {
            return Vec::new();
        };
        entries.map(|e| e.unwrap().path()).collect()
    }
}

#[tokio::test]
async fn delivers_to_whom_it_knows() {
    let dovecot = Dovecot::new().await;
    for (n, destination) in dovecot.destinations().into_iter().enumerate() {
        let rig = Rig::new();
        let mut link = rig.link(&destination);
        let to = ["ann@example.net", "nobody@example.net", "ben@example.net"];
        for _ in 0..2 {
            let attempt = attempt(&mut link, &rig.letter(&to).await).await;
            assert_eq!(outcomes(&attempt), "+250 -550 +250", "{:?}", attempt.transcript);
            assert!(
                attempt.outcomes[1].outcome.text.contains("User doesn't exist"),
                "{:?}",
                attempt.outcomes[1]
            );
            assert!(link.is_open());
        }
        link.close().await;
        assert_eq!(dovecot.mailbox("ann").len(), 2 * (n + 1));
        assert_eq!(dovecot.mailbox("ben").len(), 2 * (n + 1));
    }
    // It stores line feeds alone, behind header fields of its own.
    let stored = fs::read_to_string(&dovecot.mailbox("ann")[0]).unwrap();
    assert!(stored.ends_with(&String::from_utf8_lossy(LETTER).replace("\r\n", "\n")), "{stored}");
}

#[tokio::test]
async fn answers_questions_about_recipients() {
    let dovecot = Dovecot::new().await;
    let rig = Rig::new();
    for destination in dovecot.destinations() {
        for (who, known) in [("ann@example.net", true), ("nobody@example.net", false)] {
            let answer =
                callout(&rig.engine, &destination, &Address::parse(who).unwrap(), Duration::from_secs(10))
                    .await;
            match answer {
                CalloutAnswer::Accepted => assert!(known, "{who}"),
                CalloutAnswer::Refused(outcome) => {
                    assert!(!known && outcome.text.contains("doesn't exist"), "{who}: {outcome:?}");
                }
                CalloutAnswer::Unknown(outcome) => panic!("{who}: {outcome:?}"),
            }
        }
    }
    assert!(dovecot.mailbox("ann").is_empty());
}
