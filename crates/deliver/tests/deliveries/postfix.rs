//! Postfix as a smart host: one that is dead, one that says not now, one that takes it; and with Dovecot behind it, which
//! asks the token server about every access token itself.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use deliver::{HostOrder, LoginSource, OAuth, RefreshToken, SmartHost, SmartHostTls, WeightedHost};
use mail::Destination;
use nix::unistd::{Group, User, getuid};
use tempfile::TempDir;

use crate::peer::{Behaviour, Peer};
use crate::support::{Neighbour, Rig, attempt, free_address, host_port, outcomes, text, until};
use crate::tls::Certificates;
use crate::token_server::TokenServer;

/// A Postfix of its own that sends what it takes to `next`.
struct Postfix {
    at: SocketAddr,
    dir: TempDir,
    _child: Neighbour,
}

impl Postfix {
    async fn new(next: SocketAddr, more: &str) -> Self {
        let (dir, at) = (TempDir::new().unwrap(), free_address());
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        for sub in ["queue", "data", "etc"] {
            fs::create_dir(dir.path().join(sub)).unwrap();
        }
        let user = User::from_name("postfix").unwrap().expect("install it: apt-get install postfix");
        chown(dir.path().join("data"), Some(user.uid.as_raw()), Some(user.gid.as_raw())).unwrap();
        let root = dir.path().display();
        let main = format!(
            "compatibility_level = 3.6\nqueue_directory = {root}/queue\ndata_directory = {root}/data\n\
             maillog_file = {root}/log\nmaillog_file_prefixes = {root}\nmyhostname = postfix.test\nmydestination =\n\
             mynetworks = 127.0.0.0/8\ninet_interfaces = 127.0.0.1\ninet_protocols = ipv4\nalias_maps =\n\
             relayhost = [{}]:{}\nsmtp_host_lookup = native\nsmtp_dns_support_level = disabled\n\
             smtpd_recipient_restrictions = permit_mynetworks, reject\n{more}\n",
            next.ip(),
            next.port()
        );
        fs::write(dir.path().join("etc/main.cf"), main).unwrap();
        let mut master = format!("{at} inet n - n - - smtpd\n");
        for service in [
            "cleanup unix n - n - 0 cleanup",
            "qmgr unix n - n 300 1 qmgr",
            "rewrite unix - - n - - trivial-rewrite",
            "bounce unix - - n - 0 bounce",
            "defer unix - - n - 0 bounce",
            "trace unix - - n - 0 bounce",
            "proxymap unix - - n - - proxymap",
            "smtp unix - - n - - smtp",
            "relay unix - - n - - smtp",
            "error unix - - n - - error",
            "retry unix - - n - - error",
            "anvil unix - - n - 1 anvil",
            "scache unix - - n - 1 scache",
            "tlsmgr unix - - n 1000? 1 tlsmgr",
            "postlog unix-dgram n - n - 1 postlogd",
        ] {
            master.push_str(service);
            master.push('\n');
        }
        fs::write(dir.path().join("etc/master.cf"), master).unwrap();
        let etc = dir.path().join("etc").display().to_string();
        let child = Neighbour::start("/usr/sbin/postfix", "postfix", dir.path(), &["-c", &etc, "start-fg"]);
        let child = child.listening(at).await;
        Self { at, dir, _child: child }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
        let etc = self.dir.path().join("etc");
        let _ = Command::new("/usr/sbin/postfix").arg("-c").arg(etc).arg("abort").output();
    }
}

/// Dovecot as the one who knows logins: it believes an access token when the token server does.
async fn dovecot(tokens: &TokenServer, dir: &Path) -> (Neighbour, SocketAddr) {
    let (at, path) = (free_address(), dir.display());
    let user = User::from_uid(getuid()).unwrap().unwrap();
    let config = format!(
        "base_dir = {path}/run\nstate_dir = {path}/state\nlog_path = /dev/stderr\nprotocols =\nssl = no\n\
         default_internal_user = {name}\ndefault_login_user = {name}\ndefault_internal_group = {group}\n\
         auth_mechanisms = xoauth2 oauthbearer\nauth_failure_delay = 0\nfirst_valid_uid = 0\n\
         passdb {{\n  driver = oauth2\n  mechanisms = xoauth2 oauthbearer\n  args = {path}/oauth2.ext\n}}\n\
         userdb {{\n  driver = static\n  args = uid=65534 gid=65534 home={path}\n}}\n\
         service anvil {{\n  chroot =\n}}\nservice stats {{\n  chroot =\n}}\n\
         service auth {{\n  chroot =\n  inet_listener {{\n    address = {ip}\n    port = {port}\n  }}\n}}\n",
        name = user.name,
        group = Group::from_gid(user.gid).unwrap().unwrap().name,
        ip = at.ip(),
        port = at.port(),
    );
    fs::write(dir.join("dovecot.conf"), config).unwrap();
    let introspection = format!(
        "introspection_mode = post\nintrospection_url = http://{}/introspect\nforce_introspection = yes\n\
         username_attribute = username\nactive_attribute = active\nactive_value = true\n",
        tokens.introspection
    );
    fs::write(dir.join("oauth2.ext"), introspection).unwrap();
    let child = Neighbour::start("/usr/sbin/dovecot", "dovecot-core", dir, &["-F", "-c", "dovecot.conf"]);
    (child.listening(at).await, at)
}

fn up() -> Destination {
    Destination::SmartHost("up".into())
}

#[tokio::test]
async fn the_dead_the_busy_and_the_good() {
    if !getuid().is_root() {
        eprintln!("Postfix is started by root alone");
        return;
    }
    let end = Peer::new(Behaviour::good()).await;
    let busy = Postfix::new(end.at, "smtpd_recipient_restrictions = defer").await;
    let good = Postfix::new(end.at, "").await;
    let dead = free_address();
    for (n, order) in [HostOrder::Ordered, HostOrder::Weighted, HostOrder::Sticky].into_iter().enumerate() {
        let mut host = SmartHost::new("up", Vec::new(), SmartHostTls::Opportunistic, None);
        host.order = order;
        let weighted = |at: SocketAddr, weight| WeightedHost { at: host_port(at), weight };
        host.hosts = vec![weighted(dead, 10), weighted(busy.at, 5), weighted(good.at, 1)];
        let rig = Rig::with(|s| {
            s.smarthosts.insert("up".into(), Arc::new(host));
        });
        for _ in 0..5 {
            let mut link = rig.link(&up());
            let sent = attempt(&mut link, &rig.letter(&["a@example.net", "b@example.net"]).await).await;
            assert_eq!(outcomes(&sent), "+250 +250", "{order:?}: {:?}", sent.transcript);
            assert_eq!(sent.remote.unwrap().address, Some(good.at));
            link.close().await;
        }
        until("all of it arrives, once", || end.messages().len() >= 5 * (n + 1)).await;
        assert_eq!(end.messages().len(), 5 * (n + 1));
    }
    assert!(
        busy.log().contains("450 4.") && !busy.log().contains("queued as"),
        "it was asked and took nothing"
    );
}

#[tokio::test]
async fn dovecot_asks_the_token_server_itself() {
    if !getuid().is_root() {
        eprintln!("Postfix is started by root alone");
        return;
    }
    let certificates = Certificates::new(&["127.0.0.1"]);
    let tokens = TokenServer::new(&certificates.acceptor).await;
    let dir = TempDir::new().unwrap();
    let (_dovecot, auth) = dovecot(&tokens, dir.path()).await;
    let end = Peer::new(Behaviour::good()).await;
    let [certificate, key] = certificates.files();
    let postfix = Postfix::new(
        end.at,
        &format!(
            "smtpd_tls_security_level = may\nsmtpd_tls_cert_file = {}\nsmtpd_tls_key_file = {}\n\
             smtpd_sasl_auth_enable = yes\nsmtpd_sasl_type = dovecot\nsmtpd_sasl_path = inet:{auth}\n\
             smtpd_tls_auth_only = yes\nsmtpd_recipient_restrictions = permit_sasl_authenticated, reject\n",
            certificate.display(),
            key.display()
        ),
    )
    .await;
    let file = dir.path().join("refresh");
    fs::write(&file, "refresh-0").unwrap();
    let secret = tokens.with(|state| {
        state.rotates = true;
        state.secret.clone()
    });
    let refresh = RefreshToken::File(file.clone());
    let oauth =
        OAuth::new("me@example.com", &tokens.url(), "posthouse", Some(secret), Some(refresh), "").unwrap();
    let mut host = SmartHost::new("up", vec![host_port(postfix.at)], SmartHostTls::Required, None);
    host.login = Some(LoginSource::OAuth(Arc::new(oauth)));
    let rig = Rig::with(|s| {
        certificates.trust(s);
        s.smarthosts.insert("up".into(), Arc::new(host));
    });
    for round in 1..=3 {
        let mut link = rig.link(&up());
        let mut job = rig.letter(&["a@example.net"]).await;
        job.full_transcript = true;
        let sent = attempt(&mut link, &job).await;
        assert_eq!(outcomes(&sent), "+250", "{:?}", sent.transcript);
        assert!(sent.transcript.unwrap().contains("AUTH OAUTHBEARER ********"));
        link.close().await;
        if round == 1 {
            // The token is worth nothing any more: Dovecot finds out, and so do we.
            tokens.with(crate::token_server::State::withdraw);
        }
    }
    assert_eq!(tokens.asked(), 2);
    assert_eq!(fs::read_to_string(&file).unwrap(), "refresh-2\n");
    until("it arrives", || end.messages().len() == 3).await;
    assert!(
        postfix.log().contains("sasl_method=OAUTHBEARER, sasl_username=me@example.com"),
        "{}",
        postfix.log()
    );

    // The refresh token is withdrawn: nothing goes out, and the reason is said.
    fs::write(&file, "somebody else's").unwrap();
    tokens.with(crate::token_server::State::withdraw);
    let fresh = Rig::with(|s| *s = (*rig.engine.settings()).clone());
    let mut link = fresh.link(&up());
    let sent = attempt(&mut link, &fresh.letter(&["a@example.net"]).await).await;
    assert_eq!(outcomes(&sent), "~4.7.0");
    assert!(text(&sent).contains("invalid_grant: Token has been expired or revoked."), "{}", text(&sent));
}
