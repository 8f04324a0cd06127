//! The judgement that every scenario ends in.

use std::collections::BTreeMap;
use std::time::Duration;

use posthouse_tests::wait::eventually;

use super::arrivals::{Arrival, REFUSED};
use super::driver::{Driver, Outcome};
use super::world::{EVER, Fault, Nodes};

/// So long before a fault a message may have come of which the node could not write down any more that it was taken: the answer
/// has to be read, and the commit to be made on two engines of a busy machine.
const UNTOLD: Duration = Duration::from_secs(5);

/// What a scenario came to.
#[derive(Debug)]
pub(crate) struct Verdict {
    /// Letters that came more than once, and may have.
    pub(crate) copies: usize,
}

impl Nodes {
    /// Stops the clients and waits until nothing is under way any more. Then all that was acknowledged was delivered or
    /// reported, the queue is empty on every node, and what came twice had a reason to.
    pub(crate) fn judge(&self, name: &str, mut driver: Driver) -> Verdict {
        driver.stop();
        let promised = driver.promised();
        assert_eq!(promised, driver.with(|outcome| *outcome == Outcome::Acknowledged), "{name}: the journal");
        let promised = &promised | &self.sent();
        let node = &self.relays[*self.running().first().expect("a node that runs")].relay;
        // What was under way in three crashes is held, for it may be the cause; here it is not.
        eventually("what is held is let go", EVER, || {
            node.try_cli(&["queue", "release", "--all"]).0.success().then_some(())
        });
        let clock = mail::Clock::system();
        loop {
            let accounted = self.arrivals.accounted();
            let missing: Vec<_> = promised.difference(&accounted).collect();
            if missing.is_empty() {
                break;
            }
            let some = &missing[..missing.len().min(10)];
            let queue = || node.try_cli(&["queue", "list"]).1;
            assert!(
                clock.mono().0 < EVER,
                "{name}: {} of {} acknowledged letters were neither delivered nor reported, such as {some:?}; \
                 in the queue:\n{}",
                missing.len(),
                promised.len(),
                queue()
            );
            std::thread::sleep(Duration::from_millis(200));
        }
        for n in self.running() {
            self.relays[n].relay.wait_empty(EVER);
        }
        assert_eq!(self.arrivals.spoilt(), Vec::<String>::new(), "{name}");
        let arrivals = self.arrivals.all();
        let copies = copies(name, &arrivals, &self.faults());
        let refused = driver.with(|outcome| matches!(outcome, Outcome::Refused(_)));
        let cut = driver.with(|outcome| matches!(outcome, Outcome::Cut(_)));
        let accounted = self.arrivals.accounted();
        let against: Vec<_> = refused.intersection(&accounted).collect();
        // A node that said so and then died may not have had the time to take it back.
        assert!(!self.faults().is_empty() || against.is_empty(), "{name}: refused and sent on: {against:?}");
        println!(
            "MEASURED {name}: {} letters acknowledged, {} refused, {} cut off, {} to {REFUSED} reported, {copies} copies, \
             {} refused and sent on",
            promised.len(),
            refused.len(),
            cut.len(),
            arrivals.iter().filter(|a| a.report).count(),
            against.len(),
        );
        Verdict { copies }
    }
}

/// Counts what came more than once; every copy but the last has to come from a node that could not tell of it.
fn copies(name: &str, arrivals: &[Arrival], faults: &[Fault]) -> usize {
    let mut of_letter: BTreeMap<(&str, bool), Vec<&Arrival>> = BTreeMap::new();
    for arrival in arrivals.iter().filter(|a| a.taken) {
        of_letter.entry((&arrival.id, arrival.report)).or_default().push(arrival);
    }
    let mut copies = 0;
    for mut came in of_letter.into_values().filter(|came| came.len() > 1) {
        came.sort_by_key(|a| a.at);
        for untold in &came[..came.len() - 1] {
            assert!(
                excused(untold, faults),
                "{name}: this came again without a reason: {came:#?}; {faults:#?}"
            );
        }
        copies += came.len() - 1;
    }
    copies
}

/// Whether the node could not tell of it.
fn excused(arrival: &Arrival, faults: &[Fault]) -> bool {
    faults.iter().filter(|fault| fault.node == arrival.from).any(|fault| {
        let from = fault.from.saturating_sub(UNTOLD);
        from <= arrival.at && fault.until.is_none_or(|until| arrival.at <= until)
    })
}

#[test]
fn a_copy_needs_a_reason() {
    let at = |node: u8, seconds: u64| Arrival {
        id: "letter-1".to_owned(),
        report: false,
        from: [10, 77, 0, node].into(),
        at: Duration::from_secs(seconds),
        taken: true,
    };
    let fault = Fault {
        node: [10, 77, 0, 1].into(),
        from: Duration::from_secs(20),
        until: Some(Duration::from_secs(50)),
    };
    assert_eq!(copies("one", &[at(1, 30)], &[]), 0);
    assert_eq!(copies("killed while it was answered", &[at(1, 19), at(2, 31)], &[fault]), 1);
    for (first, second) in [(at(2, 19), at(1, 31)), (at(1, 10), at(2, 31)), (at(1, 51), at(2, 60))] {
        let twice = [first, second];
        assert!(std::panic::catch_unwind(|| copies("no reason", &twice, &[fault])).is_err(), "{twice:?}");
    }
}
