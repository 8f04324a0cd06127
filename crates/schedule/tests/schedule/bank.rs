//! The database that lends, as `cluster::Borrow` does it, with a clock of its own.

use std::collections::BTreeMap;
use std::time::Duration;

use cluster::{Claim, GRANT, fair_share, share};
use mail::Mono;
use schedule::{Granted, Wish};

/// What a node has of a limit.
#[derive(Clone, Copy, Debug)]
struct Loan {
    amount: u64,
    wanted: u64,
    served: i64,
    expires: Mono,
    lasts: Duration,
}

#[derive(Default)]
pub(crate) struct Bank {
    loans: BTreeMap<String, BTreeMap<u16, Loan>>,
    pub(crate) commits: u64,
    /// Since a fail-over more may seem to be lent than there is.
    moved: bool,
}

impl Bank {
    /// One commit.
    pub(crate) fn lend(&mut self, node: u16, wishes: &[Wish], asked: Mono, now: Mono) -> Vec<Granted> {
        self.commits += 1;
        let until = asked.plus(GRANT - Duration::from_secs(1));
        wishes
            .iter()
            .map(|wish| {
                assert!(wish.in_use <= wish.wanted, "{wish:?}");
                let loans = self.loans.entry(wish.key.clone()).or_default();
                let had = loans.get(&node).filter(|loan| loan.expires > now).map_or(0, |loan| loan.amount);
                let lapsed = loans.get(&node).is_some_and(|loan| loan.expires <= now);
                assert!(lapsed || wish.in_use <= had, "{wish:?}, and {had} were lent");
                let others = loans.iter().filter(|(other, loan)| **other != node && loan.expires > now);
                let mut claims: Vec<Claim> = others.map(|(&node, loan)| claim(node, loan)).collect();
                let served = loans.get(&node).map_or(0, |loan| loan.served);
                claims.push(Claim { node, wanted: wish.wanted, held: had, served });
                let amount = share(wish.capacity, &claims, node, wish.in_use);
                let fair = fair_share(wish.capacity, &claims, node);
                let served =
                    if amount > 0 && had == 0 { i64::try_from(now.0.as_millis()).unwrap() } else { served };
                let expires = now.plus(GRANT + wish.lasts);
                loans.insert(node, Loan { amount, wanted: wish.wanted, served, expires, lasts: wish.lasts });
                let lent: u64 =
                    loans.values().filter(|loan| loan.expires > now).map(|loan| loan.amount).sum();
                assert!(lapsed || self.moved || lent <= wish.capacity, "{}: {lent} are lent", wish.key);
                Granted { key: wish.key.clone(), amount, fair, until }
            })
            .collect()
    }

    /// Another server takes over: what was lent is worth its full time from now.
    pub(crate) fn fail_over(&mut self, now: Mono) {
        self.moved = true;
        for loan in self.loans.values_mut().flat_map(BTreeMap::values_mut) {
            loan.expires = now.plus(GRANT + loan.lasts);
        }
    }
}

fn claim(node: u16, loan: &Loan) -> Claim {
    Claim { node, wanted: loan.wanted, held: loan.amount, served: loan.served }
}
