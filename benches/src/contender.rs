//! The two programs, each set up to relay everything durably to the sink.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use posthouse_tests::neighbours::{postfix::Postfix, program};
use posthouse_tests::process::Daemon;
use posthouse_tests::relay::Relay;
use posthouse_tests::tls::Certificate;
use posthouse_tests::wait::eventually;
use tempfile::TempDir;

use crate::load::Login;
use crate::place::Setup;

/// Which program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Name {
    Postfix,
    Posthouse,
}

impl Name {
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Postfix => "Postfix",
            Self::Posthouse => "Posthouse",
        }
    }
}

const LOGIN: &str = "load";
const PASSWORD: &str = "Zx81-Sinclair-correct-horse-battery";

/// A running contender.
pub(crate) enum Contender {
    Postfix { postfix: Postfix, auth: Option<Daemon>, _dir: TempDir },
    Posthouse { relay: Relay, login: Option<Login>, _dir: TempDir },
}

impl Contender {
    /// Starts `name` in its surroundings; with `secure`, ready for STARTTLS and AUTH with a certificate made for the purpose;
    /// with `strace`, under an strace that counts the syncs into that file.
    pub(crate) fn start(name: Name, setup: &Setup, secure: bool, strace: Option<&Path>) -> Self {
        let dir = TempDir::with_prefix("bench-").unwrap();
        let certificate = secure.then(|| Certificate::make(dir.path(), &["relay.test"]));
        match name {
            Name::Postfix => Self::postfix(setup, certificate, strace, dir),
            Name::Posthouse => Self::posthouse(setup, certificate, strace, dir),
        }
    }

    fn postfix(setup: &Setup, certificate: Option<Certificate>, strace: Option<&Path>, dir: TempDir) -> Self {
        // As Debian ships it, but without a log file of its own: that only helps it.
        let mut main = String::from("maillog_file =\nsmtputf8_enable = yes\n");
        if setup.dns.is_some() {
            main.push_str("relayhost =\nsmtp_host_lookup = dns\nsmtp_dns_support_level = enabled\n");
        }
        if let Some([slow, busy]) = setup.bad {
            let to =
                |domain: &str, at: SocketAddr| format!("{{ {domain} = smtp:[{}]:{} }}", at.ip(), at.port());
            let (slow, busy) = (to("slow.example", slow), to("busy.example", busy));
            main.push_str(&format!("transport_maps = inline:{{ {slow}, {busy} }}\n"));
        }
        if setup.tls_beyond {
            main.push_str("smtp_tls_security_level = may\n");
        }
        let mut auth = None;
        if let Some(certificate) = certificate {
            let socket = dir.path().join("run/auth");
            main.push_str(&format!(
                "smtpd_tls_security_level = may\nsmtpd_tls_cert_file = {}\nsmtpd_tls_key_file = {}\n\
                 smtpd_tls_session_cache_database =\ntls_ssl_options = NO_TICKET\n\
                 smtpd_sasl_auth_enable = yes\nsmtpd_sasl_type = dovecot\nsmtpd_sasl_path = {}\n",
                certificate.certificate.display(),
                certificate.key.display(),
                socket.display()
            ));
            auth = Some(dovecot_auth(dir.path(), &socket));
        }
        let postfix = Postfix::under(strace.map(counting).unwrap_or_default(), setup.sink, &main);
        Self::Postfix { postfix, auth, _dir: dir }
    }

    fn posthouse(
        setup: &Setup,
        certificate: Option<Certificate>,
        strace: Option<&Path>,
        dir: TempDir,
    ) -> Self {
        let mut builder = Relay::builder().log_file().set("limits", "disk_reserve", "\"1MB\"");
        if let Some([slow, busy]) = setup.bad {
            builder = builder.route(&["slow.example"], &format!("smtp://{slow}"));
            builder = builder.route(&["busy.example"], &format!("smtp://{busy}"));
        }
        builder = match setup.dns {
            Some(dns) => builder.set("dns", "servers", &format!("[\"{dns}\"]")),
            None => builder.route(&[], &format!("smtp://{}", setup.sink)),
        };
        if let Some(data) = &setup.data {
            builder = builder.data_dir(data);
        }
        if let Some(certificate) = &certificate {
            let quoted = |path: &Path| format!("\"{}\"", path.display());
            builder = builder.set("tls", "certificate", &quoted(&certificate.certificate));
            builder = builder.set("tls", "key", &quoted(&certificate.key));
        }
        if let Some(file) = strace {
            builder = builder.under(counting(file));
        }
        let relay = builder.start();
        let login = certificate
            .is_some()
            .then(|| Login { user: LOGIN.to_owned(), password: relay.credential(LOGIN, &[]) });
        Self::Posthouse { relay, login, _dir: dir }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        match self {
            Self::Postfix { postfix, .. } => postfix.addr(),
            Self::Posthouse { relay, .. } => relay.smtp(),
        }
    }

    /// The processes that are measured, each with all under it. Postfix's AUTH is done by Dovecot's.
    pub(crate) fn roots(&self) -> Vec<i32> {
        match self {
            Self::Postfix { postfix, auth, .. } => {
                [Some(postfix.daemon.pid()), auth.as_ref().map(Daemon::pid)].into_iter().flatten().collect()
            }
            Self::Posthouse { relay, .. } => vec![relay.pid()],
        }
    }

    pub(crate) fn login(&self) -> Option<Login> {
        match self {
            Self::Postfix { auth, .. } => {
                auth.as_ref().map(|_| Login { user: LOGIN.to_owned(), password: PASSWORD.to_owned() })
            }
            Self::Posthouse { login, .. } => login.clone(),
        }
    }

    /// Ends it in order, so that an strace around it writes its summary.
    pub(crate) fn stop(self) {
        match self {
            Self::Postfix { mut postfix, .. } => postfix.stop(),
            Self::Posthouse { mut relay, .. } => drop(relay.stop()),
        }
    }
}

/// An strace that stops a program only at its syncs and counts them.
fn counting(file: &Path) -> Vec<std::ffi::OsString> {
    ["strace", "-f", "--seccomp-bpf", "-c", "-e", "trace=fsync,fdatasync", "-o"]
        .into_iter()
        .map(Into::into)
        .chain([file.as_os_str().to_owned()])
        .collect()
}

/// Dovecot's authentication service alone, on a socket that Postfix may use.
fn dovecot_auth(dir: &Path, socket: &Path) -> Daemon {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
    let root = dir.display();
    fs::write(dir.join("users"), format!("{LOGIN}:{{PLAIN}}{PASSWORD}\n")).unwrap();
    let conf = format!(
        "protocols =\nbase_dir = {root}/run\nstate_dir = {root}/state\nlog_path = /dev/null\nssl = no\nlisten = 127.0.0.1\n\
         disable_plaintext_auth = no\nauth_mechanisms = plain login\n\
         passdb {{\n driver = passwd-file\n args = {root}/users\n}}\nuserdb {{\n driver = static\n args = uid=nobody gid=nogroup home=/\n}}\n\
         service auth {{\n unix_listener {} {{\n  mode = 0666\n }}\n}}\nservice stats {{\n unix_listener stats-writer {{\n  mode = 0666\n }}\n}}\n",
        socket.display()
    );
    fs::write(dir.join("dovecot.conf"), conf).unwrap();
    let mut command = Command::new(program("dovecot").unwrap());
    command.arg("-F").arg("-c").arg(dir.join("dovecot.conf"));
    let daemon = Daemon::start("dovecot", command);
    eventually("dovecot's authentication socket", std::time::Duration::from_secs(20), || {
        socket.exists().then_some(())
    });
    daemon
}
