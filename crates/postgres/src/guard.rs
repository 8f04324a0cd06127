//! The guard: a server that could lose what it acknowledged is refused.

use crate::connect::Facts;
use crate::{Durability, PgError};

/// The oldest server we know how to use: 140000 is version 14.
const VERSION_MIN: u32 = 140_000;

/// Whether mail may be stored in a server with these settings.
pub(crate) fn check(facts: &Facts, durability: Durability) -> Result<(), PgError> {
    if facts.version < VERSION_MIN {
        return Err(refused("server_version_num", &facts.version.to_string(), "version 14 or later is needed"));
    }
    let level = facts.synchronous_commit.as_str();
    if durability == Durability::Provider {
        // How it is kept is theirs to say, but with this one even they have not got it yet.
        if level == "off" {
            return Err(refused("synchronous_commit", level, "set it to on"));
        }
        return Ok(());
    }
    for (setting, value) in [("fsync", &facts.fsync), ("full_page_writes", &facts.full_page_writes)] {
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
    standby_names(&facts.standby_names, durability)
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

    fn good() -> Facts {
        Facts {
            standby: false,
            read_only: false,
            timeline: 1,
            started: String::new(),
            version: 150_000,
            fsync: "on".to_owned(),
            full_page_writes: "on".to_owned(),
            synchronous_commit: "on".to_owned(),
            standby_names: "ANY 1 (a,b)".to_owned(),
        }
    }

    fn refuses(facts: &Facts, durability: Durability) -> Option<String> {
        match check(facts, durability) {
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
        let cases: [(Facts, &str, bool); 7] = [
            (Facts { fsync: off(), ..good() }, "fsync", false),
            (Facts { full_page_writes: off(), ..good() }, "full_page_writes", false),
            (Facts { synchronous_commit: off(), ..good() }, "synchronous_commit", true),
            (Facts { synchronous_commit: "local".to_owned(), ..good() }, "synchronous_commit", false),
            (Facts { synchronous_commit: "remote_write".to_owned(), ..good() }, "synchronous_commit", false),
            (Facts { standby_names: " ".to_owned(), ..good() }, "synchronous_standby_names", false),
            (Facts { version: 130_012, ..good() }, "server_version_num", true),
        ];
        for (facts, setting, also_provider) in cases {
            assert_eq!(refuses(&facts, Checked).as_deref(), Some(setting));
            assert_eq!(refuses(&facts, Provider).is_some(), also_provider, "{setting}");
        }
        assert_eq!(refuses(&Facts { synchronous_commit: "remote_apply".to_owned(), ..good() }, Checked), None);
    }
}
