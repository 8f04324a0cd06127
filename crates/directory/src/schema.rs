//! The tables, step by step, and what is different about SQL on the two engines: the name of a schema, which only
//! PostgreSQL has, and how texts are compared.

/// Each file is one step; a step that has been released is never changed.
const MIGRATIONS: &[&str] = &[
    include_str!("migrations/0001.sql"),
    include_str!("migrations/0002.sql"),
    include_str!("migrations/0003.sql"),
];

/// What stands before the name of a table: on PostgreSQL others have tables in the same database.
const SCHEMA: &str = "directory.";
const MAKE_SCHEMA: &str = "CREATE SCHEMA IF NOT EXISTS directory;\n";

/// What stands behind texts that are compared or sorted by. SQLite compares octets, and so must PostgreSQL: the rules of a
/// language change with the system's library, and an index that was made by other rules finds nothing any more.
const BY_OCTETS: &str = "/* by octets */";

/// The steps for PostgreSQL.
pub(crate) fn for_postgres() -> Vec<String> {
    let mut steps: Vec<String> =
        MIGRATIONS.iter().map(|step| step.replace(BY_OCTETS, "COLLATE \"C\"")).collect();
    if let Some(first) = steps.first_mut() {
        first.insert_str(0, MAKE_SCHEMA);
    }
    steps
}

/// The steps for SQLite.
pub(crate) fn for_sqlite() -> Vec<String> {
    MIGRATIONS.iter().map(|step| sqlite(step)).collect()
}

/// A statement for SQLite. Values never stand in its text.
pub(crate) fn sqlite(sql: &str) -> String {
    sql.replace(SCHEMA, "")
}
