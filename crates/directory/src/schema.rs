//! The tables, step by step, in the subset of SQL that SQLite and PostgreSQL share.

/// Each file is one step; a step that has been released is never changed.
pub(crate) const MIGRATIONS: &[&str] = &[
    include_str!("migrations/0001.sql"),
    include_str!("migrations/0002.sql"),
    include_str!("migrations/0003.sql"),
];

/// What stands behind texts that are compared or sorted by. SQLite compares octets, and so must PostgreSQL: the rules of a
/// language change with the system's library, and an index that was made by other rules finds nothing any more.
const BY_OCTETS: &str = "/* by octets */";

/// The same steps for PostgreSQL.
pub(crate) fn for_postgres() -> Vec<String> {
    MIGRATIONS.iter().map(|step| step.replace(BY_OCTETS, "COLLATE \"C\"")).collect()
}
