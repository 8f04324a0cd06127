//! Compares a file with the schema before its values are read, so that every unknown key and every wrong type is told
//! at once, with the nearest right name.

use std::ops::Range;

use serde_json::Value;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnose::{ConfigError, Source, nearest};

/// Keys that this version does not have yet: (key, its value that changes nothing and is let pass, what to say).
const LATER: [(&str, &str, &str); 3] = [
    ("history.keep_messages", "0", "keeping content after delivery comes with a later version"),
    (
        "api.tls",
        "auto",
        "the HTTP API comes with a later version; health checks and metrics are served without TLS",
    ),
    ("api.public_url", "", "the HTTP API and the console come with a later version"),
];

/// Takes out the keys of later versions whose values say what this version does anyway.
pub(super) fn drop_neutral(root: &mut DeTable<'_>) {
    for (key, neutral, _) in LATER {
        let Some((section, name)) = key.split_once('.') else { continue };
        let Some(DeValue::Table(table)) = root.get_mut(section).map(Spanned::get_mut) else { continue };
        if table.get(name).and_then(|value| value.get_ref().as_str()) == Some(neutral) {
            table.remove(name);
        }
    }
}

/// What is wrong with the keys and types in `root`.
pub(super) fn check(root: &DeTable<'_>, schema: &Value, source: &Source) -> Vec<ConfigError> {
    let mut walk = Walk { source, errors: Vec::new() };
    walk.table(root, schema, "");
    walk.errors
}

struct Walk<'a> {
    source: &'a Source,
    errors: Vec<ConfigError>,
}

impl Walk<'_> {
    fn error(&mut self, message: String, span: Range<usize>, help: Option<String>) {
        let mut error = ConfigError::new(message, Some(self.source.first_line(span)));
        error.help = help;
        self.errors.push(error);
    }

    fn table(&mut self, table: &DeTable<'_>, schema: &Value, path: &str) {
        let known = schema["properties"].as_object();
        for (key, value) in table.iter() {
            let name: &str = key.get_ref();
            let below = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
            if let Some(schema) = known.and_then(|known| known.get(name)) {
                self.value(value.get_ref(), value.span(), schema, &below);
            } else if schema["additionalProperties"].is_object() {
                self.value(value.get_ref(), value.span(), &schema["additionalProperties"], &below);
            } else if let Some((_, _, text)) = LATER.iter().find(|later| later.0 == below) {
                self.error(format!("`{below}` is not in this version"), key.span(), Some((*text).into()));
            } else {
                let names: Vec<&str> = known.into_iter().flat_map(|k| k.keys().map(String::as_str)).collect();
                let place = if path.is_empty() { String::new() } else { format!(" in `{path}`") };
                let help = match nearest(name, names.iter().copied()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("keys here: {}", names.join(", ")),
                };
                self.error(format!("unknown key `{name}`{place}"), key.span(), Some(help));
            }
        }
        for required in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if !table.contains_key(required) {
                let span = self.source.span(path).unwrap_or(0..0);
                self.error(format!("`{path}` lacks the key `{required}`"), span, None);
            }
        }
    }

    fn value(&mut self, value: &DeValue<'_>, span: Range<usize>, schema: &Value, path: &str) {
        let schema = choose(value, schema);
        if !type_fits(value, schema) {
            let message = format!(
                "`{path}` is {}, but it has to be {}",
                with_article(value.type_str()),
                wanted(schema)
            );
            return self.error(message, span, None);
        }
        match value {
            DeValue::Table(table) => self.table(table, schema, path),
            DeValue::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.value(item.get_ref(), item.span(), &schema["items"], &format!("{path}[{index}]"));
                }
            }
            DeValue::Integer(number) => {
                let number = i64::from_str_radix(number.as_str(), number.radix());
                let bound = |key: &str| schema[key].as_f64();
                if let (Ok(number), Some(least)) = (&number, bound("minimum"))
                    && (*number as f64) < least
                {
                    self.error(format!("`{path}` has to be at least {least}"), span.clone(), None);
                }
                if let (Ok(number), Some(most)) = (&number, bound("maximum"))
                    && *number as f64 > most
                {
                    self.error(format!("`{path}` has to be at most {most}"), span, None);
                }
            }
            DeValue::String(text) => {
                let words = words(schema);
                if !words.is_empty() && !words.contains(&text.as_ref()) {
                    let help = match nearest(text, words.iter().copied()) {
                        Some(near) => format!("did you mean \"{near}\"?"),
                        None => format!("one of: {}", words.join(", ")),
                    };
                    self.error(format!("{text:?} is no value of `{path}`"), span, Some(help));
                }
            }
            _ => {}
        }
    }
}

/// Of several schemas, the one that is meant.
fn choose<'a>(value: &DeValue<'_>, schema: &'a Value) -> &'a Value {
    let Some(options) = schema["anyOf"].as_array() else { return schema };
    options.iter().find(|option| type_fits(value, option)).or(options.first()).unwrap_or(schema)
}

fn types(schema: &Value) -> Vec<&str> {
    match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(many) => many.iter().filter_map(Value::as_str).collect(),
        _ if schema["oneOf"].is_array() || schema["enum"].is_array() => vec!["string"],
        _ => Vec::new(),
    }
}

fn type_fits(value: &DeValue<'_>, schema: &Value) -> bool {
    let is = match value {
        DeValue::String(_) => "string",
        DeValue::Integer(_) => "integer",
        DeValue::Float(_) => "number",
        DeValue::Boolean(_) => "boolean",
        DeValue::Datetime(_) => "datetime",
        DeValue::Array(_) => "array",
        DeValue::Table(_) => "object",
    };
    let types = types(schema);
    types.is_empty() || types.contains(&is)
}

/// The words that an enumeration allows.
fn words(schema: &Value) -> Vec<&str> {
    let constants = schema["oneOf"].as_array().into_iter().flatten();
    let listed = constants.flat_map(|option| {
        let many = option["enum"].as_array().into_iter().flatten();
        std::iter::once(&option["const"]).chain(many)
    });
    listed.chain(schema["enum"].as_array().into_iter().flatten()).filter_map(Value::as_str).collect()
}

/// What a schema wants, in words.
fn wanted(schema: &Value) -> String {
    let words = words(schema);
    if !words.is_empty() {
        return format!("one of {}", words.iter().map(|w| format!("\"{w}\"")).collect::<Vec<_>>().join(", "));
    }
    match (types(schema).first().copied(), schema["format"].as_str()) {
        (Some("string"), Some("duration")) => "a duration such as \"5m\"".into(),
        (Some("string"), Some("size")) => "a size such as \"25MB\"".into(),
        (Some("string"), _) => "a text in quotes".into(),
        (Some("integer"), _) => "a whole number".into(),
        (Some("boolean"), _) => "true or false".into(),
        (Some("array"), _) => "a list, in [ ]".into(),
        (Some("object"), _) => "a table".into(),
        (other, _) => other.unwrap_or("something else").into(),
    }
}

fn with_article(kind: &str) -> String {
    let article = if kind.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    format!("{article} {kind}")
}
