//! The directory as it stands, in memory and immutable: what the hot path reads.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use mail::{Address, Destination, OrgId};

use crate::draft::Version;
use crate::model::{ApiKey, Credential, Domain, Org, folded};
use crate::routing::{Route, RouteTarget, SmartHost};
use crate::rule::AllRules;
use crate::suppression::{Suppression, Suppressions};

/// One state of the directory. Cheap to clone: what did not change is shared.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub(crate) orgs: Arc<BTreeMap<OrgId, Arc<Org>>>,
    pub(crate) org_names: Arc<HashMap<Arc<str>, OrgId>>,
    pub(crate) credentials: Arc<BTreeMap<Arc<str>, Arc<Credential>>>,
    pub(crate) domains: Arc<BTreeMap<Arc<str>, Arc<Domain>>>,
    pub(crate) keys: Arc<BTreeMap<Arc<str>, Arc<ApiKey>>>,
    pub(crate) key_hashes: Arc<HashMap<[u8; 32], Arc<str>>>,
    /// From the config file, in its order.
    pub(crate) config_routes: Arc<[Arc<Route>]>,
    /// From the directory, in the order of their positions.
    pub(crate) routes: Arc<[Arc<Route>]>,
    pub(crate) config_smarthosts: Arc<BTreeMap<Arc<str>, Arc<SmartHost>>>,
    pub(crate) smarthosts: Arc<BTreeMap<Arc<str>, Arc<SmartHost>>>,
    pub(crate) rules: Arc<AllRules>,
    pub(crate) suppressions: Suppressions,
    /// Which state this is, by what the database calls it.
    pub(crate) version: Version,
}

/// A change of one entry, applied to the snapshot once the database has it.
pub(crate) enum Edit {
    Org(Arc<Org>),
    OrgGone(OrgId),
    Credential(Arc<Credential>),
    CredentialGone(Arc<str>),
    Domain(Arc<Domain>),
    DomainGone(Arc<str>),
    Key(Arc<ApiKey>),
    KeyGone(Arc<str>),
    Routes(Vec<Arc<Route>>),
    SmartHost(Arc<SmartHost>),
    SmartHostGone(Arc<str>),
    /// Another set of rules of this kind.
    Rules(&'static str, Box<dyn FnOnce(&mut AllRules) + Send>),
    Suppression(Arc<Suppression>),
    SuppressionGone(OrgId, Arc<str>),
}

impl Snapshot {
    /// Whether what a relay makes of the directory would be the same: organisations, domains, routes, smart hosts and rules
    /// are, and so is what all credentials can be used with. Suppressions come and go with the mail.
    pub fn works_like(&self, other: &Self) -> bool {
        let scram = |of: &Self| of.credentials.values().all(|credential| credential.scram);
        self.orgs == other.orgs
            && self.domains == other.domains
            && self.config_routes == other.config_routes
            && self.routes == other.routes
            && self.config_smarthosts == other.config_smarthosts
            && self.smarthosts == other.smarthosts
            && self.rules == other.rules
            && scram(self) == scram(other)
    }

    /// Takes over what another one has of the config file.
    pub(crate) fn take_config_of(&mut self, other: &Self) {
        self.config_routes = Arc::clone(&other.config_routes);
        self.config_smarthosts = Arc::clone(&other.config_smarthosts);
        if !Arc::ptr_eq(&self.rules, &other.rules) {
            Arc::make_mut(&mut self.rules).take_config_of(&other.rules);
        }
    }

    /// An organisation by its number.
    pub fn org(&self, id: OrgId) -> Option<&Arc<Org>> {
        self.orgs.get(&id)
    }

    /// An organisation by its name, whatever the case.
    pub fn org_named(&self, name: &str) -> Option<&Arc<Org>> {
        self.org_names.get(&folded(name)).and_then(|id| self.orgs.get(id))
    }

    /// All organisations, oldest first.
    pub fn orgs(&self) -> impl Iterator<Item = &Arc<Org>> {
        self.orgs.values()
    }

    /// A credential by its login, whatever the case.
    pub fn credential(&self, login: &str) -> Option<&Arc<Credential>> {
        self.credentials.get(&folded(login))
    }

    /// All credentials, by login.
    pub fn credentials(&self) -> impl Iterator<Item = &Arc<Credential>> {
        self.credentials.values()
    }

    /// A sender domain (lower case, A-labels).
    pub fn domain(&self, name: &str) -> Option<&Arc<Domain>> {
        self.domains.get(name)
    }

    /// All sender domains, by name.
    pub fn domains(&self) -> impl Iterator<Item = &Arc<Domain>> {
        self.domains.values()
    }

    /// An API key by its name, whatever the case.
    pub fn key(&self, name: &str) -> Option<&Arc<ApiKey>> {
        self.keys.get(&folded(name))
    }

    /// All API keys, by name.
    pub fn keys(&self) -> impl Iterator<Item = &Arc<ApiKey>> {
        self.keys.values()
    }

    /// All routes in the order in which they are asked: those of the config file, then those of the directory.
    pub fn routes(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.config_routes.iter().chain(self.routes.iter())
    }

    /// A smart host by its name. One in the config file hides one of the same name in the directory.
    pub fn smarthost(&self, name: &str) -> Option<&Arc<SmartHost>> {
        self.config_smarthosts.get(name).or_else(|| self.smarthosts.get(name))
    }

    /// All smart hosts, by name, those of the config file first.
    pub fn smarthosts(&self) -> impl Iterator<Item = &Arc<SmartHost>> {
        let hidden = |host: &&Arc<SmartHost>| !self.config_smarthosts.contains_key(&host.name);
        self.config_smarthosts.values().chain(self.smarthosts.values().filter(hidden))
    }

    /// Where mail from `sender` (none: the null sender) to `recipient` goes: the first route that matches, and which
    /// one that is; without one, the mail exchangers of the recipient's domain.
    pub fn route(&self, sender: Option<&Address>, recipient: &Address) -> (Destination, Option<&Arc<Route>>) {
        let route = self.routes().find(|r| r.matches(sender, recipient));
        let destination = match route.map(|r| &r.to) {
            Some(RouteTarget::To(destination)) => destination.clone(),
            Some(RouteTarget::Mx) | None => Destination::Mx(recipient.domain().into()),
        };
        (destination, route)
    }

    pub(crate) fn apply(&mut self, edit: Edit) {
        match edit {
            Edit::Org(org) => {
                if let Some(before) = self.orgs.get(&org.id).filter(|o| o.name != org.name).cloned() {
                    self.forget_org_name(&before);
                }
                Arc::make_mut(&mut self.org_names).insert(org.name.clone(), org.id);
                Arc::make_mut(&mut self.orgs).insert(org.id, org);
            }
            Edit::OrgGone(id) => {
                if let Some(org) = Arc::make_mut(&mut self.orgs).remove(&id) {
                    self.forget_org_name(&org);
                }
            }
            Edit::Credential(it) => {
                Arc::make_mut(&mut self.credentials).insert(folded(&it.login), it);
            }
            Edit::CredentialGone(login) => {
                Arc::make_mut(&mut self.credentials).remove(&folded(&login));
            }
            Edit::Domain(it) => {
                Arc::make_mut(&mut self.domains).insert(it.name.clone(), it);
            }
            Edit::DomainGone(name) => {
                Arc::make_mut(&mut self.domains).remove(&name);
            }
            Edit::Key(it) => {
                let name = folded(&it.name);
                if let Some(before) = self.keys.get(&name).filter(|k| k.hash != it.hash).cloned() {
                    self.forget_key_hash(&before);
                }
                Arc::make_mut(&mut self.key_hashes).insert(it.hash, name.clone());
                Arc::make_mut(&mut self.keys).insert(name, it);
            }
            Edit::KeyGone(name) => {
                if let Some(key) = Arc::make_mut(&mut self.keys).remove(&folded(&name)) {
                    self.forget_key_hash(&key);
                }
            }
            Edit::Routes(routes) => self.routes = routes.into(),
            Edit::SmartHost(it) => {
                Arc::make_mut(&mut self.smarthosts).insert(it.name.clone(), it);
            }
            Edit::SmartHostGone(name) => {
                Arc::make_mut(&mut self.smarthosts).remove(&name);
            }
            Edit::Rules(_, set) => set(Arc::make_mut(&mut self.rules)),
            Edit::Suppression(it) => self.suppressions.put(it),
            Edit::SuppressionGone(org, address) => self.suppressions.remove(org, &address),
        }
    }

    /// An organisation is not called so any more. What another node has touched comes in any order, so that somebody else
    /// may be called so by now.
    fn forget_org_name(&mut self, org: &Org) {
        if self.org_names.get(&org.name) == Some(&org.id) {
            Arc::make_mut(&mut self.org_names).remove(&org.name);
        }
    }

    fn forget_key_hash(&mut self, key: &ApiKey) {
        if self.key_hashes.get(&key.hash) == Some(&folded(&key.name)) {
            Arc::make_mut(&mut self.key_hashes).remove(&key.hash);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use mail::Timestamp;

    use super::*;
    use crate::model::{OrgState, Scope};

    fn org(id: i64, name: &str) -> Edit {
        Edit::Org(Arc::new(Org {
            id: OrgId(id),
            name: name.into(),
            trusted: true,
            state: OrgState::Active,
            created: Timestamp(0),
            pool: None,
        }))
    }

    fn key(id: i64, hash: u8) -> Edit {
        Edit::Key(Arc::new(ApiKey {
            id,
            name: "App".into(),
            org: OrgId::DEFAULT,
            scope: Scope::Send,
            from_domains: Vec::new(),
            enabled: true,
            created: Timestamp(0),
            hash: [hash; 32],
        }))
    }

    /// Another node tells what was touched, not in which order, and only how it is in the end.
    #[test]
    fn names_that_changed_hands_lead_to_who_has_them_in_the_end() {
        let start = || {
            let mut state = Snapshot::default();
            [org(2, "a"), org(3, "b"), org(4, "c")].into_iter().for_each(|edit| state.apply(edit));
            state
        };
        // 2 was removed, 3 is called as 2 was, 4 as 3 was.
        let edits = || [Edit::OrgGone(OrgId(2)), org(3, "a"), org(4, "b")];
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let mut state = start();
            let mut edits = edits().map(Some);
            order.into_iter().for_each(|at| state.apply(edits[at].take().unwrap()));
            let id = |name: &str| state.org_named(name).map(|org| org.id.0);
            assert_eq!((id("a"), id("b"), id("c")), (Some(3), Some(4), None), "{order:?}");
        }
    }

    #[test]
    fn a_key_that_took_anothers_name_is_the_only_one_of_it() {
        let mut state = Snapshot::default();
        state.apply(key(1, 1));
        state.apply(key(2, 2));
        assert_eq!(state.key_hashes.get(&[1; 32]), None, "the first one opens nothing any more");
        assert_eq!(state.key_hashes.get(&[2; 32]).map(|name| &**name), Some("app"));
        state.apply(Edit::KeyGone("APP".into()));
        assert!(state.key_hashes.is_empty() && state.keys.is_empty());
    }
}
