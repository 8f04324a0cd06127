//! Status, reload, explain, trace, submission, backup, verification.

use std::path::PathBuf;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use bytes::BytesMut;

use crate::accounts::{org_id, org_name};
use crate::control::Control;
use crate::extract::{Actor, Json, Query};
use crate::problem::{Kind, Problem};
use crate::submit::{Upload, next_data};
use crate::types::{
    BackupAsk, BackupReport, DamagedMessage, Envelope, ExplainRequest, Explanation, Page, Reloaded, Status,
    Submitted, Trace, TraceQuery, VerifyReport,
};
use crate::view;

/// Longest envelope line before a submitted message.
const ENVELOPE_MAX: usize = 1 << 20;
/// Most recipients to explain.
const EXPLAIN_MAX: usize = 100;
/// How long a trace waits for the history.
const CATCH_UP: Duration = Duration::from_secs(1);
const STEP: Duration = Duration::from_millis(20);
/// Most timelines in one answer.
const TRACES_MAX: usize = 200;

pub(crate) fn routes<C: Control>() -> Router<C> {
    Router::new()
        .route("/api/status", get(status::<C>))
        .route("/api/reload", post(reload::<C>))
        .route("/api/explain", post(explain::<C>))
        .route("/api/trace", get(trace::<C>))
        .route("/api/submit", post(submit::<C>))
        .route("/api/backup", post(backup::<C>))
        .route("/api/verify", post(verify::<C>))
}

async fn status<C: Control>(State(control): State<C>) -> axum::Json<Status> {
    axum::Json(control.status())
}

async fn reload<C: Control>(
    State(control): State<C>,
    Actor(by): Actor,
) -> Result<axum::Json<Reloaded>, Problem> {
    tracing::info!(%by, "reload asked for");
    control.reload().await.map(axum::Json)
}

async fn explain<C: Control>(
    State(control): State<C>,
    Json(ask): Json<ExplainRequest>,
) -> Result<axum::Json<Explanation>, Problem> {
    if ask.to.is_empty() || ask.to.len() > EXPLAIN_MAX {
        return Err(Problem::invalid(format!("1 to {EXPLAIN_MAX} recipients can be explained at a time")));
    }
    control.explain(ask).await.map(axum::Json)
}

async fn trace<C: Control>(
    State(control): State<C>,
    Query(ask): Query<TraceQuery>,
) -> Result<axum::Json<Page<Trace>>, Problem> {
    let limit = ask.limit.unwrap_or(20).clamp(1, TRACES_MAX);
    let org = ask.org.as_deref().map(|name| org_id(&control, name)).transpose()?.map(|org| org.0);
    let query = history::TraceQuery {
        text: ask.text,
        sender: ask.from,
        recipient: ask.to,
        domain: ask.domain,
        message_id: ask.message_id,
        id: ask.id,
        org,
        since: view::time("since", ask.since.as_deref())?,
        until: view::time("until", ask.until.as_deref())?,
        before: ask.after,
        limit: Some(limit),
    };
    caught_up(&control).await;
    let found = control.history().trace(query).await?;
    let full = found.len() == limit;
    let items: Vec<Trace> = found.iter().map(|t| view::trace(t, |org| org_name(&control, org))).collect();
    let next = items.last().map(|t| t.id.clone()).filter(|_| full);
    Ok(axum::Json(Page { items, next }))
}

/// Waits until the history has what has happened so far: whoever has just sent something wants to see it. It copies in
/// batches, so that is a moment; one that is far behind is not waited for.
async fn caught_up<C: Control>(control: &C) {
    let happened = *control.store().outbox_wait().borrow();
    let mut left = CATCH_UP;
    while control.history().stats().last < happened && !left.is_zero() {
        tokio::time::sleep(STEP).await;
        left = left.saturating_sub(STEP);
    }
}

/// The body is one line of JSON, the envelope, and then the message as it is.
async fn submit<C: Control>(
    State(control): State<C>,
    Actor(by): Actor,
    mut body: Body,
) -> Result<(StatusCode, axum::Json<Submitted>), Problem> {
    let mut first = BytesMut::new();
    let end = loop {
        if let Some(end) = first.iter().position(|&b| b == b'\n') {
            break end;
        }
        if first.len() > ENVELOPE_MAX {
            return Err(Problem::new(Kind::TooLarge, "the envelope is longer than 1 MiB"));
        }
        match next_data(&mut body).await {
            Some(Ok(data)) => first.extend_from_slice(&data),
            _ => {
                return Err(Problem::invalid(
                    "the first line is the envelope as JSON, the message follows it",
                ));
            }
        }
    };
    let line = first.split_to(end + 1);
    let envelope: Envelope =
        serde_json::from_slice(&line).map_err(|e| Problem::invalid(format!("the envelope: {e}")))?;
    if envelope.to.is_empty() {
        return Err(Problem::invalid("a message without recipients"));
    }
    match control.submit(by, envelope, Upload::rest(first.freeze(), body)).await {
        Ok(id) => Ok((StatusCode::CREATED, axum::Json(Submitted { id: id.to_string() }))),
        Err(reply) if reply.is_transient() => Err(Problem::new(Kind::Unavailable, reply.to_string())),
        Err(reply) => Err(Problem::new(Kind::Refused, reply.to_string())),
    }
}

async fn backup<C: Control>(
    State(control): State<C>,
    Actor(by): Actor,
    Json(ask): Json<BackupAsk>,
) -> Result<axum::Json<BackupReport>, Problem> {
    let to = PathBuf::from(&ask.to);
    if !to.is_absolute() || ask.to.contains('\0') {
        return Err(Problem::invalid("`to` is an absolute path"));
    }
    tracing::info!(%by, to = %to.display(), "backup asked for");
    control.backup(to).await.map(axum::Json)
}

async fn verify<C: Control>(State(control): State<C>) -> Result<axum::Json<VerifyReport>, Problem> {
    let found = control.store().verify().await?;
    let damaged = found.damaged.iter();
    Ok(axum::Json(VerifyReport {
        messages: found.messages,
        bytes: found.bytes,
        damaged: damaged
            .map(|d| DamagedMessage { id: d.message.to_string(), reason: d.reason.clone() })
            .collect(),
        database: found.database,
    }))
}
