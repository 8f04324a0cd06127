//! Real mail programs and name servers, each in a directory of its own on loopback, so that nothing of the machine's own
//! set-up is read or changed.
//!
//! `cargo xtask test` installs them and sets `POSTHOUSE_STRICT`: a scenario that misses one fails and says why. Without that,
//! as under a bare `cargo nextest run`, it says why and passes.

pub mod dns;
pub mod dovecot;
pub mod exim;
pub mod lan;
pub mod namespace;
pub mod opensmtpd;
pub mod patroni;
pub mod pebble;
pub mod postfix;
pub mod postgres;
pub mod postgrey;
pub mod signed;
pub mod submitters;

use std::path::PathBuf;

/// Where `cargo xtask test` keeps the neighbours that are not installed as packages.
pub fn cache() -> PathBuf {
    if let Some(path) = std::env::var_os("POSTHOUSE_NEIGHBOURS") {
        return path.into();
    }
    PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/root".into()))
        .join(".cache/posthouse/neighbours")
}

/// Says that a scenario is skipped and why; fails it under `POSTHOUSE_STRICT`.
pub fn skip(why: &str) {
    assert!(std::env::var_os("POSTHOUSE_STRICT").is_none(), "this scenario cannot run here: {why}");
    eprintln!("SKIPPED: {why}");
}

/// Where a program is, looked for in PATH, in sbin and in the cache.
pub fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let extracted = ["usr/sbin", "usr/bin"].map(|d| cache().join("root").join(d));
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/local/bin"].map(PathBuf::from))
        .chain(extracted)
        .map(|dir| dir.join(name))
        .find(|p| p.is_file())
}

/// What is missing of `needs`: `root`, `mounts`, `aiosmtpd`, `nodemailer`, `postgres`, `patroni`, or the name of a
/// program.
pub fn missing(needs: &[&str]) -> Option<String> {
    let gone: Vec<String> = needs
        .iter()
        .filter_map(|need| {
            let here = match *need {
                "root" => nix::unistd::geteuid().is_root(),
                "mounts" => return crate::disk::can_mount().err(),
                "aiosmtpd" => python().exists(),
                "postgres" => postgres::programs().is_some(),
                "patroni" => cache().join("venv/bin/patroni").exists(),
                "nodemailer" => {
                    cache().join("node/node_modules/nodemailer").is_dir() && program("node").is_some()
                }
                name => program(name).is_some(),
            };
            (!here).then(|| (*need).to_owned())
        })
        .collect();
    (!gone.is_empty()).then(|| format!("not here: {}", gone.join(", ")))
}

/// Returns from the scenario, saying so, when something it needs is not on this machine.
#[macro_export]
macro_rules! needs {
    ($($need:expr),+ $(,)?) => {
        if let Some(why) = $crate::neighbours::missing(&[$($need),+]) {
            return $crate::neighbours::skip(&why);
        }
    };
}

/// The Python that has aiosmtpd.
pub fn python() -> PathBuf {
    cache().join("venv/bin/python")
}
