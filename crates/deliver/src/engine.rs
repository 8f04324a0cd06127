//! What all links share.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use mail::{Clock, Destination, Site, SourceName};

use crate::hosts::Hosts;
use crate::link::Link;
use crate::locate::{self, Located};
use crate::permit::Permit;
use crate::reuse::Known;
use crate::settings::Settings;
use crate::smarthost::{SmartHostHealth, SmartHosts};

/// What an engine is made of.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// What deliveries go by at first.
    pub settings: Settings,
    /// The clock.
    pub clock: Clock,
    /// Whether messages may be completed.
    pub permit: Permit,
}

/// What all links share: settings, clock, and what is remembered of hosts.
pub struct Engine {
    settings: ArcSwap<Settings>,
    clock: Clock,
    permit: Permit,
    smarthosts: SmartHosts,
    hosts: Hosts,
    known: Known,
}

impl Engine {
    /// An engine.
    pub fn new(config: EngineConfig) -> Arc<Self> {
        let smarthosts = SmartHosts::new(config.clock.clone());
        let settings = ArcSwap::from_pointee(config.settings);
        Arc::new(Self {
            settings,
            clock: config.clock,
            permit: config.permit,
            smarthosts,
            hosts: Hosts::default(),
            known: Known::default(),
        })
    }

    /// Takes new settings. Attempts under way end as they began; connections opened under the old settings are not
    /// used for another message.
    pub fn configure(&self, settings: Settings) {
        self.smarthosts.follow(&settings);
        self.settings.store(Arc::new(settings));
        self.known.forget_all();
    }

    /// The settings in force.
    pub fn settings(&self) -> Arc<Settings> {
        self.settings.load_full()
    }

    /// A link over `path`, from a source to a site, not connected yet.
    pub fn link(self: &Arc<Self>, path: (SourceName, Site)) -> Link {
        Link::new(self.clone(), path)
    }

    /// Finds out which site a destination belongs to. There is always an answer: where the DNS gives none, the
    /// destination is on its own for a short while, and an attempt at it will meet the failure itself.
    pub async fn locate(&self, destination: &Destination) -> Located {
        locate::locate(destination, &self.settings()).await
    }

    /// How the smart hosts do: their hosts, and their logins by access token.
    pub fn smarthost_health(&self) -> Vec<SmartHostHealth> {
        self.smarthosts.health(&self.settings.load())
    }

    pub(crate) fn smarthosts(&self) -> &SmartHosts {
        &self.smarthosts
    }

    /// What is remembered of hosts.
    pub(crate) fn hosts(&self) -> &Hosts {
        &self.hosts
    }

    /// What was found out about hosts and the domains they serve.
    pub(crate) fn known(&self) -> &Known {
        &self.known
    }

    pub(crate) fn permit(&self) -> &Permit {
        &self.permit
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("hostname", &self.settings.load().hostname).finish_non_exhaustive()
    }
}
