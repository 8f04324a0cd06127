//! `posthouse audit`: who changed what.

use std::collections::BTreeSet;

use api::types::{AuditEntry, AuditQuery};
use clap::Subcommand;
use directory::rule::Suspension;
use serde::Deserialize as _;
use serde_json::Value;

use super::accounts::show;
use super::context::{CliError, Context};
use super::output;
use super::trace::time;

#[derive(Debug, Subcommand)]
pub(super) enum AuditCommand {
    /// List what was changed and done to the queue, newest first.
    List {
        /// At or after this time (2026-11-24T07:00:00Z), or so long ago (2h).
        #[arg(long, value_name = "TIME", value_parser = time)]
        since: Option<String>,
        /// By someone whose name holds this.
        #[arg(long, value_name = "WHO")]
        by: Option<String>,
        /// To this kind of thing: organisation, credential, route, source, suspension, queue, …
        #[arg(long, value_name = "KIND")]
        what: Option<String>,
        /// To the thing of this name.
        #[arg(long)]
        name: Option<String>,
        /// At most so many; 0 is all.
        #[arg(long, default_value_t = 100)]
        limit: usize,
    },
}

pub(super) fn audit(context: &Context, command: AuditCommand) -> Result<(), CliError> {
    let json = context.json;
    let AuditCommand::List { since, by, what, name, limit } = command;
    let query = AuditQuery { since, by, what, name, ..AuditQuery::default() };
    context.with_data(async |client| {
        let mut entries: Vec<AuditEntry> = Vec::new();
        let more = client.pages("/api/audit", &query, limit, |part| entries.extend(part)).await?;
        show(json, entries, false, &["AT", "BY", "ACTION", "WHAT", "NAME", "DETAIL"], |e| {
            vec![e.at.clone(), e.by.clone(), e.action.clone(), e.what.clone(), e.name.clone(), detail(e)]
        });
        if more {
            output::note(&format!("there are more than {limit}; see all with --limit 0"));
        }
        Ok(())
    })
}

/// Keys that say nothing of what was changed, or that another column shows.
const LEFT_OUT: [&str; 9] =
    ["id", "name", "login", "address", "created", "since", "by", "generation", "generated"];

/// What a change changed, in a line.
fn detail(entry: &AuditEntry) -> String {
    if entry.what == "queue" {
        return of_queue(entry.after.as_ref().unwrap_or(&Value::Null));
    }
    match (&entry.before, &entry.after) {
        (Some(before), Some(after)) => difference(before, after),
        (before, after) => {
            let Some(it) = after.as_ref().or(before.as_ref()) else { return "-".into() };
            let suspension = (entry.what == "suspension").then(|| Suspension::deserialize(it).ok()).flatten();
            suspension.map_or_else(|| said(&entry.what, it), |it| of_suspension(&it))
        }
    }
}

/// What was suspended, until when, and why.
fn of_suspension(it: &Suspension) -> String {
    let until = it.until.map_or_else(|| "it is resumed".to_owned(), |until| until.to_string());
    let why = if it.reason.is_empty() { String::new() } else { format!(": {}", it.reason) };
    format!("{}, until {until}{why}", it.scope())
}

/// How many deliveries, and what was said about it.
fn of_queue(done: &Value) -> String {
    let changed = done["changed"].as_u64().unwrap_or_default();
    let mut words = format!("{changed} {}", if changed == 1 { "delivery" } else { "deliveries" });
    if let Some(to) = done["to"].as_str() {
        words.push_str(&format!(" to {to}"));
    }
    if let Some(reason) = done["reason"].as_str() {
        words.push_str(&format!(": {reason}"));
    }
    words
}

/// All that is not as it would be without a word.
fn said(what: &str, it: &Value) -> String {
    // Where these are kept is no choice of whoever added them; where a suppression comes from is.
    let kept = |key: &str| key == "source" && what != "suppression";
    let says = |value: &Value| match value {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(all) => !all.is_empty(),
        Value::Object(all) => !all.is_empty(),
        Value::Bool(true) | Value::Number(_) => true,
    };
    let fields = it.as_object().into_iter().flatten();
    let fields = fields.filter(|(key, value)| !LEFT_OUT.contains(&key.as_str()) && !kept(key) && says(value));
    let words: Vec<String> = fields.map(|(key, value)| format!("{key}: {}", text(value))).collect();
    if words.is_empty() { "all as by default".into() } else { words.join(", ") }
}

/// The keys whose values differ.
fn difference(before: &Value, after: &Value) -> String {
    let keys = [after, before].into_iter().filter_map(Value::as_object).flat_map(|fields| fields.keys());
    let counts = |key: &&String| *key != "generation" && before.get(*key) != after.get(*key);
    let changed: BTreeSet<&String> = keys.filter(counts).collect();
    let words: Vec<String> = changed
        .into_iter()
        .map(|key| match (before.get(key), after.get(key)) {
            // Of a secret it is said that there is another one, and no more.
            (None, Some(Value::String(secret))) if key == "replaced" => format!("{key}: {secret}"),
            (old, new) => {
                format!("{key}: {} → {}", old.map_or("-".into(), text), new.map_or("-".into(), text))
            }
        })
        .collect();
    if words.is_empty() { "said as it was".into() } else { words.join(", ") }
}

/// A value in few words.
fn text(value: &Value) -> String {
    let list = |all: Vec<String>| if all.is_empty() { "-".into() } else { all.join(" ") };
    match value {
        Value::Null => "-".into(),
        Value::String(text) if text.is_empty() => "-".into(),
        Value::String(text) => text.clone(),
        Value::Array(all) => list(all.iter().map(text).collect()),
        Value::Object(all) => list(all.iter().map(|(key, value)| format!("{key}={}", text(value))).collect()),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entry(what: &str, before: Option<Value>, after: Option<Value>) -> AuditEntry {
        AuditEntry {
            id: "7".into(),
            at: "2026-11-24T07:00:00Z".into(),
            by: "ann".into(),
            action: "set".into(),
            what: what.into(),
            name: "it".into(),
            before,
            after,
        }
    }

    #[test]
    fn a_suspension_says_what_until_when_and_why() {
        let it = json!({ "org": "acme", "destination": "smarthost:up", "until": "2026-11-24T07:00:00.000Z",
            "reason": "a stolen password", "by": "ann", "since": "2026-11-24T06:00:00.000Z" });
        let words =
            "organisation acme, destination smarthost:up, until 2026-11-24T07:00:00.000Z: a stolen password";
        assert_eq!(detail(&entry("suspension", None, Some(it.clone()))), words);
        assert_eq!(detail(&entry("suspension", Some(it), None)), words);
        let all = json!({ "reason": "", "by": "ann" });
        assert_eq!(detail(&entry("suspension", None, Some(all))), "everything, until it is resumed");
        // One of another version is still shown, if not as well.
        let odd = json!({ "colour": "red" });
        assert_eq!(detail(&entry("suspension", None, Some(odd))), "colour: red");
    }

    #[test]
    fn changes_and_what_was_added_are_told_by_their_keys() {
        let before =
            json!({ "id": 1, "generation": 1, "enabled": true, "sources": { "a": 1 }, "pool": null });
        let after = json!({ "id": 1, "generation": 2, "enabled": false, "sources": { "a": 1, "b": 3 }, "pool": "x",
            "replaced": "password" });
        let words = "enabled: true → false, pool: - → x, replaced: password, sources: a=1 → a=1 b=3";
        assert_eq!(detail(&entry("credential", Some(before.clone()), Some(after))), words);
        let again = json!({ "id": 1, "generation": 2, "enabled": true, "sources": { "a": 1 }, "pool": null });
        assert_eq!(detail(&entry("credential", Some(before.clone()), Some(again))), "said as it was");
        assert_eq!(detail(&entry("credential", None, Some(before))), "enabled: true, sources: a=1");
        let route = json!({ "id": 3, "source": "directory", "domains": ["a.example", "b.example"], "senders": [],
            "to": "mx" });
        assert_eq!(detail(&entry("route", None, Some(route))), "domains: a.example b.example, to: mx");
        assert_eq!(detail(&entry("source", None, Some(json!({ "ehlo": null })))), "all as by default");
    }

    #[test]
    fn the_queue_says_how_many_and_what_was_said() {
        let of = |done: Value| detail(&entry("queue", None, Some(done)));
        assert_eq!(of(json!({ "changed": 1, "reason": "odd", "to": null })), "1 delivery: odd");
        assert_eq!(of(json!({ "changed": 3, "to": "smarthost:up" })), "3 deliveries to smarthost:up");
    }
}
