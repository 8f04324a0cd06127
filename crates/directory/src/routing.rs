//! Routes and smart hosts. Those of the config file come first and are changed there; those of the directory follow.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use mail::{Actor, Address, Destination, HostPort};
use serde::{Deserialize, Serialize};

use crate::Pattern;
use crate::db::values;
use crate::directory::Directory;
use crate::error::DirectoryError;
use crate::load::list_text;
use crate::model::check_name;
use crate::rule::{Named, user_of};
use crate::secret::Secret;
use crate::smarthost::SmartHostMore;
use crate::snapshot::{Edit, Snapshot};

/// Where something is kept, and so where it is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The config file.
    Config,
    /// The directory.
    Directory,
}

/// Where a route leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteTarget {
    /// To the mail exchangers of the recipient's domain.
    Mx,
    /// There.
    To(Destination),
}

impl FromStr for RouteTarget {
    type Err = DirectoryError;
    fn from_str(text: &str) -> Result<Self, DirectoryError> {
        if text == "mx" {
            return Ok(RouteTarget::Mx);
        }
        text.parse()
            .map(RouteTarget::To)
            .map_err(|e: mail::DestinationError| DirectoryError::Invalid(e.to_string()))
    }
}

impl fmt::Display for RouteTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RouteTarget::Mx => f.write_str("mx"),
            RouteTarget::To(destination) => write!(f, "{destination}"),
        }
    }
}

impl Serialize for RouteTarget {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A rule where mail goes. All that is given must match; the first route that matches counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Route {
    /// Its number; counted from 1 for those of the config file.
    pub id: i64,
    /// Where it is kept.
    pub source: Source,
    /// Recipients it is for; empty: all.
    pub domains: Vec<Pattern>,
    /// Senders it is for; empty: all.
    pub senders: Vec<Pattern>,
    /// Where it leads.
    pub to: RouteTarget,
}

/// A route to add.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewRoute {
    /// Recipients it is for; empty: all.
    pub domains: Vec<Pattern>,
    /// Senders it is for; empty: all.
    pub senders: Vec<Pattern>,
    /// Where it leads.
    pub to: RouteTarget,
}

impl Route {
    pub(crate) fn from_config(id: i64, new: NewRoute) -> Self {
        Self { id, source: Source::Config, domains: new.domains, senders: new.senders, to: new.to }
    }

    /// Whether it is for this mail; a sender of none is the null sender.
    pub fn matches(&self, sender: Option<&Address>, recipient: &Address) -> bool {
        (self.domains.is_empty() || self.domains.iter().any(|p| p.matches(Some(recipient))))
            && (self.senders.is_empty() || self.senders.iter().any(|p| p.matches(sender)))
    }
}

pub use mail::SmartHostTls;

/// A relay that takes our mail further.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SmartHost {
    /// Its name; routes say `smarthost:NAME`.
    pub name: Arc<str>,
    /// Where it is kept.
    pub source: Source,
    /// Its hosts, tried in this order.
    #[serde(serialize_with = "as_texts")]
    pub hosts: Vec<HostPort>,
    /// How connections are protected.
    pub tls: SmartHostTls,
    /// The login, if it wants one.
    pub username: Option<String>,
    /// The password. It has to be sent, so it is kept as it is.
    #[serde(skip)]
    pub password: Option<Secret>,
    /// What it has beside that.
    #[serde(flatten)]
    pub more: SmartHostMore,
}

impl SmartHost {
    pub(crate) fn in_config(self) -> Self {
        Self { source: Source::Config, ..self }
    }

    /// Whether the two have the same secrets.
    fn has_secrets_of(&self, other: &Self) -> bool {
        self.password == other.password && self.more.to_columns().1 == other.more.to_columns().1
    }
}

impl Directory {
    /// Adds a route behind the others, or before the directory's route number `before`.
    ///
    /// # Errors
    /// There is no route `before`, or the route leads to a smart host that does not exist.
    pub async fn add_route(
        &self,
        new: NewRoute,
        before: Option<i64>,
        by: &Actor,
    ) -> Result<Arc<Route>, DirectoryError> {
        let by = by.clone();
        self.change(move |draft| {
            check_target(&draft.state, &new.to)?;
            let at = match before {
                Some(before) => Some(place(&draft.state, before)?),
                None => None,
            };
            let route = Route {
                id: draft.next_id(),
                source: Source::Directory,
                domains: new.domains.clone(),
                senders: new.senders.clone(),
                to: new.to.clone(),
            };
            let texts = (list_text(&route.domains), list_text(&route.senders), route.to.to_string());
            let (domains, senders, target) = texts;
            match before {
                None => draft.write(
                    "INSERT INTO directory.route (id, position, domains, senders, target) \
                     VALUES ($1, (SELECT coalesce(max(position), 0) + 1 FROM directory.route), $2, $3, $4)",
                    values![route.id, domains, senders, target],
                ),
                Some(before) => {
                    draft.write(
                        "UPDATE directory.route SET position = position + 1 \
                         WHERE position >= (SELECT position FROM directory.route WHERE id = $1)",
                        values![before],
                    );
                    draft.write(
                        "INSERT INTO directory.route (id, position, domains, senders, target) \
                         VALUES ($1, (SELECT position - 1 FROM directory.route WHERE id = $2), $3, $4, $5)",
                        values![route.id, before, domains, senders, target],
                    );
                }
            }
            draft.audit(&by, "add", ("route", &route.id.to_string()), None, Some(&route));
            let route = Arc::new(route);
            let mut routes = draft.state.routes.to_vec();
            routes.insert(at.unwrap_or(routes.len()), Arc::clone(&route));
            Ok((route, vec![Edit::Routes(routes)]))
        })
        .await
    }

    /// Replaces what a route of the directory says; it keeps its place.
    ///
    /// # Errors
    /// There is no such route in the directory, or it leads to a smart host that does not exist.
    pub async fn set_route(&self, id: i64, new: NewRoute, by: &Actor) -> Result<Arc<Route>, DirectoryError> {
        let by = by.clone();
        self.change(move |draft| {
            check_target(&draft.state, &new.to)?;
            let at = place(&draft.state, id)?;
            let mut routes = draft.state.routes.to_vec();
            let NewRoute { domains, senders, to } = new.clone();
            let route = Arc::new(Route { id, source: Source::Directory, domains, senders, to });
            draft.write(
                "UPDATE directory.route SET domains = $1, senders = $2, target = $3 WHERE id = $4",
                values![list_text(&route.domains), list_text(&route.senders), route.to.to_string(), id],
            );
            let before = std::mem::replace(&mut routes[at], Arc::clone(&route));
            draft.audit(&by, "set", ("route", &id.to_string()), Some(&*before), Some(&*route));
            Ok((route, vec![Edit::Routes(routes)]))
        })
        .await
    }

    /// Removes a route of the directory. What is queued keeps its way.
    ///
    /// # Errors
    /// There is no such route in the directory.
    pub async fn remove_route(&self, id: i64, by: &Actor) -> Result<(), DirectoryError> {
        let by = by.clone();
        self.change(move |draft| {
            let mut routes = draft.state.routes.to_vec();
            let route = routes.remove(place(&draft.state, id)?);
            draft.write("DELETE FROM directory.route WHERE id = $1", values![id]);
            draft.audit(&by, "remove", ("route", &id.to_string()), Some(&*route), None);
            Ok(((), vec![Edit::Routes(routes)]))
        })
        .await
    }

    /// Adds a smart host to the directory, or replaces one of the same name with `replace`. Without a password it
    /// keeps the one it has, as long as the username stays.
    ///
    /// # Errors
    /// The name is not valid or taken (also by the config file), there is none to replace, or it has no hosts.
    pub async fn put_smarthost(
        &self,
        new: SmartHost,
        replace: bool,
        by: &Actor,
    ) -> Result<Arc<SmartHost>, DirectoryError> {
        check_name("smart host's name", &new.name)?;
        if new.hosts.is_empty() {
            return Err(DirectoryError::Invalid(
                "a smart host needs a host: --host smtp.example.net:587".into(),
            ));
        }
        let by = by.clone();
        self.change(move |draft| {
            let before = find_smarthost(&draft.state, &new.name)?;
            if before.is_some() && !replace {
                return Err(DirectoryError::exists("smart host", &new.name));
            }
            if before.is_none() && replace {
                return Err(DirectoryError::not_found("smart host", &new.name));
            }
            let kept =
                before.as_ref().filter(|b| b.username == new.username).and_then(|b| b.password.clone());
            let kept = kept.filter(|_| new.more.oauth.is_none());
            let new = new.clone();
            let mut host = SmartHost { source: Source::Directory, password: new.password.or(kept), ..new };
            if let Some(before) = &before {
                host.more.keep_secrets(&before.more);
            }
            host.check()?;
            let (more, secrets) = host.more.to_columns();
            draft.write(
                "INSERT INTO directory.smarthost (name, hosts, tls, username, password, more, secrets) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7) \
                 ON CONFLICT (name) DO UPDATE SET hosts = excluded.hosts, tls = excluded.tls, \
                 username = excluded.username, password = excluded.password, more = excluded.more, \
                 secrets = excluded.secrets",
                values![
                    &*host.name,
                    list_text(&host.hosts),
                    host.tls.as_str(),
                    host.username.as_deref(),
                    host.password.as_ref().map(Secret::expose),
                    more,
                    secrets
                ],
            );
            let what = ("smarthost", &*host.name);
            match &before {
                Some(before) => {
                    let secret = !before.has_secrets_of(&host);
                    draft.audit_set(&by, what, &**before, &host, secret.then_some("secrets"));
                }
                None => draft.audit(&by, "add", what, None, Some(&host)),
            }
            let host = Arc::new(host);
            Ok((Arc::clone(&host), vec![Edit::SmartHost(host)]))
        })
        .await
    }

    /// Removes a smart host from the directory.
    ///
    /// # Errors
    /// There is none of that name in the directory, or a route leads to it.
    pub async fn remove_smarthost(&self, name: &str, by: &Actor) -> Result<(), DirectoryError> {
        let (name, by) = (name.to_owned(), by.clone());
        self.change(move |draft| {
            let host = find_smarthost(&draft.state, &name)?
                .ok_or_else(|| DirectoryError::not_found("smart host", &name))?;
            let target = RouteTarget::To(Destination::SmartHost(host.name.clone()));
            if let Some(route) = draft.state.routes().find(|r| r.to == target) {
                return Err(DirectoryError::InUse(format!(
                    "a route ({:?}, number {}) leads to the smart host {name}: change it first",
                    route.source, route.id
                )));
            }
            if let Some(user) = user_of(&draft.state, Named::SmartHost, name.as_str()) {
                let text = format!("{user} names the smart host {name}: change it first");
                return Err(DirectoryError::InUse(text));
            }
            draft.write("DELETE FROM directory.smarthost WHERE name = $1", values![&*host.name]);
            draft.audit(&by, "remove", ("smarthost", &host.name), Some(&*host), None);
            Ok(((), vec![Edit::SmartHostGone(host.name.clone())]))
        })
        .await
    }
}

fn check_target(state: &Snapshot, to: &RouteTarget) -> Result<(), DirectoryError> {
    match to {
        RouteTarget::To(Destination::SmartHost(name)) if state.smarthost(name).is_none() => {
            Err(DirectoryError::not_found("smart host", name))
        }
        RouteTarget::To(Destination::Mx(domain)) => Err(DirectoryError::Invalid(format!(
            "mx:{domain}: write mx, which is the mail exchangers of the recipient's own domain"
        ))),
        _ => Ok(()),
    }
}

/// Where a route stands among those of the directory.
fn place(state: &Snapshot, id: i64) -> Result<usize, DirectoryError> {
    let found = state.routes.iter().position(|r| r.id == id);
    found.ok_or_else(|| DirectoryError::NotFound { what: "route in the directory", name: id.to_string() })
}

fn find_smarthost(state: &Snapshot, name: &str) -> Result<Option<Arc<SmartHost>>, DirectoryError> {
    if state.config_smarthosts.contains_key(name) {
        return Err(DirectoryError::ReadOnly { what: "smart host", name: name.to_owned() });
    }
    Ok(state.smarthosts.get(name).cloned())
}

fn as_texts<S: serde::Serializer>(hosts: &[HostPort], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(hosts.iter().map(ToString::to_string))
}
