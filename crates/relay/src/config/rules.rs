//! The rules about outgoing mail as the file says them: each by itself, and what they say of each other.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use directory::rule::{ConfigRules, Mention, Named, Rule};
use mail::domain_to_ascii;

use super::Config;
use super::diagnose::nearest;
use super::validate::Validate;

/// The name that every source and every pool may be called by.
const DEFAULT: &str = "default";

impl Config {
    /// The file's rules about outgoing mail, as the directory takes them.
    pub fn rules(&self) -> ConfigRules {
        fn named<R: Clone>(rules: &BTreeMap<String, R>) -> Vec<(String, R)> {
            rules.iter().map(|(name, rule)| (name.clone(), rule.clone())).collect()
        }
        ConfigRules {
            sources: named(&self.sources),
            pools: named(&self.pool),
            egress: self.egress.clone(),
            shapes: self.shape.clone(),
            ceilings: self.ceiling.clone(),
            tls_policies: self.tls_policy.clone(),
            aliases: self.alias.clone(),
            rewrites: self.rewrite.clone(),
        }
    }
}

impl Validate<'_> {
    pub(super) fn rules(&mut self) {
        let config = self.config;
        for (name, source) in &config.sources {
            self.name("source", name);
            self.rule(&format!("source.{name}"), source);
        }
        for (name, pool) in &config.pool {
            self.name("pool", name);
            self.rule(&format!("pool.{name}"), pool);
        }
        self.numbered("egress", &config.egress);
        self.numbered("shape", &config.shape);
        self.numbered("ceiling", &config.ceiling);
        self.numbered("tls_policy", &config.tls_policy);
        self.numbered("alias", &config.alias);
        self.numbered("rewrite", &config.rewrite);
        self.twice();
        self.forward();
    }

    fn name(&mut self, kind: &str, name: &str) {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        if name.is_empty() || name.len() > 63 || !name.bytes().all(plain) {
            let message = format!("{name:?} is no name for a {kind}");
            self.wrong(&format!("{kind}.{name}"), message, "letters, digits, - and _");
        }
    }

    fn numbered<R: Rule>(&mut self, section: &str, rules: &[R]) {
        for (i, rule) in rules.iter().enumerate() {
            self.rule(&format!("{section}[{i}]"), rule);
        }
    }

    fn rule<R: Rule>(&mut self, at: &str, rule: &R) {
        if let Err(wrong) = rule.check() {
            let key = if wrong.key.is_empty() { at.to_owned() } else { format!("{at}.{}", wrong.key) };
            return self.wrong(&key, wrong.what, wrong.help);
        }
        for mention in rule.mentions() {
            self.mention(at, &mention);
        }
    }

    /// Organisations and credentials are in the directory: `check` looks for them.
    fn mention(&mut self, at: &str, mention: &Mention) {
        let config = self.config;
        let (what, known): (_, Vec<&str>) = match mention.what {
            Named::Org | Named::Credential => return,
            Named::Source => ("source", config.sources.keys().map(String::as_str).collect()),
            Named::Pool => ("pool", config.pool.keys().map(String::as_str).collect()),
            Named::SmartHost => ("smart host", config.smarthost.keys().map(String::as_str).collect()),
        };
        let name = mention.name.as_str();
        let is_there = known.contains(&name) || (mention.what != Named::SmartHost && name == DEFAULT);
        if is_there {
            return;
        }
        let section = if mention.what == Named::SmartHost { "smarthost" } else { what };
        let help = match nearest(name, known) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => format!("add [{section}.{name}]"),
        };
        self.wrong(&format!("{at}.{}", mention.key), format!("there is no {what} {name:?}"), help);
    }

    /// Two that say something of the same thing.
    fn twice(&mut self) {
        let config = self.config;
        for (i, ceiling) in config.ceiling.iter().enumerate() {
            if ceiling.of().is_some() && config.ceiling[..i].iter().any(|other| other.clashes(ceiling)) {
                let message = "a second ceiling for the same organisation, credential or destination";
                self.wrong(&format!("ceiling[{i}]"), message, "say both bounds in one");
            }
        }
        let mut seen: BTreeSet<(String, String)> = BTreeSet::new();
        for (i, alias) in config.alias.iter().enumerate() {
            let key = (alias.org.as_deref().unwrap_or_default().to_lowercase(), alias.from.to_lowercase());
            if !seen.insert(key) {
                let message = format!("a second alias for {:?}", alias.from);
                self.wrong(&format!("alias[{i}].from"), message, "give one alias all addresses in `to`");
            }
        }
        let mut addresses: HashMap<String, &str> = HashMap::new();
        for (name, source) in &config.sources {
            let pair = format!("{:?} {:?} {:?}", source.ipv4, source.ipv6, source.proxy);
            let says = source.ipv4.is_some() || source.ipv6.is_some() || source.proxy.is_some();
            if says && let Some(other) = addresses.insert(pair, name) {
                let message = format!("source `{name}` has the addresses of source `{other}`");
                self.wrong(
                    &format!("source.{name}"),
                    message,
                    "peers see one sender; give each its own address",
                );
            }
        }
    }

    fn forward(&mut self) {
        let forward = &self.config.forward;
        let bounds = [
            ("forward.alias_depth", forward.alias_depth, 100),
            ("forward.alias_recipients", forward.alias_recipients, 10_000),
        ];
        for (key, value, most) in bounds {
            if value == 0 || value > most {
                self.wrong(key, format!("`{key}` is from 1 to {most}"), "");
            }
        }
        for (key, domain) in [("srs_domain", &forward.srs_domain), ("bounce_domain", &forward.bounce_domain)]
        {
            if !domain.is_empty() && domain_to_ascii(domain).is_none() {
                self.wrong(&format!("forward.{key}"), format!("{domain:?} is no domain"), "");
            }
        }
        let same = forward.srs_domain.eq_ignore_ascii_case(&forward.bounce_domain);
        if same && !forward.srs_domain.is_empty() {
            let message = "`srs_domain` and `bounce_domain` are the same";
            self.wrong("forward.bounce_domain", message, "give each a domain of its own");
        }
        let from = &self.config.delivery.tls_reports_from;
        if !from.is_empty() && mail::Address::parse(from).is_err() {
            let message = format!("{from:?} is no mail address");
            self.wrong("delivery.tls_reports_from", message, "\"postmaster@example.net\"");
        }
    }
}
