//! What deliveries go by, from the directory, which holds the rules of the configuration too: smart hosts with their logins,
//! sources, TLS rules.

use std::collections::HashMap;
use std::sync::Arc;

use deliver::{
    LoginRule, LoginSource, OAuth, RefreshToken, SmartHost, SourceAddress, TlsOverride, WeightedHost,
};
use directory::rule::{ProxyKind, Source, TlsPolicy};
use directory::{HostLogin, HostOAuth, Secret, Snapshot};
use mail::SourceName;
use net::{Egress, SocksLogin};

/// The smart hosts by name.
///
/// # Errors
/// In words, about one of them.
pub(super) fn smarthosts(directory: &Snapshot) -> Result<HashMap<Arc<str>, Arc<SmartHost>>, String> {
    let convert = |host: &Arc<directory::SmartHost>| {
        let made = smarthost(host).map_err(|error| format!("smarthost.{}: {error}", host.name))?;
        Ok((Arc::clone(&host.name), Arc::new(made)))
    };
    directory.smarthosts().map(convert).collect()
}

fn smarthost(host: &directory::SmartHost) -> Result<SmartHost, String> {
    let more = &host.more;
    let in_the_clear = host.tls == mail::SmartHostTls::None;
    let text = |secret: &Option<Secret>| secret.as_ref().map(|s| s.expose().to_owned()).unwrap_or_default();
    let weights = more.weights.iter().copied().chain(std::iter::repeat(1));
    let hosts =
        host.hosts.iter().cloned().zip(weights).map(|(at, weight)| WeightedHost { at, weight }).collect();
    let login = |username: &String, password: &Option<Secret>, oauth: &Option<HostOAuth>| match oauth {
        None => Ok(LoginSource::password(username.clone(), text(password), in_the_clear)),
        Some(oauth) => by_token(username, oauth),
    };
    let rule = |rule: &HostLogin| {
        Ok::<_, String>(LoginRule {
            senders: rule.senders.clone(),
            domains: rule.domains.clone(),
            login: login(&rule.username, &rule.password, &rule.oauth)?,
        })
    };
    let logins = more.logins.iter().map(rule).collect::<Result<_, _>>()?;
    let login = host.username.as_ref().map(|name| login(name, &host.password, &more.oauth)).transpose()?;
    let order = more.order;
    let identity = match (&more.client_certificate, &more.client_key) {
        (Some(certificate), Some(key)) => {
            Some(net::ClientIdentity::load(certificate, key).map_err(|error| error.to_string())?)
        }
        _ => None,
    };
    let (name, tls) = (Arc::clone(&host.name), host.tls);
    Ok(SmartHost { name, hosts, order, tls, logins, login, identity })
}

/// A login by access token.
fn by_token(username: &str, oauth: &HostOAuth) -> Result<LoginSource, String> {
    let in_file = oauth.refresh_token_file.clone().map(RefreshToken::File);
    let in_text = || {
        let token = oauth.refresh_token.as_ref()?.expose().to_owned();
        Some(RefreshToken::Text(smtp::sasl::Password(token)))
    };
    let made = OAuth::new(
        username,
        &oauth.token_url,
        oauth.client_id.clone(),
        oauth.client_secret.as_ref().map(|s| s.expose().to_owned()),
        in_file.or_else(in_text),
        oauth.scope.clone(),
    );
    Ok(LoginSource::OAuth(Arc::new(made.map_err(|error| error.to_string())?)))
}

/// The outgoing addresses by name.
///
/// # Errors
/// In words: a password file that can't be read.
pub(super) fn sources(directory: &Snapshot) -> Result<HashMap<SourceName, Arc<SourceAddress>>, String> {
    let convert = |entry: &Arc<directory::rule::Entry<Source>>| {
        let rule = &entry.rule;
        let egress = egress(rule).map_err(|error| format!("source.{}: {error}", entry.id))?;
        let made = SourceAddress {
            name: Arc::clone(&entry.id),
            v4: rule.ipv4,
            v6: rule.ipv6,
            ehlo: rule.ehlo.as_deref().map(Into::into),
            egress,
        };
        Ok((Arc::clone(&entry.id), Arc::new(made)))
    };
    directory.rules::<Source>().map(convert).collect()
}

fn egress(source: &Source) -> Result<Egress, String> {
    let Some(proxy) = &source.proxy else { return Ok(Egress::Direct) };
    if proxy.kind == ProxyKind::Proxy {
        return Ok(Egress::Proxy { at: proxy.at });
    }
    let password = match (&source.proxy_password, &source.proxy_password_file) {
        (Some(secret), _) => secret.expose().to_owned(),
        (None, Some(path)) => {
            let read = std::fs::read_to_string(path);
            let text = read.map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
            text.trim_end_matches(['\r', '\n']).to_owned()
        }
        (None, None) => String::new(),
    };
    let login = match &proxy.user {
        Some(user) => Some(SocksLogin::new(user.clone(), password).map_err(|error| error.to_string())?),
        None => None,
    };
    Ok(Egress::Socks5 { at: proxy.at, login })
}

/// The operator's rules for TLS.
///
/// # Errors
/// In words: a certificate or root that can't be used.
pub(super) fn tls_overrides(directory: &Snapshot) -> Result<Vec<TlsOverride>, String> {
    let convert = |entry: &Arc<directory::rule::Entry<TlsPolicy>>| {
        let rule = &entry.rule;
        let wrong = |error: net::NetError| format!("tls_policy {}: {error}", entry.id);
        let roots = rule.ca_file.as_deref().map(net::Roots::load).transpose().map_err(wrong)?;
        let identity = match (&rule.client_certificate, &rule.client_key) {
            (Some(certificate), Some(key)) => {
                Some(net::ClientIdentity::load(certificate, key).map_err(wrong)?)
            }
            _ => None,
        };
        Ok(TlsOverride {
            domains: rule.domains.clone(),
            level: rule.level,
            names: rule.names.clone(),
            roots,
            identity,
        })
    };
    directory.rules::<TlsPolicy>().map(convert).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn oauth(client_secret: Option<&str>) -> HostOAuth {
        HostOAuth {
            token_url: "https://login.example/token".into(),
            client_id: "id".into(),
            client_secret: client_secret.map(Secret::new),
            refresh_token: None,
            refresh_token_file: None,
            scope: String::new(),
        }
    }

    /// A smart host with a password, and one login by access token.
    fn host(oauth: HostOAuth) -> directory::SmartHost {
        let login = HostLogin {
            senders: vec!["*@brand.example".parse().unwrap()],
            domains: Vec::new(),
            username: "brand".into(),
            password: None,
            oauth: Some(oauth),
        };
        directory::SmartHost {
            name: "up".into(),
            source: directory::Source::Config,
            hosts: vec!["a.example:587".parse().unwrap()],
            tls: mail::SmartHostTls::Required,
            username: Some("all".into()),
            password: Some(Secret::new("hunter2")),
            more: directory::SmartHostMore { logins: vec![login], ..directory::SmartHostMore::default() },
        }
    }

    #[test]
    fn a_login_for_some_of_the_mail_may_be_by_access_token() {
        let made = smarthost(&host(oauth(Some("s")))).unwrap();
        let [rule] = made.logins.as_slice() else { panic!("{made:?}") };
        assert!(matches!(&rule.login, LoginSource::OAuth(token) if token.username == "brand"), "{rule:?}");
        assert!(matches!(&made.login, Some(LoginSource::Password(login)) if login.username == "all"));
        let sender = mail::Address::parse("ann@brand.example").unwrap();
        let to = mail::Address::parse("bob@example.org").unwrap();
        assert_eq!(made.login_for(Some(&sender), &to).unwrap().username(), "brand");
        let wrong = smarthost(&host(oauth(None))).unwrap_err();
        assert!(wrong.contains("client secret"), "{wrong}");
    }
}
