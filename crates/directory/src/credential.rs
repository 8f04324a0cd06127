//! Credentials: adding, changing, removing.

use std::sync::Arc;

use mail::{Actor, Stream};
use net::Network;

use crate::Pattern;
use crate::db::values;
use crate::directory::Directory;
use crate::draft::Draft;
use crate::error::DirectoryError;
use crate::load::list_text;
use crate::model::{Credential, check_name, folded};
use crate::org::find_org;
use crate::rule::{Named, user_of};
use crate::secret::{Secret, Verifier, make_password};
use crate::snapshot::Edit;

/// Where a credential's password comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Password {
    /// Made here: 130 bits, shown once.
    Make,
    /// Chosen by a person. SCRAM works only when asked for: it needs a verifier that is cheaper to guess from a
    /// stolen file than argon2id.
    Chosen {
        /// The password.
        password: Secret,
        /// Whether SCRAM shall work.
        scram: bool,
    },
}

/// A credential to add.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewCredential {
    /// What the client sends: 1 to 255 printable ASCII characters.
    pub login: String,
    /// The organisation's name.
    pub org: String,
    /// Its password.
    pub password: Password,
    /// Sender domains it may use; empty: whatever its organisation may.
    pub from_domains: Vec<Pattern>,
    /// Client networks it may be used from; empty: any.
    pub networks: Vec<Network>,
    /// What kind of mail comes by it.
    pub stream: Stream,
}

/// What to change in a credential; none leaves it as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CredentialChange {
    /// Another password.
    pub password: Option<Password>,
    /// Sender domains it may use.
    pub from_domains: Option<Vec<Pattern>>,
    /// Client networks it may be used from.
    pub networks: Option<Vec<Network>>,
    /// Whether it may be used at all.
    pub enabled: Option<bool>,
    /// What kind of mail comes by it.
    pub stream: Option<Stream>,
}

impl Directory {
    /// Adds a credential; with it comes the password when it was made here.
    ///
    /// # Errors
    /// The login is not valid or taken, there is no such organisation, or the password cannot be used.
    pub async fn add_credential(
        &self,
        new: NewCredential,
        by: &Actor,
    ) -> Result<(Arc<Credential>, Option<Secret>), DirectoryError> {
        check_name("login", &new.login)?;
        check_from_domains(&new.from_domains)?;
        let (verifier, made) = verifier(new.password).await?;
        let (verifier, by) = (Arc::new(verifier), by.clone());
        let generated = made.is_some();
        let credential = self
            .change(move |draft| {
                if draft.state.credential(&new.login).is_some() {
                    return Err(DirectoryError::exists("credential", &new.login));
                }
                let credential = Credential {
                    id: draft.next_id(),
                    login: new.login.as_str().into(),
                    org: find_org(&draft.state, &new.org)?.id,
                    from_domains: new.from_domains.clone(),
                    networks: new.networks.clone(),
                    stream: new.stream,
                    enabled: true,
                    generated,
                    scram: verifier.scram.is_some(),
                    generation: 1,
                    created: draft.now,
                    verifier: Arc::clone(&verifier),
                };
                draft.audit(&by, "add", ("credential", &credential.login), None, Some(&credential));
                write(draft, &credential);
                let credential = Arc::new(credential);
                Ok((Arc::clone(&credential), vec![Edit::Credential(credential)]))
            })
            .await?;
        Ok((credential, made))
    }

    /// Changes a credential; with it comes the new password when one was made here. Sessions that are logged in feel
    /// it at their next message.
    ///
    /// # Errors
    /// There is none of that login, or the password cannot be used.
    pub async fn set_credential(
        &self,
        login: &str,
        change: CredentialChange,
        by: &Actor,
    ) -> Result<(Arc<Credential>, Option<Secret>), DirectoryError> {
        check_from_domains(change.from_domains.as_deref().unwrap_or_default())?;
        let new = match change.password {
            Some(password) => Some(verifier(password).await?),
            None => None,
        };
        let (new, made) = new.map(|(verifier, made)| (Arc::new(verifier), made)).unzip();
        let made: Option<Secret> = made.flatten();
        let generated = made.is_some();
        let (login, by) = (login.to_owned(), by.clone());
        let credential = self
            .change(move |draft| {
                let before = find(draft, &login)?;
                let mut credential = Credential::clone(&before);
                let secret = new.is_some().then_some("password");
                if let Some(verifier) = &new {
                    credential.generated = generated;
                    credential.scram = verifier.scram.is_some();
                    credential.verifier = Arc::clone(verifier);
                }
                credential.from_domains = change.from_domains.clone().unwrap_or(credential.from_domains);
                credential.networks = change.networks.clone().unwrap_or(credential.networks);
                credential.enabled = change.enabled.unwrap_or(credential.enabled);
                credential.stream = change.stream.unwrap_or(credential.stream);
                credential.generation += 1;
                draft.audit_set(&by, ("credential", &before.login), &*before, &credential, secret);
                write(draft, &credential);
                let credential = Arc::new(credential);
                Ok((Arc::clone(&credential), vec![Edit::Credential(credential)]))
            })
            .await?;
        Ok((credential, made))
    }

    /// Removes a credential. Sessions that are logged in with it send nothing more.
    ///
    /// # Errors
    /// There is none of that login.
    pub async fn remove_credential(&self, login: &str, by: &Actor) -> Result<(), DirectoryError> {
        let (login, by) = (login.to_owned(), by.clone());
        self.change(move |draft| {
            let credential = find(draft, &login)?;
            if let Some(user) = user_of(&draft.state, Named::Credential, &credential.login) {
                let text = format!("{user} names the credential {}: change it first", credential.login);
                return Err(DirectoryError::InUse(text));
            }
            draft.write("DELETE FROM directory.credential WHERE id = $1", values![credential.id]);
            draft.audit(&by, "remove", ("credential", &credential.login), Some(&*credential), None);
            Ok(((), vec![Edit::CredentialGone(credential.login.clone())]))
        })
        .await
    }
}

fn find(draft: &Draft, login: &str) -> Result<Arc<Credential>, DirectoryError> {
    draft.state.credential(login).cloned().ok_or_else(|| DirectoryError::not_found("credential", login))
}

/// Hashes a password away from the async workers.
async fn verifier(password: Password) -> Result<(Verifier, Option<Secret>), DirectoryError> {
    let hash = move || match password {
        Password::Make => {
            let made = make_password();
            Ok((Verifier::generated(&made), Some(Secret::new(made))))
        }
        Password::Chosen { password, scram } => Ok((Verifier::chosen(password.expose(), scram)?, None)),
    };
    tokio::task::spawn_blocking(hash).await.map_err(|_| DirectoryError::Closed)?
}

/// Limits to senders speak of domains; single addresses and the null sender have no place there.
pub(crate) fn check_from_domains(patterns: &[Pattern]) -> Result<(), DirectoryError> {
    match patterns.iter().find(|p| !matches!(p, Pattern::Domain(_) | Pattern::Subdomains(_))) {
        None => Ok(()),
        Some(p) => Err(DirectoryError::Invalid(format!(
            "{p} is no sender domain: write example.com, or *.example.com for its subdomains"
        ))),
    }
}

fn write(draft: &mut Draft, c: &Credential) {
    let (scram, argon2) = c.verifier.to_columns();
    draft.write(
        "INSERT INTO directory.credential (id, login, login_folded, org, from_domains, networks, enabled, made_here, \
         scram, argon2, generation, created, stream) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) \
         ON CONFLICT (id) DO UPDATE SET from_domains = excluded.from_domains, networks = excluded.networks, \
         enabled = excluded.enabled, made_here = excluded.made_here, scram = excluded.scram, \
         argon2 = excluded.argon2, generation = excluded.generation, stream = excluded.stream",
        values![
            c.id,
            &*c.login,
            &*folded(&c.login),
            c.org.0,
            list_text(&c.from_domains),
            list_text(&c.networks),
            c.enabled,
            c.generated,
            scram,
            argon2,
            c.generation,
            c.created.millis(),
            c.stream.as_str(),
        ],
    );
}
