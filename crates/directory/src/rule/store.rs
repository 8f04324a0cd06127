//! How rules are kept: read at the start, added, replaced, removed.

use std::sync::Arc;

use mail::Actor;

use super::{
    Alias, AllRules, Ceiling, Egress, Entry, Kept, Mention, Named, Pool, Rewrite, Rule, Rules, Shape, Source,
    Suspension, TlsPolicy, Wrong,
};
use crate::db::{Bad, Row, values};
use crate::directory::Directory;
use crate::draft::Draft;
use crate::error::DirectoryError;
use crate::load::{Ask, Take};
use crate::secret::Secret;
use crate::snapshot::{Edit, Snapshot};

/// What is put before the number of a rule of the config file that has no name.
const CONFIG: &str = "config-";
/// The name that every source and every pool may be called by, also where none is said.
const DEFAULT: &str = "default";

/// The rules of the config file.
#[derive(Clone, Debug, Default)]
pub struct ConfigRules {
    /// `[source.NAME]`
    pub sources: Vec<(String, Source)>,
    /// `[pool.NAME]`
    pub pools: Vec<(String, Pool)>,
    /// `[[egress]]`
    pub egress: Vec<Egress>,
    /// `[[shape]]`
    pub shapes: Vec<Shape>,
    /// `[[ceiling]]`
    pub ceilings: Vec<Ceiling>,
    /// `[[tls_policy]]`
    pub tls_policies: Vec<TlsPolicy>,
    /// `[[alias]]`
    pub aliases: Vec<Alias>,
    /// `[[rewrite]]`
    pub rewrites: Vec<Rewrite>,
}

impl ConfigRules {
    fn into(self, all: &mut AllRules) {
        all.sources.config = named(self.sources);
        all.pools.config = named(self.pools);
        all.egress.config = numbered(self.egress);
        all.shapes.config = numbered(self.shapes);
        all.ceilings.config = numbered(self.ceilings);
        all.tls_policies.config = numbered(self.tls_policies);
        all.aliases.config = numbered(self.aliases);
        all.rewrites.config = numbered(self.rewrites);
    }
}

fn named<R: Rule>(rules: Vec<(String, R)>) -> Arc<[Arc<Entry<R>>]> {
    rules.into_iter().map(|(name, rule)| from_config(name, rule)).collect()
}

fn numbered<R: Rule>(rules: Vec<R>) -> Arc<[Arc<Entry<R>>]> {
    (1..).zip(rules).map(|(n, rule)| from_config(format!("{CONFIG}{n}"), rule)).collect()
}

fn from_config<R: Rule>(id: String, mut rule: R) -> Arc<Entry<R>> {
    let secret = rule.take_secret();
    rule.put_secret(secret);
    Arc::new(Entry { id: id.into(), kept: Kept::Config, rule })
}

/// Asks for the rules of all kinds.
pub(crate) fn asks() -> Vec<Ask> {
    vec![
        ask_for::<Source>(),
        ask_for::<Pool>(),
        ask_for::<Egress>(),
        ask_for::<Shape>(),
        ask_for::<Ceiling>(),
        ask_for::<TlsPolicy>(),
        ask_for::<Alias>(),
        ask_for::<Rewrite>(),
        ask_for::<Suspension>(),
    ]
}

/// Asks for the rules of the kind that is called so, if there is one.
pub(crate) fn ask(kind: &str) -> Option<Ask> {
    asks().into_iter().find(|ask| ask.values == values![kind])
}

fn ask_for<R: Rule>() -> Ask {
    Ask {
        sql: "SELECT name, body, secret FROM directory.rule WHERE kind = $1 ORDER BY position, name"
            .to_owned(),
        values: values![R::KIND],
        table: "rule",
        take: Box::new(Taken::<R>(Vec::new())),
    }
}

struct Taken<R>(Vec<Arc<Entry<R>>>);

impl<R: Rule> Take for Taken<R> {
    fn row(&mut self, row: &Row<'_>, _: &mut Snapshot) -> Result<(), Bad> {
        let id: String = row.get(0)?;
        let entry = kept::<R>(&id, &row.get::<String>(1)?, row.get::<Option<String>>(2)?.map(Secret::new));
        self.0.push(entry.map_err(|e| Bad(format!("{} {id}: {e}", R::KIND)))?);
        Ok(())
    }

    fn end(self: Box<Self>, state: &mut Snapshot) {
        state.apply(edit(self.0));
    }
}

/// A rule from what is kept of it.
fn kept<R: Rule>(id: &str, body: &str, secret: Option<Secret>) -> Result<Arc<Entry<R>>, serde_json::Error> {
    let mut rule: R = serde_json::from_str(body)?;
    rule.put_secret(secret);
    Ok(Arc::new(Entry { id: id.into(), kept: Kept::Directory, rule }))
}

impl Directory {
    /// Takes the rules of the config file. They come before those of the directory and can only be changed there.
    ///
    /// # Errors
    /// None yet.
    pub async fn set_config_rules(&self, rules: ConfigRules) -> Result<(), DirectoryError> {
        self.0.published.configure(|state| rules.into(Arc::make_mut(&mut state.rules)));
        Ok(())
    }

    /// Adds a rule: with `name` for the kinds that have one; else behind the others, or before the directory's rule number
    /// `before`.
    ///
    /// # Errors
    /// It is wrong, its name is taken, it clashes with another one, or names what does not exist.
    pub async fn add_rule<R: Rule>(
        &self,
        name: Option<String>,
        mut rule: R,
        before: Option<String>,
        by: &Actor,
    ) -> Result<Arc<Entry<R>>, DirectoryError> {
        let name = rule_name::<R>(name)?;
        let secret = rule.take_secret();
        rule.check().map_err(wrong)?;
        let by = by.clone();
        self.change(move |draft| {
            refers(&draft.state, &rule.mentions())?;
            clash(&draft.state, &rule, None)?;
            let id = match &name {
                Some(name) if draft.state.rule::<R>(name).is_some() => {
                    return Err(DirectoryError::exists(R::KIND, name));
                }
                Some(name) => name.clone(),
                None => draft.next_id().to_string(),
            };
            let body = json(&rule)?;
            let entry = kept::<R>(&id, &body, secret.clone()).map_err(|e| unread(&e))?;
            let mut all = R::rules(&draft.state.rules).directory.to_vec();
            let at = match &before {
                Some(before) => place::<R>(&draft.state, before)?.0,
                None => all.len(),
            };
            insert::<R>(draft, (&id, body, secret.as_ref()), before.as_deref());
            draft.audit(&by, "add", (R::KIND, &id), None, Some(&rule));
            all.insert(at, Arc::clone(&entry));
            Ok((entry, vec![edit(all)]))
        })
        .await
    }

    /// Whether a rule could be added just now.
    ///
    /// # Errors
    /// It is wrong, clashes with another one, or names what does not exist.
    pub fn check_rule<R: Rule>(&self, rule: &R) -> Result<(), DirectoryError> {
        rule.check().map_err(wrong)?;
        let state = self.snapshot();
        refers(&state, &rule.mentions())?;
        clash(&state, rule, None)
    }

    /// Replaces what a rule of the directory says; it keeps its name and place, and its secret when none is given.
    ///
    /// # Errors
    /// There is none in the directory, or what it is to say is wrong.
    pub async fn set_rule<R: Rule>(
        &self,
        id: &str,
        mut rule: R,
        by: &Actor,
    ) -> Result<Arc<Entry<R>>, DirectoryError> {
        let secret = rule.take_secret();
        rule.check().map_err(wrong)?;
        let (id, by) = (id.to_owned(), by.clone());
        self.change(move |draft| {
            let (at, before) = place::<R>(&draft.state, &id)?;
            refers(&draft.state, &rule.mentions())?;
            clash(&draft.state, &rule, Some(&id))?;
            let earlier = before.rule.clone().take_secret();
            let is_new = secret.is_some() && secret != earlier;
            let secret = secret.clone().or(earlier);
            let body = json(&rule)?;
            let entry = kept::<R>(&id, &body, secret.clone()).map_err(|e| unread(&e))?;
            draft.write(
                "UPDATE directory.rule SET body = $1, secret = $2 WHERE kind = $3 AND name = $4",
                values![body, secret.as_ref().map(Secret::expose), R::KIND, id.as_str()],
            );
            draft.audit_set(&by, (R::KIND, &id), &before.rule, &rule, is_new.then_some("secret"));
            let mut all = R::rules(&draft.state.rules).directory.to_vec();
            all[at] = Arc::clone(&entry);
            Ok((entry, vec![edit(all)]))
        })
        .await
    }

    /// Removes a rule of the directory.
    ///
    /// # Errors
    /// There is none in the directory, or another rule names it.
    pub async fn remove_rule<R: Rule>(&self, id: &str, by: &Actor) -> Result<Arc<Entry<R>>, DirectoryError> {
        let (id, by) = (id.to_owned(), by.clone());
        self.change(move |draft| {
            let (at, before) = place::<R>(&draft.state, &id)?;
            if let Some(what) = name_kind::<R>()
                && let Some(user) = user_of(&draft.state, what, &id)
            {
                return Err(DirectoryError::InUse(format!(
                    "{user} names the {} {id}: change it first",
                    R::KIND
                )));
            }
            draft.write(
                "DELETE FROM directory.rule WHERE kind = $1 AND name = $2",
                values![R::KIND, id.as_str()],
            );
            draft.audit(&by, "remove", (R::KIND, &id), Some(&before.rule), None);
            let mut all = R::rules(&draft.state.rules).directory.to_vec();
            all.remove(at);
            Ok((before, vec![edit(all)]))
        })
        .await
    }
}

/// Writes a new rule behind the others of its kind, or before one of them.
fn insert<R: Rule>(
    draft: &mut Draft,
    (id, body, secret): (&str, String, Option<&Secret>),
    before: Option<&str>,
) {
    let secret = secret.map(Secret::expose);
    let Some(before) = before else {
        return draft.write(
            "INSERT INTO directory.rule (kind, name, position, body, secret) \
             VALUES ($1, $2, (SELECT coalesce(max(position), 0) + 1 FROM directory.rule WHERE kind = $1), $3, $4)",
            values![R::KIND, id, body, secret],
        );
    };
    draft.write(
        "UPDATE directory.rule SET position = position + 1 \
         WHERE kind = $1 AND position >= (SELECT position FROM directory.rule WHERE kind = $1 AND name = $2)",
        values![R::KIND, before],
    );
    draft.write(
        "INSERT INTO directory.rule (kind, name, position, body, secret) \
         VALUES ($1, $2, (SELECT position - 1 FROM directory.rule WHERE kind = $1 AND name = $3), $4, $5)",
        values![R::KIND, id, before, body, secret],
    );
}

/// What we wrote ourselves cannot be read: a rule's two ways do not fit each other.
fn unread(e: &serde_json::Error) -> DirectoryError {
    DirectoryError::Invalid(format!("it cannot be kept: {e}"))
}

fn edit<R: Rule>(all: Vec<Arc<Entry<R>>>) -> Edit {
    Edit::Rules(R::KIND, Box::new(move |rules| R::rules_mut(rules).directory = all.into()))
}

fn json<R: Rule>(rule: &R) -> Result<String, DirectoryError> {
    serde_json::to_string(rule).map_err(|e| DirectoryError::Invalid(e.to_string()))
}

fn wrong(wrong: Wrong) -> DirectoryError {
    let Wrong { key, what, help } = wrong;
    let at = if key.is_empty() { String::new() } else { format!("{key}: ") };
    let help = if help.is_empty() { String::new() } else { format!("; {help}") };
    DirectoryError::Invalid(format!("{at}{what}{help}"))
}

/// The name of a new rule: for the kinds that have one, and only for those.
fn rule_name<R: Rule>(name: Option<String>) -> Result<Option<String>, DirectoryError> {
    match name {
        None if R::NAMED => Err(DirectoryError::Invalid(format!("a {} needs a name", R::KIND))),
        Some(_) if !R::NAMED => Err(DirectoryError::Invalid(format!("a {} has no name", R::KIND))),
        Some(name) if !is_name(&name) => Err(DirectoryError::Invalid(format!(
            "the name of a {} is 1 to 63 letters, digits, - and _",
            R::KIND
        ))),
        name => Ok(name),
    }
}

/// Whether a source or pool may be called so.
pub(super) fn is_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    !name.is_empty() && name.len() <= 63 && name.bytes().all(plain)
}

/// A rule of the directory, and where it stands among those of its kind.
fn place<R: Rule>(state: &Snapshot, id: &str) -> Result<(usize, Arc<Entry<R>>), DirectoryError> {
    let Rules { config, directory } = R::rules(&state.rules);
    if config.iter().any(|it| *it.id == *id) {
        return Err(DirectoryError::ReadOnly { what: R::KIND, name: id.to_owned() });
    }
    let found = directory.iter().position(|it| *it.id == *id);
    found.map(|at| (at, Arc::clone(&directory[at]))).ok_or_else(|| DirectoryError::not_found(R::KIND, id))
}

/// An error unless all that is named exists.
fn refers(state: &Snapshot, mentions: &[Mention]) -> Result<(), DirectoryError> {
    for Mention { what, name, .. } in mentions {
        let (kind, known) = match what {
            Named::Org => ("organisation", state.org_named(name).is_some()),
            Named::Credential => ("credential", state.credential(name).is_some()),
            Named::Source => (Source::KIND, name == DEFAULT || state.rule::<Source>(name).is_some()),
            Named::Pool => (Pool::KIND, name == DEFAULT || state.rule::<Pool>(name).is_some()),
            Named::SmartHost => ("smart host", state.smarthost(name).is_some()),
        };
        if !known {
            return Err(DirectoryError::not_found(kind, name));
        }
    }
    Ok(())
}

/// An error when another rule is about the same thing.
fn clash<R: Rule>(state: &Snapshot, rule: &R, own: Option<&str>) -> Result<(), DirectoryError> {
    let other = state.rules::<R>().find(|it| Some(&*it.id) != own && it.rule.clashes(rule));
    match other {
        Some(other) => {
            let place = if other.kept == Kept::Config { "in the config file" } else { "in the directory" };
            Err(DirectoryError::InUse(format!("there is already such a {} ({} {place})", R::KIND, other.id)))
        }
        None => Ok(()),
    }
}

fn name_kind<R: Rule>() -> Option<Named> {
    match R::KIND {
        Source::KIND => Some(Named::Source),
        Pool::KIND => Some(Named::Pool),
        _ => None,
    }
}

/// Who names this, in words. `default` is there without being said, so that nobody misses it.
pub(crate) fn user_of(state: &Snapshot, what: Named, name: &str) -> Option<String> {
    if matches!(what, Named::Source | Named::Pool) && name == DEFAULT {
        return None;
    }
    if what == Named::Pool
        && let Some(org) = state.orgs().find(|org| org.pool.as_deref() == Some(name))
    {
        return Some(format!("the organisation {}", org.name));
    }
    fn first<R: Rule>(state: &Snapshot, what: Named, name: &str) -> Option<String> {
        let fold = matches!(what, Named::Org | Named::Credential);
        let same = |m: &Mention| {
            m.what == what && if fold { m.name.eq_ignore_ascii_case(name) } else { m.name == name }
        };
        let entry = state.rules::<R>().find(|it| it.rule.mentions().iter().any(same))?;
        let place = if entry.kept == Kept::Config { " of the config file" } else { "" };
        Some(format!("the {} {}{place}", R::KIND, entry.id))
    }
    first::<Pool>(state, what, name)
        .or_else(|| first::<Egress>(state, what, name))
        .or_else(|| first::<Shape>(state, what, name))
        .or_else(|| first::<Ceiling>(state, what, name))
        .or_else(|| first::<Alias>(state, what, name))
        .or_else(|| first::<Rewrite>(state, what, name))
        .or_else(|| first::<Suspension>(state, what, name))
}
