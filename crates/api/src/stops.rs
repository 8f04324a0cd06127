//! What is not delivered at an operator's word: suspensions, which stop mail on its way for a while, and suppressions, for
//! which no more mail is taken in.

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{delete, get};
use directory::rule::{Entry, Suspension};
use directory::{NewSuppression, SuppressedBy, SuppressionQuery};
use mail::{Address, BounceClass};
use serde::Deserialize;

use crate::accounts::{absent, org_id, org_name};
use crate::control::Control;
use crate::extract::{Actor, Json, Name, Query};
use crate::problem::Problem;
use crate::types::{
    LIMIT_DEFAULT, LIMIT_MAX, Page, Paging, ResumeQuery, ResumeReach, Suppression, SuppressionNew,
    SuppressionsQuery, Suspended, SuspensionNew, SuspensionReach,
};
use crate::{reach, view};

/// Who lifts what is over.
const OURSELVES: &str = "posthouse";

pub(crate) fn routes<C: Control>() -> Router<C> {
    Router::new()
        .route("/api/suspensions", get(suspensions::<C>).post(suspend::<C>))
        .route("/api/suspensions/reach", get(resume_reach::<C>))
        .route("/api/suspensions/{id}", delete(resume::<C>))
        .route("/api/suppressions", get(suppressions::<C>).post(suppress::<C>))
        .route("/api/suppressions/{address}", get(suppression::<C>).delete(unsuppress::<C>))
}

async fn suspensions<C: Control>(
    State(control): State<C>,
    Query(paging): Query<Paging>,
) -> Result<axum::Json<Page<Entry<Suspension>>>, Problem> {
    let (snapshot, now) = (control.directory().snapshot(), control.clock().now());
    let in_force = snapshot.rules::<Suspension>().filter(|entry| !entry.rule.is_over(now)).enumerate();
    let key = |(place, _): &(usize, _)| format!("{place:08}");
    Ok(crate::router::page(&paging, in_force, key, |(_, entry)| Entry::clone(entry)))
}

async fn suspend<C: Control>(
    State(control): State<C>,
    Actor(by): Actor,
    Json(new): Json<SuspensionNew>,
) -> Result<(StatusCode, axum::Json<Suspended>), Problem> {
    let now = control.clock().now();
    let dry_run = new.dry_run;
    let suspension = wanted(new, &by, now)?;
    if dry_run {
        control.directory().check_rule(&suspension)?;
        let reach = SuspensionReach { dry_run, ..reach::of(&control, &suspension).await? };
        return Ok((StatusCode::OK, axum::Json(Suspended { suspension: None, reach: Some(reach) })));
    }
    for over in control.directory().snapshot().rules::<Suspension>().filter(|e| e.rule.is_over(now)) {
        control.directory().remove_rule::<Suspension>(&over.id, &OURSELVES.to_owned()).await?;
    }
    let entry = control.directory().add_rule(None, suspension, None, &by).await?;
    control.directory_changed().await;
    // It is in force, whether or not it is known what it stops.
    let reach = reach::of(&control, &entry.rule).await.ok();
    let made = Suspended { suspension: Some(Entry::clone(&entry)), reach };
    Ok((StatusCode::CREATED, axum::Json(made)))
}

/// The suspension that is asked for.
fn wanted(new: SuspensionNew, by: &mail::Actor, now: mail::Timestamp) -> Result<Suspension, Problem> {
    let invalid = |e: &dyn std::fmt::Display| Problem::invalid(e.to_string());
    let filters = [&new.org, &new.stream, &new.domain, &new.destination, &new.site, &new.source];
    if filters.iter().all(|f| f.is_none()) && !new.all {
        return Err(Problem::invalid(
            "without a filter this would stop all mail: give a filter, or say `all`",
        ));
    }
    let until = view::time("until", new.until.as_deref())?.map(mail::Timestamp);
    if until.is_some_and(|until| until <= now) {
        return Err(Problem::invalid("`until` has passed already"));
    }
    Ok(Suspension {
        org: new.org,
        stream: new.stream.map(|s| s.parse()).transpose().map_err(|e: mail::DestinationError| invalid(&e))?,
        domain: new.domain.map(|d| d.parse()).transpose().map_err(|e: mail::PatternError| invalid(&e))?,
        destination: new
            .destination
            .map(|d| d.parse())
            .transpose()
            .map_err(|e: mail::DestinationError| invalid(&e))?,
        site: new.site,
        source: new.source,
        until,
        reason: new.reason.unwrap_or_default(),
        by: by.clone(),
        since: Some(now),
    })
}

async fn resume_reach<C: Control>(
    State(control): State<C>,
    Query(query): Query<ResumeQuery>,
) -> Result<axum::Json<ResumeReach>, Problem> {
    let ids: Vec<&str> = query.ids.split(',').map(str::trim).filter(|id| !id.is_empty()).collect();
    let snapshot = control.directory().snapshot();
    if let Some(unknown) = ids.iter().find(|id| snapshot.rule::<Suspension>(id).is_none()) {
        return Err(absent("suspension", unknown));
    }
    reach::of_lifting(&control, &ids).await.map(axum::Json)
}

async fn resume<C: Control>(
    State(control): State<C>,
    Actor(by): Actor,
    Name(id): Name,
) -> Result<StatusCode, Problem> {
    control.directory().remove_rule::<Suspension>(&id, &by).await?;
    control.directory_changed().await;
    Ok(StatusCode::NO_CONTENT)
}

fn view_suppression<C: Control>(control: &C, it: &directory::Suppression) -> Suppression {
    Suppression {
        org: org_name(control, it.org),
        address: it.address.to_string(),
        class: it.class.to_string(),
        reason: it.reason.to_string(),
        source: it.source.to_string(),
        by: it.by.to_string(),
        since: it.since.to_string(),
    }
}

/// Suppressions are listed by organisation and address: the key of the pages.
async fn suppressions<C: Control>(
    State(control): State<C>,
    Query(query): Query<SuppressionsQuery>,
) -> Result<axum::Json<Page<Suppression>>, Problem> {
    let limit = query.limit.unwrap_or(LIMIT_DEFAULT).clamp(1, LIMIT_MAX);
    let org = query.org.as_deref().map(|name| org_id(&control, name)).transpose()?;
    let after = match query.after.as_deref().map(|after| after.split_once(' ')) {
        None => None,
        Some(Some((org, address))) => org.parse().ok().map(|org| (mail::OrgId(org), address.to_owned())),
        Some(None) => return Err(Problem::invalid("`after` is the `next` of the part before")),
    };
    let wanted = SuppressionQuery { org, text: query.text, after, limit: Some(limit) };
    let found = control.directory().suppressions(wanted).await?;
    let next = (found.len() == limit).then(|| found.last().map(|s| format!("{} {}", s.org.0, s.address)));
    let items = found.iter().map(|it| view_suppression(&control, it)).collect();
    Ok(axum::Json(Page { items, next: next.flatten() }))
}

/// Whose suppression is meant.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Whose {
    #[serde(default)]
    org: Option<String>,
}

impl Whose {
    fn org(&self) -> &str {
        self.org.as_deref().unwrap_or("default")
    }
}

fn address(text: &str) -> Result<Address, Problem> {
    Address::parse(text).map_err(|e| Problem::invalid(format!("{text:?}: {e}")))
}

async fn suppression<C: Control>(
    State(control): State<C>,
    Name(text): Name,
    Query(whose): Query<Whose>,
) -> Result<axum::Json<Suppression>, Problem> {
    let org = org_id(&control, whose.org())?;
    let snapshot = control.directory().snapshot();
    let it = snapshot.suppressed(org, &address(&text)?).ok_or_else(|| absent("suppression of", &text))?;
    Ok(axum::Json(view_suppression(&control, it)))
}

async fn suppress<C: Control>(
    State(control): State<C>,
    Actor(by): Actor,
    Json(new): Json<SuppressionNew>,
) -> Result<(StatusCode, axum::Json<Suppression>), Problem> {
    let new = NewSuppression {
        org: new.org.unwrap_or_else(|| "default".into()),
        address: address(&new.address)?,
        class: BounceClass::Recipient,
        reason: new.reason.unwrap_or_else(|| "added by hand".into()),
        source: SuppressedBy::Manual,
    };
    let (it, is_new) = control.directory().suppress(new, &by).await?;
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, axum::Json(view_suppression(&control, &it))))
}

async fn unsuppress<C: Control>(
    State(control): State<C>,
    Actor(by): Actor,
    Name(text): Name,
    Query(whose): Query<Whose>,
) -> Result<StatusCode, Problem> {
    control.directory().unsuppress(whose.org(), &address(&text)?, &by).await?;
    Ok(StatusCode::NO_CONTENT)
}
