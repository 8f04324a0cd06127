//! skeleton
#![allow(clippy::unimplemented, unused, clippy::unused_async)]
use crate::*;
use mail::*;
use std::path::{Path, PathBuf};
use tokio::sync::{mpsc, watch};
#[derive(Debug)]
pub(crate) struct Engine;
type Done = Box<dyn FnOnce(Result<Settled, StoreError>) + Send>;
pub(crate) fn restore(_from: &Path, _dir: &Path) -> Result<RestoreReport, StoreError> {
    unimplemented!()
}
impl Engine {
    pub(crate) fn open(_config: Config, _clock: Clock) -> Result<(Self, Recovery), StoreError> {
        unimplemented!()
    }
    pub(crate) fn ids(&self) -> &IdGenerator {
        unimplemented!()
    }
    pub(crate) fn sink(&self, _id: MessageId) -> Sink {
        unimplemented!()
    }
    pub(crate) fn sealed(&self, _id: MessageId, _bytes: Vec<u8>) -> Sealed {
        unimplemented!()
    }
    pub(crate) fn room(&self) -> Result<(), NoRoom> {
        unimplemented!()
    }
    pub(crate) async fn admit(&self, _a: Admission) -> Result<Admitted, StoreError> {
        unimplemented!()
    }
    pub(crate) fn orphans(&self) -> Option<mpsc::UnboundedReceiver<Vec<Waiting>>> {
        unimplemented!()
    }
    pub(crate) fn settle(&self, _s: Settlement, _d: Done) {
        unimplemented!()
    }
    pub(crate) async fn settled(&self, _s: Settlement) -> Result<Settled, StoreError> {
        unimplemented!()
    }
    pub(crate) async fn page(
        &self,
        _q: QueueKey,
        _now: Timestamp,
        _n: usize,
    ) -> Result<Vec<Waiting>, StoreError> {
        unimplemented!()
    }
    pub(crate) async fn queues(&self) -> Result<Vec<QueueStats>, StoreError> {
        unimplemented!()
    }
    pub(crate) async fn counts(&self) -> Result<Counts, StoreError> {
        unimplemented!()
    }
    pub(crate) async fn load(&self, _id: DeliveryId) -> Result<Option<Waiting>, StoreError> {
        unimplemented!()
    }
    pub(crate) async fn content(&self, _at: ContentRef) -> Result<Content, StoreError> {
        unimplemented!()
    }
    pub(crate) async fn search(
        &self,
        _f: QueueFilter,
        _a: Option<DeliveryId>,
        _l: usize,
    ) -> Result<Vec<QueueEntry>, StoreError> {
        unimplemented!()
    }
    pub(crate) async fn change(
        &self,
        _f: QueueFilter,
        _a: Action,
        _by: Actor,
        _dry: bool,
    ) -> Result<Changed, StoreError> {
        unimplemented!()
    }
    pub(crate) async fn outbox(&self, _after: u64, _n: usize) -> Result<Vec<(u64, Event)>, StoreError> {
        unimplemented!()
    }
    pub(crate) fn outbox_blocking(&self, _after: u64, _n: usize) -> Result<Vec<(u64, Event)>, StoreError> {
        unimplemented!()
    }
    pub(crate) fn outbox_done(&self, _up_to: u64) -> Result<(), StoreError> {
        unimplemented!()
    }
    pub(crate) fn outbox_wait(&self) -> watch::Receiver<u64> {
        unimplemented!()
    }
    pub(crate) async fn backup(&self, _to: PathBuf) -> Result<BackupReport, StoreError> {
        unimplemented!()
    }
    pub(crate) async fn verify(&self) -> Result<VerifyReport, StoreError> {
        unimplemented!()
    }
    pub(crate) fn failed(&self) -> watch::Receiver<Option<String>> {
        unimplemented!()
    }
    pub(crate) fn stats(&self) -> Stats {
        unimplemented!()
    }
    pub(crate) async fn close(&self) -> Result<(), StoreError> {
        unimplemented!()
    }
}
