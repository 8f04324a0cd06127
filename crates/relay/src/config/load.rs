//! Reads a configuration file: text, keys, values, then what is relative to the file.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::de::DeTable;

use super::diagnose::{ConfigError, ConfigErrors, Source};
use super::values::Secret;
use super::{Config, Listener, Mode, Recipients, SmartHost, keys, reference, validate};

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// [`ConfigErrors`] lists everything that is wrong, with its place in the file.
    pub fn load(path: &Path) -> Result<Self, ConfigErrors> {
        let text = std::fs::read_to_string(path).map_err(|e| {
            ConfigErrors::plain(format!("{} cannot be read: {e}", path.display()), Some(path))
        })?;
        Self::parse(&text, Some(path))
    }

    /// Reads a text as if it came from `path`; an empty text without a path is the configuration where there is no file,
    /// relative to the current directory.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(text: &str, path: Option<&Path>) -> Result<Self, ConfigErrors> {
        let source = Source { path: path.map(Path::to_owned), text: text.into() };
        let fail = |errors| ConfigErrors { errors, source: source.clone() };
        let of_toml = |e: &toml::de::Error| {
            ConfigError::new(e.message().to_owned(), e.span().map(|span| source.first_line(span)))
        };
        let mut root = DeTable::parse(text).map_err(|e| fail(vec![of_toml(&e)]))?;
        keys::drop_neutral(root.get_mut());
        let wrong = keys::check(root.get_ref(), &reference::inline_schema(), &source);
        if !wrong.is_empty() {
            return Err(fail(sorted(wrong)));
        }
        let mut config =
            Self::deserialize(toml::Deserializer::from(root)).map_err(|e| fail(vec![of_toml(&e)]))?;
        config.source = source.clone();
        let mut wrong = config.resolve();
        wrong.extend(validate::check(&config));
        if wrong.is_empty() { Ok(config) } else { Err(fail(sorted(wrong))) }
    }

    /// Fills in what is by default and not constant, makes paths absolute, reads secrets.
    fn resolve(&mut self) -> Vec<ConfigError> {
        let base = self.source.path.as_deref().and_then(Path::parent).unwrap_or(Path::new("")).to_owned();
        let absolute = |path: &mut PathBuf| {
            let joined = base.join(&*path);
            *path = std::path::absolute(&joined).unwrap_or(joined);
        };
        if self.hostname.is_empty() && self.source.span("hostname").is_none() {
            self.hostname = machine_name();
        }
        absolute(&mut self.data_dir);
        let acme_ca = self.acme.as_mut().and_then(|acme| acme.ca_file.as_mut());
        for path in [&mut self.tls.certificate, &mut self.tls.key, &mut self.tls.ca_file] {
            // An empty text is "not given".
            path.take_if(|p| p.as_os_str().is_empty());
        }
        let tls = [&mut self.tls.certificate, &mut self.tls.key, &mut self.tls.ca_file];
        tls.into_iter().filter_map(Option::as_mut).chain(acme_ca).for_each(&absolute);
        if let Recipients::File(path) = &mut self.relay.recipients {
            absolute(path);
        }
        for path in [&mut self.delivery.providers, &mut self.delivery.bounces, &mut self.dns.trust_anchors] {
            path.take_if(|p| p.as_os_str().is_empty());
            path.iter_mut().for_each(&absolute);
        }
        for policy in &mut self.tls_policy {
            let paths = [&mut policy.ca_file, &mut policy.client_certificate, &mut policy.client_key];
            paths.into_iter().flatten().for_each(&absolute);
        }
        let mut secrets = Secrets { source: &self.source, absolute: &absolute, wrong: Vec::new() };
        for (name, host) in &mut self.smarthost {
            secrets.smarthost(name, host);
        }
        for (name, source) in &mut self.sources {
            let (given, file) = (&mut source.proxy_password, &mut source.proxy_password_file);
            let made = |text: Secret| directory::Secret::new(text.expose());
            secrets.fill(&format!("source.{name}"), "proxy_password", given, file, made);
        }
        let store = &mut self.store;
        // An empty text is "not given".
        store.url.take_if(|url| url.expose().is_empty());
        secrets.fill("store", "url", &mut store.url, &mut store.url_file, |s| s);
        if let Some(objects) = &mut store.objects {
            let (given, file) = (&mut objects.secret_key, &mut objects.secret_key_file);
            secrets.fill("store.objects", "secret_key", given, file, |s| s);
        }
        let wrong = secrets.wrong;
        if self.cluster.node.is_empty() {
            self.cluster.node.clone_from(&self.hostname);
        }
        if self.cluster.address.is_empty() {
            self.cluster.address = self.api.listen.first().map(ToString::to_string).unwrap_or_default();
        }
        if self.listener.is_empty() && self.source.span("listener").is_none() {
            self.listener = default_listeners();
        }
        for listener in &mut self.listener {
            if listener.name.is_empty() {
                listener.name = listener.mode.as_str().to_owned();
            }
        }
        wrong
    }
}

/// Reads secrets out of their files.
struct Secrets<'a> {
    source: &'a Source,
    absolute: &'a dyn Fn(&mut PathBuf),
    wrong: Vec<ConfigError>,
}

impl Secrets<'_> {
    fn smarthost(&mut self, name: &str, host: &mut SmartHost) {
        let at = format!("smarthost.{name}");
        for path in [&mut host.client_certificate, &mut host.client_key].into_iter().flatten() {
            (self.absolute)(path);
        }
        self.fill(&at, "password", &mut host.password, &mut host.password_file, |s| s);
        for (i, login) in host.login.iter_mut().enumerate() {
            let at = format!("{at}.login[{i}]");
            self.fill(&at, "password", &mut login.password, &mut login.password_file, |s| s);
            self.oauth(&at, login.oauth.as_mut());
        }
        self.oauth(&at, host.oauth.as_mut());
    }

    fn oauth(&mut self, at: &str, oauth: Option<&mut super::OAuth>) {
        let Some(oauth) = oauth else { return };
        let at = format!("{at}.oauth");
        self.fill(&at, "client_secret", &mut oauth.client_secret, &mut oauth.client_secret_file, |s| s);
        if let Some(path) = &mut oauth.refresh_token_file {
            // Read when it is needed: the relay itself writes it anew.
            (self.absolute)(path);
            if oauth.refresh_token.is_some() {
                self.both(&at, "refresh_token");
            }
        }
    }

    fn both(&mut self, at: &str, key: &str) {
        let message = format!("`{at}` has both {key} and {key}_file");
        let span = self.source.span(&format!("{at}.{key}"));
        self.wrong.push(ConfigError::new(message, span).help("keep one of them"));
    }

    /// Fills the secret `key` of the table `at` from its file, if there is one.
    fn fill<T>(
        &mut self,
        at: &str,
        key: &str,
        given: &mut Option<T>,
        file: &mut Option<PathBuf>,
        made: impl FnOnce(Secret) -> T,
    ) {
        let Some(path) = file else { return };
        (self.absolute)(path);
        if given.is_some() {
            return self.both(at, key);
        }
        match read_secret(path) {
            Ok(secret) => *given = Some(made(secret)),
            Err(why) => {
                let span = self.source.span(&format!("{at}.{key}_file"));
                self.wrong.push(ConfigError::new(why, span));
            }
        }
    }
}

/// The listeners of an empty file.
fn default_listeners() -> Vec<Listener> {
    [(Mode::Smtp, 2525), (Mode::Submission, 2587), (Mode::Submissions, 2465)]
        .into_iter()
        .map(|(mode, port)| Listener {
            address: vec![([127, 0, 0, 1], port).into()],
            mode,
            ..Listener::default()
        })
        .collect()
}

/// The secret in a file, without the line end at its end.
fn read_secret(path: &Path) -> Result<Secret, String> {
    let text =
        std::fs::read_to_string(path).map_err(|e| format!("{} cannot be read: {e}", path.display()))?;
    let secret = text.strip_suffix('\n').map_or(text.as_str(), |t| t.strip_suffix('\r').unwrap_or(t));
    if secret.is_empty() {
        return Err(format!("{} is empty", path.display()));
    }
    if secret.contains(['\n', '\r', '\0']) {
        return Err(format!("{} holds more than one line", path.display()));
    }
    Ok(Secret::new(secret))
}

fn machine_name() -> String {
    let name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default();
    mail::domain_to_ascii(&name).unwrap_or_else(|| "localhost".into())
}

fn sorted(mut errors: Vec<ConfigError>) -> Vec<ConfigError> {
    errors.sort_by_key(|e| e.span.as_ref().map_or(usize::MAX, |s| s.start));
    errors
}
