//! Values that are well formed, and yet impossible: alone, or beside another one.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use directory::Pattern;
use mail::{Destination, domain_to_ascii};

use super::diagnose::{ConfigError, nearest};
use super::{BareNewline, Config, Mode, RouteTo};

/// Everything that is impossible.
pub(super) fn check(config: &Config) -> Vec<ConfigError> {
    let mut v = Validate { config, errors: Vec::new() };
    v.names();
    v.listeners();
    v.certificates();
    v.routes();
    v.smarthosts();
    v.rules();
    v.times();
    v.sizes();
    v.store();
    v.errors
}

/// What looks at the values, and what it found.
pub(super) struct Validate<'a> {
    pub(super) config: &'a Config,
    errors: Vec<ConfigError>,
}

impl Validate<'_> {
    pub(super) fn wrong(&mut self, key: &str, message: impl Into<String>, help: impl Into<String>) {
        let error = ConfigError::new(message, self.config.source.span(key));
        let help = help.into();
        self.errors.push(if help.is_empty() { error } else { error.help(help) });
    }

    fn names(&mut self) {
        let config = self.config;
        if domain_to_ascii(&config.hostname).is_none() {
            let message = format!("{:?} is no host name", config.hostname);
            self.wrong("hostname", message, "a name such as \"relay.example.net\"");
        }
        for (i, domain) in config.relay.local_domains.iter().enumerate() {
            if domain_to_ascii(domain).is_none() {
                let help = "a domain such as \"example.net\"";
                self.wrong(&format!("relay.local_domains[{i}]"), format!("{domain:?} is no domain"), help);
            }
        }
        if config.user.is_empty() && !config.group.is_empty() {
            self.wrong("group", "`group` is given without `user`", "say which user to become, too");
        }
        for (key, text) in [("user", &config.user), ("group", &config.group)] {
            if text.contains(['\0', ':', '/']) {
                self.wrong(key, format!("{text:?} is no name of a {key}"), "");
            }
        }
        if self.config.data_dir.as_os_str().is_empty() {
            self.wrong("data_dir", "`data_dir` is empty", "");
        }
    }

    fn listeners(&mut self) {
        let config = self.config;
        let mut seen: BTreeMap<SocketAddr, String> = BTreeMap::new();
        let mut names: BTreeMap<&str, usize> = BTreeMap::new();
        if config.listener.is_empty() {
            self.wrong("listener", "there is no listener", "leave `listener` out to listen on loopback");
        }
        for (i, listener) in config.listener.iter().enumerate() {
            let at = format!("listener[{i}]");
            if let Some(before) = names.insert(&listener.name, i) {
                let message = format!(
                    "two listeners have the name {:?} (the other is number {})",
                    listener.name,
                    before + 1
                );
                self.wrong(&at, message, "give each a `name` of its own");
            }
            if listener.address.is_empty() {
                self.wrong(&at, "a listener without `address`", "address = [\"0.0.0.0:25\"]");
            }
            for (k, address) in listener.address.iter().enumerate() {
                let other = seen.insert(*address, listener.name.clone()).filter(|_| address.port() != 0);
                if let Some(other) = other {
                    let message = format!("{address} is already taken by listener {other:?}");
                    self.wrong(&format!("{at}.address[{k}]"), message, "");
                }
            }
            if listener.mode != Mode::Smtp && !listener.auth {
                let message = format!("a {} listener always needs AUTH", listener.mode.as_str());
                self.wrong(
                    &format!("{at}.auth"),
                    message,
                    "use mode = \"smtp\" and relay.networks for clients without a password",
                );
            }
            if listener.mode == Mode::Smtp && listener.bare_newline == BareNewline::Normalise {
                let help = "other servers have no excuse for bare newlines; use a submission listener for old devices";
                self.wrong(
                    &format!("{at}.bare_newline"),
                    "\"normalise\" is not possible on an smtp listener",
                    help,
                );
            }
        }
    }

    fn certificates(&mut self) {
        let config = self.config;
        match (&config.tls.certificate, &config.tls.key) {
            (Some(_), None) => {
                self.wrong("tls.certificate", "`tls.certificate` without `tls.key`", "give both or neither")
            }
            (None, Some(_)) => {
                self.wrong("tls.key", "`tls.key` without `tls.certificate`", "give both or neither")
            }
            (Some(_), Some(_)) if config.acme.is_some() => {
                self.wrong("acme", "both `[acme]` and a certificate file", "keep one of them");
            }
            _ => {}
        }
        let Some(acme) = &config.acme else { return };
        for (i, name) in acme.domains.iter().enumerate() {
            if domain_to_ascii(name).is_none() {
                let help = "wildcards need another challenge than tls-alpn-01 and http-01";
                self.wrong(&format!("acme.domains[{i}]"), format!("{name:?} is no host name"), help);
            }
        }
        if !acme.directory.starts_with("https://") {
            self.wrong("acme.directory", "the ACME directory has to be an https:// address", "");
        }
        if !acme.contact.is_empty()
            && mail::Address::parse(acme.contact.trim_start_matches("mailto:")).is_err()
        {
            self.wrong("acme.contact", format!("{:?} is no mail address", acme.contact), "");
        }
    }

    fn routes(&mut self) {
        let config = self.config;
        for (i, route) in config.route.iter().enumerate() {
            for (k, domain) in route.domains.iter().enumerate() {
                if !matches!(domain.parse::<Pattern>(), Ok(p) if p != Pattern::Null) {
                    let help = "\"example.com\", or \"*.example.com\" for everything below it";
                    self.wrong(&format!("route[{i}].domains[{k}]"), format!("{domain:?} is no domain"), help);
                }
            }
            for (k, sender) in route.senders.iter().enumerate() {
                if sender.parse::<Pattern>().is_err() {
                    let help = "\"ann@example.com\" or \"*@example.com\"";
                    self.wrong(&format!("route[{i}].senders[{k}]"), format!("{sender:?} is no sender"), help);
                }
            }
            let at = format!("route[{i}].to");
            match &route.to {
                RouteTo::To(Destination::SmartHost(name)) if !config.smarthost.contains_key(&**name) => {
                    let near = nearest(name, config.smarthost.keys().map(String::as_str));
                    let help = match near {
                        Some(near) => format!("did you mean `smarthost:{near}`?"),
                        None => format!("add [smarthost.{name}] with its hosts"),
                    };
                    self.wrong(&at, format!("there is no smart host {name:?}"), help);
                }
                RouteTo::To(Destination::Maildir(path)) => {
                    if let Some(why) = bad_template(path) {
                        self.wrong(&at, why, "fields are {domain} and {user}");
                    }
                }
                RouteTo::To(Destination::Mx(_)) => {
                    self.wrong(
                        &at,
                        "`to = \"mx:…\"` is not possible",
                        "write \"mx\": the domain is the recipient's",
                    );
                }
                _ => {}
            }
        }
    }

    fn smarthosts(&mut self) {
        for (name, host) in &self.config.smarthost {
            let at = format!("smarthost.{name}");
            let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
            if name.is_empty() || !name.chars().all(plain) {
                self.wrong(&at, format!("{name:?} is no name for a smart host"), "letters, digits, - and _");
            }
            if host.hosts.at.is_empty() {
                self.wrong(
                    &at,
                    format!("smart host `{name}` has no hosts"),
                    "hosts = [\"smtp.example.com:587\"]",
                );
            }
            self.logins(name, host, &at);
            if host.client_certificate.is_some() != host.client_key.is_some() {
                let message = "a client certificate and its key go together";
                self.wrong(&format!("{at}.client_certificate"), message, "give both or neither");
            }
        }
    }

    fn logins(&mut self, name: &str, host: &super::SmartHost, at: &str) {
        for (i, login) in host.login.iter().enumerate() {
            let at = format!("{at}.login[{i}]");
            let has_password = login.password.is_some() || login.password_file.is_some();
            match &login.oauth {
                None if !has_password => {
                    let message = format!("the login {:?} has no password", login.username);
                    self.wrong(
                        &at,
                        message,
                        "password_file = \"FILE\", or oauth = { token_url = …, client_id = … }",
                    );
                }
                None => {}
                Some(oauth) => {
                    if has_password {
                        self.wrong(&at, "both a password and `oauth`", "keep one of them");
                    }
                    self.oauth(oauth, &format!("{at}.oauth"));
                }
            }
        }
        let has_password = host.password.is_some() || host.password_file.is_some();
        let Some(oauth) = &host.oauth else {
            if host.username.is_some() != has_password {
                let message = format!("smart host `{name}` has a username or a password, but not both");
                self.wrong(at, message, "give both `username` and `password_file`, or neither");
            }
            return;
        };
        if host.username.is_none() {
            let message = "access tokens are for a user, and there is no `username`";
            self.wrong(&format!("{at}.oauth"), message, "username = \"mailbox@example.com\"");
        }
        if has_password {
            self.wrong(at, "both a password and `oauth`", "keep one of them");
        }
        self.oauth(oauth, &format!("{at}.oauth"));
    }

    fn oauth(&mut self, oauth: &super::OAuth, at: &str) {
        if !oauth.token_url.starts_with("https://") {
            let message = "the token endpoint has to be an https:// address";
            self.wrong(&format!("{at}.token_url"), message, "");
        }
        let refresh = oauth.refresh_token.is_some() || oauth.refresh_token_file.is_some();
        if !refresh && oauth.client_secret.is_none() && oauth.client_secret_file.is_none() {
            let message =
                "without a refresh token the client credentials are used, and those need a client secret";
            self.wrong(at, message, "give `refresh_token_file` or `client_secret_file`");
        }
    }

    fn times(&mut self) {
        let config = self.config;
        let queue = &config.queue;
        if queue.retry.is_empty() {
            self.wrong("queue.retry", "`queue.retry` is empty", "at least one, such as [\"5m\"]");
        }
        for (i, wait) in queue.retry.iter().enumerate() {
            if *wait < Duration::from_millis(100) {
                self.wrong(&format!("queue.retry[{i}]"), "a retry after less than 100ms", "");
            }
        }
        let (limits, delivery) = (&config.limits, &config.delivery);
        let positive = [
            ("queue.lifetime", queue.lifetime),
            ("limits.idle", limits.idle),
            ("limits.session", limits.session),
            ("limits.content", limits.content),
            ("history.keep", config.history.keep),
            ("store.hold", config.store.hold),
            ("delivery.connect_timeout", delivery.connect_timeout),
            ("delivery.greeting_timeout", delivery.greeting_timeout),
            ("delivery.command_timeout", delivery.command_timeout),
            ("delivery.data_timeout", delivery.data_timeout),
            ("delivery.block_timeout", delivery.block_timeout),
            ("delivery.final_timeout", delivery.final_timeout),
            ("delivery.probe_interval", delivery.probe_interval),
            ("delivery.connection_age_max", delivery.connection_age_max),
        ];
        for (key, value) in positive {
            if value.is_zero() {
                self.wrong(key, format!("`{key}` cannot be zero"), "");
            }
        }
        // A short lifetime beside the default is no mistake: then there is nothing to warn of.
        let is_default = queue.warn_after == super::Queue::default().warn_after;
        if !is_default && queue.warn_after >= queue.lifetime && !queue.warn_after.is_zero() {
            let message = "`queue.warn_after` is not before the end of `queue.lifetime`";
            self.wrong("queue.warn_after", message, "\"0\" to never warn");
        }
    }

    fn store(&mut self) {
        let (store, cluster) = (&self.config.store, &self.config.cluster);
        let scheme = |url: &super::Secret| {
            ["postgres://", "postgresql://"].iter().any(|scheme| url.expose().starts_with(scheme))
        };
        let example = "postgres://user:password@host1,host2/database, best in a file: url_file = \"FILE\"";
        match &store.url {
            None if self.config.is_clustered() => {
                self.wrong("store.engine", "`engine = \"postgres\"` without `url`", example);
            }
            Some(url) if !scheme(url) => {
                self.wrong("store.url", "`store.url` is no address of a PostgreSQL", example)
            }
            _ => {}
        }
        if let Some(objects) = &store.objects {
            let bucket = objects
                .url
                .strip_prefix("s3://")
                .is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/'));
            if !bucket {
                self.wrong(
                    "store.objects.url",
                    "`store.objects.url` names no bucket",
                    "s3://BUCKET or s3://BUCKET/PREFIX",
                );
            }
            if objects.access_key.is_empty() || objects.secret_key.is_none() {
                let help = "`access_key`, and `secret_key_file` with the secret";
                self.wrong("store.objects", "`[store.objects]` without its keys", help);
            }
        }
        if cluster.node.len() > 200 || cluster.node.chars().any(char::is_control) {
            self.wrong(
                "cluster.node",
                format!("{:?} is no name for a node", cluster.node),
                "such as \"relay1\"",
            );
        }
    }

    fn sizes(&mut self) {
        let config = self.config;
        if config.limits.memory < 8_000_000 {
            self.wrong("limits.memory", "less than 8MB of memory is not enough to work with", "");
        }
        if config.queue.max_message_size < 65_536 {
            // RFC 5321 section 4.5.3.1.7 asks for 64K octets at least.
            self.wrong("queue.max_message_size", "messages of 64KiB have to be taken (RFC 5321)", "");
        }
        if config.limits.header_size < 10_000 {
            self.wrong("limits.header_size", "headers of less than 10KB cannot be refused", "");
        }
    }
}

/// What is wrong with a path template, if anything is.
pub(crate) fn bad_template(path: &str) -> Option<String> {
    let mut rest = path;
    while let Some(open) = rest.find('{') {
        let close = rest[open..].find('}').map(|c| open + c);
        let Some(close) = close else { return Some(format!("{path:?} has a {{ without a }}")) };
        let field = &rest[open + 1..close];
        if field != "domain" && field != "user" {
            return Some(format!("{path:?} has an unknown field {{{field}}}"));
        }
        rest = &rest[close + 1..];
    }
    path.split('/').any(|part| part == "..").then(|| format!("{path:?} leads upwards"))
}
