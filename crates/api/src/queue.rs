//! The queue: listing, looking, changing; and the traces of what became of messages.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use mail::{DeliveryId, Destination, MessageId, Timestamp};
use store::{Action, QueueEntry, QueueFilter, QueueStats};

use crate::accounts::{org_id, org_name};
use crate::control::Control;
use crate::extract::{Actor, Json, Name, Query};
use crate::problem::Problem;
use crate::router::page;
use crate::routing::{check_template, known_smarthost};
use crate::submit::Stored;
use crate::types::{
    Delivery, DeliveryDetail, LIMIT_DEFAULT, LIMIT_MAX, Page, Paging, QueueAction, QueueChange, QueueChanged,
    QueueQuery, QueueSummary, QueuesQuery,
};
use crate::view;

/// Most ids in one filter.
const IDS_MAX: usize = 1000;
/// Longest text in a filter.
const TEXT_MAX: usize = 1000;

pub(crate) fn routes<C: Control>() -> Router<C> {
    Router::new()
        .route("/api/queue", get(list::<C>))
        .route("/api/queue/{id}", get(show::<C>))
        .route("/api/queue/{id}/raw", get(raw::<C>))
        .route("/api/queue/actions/{action}", post(change::<C>))
        .route("/api/queues", get(queues::<C>))
}

async fn list<C: Control>(
    State(control): State<C>,
    Query(query): Query<QueueQuery>,
) -> Result<axum::Json<Page<Delivery>>, Problem> {
    let limit = query.limit.unwrap_or(LIMIT_DEFAULT).clamp(1, LIMIT_MAX);
    let after = query.after.as_deref().map(delivery_id).transpose()?;
    let filter = filter(&control, &query)?;
    let found = control.store().search(filter, after, limit).await?;
    let next = (found.len() == limit).then(|| found.last().map(|e| e.id.to_string())).flatten();
    let items = found.iter().map(|entry| delivery(&control, entry)).collect();
    Ok(axum::Json(Page { items, next }))
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
        deliveries: found.iter().map(|entry| delivery(&control, entry)).collect(),
    }))
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

async fn change<C: Control>(
    State(control): State<C>,
    Actor(by): Actor,
    Path(action): Path<String>,
    Json(ask): Json<QueueChange>,
) -> Result<axum::Json<QueueChanged>, Problem> {
    if ask.filter.is_empty() && !ask.all {
        return Err(Problem::invalid(
            "without a filter this would change every delivery: give a filter, or say `all`",
        ));
    }
    let filter = filter(&control, &ask.filter)?;
    let dry_run = ask.dry_run;
    let mut done = QueueChanged { changed: 0, in_flight: 0, skipped: 0, dry_run };
    if action == QueueAction::Reroute.as_str() && ask.to.as_deref() == Some("mx") {
        reroute_to_mx(&control, filter, &by, &mut done).await?;
        return Ok(axum::Json(done));
    }
    let action = action_of(&action, &ask)?;
    if let Action::Reroute { to: Destination::SmartHost(name) } = &action {
        known_smarthost(&control, name)?;
    }
    apply(&control, filter, action, &by, &mut done).await?;
    Ok(axum::Json(done))
}

async fn apply<C: Control>(
    control: &C,
    filter: QueueFilter,
    action: Action,
    by: &mail::Actor,
    done: &mut QueueChanged,
) -> Result<(), Problem> {
    // Part by part: a queue may be longer than what should be in memory at once.
    let mut after = None;
    loop {
        let (changed, next) = control.store().change_part(&filter, &action, by, done.dry_run, after).await?;
        done.changed += changed.len() as u64;
        if !done.dry_run {
            done.in_flight += control.apply(action.clone(), changed).await;
        }
        after = next;
        if after.is_none() {
            return Ok(());
        }
    }
}

/// Sends deliveries to the mail exchangers of their recipients' domain. What the sandbox or a smart host was to take may
/// have recipients in several domains; those are left alone, as there is no host that serves them all.
async fn reroute_to_mx<C: Control>(
    control: &C,
    filter: QueueFilter,
    by: &mail::Actor,
    done: &mut QueueChanged,
) -> Result<(), Problem> {
    let mut after = None;
    loop {
        let found = control.store().search(filter.clone(), after, LIMIT_MAX).await?;
        let mut by_domain: BTreeMap<String, Vec<DeliveryId>> = BTreeMap::new();
        for entry in &found {
            match only_domain(entry) {
                Some(domain) => by_domain.entry(domain.to_owned()).or_default().push(entry.id),
                None => done.skipped += 1,
            }
        }
        for (domain, deliveries) in by_domain {
            let these = QueueFilter { deliveries, ..QueueFilter::default() };
            let to = Destination::Mx(domain.into());
            apply(control, these, Action::Reroute { to }, by, done).await?;
        }
        after = found.last().map(|entry| entry.id);
        if found.len() < LIMIT_MAX {
            return Ok(());
        }
    }
}

/// The domain of the recipients that are not settled, if they have but one.
fn only_domain(entry: &QueueEntry) -> Option<&str> {
    let mut open = entry.recipients.iter().filter(|(_, _, status)| !status.is_final());
    let first = open.next()?.1.address.domain();
    open.all(|(_, who, _)| who.address.domain() == first).then_some(first)
}

fn action_of(name: &str, ask: &QueueChange) -> Result<Action, Problem> {
    let known = serde_json::from_value::<QueueAction>(name.into());
    let action =
        known.map_err(|_| Problem::not_found("actions are hold, release, retry, reroute and remove"))?;
    if ask.to.is_some() && action != QueueAction::Reroute {
        return Err(Problem::invalid(format!("`to` has no meaning for {}", action.as_str())));
    }
    if ask.reason.as_ref().is_some_and(|r| r.len() > TEXT_MAX || r.chars().any(char::is_control)) {
        return Err(Problem::invalid("a reason is one line of 1000 octets at most"));
    }
    Ok(match action {
        QueueAction::Hold => {
            Action::Hold { reason: ask.reason.clone().unwrap_or_else(|| "held by an operator".into()) }
        }
        QueueAction::Release => Action::Release,
        QueueAction::Retry => Action::Retry,
        QueueAction::Remove => Action::Remove,
        QueueAction::Reroute => {
            let to = ask
                .to
                .as_deref()
                .ok_or_else(|| Problem::invalid("reroute needs `to`, as a route says it"))?;
            let to = to.parse::<Destination>().map_err(|e| Problem::invalid(e.to_string()))?;
            if let Destination::Mx(domain) = &to
                && mail::domain_to_ascii(domain).is_none()
            {
                return Err(Problem::invalid(format!("{domain:?} is no domain")));
            }
            if let Destination::Maildir(path) = &to {
                check_template(path)?;
            }
            Action::Reroute { to }
        }
    })
}

/// The store's filter for a query.
fn filter<C: Control>(control: &C, query: &QueueQuery) -> Result<QueueFilter, Problem> {
    let texts = [&query.domain, &query.from, &query.to, &query.reason, &query.destination];
    for text in texts.into_iter().flatten() {
        if text.len() > TEXT_MAX || text.chars().any(char::is_control) {
            return Err(Problem::invalid("a filter is one line of 1000 octets at most"));
        }
    }
    let mut filter = QueueFilter {
        org: query.org.as_deref().map(|name| org_id(control, name)).transpose()?,
        destination: query.destination.as_deref().map(destination).transpose()?,
        domain: query.domain.clone(),
        from: query.from.clone(),
        to: query.to.clone(),
        reason: query.reason.clone(),
        ..QueueFilter::default()
    };
    for state in query.state.iter().flat_map(|s| s.split(',')) {
        let known = serde_json::from_value(state.trim().into());
        let words = "states are active, waiting, held, sandboxed and quarantined";
        filter.states.push(known.map_err(|_| Problem::invalid(format!("{state:?} is no state; {words}")))?);
    }
    if let Some(seconds) = query.older_than_s {
        let age = Duration::from_secs(seconds);
        let age = i64::try_from(age.as_millis()).map_err(|_| Problem::invalid("that is too long ago"))?;
        filter.before = Some(Timestamp(control.clock().now().millis().saturating_sub(age)));
    }
    for id in query.id.iter().flat_map(|ids| ids.split(',')) {
        add_id(&mut filter, id.trim())?;
    }
    if filter.messages.len() + filter.deliveries.len() > IDS_MAX {
        return Err(Problem::invalid(format!("at most {IDS_MAX} ids at a time")));
    }
    Ok(filter)
}

fn destination(text: &str) -> Result<Destination, Problem> {
    Destination::from_str(text).map_err(|e| Problem::invalid(e.to_string()))
}

fn add_id(filter: &mut QueueFilter, text: &str) -> Result<(), Problem> {
    if text.contains('-') {
        filter.deliveries.push(delivery_id(text)?);
    } else {
        filter.messages.push(text.parse().map_err(|e: mail::IdError| Problem::invalid(e.to_string()))?);
    }
    Ok(())
}

/// `MESSAGE-INDEX`.
fn delivery_id(text: &str) -> Result<DeliveryId, Problem> {
    let bad = || {
        let shown: String = text.chars().take(40).collect();
        Problem::invalid(format!("{shown:?} is no delivery id: a message id, a hyphen and a number"))
    };
    let (message, index) = text.split_once('-').ok_or_else(bad)?;
    let digits = !index.is_empty() && index.bytes().all(|b| b.is_ascii_digit());
    let index = index.parse().ok().filter(|_| digits).ok_or_else(bad)?;
    Ok(DeliveryId { message: message.parse::<MessageId>().map_err(|_| bad())?, index })
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
    }
}
