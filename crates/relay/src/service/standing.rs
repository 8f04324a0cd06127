//! How delivery stands, for listings: paths, the reason why something waits, smart hosts, provider data.

use std::collections::HashMap;

use api::types::{HostHealth, PathView, ProviderView, WarmupView};
use mail::{DeliveryId, Destination, QueueKey, Site, Timestamp};
use schedule::{Policy, Snapshot};

use super::Relay;

impl Relay {
    /// Every path that the scheduler knows.
    pub(super) fn paths(&self) -> Vec<PathView> {
        let (policy, now) = (self.driver.policy(), self.clock.now());
        let Snapshot { paths, sites, .. } = self.driver.snapshot();
        let waiting: HashMap<&Site, u64> = sites.iter().map(|site| (&site.key, site.ready as u64)).collect();
        paths
            .iter()
            .map(|path| PathView {
                waiting: waiting.get(&path.path.site).copied().unwrap_or_default(),
                ..path_view(path, &policy, now)
            })
            .collect()
    }

    /// Why a delivery waits, in words.
    pub(super) fn why(&self, delivery: DeliveryId, queue: &QueueKey) -> Option<String> {
        self.is_serving.then(|| self.driver.why(delivery, queue))
    }

    pub(super) fn site_of(&self, destination: &Destination) -> Option<Site> {
        self.driver.site_of(destination)
    }

    /// The hosts of a smart host and how they have done, and the access tokens that are not to be had.
    pub(super) fn smarthost_health(&self, name: &str) -> Vec<HostHealth> {
        let all = self.engine.smarthost_health();
        let Some(found) = all.into_iter().find(|health| &*health.name == name) else { return Vec::new() };
        let view = |host: deliver::HostHealth| HostHealth {
            host: host.host,
            ok: host.up,
            failures: host.failures,
            why: host.error.map(|error| error.to_string()),
            until: host.rests_until.map(|until| until.to_string()),
        };
        // A login that gets no access token keeps mail from all of the hosts.
        let token = |token: deliver::TokenHealth| HostHealth {
            host: format!("access token for {}", token.username),
            ok: token.error.is_none(),
            why: token.error.or(token.not_kept),
            ..HostHealth::default()
        };
        let tokens = found.tokens.into_iter().filter(|t| t.error.is_some() || t.not_kept.is_some());
        found.hosts.into_iter().map(view).chain(tokens.map(token)).collect()
    }

    /// The provider data in force.
    pub(super) fn providers(&self) -> Vec<ProviderView> {
        let view = |found: schedule::ProviderView| ProviderView {
            name: found.name.to_string(),
            mx: found.provider.mx,
            connections: found.provider.traffic.connections,
            messages_per_connection: found.provider.traffic.messages_per_connection,
            rate: found.provider.traffic.rate.map(|rate| rate.to_string()),
            connection_rate: found.provider.traffic.connection_rate.map(|rate| rate.to_string()),
            patterns: found.replies.len(),
            sources: found.provider.sources,
        };
        self.driver.policy().providers.iter().map(view).collect()
    }
}

fn path_view(path: &schedule::PathView, policy: &Policy, now: Timestamp) -> PathView {
    let closed = path.closed_until.filter(|until| *until > now);
    let health = match (closed, &path.failure) {
        (Some(_), Some(failure)) if failure.code.is_none() => "unreachable",
        (Some(_), _) => "suspended",
        (None, _) if path.window < path.limit && path.failures > 0 => "slow",
        (None, _) => "ok",
    };
    let why = path.failure.as_ref().filter(|_| health != "ok").map(|failure| failure.text.clone());
    let day = policy
        .sources
        .iter()
        .find(|source| source.name == path.path.source)
        .and_then(|source| source.warmup.as_ref())
        .map(|plan| now.since(plan.start).as_secs() / 86_400 + 1);
    PathView {
        source: path.path.source.to_string(),
        site: path.path.site.to_string(),
        connections: small(path.connections),
        window: small(path.window),
        rate: path.traffic.rate.map(|rate| rate.to_string()),
        waiting: 0,
        health: health.into(),
        why,
        until: closed.or(path.next_message.filter(|at| *at > now)).map(|at| at.to_string()),
        latency_ms: path.latency.map(|latency| u64::try_from(latency.as_millis()).unwrap_or(u64::MAX)),
        warmup: path.warmup.map(|warmup| WarmupView {
            day: small(usize::try_from(day.unwrap_or(1)).unwrap_or(usize::MAX)),
            limit: warmup.limit.into(),
            sent: warmup.sent.into(),
        }),
    }
}

fn small(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
