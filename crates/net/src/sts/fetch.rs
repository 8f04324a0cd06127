//! Getting a policy from the domain's web server (RFC 8461 section 3.3).

use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, CONTENT_TYPE, HOST};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::policy::POLICY_MAX;
use super::{StsConfig, StsFault, StsFaultKind, StsPolicy};
use crate::{ClientTls, DialOptions, NetError, Resolver, Stream, Trust, dial_first};

/// The whole of it.
const FETCH_MAX: Duration = Duration::from_secs(60);
/// One address, and the handshake.
const STEP_MAX: Duration = Duration::from_secs(20);

pub(super) async fn fetch(
    domain: &str,
    config: &StsConfig,
    resolver: &Resolver,
    tls: &ClientTls,
) -> Result<StsPolicy, StsFault> {
    let host = format!("mta-sts.{domain}");
    match timeout(FETCH_MAX, get(&host, config, resolver, tls)).await {
        Ok(result) => result,
        Err(_) => Err(fault(StsFaultKind::Fetch, &host, format!("no answer in {} s", FETCH_MAX.as_secs()))),
    }
}

async fn get(
    host: &str,
    config: &StsConfig,
    resolver: &Resolver,
    tls: &ClientTls,
) -> Result<StsPolicy, StsFault> {
    let stream = connect(host, config, resolver, tls).await?;
    let failed = |e: hyper::Error| fault(StsFaultKind::Fetch, host, e);
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(POLICY_MAX)
        .handshake::<_, Empty<Bytes>>(TokioIo::new(stream))
        .await
        .map_err(failed)?;
    let _driver = AbortOnDropHandle::new(tokio::spawn(connection));
    let authority = if config.port == 443 { host.to_owned() } else { format!("{host}:{}", config.port) };
    let request = Request::get("/.well-known/mta-sts.txt")
        .header(HOST, authority)
        .header(ACCEPT, "text/plain")
        .body(Empty::new())
        .map_err(|e| fault(StsFaultKind::Fetch, host, e))?;
    let response = sender.send_request(request).await.map_err(failed)?;
    let text = read(host, response).await?;
    text.parse::<StsPolicy>().map_err(|e| fault(StsFaultKind::Invalid, host, e))
}

/// A connection whose other end is `host` beyond doubt.
async fn connect(
    host: &str,
    config: &StsConfig,
    resolver: &Resolver,
    tls: &ClientTls,
) -> Result<Stream, StsFault> {
    let addresses = resolver.addresses(host).await.map_err(|e| fault(StsFaultKind::Fetch, host, e))?;
    let addresses: Vec<SocketAddr> =
        addresses.into_iter().map(|ip| SocketAddr::new(ip, config.port)).collect();
    let options =
        DialOptions { timeout: STEP_MAX, allow_private: config.allow_private, ..DialOptions::default() };
    let dialed = dial_first(&addresses, &options).await.map_err(|failed| {
        let why = failed.into_iter().next().map_or_else(String::new, |(_, error)| error.to_string());
        fault(StsFaultKind::Fetch, host, why)
    })?;
    tls.connect(dialed.stream, host, Trust::Verified, STEP_MAX).await.map_err(|error| {
        let kind = match error {
            NetError::Untrusted { .. } => StsFaultKind::Certificate,
            _ => StsFaultKind::Fetch,
        };
        fault(kind, host, error)
    })
}

/// The body of a good answer. Redirects are not followed (RFC 8461 section 3.3): anyone may be at the other end of one.
async fn read(host: &str, response: Response<Incoming>) -> Result<String, StsFault> {
    let status = response.status();
    if status != StatusCode::OK {
        let note = if status.is_redirection() { "; redirects are not allowed" } else { "" };
        return Err(fault(StsFaultKind::Fetch, host, format!("it answers {}{note}", status.as_u16())));
    }
    let kind = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media = kind.split(';').next().unwrap_or_default().trim();
    if !media.eq_ignore_ascii_case("text/plain") {
        let shown: String = media.chars().take(60).collect();
        return Err(fault(
            StsFaultKind::Invalid,
            host,
            format!("its media type is {shown:?}, not text/plain"),
        ));
    }
    let body = Limited::new(response.into_body(), POLICY_MAX).collect().await;
    let body = body.map_err(|e| {
        let too_long = e.is::<http_body_util::LengthLimitError>();
        let kind = if too_long { StsFaultKind::Invalid } else { StsFaultKind::Fetch };
        fault(
            kind,
            host,
            if too_long { "the policy is longer than 64 KiB".to_owned() } else { e.to_string() },
        )
    })?;
    String::from_utf8(body.to_bytes().to_vec())
        .map_err(|_| fault(StsFaultKind::Invalid, host, "the policy is not text"))
}

fn fault(kind: StsFaultKind, host: &str, why: impl std::fmt::Display) -> StsFault {
    StsFault { kind, text: format!("https://{host}/.well-known/mta-sts.txt: {why}") }
}
