//! The documented reference and the JSON Schema, both written from the types.

use std::fmt::Write as _;

use schemars::generate::SchemaSettings;
use serde_json::Value;

use super::Config;

/// The JSON Schema for editors.
pub fn schema() -> Value {
    let mut schema = SchemaSettings::draft07().into_generator().into_root_schema_for::<Config>().to_value();
    if let Some(object) = schema.as_object_mut() {
        object.insert("title".into(), "Posthouse configuration".into());
    }
    schema
}

/// The schema without references, for walking.
pub(super) fn inline_schema() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|s| s.inline_subschemas = true);
    settings.into_generator().into_root_schema_for::<Config>().to_value()
}

/// The reference as Markdown.
pub fn reference() -> String {
    let schema = inline_schema();
    let mut out = String::from(INTRO);
    let mut sections = Vec::new();
    out.push_str("\n## Top level\n\n");
    for (name, property) in properties(&schema) {
        match section_of(property) {
            Some((kind, inner)) => sections.push((name, kind, property, inner)),
            None => entry(&mut out, name, property),
        }
    }
    for (name, kind, property, inner) in sections {
        let title = match kind {
            Kind::Table => format!("[{name}]"),
            Kind::List => format!("[[{name}]]"),
            Kind::Named => format!("[{name}.NAME]"),
        };
        let _ = write!(out, "## `{title}`\n\n{}\n\n", text(property));
        let prefix = title.trim_matches(['[', ']']);
        entries(&mut out, prefix, inner);
    }
    out.truncate(out.trim_end().len());
    out.push('\n');
    out
}

const INTRO: &str = "# Configuration reference

<!-- Written by `posthouse config reference`; do not edit. -->

One TOML file, given with `--config FILE`. An empty file, or none, is a working relay on loopback. Durations are written
`\"5m\"` (ms, s, m, h, d, w; also `\"1h30m\"`), sizes `\"25MB\"` (B, KB, MB, GB, KiB, MiB, GiB). Paths are relative to the
file. Unknown keys, wrong types and impossible values are errors; `posthouse check` shows them with their place in the file.
`posthouse config schema` writes a JSON Schema for editors, `posthouse config show` what is in force.
";

/// The keys of a table, and behind each table in it the keys of that.
fn entries(out: &mut String, prefix: &str, table: &Value) {
    for (key, property) in properties(table) {
        let name = format!("{prefix}.{key}");
        entry(out, &name, property);
        if let Some((_, inner)) = section_of(property) {
            entries(out, &name, inner);
        }
    }
}

enum Kind {
    Table,
    List,
    Named,
}

fn properties(schema: &Value) -> impl Iterator<Item = (&str, &Value)> {
    schema["properties"].as_object().into_iter().flatten().map(|(k, v)| (k.as_str(), v))
}

/// What kind of section a property is, and the schema of what is in it.
fn section_of(property: &Value) -> Option<(Kind, &Value)> {
    let property = without_null(property);
    if property["properties"].is_object() {
        Some((Kind::Table, property))
    } else if property["items"]["properties"].is_object() {
        Some((Kind::List, &property["items"]))
    } else if property["additionalProperties"]["properties"].is_object() {
        Some((Kind::Named, &property["additionalProperties"]))
    } else {
        None
    }
}

fn without_null(schema: &Value) -> &Value {
    let Some(options) = schema["anyOf"].as_array() else { return schema };
    options.iter().find(|o| o["type"] != "null").unwrap_or(schema)
}

fn text(schema: &Value) -> String {
    schema["description"].as_str().unwrap_or_default().replace('\n', " ")
}

fn entry(out: &mut String, name: &str, schema: &Value) {
    let _ = write!(out, "### `{name}`\n\n{}\n\n", text(schema));
    let _ = write!(out, "- Type: {}\n- Default: {}\n", kind(schema), default(schema));
    if let Some(least) = without_null(schema)["minimum"].as_f64().filter(|least| *least > 0.0) {
        let _ = writeln!(out, "- At least: {least}");
    }
    for (word, description) in words(without_null(schema)) {
        let _ = writeln!(out, "- `\"{word}\"`: {description}");
    }
    out.push('\n');
}

fn words(schema: &Value) -> Vec<(&str, String)> {
    let options = schema["oneOf"].as_array().into_iter().flatten();
    let described = options.filter_map(|o| o["const"].as_str().map(|word| (word, text(o))));
    let bare = schema["enum"].as_array().into_iter().flatten().filter_map(Value::as_str);
    described.chain(bare.map(|word| (word, String::new()))).collect()
}

fn kind(schema: &Value) -> String {
    let options = schema["anyOf"].as_array().into_iter().flatten().filter(|o| o["type"] != "null");
    let kinds: Vec<String> = options.map(kind).collect();
    if kinds.len() > 1 {
        return kinds.join(" or ");
    }
    let schema = without_null(schema);
    let of_type = match &schema["type"] {
        Value::Array(types) => types.first().and_then(Value::as_str),
        one => one.as_str(),
    };
    match (of_type, schema["format"].as_str()) {
        _ if !words(schema).is_empty() => "one of the words below".into(),
        (Some("string"), Some("secret") | None) => "text".into(),
        (Some("string"), Some(format)) => format.into(),
        (Some("boolean"), _) => "true or false".into(),
        (Some("integer"), _) => "whole number".into(),
        (Some("array"), _) => {
            format!("list of {}", kind(&schema["items"]).replace("one of the words", "the words"))
        }
        (Some("object"), _) if schema["additionalProperties"]["type"].is_string() => {
            format!("table of {}", kind(&schema["additionalProperties"]))
        }
        (Some("object"), _) => "table".into(),
        (other, _) => other.unwrap_or("text").into(),
    }
}

fn default(schema: &Value) -> String {
    if let Some(words) = schema["x-default"].as_str() {
        return words.into();
    }
    match &schema["default"] {
        Value::Null => "none".into(),
        value => format!("`{value}`"),
    }
}
