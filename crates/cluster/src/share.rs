//! How a shared limit is divided among those who want some of it. Pure.

/// What one node wants of a limit and has of it now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Its number.
    pub node: u16,
    /// How much it would like.
    pub wanted: u64,
    /// How much it may use still, whatever is decided now.
    pub held: u64,
    /// Since when it has something, or when that was last; any unit that grows.
    pub served: i64,
}

/// How much node `me` gets of `capacity`: a fair share, never less than `in_use` (what cannot be given back at once,
/// such as a connection that is open), and never what another holds still.
///
/// Fair means that nobody who wants more has less than another. Where there is not one for each, those who have nothing come
/// first, who waited longest before the others; and whoever has had something longest gives it back: so a limit of one is
/// passed around. Where each has at least one, what is left of whole numbers stays with whoever has it.
pub fn share(capacity: u64, claims: &[Claim], me: u16, in_use: u64) -> u64 {
    let Some(mine) = claims.iter().find(|c| c.node == me) else { return in_use };
    let held: u64 = claims.iter().filter(|c| c.node != me).map(|c| c.held).fold(0, u64::saturating_add);
    let free = capacity.saturating_sub(held);
    fair_share(capacity, claims, me).min(free).min(mine.wanted).max(in_use)
}

/// The share of `me` if all could be divided anew. Never more than it wants.
pub fn fair_share(capacity: u64, claims: &[Claim], me: u16) -> u64 {
    let mut rest = capacity;
    let mut open: Vec<_> = claims.iter().filter(|c| c.wanted > 0).collect();
    // Who wants little is served first; what remains is divided among the others.
    open.sort_by_key(|c| (c.wanted, c.node));
    let mut first = 0;
    while first < open.len() {
        let each = rest / (open.len() - first) as u64;
        if open[first].wanted > each {
            break;
        }
        if open[first].node == me {
            return open[first].wanted;
        }
        rest -= open[first].wanted;
        first += 1;
    }
    let mut open = open.split_off(first);
    if open.is_empty() {
        return 0;
    }
    let many = open.len() as u64;
    let (each, extra) = (rest / many, rest % many);
    open.sort_by_key(|c| match each {
        0 if c.held > 0 => (1, c.served.saturating_neg(), c.node),
        0 => (0, c.served, c.node),
        _ if c.held > each => (0, 0, c.node),
        _ => (1, c.served, c.node),
    });
    match open.iter().position(|c| c.node == me) {
        Some(place) => each + u64::from((place as u64) < extra),
        None => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(node: u16, wanted: u64, held: u64, served: i64) -> Claim {
        Claim { node, wanted, held, served }
    }

    fn all(capacity: u64, claims: &[Claim]) -> Vec<u64> {
        claims.iter().map(|c| fair_share(capacity, claims, c.node)).collect()
    }

    #[test]
    fn nobody_who_wants_more_has_less() {
        assert_eq!(all(100, &[claim(1, 10, 0, 0), claim(2, 500, 0, 0), claim(3, 60, 0, 0)]), [10, 45, 45]);
        assert_eq!(all(100, &[claim(1, 10, 0, 0), claim(2, 20, 0, 0)]), [10, 20]);
        assert_eq!(all(100, &[claim(1, 0, 0, 0), claim(2, 200, 0, 0)]), [0, 100]);
        assert_eq!(all(0, &[claim(1, 5, 0, 0)]), [0]);
        // Two over, for those who waited longest.
        assert_eq!(all(5, &[claim(1, 9, 0, 30), claim(2, 9, 0, 10), claim(3, 9, 0, 20)]), [1, 2, 2]);
        for capacity in 0..60 {
            let claims = [claim(1, 7, 0, 4), claim(2, 30, 0, 2), claim(3, 30, 0, 3), claim(4, 1, 0, 1)];
            assert_eq!(
                all(capacity, &claims).iter().sum::<u64>(),
                capacity,
                "nothing is left over or lent twice"
            );
        }
    }

    #[test]
    fn what_another_holds_is_not_lent_again() {
        let claims = [claim(1, 100, 100, 5), claim(2, 100, 0, 0)];
        assert_eq!(share(100, &claims, 2, 0), 0);
        // When the first asks again it gets half, and then the second has room.
        assert_eq!(share(100, &claims, 1, 0), 50);
        assert_eq!(share(100, &[claim(1, 100, 50, 6), claim(2, 100, 0, 0)], 2, 0), 50);
        // It cannot give back what is in use.
        assert_eq!(share(100, &claims, 1, 80), 80);
    }

    #[test]
    fn a_limit_of_one_goes_around() {
        let mut claims = [claim(1, 1, 0, 0), claim(2, 1, 0, 0), claim(3, 1, 0, 0)];
        let mut turns = Vec::new();
        for now in 1..=30 {
            for i in 0..3 {
                let got = share(1, &claims, claims[i].node, 0);
                if got > 0 && claims[i].held == 0 {
                    claims[i].served = now;
                }
                claims[i].held = got;
                if got > 0 {
                    turns.push(claims[i].node);
                }
                assert!(claims.iter().map(|c| c.held).sum::<u64>() <= 1);
            }
        }
        for node in 1..=3 {
            assert!(turns.iter().filter(|t| **t == node).count() >= 6, "{turns:?}");
        }
    }

    /// However they take turns in asking, and whoever had it all at first.
    #[test]
    fn all_have_nearly_the_same_in_the_end_and_places_that_are_too_few_go_around() {
        for (capacity, nodes) in [(7, 3), (2, 3), (5, 2), (20, 3), (3, 4)] {
            let mut claims: Vec<Claim> = (1..=nodes).map(|node| claim(node, 50, 0, 0)).collect();
            claims[0].held = capacity;
            let mut had = vec![0; claims.len()];
            for now in 1..=400 {
                for i in 0..claims.len() {
                    let got = share(capacity, &claims, claims[i].node, 0);
                    if got > 0 && claims[i].held == 0 {
                        claims[i].served = now;
                    }
                    claims[i].held = got;
                }
                claims.iter().zip(&mut had).for_each(|(c, had)| *had += c.held);
            }
            let all: u64 = had.iter().sum();
            let each = all / u64::from(nodes);
            assert!(all > 400 * capacity * 6 / 10, "{had:?} of {capacity}");
            assert!(had.iter().all(|&had| had > each / 2 && had < each * 2), "{had:?} of {capacity}");
        }
    }
}
