//! A connector's view of the log: which topics and partitions there are, who reads them, and what the
//! group has committed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use async_trait::async_trait;
use foldline_api::record::{Position, TopicPartition};
use foldline_api::source::{
    Commit, Log, MissingTopic, PartitionInfo, Reader, Source, Start, Survey,
};
use foldline_api::{Error, ErrorClass, Result};
use regex::Regex;

use crate::groups::{GroupFile, GroupLock, ensure_id, io};
use crate::index::LineIndex;
use crate::reader::PartitionReader;
use crate::source::FileSource;
use crate::stretch::FileReader;

/// Bytes of a read where no task bounds them.
const CHUNK: usize = 1024 * 1024;

/// What a connector reads of a file log.
#[derive(Clone, Debug)]
pub struct FileConfig {
    /// The log's folder.
    pub path: PathBuf,
    /// Topic names, or regexes that start with ^.
    pub topics: Vec<String>,
    /// Topics that no regex takes: Foldline's own dead letters.
    pub except: Vec<String>,
    /// The consumer group.
    pub group: String,
    /// How many tasks share the partitions, from 1.
    pub tasks_max: u32,
}

/// A file log as one connector sees it.
#[derive(Clone, Debug)]
pub struct FileLog(Arc<Inner>);

#[derive(Debug)]
pub(crate) struct Inner {
    path: PathBuf,
    names: Vec<String>,
    patterns: Vec<Regex>,
    except: Vec<String>,
    tasks_max: u32,
    pub(crate) group: GroupFile,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The task that reads a partition. It keeps it: nothing moves when partitions are added.
    owners: BTreeMap<TopicPartition, u32>,
    tasks: BTreeSet<u32>,
    indexes: HashMap<TopicPartition, Arc<Mutex<LineIndex>>>,
    lock: Weak<GroupLock>,
}

/// A task's place in its group; leaves it when dropped.
#[derive(Debug)]
pub(crate) struct Membership {
    pub(crate) log: Arc<Inner>,
    pub(crate) task: u32,
    _lock: Arc<GroupLock>,
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.log.lock_state().tasks.remove(&self.task);
    }
}

impl FileLog {
    /// The log in a folder, which may be empty yet.
    ///
    /// # Errors
    /// A config error where a topic's pattern is no regex.
    pub fn new(config: FileConfig) -> Result<Self> {
        let (mut names, mut patterns) = (Vec::new(), Vec::new());
        for topic in config.topics {
            if topic.starts_with('^') {
                // As a whole name, as Kafka's own pattern subscription takes it.
                let pattern = Regex::new(&format!("^(?:{topic})$")).map_err(|error| {
                    Error::config(format!("topic {topic:?} is no regex")).with_source(error)
                })?;
                patterns.push(pattern);
            } else {
                check_topic(&topic)?;
                names.push(topic);
            }
        }
        let inner = Inner {
            group: GroupFile::new(&config.path, &config.group),
            path: config.path,
            names,
            patterns,
            except: config.except,
            tasks_max: config.tasks_max.max(1),
            state: Mutex::default(),
        };
        Ok(FileLog(Arc::new(inner)))
    }
}

/// A topic is a folder: its name must be one, and not one of the log's own.
pub(crate) fn check_topic(topic: &str) -> Result<()> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if topic.is_empty() || topic.len() > 249 || topic.starts_with('.') || !topic.chars().all(plain)
    {
        return Err(Error::config(format!(
            "topic {topic:?}: a topic's name is 1 to 249 of the letters a-z and A-Z, digits, '.', '_' and \
             '-', and does not start with '.' in a file log"
        )));
    }
    Ok(())
}

/// A partition's file.
pub(crate) fn file_of(log: &Path, place: &TopicPartition) -> PathBuf {
    log.join(&*place.topic).join(format!("{}.ndjson", place.partition))
}

/// The partitions of a topic, in order; none where there is no such topic.
pub(crate) fn partitions_of(log: &Path, topic: &str) -> Result<Option<Vec<TopicPartition>>> {
    let folder = log.join(topic);
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(io("read", &folder, error)),
    };
    let name: Arc<str> = Arc::from(topic);
    let mut partitions = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| io("read", &folder, error))?;
        let file = entry.file_name();
        let number = file.to_str().and_then(|file| file.strip_suffix(".ndjson"));
        // `00.ndjson` is not partition 0: two files must not be one partition.
        let number =
            number.and_then(|n| n.parse().ok().filter(|p: &i32| *p >= 0 && p.to_string() == n));
        partitions.extend(number.map(|number| TopicPartition::new(Arc::clone(&name), number)));
    }
    partitions.sort();
    Ok(Some(partitions))
}

impl Inner {
    fn lock_state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn file_of(&self, place: &TopicPartition) -> PathBuf {
        file_of(&self.path, place)
    }

    pub(crate) fn index_of(&self, place: &TopicPartition) -> Arc<Mutex<LineIndex>> {
        Arc::clone(self.lock_state().indexes.entry(place.clone()).or_default())
    }

    /// The partitions of the connector's topics as they are now.
    fn scan(&self) -> Result<Vec<TopicPartition>> {
        let mut topics: BTreeSet<String> = self.names.iter().cloned().collect();
        if !self.patterns.is_empty() {
            topics.extend(self.matching()?);
        }
        let mut partitions = Vec::new();
        for topic in topics {
            partitions.extend(partitions_of(&self.path, &topic)?.unwrap_or_default());
        }
        Ok(partitions)
    }

    fn matching(&self) -> Result<Vec<String>> {
        let entries = match fs::read_dir(&self.path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(io("read", &self.path, error)),
        };
        let mut topics = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|error| io("read", &self.path, error))?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let matches = self.patterns.iter().any(|pattern| pattern.is_match(&name));
            let own = self.except.contains(&name);
            if matches && !own && check_topic(&name).is_ok() {
                topics.push(name);
            }
        }
        Ok(topics)
    }

    /// The partitions that `task` reads. New ones go to the task that has the fewest.
    pub(crate) fn assignment(&self, task: u32) -> Result<Vec<TopicPartition>> {
        let found = self.scan()?;
        let mut state = self.lock_state();
        for partition in found {
            if !state.owners.contains_key(&partition) {
                let load =
                    |task: &u32| state.owners.values().filter(|owner| *owner == task).count();
                let owner = (0..self.tasks_max).min_by_key(load).unwrap_or(0);
                state.owners.insert(partition, owner);
            }
        }
        let mine = state.owners.iter().filter(|(_, owner)| **owner == task);
        Ok(mine.map(|(partition, _)| partition.clone()).collect())
    }

    /// How many lines a partition's file has; 0 where there is none.
    pub(crate) fn high(&self, place: &TopicPartition) -> Result<Position> {
        let path = self.file_of(place);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Position(0)),
            Err(error) => return Err(io("open", &path, error)),
        };
        let index = self.index_of(place);
        let mut index = index.lock().unwrap_or_else(PoisonError::into_inner);
        index.extend(&file, &path).map(Position)
    }

    fn survey(&self) -> Result<Survey> {
        let mut missing = Vec::new();
        for topic in &self.names {
            if partitions_of(&self.path, topic)?.is_none() {
                let folder = self.path.join(topic);
                let way_out = format!(
                    "make the folder {} with a file 0.ndjson, or `foldline produce {topic}`",
                    folder.display()
                );
                missing.push(MissingTopic { name: topic.as_str().into(), way_out });
            }
        }
        let info = |partition: TopicPartition| {
            let id = ensure_id(&self.path.join(&*partition.topic).join(".topic-id"))?;
            let high = self.high(&partition)?;
            Ok(PartitionInfo { partition, topic_id: Some(id), low: Position(0), high })
        };
        let partitions: Result<_> = self.scan()?.into_iter().map(info).collect();
        Ok(Survey { partitions: partitions?, missing })
    }

    fn find(&self, place: &TopicPartition, start: Start) -> Result<Position> {
        let moment = match start {
            Start::Earliest => return Ok(Position(0)),
            Start::Latest => return self.high(place),
            Start::Timestamp(moment) => moment,
        };
        let index = self.index_of(place);
        let mut index = index.lock().unwrap_or_else(PoisonError::into_inner);
        let at = (place.clone(), self.file_of(place));
        let mut reader = PartitionReader::open(at, Position(0), &mut index, CHUNK)?;
        while let Some(records) = reader.read()? {
            let later = |timestamp: Option<i64>| timestamp.is_some_and(|at| at >= moment);
            if let Some(record) = records.iter().find(|record| later(record.timestamp)) {
                return Ok(Position(record.offset));
            }
        }
        Ok(reader.position())
    }

    fn lock_group(&self) -> Result<Arc<GroupLock>> {
        let mut state = self.lock_state();
        if let Some(held) = state.lock.upgrade() {
            return Ok(held);
        }
        let lock = Arc::new(self.group.lock()?);
        state.lock = Arc::downgrade(&lock);
        Ok(lock)
    }

    /// Lays commits over the group's. Tasks commit at any time, so one at a time.
    pub(crate) fn write_offsets(&self, commits: &[Commit]) -> Result<()> {
        let _one = self.lock_state();
        self.group.write(commits)
    }
}

/// Runs what waits for a disk where waiting is allowed.
pub(crate) async fn blocking<T: Send + 'static>(
    act: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let done = tokio::task::spawn_blocking(act).await;
    done.map_err(|error| Error::retriable("reading a file log was cut off").with_source(error))?
}

#[async_trait]
impl Log for FileLog {
    async fn identity(&self) -> Result<String> {
        let path = self.0.path.join(".foldline-log-id");
        blocking(move || ensure_id(&path)).await
    }

    async fn survey(&self) -> Result<Survey> {
        let log = Arc::clone(&self.0);
        blocking(move || log.survey()).await
    }

    async fn topic_ids(&self, topics: &[Arc<str>]) -> Result<Vec<Option<String>>> {
        let (log, topics) = (Arc::clone(&self.0), topics.to_vec());
        blocking(move || {
            let id = |topic: &Arc<str>| {
                let folder = log.path.join(&**topic);
                if folder.is_dir() {
                    return ensure_id(&folder.join(".topic-id")).map(Some);
                }
                Err(Error::retriable(format!("there is no topic folder {} now", folder.display())))
            };
            topics.iter().map(id).collect()
        })
        .await
    }

    async fn find(&self, partitions: &[TopicPartition], start: Start) -> Result<Vec<Position>> {
        let (log, partitions) = (Arc::clone(&self.0), partitions.to_vec());
        blocking(move || partitions.iter().map(|place| log.find(place, start)).collect()).await
    }

    async fn committed(&self) -> Result<Vec<Commit>> {
        let log = Arc::clone(&self.0);
        blocking(move || log.group.read()).await
    }

    async fn commit(&self, commits: &[Commit]) -> Result<()> {
        let (log, commits) = (Arc::clone(&self.0), commits.to_vec());
        blocking(move || {
            let _held = log.lock_group()?;
            log.write_offsets(&commits)
        })
        .await
    }

    async fn members(&self) -> Result<usize> {
        let log = Arc::clone(&self.0);
        blocking(move || match log.lock_group() {
            Ok(_) => Ok(0),
            Err(error) if error.class() == ErrorClass::Fenced => Ok(1),
            Err(error) => Err(error),
        })
        .await
    }

    async fn delete_group(&self) -> Result<bool> {
        let log = Arc::clone(&self.0);
        blocking(move || {
            let _held = log.lock_group()?;
            log.group.delete()
        })
        .await
    }

    fn source(&self, task: u32, memory: usize) -> Result<Box<dyn Source>> {
        let lock = self.0.lock_group().map_err(|error| match error.class() {
            // Waiting would not help: the other worker does not share a file log's group.
            ErrorClass::Fenced => Error::config(error.message()),
            _ => error,
        })?;
        if task >= self.0.tasks_max || !self.0.lock_state().tasks.insert(task) {
            return Err(Error::config(format!("task {task} is running already, or is not one")));
        }
        let membership = Membership { log: Arc::clone(&self.0), task, _lock: lock };
        Ok(Box::new(FileSource::new(membership, memory)?))
    }

    fn reader(&self) -> Result<Box<dyn Reader>> {
        Ok(Box::new(FileReader(Arc::clone(&self.0))))
    }
}
