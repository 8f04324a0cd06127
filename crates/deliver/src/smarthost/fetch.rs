//! One HTTPS request, to a token server or with a TLS report, over our own resolver, dialer and TLS: what `tls.ca_file` says counts here too.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{ACCEPT, CONTENT_TYPE, HOST, USER_AGENT};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use net::{DialOptions, Stream, Trust};
use tokio::time::timeout;

use super::oauth::TokenUrl;
use crate::engine::Engine;
use crate::settings::Settings;

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
    let url: TokenUrl = url.parse().map_err(|_| format!("{url:?} is no https address"))?;
    let what = What { kind: "application/tlsrpt+gzip", body: gz.into(), named: false };
    match post(&settings, &url, what).await? {
        (200..=299, _) => Ok(()),
        (status, _) => Err(format!("the server says {status}")),
    }
}

/// What is posted.
pub(super) struct What {
    /// Its media type.
    pub(super) kind: &'static str,
    pub(super) body: Bytes,
    /// The operator named the host: it may be a private one.
    pub(super) named: bool,
}

/// Posts something. Says status and body, whatever the status; follows no redirect.
///
/// # Errors
/// In words.
pub(super) async fn post(settings: &Settings, url: &TokenUrl, what: What) -> Result<(u16, Bytes), String> {
    timeout(REQUEST_MAX, request(settings, url, what))
        .await
        .map_err(|_| format!("no answer within {} s", REQUEST_MAX.as_secs()))?
}

async fn request(settings: &Settings, url: &TokenUrl, what: What) -> Result<(u16, Bytes), String> {
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
        ended = &mut connection => match ended {
            // The answer may have come with the end.
            Ok(()) => answer.await,
            Err(error) => Err(failed(error)),
        },
    }
}

fn authority(url: &TokenUrl) -> String {
    let host = if url.host.contains(':') { format!("[{}]", url.host) } else { url.host.clone() };
    if url.port == 443 { host } else { format!("{host}:{}", url.port) }
}

async fn connect(settings: &Settings, url: &TokenUrl, named: bool) -> Result<Stream, String> {
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
