//! The two sides, opened for nobody else; and what has to be true of them before anything is carried.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ::history::History;
use mail::{Clock, Timestamp};
use postgres::Pool;
use store::transfer::{Mark, Side as StoreSide, mark_of_dir, mark_of_postgres};
use store::{MemoryBudget, Store};

use super::{MigrateError, Progress, To};
use crate::config::Config;
use crate::service::{history_config, postgres_config, store_config};

type Result<T> = std::result::Result<T, MigrateError>;

/// A commit of many rows may take its time.
const HOLD: Duration = Duration::from_secs(600);
/// A hundred years.
const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 86_400);
/// What else of `data_dir` belongs to the data that is set aside.
const OTHERS: [&str; 4] = ["directory.db", "directory.db-wal", "directory.db-shm", "history"];
/// The schemas of PostgreSQL that are.
const SCHEMAS: [&str; 3] = ["store", "directory", "history"];

/// One engine's data.
pub(super) struct Side {
    pub(super) store: StoreSide,
    pub(super) directory: directory::transfer::Side,
    pub(super) history: History,
    /// What it is called when something is told of it.
    pub(super) name: String,
}

/// Both.
pub(super) struct Sides {
    pub(super) source: Side,
    pub(super) target: Side,
    /// The transfer's name.
    pub(super) name: String,
    pub(super) to: To,
    pub(super) data_dir: PathBuf,
}

/// What the two sides are marked with, before they are opened.
struct Marks {
    source: Option<Mark>,
    target: Option<Mark>,
}

impl Marks {
    async fn read(config: &Config, pool: &Pool, to: To) -> Result<Self> {
        let (dir, tables) = (mark_of_dir(&config.data_dir)?, mark_of_postgres(pool).await?);
        Ok(match to {
            To::Postgres => Self { source: dir, target: tables },
            To::Embedded => Self { source: tables, target: dir },
        })
    }

    /// The transfer that was begun and has not ended, if nobody has worked on the source since.
    fn under_way(&self) -> Option<String> {
        match (&self.source, &self.target) {
            (Some(Mark::Leaving(a) | Mark::Gone(a)), Some(Mark::Arriving(b))) if a == b => Some(a.clone()),
            _ => None,
        }
    }
}

impl Sides {
    /// Opens both sides for a transfer: one that was interrupted, or a new one.
    pub(super) async fn prepare(
        config: &Config,
        to: To,
        clock: &Clock,
        progress: &mut Progress,
    ) -> Result<Self> {
        let pool = connect(config).await?;
        stands_still(&pool, clock).await?;
        let marks = Marks::read(config, &pool, to).await?;
        if let Some(name) = marks.under_way() {
            progress.say(&format!("going on with the migration {name}"));
            return Self::open(config, to, clock, &pool, name, None).await;
        }
        may_leave(config, &pool, to, marks.source.as_ref()).await?;
        let name = name(clock.now());
        let aside = matches!(marks.target, Some(Mark::Gone(_))).then(|| format!("moved_{name}"));
        if let Some(aside) = &aside {
            progress.say(&format!("what has gone from the target earlier is set aside as {aside}"));
        }
        if to == To::Postgres {
            recover(config, clock).await?;
            if let Some(aside) = &aside {
                set_schemas_aside(&pool, aside).await?;
            }
        }
        let aside = aside.filter(|_| to == To::Embedded);
        let sides = Self::open(config, to, clock, &pool, name.clone(), aside.as_deref()).await?;
        if let Some(Mark::Arriving(_)) = marks.target {
            progress.say("the source was used since the last migration was interrupted: it begins anew");
        } else if !sides.target.is_empty().await? {
            return Err(MigrateError::Refused(format!(
                "{} has data of its own: a migration needs a target without any",
                sides.target.name
            )));
        }
        sides.target.store.set_mark(Some(&Mark::Arriving(name.clone()))).await?;
        sides.target.store.clear().await?;
        sides.target.directory.clear().await?;
        sides.source.store.set_mark(Some(&Mark::Leaving(name))).await?;
        // Who started since the first look has seen no mark.
        stands_still(&pool, clock).await?;
        sides.source.store.fence().await?;
        cluster::end_all(&pool).await?;
        sides.tell_all(progress).await?;
        Ok(sides)
    }

    /// Opens both sides as they are, to compare them.
    pub(super) async fn look(config: &Config, to: To, clock: &Clock) -> Result<Self> {
        let pool = connect(config).await?;
        stands_still(&pool, clock).await?;
        if mark_of_postgres(&pool).await?.is_none() && !has_tables(&pool).await? {
            return Err(MigrateError::Refused("there is no data in this PostgreSQL".into()));
        }
        is_dir_with_data(config)?;
        Self::open(config, to, clock, &pool, String::new(), None).await
    }

    async fn open(
        config: &Config,
        to: To,
        clock: &Clock,
        pool: &Pool,
        name: String,
        aside: Option<&str>,
    ) -> Result<Self> {
        let data_dir = config.data_dir.clone();
        // Nothing is dropped while it is carried.
        let kept = ::history::Config { keep: FOR_EVER, ..history_config(config) };
        let embedded = Side {
            store: StoreSide::files(&data_dir, aside.map(|name| (name, &OTHERS[..])))?,
            directory: directory::transfer::Side::file(&data_dir)?,
            history: History::open(&data_dir, kept.clone(), clock.clone())?,
            name: data_dir.display().to_string(),
        };
        let never = Arc::new(|| false);
        let tables = Side {
            store: StoreSide::tables(pool.clone(), clock.now()).await?,
            directory: directory::transfer::Side::tables(pool.clone()).await?,
            history: History::open_postgres(pool.clone(), 0, kept, never, clock.clone()).await?,
            name: "PostgreSQL".to_owned(),
        };
        let (source, target) = match to {
            To::Postgres => (embedded, tables),
            To::Embedded => (tables, embedded),
        };
        Ok(Self { source, target, name, to, data_dir })
    }

    /// Brings what the source has in its outboxes into its history.
    async fn tell_all(&self, progress: &mut Progress) -> Result<()> {
        let source = &self.source;
        let mut told = 0;
        while let Some((node, events)) = source.store.outbox().await? {
            let Some(last) = events.last().map(|(number, _)| *number) else { break };
            told += events.len();
            match self.to {
                To::Postgres => source.history.append(events).await?,
                To::Embedded => source.history.append_of(node, events).await?,
            }
            source.store.outbox_done(node, last).await?;
            progress.at(|| format!("history: {told} events that were still on their way"));
        }
        Ok(())
    }

    pub(super) async fn close(&self) {
        self.source.history.close().await;
        self.target.history.close().await;
    }
}

impl Side {
    async fn is_empty(&self) -> Result<bool> {
        Ok(self.store.is_empty().await?
            && self.directory.is_empty().await?
            && self.history.export(None, 1).await?.is_empty())
    }
}

async fn connect(config: &Config) -> Result<Pool> {
    if config.store.url.is_none() {
        return Err(MigrateError::Refused(
            "the configuration does not say where PostgreSQL is: set store.url or store.url_file".into(),
        ));
    }
    let application_name = "posthouse migrate".to_owned();
    let config = postgres::Config { hold: HOLD, application_name, ..postgres_config(config) };
    Ok(Pool::connect(config).await?)
}

/// No node of a cluster works on the database.
async fn stands_still(pool: &Pool, clock: &Clock) -> Result<()> {
    let alive = cluster::beating(pool, clock).await?;
    let names: Vec<&str> = alive.iter().map(|node| &*node.name).collect();
    if names.is_empty() {
        Ok(())
    } else {
        Err(MigrateError::Running(format!("node {} is running", names.join(", "))))
    }
}

/// Whether the source has something that may be carried away.
async fn may_leave(config: &Config, pool: &Pool, to: To, mark: Option<&Mark>) -> Result<()> {
    match mark {
        None | Some(Mark::Leaving(_)) => {}
        Some(Mark::Gone(name)) => {
            return Err(MigrateError::Refused(format!(
                "what was in the source has been migrated already ({name}): to compare both sides say --verify"
            )));
        }
        Some(Mark::Arriving(name)) => {
            return Err(MigrateError::Refused(format!(
                "the migration {name} to here has not been finished: finish it, or remove what has arrived"
            )));
        }
    }
    match to {
        To::Postgres => is_dir_with_data(config),
        To::Embedded if has_tables(pool).await? => Ok(()),
        To::Embedded => Err(MigrateError::Refused("there is no data in this PostgreSQL".into())),
    }
}

fn is_dir_with_data(config: &Config) -> Result<()> {
    if config.data_dir.join("queue.db").exists() {
        return Ok(());
    }
    Err(MigrateError::Refused(format!("there is no data in {}", config.data_dir.display())))
}

async fn has_tables(pool: &Pool) -> Result<bool> {
    let there = "SELECT to_regclass('store.message') IS NOT NULL";
    Ok(pool.read(|s| async move { Ok(s.query_one(there, &[]).await?.get(0)) }).await?)
}

/// Has the embedded store recover as at every start: what was under way waits, what is damaged is known.
async fn recover(config: &Config, clock: &Clock) -> Result<()> {
    let kept = store_config(config, MemoryBudget::new(config.limits.memory));
    let (store, _) = Store::open(kept, clock.clone()).map_err(|error| match error {
        store::StoreError::Locked { .. } => MigrateError::Running(error.to_string()),
        other => other.into(),
    })?;
    Ok(store.close().await?)
}

/// Gives the schemas of data that has gone other names.
async fn set_schemas_aside(pool: &Pool, name: &str) -> Result<()> {
    let mut sql = String::new();
    for schema in SCHEMAS {
        // One that another version made may not have all of them.
        sql += &format!(
            "DO $$ BEGIN IF to_regnamespace('{schema}') IS NOT NULL THEN \
             ALTER SCHEMA {schema} RENAME TO {schema}_{name}; END IF; END $$; \
             DELETE FROM posthouse_schema WHERE name = '{schema}';"
        );
    }
    let sql = &sql;
    let done = pool.commit(|tx| async move { tx.batch(sql).await }).await;
    done.map_err(|error| MigrateError::Refused(format!("the old tables could not be set aside: {error}")))
}

/// A name for a transfer: when it began.
fn name(now: Timestamp) -> String {
    let at = jiff::Timestamp::from_millisecond(now.0).unwrap_or_default();
    at.strftime("%Y%m%dt%H%M%S").to_string()
}

/// The file of the keys of return paths.
pub(super) fn keys_file(data_dir: &Path) -> PathBuf {
    data_dir.join("forward.keys")
}
