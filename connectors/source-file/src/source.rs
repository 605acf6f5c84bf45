//! A task's reading end: a thread reads files ahead, within a bound of memory, and the task takes
//! what it has read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use foldline_api::record::{Position, TopicPartition};
use foldline_api::source::{Commit, Committer, Source, SourceEvent, Wanted};
use foldline_api::{Error, ErrorClass, Result};
use tokio::sync::mpsc;

use crate::log::{Inner, Membership, blocking};
use crate::reader::PartitionReader;

/// How often the ends of files and new partitions are looked for.
const POLL: Duration = Duration::from_millis(100);

/// Reads that wait for the task. With the one being made and the one being folded there are four.
const READS_QUEUED: usize = 2;

/// Assignments and errors that wait for the task.
const CONTROLS_QUEUED: usize = 16;

/// A record in memory takes some bytes beside its line's: a read of a line log grows about so much.
const GROWTH: usize = 4;

/// Which start a delivery answers: what was read for an older one is not delivered.
type Seek = u64;

/// What was read of a partition.
struct Delivery {
    partition: TopicPartition,
    seek: Seek,
    event: SourceEvent,
}

/// What does not wait behind records.
type Control = Result<SourceEvent>;

struct Begin {
    partition: TopicPartition,
    position: Position,
    seek: Seek,
}

type Ends = Arc<Mutex<BTreeMap<TopicPartition, Position>>>;

/// One task's member of a file log's group.
pub struct FileSource {
    deliveries: mpsc::Receiver<Delivery>,
    control: mpsc::Receiver<Control>,
    begin: Sender<Begin>,
    seeks: BTreeMap<TopicPartition, Seek>,
    last_seek: Seek,
    ends: Ends,
    membership: Membership,
}

impl std::fmt::Debug for FileSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileSource").field("membership", &self.membership).finish_non_exhaustive()
    }
}

impl FileSource {
    pub(crate) fn new(membership: Membership, memory: usize) -> Result<Self> {
        let (begin, commands) = std::sync::mpsc::channel();
        let (out, deliveries) = mpsc::channel(READS_QUEUED);
        let (tell, control) = mpsc::channel(CONTROLS_QUEUED);
        let ends = Ends::default();
        let chunk = (memory / (READS_QUEUED + 2) / GROWTH).clamp(16 * 1024, 1024 * 1024);
        let ahead = ReadAhead {
            log: Arc::clone(&membership.log),
            task: membership.task,
            commands,
            out,
            tell,
            ends: Arc::clone(&ends),
            chunk,
            assigned: BTreeSet::new(),
            active: BTreeMap::new(),
        };
        let thread = std::thread::Builder::new().name(format!("file-source-{}", membership.task));
        thread
            .spawn(move || ahead.run())
            .map_err(|error| Error::retriable("cannot start a thread").with_source(error))?;
        let seeks = BTreeMap::new();
        Ok(FileSource { deliveries, control, begin, seeks, last_seek: 0, ends, membership })
    }
}

#[async_trait]
impl Source for FileSource {
    async fn next(&mut self, wanted: Wanted) -> Result<SourceEvent> {
        let gone = || Error::retriable("the reading thread is gone");
        loop {
            tokio::select! {
                biased;
                told = self.control.recv() => return told.ok_or_else(gone)?,
                read = self.deliveries.recv(), if wanted == Wanted::All => {
                    let Delivery { partition, seek, event } = read.ok_or_else(gone)?;
                    if self.seeks.get(&partition) == Some(&seek) {
                        return Ok(event);
                    }
                }
            }
        }
    }

    fn start(&mut self, from: &[(TopicPartition, Position)]) -> Result<()> {
        for (partition, position) in from {
            self.last_seek += 1;
            let seek = self.last_seek;
            self.seeks.insert(partition.clone(), seek);
            let begin = Begin { partition: partition.clone(), position: *position, seek };
            let gone = |_| Error::retriable("the reading thread is gone");
            self.begin.send(begin).map_err(gone)?;
        }
        Ok(())
    }

    fn release(&mut self, _partitions: &[TopicPartition]) -> Result<()> {
        // A task of a file log keeps its partitions: nothing is ever taken back.
        Ok(())
    }

    fn committer(&self) -> Arc<dyn Committer> {
        Arc::new(FileCommitter { log: Arc::clone(&self.membership.log) })
    }

    fn ends(&self) -> Vec<(TopicPartition, Position)> {
        let ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        ends.iter().map(|(partition, end)| (partition.clone(), *end)).collect()
    }

    async fn close(self: Box<Self>) {
        // Dropping it leaves the group; the thread ends when it finds nobody to deliver to.
    }
}

struct FileCommitter {
    log: Arc<Inner>,
}

#[async_trait]
impl Committer for FileCommitter {
    async fn commit(&self, commits: &[Commit]) -> Result<()> {
        let (log, commits) = (Arc::clone(&self.log), commits.to_vec());
        blocking(move || log.write_offsets(&commits)).await
    }
}

/// What the thread owns.
struct ReadAhead {
    log: Arc<Inner>,
    task: u32,
    commands: Receiver<Begin>,
    out: mpsc::Sender<Delivery>,
    tell: mpsc::Sender<Control>,
    ends: Ends,
    chunk: usize,
    assigned: BTreeSet<TopicPartition>,
    active: BTreeMap<TopicPartition, Active>,
}

struct Active {
    reader: PartitionReader,
    seek: Seek,
    /// The end that was told, so that it is told once.
    ended: Option<Position>,
}

/// The task is gone.
struct Gone;

impl ReadAhead {
    fn run(mut self) {
        // Ends with the task: it drops both channels.
        let _: Result<(), Gone> = self.run_until_gone();
    }

    fn run_until_gone(&mut self) -> Result<(), Gone> {
        let mut looked: Option<Instant> = None;
        loop {
            loop {
                match self.commands.try_recv() {
                    Ok(begin) => self.begin(begin)?,
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => return Err(Gone),
                }
            }
            if looked.is_none_or(|at| at.elapsed() >= POLL) {
                self.look()?;
                looked = Some(Instant::now());
            }
            let mut read_any = false;
            let places: Vec<TopicPartition> = self.active.keys().cloned().collect();
            for place in places {
                read_any |= self.step(&place)?;
            }
            if !read_any {
                match self.commands.recv_timeout(POLL) {
                    Ok(begin) => self.begin(begin)?,
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return Err(Gone),
                }
            }
        }
    }

    fn tell(&self, control: Control) -> Result<(), Gone> {
        self.tell.blocking_send(control).map_err(|_| Gone)
    }

    fn begin(&mut self, begin: Begin) -> Result<(), Gone> {
        let Begin { partition, position, seek } = begin;
        self.active.remove(&partition);
        let index = self.log.index_of(&partition);
        let mut index = index.lock().unwrap_or_else(PoisonError::into_inner);
        let at = (partition.clone(), self.log.file_of(&partition));
        match PartitionReader::open(at, position, &mut index, self.chunk) {
            Ok(reader) => {
                self.active.insert(partition, Active { reader, seek, ended: None });
                Ok(())
            }
            Err(error) => self.tell(Err(error)),
        }
    }

    /// Looks for new partitions, and how far the files have grown.
    fn look(&mut self) -> Result<(), Gone> {
        let mine = match self.log.assignment(self.task) {
            Ok(mine) => mine,
            Err(error) => return self.tell(Err(error)),
        };
        for partition in &mine {
            match self.log.high(partition) {
                Ok(end) => self.set_end(partition, end),
                Err(error) => {
                    self.active.remove(partition);
                    self.tell(Err(error))?;
                }
            }
        }
        let new: Vec<_> = mine.into_iter().filter(|p| !self.assigned.contains(p)).collect();
        if new.is_empty() {
            return Ok(());
        }
        self.assigned.extend(new.iter().cloned());
        self.tell(Ok(SourceEvent::Assigned(new)))
    }

    fn set_end(&self, partition: &TopicPartition, end: Position) {
        let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        ends.insert(partition.clone(), end);
    }

    /// One read of one partition; whether there was something.
    fn step(&mut self, place: &TopicPartition) -> Result<bool, Gone> {
        let Some(active) = self.active.get_mut(place) else { return Ok(false) };
        let seek = active.seek;
        let event = match active.reader.read() {
            Ok(Some(records)) if records.is_empty() => return Ok(true),
            Ok(Some(records)) => SourceEvent::Records(records),
            Ok(None) => {
                let end = active.reader.position();
                if active.ended == Some(end) {
                    return Ok(false);
                }
                active.ended = Some(end);
                self.set_end(place, end);
                SourceEvent::End(place.clone(), end)
            }
            Err(error) => {
                // What only a person can mend is told once; the rest is tried again.
                if error.class() == ErrorClass::Config {
                    self.active.remove(place);
                }
                self.tell(Err(error))?;
                return Ok(false);
            }
        };
        let read = matches!(event, SourceEvent::Records(_));
        let delivery = Delivery { partition: place.clone(), seek, event };
        self.out.blocking_send(delivery).map_err(|_| Gone)?;
        Ok(read)
    }
}
