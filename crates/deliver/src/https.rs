//! One HTTPS request, to a token server or with a TLS report, over our own resolver, dialer and TLS: what `tls.ca_file`
//! says counts here too.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{ACCEPT, CONTENT_TYPE, HOST, USER_AGENT};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use net::{DialOptions, Stream, Trust};
use tokio::time::timeout;

use crate::engine::Engine;
use crate::settings::Settings;

/// An `https://` address.
#[derive(Clone, PartialEq, Eq)]
pub struct HttpsUrl {
    host: String,
    port: u16,
    /// Path and query.
    path: String,
}

/// The text is no such address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no https://host/path address without a user name and without #")]
pub struct HttpsUrlError(String);

/// Time for the whole of it.
const REQUEST_MAX: Duration = Duration::from_secs(30);
/// Time for one address to answer.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// Most octets of an answer. Tokens have some thousand.
const ANSWER_MAX: usize = 256 << 10;

/// Sends a TLS report to an address that a domain named (RFC 8460 section 5.4).
///
/// # Errors
/// In words.
pub async fn post_tls_report(engine: &Engine, url: &str, gz: Vec<u8>) -> Result<(), String> {
    let settings = engine.settings();
    let url: HttpsUrl = url.parse().map_err(|_| format!("{url:?} is no https address"))?;
    let what = What { kind: "application/tlsrpt+gzip", body: gz.into(), named: false };
    match post(&settings, &url, what).await? {
        (200..=299, _) => Ok(()),
        (status, _) => Err(format!("the server says {status}")),
    }
}

/// What is posted.
pub(crate) struct What {
    /// Its media type.
    pub(crate) kind: &'static str,
    pub(crate) body: Bytes,
    /// The operator named the host: it may be a private one.
    pub(crate) named: bool,
}

/// Posts something. Says status and body, whatever the status; follows no redirect.
///
/// # Errors
/// In words.
pub(crate) async fn post(settings: &Settings, url: &HttpsUrl, what: What) -> Result<(u16, Bytes), String> {
    timeout(REQUEST_MAX, request(settings, url, what))
        .await
        .map_err(|_| format!("no answer within {} s", REQUEST_MAX.as_secs()))?
}

async fn request(settings: &Settings, url: &HttpsUrl, what: What) -> Result<(u16, Bytes), String> {
    let stream = connect(settings, url, what.named).await?;
    let failed = |error: hyper::Error| format!("the connection broke: {error}");
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    let request = Request::builder()
        .method(Method::POST)
        .uri(&url.path)
        .header(HOST, authority(url))
        .header(CONTENT_TYPE, what.kind)
        .header(ACCEPT, "application/json")
        .header(USER_AGENT, "posthouse")
        .body(Full::new(what.body))
        .map_err(|error| error.to_string())?;
    let answer = async move {
        let response = sender.send_request(request).await.map_err(failed)?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), ANSWER_MAX)
            .collect()
            .await
            .map_err(|error| format!("the answer cannot be read: {error}"))?;
        Ok((status, body.to_bytes()))
    };
    // The connection is driven here and ends with the answer: no task is left behind.
    tokio::pin!(answer);
    tokio::pin!(connection);
    tokio::select! {
        answer = &mut answer => answer,
        // The answer may have come with the end, however the server ends it: many leave without a word of TLS.
        ended = &mut connection => match (answer.await, ended) {
            (Ok(answer), _) => Ok(answer),
            (Err(_), Err(error)) => Err(failed(error)),
            (Err(error), Ok(())) => Err(error),
        },
    }
}

fn authority(url: &HttpsUrl) -> String {
    let host = if url.host.contains(':') { format!("[{}]", url.host) } else { url.host.clone() };
    if url.port == 443 { host } else { format!("{host}:{}", url.port) }
}

async fn connect(settings: &Settings, url: &HttpsUrl, named: bool) -> Result<Stream, String> {
    let addresses = settings.resolver.addresses(&url.host).await.map_err(|error| error.to_string())?;
    let allow_private = named || settings.allow_private_targets;
    let options = DialOptions { timeout: CONNECT_MAX, allow_private, ..DialOptions::default() };
    let mut wrong = format!("{} has no address", url.host);
    for ip in addresses {
        let stream = match net::dial(SocketAddr::new(ip, url.port), &options).await {
            Ok(stream) => stream,
            Err(error) => {
                wrong = error.to_string();
                continue;
            }
        };
        match settings.tls.connect(stream, &url.host, Trust::Verified, CONNECT_MAX).await {
            Ok(stream) => return Ok(stream),
            Err(error) => wrong = error.to_string(),
        }
    }
    Err(wrong)
}

impl fmt::Display for HttpsUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        match self.port {
            443 => write!(f, "https://{host}{}", self.path),
            port => write!(f, "https://{host}:{port}{}", self.path),
        }
    }
}

impl fmt::Debug for HttpsUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for HttpsUrl {
    type Err = HttpsUrlError;

    fn from_str(text: &str) -> Result<Self, HttpsUrlError> {
        let bad = || HttpsUrlError(text.chars().take(200).collect());
        if !text.is_ascii() || text.contains(|c: char| c.is_ascii_control() || c == ' ' || c == '#') {
            return Err(bad());
        }
        let (scheme, rest) = text.split_once("://").ok_or_else(bad)?;
        if !scheme.eq_ignore_ascii_case("https") {
            return Err(bad());
        }
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let (host, port) = match authority.strip_prefix('[').and_then(|a| a.split_once(']')) {
            Some((host, "")) => (host, 443),
            Some((host, port)) => (host, port.strip_prefix(':').and_then(port_of).ok_or_else(bad)?),
            None => match authority.split_once(':') {
                Some((host, port)) => (host, port_of(port).ok_or_else(bad)?),
                None => (authority, 443),
            },
        };
        if host.is_empty() || host.contains(['@', '[', ']', '\\', '%']) {
            return Err(bad());
        }
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        Ok(Self { host: host.to_ascii_lowercase(), port, path })
    }
}

fn port_of(text: &str) -> Option<u16> {
    text.parse().ok().filter(|&port| port != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (text, shown) in [
            ("https://login.example/token", "https://login.example/token"),
            ("HTTPS://Login.Example:8443/a/b?c=d", "https://login.example:8443/a/b?c=d"),
            ("https://login.example", "https://login.example/"),
            ("https://login.example?x=y", "https://login.example/?x=y"),
            ("https://[2001:db8::1]:444/t", "https://[2001:db8::1]:444/t"),
            ("https://[2001:db8::1]/t", "https://[2001:db8::1]/t"),
        ] {
            assert_eq!(text.parse::<HttpsUrl>().unwrap().to_string(), shown);
        }
        for bad in [
            "http://login.example/token",
            "login.example/token",
            "https://",
            "https:///token",
            "https://user:pass@login.example/",
            "https://login.example:0/",
            "https://login.example:x/",
            "https://login.example/a b",
            "https://login.example/#x",
            "https://login.example/\r\nX: y",
            "https://[2001:db8::1/t",
        ] {
            assert!(bad.parse::<HttpsUrl>().is_err(), "{bad}");
        }
    }
}
