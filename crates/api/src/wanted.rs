//! Which deliveries a caller means: the store's filter, and what only the scheduler and the rules can tell, the site and
//! the source.

use std::collections::HashMap;
use std::str::FromStr;
use std::time::Duration;

use directory::rule::Shape;
use mail::{DeliveryId, Destination, MessageId, QueueKey, Site, SourceName, Timestamp};
use store::{QueueEntry, QueueFilter};

use crate::accounts::{org_id, stream};
use crate::control::Control;
use crate::problem::{Kind, Problem};
use crate::types::QueueQuery;

/// Most ids in one filter.
const IDS_MAX: usize = 1000;
/// Longest text in a filter.
pub(crate) const TEXT_MAX: usize = 1000;

/// Which deliveries.
pub(crate) struct Wanted {
    /// What the store can tell.
    pub(crate) filter: QueueFilter,
    /// What it cannot.
    pub(crate) path: Path,
}

/// Where deliveries go by. Whether a queue's mail does is found out once a queue.
#[derive(Default)]
pub(crate) struct Path {
    site: Option<Site>,
    source: Option<SourceName>,
    known: HashMap<QueueKey, bool>,
}

impl Path {
    /// Whether every delivery goes by it.
    pub(crate) fn is_any(&self) -> bool {
        self.site.is_none() && self.source.is_none()
    }

    /// Whether this delivery does.
    pub(crate) fn has<C: Control>(&mut self, control: &C, entry: &QueueEntry) -> bool {
        if self.is_any() {
            return true;
        }
        if let Some(known) = self.known.get(&entry.queue) {
            return *known;
        }
        let queue = &entry.queue;
        let at_site = |site: &Site| site_of(control, &queue.destination) == *site;
        let from = |source: &SourceName| {
            let pool = control.directory().snapshot().pool(queue.org, queue.stream, &queue.destination);
            pool.sources.iter().any(|(name, _)| name == source)
        };
        let has = self.site.as_ref().is_none_or(at_site) && self.source.as_ref().is_none_or(from);
        self.known.insert(queue.clone(), has);
        has
    }
}

/// The site of a destination; one that has not been located is alone.
pub(crate) fn site_of<C: Control>(control: &C, destination: &Destination) -> Site {
    control.site_of(destination).unwrap_or_else(|| Site::Alone(destination.clone()))
}

/// What a query means.
///
/// # Errors
/// A part of the query that makes no sense, or that only a running relay can answer.
pub(crate) fn wanted<C: Control>(control: &C, query: &QueueQuery) -> Result<Wanted, Problem> {
    let texts = [
        &query.domain,
        &query.from,
        &query.to,
        &query.reason,
        &query.destination,
        &query.site,
        &query.source,
    ];
    for text in texts.into_iter().flatten() {
        if text.len() > TEXT_MAX || text.chars().any(char::is_control) {
            return Err(Problem::invalid("a filter is one line of 1000 octets at most"));
        }
    }
    let mut filter = QueueFilter {
        org: query.org.as_deref().map(|name| org_id(control, name)).transpose()?,
        stream: stream(query.stream.as_deref())?,
        destination: query.destination.as_deref().map(destination).transpose()?,
        domain: query.domain.clone(),
        from: query.from.clone(),
        to: query.to.clone(),
        reason: query.reason.clone(),
        ..QueueFilter::default()
    };
    for state in query.state.iter().flat_map(|s| s.split(',')) {
        let known = serde_json::from_value(state.trim().into());
        let words = "states are active, waiting, held, sandboxed and quarantined";
        filter.states.push(known.map_err(|_| Problem::invalid(format!("{state:?} is no state; {words}")))?);
    }
    if let Some(seconds) = query.older_than_s {
        let age = Duration::from_secs(seconds);
        let age = i64::try_from(age.as_millis()).map_err(|_| Problem::invalid("that is too long ago"))?;
        filter.before = Some(Timestamp(control.clock().now().millis().saturating_sub(age)));
    }
    for id in query.id.iter().flat_map(|ids| ids.split(',')) {
        add_id(&mut filter, id.trim())?;
    }
    if filter.messages.len() + filter.deliveries.len() > IDS_MAX {
        return Err(Problem::invalid(format!("at most {IDS_MAX} ids at a time")));
    }
    Ok(Wanted { filter, path: path(control, query)? })
}

fn path<C: Control>(control: &C, query: &QueueQuery) -> Result<Path, Problem> {
    let site = query.site.as_deref().map(Shape::site).transpose().map_err(Problem::invalid)?;
    let by_lookup = matches!(site, Some(Site::Provider(_) | Site::Hosts(_)));
    if by_lookup && !control.status().running {
        let text = "which site a domain belongs to is known only while the relay runs; start it, or filter by `domain`";
        return Err(Problem::new(Kind::NotRunning, text));
    }
    let source: Option<SourceName> = query.source.as_deref().map(Into::into);
    if let Some(name) = source.as_deref()
        && name != &*mail::default_source()
        && control.directory().snapshot().rule::<directory::rule::Source>(name).is_none()
    {
        return Err(crate::accounts::absent("source", name));
    }
    Ok(Path { site, source, known: HashMap::new() })
}

fn destination(text: &str) -> Result<Destination, Problem> {
    Destination::from_str(text).map_err(|e| Problem::invalid(e.to_string()))
}

pub(crate) fn add_id(filter: &mut QueueFilter, text: &str) -> Result<(), Problem> {
    if text.contains('-') {
        filter.deliveries.push(delivery_id(text)?);
    } else {
        filter.messages.push(text.parse().map_err(|e: mail::IdError| Problem::invalid(e.to_string()))?);
    }
    Ok(())
}

/// `MESSAGE-INDEX`.
pub(crate) fn delivery_id(text: &str) -> Result<DeliveryId, Problem> {
    let bad = || {
        let shown: String = text.chars().take(40).collect();
        Problem::invalid(format!("{shown:?} is no delivery id: a message id, a hyphen and a number"))
    };
    let (message, index) = text.split_once('-').ok_or_else(bad)?;
    let digits = !index.is_empty() && index.bytes().all(|b| b.is_ascii_digit());
    let index = index.parse().ok().filter(|_| digits).ok_or_else(bad)?;
    Ok(DeliveryId { message: message.parse::<MessageId>().map_err(|_| bad())?, index })
}
