//! The service stops: what is under way is finished.

use receive::Mode;

use crate::relay::{Running, limits, listener};
use crate::wire::Wire;

#[tokio::test]
async fn a_transaction_is_finished_and_then_the_session_ends() {
    let mut running = Running::start(listener(Mode::Smtp), limits());
    let mut idle = Wire::connect(running.address).await;
    let mut busy = Wire::connect(running.address).await;
    busy.say("MAIL FROM:<a@b.example>\r\n", "250").await;
    running.shutdown.cancel();
    idle.expect("421 4.3.2").await;
    idle.closed().await;
    busy.say("RCPT TO:<c@d.example>\r\n", "250").await;
    busy.say("DATA\r\n", "354").await;
    busy.say("Subject: last\r\n\r\nbody\r\n.\r\n", "250").await;
    busy.expect("421 4.3.2").await;
    busy.closed().await;
    assert!(running.next().await.content.contains("Subject: last"));
    running.nothing().await;
}
