//! The file of a refresh token: read at each use, and replaced as a whole when the provider hands out a new one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::Path;

use smtp::sasl::Password;

/// Refresh tokens have some 100 to 2,000 octets.
const TOKEN_MAX: u64 = 64 << 10;

/// What stands in the file; white space around it does not count.
pub(super) async fn read(path: &Path) -> io::Result<Password> {
    let path = path.to_owned();
    blocking(move || {
        let mut text = String::new();
        File::open(&path)?.take(TOKEN_MAX).read_to_string(&mut text)?;
        let token = text.trim();
        if token.is_empty() || token.contains(|c: char| c.is_control()) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "there is no refresh token in it"));
        }
        Ok(Password(token.to_owned()))
    })
    .await
}

/// Puts a new token in the place of the old one: whatever happens, one of them is there as a whole.
pub(super) async fn replace(path: &Path, token: &Password) -> io::Result<()> {
    let (path, token) = (path.to_owned(), token.clone());
    blocking(move || {
        // A link keeps leading to the file that it led to.
        let path = fs::canonicalize(&path)?;
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let mut fresh = std::ffi::OsString::from(".");
        fresh.push(name);
        fresh.push(".new");
        let fresh = folder.join(fresh);
        let made = write_beside(&path, &fresh, &token).and_then(|()| fs::rename(&fresh, &path));
        if made.is_err() {
            // Left behind it would only confuse; the error that counts is the first one.
            let _ = fs::remove_file(&fresh);
            return made;
        }
        File::open(folder)?.sync_all()
    })
    .await
}

fn write_beside(path: &Path, fresh: &Path, token: &Password) -> io::Result<()> {
    let old = fs::metadata(path)?;
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(fresh)?;
    // As it was, but never open to everybody.
    file.set_permissions(fs::Permissions::from_mode(old.permissions().mode() & 0o770))?;
    // `check` may be run by root, and the relay still has to read it. Others cannot give a file away, and need not.
    if let Err(error) = fchown(&file, Some(old.uid()), Some(old.gid())) {
        tracing::debug!(%error, path = %path.display(), "the file has a new owner");
    }
    file.write_all(token.0.as_bytes())?;
    file.write_all(b"\n")?;
    file.sync_all()
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}
