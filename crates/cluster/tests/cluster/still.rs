//! Whether anybody works, and the end of all lives at once.

use cluster::{Member, NodeConfig, NodeState, beating, end_all, nodes};
use mail::Clock;
use postgres::Pool;
use postgres::test::Server;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_beats_is_seen_and_who_does_not_is_declared_dead() {
    let pool = Pool::connect(Server::shared().database()).await.unwrap();
    let clock = Clock::system();
    assert_eq!(beating(&pool, &clock).await.unwrap(), [], "nobody has ever joined");
    assert_eq!(end_all(&pool).await.unwrap(), 0);
    let config =
        NodeConfig { name: "a".to_owned(), address: "127.0.0.1".to_owned(), version: "1".to_owned() };
    let (member, beats) = Member::join(&pool, config, clock.clone()).await.unwrap();
    struct Nobody;
    impl cluster::Takeover for Nobody {
        async fn take_over(&self, _: cluster::Token) -> Result<(), String> {
            Ok(())
        }
    }
    let beats = tokio::spawn(beats.run(Nobody));
    let alive = beating(&pool, &clock).await.unwrap();
    assert_eq!(alive.iter().map(|n| n.token).collect::<Vec<_>>(), [member.token()]);
    // It dies without a word.
    beats.abort();
    assert_eq!(beating(&pool, &clock).await.unwrap(), []);
    assert_eq!(end_all(&pool).await.unwrap(), 1);
    let after = nodes(&pool).await.unwrap();
    assert_eq!((after[0].state, after[0].owed), (NodeState::Dead, true));
    assert!(after[0].token.epoch > member.token().epoch);
    assert_eq!(end_all(&pool).await.unwrap(), 0);
}
