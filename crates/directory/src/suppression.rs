//! Addresses that an organisation does not write to any more. There may be hundreds of thousands, so they are in memory
//! in shards: a change copies one of them.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::str::FromStr;
use std::sync::Arc;

use mail::{Actor, Address, BounceClass, OrgId, Timestamp};
use serde::Serialize;

use crate::db::{Bad, Row, values};
use crate::directory::Directory;
use crate::error::DirectoryError;
use crate::org::find_org;
use crate::snapshot::{Edit, Snapshot};

/// How many shards there are.
const SHARDS: usize = 1024;
/// Longest reason that is kept, in octets.
const REASON_MAX: usize = 500;
/// Most entries of a page.
const PAGE_MAX: usize = 1000;

/// How an address came to be suppressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SuppressedBy {
    /// Someone added it.
    Manual,
    /// A next hop said that there is no such mailbox.
    Bounce,
}

impl SuppressedBy {
    /// Its name as users type it.
    pub fn as_str(self) -> &'static str {
        match self {
            SuppressedBy::Manual => "manual",
            SuppressedBy::Bounce => "bounce",
        }
    }
}

impl FromStr for SuppressedBy {
    type Err = DirectoryError;
    fn from_str(text: &str) -> Result<Self, DirectoryError> {
        match text {
            "manual" => Ok(SuppressedBy::Manual),
            "bounce" => Ok(SuppressedBy::Bounce),
            other => Err(DirectoryError::Invalid(format!("{other:?} is no source: manual or bounce"))),
        }
    }
}

impl fmt::Display for SuppressedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An address that an organisation does not write to any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Suppression {
    /// Whose mail is not taken for it.
    pub org: OrgId,
    /// The address, in lower case.
    pub address: Arc<str>,
    /// What the bounce was about.
    pub class: BounceClass,
    /// Why, in a line: the next hop's words.
    pub reason: Arc<str>,
    /// How it came here.
    pub source: SuppressedBy,
    /// Who added it.
    pub by: Arc<str>,
    /// Since when.
    pub since: Timestamp,
}

/// An address to suppress.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewSuppression {
    /// The organisation's name.
    pub org: String,
    /// The address.
    pub address: Address,
    /// What the bounce was about; [`BounceClass::Recipient`] for those added by hand.
    pub class: BounceClass,
    /// Why, in a line.
    pub reason: String,
    /// How it comes here.
    pub source: SuppressedBy,
}

/// Which suppressions; in order of organisation and address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SuppressionQuery {
    /// Only this organisation's.
    pub org: Option<OrgId>,
    /// Only addresses that hold this text.
    pub text: Option<String>,
    /// Only what comes behind this one: the last one of the page before.
    pub after: Option<(OrgId, String)>,
    /// At most so many; 1000 when it is more or nothing is said.
    pub limit: Option<usize>,
}

type Shard = HashMap<(OrgId, Arc<str>), Arc<Suppression>, BuildHasherDefault<DefaultHasher>>;

/// All of them, in memory.
#[derive(Clone, Debug)]
pub(crate) struct Suppressions(Arc<[Arc<Shard>]>);

impl Default for Suppressions {
    fn default() -> Self {
        let empty = Arc::new(Shard::default());
        Self((0..SHARDS).map(|_| Arc::clone(&empty)).collect())
    }
}

impl Suppressions {
    fn shard(org: OrgId, address: &str) -> usize {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one((org, address));
        usize::try_from(hash % SHARDS as u64).unwrap_or(0)
    }

    pub(crate) fn get(&self, org: OrgId, address: &str) -> Option<&Arc<Suppression>> {
        let shard = &self.0[Self::shard(org, address)];
        if shard.is_empty() { None } else { shard.get(&(org, Arc::from(address))) }
    }

    fn change(&mut self, org: OrgId, address: &str, change: impl FnOnce(&mut Shard)) {
        let shards = Arc::make_mut(&mut self.0);
        change(Arc::make_mut(&mut shards[Self::shard(org, address)]));
    }

    pub(crate) fn put(&mut self, it: Arc<Suppression>) {
        let (org, address) = (it.org, Arc::clone(&it.address));
        self.change(org, &address.clone(), move |shard| {
            shard.insert((org, address), it);
        });
    }

    pub(crate) fn remove(&mut self, org: OrgId, address: &str) {
        self.change(org, address, |shard| {
            shard.remove(&(org, Arc::from(address)));
        });
    }

    pub(crate) fn any_of(&self, org: OrgId) -> bool {
        self.0.iter().any(|shard| shard.keys().any(|(of, _)| *of == org))
    }
}

/// How addresses are compared: the local part, too, whatever its case, as nobody tells mailboxes apart by that.
fn key(address: &Address) -> String {
    format!("{}@{}", address.local().to_lowercase(), address.domain())
}

impl Snapshot {
    /// Whether this organisation writes to this address no more, and why.
    pub fn suppressed(&self, org: OrgId, address: &Address) -> Option<&Arc<Suppression>> {
        self.suppressions.get(org, &key(address))
    }
}

impl Directory {
    /// Suppresses an address for an organisation. One that is suppressed already stays as it is and is answered, with
    /// `false`.
    ///
    /// # Errors
    /// There is no such organisation, or the disk.
    pub async fn suppress(
        &self,
        new: NewSuppression,
        by: &Actor,
    ) -> Result<(Arc<Suppression>, bool), DirectoryError> {
        let by = by.clone();
        self.change(move |draft| {
            let org = find_org(&draft.state, &new.org)?;
            if let Some(there) = draft.state.suppressed(org.id, &new.address) {
                return Ok(((Arc::clone(there), false), Vec::new()));
            }
            let it = Suppression {
                org: org.id,
                address: key(&new.address).into(),
                class: new.class,
                reason: one_line(&new.reason).into(),
                source: new.source,
                by: by.as_str().into(),
                since: draft.now,
            };
            draft.write(
                "INSERT INTO directory.suppression (org, address, class, reason, source, actor, since) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7)",
                values![
                    it.org.0,
                    &*it.address,
                    it.class.as_str(),
                    &*it.reason,
                    it.source.as_str(),
                    &*it.by,
                    it.since.millis()
                ],
            );
            draft.audit(&by, "add", ("suppression", &it.address), None, Some(&it));
            let it = Arc::new(it);
            Ok(((Arc::clone(&it), true), vec![Edit::Suppression(it)]))
        })
        .await
    }

    /// Lets an organisation write to an address again.
    ///
    /// # Errors
    /// It is not suppressed, or there is no such organisation.
    pub async fn unsuppress(&self, org: &str, address: &Address, by: &Actor) -> Result<(), DirectoryError> {
        let (org, address, by) = (org.to_owned(), address.clone(), by.clone());
        self.change(move |draft| {
            let org = find_org(&draft.state, &org)?;
            let it = draft.state.suppressed(org.id, &address).cloned();
            let it = it.ok_or_else(|| DirectoryError::not_found("suppression of", address.as_str()))?;
            draft.write(
                "DELETE FROM directory.suppression WHERE org = $1 AND address = $2",
                values![it.org.0, &*it.address],
            );
            draft.audit(&by, "remove", ("suppression", &it.address), Some(&*it), None);
            Ok(((), vec![Edit::SuppressionGone(it.org, it.address.clone())]))
        })
        .await
    }

    /// Lists suppressions.
    ///
    /// # Errors
    /// The disk.
    pub async fn suppressions(&self, query: SuppressionQuery) -> Result<Vec<Suppression>, DirectoryError> {
        let (after_org, after) = query.after.unwrap_or((OrgId(i64::MIN), String::new()));
        let limit = query.limit.unwrap_or(PAGE_MAX).min(PAGE_MAX);
        let values = values![
            after_org.0,
            after,
            query.org.map_or(ANY_ORG, |org| org.0),
            query.text.unwrap_or_default().to_lowercase(),
            i64::try_from(limit).unwrap_or(1),
        ];
        // `replace` finds a text in another one on both engines; `instr` and `strpos` are each known to one.
        let sql = format!(
            "{SELECT} WHERE (org, address) > ($1, $2) AND ($3 = CAST({ANY_ORG} AS BIGINT) OR org = $3) \
             AND ($4 = '' OR replace(address, $4, '') <> address) ORDER BY org, address LIMIT $5"
        );
        self.list(sql, values, read).await
    }
}

/// Stands for every organisation; none has this number.
const ANY_ORG: i64 = -1;

pub(crate) const SELECT: &str =
    "SELECT org, address, class, reason, source, actor, since FROM directory.suppression";

pub(crate) fn read(row: &Row<'_>) -> Result<Suppression, Bad> {
    let text = |at: usize| row.get::<String>(at);
    Ok(Suppression {
        org: OrgId(row.get(0)?),
        address: text(1)?.into(),
        class: row.parse(2)?,
        reason: text(3)?.into(),
        source: row.parse(4)?,
        by: text(5)?.into(),
        since: Timestamp(row.get(6)?),
    })
}

/// A peer's words as one line of bounded length.
fn one_line(text: &str) -> String {
    let mut line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let end = (0..=REASON_MAX.min(line.len())).rev().find(|i| line.is_char_boundary(*i)).unwrap_or(0);
    line.truncate(end);
    line
}
