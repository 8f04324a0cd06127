//! What can be looked at on this machine: ports, data directory, certificates, limits, rules.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use directory::Snapshot;
use mail::{Address, Clock, Destination};
use net::Pair;
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::statfs::{NFS_SUPER_MAGIC, TMPFS_MAGIC, statfs};
use nix::sys::statvfs::statvfs;

use super::Findings;
use crate::config::{Acme, Challenge, Config, Recipients};

/// Certificates that end sooner are worth a word.
const SOON: Duration = Duration::from_secs(14 * 86_400);
/// Descriptors for files, sockets out, logs and the like.
const OTHER_FILES: u64 = 600;

/// Whether the ports can be bound. Only for a relay that does not run.
pub(super) fn listeners(config: &Config, found: &mut Findings) {
    let smtp = config.listener.iter().flat_map(|l| l.address.iter().map(|a| (l.name.as_str(), *a)));
    let http = config.api.listen.iter().map(|a| ("api", *a));
    let acme = config.acme.iter().flat_map(acme_addresses).map(|a| ("acme", a));
    for (name, address) in smtp.chain(http).chain(acme) {
        listener(name, address, found);
    }
}

/// Where challenges are answered.
fn acme_addresses(acme: &Acme) -> Vec<SocketAddr> {
    let port = match acme.challenge {
        Challenge::TlsAlpn01 => 443,
        Challenge::Http01 => 80,
    };
    if acme.listen.is_empty() { vec![([0, 0, 0, 0], port).into()] } else { acme.listen.clone() }
}

fn listener(name: &str, address: SocketAddr, found: &mut Findings) {
    let text = format!("{name} on {address}");
    match TcpListener::bind(address).map_err(|e| e.kind()) {
        Ok(_) => found.ok("listener", format!("{text} can be bound")),
        Err(io::ErrorKind::AddrInUse) => {
            found.fail("listener", format!("{text}: another program has this port"), &who_has(address));
        }
        Err(io::ErrorKind::PermissionDenied) if !nix::unistd::geteuid().is_root() => found.warn(
            "listener",
            format!("{text}: this user may not bind ports below 1024"),
            "start the relay as root with `user` set, by systemd socket activation, or with CAP_NET_BIND_SERVICE",
        ),
        Err(io::ErrorKind::AddrNotAvailable) => found.fail(
            "listener",
            format!("{text}: this machine does not have the address"),
            "0.0.0.0 and [::] listen on all addresses",
        ),
        Err(kind) => found.fail("listener", format!("{text} cannot be bound: {kind}"), "see the system's log"),
    }
}

fn who_has(address: SocketAddr) -> String {
    format!(
        "`ss -ltnp 'sport = :{}'` says which; often it is Postfix, Exim or another Posthouse",
        address.port()
    )
}

/// Whether the user to become exists.
pub(super) fn user(config: &Config, found: &mut Findings) {
    if config.user.is_empty() {
        return;
    }
    match nix::unistd::User::from_name(&config.user) {
        Ok(Some(_)) => found.ok("user", format!("the relay runs as {}", config.user)),
        Ok(None) => {
            let help = format!("useradd --system {}, or the packaged sysusers file", config.user);
            found.fail("user", format!("there is no user {:?}", config.user), &help);
        }
        Err(error) => found.fail("user", format!("{:?}: {error}", config.user), "see the system's log"),
    }
}

/// Whether the data directory can hold what is promised.
pub(super) fn data_dir(config: &Config, found: &mut Findings) {
    let dir = &config.data_dir;
    let Some(there) = dir.ancestors().find(|p| p.exists()) else { return };
    if there != dir {
        let writable = nix::unistd::access(there, nix::unistd::AccessFlags::W_OK).is_ok();
        if writable {
            found.ok("data_dir", format!("{} will be made on first start", dir.display()));
        } else {
            let text = format!(
                "{} is not there, and this user cannot make it in {}",
                dir.display(),
                there.display()
            );
            found.fail("data_dir", text, "make it and give it to the relay's user, mode 0700");
        }
    } else if let Err(error) = can_sync(dir) {
        let text = format!("{}: writing with fsync fails: {error}", dir.display());
        found.fail("data_dir", text, "it has to belong to the relay's user, on a disk that can sync");
    } else {
        found.ok("data_dir", format!("{} takes writes and fsync", dir.display()));
    }
    mode(dir, found);
    space(config, there, found);
}

/// Writes a file, syncs it and its directory, and removes it.
fn can_sync(dir: &Path) -> io::Result<()> {
    let path = dir.join(format!(".check-{}", std::process::id()));
    let mut file = std::fs::File::create_new(&path)?;
    let synced = file.write_all(b"posthouse check\n").and_then(|()| file.sync_all());
    let synced = synced.and_then(|()| std::fs::File::open(dir)?.sync_all());
    std::fs::remove_file(&path)?;
    synced
}

fn mode(dir: &Path, found: &mut Findings) {
    let Ok(meta) = std::fs::metadata(dir) else { return };
    if meta.mode() & 0o077 != 0 {
        let text = format!("{} is open to other users (mode {:o})", dir.display(), meta.mode() & 0o777);
        found.warn("data_dir", text, "chmod 0700: it holds mail, passwords and keys");
    }
}

fn space(config: &Config, there: &Path, found: &mut Findings) {
    if let Ok(kind) = statfs(there).map(|s| s.filesystem_type()) {
        if kind == TMPFS_MAGIC {
            let help = "put data_dir on a disk: what is acknowledged must outlive the power";
            found.warn("data_dir", format!("{} is in memory (tmpfs)", there.display()), help);
        } else if kind == NFS_SUPER_MAGIC {
            let help = "use a local disk: SQLite's locks and fsync are not safe on every NFS";
            found.warn("data_dir", format!("{} is on NFS", there.display()), help);
        }
    }
    let Ok(stat) = statvfs(there) else { return };
    let free = stat.blocks_available() * stat.fragment_size();
    let reserve = config.limits.disk_reserve;
    let shown = crate::cli::output::size(free);
    let wanted = crate::cli::output::size(reserve);
    if free <= reserve {
        let text =
            format!("{shown} free; limits.disk_reserve keeps {wanted}, so all mail would be refused (452)");
        found.fail("disk", text, "make room, or lower limits.disk_reserve");
    } else if free < reserve.saturating_mul(4) {
        found.warn("disk", format!("{shown} free; mail is refused below {wanted}"), "make room soon");
    } else {
        found.ok("disk", format!("{shown} free"));
    }
    let (files, left) = (stat.files(), stat.files_available());
    if files > 0 && left <= files / 100 {
        let text = format!("{left} of {files} inodes are free; below 1 % all mail is refused (452)");
        found.fail("disk", text, "remove files, or make a file system with more inodes");
    }
}

/// Whether the certificates are what clients expect.
pub(super) fn certificates(config: &Config, clock: &Clock, found: &mut Findings) {
    if let (Some(certificate), Some(key)) = (&config.tls.certificate, &config.tls.key) {
        match Pair::load(certificate, key) {
            Ok(pair) => certificate_facts(config, pair.facts(), clock, found),
            Err(error) => {
                let help = "the relay's user has to be able to read both, and the key has to belong to the certificate";
                found.fail("tls", error.to_string(), help);
            }
        }
    } else if config.acme.is_some() {
        stored(
            config,
            "acme/certificate.pem",
            "the certificate comes by ACME; none is there yet",
            clock,
            found,
        );
    } else {
        let public = config.listener.iter().flat_map(|l| &l.address).any(|a| !a.ip().is_loopback());
        let text =
            "no certificate and no [acme]: a self-signed one is made, which mail programs do not trust";
        if public {
            found.warn("tls", text, "set tls.certificate and tls.key, or add [acme]");
        } else {
            found.ok("tls", text);
        }
    }
    if let Some(path) = &config.tls.ca_file {
        match std::fs::read(path) {
            Ok(_) => found.ok("tls", format!("ca_file {} can be read", path.display())),
            Err(e) => found.fail("tls", format!("ca_file {}: {e}", path.display()), "correct tls.ca_file"),
        }
    }
}

/// A certificate that the relay itself put into the data directory.
fn stored(config: &Config, name: &str, none: &str, clock: &Clock, found: &mut Findings) {
    let path = config.data_dir.join("tls").join(name);
    match Pair::load(&path, &path) {
        Ok(pair) => certificate_facts(config, pair.facts(), clock, found),
        Err(_) if !path.exists() => found.ok("tls", none),
        Err(error) => found.fail("tls", error.to_string(), "remove it: the relay asks for a new one"),
    }
}

/// Where a smart host's access tokens come from, those of its logins too.
fn tokens(host: &crate::config::SmartHost) -> impl Iterator<Item = &crate::config::OAuth> {
    host.login.iter().filter_map(|login| login.oauth.as_ref()).chain(&host.oauth)
}

/// Whether other users of this machine can read what is secret.
pub(super) fn secrets(config: &Config, found: &mut Findings) {
    let of_host = |host: &crate::config::SmartHost| {
        (host.password.is_some() && host.password_file.is_none())
            || host.login.iter().any(|login| login.password.is_some() && login.password_file.is_none())
            || tokens(host).any(|oauth| {
                oauth.refresh_token.is_some()
                    || (oauth.client_secret.is_some() && oauth.client_secret_file.is_none())
            })
    };
    let inline = config.smarthost.values().any(of_host)
        || config.sources.values().any(|s| s.proxy_password.is_some() && s.proxy_password_file.is_none());
    let files = config.smarthost.values().flat_map(|host| {
        let oauth = tokens(host).flat_map(|o| o.client_secret_file.iter().chain(&o.refresh_token_file));
        let logins = host.login.iter().filter_map(|login| login.password_file.as_ref());
        host.password_file.iter().chain(&host.client_key).chain(logins).chain(oauth)
    });
    let proxies = config.sources.values().filter_map(|source| source.proxy_password_file.as_ref());
    let clients = config.tls_policy.iter().filter_map(|policy| policy.client_key.as_ref());
    let files = files.chain(proxies).chain(clients).map(std::path::PathBuf::as_path);
    let keys = config.tls.key.as_deref();
    for path in config.source.path.as_deref().filter(|_| inline).into_iter().chain(files).chain(keys) {
        let Ok(meta) = std::fs::metadata(path) else { continue };
        if meta.mode() & 0o007 != 0 {
            let text =
                format!("{} holds a secret and can be read by every user of this machine", path.display());
            found.warn("secrets", text, "chmod o-rwx, with the relay's user as owner or group");
        }
    }
}

fn certificate_facts(config: &Config, facts: &net::CertificateFacts, clock: &Clock, found: &mut Findings) {
    let now = clock.now();
    let until = facts.not_after;
    if !facts.is_valid_at(now) {
        let text = format!("{}: valid only from {} to {until}", facts.from, facts.not_before);
        found.fail("tls", text, "renew it, then `posthouse reload`");
    } else if until.since(now) < SOON {
        found.warn("tls", format!("{}: it ends on {until}", facts.from), "renew it, then `posthouse reload`");
    } else {
        found.ok("tls", format!("{}: certificate and key belong together, valid until {until}", facts.from));
    }
    if !facts.covers(&config.hostname) {
        let text =
            format!("{}: it is for {}, not for {}", facts.from, facts.names.join(", "), config.hostname);
        found.warn("tls", text, "mail programs compare the name they connect to with the certificate");
    }
    if facts.self_signed {
        let text = format!("{}: it is self-signed", facts.from);
        found.warn("tls", text, "mail programs do not trust it; [acme] gets one that they do");
    }
}

/// Whether the system allows what the configuration does.
pub(super) fn limits(config: &Config, found: &mut Findings) {
    let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE) else { return };
    match too_few_files(config, most) {
        Some((text, help)) => found.warn("limits", text, help),
        None => {
            let wanted = files_wanted(config);
            found.ok("limits", format!("{most} open files are allowed, {wanted} may be needed"));
        }
    }
}

fn files_wanted(config: &Config) -> u64 {
    config.limits.connections as u64 + config.delivery.connections as u64 + OTHER_FILES
}

/// What to say, and what to do, where a process that may open `most` files cannot have all the connections that are
/// configured.
pub(crate) fn too_few_files(config: &Config, most: u64) -> Option<(String, &'static str)> {
    let wanted = files_wanted(config);
    (most < wanted).then(|| {
        let text = format!(
            "the system allows {most} open files, and limits.connections ({}), delivery.connections ({}) and the rest may \
             need {wanted}",
            config.limits.connections, config.delivery.connections
        );
        (text, "raise LimitNOFILE (systemd) or ulimit -n, or lower these")
    })
}

/// Whether somebody may relay who should not.
pub(super) fn relaying(config: &Config, snapshot: &Snapshot, found: &mut Findings) {
    for (i, entry) in config.relay.networks.iter().enumerate() {
        let place = config.source.place(&format!("relay.networks[{i}]"));
        if entry.network.prefix() == 0 {
            let text = format!("{place}: {} is the whole internet: this is an open relay", entry.network);
            found.fail("relay", text, "name only networks whose machines are yours");
        } else if net::is_public(entry.network.address()) && entry.network.prefix() < 16 {
            let text = format!("{place}: {} is a large part of the internet", entry.network);
            found.warn("relay", text, "name only networks whose machines are yours");
        }
        if let Some(org) = entry.org.as_deref().filter(|org| snapshot.org_named(org).is_none()) {
            let help = format!("posthouse org add {org}");
            found.fail("relay", format!("{place}: there is no organisation {org:?}"), &help);
        }
    }
}

/// Whether the local domains have somewhere to go.
pub(super) fn domains(config: &Config, snapshot: &Snapshot, found: &mut Findings) {
    for (i, domain) in config.relay.local_domains.iter().enumerate() {
        let Ok(postmaster) = Address::parse(&format!("postmaster@{domain}")) else { continue };
        let place = config.source.place(&format!("relay.local_domains[{i}]"));
        match snapshot.route(None, &postmaster) {
            (Destination::Mx(_), _) => {
                let text =
                    format!("{place}: {domain} is a local domain, and no route says where its mail goes");
                found.fail(
                    "route",
                    text,
                    &format!("[[route]] domains = [\"{domain}\"] to = \"lmtp://127.0.0.1:24\""),
                );
            }
            (to, _) => found.ok("route", format!("{domain} goes to {to}")),
        }
    }
    if let Recipients::File(path) = &config.relay.recipients {
        match std::fs::File::open(path) {
            Ok(_) => found.ok("relay", format!("recipients are looked up in {}", path.display())),
            Err(e) => found.fail("relay", format!("{}: {e}", path.display()), "correct relay.recipients"),
        }
    }
}
