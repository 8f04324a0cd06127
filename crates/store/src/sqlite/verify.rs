//! Reading everything once and comparing it with its checksums.

use super::{Shared, read, sums};
use crate::content::ContentRef;
use crate::error::StoreError;
use crate::model::{Damage, VerifyReport};

/// Messages looked at in one transaction.
const PAGE: i64 = 500;

pub(crate) fn run(shared: &Shared) -> Result<VerifyReport, StoreError> {
    // Files stay where they are meanwhile.
    let _keep = shared.keep_files.read();
    let mut report = VerifyReport { database: integrity(shared)?, ..VerifyReport::default() };
    let mut after = i64::MIN;
    loop {
        let contents = shared.read_now(|conn| read::contents(conn, after, PAGE))?;
        let Some(last) = contents.last() else { return Ok(report) };
        after = last.message.0.cast_signed();
        for at in &contents {
            look_at(shared, at, &mut report)?;
        }
        shared.health.check()?;
        if shared.inbox.is_closed() {
            return Err(StoreError::Closed);
        }
    }
}

fn look_at(shared: &Shared, at: &ContentRef, report: &mut VerifyReport) -> Result<(), StoreError> {
    let damaged = match shared.segments.read(at) {
        Ok(Some(_)) => None,
        // Delivered while we looked, unless its row is still there.
        Ok(None) => shared
            .read_now(|conn| read::locate(conn, at.message))?
            .is_some_and(|now| now == *at)
            .then(|| "its content file is gone".to_owned()),
        Err(StoreError::Damaged { reason, .. }) => Some(reason),
        Err(error) => return Err(error),
    };
    report.messages += 1;
    report.bytes += at.length;
    report.damaged.extend(damaged.map(|reason| Damage { message: at.message, reason }));
    Ok(())
}

/// SQLite's own check of the database.
fn integrity(shared: &Shared) -> Result<Vec<String>, StoreError> {
    shared.read_now(|conn| {
        let found = conn
            .prepare("PRAGMA integrity_check(100)")?
            .query_map([], |row| row.get::<_, String>(0))?
            .collect::<rusqlite::Result<Vec<_>>>()?;
        let mut wrong: Vec<String> = found.into_iter().filter(|line| line != "ok").collect();
        wrong.extend(sums::check(conn)?);
        Ok(wrong)
    })
}
