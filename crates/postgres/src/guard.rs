//! The guard: a server that could lose what it acknowledged is refused.

use crate::connect::Settings;
use crate::{Durability, PgError};

/// The oldest server we know how to use: 140000 is version 14.
const VERSION_MIN: u32 = 140_000;

/// Whether we know how to use a server of this version, as in `150008`.
pub(crate) fn version(version: u32) -> Result<(), PgError> {
    if version < VERSION_MIN {
        return Err(refused("server_version_num", &version.to_string(), "version 14 or later is needed"));
    }
    Ok(())
}

/// Whether mail may be stored in a server with these settings.
pub(crate) fn check(settings: &Settings, durability: Durability) -> Result<(), PgError> {
    let level = settings.synchronous_commit.as_str();
    if durability == Durability::Provider {
        // How it is kept is theirs to say, but with this one even they have not got it yet.
        if level == "off" {
            return Err(refused("synchronous_commit", level, "set it to on"));
        }
        return Ok(());
    }
    for (setting, value) in [("fsync", &settings.fsync), ("full_page_writes", &settings.full_page_writes)] {
        if value != "on" {
            return Err(refused(setting, value, "set it to on, or say durability = \"provider\""));
        }
    }
    if !matches!(level, "on" | "remote_apply") {
        return Err(refused(
            "synchronous_commit",
            level,
            "set it to on (for the server, the database and the role)",
        ));
    }
    standby_names(&settings.standby_names, durability)
}

/// Whether commits wait for a standby.
pub(crate) fn standby_names(value: &str, durability: Durability) -> Result<(), PgError> {
    if durability == Durability::Checked && value.trim().is_empty() {
        return Err(refused(
            "synchronous_standby_names",
            value,
            "commits wait for no standby; set it (with Patroni: synchronous_mode and synchronous_mode_strict), \
             or say durability = \"provider\"",
        ));
    }
    Ok(())
}

fn refused(setting: &str, value: &str, advice: &str) -> PgError {
    PgError::Unsafe { setting: setting.to_owned(), value: value.to_owned(), advice: advice.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Settings {
        Settings {
            fsync: "on".to_owned(),
            full_page_writes: "on".to_owned(),
            synchronous_commit: "on".to_owned(),
            standby_names: "ANY 1 (a,b)".to_owned(),
        }
    }

    fn refuses(settings: &Settings, durability: Durability) -> Option<String> {
        match check(settings, durability) {
            Ok(()) => None,
            Err(PgError::Unsafe { setting, .. }) => Some(setting),
            Err(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn each_unsafe_setting_is_named() {
        use Durability::{Checked, Provider};
        assert_eq!(refuses(&good(), Checked), None);
        let off = || "off".to_owned();
        let cases: [(Settings, &str, bool); 6] = [
            (Settings { fsync: off(), ..good() }, "fsync", false),
            (Settings { full_page_writes: off(), ..good() }, "full_page_writes", false),
            (Settings { synchronous_commit: off(), ..good() }, "synchronous_commit", true),
            (Settings { synchronous_commit: "local".to_owned(), ..good() }, "synchronous_commit", false),
            (
                Settings { synchronous_commit: "remote_write".to_owned(), ..good() },
                "synchronous_commit",
                false,
            ),
            (Settings { standby_names: " ".to_owned(), ..good() }, "synchronous_standby_names", false),
        ];
        for (settings, setting, also_provider) in cases {
            assert_eq!(refuses(&settings, Checked).as_deref(), Some(setting));
            assert_eq!(refuses(&settings, Provider).is_some(), also_provider, "{setting}");
        }
        assert_eq!(
            refuses(&Settings { synchronous_commit: "remote_apply".to_owned(), ..good() }, Checked),
            None
        );
        assert!(version(130_012).is_err() && version(140_000).is_ok());
    }
}
