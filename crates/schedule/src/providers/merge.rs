//! Reading a file of provider data and laying it over what is known.

use std::collections::HashMap;
use std::sync::Arc;

use pattern::{DataError, Table};

use super::Providers;
use super::rule::Rule;
use crate::traffic::{Rate, Traffic};

/// Reads the file's entries into `known`. Its rules go before those that are known, in the file's order.
pub(super) fn lay_over(
    known: &mut Providers,
    root: &mut Table<'_>,
    operators: bool,
) -> Result<(), DataError> {
    if let Some(mut table) = root.table("default")? {
        known.default = take_traffic(&mut table)?.or(known.default);
        table.finish()?;
    }
    for (name, mut table) in root.named("provider")? {
        take_provider(known, &name, &mut table, operators)?;
        table.finish()?;
    }
    let mut rules = Vec::new();
    for mut table in root.tables("reply")? {
        let (name, rule) = Rule::take(&mut table, operators)?;
        let replaced = known.rules.iter().position(|known| known.name == name);
        if let Some(at) = replaced {
            known.rules.remove(at);
        }
        match rule {
            Some(rule) if rules.iter().any(|r: &Arc<Rule>| r.name == rule.name) => {
                return Err(table.error(format!("there are two replies with the name {name:?}")));
            }
            Some(rule) => rules.push(Arc::new(rule)),
            None if replaced.is_none() => {
                return Err(table.error(format!("no reply has the name {name:?}, so it can't be off")));
            }
            None => {}
        }
        table.finish()?;
    }
    rules.append(&mut known.rules);
    known.rules = rules;
    Ok(())
}

fn take_provider(
    known: &mut Providers,
    name: &str,
    table: &mut Table<'_>,
    operators: bool,
) -> Result<(), DataError> {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if name.is_empty() || !name.bytes().all(fits) || name == "default" {
        return Err(
            table.error(format!("{name:?} is no name for a provider: small letters, digits and hyphens"))
        );
    }
    let old = known.providers.get(name).cloned();
    let new = old.is_none();
    let mut provider = old.unwrap_or_default();
    provider.operators |= operators;
    if let Some(title) = table.text("title")? {
        provider.title = title;
    }
    let mx = table.texts("mx")?;
    if !mx.is_empty() {
        provider.mx = mx.iter().map(|host| mx_pattern(host, table)).collect::<Result<_, _>>()?;
    }
    if new && provider.mx.is_empty() {
        return Err(table.error(format!(
            "the provider {name:?} is new and needs `mx`: the names of its mail exchangers"
        )));
    }
    provider.traffic = take_traffic(table)?.or(provider.traffic);
    let sources = table.texts("sources")?;
    let note = table.text("note")?;
    if !sources.is_empty() || note.is_some() {
        (provider.sources, provider.note) = (sources, note.unwrap_or_default());
    }
    if provider.title.is_empty() {
        provider.title = name.to_owned();
    }
    known.providers.insert(name.into(), provider);
    Ok(())
}

/// A host or `*.suffix`, in lower case.
fn mx_pattern(text: &str, table: &Table<'_>) -> Result<String, DataError> {
    let pattern = text.trim_end_matches('.').to_ascii_lowercase();
    let name = pattern.strip_prefix("*.").unwrap_or(&pattern);
    let label =
        |l: &str| !l.is_empty() && l.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    if name.contains('.') && name.split('.').all(label) {
        Ok(pattern)
    } else {
        Err(table.error(format!("{text:?} is no mail exchanger: a host, or \"*.\" and the end of its name")))
    }
}

fn take_traffic(table: &mut Table<'_>) -> Result<Traffic, DataError> {
    Ok(Traffic {
        connections: table.number("connections")?,
        messages_per_connection: table.number("messages_per_connection")?,
        rate: table.parsed("rate", str::parse::<Rate>)?,
        connection_rate: table.parsed("connection_rate", str::parse::<Rate>)?,
    })
}

impl Providers {
    /// Makes what is asked quickly; finds what only shows when everything has been read.
    pub(super) fn index(&mut self, source: &str) -> Result<(), DataError> {
        let text_of =
            |line: usize| source.lines().nth(line.saturating_sub(1)).unwrap_or_default().trim().to_owned();
        (self.hosts, self.suffixes) = (HashMap::new(), HashMap::new());
        for (name, provider) in &self.providers {
            for pattern in &provider.mx {
                let (map, key) = match pattern.strip_prefix("*.") {
                    Some(suffix) => (&mut self.suffixes, suffix),
                    None => (&mut self.hosts, pattern.as_str()),
                };
                let other = map.insert(key.into(), name.clone());
                if let Some(other) = other.filter(|other| other != name) {
                    let at = source.lines().position(|l| l.contains(pattern.as_str())).map_or(1, |i| i + 1);
                    let message = format!("{pattern} is claimed by two providers, {other} and {name}");
                    return Err(DataError { line: at, text: text_of(at), message, help: None });
                }
            }
        }
        let names: Vec<&str> = self.providers.keys().map(|name| &**name).collect();
        for rule in &self.rules {
            if let Some(unknown) = rule.providers.iter().find(|name| !self.providers.contains_key(*name)) {
                return Err(DataError {
                    line: rule.line,
                    text: text_of(rule.line),
                    message: format!(
                        "the reply {:?} speaks of a provider {unknown:?} that nobody described",
                        rule.name
                    ),
                    help: Some(pattern::meant(unknown, &names)),
                });
            }
        }
        let asked_of = |name: Option<&Arc<str>>| -> Vec<Arc<Rule>> {
            // An operator's word first, then what is known of this provider, then what is known of all.
            let of = |rule: &Arc<Rule>| name.is_some_and(|name| rule.providers.contains(name));
            let mut rules: Vec<Arc<Rule>> =
                self.rules.iter().filter(|rule| rule.providers.is_empty() || of(rule)).cloned().collect();
            rules.sort_by_key(|rule| (!rule.operators, rule.providers.is_empty()));
            rules
        };
        let names = self.providers.keys().map(Some).chain(std::iter::once(None));
        self.asked = names.map(|name| (name.cloned(), asked_of(name))).collect();
        Ok(())
    }
}
