//! Aliases, rewriting, SRS and return paths, from configuration and directory; and the keys that they sign with.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;

use directory::Snapshot;
use directory::Source as Kept;
use directory::rule::{Alias, Entry, Rewrite, RewriteOf};
use forward::{Keys, ReturnPaths, Rewriter, Rules, Srs, SrsPolicy};
use mail::OrgId;

use super::Forwarding;
use crate::config::Config;

/// The file of the keys, in `data_dir`.
const KEYS: &str = "forward.keys";

/// What is done to envelopes by this configuration and directory.
///
/// # Errors
/// In words, about a rule or a domain.
pub(super) fn forwarding(config: &Config, directory: &Snapshot, keys: &Keys) -> Result<Forwarding, String> {
    let wanted = |domain: &str| (!domain.is_empty()).then(|| domain.to_owned());
    let srs = match wanted(&config.forward.srs_domain) {
        Some(domain) => {
            let srs = Srs::new(&domain, keys.clone()).map_err(|e| format!("forward.srs_domain: {e}"))?;
            Some(SrsPolicy::new(srs))
        }
        None => None,
    };
    let returns = match wanted(&config.forward.bounce_domain) {
        Some(domain) => {
            let paths = ReturnPaths::new(&domain, keys.clone());
            Some(Arc::new(paths.map_err(|e| format!("forward.bounce_domain: {e}"))?))
        }
        None => None,
    };
    Ok(Forwarding { rewriter: rewriter(config, directory)?, srs, returns })
}

/// Aliases and rewriting of file and directory.
///
/// # Errors
/// In words, about a rule.
pub(crate) fn rewriter(config: &Config, directory: &Snapshot) -> Result<Rewriter, String> {
    // A rule of an organisation that is gone is nobody's.
    let org = |name: &Option<String>| -> Option<Option<OrgId>> {
        match name {
            None => Some(None),
            Some(name) => directory.org_named(name).map(|org| Some(org.id)),
        }
    };
    let (depth, recipients) = (config.forward.alias_depth, config.forward.alias_recipients);
    let mut rules = Rules { depth, recipients, ..Rules::default() };
    for entry in directory.rules::<Alias>() {
        let Some(org) = org(&entry.rule.org) else { continue };
        let alias = forward::Alias::parse(&entry.rule.from, &entry.rule.to, org);
        rules.aliases.extend(usable("alias", entry, alias)?);
    }
    for entry in directory.rules::<Rewrite>() {
        let Some(org) = org(&entry.rule.org) else { continue };
        let of = |which| entry.rule.of.contains(&which);
        let (recipients, senders) = (of(RewriteOf::Recipient), of(RewriteOf::Sender));
        let rewrite =
            forward::Rewrite::parse(&entry.rule.pattern, &entry.rule.replace, recipients, senders, org);
        rules.rewrites.extend(usable("rewrite", entry, rewrite)?);
    }
    Rewriter::compile(rules).map_err(|error| error.to_string())
}

/// A rule of the file that can't be used is an error, which whoever wrote it sees at once. One of the directory is passed over:
/// the others must go on.
fn usable<R, T>(
    kind: &str,
    entry: &Entry<R>,
    made: Result<T, forward::RuleError>,
) -> Result<Option<T>, String> {
    match made {
        Ok(made) => Ok(Some(made)),
        Err(error) if entry.kept == Kept::Config => Err(format!("{kind} {}: {error}", entry.id)),
        Err(error) => {
            tracing::error!(kind, id = %entry.id, %error, "a rule of the directory can't be used; mend or remove it");
            Ok(None)
        }
    }
}

/// The name of the keys among what all nodes of a cluster share.
const SHARED: &str = "forward.keys";

/// The keys that all nodes of a cluster share; made on first use.
///
/// # Errors
/// In words: the directory can't be asked, or holds something else.
pub(super) async fn shared_keys(directory: &directory::Directory) -> Result<Keys, String> {
    let at_fault = |error: &dyn std::fmt::Display| format!("the keys of return paths: {error}");
    let new = Keys::make().map_err(|error| at_fault(&error))?;
    let kept = directory.shared_secret(SHARED, || new.to_text().into_bytes()).await;
    let text =
        String::from_utf8(kept.map_err(|error| at_fault(&error))?).map_err(|error| at_fault(&error))?;
    Keys::parse(&text).map_err(|error| at_fault(&error))
}

/// The keys in `data_dir`; made on first use. Nobody else may read them.
///
/// # Errors
/// In words: the file can't be read or written, or holds something else.
pub(super) fn keys(data_dir: &Path) -> Result<Keys, String> {
    let path = data_dir.join(KEYS);
    let at_fault = |error: std::io::Error| format!("{}: {error}", path.display());
    let there = match std::fs::read_to_string(&path) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(at_fault(error)),
    };
    let (keys, new) =
        Keys::load_or_make(there.as_deref()).map_err(|error| format!("{}: {error}", path.display()))?;
    if let Some(text) = new {
        let unfinished = path.with_extension("keys.new");
        let mut options = std::fs::OpenOptions::new();
        let mut file = options
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&unfinished)
            .map_err(at_fault)?;
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(at_fault)?;
        std::fs::rename(&unfinished, &path).map_err(at_fault)?;
        std::fs::File::open(data_dir).and_then(|dir| dir.sync_all()).map_err(at_fault)?;
    }
    Ok(keys)
}
