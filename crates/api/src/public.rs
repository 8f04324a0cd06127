//! Health checks and metrics, for TCP. Nothing here changes anything, and nothing tells of any mail.

use std::net::SocketAddr;

use axum::Router;
use axum::extract::{ConnectInfo, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::control::Control;
use crate::problem::{Kind, Problem};

/// The router of the TCP listener: `/healthz`, `/readyz`, `/metrics`.
pub fn public<C: Control>(control: C) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready::<C>))
        .route("/metrics", get(metrics::<C>))
        .fallback(async || Problem::not_found("here are /healthz, /readyz and /metrics"))
        .with_state(control)
}

async fn ready<C: Control>(State(control): State<C>) -> Response {
    match control.ready() {
        Ok(()) => "ready\n".into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
}

async fn metrics<C: Control>(
    State(control): State<C>,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
) -> Result<Response, Problem> {
    if !control.metrics_allowed(client.ip()) {
        let detail = format!("{} is not in api.metrics_networks", client.ip());
        return Err(Problem::new(Kind::Forbidden, detail));
    }
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], control.metrics().await).into_response())
}
