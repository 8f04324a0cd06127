//! From the database into memory: everything at the start, and later what another node has touched.

use std::sync::Arc;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use mail::{OrgId, Timestamp};
use serde::de::DeserializeOwned;

use crate::db::{Bad, Row, Value, Write, values};
use crate::model::{ApiKey, Credential, Domain, Org};
use crate::routing::{Route, SmartHost, Source};
use crate::rule;
use crate::secret::{Secret, Verifier, random};
use crate::smarthost::SmartHostMore;
use crate::snapshot::{Edit, Snapshot};
use crate::suppression;

/// Rows of the tables that may have very many are read so many at a time.
const PAGE: usize = 10_000;

const ORG: &str = "SELECT id, name, trusted, state, created, pool FROM directory.org";
const DOMAIN: &str = "SELECT name, org, created FROM directory.domain";
const CREDENTIAL: &str = "SELECT id, login, org, from_domains, networks, enabled, made_here, scram, argon2, \
                          generation, created, stream FROM directory.credential";
const KEY: &str = "SELECT id, name, org, scope, from_domains, hash, enabled, created FROM directory.api_key";
const SMARTHOST: &str = "SELECT name, hosts, tls, username, password, more, secrets FROM directory.smarthost";
const ROUTE: &str = "SELECT id, domains, senders, target FROM directory.route ORDER BY position, id";

/// What every directory has: the organisation `default`, and a random key for fake verifiers.
pub(crate) fn founding(now: Timestamp) -> Vec<Write> {
    vec![
        Write {
            sql: "INSERT INTO directory.org (id, name, trusted, state, created) VALUES ($1, 'default', 1, 'active', $2) \
                  ON CONFLICT DO NOTHING",
            values: values![OrgId::DEFAULT.0, now.millis()],
        },
        Write {
            sql: "INSERT INTO directory.secret (name, value) VALUES ('fake-verifiers', $1) ON CONFLICT DO NOTHING",
            values: values![BASE64.encode(random::<32>())],
        },
    ]
}

/// Asks for the key for fake verifiers: the same on every node and after every restart.
pub(crate) const FAKE_KEY: &str = "SELECT value FROM directory.secret WHERE name = 'fake-verifiers'";

/// The key that [`FAKE_KEY`] answers.
pub(crate) fn fake_key(text: Option<&str>) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, text.unwrap_or_default().as_bytes())
}

/// A question, and what becomes of its rows.
pub(crate) struct Ask {
    pub(crate) sql: String,
    pub(crate) values: Vec<Value>,
    /// What it is about, for whoever reads that it cannot be read.
    pub(crate) table: &'static str,
    pub(crate) take: Box<dyn Take>,
}

/// Takes the rows of an answer into the snapshot.
pub(crate) trait Take: Send {
    /// Takes a row.
    fn row(&mut self, row: &Row<'_>, state: &mut Snapshot) -> Result<(), Bad>;
    /// The parameters to ask for more rows with, if there may be any.
    fn more(&mut self) -> Option<Vec<Value>> {
        None
    }
    /// There were no more.
    fn end(self: Box<Self>, _state: &mut Snapshot) {}
}

/// Everything.
pub(crate) fn everything() -> Vec<Ask> {
    let all = |sql: &str, table, read| Ask {
        sql: sql.to_owned(),
        values: Vec::new(),
        table,
        take: Box::new(Each(read)) as Box<dyn Take>,
    };
    let mut asks = vec![
        all(ORG, "org", read_org),
        all(DOMAIN, "domain", read_domain),
        all(CREDENTIAL, "credential", read_credential),
        all(KEY, "api_key", read_key),
        all(SMARTHOST, "smarthost", read_smarthost),
        routes(),
    ];
    asks.extend(rule::asks());
    asks.push(suppressions());
    asks
}

pub(crate) fn org(id: i64) -> Ask {
    one(ORG, "id", "org", id.into(), read_org, Edit::OrgGone(OrgId(id)))
}

pub(crate) fn domain(name: &str) -> Ask {
    one(DOMAIN, "name", "domain", name.into(), read_domain, Edit::DomainGone(name.into()))
}

pub(crate) fn credential(folded: &str) -> Ask {
    let gone = Edit::CredentialGone(folded.into());
    one(CREDENTIAL, "login_folded", "credential", folded.into(), read_credential, gone)
}

pub(crate) fn key(folded: &str) -> Ask {
    one(KEY, "name_folded", "api_key", folded.into(), read_key, Edit::KeyGone(folded.into()))
}

pub(crate) fn smarthost(name: &str) -> Ask {
    one(SMARTHOST, "name", "smarthost", name.into(), read_smarthost, Edit::SmartHostGone(name.into()))
}

pub(crate) fn suppression(org: i64, address: &str) -> Ask {
    Ask {
        sql: format!("{} WHERE org = $1 AND address = $2", suppression::SELECT),
        values: values![org, address],
        table: "suppression",
        take: Box::new(One {
            read: read_suppression,
            gone: Some(Edit::SuppressionGone(OrgId(org), address.into())),
        }),
    }
}

/// The directory's routes in their order.
pub(crate) fn routes() -> Ask {
    Ask { sql: ROUTE.to_owned(), values: Vec::new(), table: "route", take: Box::<Routes>::default() }
}

fn suppressions() -> Ask {
    Ask {
        sql: format!(
            "{} WHERE (org, address) > ($1, $2) ORDER BY org, address LIMIT {PAGE}",
            suppression::SELECT
        ),
        values: values![i64::MIN, ""],
        table: "suppression",
        take: Box::<Suppressions>::default(),
    }
}

fn one(sql: &str, key: &str, table: &'static str, value: Value, read: Read, gone: Edit) -> Ask {
    let take = Box::new(One { read, gone: Some(gone) });
    Ask { sql: format!("{sql} WHERE {key} = $1"), values: vec![value], table, take }
}

type Read = fn(&Row<'_>) -> Result<Edit, Bad>;

/// Every row is an entry.
struct Each(Read);

impl Take for Each {
    fn row(&mut self, row: &Row<'_>, state: &mut Snapshot) -> Result<(), Bad> {
        state.apply((self.0)(row)?);
        Ok(())
    }
}

/// The row is the entry; without one it is gone.
struct One {
    read: Read,
    gone: Option<Edit>,
}

impl Take for One {
    fn row(&mut self, row: &Row<'_>, state: &mut Snapshot) -> Result<(), Bad> {
        self.gone = None;
        state.apply((self.read)(row)?);
        Ok(())
    }

    fn end(self: Box<Self>, state: &mut Snapshot) {
        if let Some(edit) = self.gone {
            state.apply(edit);
        }
    }
}

#[derive(Default)]
struct Routes(Vec<Arc<Route>>);

impl Take for Routes {
    fn row(&mut self, row: &Row<'_>, _: &mut Snapshot) -> Result<(), Bad> {
        self.0.push(Arc::new(Route {
            id: row.get(0)?,
            source: Source::Directory,
            domains: list(row, 1)?,
            senders: list(row, 2)?,
            to: row.parse(3)?,
        }));
        Ok(())
    }

    fn end(self: Box<Self>, state: &mut Snapshot) {
        state.apply(Edit::Routes(self.0));
    }
}

#[derive(Default)]
struct Suppressions {
    rows: usize,
    last: Option<(i64, String)>,
}

impl Take for Suppressions {
    fn row(&mut self, row: &Row<'_>, state: &mut Snapshot) -> Result<(), Bad> {
        let it = suppression::read(row)?;
        self.rows += 1;
        self.last = Some((it.org.0, it.address.to_string()));
        state.apply(Edit::Suppression(Arc::new(it)));
        Ok(())
    }

    fn more(&mut self) -> Option<Vec<Value>> {
        let full = std::mem::take(&mut self.rows) == PAGE;
        self.last.take().filter(|_| full).map(|(org, address)| values![org, address])
    }
}

fn read_suppression(row: &Row<'_>) -> Result<Edit, Bad> {
    Ok(Edit::Suppression(Arc::new(suppression::read(row)?)))
}

fn read_org(row: &Row<'_>) -> Result<Edit, Bad> {
    Ok(Edit::Org(Arc::new(Org {
        id: OrgId(row.get(0)?),
        name: row.get::<String>(1)?.into(),
        trusted: row.flag(2)?,
        state: row.parse(3)?,
        created: Timestamp(row.get(4)?),
        pool: row.get::<Option<String>>(5)?.map(Into::into),
    })))
}

fn read_domain(row: &Row<'_>) -> Result<Edit, Bad> {
    Ok(Edit::Domain(Arc::new(Domain {
        name: row.get::<String>(0)?.into(),
        org: OrgId(row.get(1)?),
        created: Timestamp(row.get(2)?),
    })))
}

fn read_credential(row: &Row<'_>) -> Result<Edit, Bad> {
    let (scram, argon2): (Option<String>, Option<String>) = (row.get(7)?, row.get(8)?);
    let login: String = row.get(1)?;
    let verifier = Verifier::from_columns(scram.as_deref(), argon2.as_deref())
        .ok_or_else(|| Bad(format!("the verifier of {login:?} cannot be read")))?;
    Ok(Edit::Credential(Arc::new(Credential {
        id: row.get(0)?,
        login: login.into(),
        org: OrgId(row.get(2)?),
        from_domains: list(row, 3)?,
        networks: list(row, 4)?,
        enabled: row.flag(5)?,
        generated: row.flag(6)?,
        scram: verifier.scram.is_some(),
        generation: row.get(9)?,
        created: Timestamp(row.get(10)?),
        stream: row.parse(11)?,
        verifier: Arc::new(verifier),
    })))
}

fn read_key(row: &Row<'_>) -> Result<Edit, Bad> {
    let hash = BASE64.decode(row.get::<String>(5)?).map_err(|e| Bad(e.to_string()))?;
    Ok(Edit::Key(Arc::new(ApiKey {
        id: row.get(0)?,
        name: row.get::<String>(1)?.into(),
        org: OrgId(row.get(2)?),
        scope: row.parse(3)?,
        from_domains: list(row, 4)?,
        hash: hash.try_into().map_err(|_| Bad("a key's hash has 32 octets".into()))?,
        enabled: row.flag(6)?,
        created: Timestamp(row.get(7)?),
    })))
}

fn read_smarthost(row: &Row<'_>) -> Result<Edit, Bad> {
    let host = |text: &String| text.parse().map_err(|e: mail::DestinationError| Bad(e.to_string()));
    Ok(Edit::SmartHost(Arc::new(SmartHost {
        name: row.get::<String>(0)?.into(),
        source: Source::Directory,
        hosts: list::<String>(row, 1)?.iter().map(host).collect::<Result<_, _>>()?,
        tls: row.parse(2)?,
        username: row.get(3)?,
        password: row.get::<Option<String>>(4)?.map(Secret::new),
        more: SmartHostMore::from_columns(&row.get::<String>(5)?, &row.get::<String>(6)?)?,
    })))
}

/// A list is kept as a JSON array of strings.
fn list<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> Result<Vec<T>, Bad> {
    Ok(serde_json::from_str(&row.get::<String>(column)?)?)
}

/// The other way round.
pub(crate) fn list_text<T: ToString>(items: &[T]) -> String {
    let texts: Vec<String> = items.iter().map(ToString::to_string).collect();
    serde_json::to_string(&texts).unwrap_or_else(|_| "[]".into())
}
