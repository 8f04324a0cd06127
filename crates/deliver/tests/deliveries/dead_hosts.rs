//! A mail exchanger that does not work costs a connection now and then, and not a time-out for every message.

use std::time::Duration;

use crate::exchangers::{Dns, deliver, pair};
use crate::peer::{Act, Behaviour, bye};
use crate::support::{outcomes, until};

fn busy() -> Behaviour {
    Behaviour::good().on("connect", [bye("421 4.3.2 busy")])
}

#[tokio::test]
async fn a_dead_exchanger_of_best_preference_costs_one_connection() {
    let dns = Dns::new().await;
    for dead in [busy(), Behaviour::good().on("connect", [Act::Close])] {
        let (first, second) = pair(vec![dead], vec![Behaviour::good()]).await;
        let rig = dns.rig(first.at.port(), |s| s.probe_interval = Duration::from_secs(3600));
        for _ in 0..20 {
            // Each over a link of its own, as many workers would.
            let attempt = deliver(&rig, "both.mail.test").await;
            assert_eq!(outcomes(&attempt), "+250", "{:?}", attempt.transcript);
        }
        assert_eq!((first.seen(|s| s.connections), second.messages().len()), (1, 20));
    }
}

/// Nobody answers at all: a firewall drops what comes.
#[tokio::test]
async fn a_silent_exchanger_costs_one_time_out() {
    let dns = Dns::new().await;
    let (first, second) =
        pair(vec![Behaviour::good().on("connect", [Act::Hang])], vec![Behaviour::good()]).await;
    let rig = dns.rig(first.at.port(), |s| {
        s.timeouts.greeting = Duration::from_millis(600);
        s.probe_interval = Duration::from_secs(3600);
    });
    let paid = deliver(&rig, "both.mail.test").await;
    assert!(outcomes(&paid) == "+250" && paid.duration_ms >= 600, "{paid:?}");
    for _ in 0..10 {
        let free = deliver(&rig, "both.mail.test").await;
        assert!(outcomes(&free) == "+250" && free.duration_ms < 600, "{free:?}");
    }
    assert_eq!((first.seen(|s| s.connections), second.messages().len()), (1, 11));
}

/// Beside the deliveries, somebody looks whether it is back; when it is, mail goes there again.
#[tokio::test]
async fn an_exchanger_that_is_back_is_found_and_used() {
    let dns = Dns::new().await;
    let (first, second) = pair(vec![busy(), busy(), Behaviour::good()], vec![Behaviour::good()]).await;
    let rig = dns.rig(first.at.port(), |s| s.probe_interval = Duration::from_millis(50));
    let told = tokio::time::timeout(crate::support::PATIENCE, async {
        while first.messages().is_empty() {
            let attempt = deliver(&rig, "both.mail.test").await;
            assert_eq!(outcomes(&attempt), "+250", "{:?}", attempt.transcript);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    assert!(told.await.is_ok(), "{:?}", first.seen(|s| s.lines.clone()));
    assert!(!second.messages().is_empty());
    // The first connection failed with a message, the second and third were looks.
    assert_eq!(first.seen(|s| s.connections), 4);
    assert_eq!(first.seen(|s| s.count("MAIL")), 1);
}

/// When there is nobody else, a host that failed a moment ago is tried all the same.
#[tokio::test]
async fn the_only_exchanger_is_always_tried() {
    let dns = Dns::new().await;
    let (first, _second) = pair(vec![busy(), Behaviour::good()], vec![Behaviour::good()]).await;
    let rig = dns.rig(first.at.port(), |s| s.probe_interval = Duration::from_secs(3600));
    assert_eq!(outcomes(&deliver(&rig, "one.mail.test").await), "~421");
    assert_eq!(outcomes(&deliver(&rig, "one.mail.test").await), "+250");
    until("the connection was made", || first.seen(|s| s.connections) == 2).await;
    // It works again, for other domains too.
    assert_eq!(deliver(&rig, "both.mail.test").await.remote.unwrap().name, "mx1.mail.test");
}
