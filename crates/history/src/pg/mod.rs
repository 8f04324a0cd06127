//! The history in PostgreSQL.

use mail::{Clock, Event};
use postgres::Pool;

use crate::error::HistoryError;
use crate::history::{Config, MaySweep, Stats};
use crate::query::Plan;
use crate::raw::{Mark, Record};
use crate::view::Timeline;

const NOT_YET: HistoryError = HistoryError::Engine("not built yet");

pub(crate) struct Tables(u16);

#[allow(clippy::unused_async, reason = "being built")]
impl Tables {
    pub(crate) async fn open(
        _: Pool,
        node: u16,
        _: Config,
        _: MaySweep,
        _: Clock,
    ) -> Result<Self, HistoryError> {
        Ok(Self(node))
    }
    pub(crate) fn node(&self) -> u16 {
        self.0
    }
    pub(crate) async fn append(&self, _: u16, _: Vec<(u64, Event)>) -> Result<(), HistoryError> {
        Err(NOT_YET)
    }
    pub(crate) async fn trace(&self, _: Plan) -> Result<Vec<Timeline>, HistoryError> {
        Err(NOT_YET)
    }
    pub(crate) async fn sweep(&self) -> Result<(), HistoryError> {
        Err(NOT_YET)
    }
    pub(crate) async fn export(&self, _: Option<Mark>, _: usize) -> Result<Vec<Record>, HistoryError> {
        Err(NOT_YET)
    }
    pub(crate) async fn import(&self, _: Vec<Record>) -> Result<(), HistoryError> {
        Err(NOT_YET)
    }
    pub(crate) fn stats(&self) -> Stats {
        Stats::default()
    }
    pub(crate) async fn close(&self) {}
    pub(crate) async fn rewind(&self) -> Result<(), HistoryError> {
        Err(NOT_YET)
    }
}
