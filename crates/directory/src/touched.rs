//! What a commit touched, so that another node reads that and no more.

use serde::{Deserialize, Serialize};

use crate::load::{self, Ask};
use crate::snapshot::Edit;

/// What was touched, as it is kept in the database. What an older version does not know makes it read everything.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Touched {
    Org(i64),
    Domain(String),
    /// By its login as it is compared.
    Credential(String),
    /// By its name as it is compared.
    Key(String),
    /// All of the directory's routes.
    Routes,
    SmartHost(String),
    /// All of the directory's rules of a kind.
    Rules(String),
    Suppression(i64, String),
}

impl Touched {
    /// What to ask the database to know how it is now; nothing when it is a kind of rule that this version does not have.
    pub(crate) fn ask(&self) -> Option<Ask> {
        match self {
            Touched::Org(id) => Some(load::org(*id)),
            Touched::Domain(name) => Some(load::domain(name)),
            Touched::Credential(login) => Some(load::credential(login)),
            Touched::Key(name) => Some(load::key(name)),
            Touched::Routes => Some(load::routes()),
            Touched::SmartHost(name) => Some(load::smarthost(name)),
            Touched::Rules(kind) => crate::rule::ask(kind),
            Touched::Suppression(org, address) => Some(load::suppression(*org, address)),
        }
    }
}

impl Edit {
    /// What it touches.
    pub(crate) fn touches(&self) -> Touched {
        use crate::model::folded;
        match self {
            Edit::Org(it) => Touched::Org(it.id.0),
            Edit::OrgGone(id) => Touched::Org(id.0),
            Edit::Credential(it) => Touched::Credential(folded(&it.login).to_string()),
            Edit::CredentialGone(login) => Touched::Credential(folded(login).to_string()),
            Edit::Domain(it) => Touched::Domain(it.name.to_string()),
            Edit::DomainGone(name) => Touched::Domain(name.to_string()),
            Edit::Key(it) => Touched::Key(folded(&it.name).to_string()),
            Edit::KeyGone(name) => Touched::Key(folded(name).to_string()),
            Edit::Routes(_) => Touched::Routes,
            Edit::SmartHost(it) => Touched::SmartHost(it.name.to_string()),
            Edit::SmartHostGone(name) => Touched::SmartHost(name.to_string()),
            Edit::Rules(kind, _) => Touched::Rules((*kind).to_owned()),
            Edit::Suppression(it) => Touched::Suppression(it.org.0, it.address.to_string()),
            Edit::SuppressionGone(org, address) => Touched::Suppression(org.0, address.to_string()),
        }
    }
}
