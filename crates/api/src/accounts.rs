//! Organisations, credentials, keys and sender domains.

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use directory::{Directory, DirectoryError, NewCredential, NewKey, Password, Pattern, Secret};
use mail::{OrgId, Stream};
use net::Network;

use crate::control::Control;
use crate::extract::{Actor, Json, Name, Query};
use crate::problem::Problem;
use crate::router::page;
use crate::types::{
    AuditEntry, AuditQuery, Credential, CredentialChange, CredentialMade, CredentialNew, Domain, DomainNew,
    Key, KeyChange, KeyMade, KeyNew, LIMIT_DEFAULT, LIMIT_MAX, Org, OrgChange, OrgNew, Page, Paging,
};
use crate::view;

/// The organisation that exists from the start.
const DEFAULT_ORG: &str = "default";

type Answer<T> = Result<axum::Json<T>, Problem>;
type Created<T> = Result<(StatusCode, axum::Json<T>), Problem>;

pub(crate) fn routes<C: Control>() -> Router<C> {
    Router::new()
        .route("/api/orgs", get(orgs::<C>).post(add_org::<C>))
        .route("/api/orgs/{name}", get(org::<C>).patch(set_org::<C>).delete(remove_org::<C>))
        .route("/api/credentials", get(credentials::<C>).post(add_credential::<C>))
        .route(
            "/api/credentials/{name}",
            get(credential::<C>).patch(set_credential::<C>).delete(remove_credential::<C>),
        )
        .route("/api/keys", get(keys::<C>).post(add_key::<C>))
        .route("/api/keys/{name}", get(key::<C>).patch(set_key::<C>).delete(remove_key::<C>))
        .route("/api/domains", get(domains::<C>).post(add_domain::<C>))
        .route("/api/domains/{name}", get(domain::<C>).delete(remove_domain::<C>))
        .route("/api/audit", get(audit::<C>))
}

/// The name of an organisation.
pub(crate) fn org_name<C: Control>(control: &C, id: OrgId) -> String {
    name_of(control.directory(), id)
}

fn name_of(directory: &Directory, id: OrgId) -> String {
    directory.snapshot().org(id).map_or_else(|| id.0.to_string(), |org| org.name.to_string())
}

/// Names the organisation where a record has its number.
fn with_org(directory: &Directory, mut it: serde_json::Value) -> serde_json::Value {
    if let Some(id) = it.get("org").and_then(serde_json::Value::as_i64) {
        it["org"] = name_of(directory, OrgId(id)).into();
    }
    it
}

/// The number of the organisation with this name.
pub(crate) fn org_id<C: Control>(control: &C, name: &str) -> Result<OrgId, Problem> {
    let snapshot = control.directory().snapshot();
    let found = snapshot.org_named(name).map(|org| org.id);
    found.ok_or_else(|| absent("organisation", name))
}

/// There is no such thing.
pub(crate) fn absent(what: &'static str, name: &str) -> Problem {
    DirectoryError::NotFound { what, name: name.chars().take(80).collect() }.into()
}

/// The organisation to restrict a listing to.
fn wanted_org<C: Control>(control: &C, paging: &Paging) -> Result<Option<OrgId>, Problem> {
    paging.org.as_deref().map(|name| org_id(control, name)).transpose()
}

pub(crate) fn patterns(texts: &[String]) -> Result<Vec<Pattern>, Problem> {
    texts
        .iter()
        .map(|t| t.parse().map_err(|e: directory::PatternError| Problem::invalid(e.to_string())))
        .collect()
}

fn networks(texts: &[String]) -> Result<Vec<Network>, Problem> {
    texts.iter().map(|t| t.parse().map_err(|e: net::NetworkError| Problem::invalid(e.to_string()))).collect()
}

/// A stream by its word.
pub(crate) fn stream(text: Option<&str>) -> Result<Option<Stream>, Problem> {
    text.map(|t| t.parse().map_err(|e: mail::DestinationError| Problem::invalid(e.to_string()))).transpose()
}

fn view_org(org: &directory::Org) -> Org {
    Org {
        name: org.name.to_string(),
        trusted: org.trusted,
        state: org.state.as_str().to_owned(),
        created: org.created.to_string(),
        pool: org.pool.as_deref().map(str::to_owned),
    }
}

async fn orgs<C: Control>(State(control): State<C>, Query(paging): Query<Paging>) -> Answer<Page<Org>> {
    let snapshot = control.directory().snapshot();
    let mut all: Vec<_> = snapshot.orgs().collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(page(&paging, all.into_iter(), |org| org.name.to_string(), |org| view_org(org)))
}

async fn org<C: Control>(State(control): State<C>, Name(name): Name) -> Answer<Org> {
    let snapshot = control.directory().snapshot();
    let org = snapshot.org_named(&name).ok_or_else(|| absent("organisation", &name))?;
    Ok(axum::Json(view_org(org)))
}

async fn add_org<C: Control>(
    State(control): State<C>,
    Actor(by): Actor,
    Json(new): Json<OrgNew>,
) -> Created<Org> {
    let org = control.directory().add_org(&new.name, new.trusted, &by).await?;
    control.directory_changed().await;
    Ok((StatusCode::CREATED, axum::Json(view_org(&org))))
}

async fn set_org<C: Control>(
    State(control): State<C>,
    Actor(by): Actor,
    Name(name): Name,
    Json(change): Json<OrgChange>,
) -> Answer<Org> {
    let state = change.state.as_deref().map(str::parse).transpose()?;
    let change =
        directory::OrgChange { name: change.name, trusted: change.trusted, state, pool: change.pool };
    let org = control.directory().set_org(&name, change, &by).await?;
    control.directory_changed().await;
    Ok(axum::Json(view_org(&org)))
}

async fn remove_org<C: Control>(
    State(control): State<C>,
    Actor(by): Actor,
    Name(name): Name,
) -> Result<StatusCode, Problem> {
    control.directory().remove_org(&name, &by).await?;
    control.directory_changed().await;
    Ok(StatusCode::NO_CONTENT)
}

fn view_credential(directory: &Directory, it: &directory::Credential) -> Credential {
    Credential {
        name: it.login.to_string(),
        org: name_of(directory, it.org),
        from_domains: it.from_domains.iter().map(ToString::to_string).collect(),
        networks: it.networks.iter().map(ToString::to_string).collect(),
        stream: it.stream.as_str().to_owned(),
        enabled: it.enabled,
        generated: it.generated,
        scram: it.scram,
        created: it.created.to_string(),
    }
}

async fn credentials<C: Control>(
    State(control): State<C>,
    Query(paging): Query<Paging>,
) -> Answer<Page<Credential>> {
    let org = wanted_org(&control, &paging)?;
    let snapshot = control.directory().snapshot();
    let all = snapshot.credentials().filter(|c| org.is_none_or(|org| c.org == org));
    let view = |it: &_| view_credential(control.directory(), it);
    Ok(page(&paging, all, |it| it.login.to_ascii_lowercase(), |it| view(it)))
}

async fn credential<C: Control>(State(control): State<C>, Name(name): Name) -> Answer<Credential> {
    let snapshot = control.directory().snapshot();
    let it = snapshot.credential(&name).ok_or_else(|| absent("credential", &name))?;
    Ok(axum::Json(view_credential(control.directory(), it)))
}

async fn add_credential<C: Control>(
    State(control): State<C>,
    Actor(by): Actor,
    Json(new): Json<CredentialNew>,
) -> Created<CredentialMade> {
    let password = match new.password {
        Some(text) => Password::Chosen { password: Secret::new(text), scram: new.scram },
        None => Password::Make,
    };
    let new = NewCredential {
        login: new.name,
        org: new.org.unwrap_or_else(|| DEFAULT_ORG.into()),
        password,
        from_domains: patterns(&new.from_domains)?,
        networks: networks(&new.networks)?,
        stream: stream(new.stream.as_deref())?.unwrap_or_default(),
    };
    let (made, password) = control.directory().add_credential(new, &by).await?;
    control.directory_changed().await;
    let credential = view_credential(control.directory(), &made);
    let password = password.map(|secret| secret.expose().to_owned());
    Ok((StatusCode::CREATED, axum::Json(CredentialMade { credential, password })))
}

async fn set_credential<C: Control>(
    State(control): State<C>,
    Actor(by): Actor,
    Name(name): Name,
    Json(change): Json<CredentialChange>,
) -> Answer<CredentialMade> {
    let password = match (change.password, change.new_password) {
        (Some(_), true) => return Err(Problem::invalid("either a password, or `new_password`")),
        (Some(text), false) => Some(Password::Chosen { password: Secret::new(text), scram: change.scram }),
        (None, true) => Some(Password::Make),
        (None, false) => None,
    };
    let change = directory::CredentialChange {
        password,
        from_domains: change.from_domains.as_deref().map(patterns).transpose()?,
        networks: change.networks.as_deref().map(networks).transpose()?,
        enabled: change.enabled,
        stream: stream(change.stream.as_deref())?,
    };
    let (made, password) = control.directory().set_credential(&name, change, &by).await?;
    control.directory_changed().await;
    let credential = view_credential(control.directory(), &made);
    Ok(axum::Json(CredentialMade { credential, password: password.map(|secret| secret.expose().to_owned()) }))
}

async fn remove_credential<C: Control>(
    State(control): State<C>,
    Actor(by): Actor,
    Name(name): Name,
) -> Result<StatusCode, Problem> {
    control.directory().remove_credential(&name, &by).await?;
    control.directory_changed().await;
    Ok(StatusCode::NO_CONTENT)
}

fn view_key(directory: &Directory, it: &directory::ApiKey) -> Key {
    Key {
        name: it.name.to_string(),
        org: name_of(directory, it.org),
        scope: it.scope.as_str().to_owned(),
        from_domains: it.from_domains.iter().map(ToString::to_string).collect(),
        enabled: it.enabled,
        created: it.created.to_string(),
    }
}

async fn keys<C: Control>(State(control): State<C>, Query(paging): Query<Paging>) -> Answer<Page<Key>> {
    let org = wanted_org(&control, &paging)?;
    let snapshot = control.directory().snapshot();
    let all = snapshot.keys().filter(|k| org.is_none_or(|org| k.org == org));
    Ok(page(&paging, all, |it| it.name.to_ascii_lowercase(), |it| view_key(control.directory(), it)))
}

async fn key<C: Control>(State(control): State<C>, Name(name): Name) -> Answer<Key> {
    let snapshot = control.directory().snapshot();
    let it = snapshot.key(&name).ok_or_else(|| absent("key", &name))?;
    Ok(axum::Json(view_key(control.directory(), it)))
}

async fn add_key<C: Control>(
    State(control): State<C>,
    Actor(by): Actor,
    Json(new): Json<KeyNew>,
) -> Created<KeyMade> {
    let new = NewKey {
        name: new.name,
        org: new.org.unwrap_or_else(|| DEFAULT_ORG.into()),
        scope: new.scope.as_deref().map(str::parse).transpose()?.unwrap_or_default(),
        from_domains: patterns(&new.from_domains)?,
    };
    let (made, secret) = control.directory().add_key(new, &by).await?;
    let key = view_key(control.directory(), &made);
    Ok((StatusCode::CREATED, axum::Json(KeyMade { key, secret: secret.expose().to_owned() })))
}

async fn set_key<C: Control>(
    State(control): State<C>,
    Actor(by): Actor,
    Name(name): Name,
    Json(change): Json<KeyChange>,
) -> Answer<Key> {
    let it = control.directory().set_key(&name, change.enabled, &by).await?;
    Ok(axum::Json(view_key(control.directory(), &it)))
}

async fn remove_key<C: Control>(
    State(control): State<C>,
    Actor(by): Actor,
    Name(name): Name,
) -> Result<StatusCode, Problem> {
    control.directory().remove_key(&name, &by).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn view_domain(directory: &Directory, it: &directory::Domain) -> Domain {
    Domain { name: it.name.to_string(), org: name_of(directory, it.org), created: it.created.to_string() }
}

async fn domains<C: Control>(State(control): State<C>, Query(paging): Query<Paging>) -> Answer<Page<Domain>> {
    let org = wanted_org(&control, &paging)?;
    let snapshot = control.directory().snapshot();
    let all = snapshot.domains().filter(|d| org.is_none_or(|org| d.org == org));
    Ok(page(&paging, all, |it| it.name.to_string(), |it| view_domain(control.directory(), it)))
}

async fn domain<C: Control>(State(control): State<C>, Name(name): Name) -> Answer<Domain> {
    let snapshot = control.directory().snapshot();
    let ascii = mail::domain_to_ascii(&name).ok_or_else(|| absent("domain", &name))?;
    let it = snapshot.domain(&ascii).ok_or_else(|| absent("domain", &name))?;
    Ok(axum::Json(view_domain(control.directory(), it)))
}

async fn add_domain<C: Control>(
    State(control): State<C>,
    Actor(by): Actor,
    Json(new): Json<DomainNew>,
) -> Created<Domain> {
    let org = new.org.as_deref().unwrap_or(DEFAULT_ORG);
    let it = control.directory().add_domain(&new.name, org, &by).await?;
    control.directory_changed().await;
    Ok((StatusCode::CREATED, axum::Json(view_domain(control.directory(), &it))))
}

async fn remove_domain<C: Control>(
    State(control): State<C>,
    Actor(by): Actor,
    Name(name): Name,
) -> Result<StatusCode, Problem> {
    control.directory().remove_domain(&name, &by).await?;
    control.directory_changed().await;
    Ok(StatusCode::NO_CONTENT)
}

async fn audit<C: Control>(
    State(control): State<C>,
    Query(ask): Query<AuditQuery>,
) -> Answer<Page<AuditEntry>> {
    let before = ask.after.as_deref().map(str::parse).transpose();
    let before = before.map_err(|_| Problem::invalid("`after` is the number of an entry"))?;
    let limit = ask.limit.unwrap_or(LIMIT_DEFAULT).clamp(1, LIMIT_MAX);
    let query = directory::AuditQuery {
        before,
        what: ask.what,
        name: ask.name,
        by: ask.by,
        since: view::time("since", ask.since.as_deref())?.map(mail::Timestamp),
        limit: Some(limit),
    };
    let found = control.directory().audit(query).await?;
    let next = (found.len() == limit).then(|| found.last().map(|e| e.id.to_string())).flatten();
    let items = found.into_iter().map(|e| AuditEntry {
        id: e.id.to_string(),
        at: e.at.to_string(),
        by: e.by,
        action: e.action,
        what: e.what,
        name: e.name,
        before: e.before.map(|it| with_org(control.directory(), it)),
        after: e.after.map(|it| with_org(control.directory(), it)),
    });
    Ok(axum::Json(Page { items: items.collect(), next }))
}
