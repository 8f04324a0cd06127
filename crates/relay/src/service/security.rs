//! What the protection of outgoing connections remembers over reloads: MTA-STS policies, and results for TLS reports.

use std::sync::Arc;

use deliver::{Settings, TlsResults};
use mail::Clock;
use net::NetError;
use net::sts::{StsCache, StsConfig};

use crate::config::Config;

/// Lives as long as the relay.
#[derive(Debug)]
pub(crate) struct Security {
    policies: StsCache,
    pub(crate) results: Arc<TlsResults>,
}

impl Security {
    /// Opens the policies that were fetched before.
    ///
    /// # Errors
    /// Their directory can't be read.
    pub(crate) fn open(config: &Config, settings: &Settings, clock: &Clock) -> Result<Self, NetError> {
        let wanted = StsConfig {
            allow_private: config.dns.allow_private_targets,
            ..StsConfig::new(config.data_dir.join("mta-sts"))
        };
        let policies =
            StsCache::open(wanted, settings.resolver.clone(), settings.tls.clone(), clock.clone())?;
        Ok(Self { policies, results: Arc::new(TlsResults::default()) })
    }

    /// Adds to the settings what does not come out of the configuration alone.
    pub(crate) fn rule(&self, config: &Config, settings: &mut Settings) {
        let (resolver, tls) = (settings.resolver.clone(), settings.tls.clone());
        let allow_private = config.dns.allow_private_targets;
        settings.tls_rules.sts =
            config.delivery.mta_sts.then(|| self.policies.with(resolver, tls, allow_private));
        settings.tls_rules.results = config.delivery.tls_reports.then(|| Arc::clone(&self.results));
    }
}
