//! Which site a destination is at.

use std::time::Duration;

use mail::{Destination, Site};

use super::Driver;

/// Longest that deliveries wait to be told where their destination is. After that they are tried as if it were on its own:
/// the attempt meets the same slow name server, and says so.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long a guess holds.
const GUESSED: Duration = Duration::from_secs(60);

/// Asks the engine, and tells the scheduler.
pub(super) async fn locate(driver: Driver, destination: Destination) {
    let (site, valid) = if driver.0.settings.load().policy.is_apart(&destination) {
        // The operator gave this domain bounds of its own.
        (Site::Alone(destination.clone()), Duration::from_secs(3600))
    } else {
        // How many ask at a time is bounded: each question is some kilobytes and a socket.
        let _turn = driver.0.locating.acquire().await;
        match tokio::time::timeout(PATIENCE, driver.0.engine.locate(&destination)).await {
            Ok(located) => (located.site, located.valid),
            Err(_) => (Site::Alone(destination.clone()), GUESSED),
        }
    };
    driver.with_core(|core, now, out| core.scheduler.located(&destination, site, valid, now, out));
}
