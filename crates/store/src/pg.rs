//! The engine for clusters: rows and content in PostgreSQL, one committer a node with group commit.

#![allow(clippy::todo, reason = "being written")]
#![allow(unused_variables, clippy::unused_async, clippy::needless_pass_by_value, reason = "being written")]

use mail::{Actor, Clock, DeliveryId, Event, IdGenerator, MessageId, QueueKey, Timestamp};
use tokio::sync::{mpsc, watch};

use crate::config::{Fence, PostgresConfig};
use crate::content::{Content, ContentRef, Sealed, Sink};
use crate::error::{NoRoom, StoreError};
use crate::filter::{Action, ChangedDelivery, QueueEntry, QueueFilter};
use crate::model::{
    Admission, Admitted, Counts, Horizon, QueueStats, Recovery, Settled, Settlement, Stats, VerifyReport,
    Waiting,
};

type Result<T> = std::result::Result<T, StoreError>;

#[derive(Debug)]
pub(crate) struct Engine {}

impl Engine {
    pub(crate) async fn open(config: PostgresConfig, clock: Clock) -> Result<(Self, Recovery)> {
        todo!()
    }
    pub(crate) fn ids(&self) -> &IdGenerator {
        todo!()
    }
    pub(crate) fn sink(&self, id: MessageId) -> Sink {
        todo!()
    }
    pub(crate) fn sealed(&self, id: MessageId, bytes: Vec<u8>) -> Sealed {
        todo!()
    }
    pub(crate) fn room(&self) -> std::result::Result<(), NoRoom> {
        todo!()
    }
    pub(crate) async fn admit(&self, admission: Admission) -> Result<Admitted> {
        todo!()
    }
    pub(crate) fn orphans(&self) -> Option<mpsc::UnboundedReceiver<Vec<Waiting>>> {
        todo!()
    }
    pub(crate) fn settle(&self, settlement: Settlement, done: Box<dyn FnOnce(Result<Settled>) + Send>) {
        todo!()
    }
    pub(crate) async fn settled(&self, settlement: Settlement) -> Result<Settled> {
        todo!()
    }
    pub(crate) async fn page(&self, queue: QueueKey, now: Timestamp, n: usize) -> Result<Vec<Waiting>> {
        todo!()
    }
    pub(crate) async fn next_due(&self, queue: QueueKey, now: Timestamp) -> Result<Option<Timestamp>> {
        todo!()
    }
    pub(crate) async fn horizon(&self, after: Timestamp, n: usize) -> Result<Horizon> {
        todo!()
    }
    pub(crate) async fn note(&self, name: &str) -> Result<Option<Vec<u8>>> {
        todo!()
    }
    pub(crate) fn set_note(&self, name: &str, value: Vec<u8>) -> Result<()> {
        todo!()
    }
    pub(crate) async fn queues(&self) -> Result<Vec<QueueStats>> {
        todo!()
    }
    pub(crate) async fn counts(&self) -> Result<Counts> {
        todo!()
    }
    pub(crate) async fn load(&self, id: DeliveryId) -> Result<Option<Waiting>> {
        todo!()
    }
    pub(crate) async fn content(&self, at: ContentRef) -> Result<Content> {
        todo!()
    }
    pub(crate) async fn search(
        &self,
        filter: QueueFilter,
        after: Option<DeliveryId>,
        limit: usize,
    ) -> Result<Vec<QueueEntry>> {
        todo!()
    }
    pub(crate) async fn change_part(
        &self,
        filter: QueueFilter,
        action: &Action,
        by: &Actor,
        dry_run: bool,
        after: Option<DeliveryId>,
    ) -> Result<(Vec<ChangedDelivery>, Option<DeliveryId>)> {
        todo!()
    }
    pub(crate) async fn outbox(&self, after: u64, n: usize) -> Result<Vec<(u64, Event)>> {
        todo!()
    }
    pub(crate) fn outbox_blocking(&self, after: u64, n: usize) -> Result<Vec<(u64, Event)>> {
        todo!()
    }
    pub(crate) fn outbox_done(&self, up_to: u64) -> Result<()> {
        todo!()
    }
    pub(crate) fn outbox_wait(&self) -> watch::Receiver<u64> {
        todo!()
    }
    pub(crate) async fn requeue(&self, dead: Fence) -> Result<u64> {
        todo!()
    }
    pub(crate) async fn verify(&self) -> Result<VerifyReport> {
        todo!()
    }
    pub(crate) fn failed(&self) -> watch::Receiver<Option<String>> {
        todo!()
    }
    pub(crate) fn stats(&self) -> Stats {
        todo!()
    }
    pub(crate) async fn close(&self) -> Result<()> {
        todo!()
    }
}
