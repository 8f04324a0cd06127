//! The thread that writes: appends batches, begins a new file each day or at the size limit, drops old files, and sets
//! damaged ones aside.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use mail::{Clock, Event};
use tokio::sync::oneshot;

use super::Shared;
use super::carry;
use super::file::File;
use super::files::{self, Listed, Name};
use super::transfer;
use crate::batch::Batch;
use crate::day;
use crate::error::HistoryError;
use crate::history::Config;
use crate::raw::Record;
use crate::trust::Trust;

/// How often old files are looked for.
const SWEEP: Duration = Duration::from_secs(600);
/// What the thread is asked to do.
pub(crate) enum Job {
    /// Append a batch.
    Append(Vec<(u64, Event)>, oneshot::Sender<Result<(), HistoryError>>),
    /// Take rows of another engine.
    Import(Vec<Record>, oneshot::Sender<Result<(), HistoryError>>),
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
    trust: Trust,
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
        let trust = Trust::new(&clock);
        let writer = Self { dir, config, clock, trust, files, current: None, shared, last };
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
                Ok(Job::Import(records, done)) => {
                    let _ = done.send(self.import(records));
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
        let batch = Batch::new(events, |seq| seq).map_err(HistoryError::Encode)?;
        self.make_ready()?;
        let result = match &mut self.current {
            Some(file) => file.append(&batch, last),
            None => Err(HistoryError::Closed),
        };
        match result {
            Err(e) if e.is_damage() => {
                // Only this file is broken: the next takes the batch, and the relay goes on.
                self.drop_damaged(&e);
                self.make_ready()?;
                self.current.as_mut().map_or(Err(HistoryError::Closed), |file| file.append(&batch, last))?;
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
        let today = day::date(day::of(self.clock.now()));
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
        let Some(now) = self.trust.now(&self.clock) else { return };
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

    /// Takes rows of another engine into the files of their days.
    fn import(&mut self, records: Vec<Record>) -> Result<(), HistoryError> {
        // Its file may be among those that are written here.
        self.current = None;
        for (day, records) in transfer::by_day(records) {
            let date = day::date(day);
            let place = self.files.iter().rposition(|f| f.name.day == date);
            let place = match place {
                Some(place) if self.files[place].bytes < self.config.file_size_max => place,
                last => self.insert(files::fresh(&self.dir, date, last.map(|n| self.files[n].name)))?,
            };
            let same_day: Vec<Listed> = self.files.iter().filter(|f| f.name.day == date).cloned().collect();
            let carried = transfer::missing(records, &same_day)?;
            let listed = &mut self.files[place];
            let mut file = File::open(&listed.path)?;
            file.adopt(&carried)?;
            (listed.span, listed.bytes) = (file.span()?, file.size()?);
        }
        self.publish();
        Ok(())
    }

    /// Makes a new file and takes it into the list.
    fn insert(&mut self, path: PathBuf) -> Result<usize, HistoryError> {
        let file = File::create(&path)?;
        let name = Name::parse(&path).ok_or_else(|| file.damaged("a name that is none of ours"))?;
        let place = self.files.partition_point(|f| f.name < name);
        self.files.insert(place, Listed { path, name, span: file.span()?, bytes: file.size()? });
        Ok(place)
    }

    fn publish(&self) {
        self.shared.publish(self.files.clone(), self.last);
    }
}
