//! What is not delivered for a while, at the operator's word.

use mail::{Destination, Site, Stream, Timestamp};
use serde::{Deserialize, Serialize};

use super::outgoing::{domains_only, no_mx, smarthost};
use super::{Mention, Named, Rule, Shape, Wrong};
use mail::Pattern;

/// Deliveries that are not attempted until it is over or lifted. All that is given must match; mail goes on being accepted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Suspension {
    /// Whose mail, by name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub org: Option<String>,
    /// What kind of mail.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<Stream>,
    /// The recipients' domain, or what is below it: mail that goes to its mail exchangers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain: Option<Pattern>,
    /// Where mail goes by a route: `smarthost:NAME`, `smtp://host:port`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination: Option<Destination>,
    /// The site, as `queue sites` shows it, or a provider's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub site: Option<String>,
    /// The source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// When it is over by itself; none: when it is lifted.
    #[serde(with = "time_or_none", skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// Why, in a line.
    pub reason: String,
    /// Who said so.
    pub by: String,
    /// Since when.
    #[serde(with = "time_or_none", skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
}

impl Suspension {
    /// Whether it is over at this time.
    pub fn is_over(&self, now: Timestamp) -> bool {
        self.until.is_some_and(|until| until <= now)
    }

    /// The site that it is for.
    pub fn at_site(&self) -> Option<Site> {
        self.site.as_deref().and_then(|text| Shape::site(text).ok())
    }

    /// What it is for, in words: `organisation acme, site provider:gmail`.
    pub fn scope(&self) -> String {
        let parts = [
            ("organisation", self.org.clone()),
            ("stream", self.stream.map(|s| s.as_str().to_owned())),
            ("domain", self.domain.as_ref().map(ToString::to_string)),
            ("destination", self.destination.as_ref().map(ToString::to_string)),
            ("site", self.site.clone()),
            ("source", self.source.clone()),
        ];
        let said: Vec<String> =
            parts.into_iter().filter_map(|(what, v)| Some(format!("{what} {}", v?))).collect();
        if said.is_empty() { "everything".into() } else { said.join(", ") }
    }
}

impl Rule for Suspension {
    const KIND: &'static str = "suspension";

    fn check(&self) -> Result<(), Wrong> {
        domains_only("domain", self.domain.as_slice())?;
        if let Some(to) = &self.destination {
            no_mx("destination", to)?;
            if self.domain.is_some() {
                let what =
                    "no mail is for both: `domain` is about mail exchangers, `destination` about a route";
                return Err(Wrong::new("destination", what, "two suspensions"));
            }
        }
        if let Some(site) = &self.site {
            Shape::site(site).map_err(|what| Wrong::new("site", what, ""))?;
        }
        if self.reason.len() > 1000 || self.reason.chars().any(char::is_control) {
            return Err(Wrong::new("reason", "a reason is one line of 1000 octets at most", ""));
        }
        Ok(())
    }

    fn mentions(&self) -> Vec<Mention> {
        let org = self.org.iter().map(|name| Mention::new("org", Named::Org, name));
        let source = self.source.iter().map(|name| Mention::new("source", Named::Source, name));
        let to = self.destination.iter().filter_map(|to| smarthost("destination", to));
        org.chain(source).chain(to).collect()
    }
}

/// A time as RFC 3339, or nothing.
mod time_or_none {
    use mail::Timestamp;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(time: &Option<Timestamp>, s: S) -> Result<S::Ok, S::Error> {
        match time {
            Some(time) => s.collect_str(time),
            None => s.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Timestamp>, D::Error> {
        let Some(text) = Option::<String>::deserialize(d)? else { return Ok(None) };
        let parsed: Result<jiff::Timestamp, _> = text.parse();
        parsed
            .map(|t| Some(Timestamp(t.as_millisecond())))
            .map_err(|_| D::Error::custom("a time is written as 2026-11-24T07:00:00Z"))
    }
}
