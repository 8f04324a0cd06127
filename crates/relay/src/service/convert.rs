//! The configuration as the crates take it: one function for each of them.

use std::collections::HashMap;
use std::sync::Arc;

use mail::Clock;

use crate::config::{self, Config};

/// Ids of the embedded store have no node part.
const NODE: u16 = 0;

pub(super) fn store(config: &Config, memory: store::MemoryBudget) -> store::Config {
    store::Config {
        memory,
        disk_reserve: config.limits.disk_reserve,
        crashes_max: config.queue.crashes,
        node: NODE,
        ..store::Config::new(&config.data_dir)
    }
}

pub(super) fn history(config: &Config) -> history::Config {
    history::Config { keep: config.history.keep, ..history::Config::default() }
}

pub(super) fn server_tls(config: &Config) -> net::ServerTlsConfig {
    let source = match (&config.tls.certificate, &config.tls.key, &config.acme) {
        (Some(certificate), Some(key), _) => {
            net::CertificateSource::Files { certificate: certificate.clone(), key: key.clone() }
        }
        (_, _, Some(acme)) => net::CertificateSource::Acme { domains: acme_domains(config, acme) },
        _ => net::CertificateSource::SelfSigned,
    };
    net::ServerTlsConfig { hostname: config.hostname.clone(), data_dir: config.data_dir.clone(), source }
}

fn acme_domains(config: &Config, acme: &config::Acme) -> Vec<String> {
    if acme.domains.is_empty() { vec![config.hostname.clone()] } else { acme.domains.clone() }
}

/// `[acme]`, unless there are certificate files.
pub(super) fn acme(config: &Config) -> Option<net::acme::AcmeConfig> {
    let acme = config.acme.as_ref().filter(|_| config.tls.certificate.is_none())?;
    Some(net::acme::AcmeConfig {
        contact: Some(acme.contact.clone()).filter(|c| !c.is_empty()),
        domains: acme_domains(config, acme),
        directory: acme.directory.clone(),
        challenge: match acme.challenge {
            config::Challenge::TlsAlpn01 => net::acme::Challenge::TlsAlpn01,
            config::Challenge::Http01 => net::acme::Challenge::Http01,
        },
        listen: acme.listen.clone(),
        data_dir: config.data_dir.clone(),
    })
}

pub(super) fn listener(listener: &config::Listener) -> receive::ListenerConfig {
    receive::ListenerConfig {
        name: listener.name.as_str().into(),
        mode: match listener.mode {
            config::Mode::Smtp => receive::Mode::Smtp,
            config::Mode::Submission => receive::Mode::Submission,
            config::Mode::Submissions => receive::Mode::Submissions,
        },
        auth: listener.auth,
        auth_without_tls: listener.auth_without_tls.clone(),
        bare_newline: match listener.bare_newline {
            config::BareNewline::Refuse => receive::BareNewline::Refuse,
            config::BareNewline::Normalise => receive::BareNewline::Normalise,
        },
        proxy_protocol: listener.proxy_protocol.clone(),
        xclient: listener.xclient.clone(),
    }
}

/// What the listeners share. SCRAM is offered only where every credential can be used with it.
pub(super) fn policy(
    config: &Config,
    tls: &net::ServerTls,
    directory: &directory::Snapshot,
) -> receive::Policy {
    let limits = &config.limits;
    receive::Policy {
        hostname: config.hostname.as_str().into(),
        tls: Some(tls.clone()),
        scram: directory.credentials().all(|credential| credential.scram),
        limits: receive::Limits {
            connections: limits.connections,
            connections_per_address: limits.connections_per_address,
            recipients: limits.recipients,
            message_size: config.queue.max_message_size,
            messages: limits.messages_per_session,
            idle: limits.idle,
            session: limits.session,
            content: limits.content,
            errors: limits.errors,
            idle_commands: limits.commands_without_mail,
            header_size: usize::try_from(limits.header_size).unwrap_or(usize::MAX),
            header_fields: limits.header_fields,
            received: limits.hops,
        },
    }
}

pub(super) fn scheduling(config: &Config) -> schedule::Limits {
    schedule::Limits {
        window: config.queue.window,
        active_total: config.queue.active,
        connections_per_site: config.delivery.connections_per_destination,
        connections_total: config.delivery.connections,
        ..schedule::Limits::default()
    }
}

pub(super) fn driving(config: &Config, seed: u64) -> crate::driver::Settings {
    let never = std::time::Duration::MAX;
    crate::driver::Settings {
        retry: schedule::Retry {
            steps: config.queue.retry.clone(),
            lifetime: config.queue.lifetime,
            warn_after: if config.queue.warn_after.is_zero() { never } else { config.queue.warn_after },
            seed,
            ..schedule::Retry::default()
        },
        hostname: config.hostname.as_str().into(),
        idle: config.delivery.idle,
    }
}

/// What deliveries go by. Reads the system's trusted roots, so it can fail on a bad `ca_file`.
///
/// # Errors
/// A `ca_file` or `dns.servers` that can't be used.
pub(crate) fn delivering(
    config: &Config,
    directory: &directory::Snapshot,
    clock: &Clock,
) -> Result<deliver::Settings, net::NetError> {
    let resolver = net::Resolver::new(&net::ResolverConfig { servers: config.dns.servers.clone(), ..Default::default() })?;
    let tls =
        net::ClientTls::new(&net::ClientTlsConfig { ca_file: config.tls.ca_file.clone() }, clock.clone())?;
    let delivery = &config.delivery;
    let mut settings = deliver::Settings::new(config.hostname.as_str(), resolver, tls);
    settings.smarthosts = smarthosts(directory);
    settings.allow_private_targets = config.dns.allow_private_targets;
    settings.mx_port = delivery.mx_port;
    settings.recipients_max = delivery.recipients_per_transaction;
    settings.timeouts = deliver::Timeouts {
        connect: delivery.connect_timeout,
        greeting: delivery.greeting_timeout,
        hello: delivery.command_timeout,
        mail: delivery.command_timeout,
        rcpt: delivery.command_timeout,
        data: delivery.data_timeout,
        block: delivery.block_timeout,
        message: delivery.final_timeout,
        ..deliver::Timeouts::default()
    };
    Ok(settings)
}

fn smarthosts(directory: &directory::Snapshot) -> HashMap<Arc<str>, Arc<deliver::SmartHost>> {
    let convert = |host: &Arc<directory::SmartHost>| {
        let password = host.password.as_ref().map(|p| p.expose().to_owned()).unwrap_or_default();
        let login = host.username.clone().map(|username| (username, password));
        let made = deliver::SmartHost::new(host.name.clone(), host.hosts.clone(), host.tls, login);
        (host.name.clone(), Arc::new(made))
    };
    directory.smarthosts().map(convert).collect()
}

/// The file's routes, as the directory takes them.
///
/// # Errors
/// In words; the file was checked before, so this means that two parts of the program disagree.
pub(crate) fn routes(config: &Config) -> Result<Vec<directory::NewRoute>, String> {
    let patterns = |texts: &[String]| -> Result<Vec<directory::Pattern>, String> {
        texts.iter().map(|t| t.parse().map_err(|e: directory::PatternError| e.to_string())).collect()
    };
    let convert = |route: &config::Route| {
        Ok(directory::NewRoute {
            domains: patterns(&route.domains)?,
            senders: patterns(&route.senders)?,
            to: route.to.to_string().parse().map_err(|e: directory::DirectoryError| e.to_string())?,
        })
    };
    config.route.iter().map(convert).collect()
}

/// The file's smart hosts, as the directory takes them.
pub(crate) fn config_smarthosts(config: &Config) -> Vec<directory::SmartHost> {
    let convert = |(name, host): (&String, &config::SmartHost)| directory::SmartHost {
        name: name.as_str().into(),
        source: directory::Source::Config,
        hosts: host.hosts.clone(),
        tls: match host.tls {
            config::SmartHostTls::Required => directory::SmartHostTls::Required,
            config::SmartHostTls::Opportunistic => directory::SmartHostTls::Opportunistic,
            config::SmartHostTls::Implicit => directory::SmartHostTls::Implicit,
            config::SmartHostTls::None => directory::SmartHostTls::None,
        },
        username: host.username.clone(),
        password: host.password.as_ref().map(|p| directory::Secret::new(p.expose())),
        more: directory::SmartHostMore::default(),
    };
    config.smarthost.iter().map(convert).collect()
}
