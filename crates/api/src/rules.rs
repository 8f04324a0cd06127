//! Rules about outgoing mail: sources, pools, egress, shapes, ceilings, TLS policies, aliases, rewrites. Those of the
//! configuration file are shown, and changed there. One set of handlers for all kinds.

use std::path::PathBuf;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use directory::rule::{self, Entry, Rule};
use serde_json::Value;

use crate::accounts::absent;
use crate::control::Control;
use crate::extract::{Actor, Json, Name, Query};
use crate::problem::Problem;
use crate::router::page;
use crate::types::{Page, Paging};

type Answer<T> = Result<axum::Json<T>, Problem>;

pub(crate) fn routes<C: Control>() -> Router<C> {
    Router::new()
        .merge(kind::<C, rule::Source>("sources"))
        .merge(kind::<C, rule::Pool>("pools"))
        .merge(kind::<C, rule::Egress>("egress"))
        .merge(kind::<C, rule::Shape>("shapes"))
        .merge(kind::<C, rule::Ceiling>("ceilings"))
        .merge(kind::<C, rule::TlsPolicy>("tls-policies"))
        .merge(kind::<C, rule::Alias>("aliases"))
        .merge(kind::<C, rule::Rewrite>("rewrites"))
}

fn kind<C: Control, R: FromApi>(path: &str) -> Router<C> {
    Router::new()
        .route(&format!("/api/{path}"), get(list::<C, R>).post(add::<C, R>))
        .route(&format!("/api/{path}/{{id}}"), get(show::<C, R>).put(set::<C, R>).delete(remove::<C, R>))
}

/// What the API asks of a rule beyond what the configuration file does.
trait FromApi: Rule {
    /// Paths that it names: they have to be absolute, as the relay runs elsewhere than the caller.
    fn paths(&self) -> Vec<&PathBuf> {
        Vec::new()
    }
}

impl FromApi for rule::Source {
    fn paths(&self) -> Vec<&PathBuf> {
        self.proxy_password_file.iter().collect()
    }
}
impl FromApi for rule::TlsPolicy {
    fn paths(&self) -> Vec<&PathBuf> {
        [&self.ca_file, &self.client_certificate, &self.client_key].into_iter().flatten().collect()
    }
}
impl FromApi for rule::Pool {}
impl FromApi for rule::Egress {}
impl FromApi for rule::Shape {}
impl FromApi for rule::Ceiling {}
impl FromApi for rule::Alias {}
impl FromApi for rule::Rewrite {}

/// What a rule says, from the body of a request.
fn parsed<R: FromApi>(body: serde_json::Map<String, Value>) -> Result<R, Problem> {
    if body.contains_key("proxy_password_file") {
        return Err(Problem::invalid(
            "send the password itself, as `proxy_password`: files are for the configuration",
        ));
    }
    let rule: R = serde_json::from_value(Value::Object(body)).map_err(|e| Problem::invalid(e.to_string()))?;
    match rule.paths().into_iter().find(|path| !path.is_absolute()) {
        Some(path) => Err(Problem::invalid(format!("{} is no absolute path", path.display()))),
        None => Ok(rule),
    }
}

/// A text of the body that is not part of the rule.
fn taken(body: &mut serde_json::Map<String, Value>, key: &str) -> Result<Option<String>, Problem> {
    match body.remove(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(Problem::invalid(format!("`{key}` is a text"))),
    }
}

/// Rules are listed in the order in which they are asked; their place is the key of the pages.
async fn list<C: Control, R: FromApi>(
    State(control): State<C>,
    Query(paging): Query<Paging>,
) -> Answer<Page<Entry<R>>> {
    let snapshot = control.directory().snapshot();
    let places = snapshot.rules::<R>().enumerate();
    Ok(page(&paging, places, |(place, _)| format!("{place:08}"), |(_, entry)| Entry::clone(entry)))
}

async fn show<C: Control, R: FromApi>(State(control): State<C>, Name(id): Name) -> Answer<Entry<R>> {
    let snapshot = control.directory().snapshot();
    let entry = snapshot.rule::<R>(&id).ok_or_else(|| absent(R::KIND, &id))?;
    Ok(axum::Json(Entry::clone(entry)))
}

async fn add<C: Control, R: FromApi>(
    State(control): State<C>,
    Actor(by): Actor,
    Json(mut body): Json<serde_json::Map<String, Value>>,
) -> Result<(StatusCode, axum::Json<Entry<R>>), Problem> {
    let name = taken(&mut body, "name")?;
    let before = taken(&mut body, "before")?;
    let entry = control.directory().add_rule::<R>(name, parsed(body)?, before, &by).await?;
    control.directory_changed().await;
    Ok((StatusCode::CREATED, axum::Json(Entry::clone(&entry))))
}

async fn set<C: Control, R: FromApi>(
    State(control): State<C>,
    Actor(by): Actor,
    Name(id): Name,
    Json(body): Json<serde_json::Map<String, Value>>,
) -> Answer<Entry<R>> {
    let entry = control.directory().set_rule::<R>(&id, parsed(body)?, &by).await?;
    control.directory_changed().await;
    Ok(axum::Json(Entry::clone(&entry)))
}

async fn remove<C: Control, R: FromApi>(
    State(control): State<C>,
    Actor(by): Actor,
    Name(id): Name,
) -> Result<StatusCode, Problem> {
    control.directory().remove_rule::<R>(&id, &by).await?;
    control.directory_changed().await;
    Ok(StatusCode::NO_CONTENT)
}
