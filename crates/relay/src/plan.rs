//! Where a message goes: its recipients, each with its destination, grouped into deliveries. The live pipeline calls
//! this, and so does `explain`, which therefore cannot say anything else than what would happen.

use std::collections::HashMap;
use std::sync::Arc;

use directory::{Route, Snapshot};
use mail::{Address, Destination, OrgId, QueueKey, Recipient, Stream};

use crate::service::Forwarding;

/// What is known of a message when its way is planned.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Planning<'a> {
    /// Whose mail it is.
    pub(crate) org: OrgId,
    /// What kind of mail.
    pub(crate) stream: Stream,
    /// The envelope's sender; none is the null sender.
    pub(crate) sender: Option<&'a Address>,
    /// Aliases and the like, of which the plan uses what is read here.
    pub(crate) forwarding: &'a Forwarding,
}

/// Recipients of one message that go the same way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Planned {
    /// The queue they wait in.
    pub(crate) queue: QueueKey,
    /// The recipients with their numbers within the message.
    pub(crate) recipients: Vec<(u16, Recipient)>,
}

/// Groups the recipients of a message by destination, in the order in which destinations first appear.
pub(crate) fn plan(directory: &Snapshot, ask: Planning<'_>, recipients: &[Recipient]) -> Vec<Planned> {
    let mut planned: Vec<Planned> = Vec::with_capacity(1);
    let mut by_destination: HashMap<Destination, usize> = HashMap::new();
    for (number, recipient) in recipients.iter().enumerate() {
        let number = u16::try_from(number).unwrap_or(u16::MAX);
        let destination = way(directory, ask.forwarding, ask.sender, &recipient.address).0;
        // Most messages have one destination: look at the last one before hashing.
        let last = planned.last().filter(|p| p.queue.destination == destination).map(|_| planned.len() - 1);
        let at = last.unwrap_or_else(|| {
            *by_destination.entry(destination.clone()).or_insert_with(|| {
                let queue = QueueKey { org: ask.org, stream: ask.stream, destination };
                planned.push(Planned { queue, recipients: Vec::new() });
                planned.len() - 1
            })
        });
        planned[at].recipients.push((number, recipient.clone()));
    }
    planned
}

/// Where mail from `sender` to `recipient` goes, and the route that says so; without a route, the mail exchangers of the
/// recipient's domain. A Maildir's template is filled in at delivery, so that all mailboxes share a queue.
pub(crate) fn way<'a>(
    directory: &'a Snapshot,
    forwarding: &Forwarding,
    sender: Option<&Address>,
    recipient: &Address,
) -> (Destination, Option<&'a Arc<Route>>) {
    if forwarding.reads(recipient) {
        return (Destination::Bounces, None);
    }
    directory.route(sender, recipient)
}

#[cfg(test)]
mod tests {
    use directory::{Directory, NewRoute};
    use mail::Clock;

    use super::*;

    fn route(domains: &[&str], senders: &[&str], to: &str) -> NewRoute {
        NewRoute {
            domains: domains.iter().map(|d| d.parse().unwrap()).collect(),
            senders: senders.iter().map(|s| s.parse().unwrap()).collect(),
            to: to.parse().unwrap(),
        }
    }

    async fn with_routes(routes: Vec<NewRoute>) -> (tempfile::TempDir, Arc<Snapshot>) {
        let dir = tempfile::tempdir().unwrap();
        let directory = Directory::open(dir.path(), Clock::system()).unwrap();
        directory.set_config(routes, Vec::new()).await.unwrap();
        (dir, directory.snapshot())
    }

    fn planned(directory: &Snapshot, sender: Option<&str>, recipients: &[&str]) -> Vec<(String, Vec<u16>)> {
        let sender = sender.map(|s| Address::parse(s).unwrap());
        let recipients: Vec<Recipient> =
            recipients.iter().map(|r| Recipient::new(Address::parse(r).unwrap())).collect();
        let ask = Planning {
            org: OrgId(7),
            stream: Stream::Bulk,
            sender: sender.as_ref(),
            forwarding: &Forwarding::default(),
        };
        let plan = plan(directory, ask, &recipients);
        for delivery in &plan {
            assert_eq!((delivery.queue.org, delivery.queue.stream), (OrgId(7), Stream::Bulk));
            for (number, recipient) in &delivery.recipients {
                assert_eq!(recipient, &recipients[usize::from(*number)]);
            }
        }
        plan.into_iter()
            .map(|p| (p.queue.destination.to_string(), p.recipients.iter().map(|r| r.0).collect()))
            .collect()
    }

    #[tokio::test]
    async fn recipients_are_grouped_by_destination_and_keep_their_numbers() {
        let (_dir, directory) = with_routes(vec![
            route(&["example.net"], &[], "lmtp://127.0.0.1:24"),
            route(&["mx.brand.example"], &[], "mx"),
            route(&["*.brand.example"], &[], "maildir:/mail/{domain}/{user}"),
            route(&[], &["*@brand.example"], "smarthost:upstream"),
        ])
        .await;
        let recipients = [
            "a@one.example",
            "b@example.net",
            "c@ONE.example",
            "d@x.brand.example",
            "e@example.net",
            "f@y.brand.example",
            "g@mx.brand.example",
            "a@one.example",
        ];
        let anyone = planned(&directory, Some("me@client.example"), &recipients);
        let expected = [
            ("mx:one.example", vec![0, 2, 7]),
            ("lmtp://127.0.0.1:24", vec![1, 4]),
            ("maildir:/mail/{domain}/{user}", vec![3, 5]),
            ("mx:mx.brand.example", vec![6]),
        ];
        assert_eq!(anyone, expected.map(|(to, numbers)| (to.to_owned(), numbers)));
        assert_eq!(planned(&directory, None, &recipients), anyone, "the null sender matches no sender");
        let brand = planned(&directory, Some("me@brand.example"), &recipients[..2]);
        assert_eq!(brand[0], ("smarthost:upstream".to_owned(), vec![0]));
        assert_eq!(brand[1].0, "lmtp://127.0.0.1:24", "the first route that matches counts");
    }

    #[tokio::test]
    async fn an_internationalised_domain_is_the_same_in_both_spellings() {
        let (_dir, directory) = with_routes(Vec::new()).await;
        let plan = planned(&directory, None, &["a@việt.example", "b@xn--vit-5kz.example"]);
        assert_eq!(plan, [("mx:xn--vit-5kz.example".to_owned(), vec![0, 1])]);
    }

    #[tokio::test]
    async fn a_thousand_recipients_at_a_thousand_domains_are_a_thousand_deliveries() {
        let (_dir, directory) = with_routes(Vec::new()).await;
        let recipients: Vec<String> = (0..1000).map(|n| format!("u@d{n}.example")).collect();
        let recipients: Vec<&str> = recipients.iter().map(String::as_str).collect();
        let plan = planned(&directory, None, &recipients);
        assert_eq!(plan.len(), 1000);
        assert!(plan.iter().all(|p| p.1.len() == 1));
    }
}
