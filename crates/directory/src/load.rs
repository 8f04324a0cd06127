//! From the database into memory, at the start.

use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use mail::{OrgId, Timestamp};
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::de::DeserializeOwned;

use crate::error::DirectoryError;
use crate::model::{ApiKey, Credential, Domain, Org};
use crate::routing::{Route, SmartHost, Source};
use crate::secret::{Secret, Verifier, random};
use crate::smarthost::SmartHostMore;
use crate::snapshot::{Edit, Snapshot};
use crate::{rule, suppression};

/// What every directory has: the organisation `default`, and a random key for fake verifiers, which is returned.
pub(crate) fn founding(db: &Connection, now: Timestamp) -> Result<hmac::Key, DirectoryError> {
    db.execute(
        "INSERT INTO org (id, name, trusted, state, created) VALUES ($1, 'default', 1, 'active', $2) \
         ON CONFLICT DO NOTHING",
        params![OrgId::DEFAULT.0, now.millis()],
    )?;
    db.execute(
        "INSERT INTO secret (name, value) VALUES ('fake-verifiers', $1) ON CONFLICT DO NOTHING",
        params![BASE64.encode(random::<32>())],
    )?;
    let text: Option<String> = db
        .query_row("SELECT value FROM secret WHERE name = 'fake-verifiers'", [], |row| row.get(0))
        .optional()?;
    Ok(hmac::Key::new(hmac::HMAC_SHA256, text.unwrap_or_default().as_bytes()))
}

/// Reads everything.
pub(crate) fn snapshot(db: &Connection, path: &Path) -> Result<Snapshot, DirectoryError> {
    let mut state = Snapshot::default();
    let reader = Reader { db, path };
    reader.rows("SELECT id, name, trusted, state, created, pool FROM org", &mut state, org)?;
    reader.rows("SELECT name, org, created FROM domain", &mut state, domain)?;
    reader.rows(
        "SELECT id, login, org, from_domains, networks, enabled, made_here, scram, argon2, generation, created, \
         stream FROM credential",
        &mut state,
        credential,
    )?;
    reader.rows(
        "SELECT id, name, org, scope, from_domains, hash, enabled, created FROM api_key",
        &mut state,
        key,
    )?;
    reader.rows(
        "SELECT name, hosts, tls, username, password, more, secrets FROM smarthost",
        &mut state,
        smarthost,
    )?;
    state.routes = routes(db).map_err(|e| reader.damaged("route", &e))?.into();
    state.rules = Arc::new(rule::load(db).map_err(|e| reader.damaged("rule", &e))?);
    state.suppressions = suppression::load(db).map_err(|e| reader.damaged("suppression", &e))?;
    Ok(state)
}

/// The directory's routes in their order.
pub(crate) fn routes(db: &Connection) -> Result<Vec<Arc<Route>>, Bad> {
    let mut statement = db.prepare("SELECT id, domains, senders, target FROM route ORDER BY position, id")?;
    let mut rows = statement.query([])?;
    let mut routes = Vec::new();
    while let Some(row) = rows.next()? {
        routes.push(Arc::new(Route {
            id: row.get(0)?,
            source: Source::Directory,
            domains: list(row, 1)?,
            senders: list(row, 2)?,
            to: row.get::<_, String>(3)?.parse().map_err(|e| Bad::value(&e))?,
        }));
    }
    Ok(routes)
}

/// Why a row cannot be read.
pub(crate) enum Bad {
    Sql(rusqlite::Error),
    Value(String),
}

impl Bad {
    pub(crate) fn value(e: &dyn std::fmt::Display) -> Self {
        Bad::Value(e.to_string())
    }
}

impl From<rusqlite::Error> for Bad {
    fn from(e: rusqlite::Error) -> Self {
        Bad::Sql(e)
    }
}

impl std::fmt::Display for Bad {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Bad::Sql(e) => write!(f, "{e}"),
            Bad::Value(e) => f.write_str(e),
        }
    }
}

struct Reader<'a> {
    db: &'a Connection,
    path: &'a Path,
}

impl Reader<'_> {
    fn rows(
        &self,
        sql: &str,
        state: &mut Snapshot,
        read: fn(&Row<'_>) -> Result<Edit, Bad>,
    ) -> Result<(), DirectoryError> {
        let mut statement = self.db.prepare(sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            state.apply(read(row).map_err(|e| self.damaged(sql, &e))?);
        }
        Ok(())
    }

    fn damaged(&self, sql: &str, bad: &Bad) -> DirectoryError {
        let table = sql.rsplit(' ').next().unwrap_or_default();
        DirectoryError::Damaged { path: self.path.to_owned(), what: format!("table {table}: {bad}") }
    }
}

fn org(row: &Row<'_>) -> Result<Edit, Bad> {
    Ok(Edit::Org(Arc::new(Org {
        id: OrgId(row.get(0)?),
        name: row.get::<_, String>(1)?.into(),
        trusted: row.get(2)?,
        state: row.get::<_, String>(3)?.parse().map_err(|e| Bad::value(&e))?,
        created: Timestamp(row.get(4)?),
        pool: row.get::<_, Option<String>>(5)?.map(Into::into),
    })))
}

fn domain(row: &Row<'_>) -> Result<Edit, Bad> {
    Ok(Edit::Domain(Arc::new(Domain {
        name: row.get::<_, String>(0)?.into(),
        org: OrgId(row.get(1)?),
        created: Timestamp(row.get(2)?),
    })))
}

fn credential(row: &Row<'_>) -> Result<Edit, Bad> {
    let (scram, argon2): (Option<String>, Option<String>) = (row.get(7)?, row.get(8)?);
    let login: String = row.get(1)?;
    let verifier = Verifier::from_columns(scram.as_deref(), argon2.as_deref())
        .ok_or_else(|| Bad::Value(format!("the verifier of {login:?} cannot be read")))?;
    Ok(Edit::Credential(Arc::new(Credential {
        id: row.get(0)?,
        login: login.into(),
        org: OrgId(row.get(2)?),
        from_domains: list(row, 3)?,
        networks: list(row, 4)?,
        enabled: row.get(5)?,
        generated: row.get(6)?,
        scram: verifier.scram.is_some(),
        generation: row.get(9)?,
        created: Timestamp(row.get(10)?),
        stream: row.get::<_, String>(11)?.parse().map_err(|e| Bad::value(&e))?,
        verifier: Arc::new(verifier),
    })))
}

fn key(row: &Row<'_>) -> Result<Edit, Bad> {
    let hash = BASE64.decode(row.get::<_, String>(5)?).map_err(|e| Bad::value(&e))?;
    Ok(Edit::Key(Arc::new(ApiKey {
        id: row.get(0)?,
        name: row.get::<_, String>(1)?.into(),
        org: OrgId(row.get(2)?),
        scope: row.get::<_, String>(3)?.parse().map_err(|e| Bad::value(&e))?,
        from_domains: list(row, 4)?,
        hash: hash.try_into().map_err(|_| Bad::Value("a key's hash has 32 octets".into()))?,
        enabled: row.get(6)?,
        created: Timestamp(row.get(7)?),
    })))
}

fn smarthost(row: &Row<'_>) -> Result<Edit, Bad> {
    Ok(Edit::SmartHost(Arc::new(SmartHost {
        name: row.get::<_, String>(0)?.into(),
        source: Source::Directory,
        hosts: list::<String>(row, 1)?
            .iter()
            .map(|h| h.parse())
            .collect::<Result<_, _>>()
            .map_err(|e| Bad::value(&e))?,
        tls: row.get::<_, String>(2)?.parse().map_err(|e| Bad::value(&e))?,
        username: row.get(3)?,
        password: row.get::<_, Option<String>>(4)?.map(Secret::new),
        more: SmartHostMore::from_columns(&row.get::<_, String>(5)?, &row.get::<_, String>(6)?)
            .map_err(|e| Bad::value(&e))?,
    })))
}

/// A list is kept as a JSON array of strings.
fn list<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> Result<Vec<T>, Bad> {
    serde_json::from_str(&row.get::<_, String>(column)?).map_err(|e| Bad::value(&e))
}

/// The other way round.
pub(crate) fn list_text<T: ToString>(items: &[T]) -> String {
    let texts: Vec<String> = items.iter().map(ToString::to_string).collect();
    serde_json::to_string(&texts).unwrap_or_else(|_| "[]".into())
}
