//! What one client can take.

use std::time::Duration;

use receive::Mode;

use crate::relay::{Running, limits, listener};
use crate::wire::Wire;

#[tokio::test]
async fn connections_are_limited_in_all_and_for_each_client() {
    let mut few = limits();
    (few.connections, few.connections_per_address) = (3, 2);
    let mut config = listener(Mode::Smtp);
    config.xclient = vec!["127.0.0.1".parse().unwrap()];
    let running = Running::start(config, few);
    let mut first = Wire::connect(running.address).await;
    let second = Wire::connect(running.address).await;
    let mut third = Wire::silent(running.address).await;
    let refused = third.expect("421 4.7.0").await;
    assert!(refused.contains("from your address"), "{refused}");
    third.closed().await;

    // Elsewhere there is room for one more, and then no more for anybody.
    first.say("XCLIENT ADDR=192.0.2.1\r\n", "220").await;
    let third = Wire::connect(running.address).await;
    let mut fourth = Wire::silent(running.address).await;
    assert!(!fourth.expect("421 4.7.0").await.contains("from your address"));
    fourth.closed().await;
    drop((second, third));
    first.say("EHLO client.example\r\n", "250").await;
    first.say("QUIT\r\n", "221").await;
    while running.relay.open() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn silence_ends_a_session() {
    let mut short = limits();
    short.idle = Duration::from_millis(100);
    let running = Running::start(listener(Mode::Smtp), short);
    let mut wire = Wire::connect(running.address).await;
    wire.expect("421 4.4.2").await;
    wire.closed().await;
    let mut wire = Wire::connect(running.address).await;
    wire.say("MAIL FROM:<a@b.example>\r\n", "250").await;
    wire.say("RCPT TO:<c@d.example>\r\n", "250").await;
    wire.say("DATA\r\n", "354").await;
    wire.send("half a mess").await;
    wire.expect("421 4.4.2").await;
    wire.closed().await;
    running.nothing().await;
}

#[tokio::test]
async fn drop_by_drop_ends_too() {
    let mut short = limits();
    (short.session, short.content) = (Duration::from_millis(300), Duration::from_millis(300));
    let running = Running::start(listener(Mode::Smtp), short);
    for head in ["NOOP ", "MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n"] {
        let mut wire = Wire::connect(running.address).await;
        wire.send(head).await;
        let dripping = async {
            while tokio::io::AsyncWriteExt::write_all(&mut wire.stream, b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), dripping).await.expect("the session is closed in time");
    }
    running.nothing().await;
}

#[tokio::test]
async fn no_room_is_said_before_the_content() {
    let running = Running::start(listener(Mode::Smtp), limits());
    running.relay.fill();
    let mut wire = Wire::connect(running.address).await;
    wire.say("MAIL FROM:<a@b.example>\r\n", "250").await;
    wire.say("RCPT TO:<c@d.example>\r\n", "250").await;
    wire.say("DATA\r\n", "452 4.3.1").await;
    wire.say("RSET\r\n", "250").await;
    running.nothing().await;
}

#[tokio::test]
async fn a_lost_connection_leaves_nothing_behind() {
    let running = Running::start(listener(Mode::Smtp), limits());
    for content in ["Subject: x\r\n\r\nhalf".to_owned(), "y".repeat(1_000_000)] {
        let mut wire = Wire::connect(running.address).await;
        wire.say("MAIL FROM:<a@b.example>\r\n", "250").await;
        wire.say("RCPT TO:<c@d.example>\r\n", "250").await;
        wire.say("DATA\r\n", "354").await;
        wire.send(&content).await;
        drop(wire);
    }
    while running.relay.open() > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(running.relay.store().counts().await.unwrap(), store::Counts::default());
    assert_eq!(running.relay.store().stats().memory, 0);
    running.nothing().await;
}
