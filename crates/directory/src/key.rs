//! API keys: adding, switching off, removing, and telling whose a presented key is.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use mail::Actor;

use crate::Pattern;
use crate::credential::check_from_domains;
use crate::db::values;
use crate::directory::Directory;
use crate::error::DirectoryError;
use crate::load::list_text;
use crate::model::{ApiKey, OrgState, Scope, check_name, folded};
use crate::org::find_org;
use crate::secret::{Secret, make_key, sha256};
use crate::snapshot::Edit;

/// A key to add.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewKey {
    /// Its name: 1 to 255 printable ASCII characters.
    pub name: String,
    /// The organisation's name.
    pub org: String,
    /// What it may do.
    pub scope: Scope,
    /// Sender domains it may use; empty: whatever its organisation may.
    pub from_domains: Vec<Pattern>,
}

impl Directory {
    /// Adds a key; the key itself comes with it, once.
    ///
    /// # Errors
    /// The name is not valid or taken, or there is no such organisation.
    pub async fn add_key(&self, new: NewKey, by: &Actor) -> Result<(Arc<ApiKey>, Secret), DirectoryError> {
        check_name("key's name", &new.name)?;
        check_from_domains(&new.from_domains)?;
        let (text, hash) = make_key();
        let by = by.clone();
        let key = self
            .change(move |draft| {
                if draft.state.key(&new.name).is_some() {
                    return Err(DirectoryError::exists("key", &new.name));
                }
                let key = ApiKey {
                    id: draft.next_id(),
                    name: new.name.as_str().into(),
                    org: find_org(&draft.state, &new.org)?.id,
                    scope: new.scope,
                    from_domains: new.from_domains.clone(),
                    enabled: true,
                    created: draft.now,
                    hash,
                };
                draft.write(
                    "INSERT INTO directory.api_key (id, name, name_folded, org, scope, from_domains, hash, enabled, created) \
                     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
                    values![
                        key.id,
                        &*key.name,
                        &*folded(&key.name),
                        key.org.0,
                        key.scope.as_str(),
                        list_text(&key.from_domains),
                        BASE64.encode(key.hash),
                        key.enabled,
                        key.created.millis(),
                    ],
                );
                draft.audit(&by, "add", ("key", &key.name), None, Some(&key));
                let key = Arc::new(key);
                Ok((Arc::clone(&key), vec![Edit::Key(key)]))
            })
            .await?;
        Ok((key, Secret::new(text)))
    }

    /// Switches a key on or off.
    ///
    /// # Errors
    /// There is none of that name.
    pub async fn set_key(
        &self,
        name: &str,
        enabled: bool,
        by: &Actor,
    ) -> Result<Arc<ApiKey>, DirectoryError> {
        let (name, by) = (name.to_owned(), by.clone());
        self.change(move |draft| {
            let before =
                draft.state.key(&name).cloned().ok_or_else(|| DirectoryError::not_found("key", &name))?;
            let key = ApiKey { enabled, ..ApiKey::clone(&before) };
            draft.write("UPDATE directory.api_key SET enabled = $1 WHERE id = $2", values![enabled, key.id]);
            draft.audit(&by, "set", ("key", &key.name), Some(&*before), Some(&key));
            let key = Arc::new(key);
            Ok((Arc::clone(&key), vec![Edit::Key(key)]))
        })
        .await
    }

    /// Removes a key.
    ///
    /// # Errors
    /// There is none of that name.
    pub async fn remove_key(&self, name: &str, by: &Actor) -> Result<(), DirectoryError> {
        let (name, by) = (name.to_owned(), by.clone());
        self.change(move |draft| {
            let key =
                draft.state.key(&name).cloned().ok_or_else(|| DirectoryError::not_found("key", &name))?;
            draft.write("DELETE FROM directory.api_key WHERE id = $1", values![key.id]);
            draft.audit(&by, "remove", ("key", &key.name), Some(&*key), None);
            Ok(((), vec![Edit::KeyGone(key.name.clone())]))
        })
        .await
    }

    /// The key that was presented, if it is one, is switched on, and its organisation may send. It has 160 random
    /// bits, so its hash can be looked up: how long that takes tells nothing about another key.
    pub fn authenticate_key(&self, presented: &str) -> Option<Arc<ApiKey>> {
        let state = self.snapshot();
        let name = state.key_hashes.get(&sha256(presented.as_bytes()))?;
        let key = state.keys.get(name).filter(|k| k.enabled)?;
        state.org(key.org).filter(|o| o.state == OrgState::Active)?;
        Some(Arc::clone(key))
    }
}
