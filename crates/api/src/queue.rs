//! The queue: listing, looking, changing; and the traces of what became of messages.

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use mail::State as DeliveryState;
use store::{QueueEntry, QueueFilter, QueueStats};

use crate::accounts::{org_id, org_name};
use crate::change;
use crate::control::Control;
use crate::extract::{Name, Query};
use crate::problem::Problem;
use crate::router::page;
use crate::submit::Stored;
use crate::types::{
    Delivery, DeliveryDetail, LIMIT_DEFAULT, LIMIT_MAX, Page, Paging, PathView, ProviderView, QueueQuery,
    QueueSummary, QueuesQuery,
};
use crate::view;
use crate::wanted::{add_id, delivery_id, site_of, wanted};

pub(crate) fn routes<C: Control>() -> Router<C> {
    Router::new()
        .route("/api/queue", get(list::<C>))
        .route("/api/queue/{id}", get(show::<C>))
        .route("/api/queue/{id}/raw", get(raw::<C>))
        .route("/api/queue/actions/{action}", post(change::change::<C>))
        .route("/api/queues", get(queues::<C>))
        .route("/api/paths", get(paths::<C>))
        .route("/api/providers", get(providers::<C>))
}

async fn list<C: Control>(
    State(control): State<C>,
    Query(query): Query<QueueQuery>,
) -> Result<axum::Json<Page<Delivery>>, Problem> {
    let limit = query.limit.unwrap_or(LIMIT_DEFAULT).clamp(1, LIMIT_MAX);
    let after = query.after.as_deref().map(delivery_id).transpose()?;
    let mut wanted = wanted(&control, &query)?;
    let mut after = after;
    let mut items = Vec::new();
    loop {
        let part = limit - items.len();
        // Where most is left out, parts of a page would make for many reads.
        let part = if wanted.path.is_any() { part } else { LIMIT_MAX };
        let found = control.store().search(wanted.filter.clone(), after, part).await?;
        let is_last = found.len() < part;
        for entry in found {
            after = Some(entry.id);
            if wanted.path.has(&control, &entry) {
                items.push(delivery(&control, &entry));
            }
            if items.len() == limit {
                let next = after.map(|id| id.to_string());
                return Ok(axum::Json(Page { items, next }));
            }
        }
        if is_last {
            return Ok(axum::Json(Page { items, next: None }));
        }
    }
}

async fn show<C: Control>(
    State(control): State<C>,
    Name(id): Name,
) -> Result<axum::Json<DeliveryDetail>, Problem> {
    let found = find(&control, &id).await?;
    let Some(first) = found.first() else { return Err(not_queued(&id)) };
    let (message, origin) = (&first.message, &first.message.origin);
    Ok(axum::Json(DeliveryDetail {
        message: message.id.to_string(),
        message_id: message.header_message_id.clone(),
        protocol: view::word(&origin.protocol),
        client: origin.client.map(|ip| ip.to_string()),
        helo: origin.helo.clone(),
        credential: origin.credential.clone(),
        tls: origin.tls.as_ref().map(view::tls),
        deliveries: found.iter().map(|entry| detailed(&control, entry)).collect(),
    }))
}

/// A delivery with where it leaves by, and why it waits.
fn detailed<C: Control>(control: &C, entry: &QueueEntry) -> Delivery {
    let queue = &entry.queue;
    let choice = control.directory().snapshot().pool(queue.org, queue.stream, &queue.destination);
    let waits = matches!(entry.state, DeliveryState::Active | DeliveryState::Waiting);
    Delivery {
        site: Some(site_of(control, &queue.destination).to_string()),
        pool: Some(choice.pool.to_string()),
        sources: choice.sources.iter().map(|(name, _)| name.to_string()).collect(),
        why: waits.then(|| control.why(entry.id, queue)).flatten(),
        ..delivery(control, entry)
    }
}

/// Paths in the order of source and site, which is the key of the pages.
async fn paths<C: Control>(
    State(control): State<C>,
    Query(paging): Query<Paging>,
) -> Result<axum::Json<Page<PathView>>, Problem> {
    let mut all = control.paths()?;
    let key = |path: &PathView| format!("{} {}", path.source, path.site);
    all.sort_by_cached_key(key);
    Ok(page(&paging, all.into_iter(), key, |path| path))
}

async fn providers<C: Control>(
    State(control): State<C>,
    Query(paging): Query<Paging>,
) -> Result<axum::Json<Page<ProviderView>>, Problem> {
    let mut all = control.providers();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(page(&paging, all.into_iter(), |it| it.name.clone(), |it| it))
}

async fn raw<C: Control>(State(control): State<C>, Name(id): Name) -> Result<Response, Problem> {
    let found = find(&control, &id).await?;
    for entry in &found {
        // It may be gone by now: then another delivery of the message may still be there.
        let Some(waiting) = control.store().load(entry.id).await? else { continue };
        let content = match waiting.body {
            Some(content) => content,
            None => control.store().content(&waiting.content).await?,
        };
        let headers = [
            (header::CONTENT_TYPE, "message/rfc822".into()),
            (header::CONTENT_LENGTH, content.len().to_string()),
        ];
        return Ok((headers, Body::new(Stored::new(content))).into_response());
    }
    Err(not_queued(&id))
}

fn not_queued(id: &str) -> Problem {
    Problem::not_found(format!("{id} is not in the queue; `posthouse trace {id}` tells what became of it"))
}

/// The deliveries of a message, or the one delivery, that `id` names.
async fn find<C: Control>(control: &C, id: &str) -> Result<Vec<QueueEntry>, Problem> {
    let mut filter = QueueFilter::default();
    add_id(&mut filter, id)?;
    Ok(control.store().search(filter, None, LIMIT_MAX).await?)
}

/// Queues are paged in the order of organisation, stream and destination.
async fn queues<C: Control>(
    State(control): State<C>,
    Query(query): Query<QueuesQuery>,
) -> Result<axum::Json<Page<QueueSummary>>, Problem> {
    let org = query.org.as_deref().map(|name| org_id(&control, name)).transpose()?;
    let mut queues = control.store().queues().await?;
    queues.retain(|stats| org.is_none_or(|org| stats.queue.org == org));
    let summary = |stats: QueueStats| QueueSummary {
        org: org_name(&control, stats.queue.org),
        stream: stats.queue.stream.as_str().to_owned(),
        destination: stats.queue.destination.to_string(),
        waiting: stats.waiting,
        due: stats.due.to_string(),
    };
    if let Some(largest) = query.largest {
        queues.sort_by(|a, b| b.waiting.cmp(&a.waiting).then_with(|| a.queue.cmp(&b.queue)));
        queues.truncate(largest.min(LIMIT_MAX));
        return Ok(axum::Json(Page { items: queues.into_iter().map(summary).collect(), next: None }));
    }
    let key = |stats: &QueueStats| {
        let queue = &stats.queue;
        format!("{:020} {} {}", queue.org.0, queue.stream.as_str(), queue.destination)
    };
    queues.sort_by_cached_key(key);
    let paging = Paging { after: query.after, limit: query.limit, org: None };
    Ok(page(&paging, queues.into_iter(), key, summary))
}

fn delivery<C: Control>(control: &C, entry: &QueueEntry) -> Delivery {
    Delivery {
        id: entry.id.to_string(),
        message: entry.message.id.to_string(),
        org: org_name(control, entry.queue.org),
        stream: entry.queue.stream.as_str().to_owned(),
        destination: entry.queue.destination.to_string(),
        state: view::word(&entry.state),
        reason: entry.reason.clone(),
        from: entry.message.sender().to_owned(),
        recipients: entry.recipients.iter().map(|(_, who, status)| view::recipient(who, status)).collect(),
        size: entry.message.size,
        received_at: entry.message.received_at.to_string(),
        due: entry.due.map(|due| due.to_string()),
        attempts: entry.attempts,
        crashes: entry.crashes,
        site: None,
        pool: None,
        sources: Vec::new(),
        why: None,
    }
}
