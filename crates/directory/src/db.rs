//! What a statement is given and what it answers, the same for SQLite and PostgreSQL: whole numbers and texts. There is one
//! text for both, in the subset that they share; its parameters are `$1`, `$2`, … in the order in which they first appear,
//! its tables are `directory.NAME` (SQLite, which knows no schemas, is given the name alone).

use postgres::types::ToSql;

/// A parameter of a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Int(i64),
    Text(Option<String>),
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Value::Int(number)
    }
}

/// Kept as 0 and 1.
impl From<bool> for Value {
    fn from(is: bool) -> Self {
        Value::Int(i64::from(is))
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Value::Text(Some(text.to_owned()))
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Value::Text(Some(text))
    }
}

impl From<Option<&str>> for Value {
    fn from(text: Option<&str>) -> Self {
        Value::Text(text.map(str::to_owned))
    }
}

impl From<Option<String>> for Value {
    fn from(text: Option<String>) -> Self {
        Value::Text(text)
    }
}

impl Value {
    /// PostgreSQL cannot keep a text with a NUL in it, so that neither engine is given one.
    pub(crate) fn has_nul(&self) -> bool {
        matches!(self, Value::Text(Some(text)) if text.contains('\0'))
    }

    pub(crate) fn for_postgres(&self) -> &(dyn ToSql + Sync) {
        match self {
            Value::Int(number) => number,
            Value::Text(text) => text,
        }
    }
}

impl rusqlite::ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<rusqlite::types::ToSqlOutput<'_>> {
        match self {
            Value::Int(number) => rusqlite::ToSql::to_sql(number),
            Value::Text(text) => rusqlite::ToSql::to_sql(text),
        }
    }
}

/// The parameters of a statement.
macro_rules! values {
    ($($value:expr),* $(,)?) => { vec![$($crate::db::Value::from($value)),*] };
}
pub(crate) use values;

/// A statement that changes something.
#[derive(Clone, Debug)]
pub(crate) struct Write {
    pub(crate) sql: &'static str,
    pub(crate) values: Vec<Value>,
}

/// A row of an answer.
pub(crate) enum Row<'a> {
    Sqlite(&'a rusqlite::Row<'a>),
    Postgres(&'a postgres::Row),
}

/// What a column may hold.
pub(crate) trait Column: rusqlite::types::FromSql + for<'a> postgres::types::FromSql<'a> {}

impl Column for i64 {}
impl Column for String {}
impl Column for Option<String> {}

impl Row<'_> {
    /// Column number `at`, counted from 0.
    pub(crate) fn get<T: Column>(&self, at: usize) -> Result<T, Bad> {
        match self {
            Row::Sqlite(row) => row.get(at).map_err(|e| Bad(e.to_string())),
            Row::Postgres(row) => row.try_get(at).map_err(|e| Bad(e.to_string())),
        }
    }

    /// The same for a text that has to be read further.
    pub(crate) fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(&self, at: usize) -> Result<T, Bad> {
        self.get::<String>(at)?.parse().map_err(|e: T::Err| Bad(e.to_string()))
    }

    /// The same for yes or no.
    pub(crate) fn flag(&self, at: usize) -> Result<bool, Bad> {
        Ok(self.get::<i64>(at)? != 0)
    }
}

/// Why a row is not what was written.
#[derive(Debug)]
pub(crate) struct Bad(pub(crate) String);

impl std::fmt::Display for Bad {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<serde_json::Error> for Bad {
    fn from(e: serde_json::Error) -> Self {
        Bad(e.to_string())
    }
}
