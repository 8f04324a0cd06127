//! Who the relay is once its ports are bound.

use super::ServeError;
use crate::config::Config;

/// Becomes `user` and `group`, once the ports are bound.
pub(super) fn become_user(config: &Config) -> Result<(), ServeError> {
    if config.user.is_empty() {
        return Ok(());
    }
    let fail = |reason: String| ServeError::User { user: config.user.clone(), reason };
    if !nix::unistd::geteuid().is_root() {
        let name = nix::unistd::User::from_uid(nix::unistd::geteuid()).ok().flatten().map(|u| u.name);
        if name.as_deref() == Some(config.user.as_str()) {
            return Ok(());
        }
        return Err(fail("only root can; start it as root or as that user".into()));
    }
    give_away(config).map_err(|error| fail(format!("data_dir: {error}")))?;
    let mut drop = privdrop::PrivDrop::default().user(&config.user);
    if !config.group.is_empty() {
        drop = drop.group(&config.group);
    }
    drop.apply().map_err(|error| fail(error.to_string()))?;
    tracing::info!(user = %config.user, "privileges dropped");
    Ok(())
}

/// A data directory that is made on first start belongs to the user that the relay becomes.
fn give_away(config: &Config) -> std::io::Result<()> {
    if config.data_dir.exists() {
        return Ok(());
    }
    let no_such =
        || std::io::Error::new(std::io::ErrorKind::NotFound, "there is no such user on this machine");
    let user = nix::unistd::User::from_name(&config.user)?.ok_or_else(no_such)?;
    std::fs::create_dir_all(&config.data_dir)?;
    nix::unistd::chown(&config.data_dir, Some(user.uid), Some(user.gid))?;
    std::fs::set_permissions(&config.data_dir, std::os::unix::fs::PermissionsExt::from_mode(0o700))
}
