//! The task of a node that takes whatever waits and has it written in one transaction. Large content goes aside, in
//! transactions of their own, so that nobody waits while it travels. What cannot be written because the database is away is
//! told so, but for settlements, which wait until it is back.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::group::{self, AGAIN};
use super::inbox::{GROUP_OPS, Op, Release, Released, Reply, Suspects, Task, group_length};
use super::release;
use super::shared::Shared;
use crate::error::StoreError;

/// How long an idle committer leaves handed-on events and notes before it writes a group for them alone.
const IDLE: Duration = Duration::from_millis(250);

pub(crate) struct Committer {
    shared: Arc<Shared>,
    inbox: mpsc::UnboundedReceiver<Op>,
    /// Taken from the inbox.
    waiting: VecDeque<Op>,
    /// What has to happen and could not yet.
    carried: Vec<Op>,
    /// Transactions with large content.
    aside: JoinSet<()>,
}

impl Committer {
    pub(crate) fn new(shared: Arc<Shared>, inbox: mpsc::UnboundedReceiver<Op>) -> Self {
        Self { shared, inbox, waiting: VecDeque::new(), carried: Vec::new(), aside: JoinSet::new() }
    }

    /// Works until the inbox is closed and empty, then gives back what the node has in hand.
    pub(crate) async fn run(mut self) -> Result<(), StoreError> {
        while let Some(group) = self.take().await {
            let (large, group): (Vec<_>, Vec<_>) = group.into_iter().partition(Op::is_large);
            large.into_iter().for_each(|op| self.put_aside(op));
            if !self.carried.is_empty() && !self.carry(&group).await {
                return self.give_up(group);
            }
            let (later, now) = if self.carried.is_empty() {
                (Vec::new(), group)
            } else {
                // Settlements that wait go first, in their order.
                group.into_iter().partition(|op| op.task.must_happen())
            };
            self.carried.extend(later);
            self.carried.extend(group::write(&self.shared, now, false).await);
        }
        while let Some(done) = self.aside.join_next().await {
            self.look_at(done);
        }
        self.finish().await
    }

    /// The next group: an empty one when there is something to write beside the operations. None: closed, all is done.
    async fn take(&mut self) -> Option<Vec<Op>> {
        if self.waiting.is_empty() && self.carried.is_empty() {
            let mut some = Vec::new();
            let shared = self.shared.clone();
            let leftovers = shared.outbox.to_delete().is_some() || !shared.notes.is_empty();
            tokio::select! {
                biased;
                n = self.inbox.recv_many(&mut some, GROUP_OPS) => {
                    self.waiting.extend(some);
                    if n == 0 {
                        return None;
                    }
                }
                () = tokio::time::sleep(IDLE), if leftovers => return Some(Vec::new()),
                // Looked at again.
                () = shared.inbox.nudge.notified(), if !leftovers => return Some(Vec::new()),
            }
        }
        while self.waiting.len() < GROUP_OPS
            && let Ok(op) = self.inbox.try_recv()
        {
            self.waiting.push_back(op);
        }
        if self.waiting.is_empty() && self.inbox.is_closed() && self.carried.is_empty() {
            return None;
        }
        let n = group_length(self.waiting.iter());
        Some(self.waiting.drain(..n).filter_map(Op::checked).collect())
    }

    /// Tries again what had to wait. False: the store is closing, and it still cannot be done.
    async fn carry(&mut self, next: &[Op]) -> bool {
        let carried = std::mem::take(&mut self.carried);
        self.carried = group::write(&self.shared, carried, false).await;
        if self.carried.is_empty() {
            return true;
        }
        if self.inbox.is_closed() && next.is_empty() && self.waiting.is_empty() {
            return false;
        }
        tokio::time::sleep(AGAIN).await;
        true
    }

    fn put_aside(&mut self, op: Op) {
        while let Some(done) = self.aside.try_join_next() {
            self.look_at(done);
        }
        let shared = self.shared.clone();
        self.aside.spawn(async move {
            let _place = shared.aside.acquire().await;
            // Nothing of it has to happen, so nothing is left.
            group::write(&shared, vec![op], true).await;
        });
    }

    fn look_at(&self, done: Result<(), tokio::task::JoinError>) {
        if done.is_err_and(|error| error.is_panic()) {
            self.shared.health.fail("a transaction with large content panicked");
        }
    }

    fn give_up(mut self, group: Vec<Op>) -> Result<(), StoreError> {
        let error = StoreError::Unavailable("the database was away when the store was closed".into());
        for op in self.carried.drain(..).chain(group) {
            op.refuse(&error);
        }
        Err(error)
    }

    /// Gives back what this node has in hand, for the others to do, and says that it ended well.
    async fn finish(&mut self) -> Result<(), StoreError> {
        let shared = self.shared.clone();
        shared.health.check()?;
        if shared.abandoned.load(Ordering::Relaxed) {
            return Ok(());
        }
        loop {
            let (answer, mut answered) = tokio::sync::oneshot::channel();
            let release = Release { of: shared.me, suspects: Suspects::None };
            let op = Op::new(Task::Release(release), Reply::Release(answer));
            group::write(&shared, vec![op], false).await;
            match answered.try_recv() {
                Ok(Ok(Released { found: 0, .. })) => break,
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return Err(error),
                Err(_) => return Err(StoreError::Closed),
            }
        }
        release::mark_clean(&shared).await
    }
}

/// Whatever ends the committer, nobody is left waiting for it.
pub(crate) struct LastWords(pub(crate) Arc<Shared>);

impl Drop for LastWords {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.health.fail("the committer panicked");
        }
        self.0.inbox.close();
    }
}
