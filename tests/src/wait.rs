//! Waiting for events instead of sleeping, and ports that nobody else takes.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use mail::Clock;

/// Asks `probe` every few milliseconds until it answers; panics with `what` after `within`.
pub fn eventually<T>(what: &str, within: Duration, mut probe: impl FnMut() -> Option<T>) -> T {
    let clock = Clock::system();
    let mut pause = Duration::from_millis(2);
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(clock.mono().0 < within, "{what}: not within {within:?}");
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// A loopback port that nothing listens on. Neighbours cannot tell which port they were given by the kernel, so they
/// get one from below the ephemeral range, from a stretch that belongs to this test process alone.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let slot = std::env::var("NEXTEST_TEST_GLOBAL_SLOT").ok().and_then(|s| s.parse::<u32>().ok());
    let stretch = slot.unwrap_or_else(|| 16 + std::process::id() % 16);
    let spread = std::process::id() * 37;
    loop {
        let step = u32::from(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = u16::try_from(12_000 + (stretch % 32) * 600 + (spread + step) % 600).unwrap();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() && TcpListener::bind(("0.0.0.0", port)).is_ok() {
            return port;
        }
    }
}

/// `127.0.0.1:port`.
pub fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// Waits until something answers at `addr`.
pub fn until_listening(what: &str, addr: SocketAddr) {
    eventually(&format!("{what} listens on {addr}"), Duration::from_secs(20), || {
        TcpStream::connect_timeout(&addr, Duration::from_millis(500)).ok()
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_ports_differ_and_are_free() {
        let a = free_port();
        let b = free_port();
        assert_ne!(a, b);
        TcpListener::bind(loopback(a)).unwrap();
        TcpListener::bind(loopback(b)).unwrap();
    }

    #[test]
    #[should_panic(expected = "never true")]
    fn eventually_gives_up() {
        eventually::<()>("never true", Duration::from_millis(20), || None);
    }
}
