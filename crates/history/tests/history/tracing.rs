//! What a timeline tells, and by what it is found.

use history::{End, TraceQuery, What};
use mail::{Disposition, Event, EventKind, ManualClock, MessageId, ReportKind, Timestamp};

use crate::common::*;
use crate::engine::{Engine, on_both};

on_both!(
    a_message_that_goes_through_at_once_is_one_row,
    a_long_story_in_its_order,
    every_way_to_ask,
    what_was_appended_is_found_again_after_a_restart_and_never_twice,
    an_alias_is_found_and_a_late_bounce_ends_a_delivery,
);

fn by_text(text: &str) -> TraceQuery {
    TraceQuery { text: Some(text.into()), ..TraceQuery::default() }
}

async fn a_message_that_goes_through_at_once_is_one_row(engine: Engine) {
    let clock = ManualClock::new(START);
    let history = engine.open(&clock).await;
    let (one, two) = (id(START, 1), id(START, 2));
    let later = START.plus(std::time::Duration::from_millis(40));
    history
        .append(vec![
            (
                1,
                accepted(message(one, START, "ann@example.com", Some("1@example.com")), &["bob@example.org"]),
            ),
            (2, attempt(one, later, &[(0, Disposition::Delivered)])),
            (
                3,
                accepted(
                    message(two, START, "ann@example.com", None),
                    &["bob@example.org", "eve@example.net"],
                ),
            ),
            (4, attempt(two, later, &[(0, Disposition::Delivered)])),
        ])
        .await
        .unwrap();
    // The second half comes with the next batch.
    history.append(vec![(5, attempt(two, later, &[(1, Disposition::Delivered)]))]).await.unwrap();
    // Rows in PostgreSQL are written once, so that it has a row of its own there.
    let late = i64::from(matches!(engine, Engine::Postgres(_)));
    assert_eq!((engine.rows("message"), engine.rows("event")), (2, late));

    let found = history.trace(by_text("ann@example.com")).await.unwrap();
    assert_eq!(found.iter().map(|t| t.id).collect::<Vec<_>>(), [two, one]);
    let timeline = &found[0];
    assert_eq!(timeline.steps.len(), 2);
    assert_eq!(timeline.steps[0].at, later);
    let What::Attempt(view) = &timeline.steps[1].what else { panic!("{timeline:?}") };
    assert_eq!(
        (view.host.as_deref(), view.address.as_deref()),
        (Some("mx.example.org"), Some("198.51.100.1:25"))
    );
    assert_eq!((view.outcomes[0].recipient.as_str(), view.outcomes[0].code), ("eve@example.net", Some(250)));
    assert!(
        timeline.recipients.iter().all(|r| r.end == End::Delivered && r.since == later && r.attempts == 1)
    );
    let accepted = timeline.accepted.as_ref().unwrap();
    assert_eq!(
        (accepted.sender.as_str(), accepted.client.as_deref()),
        ("ann@example.com", Some("192.0.2.7"))
    );
}

async fn a_long_story_in_its_order(engine: Engine) {
    let clock = ManualClock::new(START);
    let history = engine.open(&clock).await;
    let it = id(START, 1);
    let report = id(START, 9);
    let to = ["a@example.org", "b@example.org", "c@example.org", "d@example.org"];
    let at = |n: i64| Timestamp(START.millis() + n * 1000);
    let by = || "root (uid 0)".to_owned();
    let event = |n: i64, kind| Event { at: at(n), message: it, kind };
    use Disposition::{Deferred, Delivered, Refused};
    let story = [
        accepted(message(it, at(0), "ann@example.com", None), &to),
        attempt(it, at(1), &[(0, Delivered), (1, Refused), (2, Deferred), (3, Deferred)]),
        event(2, EventKind::Reported { kind: ReportKind::Failure, report, recipients: vec![1] }),
        event(3, EventKind::Held { by: by(), reason: "looks odd".into() }),
        event(4, EventKind::Released { by: by() }),
        event(5, EventKind::Rerouted { by: by(), to: "smarthost:up".parse().unwrap() }),
        event(6, EventKind::Retried { by: by() }),
        attempt(it, at(7), &[(2, Deferred), (3, Deferred)]),
        event(8, EventKind::Removed { by: by(), recipients: vec![3] }),
        event(9, EventKind::Expired { recipients: vec![2] }),
    ];
    let mut ends = Vec::new();
    for (n, event) in (1..).zip(&story) {
        history.append(vec![(n, event.clone())]).await.unwrap();
        let timeline = history.trace(by_text(&it.to_string())).await.unwrap().remove(0);
        ends.push(timeline.recipients.iter().map(|r| r.end).collect::<Vec<_>>());
    }
    use End::{Delivered as D, Expired as E, Held as H, Queued as Q, Refused as R, Removed as X};
    assert_eq!(
        ends,
        [
            [Q, Q, Q, Q],
            [D, R, Q, Q],
            [D, R, Q, Q],
            [D, R, H, H],
            [D, R, Q, Q],
            [D, R, Q, Q],
            [D, R, Q, Q],
            [D, R, Q, Q],
            [D, R, Q, X],
            [D, R, E, X],
        ]
    );
    let timeline = history.trace(by_text(&format!("{it}-0"))).await.unwrap().remove(0);
    let words: Vec<String> = timeline
        .steps
        .iter()
        .map(|s| serde_json::to_value(s).unwrap()["what"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(
        words,
        ["attempt", "reported", "held", "released", "rerouted", "retried", "attempt", "removed", "expired"]
    );
    assert!(timeline.steps.is_sorted_by_key(|s| s.at));
    let What::Attempt(first) = &timeline.steps[0].what else { panic!() };
    assert!(first.transcript.as_ref().unwrap().contains("S: 450 4.1.1"));
    assert_eq!(timeline.recipients[2].attempts, 2);
    assert_eq!(timeline.recipients[2].last.as_ref().unwrap().text, "try later");

    // As JSON and back: what the command line reads is what the API wrote.
    let json = serde_json::to_string(&timeline).unwrap();
    assert_eq!(serde_json::from_str::<history::Timeline>(&json).unwrap(), timeline);
    assert!(
        json.contains(&format!("\"id\":\"{it}\"")) && json.contains("\"at\":\"2026-11-24T07:00:01.000Z\"")
    );
}

async fn every_way_to_ask(engine: Engine) {
    let clock = ManualClock::new(START);
    let history = engine.open(&clock).await;
    let at = |n: u64| START.plus(std::time::Duration::from_secs(n * 60));
    let mut batch = Vec::new();
    for (n, sender, message_id, to) in [
        (1, "Ann@Example.com", Some("one@example.com"), &["bob@example.org"][..]),
        (2, "ann@example.com", None, &["eve@example.net", "bob@example.org"]),
        (3, "", Some("three@relay.example"), &["ann@example.com"]),
        (4, "bob@example.org", Some("four@example.org"), &["x@bücher.example"]),
    ] {
        let mut it = message(id(at(n), 0), at(n), sender, message_id);
        it.org = mail::OrgId(if n == 4 { 2 } else { 1 });
        batch.push((n, accepted(it, to)));
    }
    history.append(batch).await.unwrap();
    let ask = async |query: TraceQuery| -> Vec<u64> {
        let found = history.trace(query).await.unwrap();
        found.iter().map(|t| (1..=4).find(|n| t.id == id(at(*n), 0)).unwrap()).collect()
    };
    let with = |set: fn(&mut TraceQuery, String), value: &str| {
        let mut query = TraceQuery::default();
        set(&mut query, value.to_owned());
        query
    };
    for (query, wanted) in [
        (by_text("ANN@example.com"), vec![3, 2, 1]),
        (by_text("<ann@example.com>"), vec![3, 2, 1]),
        (by_text("bob@example.org"), vec![4, 2, 1]),
        (by_text("example.org"), vec![2, 1]),
        (by_text("@example.net"), vec![2]),
        (by_text("xn--bcher-kva.example"), vec![4]),
        (by_text("bücher.example"), vec![4]),
        (by_text("one@example.com"), vec![1]),
        (by_text("<three@relay.example>"), vec![3]),
        (by_text("<>"), vec![3]),
        (by_text(&id(at(2), 0).to_string().to_uppercase()), vec![2]),
        (by_text("nobody@example.com"), vec![]),
        (by_text("com"), vec![]),
        (TraceQuery::default(), vec![4, 3, 2, 1]),
        (TraceQuery { limit: Some(2), ..TraceQuery::default() }, vec![4, 3]),
        (TraceQuery { limit: Some(2), ..by_text("ann@example.com") }, vec![3, 2]),
        (TraceQuery { org: Some(2), ..TraceQuery::default() }, vec![4]),
        (TraceQuery { org: Some(2), ..by_text("ann@example.com") }, vec![]),
        (TraceQuery { org: Some(2), id: Some(id(at(1), 0).to_string()), ..TraceQuery::default() }, vec![]),
        (TraceQuery { since: Some(at(2).0), until: Some(at(4).0), ..TraceQuery::default() }, vec![3, 2]),
        (TraceQuery { since: Some(at(2).0), ..by_text("ann@example.com") }, vec![3, 2]),
        (with(|q, v| q.sender = Some(v), "ann@example.com"), vec![2, 1]),
        (with(|q, v| q.sender = Some(v), ""), vec![3]),
        (with(|q, v| q.recipient = Some(v), "ann@example.com"), vec![3]),
        (with(|q, v| q.domain = Some(v), "Example.ORG"), vec![2, 1]),
        (with(|q, v| q.message_id = Some(v), "<four@example.org>"), vec![4]),
        (
            TraceQuery {
                sender: Some("ann@example.com".into()),
                recipient: Some("eve@example.net".into()),
                ..TraceQuery::default()
            },
            vec![2],
        ),
    ] {
        assert_eq!(ask(query.clone()).await, wanted, "{query:?}");
    }
    assert!(history.trace(with(|q, v| q.id = Some(v), "nonsense")).await.is_err());
    assert!(history.trace(by_text(&MessageId(77).to_string())).await.unwrap().is_empty());
}

async fn what_was_appended_is_found_again_after_a_restart_and_never_twice(engine: Engine) {
    let clock = ManualClock::new(START);
    let history = engine.open(&clock).await;
    let batch = |from: u64| -> Vec<(u64, Event)> {
        (from..from + 10)
            .map(|n| {
                let it = id(START, n / 2);
                let event = if n % 2 == 0 {
                    accepted(message(it, START, "ann@example.com", None), &["bob@example.org"])
                } else {
                    attempt(it, START, &[(0, Disposition::Deferred)])
                };
                (n, event)
            })
            .collect()
    };
    history.append(batch(2)).await.unwrap();
    assert_eq!(history.stats().last, 11);
    history.close().await;
    assert!(history.append(batch(12)).await.is_err());
    assert_eq!(history.trace(by_text("ann@example.com")).await.unwrap().len(), 5, "reading goes on");

    let history = engine.open(&clock).await;
    assert_eq!(history.stats().last, 11);
    // The outbox tells of the last ones again, as its deletion was lost.
    history.append(batch(6)).await.unwrap();
    assert_eq!(history.stats().last, 15);
    assert_eq!((engine.rows("message"), engine.rows("event")), (7, 7));
    for timeline in history.trace(by_text("ann@example.com")).await.unwrap() {
        assert_eq!((timeline.steps.len(), timeline.recipients[0].attempts), (1, 1));
    }
}

async fn an_alias_is_found_and_a_late_bounce_ends_a_delivery(engine: Engine) {
    let clock = ManualClock::new(START);
    let history = engine.open(&clock).await;
    let one = id(START, 1);
    let mut first = accepted(message(one, START, "ann@example.com", None), &["bob@example.org"]);
    let EventKind::Accepted(told) = &mut first.kind else { panic!() };
    told.recipients[0].orcpt = Some("rfc822;sales+2Bnow@example.net".into());
    let forwarded = EventKind::Forwarded {
        recipients: vec![(mail::Address::parse("sales+now@example.net").unwrap(), vec![0])],
        sender: None,
    };
    let bounced = EventKind::Bounced {
        recipient: 0,
        outcome: outcome(Disposition::Refused),
        class: mail::BounceClass::Recipient,
        report: None,
    };
    let of = |kind| Event { at: START, message: one, kind };
    let delivered = attempt(one, START, &[(0, Disposition::Delivered)]);
    history.append(vec![(1, first), (2, of(forwarded)), (3, delivered), (4, of(bounced))]).await.unwrap();
    let query = TraceQuery { recipient: Some("sales+now@example.net".into()), ..TraceQuery::default() };
    let found = history.trace(query).await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].recipients[0].end, End::Bounced);
}
