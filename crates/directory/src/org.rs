//! Organisations and their sender domains: adding, changing, removing.

use std::sync::Arc;

use mail::{Actor, OrgId, domain_to_ascii};

use crate::db::values;
use crate::directory::Directory;
use crate::error::DirectoryError;
use crate::model::{Domain, Org, OrgState};
use crate::rule::{Named, Pool, user_of};
use crate::snapshot::{Edit, Snapshot};
use crate::ways::DEFAULT_POOL;

/// What to change in an organisation; none leaves it as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OrgChange {
    /// Another name.
    pub name: Option<String>,
    /// Whether it may use any sender domain.
    pub trusted: Option<bool>,
    /// Whether it may send.
    pub state: Option<OrgState>,
    /// The pool that its mail leaves by; empty: that of the relay.
    pub pool: Option<String>,
}

impl Directory {
    /// Adds an organisation. Its name is one label of letters, digits, `-`, `_` and `.`, at most 63 octets.
    ///
    /// # Errors
    /// The name is not valid or taken.
    pub async fn add_org(&self, name: &str, trusted: bool, by: &Actor) -> Result<Arc<Org>, DirectoryError> {
        let name = org_name(name)?;
        let by = by.clone();
        self.change(move |draft| {
            if draft.state.org_named(&name).is_some() {
                return Err(DirectoryError::exists("organisation", &name));
            }
            let org = Org {
                id: OrgId(draft.next_id()),
                name: name.as_str().into(),
                trusted,
                state: OrgState::Active,
                created: draft.now,
                pool: None,
            };
            draft.write(
                "INSERT INTO directory.org (id, name, trusted, state, created) VALUES ($1, $2, $3, $4, $5)",
                values![org.id.0, &*org.name, org.trusted, org.state.as_str(), org.created.millis()],
            );
            draft.audit(&by, "add", ("organisation", &org.name), None, Some(&org));
            let org = Arc::new(org);
            Ok((Arc::clone(&org), vec![Edit::Org(org)]))
        })
        .await
    }

    /// Changes an organisation.
    ///
    /// # Errors
    /// There is none of that name, the new name is not valid or taken, or `default` would be renamed.
    pub async fn set_org(
        &self,
        name: &str,
        change: OrgChange,
        by: &Actor,
    ) -> Result<Arc<Org>, DirectoryError> {
        let new_name = change.name.as_deref().map(org_name).transpose()?;
        let (name, by) = (name.to_owned(), by.clone());
        self.change(move |draft| {
            let before = find_org(&draft.state, &name)?;
            let mut org = Org::clone(&before);
            if let Some(new) = new_name.as_deref().filter(|n| **n != *before.name) {
                if before.id == OrgId::DEFAULT {
                    return Err(DirectoryError::Invalid("the organisation default keeps its name".into()));
                }
                if draft.state.org_named(new).is_some() {
                    return Err(DirectoryError::exists("organisation", new));
                }
                if let Some(user) = user_of(&draft.state, Named::Org, &before.name) {
                    let text = format!("{user} names the organisation {}: change it first", before.name);
                    return Err(DirectoryError::InUse(text));
                }
                org.name = new.into();
            }
            org.trusted = change.trusted.unwrap_or(org.trusted);
            org.state = change.state.unwrap_or(org.state);
            if let Some(pool) = change.pool.as_deref() {
                let known =
                    pool.is_empty() || pool == DEFAULT_POOL || draft.state.rule::<Pool>(pool).is_some();
                if !known {
                    return Err(DirectoryError::not_found("pool", pool));
                }
                org.pool = Some(pool.into()).filter(|p: &Arc<str>| !p.is_empty());
            }
            draft.write(
                "UPDATE directory.org SET name = $1, trusted = $2, state = $3, pool = $4 WHERE id = $5",
                values![&*org.name, org.trusted, org.state.as_str(), org.pool.as_deref(), org.id.0],
            );
            draft.audit(&by, "set", ("organisation", &before.name), Some(&*before), Some(&org));
            let org = Arc::new(org);
            Ok((Arc::clone(&org), vec![Edit::Org(org)]))
        })
        .await
    }

    /// Removes an organisation that has nothing any more.
    ///
    /// # Errors
    /// There is none of that name, it is `default`, or it still has credentials, keys or domains.
    pub async fn remove_org(&self, name: &str, by: &Actor) -> Result<(), DirectoryError> {
        let (name, by) = (name.to_owned(), by.clone());
        self.change(move |draft| {
            let org = find_org(&draft.state, &name)?;
            if org.id == OrgId::DEFAULT {
                return Err(DirectoryError::Invalid("the organisation default stays".into()));
            }
            let state = &draft.state;
            let left = [
                (state.credentials().filter(|c| c.org == org.id).count(), "credentials"),
                (state.keys().filter(|k| k.org == org.id).count(), "API keys"),
                (state.domains().filter(|d| d.org == org.id).count(), "domains"),
                (usize::from(state.suppressions.any_of(org.id)), "or more suppressed addresses"),
            ];
            let left: Vec<String> =
                left.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
            if !left.is_empty() {
                return Err(DirectoryError::InUse(format!(
                    "the organisation {} still has {}: remove them first, or suspend it",
                    org.name,
                    left.join(", ")
                )));
            }
            if let Some(user) = user_of(state, Named::Org, &org.name) {
                let text = format!("{user} names the organisation {}: change it first", org.name);
                return Err(DirectoryError::InUse(text));
            }
            draft.write("DELETE FROM directory.org WHERE id = $1", values![org.id.0]);
            draft.audit(&by, "remove", ("organisation", &org.name), Some(&*org), None);
            Ok(((), vec![Edit::OrgGone(org.id)]))
        })
        .await
    }

    /// Lets an organisation use a domain as sender, at the operator's word.
    ///
    /// # Errors
    /// The domain is not valid or taken, or there is no such organisation.
    pub async fn add_domain(&self, name: &str, org: &str, by: &Actor) -> Result<Arc<Domain>, DirectoryError> {
        let name = domain_name(name)?;
        let (org, by) = (org.to_owned(), by.clone());
        self.change(move |draft| {
            let org = find_org(&draft.state, &org)?;
            if let Some(domain) = draft.state.domain(&name) {
                return Err(DirectoryError::exists("domain", &domain.name));
            }
            let domain = Domain { name: name.as_str().into(), org: org.id, created: draft.now };
            draft.write(
                "INSERT INTO directory.domain (name, org, created) VALUES ($1, $2, $3)",
                values![&*domain.name, domain.org.0, domain.created.millis()],
            );
            draft.audit(&by, "add", ("domain", &domain.name), None, Some(&domain));
            let domain = Arc::new(domain);
            Ok((Arc::clone(&domain), vec![Edit::Domain(domain)]))
        })
        .await
    }

    /// Takes a sender domain away from its organisation.
    ///
    /// # Errors
    /// There is none of that name.
    pub async fn remove_domain(&self, name: &str, by: &Actor) -> Result<(), DirectoryError> {
        let name = domain_name(name)?;
        let by = by.clone();
        self.change(move |draft| {
            let domain = draft
                .state
                .domain(&name)
                .cloned()
                .ok_or_else(|| DirectoryError::not_found("domain", &name))?;
            draft.write("DELETE FROM directory.domain WHERE name = $1", values![&*domain.name]);
            draft.audit(&by, "remove", ("domain", &domain.name), Some(&*domain), None);
            Ok(((), vec![Edit::DomainGone(domain.name.clone())]))
        })
        .await
    }
}

/// The organisation of this name.
pub(crate) fn find_org(state: &Snapshot, name: &str) -> Result<Arc<Org>, DirectoryError> {
    state.org_named(name).cloned().ok_or_else(|| DirectoryError::not_found("organisation", name))
}

fn org_name(name: &str) -> Result<String, DirectoryError> {
    let name = name.to_ascii_lowercase();
    let fine = !name.is_empty()
        && name.len() <= 63
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    if fine {
        Ok(name)
    } else {
        Err(DirectoryError::Invalid(
            "an organisation's name is 1 to 63 letters, digits, -, _ and ., and begins with a letter or digit".into(),
        ))
    }
}

fn domain_name(name: &str) -> Result<String, DirectoryError> {
    domain_to_ascii(name).ok_or_else(|| {
        DirectoryError::Invalid(format!("{:?} is no domain name", name.chars().take(80).collect::<String>()))
    })
}
