//! One message on its way over connections: reuse, stale connections, and other hosts where one turns it away.

use std::sync::Arc;

use mail::{Attempt, Destination, Disposition, HostPort, Mono, Outcome, RecipientOutcome, Remote, Site};
use smtp::client::Lost;
use store::PendingRecipient;

use crate::failover;
use crate::link::{Job, Link};
use crate::open::Connection;
use crate::permit::withheld;
use crate::settings::Settings;
use crate::smarthost::{self, LoginSource, SmartHost};
use crate::target::Wanted;
use crate::transact::settle;
use crate::way::Way;

/// A message on its way to some of its recipients.
pub(crate) struct Delivery<'a> {
    link: &'a mut Link,
    job: &'a Job,
    settings: &'a Arc<Settings>,
    login: Option<&'a LoginSource>,
    started: Mono,
    way: Way,
    /// How many hosts have answered the message, and the last of them.
    heard: u32,
    heard_last: Option<HostPort>,
    /// What a host said to recipients that another one is asked for now, and which host that was.
    turned_away: Vec<RecipientOutcome>,
    turned_away_by: Option<Remote>,
}

impl<'a> Delivery<'a> {
    pub(crate) fn new(
        link: &'a mut Link,
        job: &'a Job,
        settings: &'a Arc<Settings>,
        login: Option<&'a LoginSource>,
        started: Mono,
    ) -> Self {
        Self {
            link,
            job,
            settings,
            login,
            started,
            way: Way::new(started),
            heard: 0,
            heard_last: None,
            turned_away: Vec::new(),
            turned_away_by: None,
        }
    }

    /// Offers the message until every recipient of `left`, places in `waiting.recipients`, has an outcome.
    pub(crate) async fn run(mut self, mut left: Vec<usize>, attempt: &mut Attempt) {
        let all = &self.job.waiting.recipients;
        // A connection that was left open may be dead by now. That says nothing about the message.
        let mut may_be_stale = self.take_on().await;
        while !left.is_empty() {
            let mut connection = match self.connection(attempt).await {
                Ok(connection) => connection,
                Err(outcome) => return self.no_way(&mut left, attempt, outcome),
            };
            // Otherwise it would be found out at the end of the content.
            if !self.link.engine.permit().is_given() {
                return settle(all, &mut left, &mut attempt.outcomes, &withheld());
            }
            attempt.dsn = connection.session.capabilities().dsn;
            let before = attempt.outcomes.len();
            let (engine, prepared) = (self.link.engine.clone(), &mut self.link.prepared);
            let lost =
                connection.transact(self.job, prepared, &mut left, &mut attempt.outcomes, &engine).await;
            self.link.record = std::mem::take(connection.session.transcript());
            self.link.latency = connection.latency.or(self.link.latency);
            self.learn(&mut connection, lost.as_ref());
            let silent = matches!(lost, Some(Lost::TimedOut(_) | Lost::Fault(_)));
            let unheard = !connection.session.is_usable() && connection.session.was_stale() && !silent;
            if unheard && (may_be_stale || self.way.goes_on()) {
                // The peer was gone before it heard of the message: once more, or by the next host.
                self.link
                    .record
                    .note("the connection was gone before the message was offered; trying another");
                let outcome = attempt.outcomes[before..].first().map(|r| r.outcome.clone());
                self.way.failed(outcome.filter(|_| !may_be_stale));
                take_back(all, &mut attempt.outcomes, before, &mut left, |_| true);
            } else if self.goes_on(&connection, &attempt.outcomes[before..], lost.as_ref()).await {
                self.link.record.note("trying another host");
                let again = take_back(all, &mut attempt.outcomes, before, &mut left, is_deferred);
                self.turned_away.retain(|r| again.iter().all(|a| a.recipient != r.recipient));
                self.turned_away.extend(again);
                self.turned_away_by = Some(connection.remote.clone());
                if lost.is_none() {
                    tokio::spawn(connection.quit());
                }
            } else {
                self.keep_or_leave(connection, lost.as_ref());
            }
            may_be_stale = false;
        }
    }

    fn wanted(&self) -> Wanted<'_> {
        Wanted {
            engine: &self.link.engine,
            settings: self.settings,
            source: &self.link.path.0,
            destination: &self.job.waiting.queue.destination,
            message: Some(&self.job.waiting.message),
            login: self.login,
        }
    }

    /// Whether the open connection, if there is one, may be used; if not, it is left.
    async fn take_on(&mut self) -> bool {
        let Some(mut connection) = self.link.open.take() else { return false };
        match connection.take_on(&self.wanted()).await {
            Ok(()) => {
                self.link.open = Some(connection);
                true
            }
            Err(why) => {
                let remote = &connection.remote.name;
                self.link.record.note(&format!("leaving the open connection to {remote}: {why}"));
                tokio::spawn(connection.quit());
                false
            }
        }
    }

    /// The open connection, or a new one.
    async fn connection(&mut self, attempt: &mut Attempt) -> Result<Connection, Outcome> {
        let connection = match self.link.open.take() {
            Some(mut connection) => {
                let record = &mut self.link.record;
                record.note(&format!("using the open connection to {}", connection.remote.name));
                *connection.session.transcript() = std::mem::take(record);
                connection
            }
            None => {
                let mut record = std::mem::take(&mut self.link.record);
                let mut way = std::mem::replace(&mut self.way, Way::new(self.started));
                let connected = way.connect(&self.wanted(), &mut record, &mut attempt.remote).await;
                self.way = way;
                if connected.is_err() {
                    self.link.record = record;
                }
                connected?
            }
        };
        attempt.remote = Some(connection.remote.clone());
        attempt.tls.clone_from(&connection.tls);
        attempt.security = Some(connection.requirement.why.clone());
        Ok(connection)
    }

    /// There is no host left. Recipients that a host has turned away keep its words.
    fn no_way(&mut self, left: &mut Vec<usize>, attempt: &mut Attempt, outcome: Outcome) {
        let all = &self.job.waiting.recipients;
        if let Some(remote) = self.turned_away_by.take() {
            attempt.remote = Some(remote);
            left.retain(|&place| self.turned_away.iter().all(|r| r.recipient != all[place].number));
            attempt.outcomes.append(&mut self.turned_away);
        } else if left.len() == all.len() && is_deferred(&outcome) && self.is_so_for_the_site() {
            self.link.unreachable = Some(outcome.clone());
        }
        settle(all, left, &mut attempt.outcomes, &outcome);
    }

    /// Whether what kept us from a connection keeps every message from the site.
    fn is_so_for_the_site(&self) -> bool {
        let is_alone = matches!(self.link.path.1, Site::Alone(_));
        // Another message may ask for less, or come with another login.
        let is_of_this_message = self.wanted().flags().require_tls || self.has_login_of_its_own();
        is_alone && !is_of_this_message || self.way.says_all_of_the_site()
    }

    fn smarthost(&self) -> Option<&'a Arc<SmartHost>> {
        match &self.job.waiting.queue.destination {
            Destination::SmartHost(name) => self.settings.smarthosts.get(name),
            _ => None,
        }
    }

    fn has_login_of_its_own(&self) -> bool {
        self.smarthost().is_some_and(|smarthost| !smarthost.logins.is_empty())
    }

    /// Whether another host is to be asked after this one.
    async fn goes_on(
        &mut self,
        connection: &Connection,
        outcomes: &[RecipientOutcome],
        lost: Option<&Lost>,
    ) -> bool {
        let Some(host) = &connection.host else { return false };
        if self.heard_last.as_ref() != Some(host) {
            self.heard += 1;
            self.heard_last = Some(host.clone());
        }
        let smarthost = self.smarthost();
        if let Some(smarthost) = smarthost
            && let Some(trouble) = outcomes.iter().find(|r| smarthost::is_trouble_of_the_host(&r.outcome))
        {
            self.link.engine.smarthosts().failed(smarthost, host, &trouble.outcome.said());
        }
        let may = if lost.is_some() {
            // Content that is out may have arrived.
            !connection.session.content_is_out() && outcomes.iter().all(|r| !is_delivered(&r.outcome))
        } else if smarthost.is_some() {
            outcomes.iter().any(|r| smarthost::next_host_may_take_it(&r.outcome))
        } else {
            failover::may_go_on(outcomes)
        };
        may && self.leaves(host).await
    }

    async fn leaves(&mut self, host: &HostPort) -> bool {
        let mut way = std::mem::replace(&mut self.way, Way::new(self.started));
        let leaves = way.leaves(host, self.heard, &self.wanted()).await;
        self.way = way;
        leaves
    }

    /// Keeps the connection for the next message, if it is good for one.
    fn keep_or_leave(&mut self, connection: Connection, lost: Option<&Lost>) {
        if connection.has_room(self.link.limit(self.settings)) {
            self.link.open = Some(connection);
        } else if lost.is_none() {
            // What became of the message must not wait for a peer that takes its time over a farewell.
            tokio::spawn(connection.quit());
            // For the recipients that are left, if any, from the first host on.
            self.way = Way::new(self.started);
        }
    }

    /// Remembers what the host has shown of itself.
    fn learn(&mut self, connection: &mut Connection, lost: Option<&Lost>) {
        let (hosts, now) = (self.link.engine.hosts(), self.link.engine.clock().mono());
        let Some(host) = &connection.host else { return };
        if let Some(recipients) = connection.session.full_after() {
            hosts.full_after(host, recipients);
            connection.learned = hosts.learned(host);
        }
        let session = &connection.session;
        let was_ended = !session.is_usable() && session.was_stale() && !matches!(lost, Some(Lost::Fault(_)));
        if was_ended && connection.was_busy(now) {
            hosts.ended_after(host, session.transactions());
        }
        if let (Some(Lost::TimedOut(_)), Some(address)) = (lost, connection.remote.address)
            && (!session.content_is_out() || session.replies() == 0)
        {
            // The next message need not wait for it, too.
            hosts.failed(&self.link.path.0, address, now, self.settings.probe_interval);
        }
        connection.used = now;
    }
}

fn is_deferred(outcome: &Outcome) -> bool {
    outcome.disposition == Disposition::Deferred
}

fn is_delivered(outcome: &Outcome) -> bool {
    outcome.disposition == Disposition::Delivered
}

/// Takes outcomes from `before` on back, where `which` says so, and puts their recipients in front of those that are left.
fn take_back(
    all: &[PendingRecipient],
    outcomes: &mut Vec<RecipientOutcome>,
    before: usize,
    left: &mut Vec<usize>,
    which: impl Fn(&Outcome) -> bool,
) -> Vec<RecipientOutcome> {
    let (back, stay): (Vec<_>, Vec<_>) = outcomes.drain(before..).partition(|r| which(&r.outcome));
    outcomes.extend(stay);
    let places = back.iter().filter_map(|r| all.iter().position(|p| p.number == r.recipient));
    left.splice(0..0, places.collect::<Vec<_>>());
    back
}
