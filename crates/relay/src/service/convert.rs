//! The configuration as the crates take it: one function for each of them.

use std::sync::Arc;

use mail::{Clock, Timestamp};

use super::{Forwarding, convert_deliver, convert_schedule};
use crate::config::{self, Config};
use crate::driver;

/// Ids of the embedded store have no node part.
const NODE: u16 = 0;

pub(crate) fn store(config: &Config, memory: store::MemoryBudget) -> store::Config {
    store::Config {
        memory,
        disk_reserve: config.limits.disk_reserve,
        crashes_max: config.queue.crashes,
        node: NODE,
        ..store::Config::new(&config.data_dir)
    }
}

/// How the database of a cluster is reached.
pub(crate) fn postgres(config: &Config) -> postgres::Config {
    let store = &config.store;
    let url = store.url.as_ref().map_or("", config::Secret::expose);
    postgres::Config {
        ca_file: config.tls.ca_file.clone(),
        pool: store.connections,
        durability: match store.durability {
            config::Durability::Checked => postgres::Durability::Checked,
            config::Durability::Provider => postgres::Durability::Provider,
        },
        hold: store.hold,
        application_name: format!("posthouse {}", config.cluster.node),
        ..postgres::Config::new(url)
    }
}

/// The store of a node of a cluster.
pub(super) fn shared_store(
    config: &Config,
    pool: &postgres::Pool,
    fence: store::Fence,
    memory: store::MemoryBudget,
) -> Result<store::PostgresConfig, store::StoreError> {
    Ok(store::PostgresConfig {
        objects: config.store.objects.as_ref().map(objects).transpose()?,
        memory,
        disk_reserve: config.limits.disk_reserve,
        crashes_max: config.queue.crashes,
        ..store::PostgresConfig::new(pool.clone(), fence, config.data_dir.join("spool"))
    })
}

/// Where large content goes.
fn objects(of: &config::Objects) -> Result<store::Objects, store::StoreError> {
    store::Objects::new(&store::ObjectsConfig {
        url: of.url.clone(),
        endpoint: of.endpoint.clone(),
        region: of.region.clone(),
        access_key: of.access_key.clone(),
        secret_key: of.secret_key.as_ref().map_or_else(String::new, |secret| secret.expose().to_owned()),
        above: of.above,
    })
}

pub(crate) fn history(config: &Config) -> history::Config {
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
        queues: config.limits.queues,
        ..schedule::Limits::default()
    }
}

/// What the driver goes by.
///
/// # Errors
/// In words: a rule or a file that can't be used.
pub(super) fn driving(
    config: &Config,
    directory: &directory::Snapshot,
    forwarding: &Arc<Forwarding>,
    seed: u64,
    now: Timestamp,
) -> Result<driver::Settings, String> {
    let never = std::time::Duration::MAX;
    Ok(driver::Settings {
        retry: schedule::Retry {
            steps: config.queue.retry.clone(),
            lifetime: config.queue.lifetime,
            warn_after: if config.queue.warn_after.is_zero() { never } else { config.queue.warn_after },
            seed,
            ..schedule::Retry::default()
        },
        hostname: config.hostname.as_str().into(),
        idle: config.delivery.idle,
        policy: Arc::new(convert_schedule::policy(config, directory, now)?),
        classifier: convert_schedule::classifier(config)?,
        suppress: match config.suppression.automatic {
            config::Automatic::Never => driver::Suppress::Never,
            config::Automatic::Bulk => driver::Suppress::Bulk,
            config::Automatic::Always => driver::Suppress::Always,
        },
        forwarding: Arc::clone(forwarding),
        signed: signed_returns(config, directory),
    })
}

/// Whose mail leaves with return paths of ours.
fn signed_returns(config: &Config, directory: &directory::Snapshot) -> driver::SignedReturns {
    let orgs = &config.forward.bounce_orgs;
    if config.forward.bounce_domain.is_empty() {
        driver::SignedReturns::Nobody
    } else if orgs.is_empty() {
        driver::SignedReturns::Everyone
    } else {
        driver::SignedReturns::Of(
            orgs.iter().filter_map(|name| directory.org_named(name)).map(|o| o.id).collect(),
        )
    }
}

/// Asks the DNS as configured.
///
/// # Errors
/// `dns.servers` that can't be used.
fn resolver(config: &Config) -> Result<net::Resolver, net::NetError> {
    net::Resolver::new(&net::ResolverConfig {
        servers: config.dns.servers.clone(),
        dnssec: config.dns.dnssec,
        trust_anchors: config.dns.trust_anchors.clone(),
    })
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
    let wrong = net::NetError::Configuration;
    let resolver = resolver(config)?;
    let tls =
        net::ClientTls::new(&net::ClientTlsConfig { ca_file: config.tls.ca_file.clone() }, clock.clone())?;
    let delivery = &config.delivery;
    let mut settings = deliver::Settings::new(config.hostname.as_str(), resolver, tls);
    settings.smarthosts = convert_deliver::smarthosts(directory).map_err(wrong)?;
    settings.sources = convert_deliver::sources(directory).map_err(wrong)?;
    settings.tls_rules.dane = delivery.dane;
    settings.tls_rules.overrides = convert_deliver::tls_overrides(directory).map_err(wrong)?;
    let providers = convert_schedule::providers(config).map_err(wrong)?;
    settings.provider_of = Arc::new(move |hosts: &[&str]| providers.provider_of(hosts));
    settings.allow_private_targets = config.dns.allow_private_targets;
    settings.mx_port = delivery.mx_port;
    settings.recipients_max = delivery.recipients_per_transaction;
    settings.messages_per_connection = delivery.messages_per_connection;
    settings.pipelining = delivery.pipelining;
    settings.bdat = delivery.chunking;
    settings.probe_interval = delivery.probe_interval;
    settings.connection_age_max = delivery.connection_age_max;
    settings.lmtp_starttls = delivery.lmtp_starttls;
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
    let secret =
        |secret: &Option<config::Secret>| secret.as_ref().map(|s| directory::Secret::new(s.expose()));
    let oauth = |oauth: &config::OAuth| directory::HostOAuth {
        token_url: oauth.token_url.clone(),
        client_id: oauth.client_id.clone(),
        client_secret: secret(&oauth.client_secret),
        refresh_token: secret(&oauth.refresh_token),
        refresh_token_file: oauth.refresh_token_file.clone(),
        scope: oauth.scope.clone(),
    };
    let login = |login: &config::LoginRule| directory::HostLogin {
        senders: login.senders.clone(),
        domains: login.domains.clone(),
        username: login.username.clone(),
        password: secret(&login.password),
        oauth: login.oauth.as_ref().map(oauth),
    };
    let convert = |(name, host): (&String, &config::SmartHost)| directory::SmartHost {
        name: name.as_str().into(),
        source: directory::Source::Config,
        hosts: host.hosts.at.clone(),
        tls: host.tls,
        username: host.username.clone(),
        password: secret(&host.password),
        more: directory::SmartHostMore {
            order: host.order,
            weights: host.hosts.weights.clone(),
            logins: host.login.iter().map(login).collect(),
            oauth: host.oauth.as_ref().map(oauth),
            client_certificate: host.client_certificate.clone(),
            client_key: host.client_key.clone(),
        },
    };
    config.smarthost.iter().map(convert).collect()
}
