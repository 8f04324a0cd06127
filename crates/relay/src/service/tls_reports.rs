//! TLS reports (RFC 8460): results are kept by day, and when a day is over every domain that asks for it is told how TLS to
//! its mail exchangers went.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use deliver::{FailureDetail, OTHER, TlsResult};
use mail::{Address, Body, Message, OrgId, Origin, Recipient, Stream, Timestamp};
use net::ReportAddress;
use report::{TlsFailure, TlsPolicyResults, TlsReport, TlsReportInput, tls_report};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::Relay;

/// The name of the note in the store.
const NOTE: &str = "tls-results";
/// How often results are written down.
const EVERY: Duration = Duration::from_secs(60);
/// A day in milliseconds.
const DAY: i64 = 86_400_000;
/// Reports leave within this time after midnight (UTC), each relay at a moment of its own: RFC 8460 section 4.1 asks for it.
const SPREAD: i64 = 4 * 3_600_000;
/// Days without a report because the DNS gave no answer; then it is too late.
const LATE_DAYS: i64 = 3;

/// Results by day (UTC, as a number since 1970) that no report was sent of.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct Book(BTreeMap<i64, Vec<TlsResult>>);

impl Book {
    fn add(&mut self, day: i64, results: Vec<TlsResult>) {
        let kept = self.0.entry(day).or_default();
        for new in results {
            match kept.iter_mut().find(|old| old.policy == new.policy) {
                Some(old) => merge(old, new),
                None => kept.push(new),
            }
        }
    }

    /// The first day whose reports are to be sent at this time.
    fn due(&self, now: Timestamp, spread: i64) -> Option<i64> {
        self.0.keys().copied().find(|day| now.millis() >= (day + 1) * DAY + spread)
    }

    /// Takes out all that is known of one domain on a day. A day with nothing left is gone.
    fn take_domain(&mut self, day: i64) -> Option<(String, Vec<TlsResult>)> {
        let results = self.0.get_mut(&day)?;
        let Some(domain) = results.first().map(|result| result.policy.domain.clone()) else {
            self.0.remove(&day);
            return None;
        };
        let (taken, left) = std::mem::take(results).into_iter().partition(|r| r.policy.domain == domain);
        *results = left;
        Some((domain, taken))
    }
}

fn merge(old: &mut TlsResult, new: TlsResult) {
    old.successes += new.successes;
    old.failures += new.failures;
    for FailureDetail { failure, count } in new.details {
        match old.details.iter_mut().find(|detail| detail.failure == failure) {
            Some(detail) => detail.count += count,
            None => old.details.push(FailureDetail { failure, count }),
        }
    }
}

/// Keeps results and sends reports, until `shutdown`.
pub(super) async fn run(relay: Arc<Relay>, shutdown: CancellationToken) {
    let mut book = read(&relay).await;
    // The same moment after midnight every day.
    let spread =
        relay.config.load().hostname.bytes().fold(0, |sum: i64, b| (sum * 31 + i64::from(b)) % SPREAD);
    loop {
        let stopping = tokio::select! {
            () = shutdown.cancelled() => true,
            () = tokio::time::sleep(EVERY) => false,
        };
        let now = relay.clock.now();
        let results = relay.security.results.drain();
        if !results.is_empty() {
            book.add(now.millis().div_euclid(DAY), results);
            write(&relay, &book);
        }
        if stopping {
            return;
        }
        if let Some(day) = book.due(now, spread) {
            send_day(&relay, &mut book, day).await;
        }
    }
}

async fn read(relay: &Relay) -> Book {
    match relay.store.note(NOTE).await {
        Ok(Some(note)) => serde_json::from_slice(&note).unwrap_or_default(),
        Ok(None) => Book::default(),
        Err(error) => {
            tracing::warn!(%error, "results for TLS reports could not be read");
            Book::default()
        }
    }
}

fn write(relay: &Relay, book: &Book) {
    let Ok(note) = serde_json::to_vec(book) else { return };
    if let Err(error) = relay.store.set_note(NOTE, note) {
        tracing::warn!(%error, "results for TLS reports could not be written down");
    }
}

/// Sends what is to be told of a day. What was sent is no longer in the book: a crash between the two repeats one report.
async fn send_day(relay: &Arc<Relay>, book: &mut Book, day: i64) {
    let mut unanswered = Vec::new();
    while let Some((domain, results)) = book.take_domain(day) {
        if domain == OTHER || results.iter().all(|r| r.successes + r.failures == 0) {
            continue;
        }
        match relay.engine.settings().resolver.tls_report_addresses(&domain).await {
            Ok(addresses) if addresses.is_empty() => {}
            Ok(addresses) => send(relay, day, &domain, &results, &addresses).await,
            Err(_) if relay.clock.now().millis() < (day + LATE_DAYS) * DAY => unanswered.extend(results),
            Err(error) => {
                tracing::warn!(domain, %error, "no TLS report: where it goes could not be found out")
            }
        }
        write(relay, book);
    }
    if !unanswered.is_empty() {
        book.add(day, unanswered);
        write(relay, book);
    }
}

async fn send(
    relay: &Arc<Relay>,
    day: i64,
    domain: &str,
    results: &[TlsResult],
    addresses: &[ReportAddress],
) {
    let Some(report) = compose(relay, day, domain, results) else { return };
    for address in addresses {
        match address {
            ReportAddress::Mail(to) => {
                let Ok(to) = Address::parse(to) else { continue };
                match relay.send_tls_report(&report, to).await {
                    Ok(id) => tracing::info!(domain, %id, "a TLS report leaves"),
                    Err(reply) => tracing::warn!(domain, %reply, "a TLS report could not be queued"),
                }
            }
            ReportAddress::Https(url) => {
                let sent = deliver::post_tls_report(&relay.engine, url, report.gz.clone()).await;
                match sent {
                    Ok(()) => tracing::info!(domain, url, "a TLS report was posted"),
                    Err(error) => tracing::warn!(domain, url, %error, "a TLS report could not be posted"),
                }
            }
        }
    }
}

fn compose(relay: &Relay, day: i64, domain: &str, results: &[TlsResult]) -> Option<TlsReport> {
    let config = relay.config.load();
    let from = &config.delivery.tls_reports_from;
    let postmaster = format!("postmaster@{}", config.hostname);
    let contact = Address::parse(if from.is_empty() { &postmaster } else { from }).ok()?;
    Some(tls_report(&TlsReportInput {
        organization: config.hostname.clone(),
        submitter: config.hostname.clone(),
        contact,
        report_id: format!("{day}{}", relay.store.ids().next()),
        domain: domain.to_owned(),
        start: Timestamp(day * DAY),
        end: Timestamp((day + 1) * DAY - 1000),
        policies: results.iter().map(policy).collect(),
    }))
}

fn policy(result: &TlsResult) -> TlsPolicyResults {
    let failures = result.details.iter().map(|detail| TlsFailure {
        result: detail.failure.result,
        sending_ip: detail.failure.sending_ip,
        receiving_host: detail.failure.receiving_mx.clone(),
        receiving_helo: detail.failure.receiving_helo.clone(),
        receiving_ip: detail.failure.receiving_ip,
        count: detail.count,
        additional: None,
        reason: detail.failure.reason.clone(),
    });
    TlsPolicyResults {
        policy: report::TlsPolicy {
            kind: result.policy.kind,
            strings: result.policy.text.clone(),
            domain: result.policy.domain.clone(),
            mx_hosts: result.policy.mx.clone(),
        },
        successful: result.successes,
        failed: result.failures,
        failures: failures.collect(),
    }
}

impl Relay {
    /// Queues a report. It goes whatever TLS says: it may be about just that (RFC 8460 section 5.3).
    async fn send_tls_report(&self, report: &TlsReport, to: Address) -> Result<mail::MessageId, mail::Reply> {
        let (id, now) = (self.store.ids().next(), self.clock.now());
        let content = self.store.sealed(id, report.mail(&to, now));
        let message = Message {
            id,
            org: OrgId::DEFAULT,
            stream: Stream::Bulk,
            received_at: now,
            reverse_path: None,
            ret: None,
            envid: None,
            body: Body::SevenBit,
            smtputf8: false,
            size: content.len(),
            header_message_id: Some(report.message_id().to_owned()),
            require_tls: false,
            tls_optional: true,
            origin: Origin::report(),
        };
        let recipient = Recipient { notify: mail::Notify::Never, ..Recipient::new(to) };
        self.admit(message, vec![recipient], content).await
    }
}

#[cfg(test)]
mod tests {
    use deliver::{FailureSeen, PolicySeen, PolicyType, ResultType};

    use super::*;

    fn result(domain: &str, successes: u64, failures: u64) -> TlsResult {
        let policy = PolicySeen {
            domain: domain.into(),
            kind: PolicyType::Sts,
            text: vec!["mode: enforce".into()],
            mx: vec![],
        };
        let failure = FailureSeen {
            result: ResultType::StarttlsNotSupported,
            sending_ip: None,
            receiving_mx: Some("mx.example".into()),
            receiving_helo: None,
            receiving_ip: None,
            reason: None,
        };
        TlsResult { policy, successes, failures, details: vec![FailureDetail { failure, count: failures }] }
    }

    #[test]
    fn results_of_a_day_are_added_up_and_told_once_when_it_is_over() {
        let mut book = Book::default();
        book.add(10, vec![result("a.example", 3, 1)]);
        book.add(10, vec![result("a.example", 2, 4), result("b.example", 1, 0)]);
        let at = |ms: i64| Timestamp(11 * DAY + ms);
        assert_eq!(book.due(at(-1), 0), None, "the day is not over");
        assert_eq!(book.due(at(999), 1000), None);
        assert_eq!(book.due(at(1000), 1000), Some(10));
        let noted = serde_json::to_vec(&book).unwrap();
        assert_eq!(serde_json::from_slice::<Book>(&noted).unwrap(), book);
        let (domain, results) = book.take_domain(10).unwrap();
        assert_eq!(domain, "a.example");
        assert_eq!((results[0].successes, results[0].failures, results[0].details[0].count), (5, 5, 5));
        assert_eq!(book.take_domain(10).unwrap().0, "b.example");
        assert_eq!(book.take_domain(10), None);
        assert_eq!(book.due(at(1000), 1000), None);
    }

    #[test]
    fn results_become_a_report() {
        let policy = policy(&result("a.example", 1, 2));
        assert_eq!(policy.failures.len(), 1);
        assert_eq!(serde_json::to_value(policy.policy.kind).unwrap(), "sts");
        assert_eq!(serde_json::to_value(policy.failures[0].result).unwrap(), "starttls-not-supported");
    }
}
