//! The way to the management API: the socket of a running relay, or the same router in this process.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use api::{Actor, Problem};
use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tower::ServiceExt;

use api::types::Page;

use super::context::CliError;
use super::stopped::Stopped;
use crate::config::Config;

/// The management API.
#[derive(Clone)]
pub(crate) struct Client(Way);

#[derive(Clone)]
enum Way {
    /// A relay runs.
    Socket(PathBuf),
    /// None runs; this process holds the lock of the data directory.
    Stopped(Arc<Stopped>),
}

/// No body.
pub(crate) const NOTHING: Option<&()> = None;

impl Client {
    /// Finds the running relay, or takes the lock of the data directory.
    pub(crate) async fn connect(config: Config, path: Option<PathBuf>) -> Result<Self, CliError> {
        match Self::running(&config).await? {
            Some(client) => Ok(client),
            None => Ok(Self(Way::Stopped(Arc::new(Stopped::open(config, path).await?)))),
        }
    }

    /// Finds the running relay, if there is one.
    pub(crate) async fn running(config: &Config) -> Result<Option<Self>, CliError> {
        let socket = config.socket();
        match UnixStream::connect(&socket).await {
            Ok(_) => Ok(Some(Self(Way::Socket(socket)))),
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                Ok(None)
            }
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Err(CliError::Failed(format!(
                "{}: permission denied; run this as root or as the relay's own user",
                socket.display()
            ))),
            Err(e) => Err(CliError::failed(&format!("{} does not answer", socket.display()), &e)),
        }
    }

    /// Whether a relay runs.
    pub(crate) fn is_running(&self) -> bool {
        matches!(self.0, Way::Socket(_))
    }

    /// Lets go of the data directory.
    pub(crate) async fn close(self) {
        if let Way::Stopped(stopped) = self.0 {
            stopped.close().await;
        }
    }

    /// Asks for a value.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, CliError> {
        self.call(Method::GET, path, NOTHING).await
    }

    /// Sends a value and gets one back.
    pub(crate) async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T, CliError> {
        let (kind, body) = match body {
            Some(body) => {
                let json = serde_json::to_vec(body).map_err(|e| CliError::failed("the request", &e))?;
                ("application/json", Body::from(json))
            }
            None => ("text/plain", Body::empty()),
        };
        let response = self.send(method, path, kind, body).await?;
        read(response).await
    }

    /// Sends a body as it is and gets the response; a problem is an error.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        kind: &str,
        body: Body,
    ) -> Result<Response<Body>, CliError> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "posthouse")
            .header(header::CONTENT_TYPE, kind)
            .body(body)
            .map_err(|e| CliError::failed("the request", &e))?;
        let response = match &self.0 {
            Way::Socket(socket) => over_socket(socket, request).await?,
            Way::Stopped(stopped) => in_process(stopped.router(), request).await,
        };
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let bytes = collect(response).await?;
        let problem = serde_json::from_slice::<Problem>(&bytes);
        Err(problem
            .map_or_else(|_| CliError::Failed(format!("the relay answered {status}")), CliError::Problem))
    }

    /// Goes through a listing part by part, at most `limit` entries (0: all). Whether there would be more.
    pub(crate) async fn pages<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &impl Serialize,
        limit: usize,
        mut each: impl FnMut(Vec<T>),
    ) -> Result<bool, CliError> {
        let mut after: Option<String> = None;
        let mut left = if limit == 0 { usize::MAX } else { limit };
        loop {
            let mut pairs = pairs(query);
            pairs.push(("limit".into(), left.min(1000).to_string()));
            pairs.extend(after.take().map(|after| ("after".into(), after)));
            let page: Page<T> = self.get(&with_query(path, &pairs)).await?;
            left -= page.items.len().min(left);
            each(page.items);
            match page.next {
                None => return Ok(false),
                Some(_) if left == 0 => return Ok(true),
                next => after = next,
            }
        }
    }
}

async fn over_socket(socket: &PathBuf, request: Request<Body>) -> Result<Response<Body>, CliError> {
    let lost =
        |e: &dyn std::fmt::Display| CliError::Temporary(format!("the connection to the relay was lost: {e}"));
    let stream = UnixStream::connect(socket).await.map_err(|e| lost(&e))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| lost(&e))?;
    tokio::spawn(connection);
    let response = sender.send_request(request).await.map_err(|e| lost(&e))?;
    Ok(response.map(Body::new))
}

async fn in_process(router: Router, mut request: Request<Body>) -> Response<Body> {
    request.extensions_mut().insert(Actor::ourselves());
    router.oneshot(request).await.unwrap_or_else(|never| match never {})
}

/// The value in a response; `null` when there is no content.
pub(crate) async fn read<T: DeserializeOwned>(response: Response<Body>) -> Result<T, CliError> {
    let no_content = response.status() == StatusCode::NO_CONTENT;
    let bytes = collect(response).await?;
    let bytes = if no_content { Bytes::from_static(b"null") } else { bytes };
    serde_json::from_slice(&bytes).map_err(|e| CliError::failed("the relay's answer makes no sense", &e))
}

async fn collect(response: Response<Body>) -> Result<Bytes, CliError> {
    let body = response.into_body().collect().await;
    body.map(http_body_util::Collected::to_bytes)
        .map_err(|e| CliError::Temporary(format!("the relay's answer broke off: {e}")))
}

/// The fields of a flat value that are there, as texts.
pub(crate) fn pairs(query: &impl Serialize) -> Vec<(String, String)> {
    let value = serde_json::to_value(query).unwrap_or_default();
    let object = value.as_object().cloned().unwrap_or_default();
    let text = |value: serde_json::Value| match value {
        serde_json::Value::Null => None,
        serde_json::Value::String(text) => Some(text),
        other => Some(other.to_string()),
    };
    object.into_iter().filter_map(|(key, value)| Some((key, text(value)?))).collect()
}

/// A path with a query.
pub(crate) fn with_query(path: &str, pairs: &[(String, String)]) -> String {
    let query: Vec<String> = pairs.iter().map(|(k, v)| format!("{}={}", encode(k), encode(v))).collect();
    if query.is_empty() { path.to_owned() } else { format!("{path}?{}", query.join("&")) }
}

/// A text as part of a path or query (RFC 3986 section 2.1).
pub(crate) fn encode(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(byte.into()),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_name_can_leave_its_place_in_the_path() {
        assert_eq!(encode("../a b?c&d=%"), "..%2Fa%20b%3Fc%26d%3D%25");
        let query =
            api::types::QueueQuery { from: Some("<>".into()), older_than_s: Some(5), ..Default::default() };
        assert_eq!(with_query("/api/queue", &pairs(&query)), "/api/queue?from=%3C%3E&older_than_s=5");
    }
}
