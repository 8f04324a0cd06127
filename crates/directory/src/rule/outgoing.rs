//! Outgoing addresses: sources, pools of them, and which mail leaves by which.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use mail::{Destination, Stream, domain_to_ascii};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::values::{Day, Proxy, ProxyKind};
use super::{Mention, Named, Rule, Wrong};
use crate::secret::Secret;
use mail::Pattern;

/// The largest weight in a pool.
const WEIGHT_MAX: u32 = 10_000;
/// The longest warm-up plan, in days.
const PLAN_MAX: usize = 366;

/// An outgoing address. `default` is always there: the address that the system chooses, with the relay's own name; a
/// source of that name says otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Source {
    /// The IPv4 address that connections come from. None: whatever the system chooses; with only an IPv6 address here, no
    /// IPv4 at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv4: Option<Ipv4Addr>,
    /// The IPv6 address that connections come from. None: whatever the system chooses; with only an IPv4 address here, no
    /// IPv6 at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<Ipv6Addr>,
    /// The name in EHLO. It should resolve to the addresses, and they back to it. None: `hostname`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ehlo: Option<String>,
    /// The proxy that connections leave through: `"socks5://user@127.0.0.1:1080"`, or `"proxy://127.0.0.1:4000"` for one
    /// that reads a PROXY protocol header (version 2).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy: Option<Proxy>,
    /// The SOCKS5 proxy's password. Better in a file of its own: `proxy_password_file`.
    #[serde(skip_serializing)]
    pub proxy_password: Option<Secret>,
    /// A file that holds the SOCKS5 proxy's password; a line end at its end does not count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy_password_file: Option<PathBuf>,
    /// How much mail a new address may send at first. None: as much as there is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warmup: Option<Warmup>,
}

/// How much mail a new address may send at first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Warmup {
    /// The first day, in UTC. Before it the source sends nothing.
    pub start: Day,
    /// How many messages may go to one site on the first day, the second, and so on; after the last there is no bound.
    pub plan: Vec<u32>,
}

impl Rule for Source {
    const KIND: &'static str = "source";
    const NAMED: bool = true;

    fn check(&self) -> Result<(), Wrong> {
        if self.ehlo.as_ref().is_some_and(|name| domain_to_ascii(name).is_none()) {
            return Err(Wrong::new(
                "ehlo",
                "the name in EHLO is no host name",
                "a name such as \"mail.example.net\"",
            ));
        }
        let socks = self.proxy.as_ref().is_some_and(|p| p.kind == ProxyKind::Socks5 && p.user.is_some());
        if (self.proxy_password.is_some() || self.proxy_password_file.is_some()) && !socks {
            let help = "proxy = \"socks5://user@127.0.0.1:1080\"";
            return Err(Wrong::new("proxy_password", "a password without a user at a SOCKS5 proxy", help));
        }
        // The header of the PROXY protocol says where the connection shall come from.
        let proxied = self.proxy.as_ref().is_some_and(|p| p.kind == ProxyKind::Proxy);
        if proxied && self.ipv4.is_none() && self.ipv6.is_none() {
            let what = "a proxy:// needs the address that it shall connect from";
            return Err(Wrong::new("proxy", what, "give `ipv4` or `ipv6`, too"));
        }
        let Some(warmup) = &self.warmup else { return Ok(()) };
        if warmup.plan.is_empty() || warmup.plan.len() > PLAN_MAX {
            let what = format!("a warm-up plan has 1 to {PLAN_MAX} days");
            return Err(Wrong::new("warmup.plan", what, "messages per day, such as [50, 100, 500]"));
        }
        if let Some(day) = warmup.plan.iter().position(|n| *n == 0) {
            let what = format!("day {} of the warm-up plan allows nothing", day + 1);
            return Err(Wrong::new(format!("warmup.plan[{day}]"), what, "at least 1"));
        }
        Ok(())
    }

    fn take_secret(&mut self) -> Option<Secret> {
        let written = self.proxy.as_mut().and_then(|proxy| proxy.password.take());
        self.proxy_password.take().or(written)
    }

    fn put_secret(&mut self, secret: Option<Secret>) {
        self.proxy_password = secret;
    }
}

/// Sources that share the work. Without any, mail leaves by the pool `default`, which is the source `default`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Pool {
    /// Its sources, each with its weight: `{ fast = 3, slow = 1 }` gives the first three quarters of the mail. One of weight 0
    /// is used only when no other can be.
    pub sources: BTreeMap<String, u32>,
}

impl Rule for Pool {
    const KIND: &'static str = "pool";
    const NAMED: bool = true;

    fn check(&self) -> Result<(), Wrong> {
        if self.sources.is_empty() {
            return Err(Wrong::new("sources", "a pool without sources", "sources = { NAME = 1 }"));
        }
        match self.sources.iter().find(|(_, weight)| **weight > WEIGHT_MAX) {
            Some((name, _)) => {
                let what = format!("the weight of {name:?} has to be 0 to {WEIGHT_MAX}");
                Err(Wrong::new(format!("sources.{name}"), what, ""))
            }
            None => Ok(()),
        }
    }

    fn mentions(&self) -> Vec<Mention> {
        self.sources.keys().map(|name| Mention::new(format!("sources.{name}"), Named::Source, name)).collect()
    }
}

/// Which pool mail leaves by. All that is given must match; the first rule that matches counts; without one, the pool of
/// the organisation if it has one, else the pool `default`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Egress {
    /// Whose mail, by name. Empty: anyone's.
    #[serde(default)]
    pub orgs: Vec<String>,
    /// What kind of mail: `transactional`, `bulk`. Empty: any.
    #[serde(default)]
    #[schemars(schema_with = "streams")]
    pub streams: Vec<Stream>,
    /// Recipient domains of mail that goes to their mail exchangers: `"example.net"`, or `"*.example.net"` for everything
    /// below it. Mail that a route sends elsewhere is named by `destinations`. Both empty: any mail.
    #[serde(default)]
    #[schemars(with = "Vec<String>")]
    pub domains: Vec<Pattern>,
    /// Destinations as a route's `to` says them: `"smarthost:upstream"`, `"smtp://10.0.0.5:25"`. Beside `domains`, mail to
    /// one of either is meant.
    #[serde(default)]
    #[schemars(with = "Vec<String>")]
    pub destinations: Vec<Destination>,
    /// The pool.
    pub pool: String,
}

impl Rule for Egress {
    const KIND: &'static str = "egress";

    fn check(&self) -> Result<(), Wrong> {
        domains_only("domains", &self.domains)?;
        let mut all = self.destinations.iter().enumerate();
        all.try_for_each(|(i, to)| has_way_out(&format!("destinations[{i}]"), to))
    }

    fn mentions(&self) -> Vec<Mention> {
        let mut all = vec![Mention::new("pool", Named::Pool, &self.pool)];
        all.extend(orgs(&self.orgs));
        let named = self.destinations.iter().enumerate();
        all.extend(named.filter_map(|(i, to)| smarthost(&format!("destinations[{i}]"), to)));
        all
    }
}

pub(super) fn streams(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({ "type": "array", "items": { "type": "string", "enum": ["transactional", "bulk"] } })
}

pub(super) fn orgs(names: &[String]) -> impl Iterator<Item = Mention> {
    names.iter().enumerate().map(|(i, name)| Mention::new(format!("orgs[{i}]"), Named::Org, name))
}

/// The smart host that a destination names.
pub(super) fn smarthost(key: &str, to: &Destination) -> Option<Mention> {
    match to {
        Destination::SmartHost(name) => Some(Mention::new(key, Named::SmartHost, &**name)),
        _ => None,
    }
}

/// A destination that stands beside `domains` is one that a route's `to` can say; a domain is written as a domain.
pub(super) fn no_mx(key: &str, to: &Destination) -> Result<(), Wrong> {
    match to {
        Destination::Mx(_) => {
            let what = format!("{to} is the mail exchangers of a domain");
            Err(Wrong::new(key, what, "give the domain as a domain"))
        }
        _ => Ok(()),
    }
}

/// Mail to a destination that is reached over the network leaves by a source; other mail does not.
fn has_way_out(key: &str, to: &Destination) -> Result<(), Wrong> {
    no_mx(key, to)?;
    match to {
        Destination::SmartHost(_) | Destination::Smtp(_) | Destination::Lmtp(_) => Ok(()),
        _ => {
            let help = "\"smarthost:NAME\", \"smtp://host:port\" or \"lmtp://host:port\"";
            Err(Wrong::new(key, format!("mail to {to} leaves by no source"), help))
        }
    }
}

/// Of the patterns, only domains and what is below them make sense here.
pub(super) fn domains_only(key: &str, patterns: &[Pattern]) -> Result<(), Wrong> {
    let wrong = |p: &Pattern| !matches!(p, Pattern::Domain(_) | Pattern::Subdomains(_));
    match patterns.iter().position(wrong) {
        None => Ok(()),
        Some(i) => Err(Wrong::new(
            format!("{key}[{i}]"),
            format!("{} is no domain", patterns[i]),
            "\"example.com\", or \"*.example.com\" for everything below it",
        )),
    }
}
