//! Which site a destination belongs to.

use std::time::Duration;

use mail::{Destination, Outcome, Site};

use crate::error::ConnectError;
use crate::settings::Settings;

/// An answer is believed for at least this long: who sets a TTL of seconds does not get a question for every message.
const VALID_MIN: Duration = Duration::from_secs(60);
/// And for at most this long.
const VALID_MAX: Duration = Duration::from_secs(3600);
/// For a domain of which nothing could be found out.
const FAILED: Duration = Duration::from_secs(60);
/// What needs no question does not change, but for a reload, which asks again anyway.
const NAMED: Duration = Duration::from_secs(24 * 3600);

/// Where a destination belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    /// The site.
    pub site: Site,
    /// How long this holds.
    pub valid: Duration,
    /// What an attempt would meet now, where the mail exchangers could not be found out.
    pub failure: Option<Outcome>,
}

pub(crate) async fn locate(destination: &Destination, settings: &Settings) -> Located {
    let alone = |valid, failure| Located { site: Site::Alone(destination.clone()), valid, failure };
    let Destination::Mx(domain) = destination else { return alone(NAMED, None) };
    match settings.resolver.mx(domain).await {
        Ok(answer) => {
            let names: Vec<&str> = answer.hosts.iter().map(|host| &*host.name).collect();
            let site = match (settings.provider_of)(&names) {
                Some(provider) => Site::Provider(provider),
                None => Site::of_hosts(names),
            };
            let valid = Duration::from_secs(answer.ttl_s.into()).clamp(VALID_MIN, VALID_MAX);
            Located { site, valid, failure: None }
        }
        Err(error) => alone(FAILED, Some(ConnectError::from(error).outcome(false))),
    }
}
