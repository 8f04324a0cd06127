use super::*;

const OWNER: &str = "198.51.100.7";
const LOGIN: &str = "shop";

fn at(ms: u64) -> Mono {
    Mono(Duration::from_millis(ms))
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// One attempt with a wrong password, if it is allowed.
fn guess(backoff: &Backoff, address: &str, password: &str, now: u64) -> bool {
    let allowed = backoff.ask(LOGIN, ip(address), at(now)).is_ok();
    if allowed {
        backoff.failed(LOGIN, ip(address), Some(password), at(now));
    }
    allowed
}

#[test]
fn failures_from_one_address_slow_it_down_and_success_forgives() {
    let backoff = Backoff::default();
    let mut waits = Vec::new();
    let mut now = 0;
    for n in 0..10 {
        while backoff.ask(LOGIN, ip(OWNER), at(now)).is_err() {
            now += 500;
        }
        waits.push(now);
        backoff.failed(LOGIN, ip(OWNER), Some(&format!("guess {n}")), at(now));
    }
    let gaps: Vec<u64> = waits.windows(2).map(|w| w[1] - w[0]).collect();
    assert_eq!(gaps, [0, 0, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]);
    now += 30_000;
    assert!(backoff.ask(LOGIN, ip(OWNER), at(now)).is_ok());
    backoff.succeeded(LOGIN, ip(OWNER), at(now));
    for _ in 0..50 {
        assert!(backoff.ask(LOGIN, ip(OWNER), at(now)).is_ok());
    }
}

#[test]
fn no_wait_is_longer_than_thirty_seconds() {
    let backoff = Backoff::default();
    for n in 0..200u32 {
        // Whatever is asked, whoever fails.
        backoff.failed(LOGIN, ip("192.0.2.1"), Some(&n.to_string()), at(0));
    }
    for address in ["192.0.2.1", OWNER] {
        let wait = backoff.ask(LOGIN, ip(address), at(0)).unwrap_err();
        assert!(wait <= WAIT_MAX, "{wait:?}");
    }
}

/// Strangers go on guessing from ever new addresses, each attempt right when it is allowed; the owner comes back when
/// told to.
#[test]
fn the_owner_elsewhere_is_never_out_for_more_than_thirty_seconds() {
    let backoff = Backoff::default();
    let mut told = None;
    for second in 0..120u64 {
        for n in 0..20u64 {
            let address = format!("203.0.{}.{}", second % 256, n);
            guess(&backoff, &address, "x", second * 1000);
        }
        if second == 20 {
            let wait = backoff.ask(LOGIN, ip(OWNER), at(second * 1000)).unwrap_err();
            assert!(wait <= WAIT_MAX);
            told = Some(second * 1000 + u64::try_from(wait.as_millis()).unwrap());
        }
        if told.is_some_and(|t| t <= second * 1000) {
            assert!(second <= 50);
            assert!(backoff.ask(LOGIN, ip(OWNER), at(second * 1000)).is_ok());
            backoff.succeeded(LOGIN, ip(OWNER), at(second * 1000));
            told = None;
        }
        if second > 50 {
            assert!(backoff.ask(LOGIN, ip(OWNER), at(second * 1000)).is_ok(), "known good now");
        }
    }
}

#[test]
fn asking_while_blocked_does_not_move_the_promise() {
    let backoff = Backoff::default();
    for n in 0..30 {
        guess(&backoff, &format!("203.0.113.{n}"), "x", 0);
    }
    let first = backoff.ask(LOGIN, ip(OWNER), at(0)).unwrap_err();
    for ms in (0..u64::try_from(first.as_millis()).unwrap()).step_by(100) {
        guess(&backoff, &format!("198.18.{}.{}", ms / 25_600, ms / 100 % 256), "y", ms);
        assert!(backoff.ask(LOGIN, ip(OWNER), at(ms)).unwrap_err() <= first);
    }
    assert!(backoff.ask(LOGIN, ip(OWNER), Mono(first)).is_ok());
}

#[test]
fn an_old_password_in_a_telephone_counts_once() {
    let backoff = Backoff::default();
    for n in 0..1000 {
        assert!(guess(&backoff, OWNER, "last year's", n * 60_000));
    }
    assert!(backoff.ask(LOGIN, ip(OWNER), at(60_000_000)).is_ok());
}

#[test]
fn spraying_many_logins_from_one_address_slows_it_down() {
    let backoff = Backoff::default();
    let attacker = ip("2001:db8::1");
    let mut allowed = 0;
    for n in 0..100 {
        let login = format!("user{n}");
        // Its whole /64 counts as one.
        let address = ip(&format!("2001:db8::{n:x}"));
        if backoff.ask(&login, address, at(0)).is_ok() {
            allowed += 1;
            backoff.failed(&login, address, Some("123456"), at(0));
        }
    }
    assert_eq!(allowed, FREE_ADDRESS);
    assert!(backoff.ask("somebody", attacker, at(0)).is_err());
    assert!(backoff.ask("somebody", ip("2001:db8:0:1::1"), at(0)).is_ok());
}

#[test]
fn who_is_known_good_does_not_suffer_from_neighbours_behind_one_address() {
    let backoff = Backoff::default();
    assert!(backoff.ask(LOGIN, ip(OWNER), at(0)).is_ok());
    backoff.succeeded(LOGIN, ip(OWNER), at(0));
    for n in 0..100 {
        let login = format!("other{n}");
        if backoff.ask(&login, ip(OWNER), at(10)).is_ok() {
            backoff.failed(&login, ip(OWNER), Some("x"), at(10));
        }
    }
    assert!(backoff.ask("another", ip(OWNER), at(20)).is_err());
    assert!(backoff.ask(LOGIN, ip(OWNER), at(20)).is_ok());
}

#[test]
fn many_connections_at_once_do_not_buy_many_guesses() {
    let backoff = Backoff::default();
    for n in 0..3 {
        guess(&backoff, OWNER, &format!("{n}"), 0);
    }
    let later = 60_000;
    let allowed = (0..50).filter(|_| backoff.ask(LOGIN, ip(OWNER), at(later)).is_ok()).count();
    assert_eq!(allowed, 1);
}

#[test]
fn failures_are_forgotten() {
    let backoff = Backoff::default();
    for n in 0..5 {
        backoff.failed(LOGIN, ip(OWNER), Some(&n.to_string()), at(0));
    }
    let later = 2 * 3_600_000;
    for n in 0..2 {
        assert!(guess(&backoff, OWNER, &format!("later {n}"), later), "{n}");
    }
}

#[test]
fn memory_is_bounded() {
    let backoff = Backoff::default();
    for n in 0..120_000u32 {
        backoff.failed(&format!("u{n}"), IpAddr::V4((n + (10 << 24)).into()), None, at(u64::from(n)));
    }
    let entries = backoff.entries.lock().len();
    assert!(entries <= ENTRIES_MAX && entries > ENTRIES_MAX / 2, "{entries}");
}
