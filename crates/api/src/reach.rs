//! What suspensions stop: the queues and deliveries that are there now, and the mail that a suspended domain has elsewhere.

use std::collections::BTreeMap;

use directory::RouteTarget;
use directory::rule::Suspension;
use mail::{Destination, OrgId, Pattern, QueueKey, State};
use store::QueueFilter;

use crate::accounts::org_id;
use crate::control::Control;
use crate::problem::{Kind, Problem};
use crate::types::{LIMIT_MAX, ResumeReach, SuspensionReach};
use crate::wanted::site_of;

/// What a suspension stops now.
///
/// # Errors
/// There is no such organisation, only a running relay can tell, or the disk.
pub(crate) async fn of<C: Control>(control: &C, suspension: &Suspension) -> Result<SuspensionReach, Problem> {
    let stop = Stop::of(control, suspension)?;
    let mut reach = SuspensionReach { routed: routed(control, suspension), ..SuspensionReach::default() };
    for (queue, deliveries) in counts(control, &[&stop]).await? {
        if stop.stops_all(control, &queue) {
            reach.queues += 1;
            reach.deliveries += deliveries;
        } else {
            reach.by_other_source += deliveries;
        }
    }
    Ok(reach)
}

/// What would go on without the suspensions of these ids.
///
/// # Errors
/// Only a running relay can tell, or the disk.
pub(crate) async fn of_lifting<C: Control>(control: &C, ids: &[&str]) -> Result<ResumeReach, Problem> {
    let (snapshot, now) = (control.directory().snapshot(), control.clock().now());
    let (mut lifted, mut left) = (Vec::new(), Vec::new());
    for entry in snapshot.rules::<Suspension>().filter(|entry| !entry.rule.is_over(now)) {
        let stop = Stop::of(control, &entry.rule)?;
        if ids.contains(&&*entry.id) { lifted.push(stop) } else { left.push(stop) }
    }
    let meant: Vec<&Stop<'_>> = lifted.iter().collect();
    let mut reach = ResumeReach::default();
    for (queue, deliveries) in counts(control, &meant).await? {
        if !lifted.iter().any(|stop| stop.stops_all(control, &queue)) {
            continue;
        }
        if left.iter().any(|stop| stop.stops_all(control, &queue)) {
            reach.still_suspended += deliveries;
        } else {
            reach.queues += 1;
            reach.deliveries += deliveries;
        }
    }
    Ok(reach)
}

/// A suspension as queues are held against it.
struct Stop<'a> {
    rule: &'a Suspension,
    org: Option<OrgId>,
    site: Option<mail::Site>,
}

impl<'a> Stop<'a> {
    fn of<C: Control>(control: &C, rule: &'a Suspension) -> Result<Self, Problem> {
        let site = rule.at_site();
        let by_lookup = matches!(site, Some(mail::Site::Provider(_) | mail::Site::Hosts(_)));
        if by_lookup && !control.status().running {
            let text = "which mail goes to this site is known only while the relay runs";
            return Err(Problem::new(Kind::NotRunning, text));
        }
        let org = rule.org.as_deref().map(|name| org_id(control, name)).transpose()?;
        Ok(Self { rule, org, site })
    }

    /// Whether it is about mail of this queue; with a source, about mail that may leave by it.
    fn covers<C: Control>(&self, control: &C, queue: &QueueKey) -> bool {
        let by_domain = |pattern: &Pattern| matches!(&queue.destination, Destination::Mx(domain) if pattern.matches_domain(domain));
        self.org.is_none_or(|org| org == queue.org)
            && self.rule.stream.is_none_or(|stream| stream == queue.stream)
            && self.rule.domain.as_ref().is_none_or(by_domain)
            && self.rule.destination.as_ref().is_none_or(|to| *to == queue.destination)
            && self.site.as_ref().is_none_or(|site| site_of(control, &queue.destination) == *site)
            && self.rule.source.as_ref().is_none_or(|name| sources(control, queue).any(|s| *s == **name))
    }

    /// Whether nothing of this queue may go: of the sources, there is no other.
    fn stops_all<C: Control>(&self, control: &C, queue: &QueueKey) -> bool {
        let others = |name: &String| sources(control, queue).any(|source| *source != **name);
        self.covers(control, queue) && !self.rule.source.as_ref().is_some_and(others)
    }
}

fn sources<C: Control>(control: &C, queue: &QueueKey) -> impl Iterator<Item = mail::SourceName> {
    let choice = control.directory().snapshot().pool(queue.org, queue.stream, &queue.destination);
    choice.sources.into_iter().map(|(name, _)| name)
}

/// The queues that one of these covers, with their deliveries that are to be attempted some time. What waits on disk is
/// summed up there already; what is in memory has its bound.
async fn counts<C: Control>(control: &C, stops: &[&Stop<'_>]) -> Result<BTreeMap<QueueKey, u64>, Problem> {
    // Whether a queue is meant is found out once.
    let mut counts: BTreeMap<QueueKey, Option<u64>> = BTreeMap::new();
    let mut add = |queue: &QueueKey, n: u64| {
        if !counts.contains_key(queue) {
            let is_meant = stops.iter().any(|stop| stop.covers(control, queue));
            counts.insert(queue.clone(), is_meant.then_some(0));
        }
        if let Some(Some(count)) = counts.get_mut(queue) {
            *count += n;
        }
    };
    for stats in control.store().queues().await? {
        add(&stats.queue, stats.waiting);
    }
    let mut after = None;
    loop {
        let filter = QueueFilter { states: vec![State::Active], ..QueueFilter::default() };
        let found = control.store().search(filter, after, LIMIT_MAX).await?;
        found.iter().for_each(|entry| add(&entry.queue, 1));
        after = found.last().map(|entry| entry.id);
        if found.len() < LIMIT_MAX {
            break;
        }
    }
    Ok(counts.into_iter().filter_map(|(queue, n)| Some((queue, n.filter(|n| *n > 0)?))).collect())
}

/// Where routes send mail for the domain of a suspension, in place of its mail exchangers.
fn routed<C: Control>(control: &C, suspension: &Suspension) -> Vec<String> {
    let Some(domain) = &suspension.domain else { return Vec::new() };
    let snapshot = control.directory().snapshot();
    let mut found = Vec::new();
    for route in snapshot.routes() {
        let is_for = route.domains.is_empty() || route.domains.iter().any(|route| meet(domain, route));
        if let RouteTarget::To(to) = &route.to
            && is_for
            && !found.contains(&to.to_string())
        {
            found.push(to.to_string());
        }
        // Whatever comes after a route that takes all mail of the domain never has any of it.
        let takes_all = route.domains.is_empty() || route.domains.iter().any(|route| holds(route, domain));
        if takes_all && route.senders.is_empty() {
            break;
        }
    }
    found
}

/// Whether there may be a recipient whom both mean.
fn meet(suspended: &Pattern, route: &Pattern) -> bool {
    match (suspended, route) {
        (_, Pattern::Any) => true,
        (_, Pattern::Null) => false,
        (_, Pattern::Domain(domain)) => suspended.matches_domain(domain),
        (_, Pattern::Address(address)) => {
            address.split_once('\n').is_some_and(|(_, domain)| suspended.matches_domain(domain))
        }
        (Pattern::Domain(domain), Pattern::Subdomains(_)) => route.matches_domain(domain),
        (_, Pattern::Subdomains(_)) => holds(route, suspended) || holds(suspended, route),
    }
}

/// Whether the first means everything of the second.
fn holds(route: &Pattern, suspended: &Pattern) -> bool {
    match (route, suspended) {
        (Pattern::Any, _) => true,
        (_, Pattern::Domain(domain)) => route.matches_domain(domain),
        (Pattern::Subdomains(all), Pattern::Subdomains(some)) => all == some || route.matches_domain(some),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> Pattern {
        text.parse().unwrap()
    }

    #[test]
    fn a_suspended_domain_meets_the_routes_that_take_mail_of_it() {
        for (suspended, route, meets, is_all) in [
            ("a.example", "*", true, true),
            ("a.example", "a.example", true, true),
            ("a.example", "b.example", false, false),
            ("a.example", "*.example", true, true),
            ("example", "*.example", false, false),
            ("a.example", "ann@a.example", true, false),
            ("a.example", "ann@b.example", false, false),
            ("*.example", "a.example", true, false),
            ("*.example", "*.example", true, true),
            ("*.example", "*.a.example", true, false),
            ("*.a.example", "*.example", true, true),
            ("*.example", "*.other", false, false),
        ] {
            let (suspended, route) = (pattern(suspended), pattern(route));
            assert_eq!(meet(&suspended, &route), meets, "{suspended} {route}");
            assert_eq!(holds(&route, &suspended), is_all, "{suspended} {route}");
        }
    }
}
