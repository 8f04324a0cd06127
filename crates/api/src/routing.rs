//! Routes and smart hosts. Those of the configuration file are shown, and changed there.

use std::path::PathBuf;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use directory::{DirectoryError, HostLogin, HostOAuth, NewRoute, RouteTarget, Secret, SmartHostMore};
use mail::Destination;

use crate::accounts::{absent, patterns};
use crate::control::Control;
use crate::extract::{Actor, Json, Name, Query};
use crate::problem::Problem;
use crate::router::page;
use crate::types::{
    HostLoginNew, HostLoginView, OAuthNew, Page, Paging, Probe, Route, RouteNew, SmartHost, SmartHostNew,
    Source,
};

/// What is put before the number of a route of the configuration file.
const CONFIG: &str = "config-";

pub(crate) fn routes<C: Control>() -> Router<C> {
    Router::new()
        .route("/api/routes", get(list::<C>).post(add::<C>))
        .route("/api/routes/{id}", get(show::<C>).put(set::<C>).delete(remove::<C>))
        .route("/api/smarthosts", get(hosts::<C>).post(add_host::<C>))
        .route("/api/smarthosts/{name}", get(host::<C>).put(set_host::<C>).delete(remove_host::<C>))
        .route("/api/smarthosts/{name}/probe", post(probe::<C>))
}

fn source(source: directory::Source) -> Source {
    match source {
        directory::Source::Config => Source::Config,
        directory::Source::Directory => Source::Directory,
    }
}

fn route_id(route: &directory::Route) -> String {
    match route.source {
        directory::Source::Config => format!("{CONFIG}{}", route.id),
        directory::Source::Directory => route.id.to_string(),
    }
}

fn view(route: &directory::Route) -> Route {
    Route {
        id: route_id(route),
        domains: route.domains.iter().map(ToString::to_string).collect(),
        senders: route.senders.iter().map(ToString::to_string).collect(),
        to: route.to.to_string(),
        source: source(route.source),
    }
}

/// Routes are listed in the order in which they are asked. Their place is the key of the pages.
async fn list<C: Control>(
    State(control): State<C>,
    Query(paging): Query<Paging>,
) -> Result<axum::Json<Page<Route>>, Problem> {
    let snapshot = control.directory().snapshot();
    let places = snapshot.routes().enumerate();
    Ok(page(&paging, places, |(place, _)| format!("{place:08}"), |(_, route)| view(route)))
}

async fn show<C: Control>(State(control): State<C>, Name(id): Name) -> Result<axum::Json<Route>, Problem> {
    let snapshot = control.directory().snapshot();
    let route = snapshot.routes().find(|r| route_id(r) == id).ok_or_else(|| absent("route", &id))?;
    Ok(axum::Json(view(route)))
}

/// The number of a route of the directory.
fn number(id: &str) -> Result<i64, Problem> {
    if id.starts_with(CONFIG) {
        return Err(DirectoryError::ReadOnly { what: "route", name: id.chars().take(80).collect() }.into());
    }
    let digits = !id.is_empty() && id.bytes().all(|b| b.is_ascii_digit());
    id.parse().ok().filter(|_| digits).ok_or_else(|| absent("route", id))
}

fn parsed(new: &RouteNew) -> Result<NewRoute, Problem> {
    let to: RouteTarget = new.to.parse()?;
    if let RouteTarget::To(Destination::Maildir(path)) = &to {
        check_template(path)?;
    }
    Ok(NewRoute { domains: patterns(&new.domains)?, senders: patterns(&new.senders)?, to })
}

/// A path for Maildirs leads nowhere upwards, and its fields are known.
pub(crate) fn check_template(path: &str) -> Result<(), Problem> {
    let plain = path.replace("{domain}", "").replace("{user}", "");
    if plain.contains(['{', '}', '\0']) || path.split('/').any(|part| part == "..") {
        return Err(Problem::invalid(format!(
            "{path:?}: fields are {{domain}} and {{user}}, and .. is not possible"
        )));
    }
    Ok(())
}

async fn add<C: Control>(
    State(control): State<C>,
    Actor(by): Actor,
    Json(new): Json<RouteNew>,
) -> Result<(StatusCode, axum::Json<Route>), Problem> {
    let before = new.before.as_deref().map(number).transpose()?;
    let route = control.directory().add_route(parsed(&new)?, before, &by).await?;
    control.directory_changed().await;
    Ok((StatusCode::CREATED, axum::Json(view(&route))))
}

async fn set<C: Control>(
    State(control): State<C>,
    Actor(by): Actor,
    Name(id): Name,
    Json(new): Json<RouteNew>,
) -> Result<axum::Json<Route>, Problem> {
    if new.before.is_some() {
        return Err(Problem::invalid("a route keeps its place: remove it and add it where it shall be"));
    }
    let route = control.directory().set_route(number(&id)?, parsed(&new)?, &by).await?;
    control.directory_changed().await;
    Ok(axum::Json(view(&route)))
}

async fn remove<C: Control>(
    State(control): State<C>,
    Actor(by): Actor,
    Name(id): Name,
) -> Result<StatusCode, Problem> {
    control.directory().remove_route(number(&id)?, &by).await?;
    control.directory_changed().await;
    Ok(StatusCode::NO_CONTENT)
}

/// A problem unless there is a smart host of this name.
pub(crate) fn known_smarthost<C: Control>(control: &C, name: &str) -> Result<(), Problem> {
    let known = control.directory().snapshot().smarthost(name).is_some();
    if known { Ok(()) } else { Err(absent("smart host", name)) }
}

fn view_login(login: &directory::HostLogin) -> HostLoginView {
    let texts = |patterns: &[directory::Pattern]| patterns.iter().map(ToString::to_string).collect();
    HostLoginView {
        senders: texts(&login.senders),
        domains: texts(&login.domains),
        username: login.username.clone(),
        token_url: login.oauth.as_ref().map(|oauth| oauth.token_url.clone()),
    }
}

fn view_host(host: &directory::SmartHost) -> SmartHost {
    SmartHost {
        name: host.name.to_string(),
        hosts: host.hosts.iter().map(ToString::to_string).collect(),
        tls: host.tls.as_str().to_owned(),
        username: host.username.clone(),
        has_password: host.password.is_some(),
        order: host.more.order.as_str().to_owned(),
        weights: host.more.weights.clone(),
        logins: host.more.logins.iter().map(view_login).collect(),
        token_url: host.more.oauth.as_ref().map(|oauth| oauth.token_url.clone()),
        client_certificate: host.more.client_certificate.as_ref().map(|path| path.display().to_string()),
        health: Vec::new(),
        source: source(host.source),
    }
}

async fn hosts<C: Control>(
    State(control): State<C>,
    Query(paging): Query<Paging>,
) -> Result<axum::Json<Page<SmartHost>>, Problem> {
    let snapshot = control.directory().snapshot();
    let mut all: Vec<_> = snapshot.smarthosts().collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(page(&paging, all.into_iter(), |host| host.name.to_string(), |host| view_host(host)))
}

async fn host<C: Control>(
    State(control): State<C>,
    Name(name): Name,
) -> Result<axum::Json<SmartHost>, Problem> {
    let snapshot = control.directory().snapshot();
    let host = snapshot.smarthost(&name).ok_or_else(|| absent("smart host", &name))?;
    let health = control.smarthost_health(&name);
    Ok(axum::Json(SmartHost { health, ..view_host(host) }))
}

fn tls_of(text: Option<&str>) -> Result<mail::SmartHostTls, Problem> {
    let parsed = text.map(str::parse).transpose();
    Ok(parsed
        .map_err(|e: mail::SmartHostTlsError| directory::DirectoryError::Invalid(e.to_string()))?
        .unwrap_or_default())
}

fn parsed_host(new: SmartHostNew) -> Result<directory::SmartHost, Problem> {
    let parse = |t: &String| t.parse().map_err(|e: mail::DestinationError| Problem::invalid(e.to_string()));
    check_logins(&new)?;
    let more = more(&new)?;
    Ok(directory::SmartHost {
        name: new.name.into(),
        source: directory::Source::Directory,
        hosts: new.hosts.iter().map(parse).collect::<Result<_, _>>()?,
        tls: tls_of(new.tls.as_deref())?,
        username: new.username,
        password: new.password.map(Secret::new),
        more,
    })
}

fn check_logins(new: &SmartHostNew) -> Result<(), Problem> {
    let bad = |text: &String| text.len() > 8000 || text.chars().any(char::is_control);
    let own = [&new.username, &new.password].into_iter().flatten();
    let others = new.logins.iter().flat_map(|l| std::iter::once(&l.username).chain(&l.password));
    let of_logins = new.logins.iter().filter_map(|login| login.oauth.as_ref());
    let of_oauth = new.oauth.iter().chain(of_logins).flat_map(|o| {
        [&o.token_url, &o.client_id, &o.scope].into_iter().chain(&o.client_secret).chain(&o.refresh_token)
    });
    if own.chain(others).chain(of_oauth).any(bad) {
        return Err(Problem::invalid("a login and its secrets are one line each, of 8000 octets at most"));
    }
    Ok(())
}

/// What a smart host has beside its hosts, TLS and one login.
fn more(new: &SmartHostNew) -> Result<SmartHostMore, Problem> {
    let path = |text: &Option<String>| match text.as_ref().map(PathBuf::from) {
        Some(path) if !path.is_absolute() => {
            Err(Problem::invalid(format!("{} is no absolute path", path.display())))
        }
        path => Ok(path),
    };
    let oauth = |oauth: &OAuthNew| {
        Ok::<_, Problem>(HostOAuth {
            token_url: oauth.token_url.clone(),
            client_id: oauth.client_id.clone(),
            client_secret: oauth.client_secret.clone().map(Secret::new),
            refresh_token: oauth.refresh_token.clone().map(Secret::new),
            refresh_token_file: path(&oauth.refresh_token_file)?,
            scope: oauth.scope.clone(),
        })
    };
    let login = |login: &HostLoginNew| {
        Ok::<_, Problem>(HostLogin {
            senders: patterns(&login.senders)?,
            domains: patterns(&login.domains)?,
            username: login.username.clone(),
            password: login.password.clone().map(Secret::new),
            oauth: login.oauth.as_ref().map(oauth).transpose()?,
        })
    };
    let order = new.order.as_deref().map(str::parse).transpose();
    let order = order.map_err(|e: mail::HostOrderError| Problem::invalid(e.to_string()))?;
    Ok(SmartHostMore {
        order: order.unwrap_or_default(),
        weights: new.weights.clone(),
        logins: new.logins.iter().map(login).collect::<Result<_, _>>()?,
        oauth: new.oauth.as_ref().map(oauth).transpose()?,
        client_certificate: path(&new.client_certificate)?,
        client_key: path(&new.client_key)?,
    })
}

async fn add_host<C: Control>(
    State(control): State<C>,
    Actor(by): Actor,
    Json(new): Json<SmartHostNew>,
) -> Result<(StatusCode, axum::Json<SmartHost>), Problem> {
    let host = control.directory().put_smarthost(parsed_host(new)?, false, &by).await?;
    control.directory_changed().await;
    Ok((StatusCode::CREATED, axum::Json(view_host(&host))))
}

async fn set_host<C: Control>(
    State(control): State<C>,
    Actor(by): Actor,
    Name(name): Name,
    Json(new): Json<SmartHostNew>,
) -> Result<axum::Json<SmartHost>, Problem> {
    if new.name != name {
        return Err(Problem::invalid("the name in the path and the name in the body differ"));
    }
    let host = control.directory().put_smarthost(parsed_host(new)?, true, &by).await?;
    control.directory_changed().await;
    Ok(axum::Json(view_host(&host)))
}

async fn remove_host<C: Control>(
    State(control): State<C>,
    Actor(by): Actor,
    Name(name): Name,
) -> Result<StatusCode, Problem> {
    control.directory().remove_smarthost(&name, &by).await?;
    control.directory_changed().await;
    Ok(StatusCode::NO_CONTENT)
}

async fn probe<C: Control>(State(control): State<C>, Name(name): Name) -> Result<axum::Json<Probe>, Problem> {
    known_smarthost(&control, &name)?;
    control.probe(&name).await.map(axum::Json)
}
