//! The thread that writes: appends batches, begins a new file each day or at the size limit, drops old files, and sets
//! damaged ones aside.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use mail::{Clock, Event, Mono, Timestamp};
use tokio::sync::oneshot;

use crate::carry;
use crate::error::HistoryError;
use crate::file::File;
use crate::files::{self, Listed, Name, day_of};
use crate::history::{Config, Shared};

/// How often old files are looked for.
const SWEEP: Duration = Duration::from_secs(600);
/// A wall clock that goes so much faster or slower than time was set.
const JUMP_MAX: Duration = Duration::from_secs(3600);
/// So long after that nothing is dropped on its word: time for whoever set it wrong to notice.
const DISTRUST: Duration = Duration::from_secs(86_400);

/// What the thread is asked to do.
pub(crate) enum Job {
    /// Append a batch.
    Append(Vec<(u64, Event)>, oneshot::Sender<Result<(), HistoryError>>),
    /// Forget which events are there: the outbox has been put back.
    Rewind,
    /// Drop what is too old, now.
    Sweep(oneshot::Sender<()>),
    /// Stop.
    Close,
}

pub(crate) struct Writer {
    dir: PathBuf,
    config: Config,
    clock: Clock,
    /// Wall and monotonic time when it began, or when the clock was last set.
    began: (Timestamp, Mono),
    /// Nothing is dropped before.
    distrusted_until: Mono,
    /// Oldest first; the last one is written, when `current` is open.
    files: Vec<Listed>,
    current: Option<File>,
    shared: Arc<Shared>,
    last: u64,
}

impl Writer {
    /// Lists the files, and tells the number of the last event in them.
    pub(crate) fn new(
        dir: PathBuf,
        config: Config,
        clock: Clock,
        shared: Arc<Shared>,
    ) -> Result<Self, HistoryError> {
        let files = files::list(&dir)?;
        let last = files.iter().map(|f| f.span.last).max().unwrap_or(0);
        let began = (clock.now(), clock.mono());
        let distrusted_until = Mono::default();
        let writer = Self { dir, config, clock, began, distrusted_until, files, current: None, shared, last };
        writer.publish();
        Ok(writer)
    }

    pub(crate) fn run(mut self, jobs: &Receiver<Job>) {
        self.sweep();
        let mut swept = self.clock.mono();
        loop {
            match jobs.recv_timeout(SWEEP) {
                Ok(Job::Append(events, done)) => {
                    // Whoever asked may have gone; what is on disk is on disk.
                    let _ = done.send(self.append(events));
                }
                Ok(Job::Rewind) => self.last = 0,
                Ok(Job::Sweep(done)) => {
                    self.sweep();
                    let _ = done.send(());
                }
                Ok(Job::Close) | Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {}
            }
            if self.clock.mono().since(swept) >= SWEEP {
                self.sweep();
                swept = self.clock.mono();
            }
        }
    }

    fn append(&mut self, mut events: Vec<(u64, Event)>) -> Result<(), HistoryError> {
        events.retain(|(seq, _)| *seq > self.last);
        let Some(last) = events.iter().map(|(seq, _)| *seq).max() else { return Ok(()) };
        self.make_ready()?;
        let result = match &mut self.current {
            Some(file) => file.append(&mut events),
            None => Err(HistoryError::Closed),
        };
        match result {
            Err(e) if e.is_damage() => {
                // Only this file is broken: the next takes the batch, and the relay goes on.
                self.drop_damaged(&e);
                self.make_ready()?;
                self.current.as_mut().map_or(Err(HistoryError::Closed), |file| file.append(&mut events))?;
            }
            other => other?,
        }
        self.last = last;
        self.refresh();
        self.publish();
        Ok(())
    }

    /// Sees to it that the file of today is open and has room.
    fn make_ready(&mut self) -> Result<(), HistoryError> {
        let today = day_of(self.clock.now());
        if self.current.is_none() {
            // After a start, the last file goes on when it is of today.
            if let Some(listed) = self.files.last().filter(|f| f.name.day >= today) {
                match File::open(&listed.path) {
                    Ok(file) => self.current = Some(file),
                    Err(e) if e.is_damage() => self.drop_damaged(&e),
                    Err(e) => return Err(e),
                }
            }
        }
        if let (Some(_), Some(listed)) = (&self.current, self.files.last()) {
            // A clock that steps back does not make a file of an earlier day.
            if listed.name.day >= today && listed.bytes < self.config.file_size_max {
                return Ok(());
            }
        }
        self.current = None;
        let path = files::fresh(&self.dir, today, self.files.last().map(|f| f.name));
        let file = File::create(&path)?;
        let name = Name::parse(&path).unwrap_or(Name { day: today, number: 1 });
        let (span, bytes) = (file.span()?, file.size()?);
        tracing::debug!(file = %path.display(), "history goes on in a new file");
        self.files.push(Listed { path, name, span, bytes });
        self.current = Some(file);
        self.publish();
        self.sweep();
        Ok(())
    }

    fn drop_damaged(&mut self, why: &HistoryError) {
        self.current = None;
        if let Some(listed) = self.files.pop() {
            files::set_aside(&listed.path, why);
        }
        self.publish();
    }

    /// Takes a new look at the file that is written.
    fn refresh(&mut self) {
        let Some(file) = &self.current else { return };
        if let (Ok(span), Ok(bytes), Some(listed)) = (file.span(), file.size(), self.files.last_mut()) {
            (listed.span, listed.bytes) = (span, bytes);
        }
    }

    /// Drops files that are older than what is kept; what they tell of messages that are still in the queue moves into
    /// the file that is written.
    fn sweep(&mut self) {
        let now = self.clock.now();
        if !self.clock_is_trusted(now) {
            return;
        }
        while self.files.len() > 1 {
            let Some(oldest) =
                self.files.first().filter(|f| f.name.end().plus(self.config.keep) <= now).cloned()
            else {
                break;
            };
            if let Err(e) = self.carry_over(&oldest) {
                tracing::error!(error = %e, "an old file of the history is kept for now");
                break;
            }
            if let Err(e) = files::remove(&oldest.path) {
                tracing::error!(error = %e, file = %oldest.path.display(), "an old file of the history cannot be removed");
                break;
            }
            tracing::info!(file = %oldest.path.display(), "an old file of the history was dropped");
            self.files.remove(0);
            self.publish();
        }
    }

    fn clock_is_trusted(&mut self, now: Timestamp) -> bool {
        let mono = self.clock.mono();
        let real = i64::try_from(mono.since(self.began.1).as_millis()).unwrap_or(i64::MAX);
        let wall = now.millis() - self.began.0.millis();
        if u128::from(wall.abs_diff(real)) > JUMP_MAX.as_millis() {
            tracing::warn!(now = %now, "the clock was set: no history is dropped for a day");
            self.began = (now, mono);
            self.distrusted_until = mono.plus(DISTRUST);
        }
        mono >= self.distrusted_until
    }

    fn carry_over(&mut self, oldest: &Listed) -> Result<(), HistoryError> {
        let carried = match carry::collect(oldest, &self.files) {
            Ok(carried) => carried,
            // What cannot be read cannot be kept.
            Err(e) if e.is_damage() => {
                tracing::error!(error = %e, "an old file of the history is damaged");
                return Ok(());
            }
            Err(e) => return Err(e),
        };
        if carried.messages.is_empty() && carried.events.is_empty() {
            return Ok(());
        }
        tracing::info!(messages = carried.messages.len(), "messages still in the queue keep their history");
        if self.current.is_none()
            && let Some(listed) = self.files.last()
        {
            self.current = Some(File::open(&listed.path)?);
        }
        self.current.as_mut().map_or(Err(HistoryError::Closed), |file| file.adopt(&carried))?;
        self.refresh();
        Ok(())
    }

    fn publish(&self) {
        self.shared.publish(self.files.clone(), self.last);
    }
}
