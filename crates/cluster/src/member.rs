//! One node as a member of the cluster: it joins, beats, watches the others, and leaves.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mail::{Clock, Mono};
use parking_lot::Mutex;
use postgres::{Pool, Tx};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{error, info, warn};

use crate::node::COLUMNS;
use crate::role::{self, Elected, Role};
use crate::{BEAT, ClusterError, Lease, Node, NodeState, Observer, Sight, Token, join};

/// After a beat that failed the next comes sooner.
const AGAIN: Duration = Duration::from_millis(500);
/// A node that should be declared dead but cannot be is not looked at more often than this.
const LEAST: Duration = Duration::from_millis(100);
/// How long a beat is tried. The lease runs from its start, so a longer one would be of little use.
const HOLD: Duration = Duration::from_secs(10);
/// What a dead node left is given back by whoever declared it dead. If that one dies as well, the first of the nodes
/// does it, and in the end any.
const FIRST_WAITS: Duration = Duration::from_secs(3);
const ANY_WAITS: Duration = Duration::from_secs(10);

/// What a node says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeConfig {
    /// Its name, unlike all others'.
    pub name: String,
    /// Where its management can be reached, for operators.
    pub address: String,
    /// The version of Posthouse that it runs.
    pub version: String,
}

/// Gives back what a dead node had in hand.
pub trait Takeover: Send + Sync + 'static {
    /// Gives back what this life of a node and those before it had in hand. May be asked twice, and by two nodes at
    /// the same time.
    ///
    /// # Errors
    /// Why it did not work, in words; it is asked again a little later.
    fn take_over(&self, dead: Token) -> impl Future<Output = Result<(), String>> + Send;
}

/// Why the beats have ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The node was declared dead while it was frozen or cut off. What it had in hand is another's: forget it, and
    /// join anew.
    Deposed,
    /// [`Member::leave`] was called.
    Left,
}

/// What a node sees of the cluster, as of its last good beat.
#[derive(Clone, Debug, Default)]
pub(crate) struct View {
    nodes: Vec<Node>,
    roles: Vec<Role>,
}

/// A node's membership. A clone is the same membership.
#[derive(Clone)]
pub struct Member(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) pool: Pool,
    pub(crate) lease: Lease,
    pub(crate) clock: Clock,
    view: watch::Sender<View>,
    pub(crate) wanted: Mutex<BTreeSet<String>>,
    left: AtomicBool,
}

impl Member {
    /// Makes this process a node, on connections of its own to the same server, and beats once. It takes some five
    /// seconds longer if the node was not stopped in order, to see that no other process has its name.
    ///
    /// # Errors
    /// [`ClusterError::NameTaken`], [`ClusterError::Full`], and whatever the database says.
    pub async fn join(pool: &Pool, config: NodeConfig, clock: Clock) -> Result<(Self, Beats), ClusterError> {
        // Beats must not wait behind a long queue of commits.
        let own = postgres::Config { pool: 3, hold: HOLD, ..pool.config().clone() };
        let pool = Pool::connect(own).await?;
        postgres::migrate(&pool, "cluster", crate::schema::STEPS).await?;
        let token = join::join(&pool, &config).await?;
        info!("this is node {} ({:?}), epoch {}", token.node, config.name, token.epoch);
        let lease = Lease::new(token, clock.clone());
        let inner = Inner {
            pool,
            lease,
            clock,
            view: watch::Sender::new(View::default()),
            wanted: Mutex::default(),
            left: AtomicBool::new(false),
        };
        let member = Self(Arc::new(inner));
        let mut beats = Beats::new(member.clone());
        if !beats.cycle().await? {
            return Err(ClusterError::Deposed);
        }
        Ok((member, beats))
    }

    /// The right to act.
    pub fn lease(&self) -> &Lease {
        &self.0.lease
    }

    /// This life of this node.
    pub fn token(&self) -> Token {
        self.0.lease.token()
    }

    /// All nodes by number, as of the last good beat.
    pub fn nodes(&self) -> Vec<Node> {
        self.0.view.borrow().nodes.clone()
    }

    /// How many nodes are up, this one included, as of the last good beat.
    pub fn up(&self) -> usize {
        self.0.view.borrow().nodes.iter().filter(|n| n.state == NodeState::Up).count()
    }

    /// Waits for the next good beat.
    pub async fn beaten(&self) {
        let mut view = self.0.view.subscribe();
        let _ = view.changed().await;
    }

    /// Stands for a role that only one node may have at a time; see [`Elected`].
    pub fn elect(&self, role: &str) -> Elected {
        self.0.wanted.lock().insert(role.to_owned());
        Elected::new(self.clone(), role)
    }

    /// The term of a role that this node has, as of the last good beat.
    pub(crate) fn term(&self, role: &str) -> Option<i64> {
        let view = self.0.view.borrow();
        view.roles.iter().find(|r| r.name == role && r.holder == self.token()).map(|r| r.term)
    }

    /// Leaves in order: from here on the lease permits nothing. To be called when everything that was in hand has been
    /// given back; anything else is given back by another node.
    ///
    /// # Errors
    /// [`ClusterError::Postgres`]: then the node will be declared dead a little later.
    pub async fn leave(&self) -> Result<(), ClusterError> {
        self.0.left.store(true, Ordering::Release);
        self.0.lease.depose();
        let Token { node, epoch } = self.token();
        let sql = "UPDATE cluster.node SET state = 'left', owed = true, draining = false, \
            epoch = nextval('cluster.epoch') WHERE id = $1 AND epoch = $2 AND state = 'up'";
        let node = i32::from(node);
        self.0.pool.commit_idempotent(|tx| async move { tx.execute(sql, &[&node, &epoch]).await }).await?;
        info!("left the cluster");
        Ok(())
    }
}

/// The beats of a member. They go on as long as [`run`](Self::run) is polled.
pub struct Beats {
    member: Member,
    observer: Observer,
    suspects: Vec<Sight>,
    /// Since when we have seen that something is owed for a node.
    owed: BTreeMap<Token, Mono>,
    under_way: BTreeSet<Token>,
    tasks: JoinSet<Token>,
    failing: bool,
}

impl Beats {
    fn new(member: Member) -> Self {
        Self {
            member,
            observer: Observer::default(),
            suspects: Vec::new(),
            owed: BTreeMap::new(),
            under_way: BTreeSet::new(),
            tasks: JoinSet::new(),
            failing: false,
        }
    }

    /// Beats until the membership ends.
    pub async fn run<T: Takeover>(mut self, takeover: T) -> Ended {
        let takeover = Arc::new(takeover);
        let mut pause = BEAT;
        loop {
            sleep(pause).await;
            let started = self.member.0.clock.mono();
            let result = if self.member.lease().is_deposed() { Ok(false) } else { self.cycle().await };
            pause = match result {
                Ok(true) => {
                    self.after(&takeover).await;
                    self.pause(started)
                }
                Ok(false) if self.member.0.left.load(Ordering::Acquire) => return Ended::Left,
                Ok(false) => {
                    error!("this node was declared dead; what it had in hand is another's now");
                    return Ended::Deposed;
                }
                Err(why) => {
                    if !std::mem::replace(&mut self.failing, true) {
                        warn!("the node's beat failed, soon it must stop: {why}");
                    }
                    AGAIN
                }
            };
        }
    }

    /// How long to wait for the next beat, after one that was begun at `started`.
    fn pause(&self, started: Mono) -> Duration {
        let now = self.member.0.clock.mono();
        let beat = BEAT.saturating_sub(now.since(started));
        match self.observer.due() {
            Some(due) => beat.min(due.since(now).max(LEAST)),
            None => beat,
        }
    }

    /// One beat, and a look at the others with it. False: there is no such life of this node any more.
    async fn cycle(&mut self) -> Result<bool, ClusterError> {
        let inner = &self.member.0;
        let me = inner.lease.token();
        let started = inner.clock.mono();
        let beaten = inner.pool.commit(|tx| beat(tx, me)).await;
        let ended = inner.clock.mono();
        let view = match beaten {
            Ok(Some(view)) => view,
            Ok(None) => {
                inner.lease.depose();
                return Ok(false);
            }
            Err(error) => {
                self.observer.failed();
                return Err(error.into());
            }
        };
        if std::mem::take(&mut self.failing) {
            info!("the node beats again");
        }
        let draining = view.nodes.iter().any(|n| n.token == me && n.draining);
        inner.lease.renew(started, draining);
        let up = view.nodes.iter().filter(|n| n.state == NodeState::Up && n.token.node != me.node);
        let up: Vec<_> = up.map(|n| Sight { token: n.token, beat: n.beat }).collect();
        self.suspects = self.observer.cycle(started, ended, &up);
        inner.view.send_replace(view);
        Ok(true)
    }

    /// What follows from a good beat: the dead are declared so, what they left is given back, roles change hands.
    async fn after<T: Takeover>(&mut self, takeover: &Arc<T>) {
        while let Some(done) = self.tasks.try_join_next() {
            match done {
                Ok(token) => drop(self.under_way.remove(&token)),
                Err(panic) => error!("taking over from a node: {panic}"),
            }
        }
        for suspect in std::mem::take(&mut self.suspects) {
            match in_time(declare_dead(&self.member.0.pool, suspect)).await {
                Ok(Some(epoch)) => {
                    let node = suspect.token.node;
                    warn!("node {node} is dead: its beat has stood still for eight seconds");
                    self.take_over(Token { node, epoch }, takeover);
                }
                Ok(None) => {}
                Err(why) => {
                    warn!("node {} seems dead, but could not be declared so: {why}", suspect.token.node)
                }
            }
        }
        self.look_after(takeover);
        let view = self.member.0.view.borrow().clone();
        if let Err(why) = in_time(role::change(&self.member, &view.roles, &view.nodes)).await {
            warn!("changing roles: {why}");
        }
    }

    /// Gives back what is owed for nodes that nobody seems to look after.
    fn look_after<T: Takeover>(&mut self, takeover: &Arc<T>) {
        let now = self.member.0.clock.mono();
        let nodes = self.member.nodes();
        let first = nodes.iter().find(|n| n.state == NodeState::Up).map(|n| n.token);
        let wait = if first == Some(self.member.token()) { FIRST_WAITS } else { ANY_WAITS };
        let owed: Vec<_> = nodes.iter().filter(|n| n.owed).map(|n| n.token).collect();
        self.owed.retain(|token, _| owed.contains(token));
        for token in owed {
            let since = *self.owed.entry(token).or_insert(now);
            if now.since(since) >= wait && !self.under_way.contains(&token) {
                self.take_over(token, takeover);
            }
        }
    }

    /// `now` is the node as it is now: what is over are the epochs before that.
    fn take_over<T: Takeover>(&mut self, now: Token, takeover: &Arc<T>) {
        self.under_way.insert(now);
        let (pool, takeover) = (self.member.0.pool.clone(), takeover.clone());
        self.tasks.spawn(async move {
            let dead = Token { epoch: now.epoch - 1, ..now };
            let done = async {
                takeover.take_over(dead).await?;
                settle(&pool, now).await.map_err(|e| e.to_string())
            };
            match done.await {
                Ok(()) => info!("what node {} had in hand has been given back", now.node),
                Err(why) => warn!("taking over from node {}: {why}", now.node),
            }
            now
        });
    }
}

/// Between two beats there is no time to wait for a lock that another holds. Whether it happened after all shows at the
/// next beat.
async fn in_time<T>(work: impl Future<Output = Result<T, ClusterError>>) -> Result<T, ClusterError> {
    match timeout(BEAT, work).await {
        Ok(result) => result,
        Err(_) => Err(ClusterError::Unknown("no answer between two beats".to_owned())),
    }
}

/// Beats, and reads everything in the same transaction: what is seen was so on a server that takes commits.
async fn beat(tx: Tx, me: Token) -> Result<Option<View>, postgres::PgError> {
    let node = i32::from(me.node);
    let sql = "UPDATE cluster.node SET beat = beat + 1, beat_at = clock_timestamp() \
        WHERE id = $1 AND epoch = $2 AND state = 'up'";
    if tx.execute(sql, &[&node, &me.epoch]).await? == 0 {
        tx.abandon();
        return Ok(None);
    }
    let all = format!("SELECT {COLUMNS} FROM cluster.node ORDER BY id");
    let (nodes, roles) = tokio::try_join!(tx.query(&all, &[]), tx.query(role::ALL, &[]))?;
    Ok(Some(View {
        nodes: nodes.iter().map(Node::of).collect(),
        roles: roles.iter().map(Role::of).collect(),
    }))
}

/// Declares a node dead if it is still as it was seen. Returns its new epoch, or none if it lives or somebody else has
/// been faster.
async fn declare_dead(pool: &Pool, seen: Sight) -> Result<Option<i64>, ClusterError> {
    let node = i32::from(seen.token.node);
    let sql = "UPDATE cluster.node SET epoch = nextval('cluster.epoch'), state = 'dead', owed = true, \
        draining = false WHERE id = $1 AND epoch = $2 AND beat = $3 AND state = 'up' RETURNING epoch";
    let declared = pool
        .commit(|tx| async move { tx.query_opt(sql, &[&node, &seen.token.epoch, &seen.beat]).await })
        .await?;
    Ok(declared.map(|row| row.get(0)))
}

/// Nothing is owed any more for the epochs before this one.
async fn settle(pool: &Pool, now: Token) -> Result<(), ClusterError> {
    let sql = "UPDATE cluster.node SET owed = false WHERE id = $1 AND epoch = $2";
    let node = i32::from(now.node);
    pool.commit_idempotent(|tx| async move { tx.execute(sql, &[&node, &now.epoch]).await }).await?;
    Ok(())
}
