//! Secrets that the nodes share beside what the directory is about, such as the keys of signed return paths: the first
//! node to ask makes one, and all others read it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use rusqlite::params;

use crate::directory::{Directory, Engine};
use crate::error::DirectoryError;
use crate::schema::sqlite;
use crate::server;

/// In front of their names: the directory keeps a secret of its own in the same table.
const PREFIX: &str = "shared:";

/// Makes it, if nobody has. It writes in any case: what another node has made a moment ago is then known to be kept, as
/// this commit waits behind it.
pub(crate) const KEEP: &str = "INSERT INTO directory.secret (name, value) VALUES ($1, $2) \
    ON CONFLICT (name) DO UPDATE SET value = directory.secret.value RETURNING value";

/// Has it be this.
pub(crate) const SET: &str = "INSERT INTO directory.secret (name, value) VALUES ($1, $2) \
    ON CONFLICT (name) DO UPDATE SET value = excluded.value RETURNING value";

/// The name that it has in the table.
pub(crate) fn full(name: &str) -> String {
    format!("{PREFIX}{name}")
}

pub(crate) fn encode(secret: &[u8]) -> String {
    BASE64.encode(secret)
}

pub(crate) fn decode(text: &str) -> Result<Vec<u8>, DirectoryError> {
    BASE64.decode(text).map_err(|e| DirectoryError::Damaged {
        place: "a shared secret in the directory".into(),
        what: e.to_string(),
    })
}

impl Directory {
    /// The secret of this name. Where there is none yet, it is what `make` makes: of several nodes that ask at the same
    /// time, one has its own, and the others have that.
    ///
    /// # Errors
    /// The disk or the database; [`DirectoryError::Damaged`].
    pub async fn shared_secret(
        &self,
        name: &str,
        make: impl FnOnce() -> Vec<u8>,
    ) -> Result<Vec<u8>, DirectoryError> {
        let (name, made) = (full(name), encode(&make()));
        let text = match self.engine() {
            Engine::Sqlite => {
                self.read(move |db| {
                    let kept =
                        db.query_row(&sqlite(KEEP), params![name, made], |row| row.get::<_, String>(0));
                    Ok(kept?)
                })
                .await?
            }
            Engine::Postgres { pool, .. } => server::kept(pool, KEEP, &name, &made).await?,
        };
        decode(&text)
    }
}
