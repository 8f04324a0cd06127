//! The URL, taken apart: one way to connect for each host in it.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use tokio_postgres::config::{Host, SslMode, SslNegotiation};

use crate::tls::{Files, Proof, Tls};
use crate::{Config, PgError};

/// The kernel gives a connection up when the server has acknowledged nothing for this long.
const SILENCE: Duration = Duration::from_secs(15);

/// One server as it is named in the URL.
pub(crate) struct Endpoint {
    /// `host:port`, for error messages.
    pub(crate) name: String,
    pub(crate) config: tokio_postgres::Config,
    pub(crate) tls: Tls,
}

/// Reads the URL and the files that it names.
pub(crate) fn endpoints(config: &Config) -> Result<Vec<Endpoint>, PgError> {
    let wrong = |what: &str| PgError::Configuration(format!("the URL of PostgreSQL: {what}"));
    if !config.url.starts_with("postgres://") && !config.url.starts_with("postgresql://") {
        return Err(wrong("it must begin with postgres://"));
    }
    let (rest, ours) = split(&config.url);
    let base: tokio_postgres::Config =
        rest.parse().map_err(|e: tokio_postgres::Error| wrong(&full_text(&e)))?;
    let count = base.get_hosts().len().max(base.get_hostaddrs().len());
    if count == 0 {
        return Err(wrong("it names no host"));
    }
    if base.get_ports().len() > 1 && base.get_ports().len() != count {
        return Err(wrong("there must be one port, or one for each host"));
    }
    if !base.get_hosts().is_empty()
        && !base.get_hostaddrs().is_empty()
        && base.get_hosts().len() != base.get_hostaddrs().len()
    {
        return Err(wrong("host and hostaddr must be equally many"));
    }
    let files = Files {
        roots: config.ca_file.iter().cloned().chain(ours.roots.clone()).collect(),
        identity: ours.identity(&wrong)?,
    };
    let endpoint = |i| {
        endpoint(&base, i, config, &ours, &files).map_err(|e| match e {
            PgError::Configuration(what) => wrong(&what),
            other => other,
        })
    };
    (0..count).map(endpoint).collect()
}

fn endpoint(
    base: &tokio_postgres::Config,
    i: usize,
    config: &Config,
    ours: &Ours,
    files: &Files,
) -> Result<Endpoint, PgError> {
    let mut one = without_hosts(base);
    one.application_name(base.get_application_name().unwrap_or(&config.application_name));
    let port = base.get_ports().get(i).or_else(|| base.get_ports().first()).copied().unwrap_or(5432);
    one.port(port);
    let mut name = String::new();
    let mut local = false;
    match base.get_hosts().get(i) {
        Some(Host::Tcp(host)) => {
            one.host(host);
            name.clone_from(host);
            local = host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
        }
        Some(Host::Unix(path)) => {
            one.host_path(path);
            name = path.display().to_string();
            local = true;
        }
        None => {}
    }
    if let Some(address) = base.get_hostaddrs().get(i) {
        one.hostaddr(*address);
        if name.is_empty() {
            name = address.to_string();
        }
        local = address.is_loopback();
    }
    let (mode, proof) = ours.mode(local)?;
    one.ssl_mode(mode);
    let tls = Tls::new(proof, files)?;
    Ok(Endpoint { name: format!("{name}:{port}"), config: one, tls })
}

fn without_hosts(base: &tokio_postgres::Config) -> tokio_postgres::Config {
    let mut one = tokio_postgres::Config::new();
    if let Some(user) = base.get_user() {
        one.user(user);
    }
    if let Some(password) = base.get_password() {
        one.password(password);
    }
    if let Some(name) = base.get_dbname() {
        one.dbname(name);
    }
    if let Some(options) = base.get_options() {
        one.options(options);
    }
    if base.get_ssl_negotiation() == SslNegotiation::Direct {
        one.ssl_negotiation(SslNegotiation::Direct);
    }
    one.channel_binding(base.get_channel_binding());
    if let Some(limit) = base.get_connect_timeout() {
        one.connect_timeout(*limit);
    }
    one.keepalives(true).keepalives_idle(Duration::from_secs(10));
    one.keepalives_interval(Duration::from_secs(3)).keepalives_retries(3);
    one.tcp_user_timeout(base.get_tcp_user_timeout().copied().unwrap_or(SILENCE));
    one
}

/// The options of the URL that the client library does not know, or not as libpq does.
#[derive(Default)]
struct Ours {
    sslmode: Option<String>,
    roots: Option<PathBuf>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
}

impl Ours {
    /// What `sslmode` means, as in libpq, save that without it a server over a network must prove its name.
    fn mode(&self, local: bool) -> Result<(SslMode, Proof), PgError> {
        let require = if self.roots.is_some() { Proof::Issuer } else { Proof::None };
        Ok(match self.sslmode.as_deref() {
            None if local => (SslMode::Prefer, Proof::None),
            None | Some("verify-full") => (SslMode::Require, Proof::Name),
            Some("verify-ca") => (SslMode::Require, Proof::Issuer),
            Some("require") => (SslMode::Require, require),
            Some("prefer" | "allow") => (SslMode::Prefer, Proof::None),
            Some("disable") => (SslMode::Disable, Proof::None),
            Some(other) => {
                return Err(PgError::Configuration(format!(
                    "sslmode {other:?} is none of disable, prefer, require, verify-ca and verify-full"
                )));
            }
        })
    }

    fn identity(&self, wrong: &dyn Fn(&str) -> PgError) -> Result<Option<(PathBuf, PathBuf)>, PgError> {
        match (&self.certificate, &self.key) {
            (Some(certificate), Some(key)) => Ok(Some((certificate.clone(), key.clone()))),
            (None, None) => Ok(None),
            _ => Err(wrong("sslcert and sslkey go together")),
        }
    }
}

/// Takes our options out of the query part.
fn split(url: &str) -> (String, Ours) {
    let mut ours = Ours::default();
    let Some((front, query)) = url.split_once('?') else { return (url.to_owned(), ours) };
    let mut rest = Vec::new();
    for pair in query.split('&') {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        match key {
            "sslmode" => ours.sslmode = Some(decoded(value)),
            // "system" is what is done anyway.
            "sslrootcert" => ours.roots = Some(decoded(value)).filter(|v| v != "system").map(PathBuf::from),
            "sslcert" => ours.certificate = Some(decoded(value).into()),
            "sslkey" => ours.key = Some(decoded(value).into()),
            // The one that takes writes is always looked for.
            "target_session_attrs" | "load_balance_hosts" => {}
            _ => rest.push(pair),
        }
    }
    if rest.is_empty() { (front.to_owned(), ours) } else { (format!("{front}?{}", rest.join("&")), ours) }
}

/// Percent-decoding (RFC 3986 section 2.1); what is none stays.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let hex = tail.get(..2).and_then(|h| std::str::from_utf8(h).ok());
        match hex.and_then(|h| u8::from_str_radix(h, 16).ok()) {
            Some(byte) if first == b'%' => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            _ => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// An error of the client library with what lies behind it.
pub(crate) fn full_text(error: &tokio_postgres::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(url: &str) -> Result<Vec<Endpoint>, PgError> {
        endpoints(&Config::new(url))
    }

    #[test]
    fn each_host_becomes_a_way_of_its_own() {
        let all = parsed(
            "postgres://ph:p%40ss@db1.example:6432,db2.example:5432/mail?sslmode=require&options=-cx%3D1",
        )
        .unwrap();
        assert_eq!(
            all.iter().map(|e| e.name.as_str()).collect::<Vec<_>>(),
            ["db1.example:6432", "db2.example:5432"]
        );
        for one in &all {
            assert_eq!(one.config.get_hosts().len(), 1);
            assert_eq!(one.config.get_password(), Some(&b"p@ss"[..]));
            assert_eq!(one.config.get_dbname(), Some("mail"));
            assert_eq!(one.config.get_options(), Some("-cx=1"));
            assert_eq!(one.config.get_ssl_mode(), SslMode::Require);
            assert_eq!(one.config.get_application_name(), Some("posthouse"));
        }
    }

    #[test]
    fn over_a_network_the_name_is_verified_unless_told_otherwise() {
        let mode = |url: &str| {
            let (_, ours) = split(url);
            ours.mode(url.contains("127.0.0.1")).unwrap()
        };
        assert_eq!(mode("postgres://h/d"), (SslMode::Require, Proof::Name));
        assert_eq!(mode("postgres://127.0.0.1/d"), (SslMode::Prefer, Proof::None));
        assert_eq!(mode("postgres://h/d?sslmode=require"), (SslMode::Require, Proof::None));
        assert_eq!(mode("postgres://h/d?sslmode=require&sslrootcert=/x"), (SslMode::Require, Proof::Issuer));
        assert_eq!(mode("postgres://h/d?sslmode=disable"), (SslMode::Disable, Proof::None));
        assert_eq!(
            mode("postgres://127.0.0.1/d?sslmode=verify-full&sslrootcert=system"),
            (SslMode::Require, Proof::Name)
        );
        assert!(split("postgres://h/d?sslmode=maybe").1.mode(false).is_err());
    }

    #[test]
    fn a_wrong_url_is_told_without_the_password() {
        for url in [
            "host=x password=hunter2",
            "postgres://u:hunter2@h/d?colour=blue",
            "postgres://u:hunter2@h/d?sslmode=sometimes",
            "postgres://u:hunter2@h/d?sslcert=/x",
            "postgres://u:hunter2@h:notaport/d",
        ] {
            let error = parsed(url).err().unwrap();
            assert!(matches!(error, PgError::Configuration(_)), "{url}: {error:?}");
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
        assert!(!format!("{:?}", Config::new("postgres://u:hunter2@h/d")).contains("hunter2"));
    }

    #[test]
    fn a_unix_socket_needs_no_tls() {
        let all = parsed("postgres://postgres@%2Ftmp%2Fpg/db").unwrap();
        assert_eq!(all[0].name, "/tmp/pg:5432");
        assert_eq!(all[0].config.get_ssl_mode(), SslMode::Prefer);
    }
}
