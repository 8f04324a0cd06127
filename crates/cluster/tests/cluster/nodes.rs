//! Nodes on a real PostgreSQL, in real time.

use std::time::Duration;

use cluster::{
    Beats, ClusterError, Ended, Member, NodeConfig, NodeState, Takeover, Token, forget, nodes, set_draining,
};
use mail::Clock;
use postgres::Pool;
use postgres::test::Server;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

/// Tells who was taken over from; the first `fails` times it fails.
struct Told {
    to: mpsc::UnboundedSender<Token>,
    fails: std::sync::atomic::AtomicU32,
}

impl Takeover for Told {
    async fn take_over(&self, dead: Token) -> Result<(), String> {
        use std::sync::atomic::Ordering::SeqCst;
        if self.fails.fetch_update(SeqCst, SeqCst, |n| n.checked_sub(1)).is_ok() {
            return Err("not now".to_owned());
        }
        self.to.send(dead).map_err(|e| e.to_string())
    }
}

fn told(fails: u32) -> (Told, mpsc::UnboundedReceiver<Token>) {
    let (to, heard) = mpsc::unbounded_channel();
    (Told { to, fails: fails.into() }, heard)
}

async fn pool() -> Pool {
    Pool::connect(Server::shared().database()).await.unwrap()
}

async fn join(pool: &Pool, name: &str) -> Result<(Member, Beats), ClusterError> {
    let config = NodeConfig {
        name: name.to_owned(),
        address: format!("https://{name}.example:8080"),
        version: "1.2.3".to_owned(),
    };
    Member::join(pool, config, Clock::system()).await
}

fn state(all: &[cluster::Node], name: &str) -> NodeState {
    all.iter().find(|n| n.name == name).unwrap().state
}

/// Long, for machines that do many things at once.
const SOON: Duration = Duration::from_secs(60);

async fn heard(from: &mut mpsc::UnboundedReceiver<Token>) -> Token {
    timeout(SOON, from.recv()).await.expect("taken over in time").unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_dies_is_taken_over_from_once_and_may_come_back() {
    let pool = pool().await;
    let (a, beats_a) = join(&pool, "a").await.unwrap();
    let (b, beats_b) = join(&pool, "b").await.unwrap();
    assert_eq!((a.token().node, b.token().node), (1, 2));
    let (told, mut taken) = told(1);
    let running_a = tokio::spawn(beats_a.run(self::told(0).0));
    tokio::spawn(beats_b.run(told));
    a.beaten().await;
    assert_eq!(a.up(), 2);
    assert!(a.lease().may_start() && b.lease().may_start());
    running_a.abort();
    // Eight seconds, two to look, and one more round since the first try fails.
    let dead = heard(&mut taken).await;
    assert_eq!(dead.node, 1);
    assert!(dead.epoch >= a.token().epoch);
    assert!(!a.lease().may_finish(), "it has stopped before");
    let all = nodes(&pool).await.unwrap();
    assert_eq!((state(&all, "a"), state(&all, "b")), (NodeState::Dead, NodeState::Up));
    let (again, _) = join(&pool, "a").await.unwrap();
    assert_eq!(again.token().node, 1);
    assert!(again.token().epoch > dead.epoch);
    timeout(SOON, async {
        while nodes(&pool).await.unwrap().iter().any(|n| n.owed) {
            b.beaten().await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_frozen_learns_that_its_life_is_over() {
    let pool = pool().await;
    let (a, beats_a) = join(&pool, "a").await.unwrap();
    let (_b, beats_b) = join(&pool, "b").await.unwrap();
    let (told, mut taken) = told(0);
    tokio::spawn(beats_b.run(told));
    // Nobody polls the beats of `a`.
    assert_eq!(heard(&mut taken).await.node, 1);
    assert!(!a.lease().may_finish() && !a.lease().is_deposed());
    let ended = timeout(SOON, beats_a.run(self::told(0).0)).await.unwrap();
    assert_eq!(ended, Ended::Deposed);
    assert!(a.lease().is_deposed());
}

#[tokio::test(flavor = "multi_thread")]
async fn leaving_in_order_is_not_dying() {
    let pool = pool().await;
    let (a, beats_a) = join(&pool, "a").await.unwrap();
    let (_b, beats_b) = join(&pool, "b").await.unwrap();
    let (told, mut taken) = told(0);
    tokio::spawn(beats_b.run(told));
    let running = tokio::spawn(beats_a.run(self::told(0).0));
    a.beaten().await;
    a.leave().await.unwrap();
    assert!(!a.lease().may_finish());
    assert_eq!(timeout(SOON, running).await.unwrap().unwrap(), Ended::Left);
    assert_eq!(state(&nodes(&pool).await.unwrap(), "a"), NodeState::Left);
    // Should it have forgotten something, that is given back all the same.
    let over = heard(&mut taken).await;
    assert_eq!(over.node, 1);
    // Back at once: nobody has to wait for a name that was given up.
    let joined = timeout(Duration::from_secs(4), join(&pool, "a")).await.unwrap().unwrap();
    assert!(joined.0.token().epoch > over.epoch);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_name_is_one_node() {
    let pool = pool().await;
    let (a, beats) = join(&pool, "a").await.unwrap();
    let running = tokio::spawn(beats.run(told(0).0));
    let error = join(&pool, "a").await.err().unwrap();
    assert!(error.to_string().contains("give each node a name of its own"), "{error}");
    assert!(matches!(error, ClusterError::NameTaken { address, .. } if address == "https://a.example:8080"));
    assert!(a.lease().may_start());
    let error = forget(&pool, "a").await.unwrap_err();
    assert!(error.to_string().contains("stop it first"), "{error}");
    a.leave().await.unwrap();
    running.await.unwrap();
    let error = forget(&pool, "a").await.unwrap_err();
    assert!(error.to_string().contains("has not been given back"), "{error}");
    assert!(forget(&pool, "nobody").await.is_err());
    // A number that is free again does not bring an old epoch back.
    let left = nodes(&pool).await.unwrap()[0].token;
    pool.commit(|tx| async move { tx.execute("UPDATE cluster.node SET owed = false", &[]).await })
        .await
        .unwrap();
    forget(&pool, "a").await.unwrap();
    let (b, _) = join(&pool, "b").await.unwrap();
    assert_eq!(b.token().node, left.node);
    assert!(b.token().epoch > left.epoch);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_away_for_long_costs_nobody_its_life() {
    let server = Server::start(&[]);
    let pool = Pool::connect(server.database()).await.unwrap();
    let (a, beats_a) = join(&pool, "a").await.unwrap();
    let (b, beats_b) = join(&pool, "b").await.unwrap();
    let (told, mut taken) = told(0);
    tokio::spawn(beats_a.run(told));
    tokio::spawn(beats_b.run(self::told(0).0));
    a.beaten().await;
    server.down();
    sleep(Duration::from_secs(10)).await;
    assert!(!a.lease().may_finish() && !b.lease().may_finish());
    server.up();
    timeout(SOON, async { tokio::join!(a.beaten(), b.beaten()) }).await.unwrap();
    timeout(SOON, async {
        while !(a.lease().may_start() && b.lease().may_start()) {
            sleep(Duration::from_millis(50)).await;
        }
    })
    .await
    .unwrap();
    // Long enough for a wrong verdict.
    for _ in 0..6 {
        a.beaten().await;
    }
    assert!(taken.try_recv().is_err());
    assert_eq!(a.up(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_has_one_holder_and_changes_hands() {
    let pool = pool().await;
    let (a, beats_a) = join(&pool, "a").await.unwrap();
    let (b, beats_b) = join(&pool, "b").await.unwrap();
    tokio::spawn(beats_a.run(told(0).0));
    tokio::spawn(beats_b.run(told(0).0));
    let (role_a, role_b) = (a.elect("reports"), b.elect("reports"));
    let any = async {
        loop {
            match (role_a.term(), role_b.term()) {
                (Some(_), Some(_)) => panic!("two holders"),
                (None, None) => sleep(Duration::from_millis(20)).await,
                (Some(term), None) => return (&a, &role_a, term, &b, &role_b),
                (None, Some(term)) => return (&b, &role_b, term, &a, &role_a),
            }
        }
    };
    let (holder, its_role, term, other, other_role) = timeout(SOON, any).await.unwrap();
    let fenced = |role: cluster::Elected, term| {
        let pool = pool.clone();
        async move {
            pool.commit(|tx| {
                let role = role.clone();
                async move { role.fence(&tx, term).await }
            })
            .await
            .unwrap()
        }
    };
    assert!(fenced(its_role.clone(), term).await);
    assert!(!fenced(its_role.clone(), term + 1).await);
    assert!(!fenced(other_role.clone(), term).await);
    // Draining, it starts nothing and gives its roles up.
    let name = if holder.token() == a.token() { "a" } else { "b" };
    set_draining(&pool, name, true).await.unwrap();
    let next = timeout(SOON, async {
        loop {
            if let Some(next) = other_role.term() {
                return next;
            }
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .unwrap();
    assert!(next > term);
    assert!(holder.lease().is_draining() && !holder.lease().may_start() && holder.lease().may_finish());
    assert_eq!(its_role.term(), None);
    assert!(!fenced(its_role.clone(), term).await);
    assert!(fenced(other_role.clone(), next).await);
    assert!(other.lease().may_start());
    assert!(set_draining(&pool, "nobody", true).await.is_err());
}
