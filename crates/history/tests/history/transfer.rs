//! Rows are carried from one engine to the other and back.

use history::{History, Mark, Record, TraceQuery};
use mail::{Disposition, Event, ManualClock};

use crate::common::*;
use crate::engine::Engine;

/// All rows, by pages of this size.
pub(crate) async fn rows(history: &History, page: usize) -> Vec<Record> {
    let (mut all, mut after) = (Vec::<Record>::new(), None::<Mark>);
    loop {
        let some = history.export(after, page).await.unwrap();
        let Some(last) = some.last() else { return all };
        after = Some(last.mark());
        all.extend(some);
    }
}

/// Carries a history to the other engine, and from there to one like its own; all three must tell the same.
pub(crate) async fn there_and_back(engine: &Engine, from: &History, clock: &ManualClock) {
    let fresh = |postgres: bool| if postgres { Engine::postgres() } else { Engine::files() };
    let own = matches!(engine, Engine::Postgres(_));
    let all = rows(from, 7).await;
    assert!(all.windows(2).all(|w| w[0].mark() <= w[1].mark()), "in order");
    assert_eq!(rows(from, 1000).await, all, "however large the pages are");
    let told = from.trace(everything()).await.unwrap();
    let mut engines = Vec::new();
    for postgres in [!own, own] {
        let engine = fresh(postgres);
        let there = engine.open(clock).await;
        for page in all.chunks(5) {
            there.import(page.to_vec()).await.unwrap();
        }
        // As after a crash: some pages are told again.
        for page in all.chunks(9).take(3) {
            there.import(page.to_vec()).await.unwrap();
        }
        assert_eq!(rows(&there, 7).await, all);
        assert_eq!(there.trace(everything()).await.unwrap(), told);
        engines.push((engine, there));
    }
}

fn everything() -> TraceQuery {
    TraceQuery { limit: Some(1000), ..TraceQuery::default() }
}

fn found_by(recipient: &str) -> TraceQuery {
    TraceQuery { recipient: Some(recipient.into()), ..TraceQuery::default() }
}

#[tokio::test]
async fn a_history_goes_into_postgresql_and_on() {
    let clock = ManualClock::new(START);
    let (files, tables) = (Engine::files(), Engine::postgres());
    let before = files.open(&clock).await;
    let mut seq = 0;
    let mut tell = |event| {
        seq += 1;
        (seq, event)
    };
    let mut waiting = Vec::new();
    for day in 0..5u64 {
        let now = clock.clock().now();
        let mut batch: Vec<(u64, Event)> = Vec::new();
        for n in 0..50 {
            let it = id(now, n);
            let to = format!("r{day}-{n}@example.org");
            batch.push(tell(accepted(message(it, now, "ann@example.com", None), &[&to])));
            match n % 3 {
                0 => batch.push(tell(attempt(it, now, &[(0, Disposition::Delivered)]))),
                1 => batch.push(tell(attempt(it, now, &[(0, Disposition::Deferred)]))),
                _ => waiting.push((it, to)),
            }
        }
        before.append(batch).await.unwrap();
        clock.advance(DAY);
    }
    let after = tables.node(3, &clock, history::Config::default()).await;
    let mut mark = None;
    loop {
        let page = before.export(mark, 20).await.unwrap();
        let Some(last) = page.last() else { break };
        // The mark may be kept as text in between.
        let text = serde_json::to_string(&last.mark()).unwrap();
        mark = Some(serde_json::from_str(&text).unwrap());
        after.import(page).await.unwrap();
    }
    assert_eq!(after.stats().last, 0, "numbers of the outbox are not carried");
    assert_eq!(after.trace(everything()).await.unwrap(), before.trace(everything()).await.unwrap());
    // The messages that wait go on in the new history, with numbers that begin anew.
    for (seq, (it, to)) in (1..).zip(&waiting) {
        let now = clock.clock().now();
        after.append(vec![(seq, attempt(*it, now, &[(0, Disposition::Delivered)]))]).await.unwrap();
        let found = after.trace(found_by(to)).await.unwrap();
        assert_eq!((found.len(), found[0].recipients[0].end), (1, history::End::Delivered), "{to}");
    }
    there_and_back(&tables, &after, &clock).await;
    // What was imported is dropped like the rest.
    clock.advance(DAY * 29);
    after.sweep().await.unwrap();
    assert!(after.trace(found_by("r0-0@example.org")).await.unwrap().is_empty());
    assert_eq!(after.trace(found_by("r4-0@example.org")).await.unwrap().len(), 1);
    // Deferred on the first day and nothing since: it is still in the queue.
    assert_eq!(after.trace(found_by("r0-1@example.org")).await.unwrap().len(), 1);
}
