//! A log in memory, with groups whose partitions are given and taken by themselves or on command.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use foldline_api::record::{Headers, Position, Record, TopicPartition};
use foldline_api::source::{
    Chunk, Commit, Log, MissingTopic, PartitionInfo, Reader, Source, SourceEvent, Start, Stretch,
    Survey,
};
use foldline_api::{Error, Result};
use tokio::sync::Notify;

use crate::source::MemorySource;

/// One partition's records; an offset without one is a transaction marker.
#[derive(Clone, Debug, Default)]
pub(crate) struct Partition {
    pub(crate) low: i64,
    pub(crate) entries: VecDeque<Option<Record>>,
    /// What stands here cannot be read.
    pub(crate) broken: Option<i64>,
}

impl Partition {
    pub(crate) fn high(&self) -> i64 {
        self.low + i64::try_from(self.entries.len()).unwrap_or(0)
    }

    pub(crate) fn get(&self, offset: i64) -> Option<&Option<Record>> {
        self.entries.get(usize::try_from(offset - self.low).ok()?)
    }
}

/// One member of a group.
#[derive(Debug, Default)]
pub(crate) struct Member {
    pub(crate) assigned: BTreeMap<TopicPartition, Option<i64>>,
    /// What it has been told to give back and has not yet.
    pub(crate) revoking: BTreeSet<TopicPartition>,
    pub(crate) events: VecDeque<Result<SourceEvent>>,
    pub(crate) ended: BTreeMap<TopicPartition, i64>,
}

#[derive(Debug, Default)]
pub(crate) struct Group {
    pub(crate) committed: BTreeMap<TopicPartition, Commit>,
    pub(crate) members: BTreeMap<u64, Member>,
    pub(crate) topics: BTreeSet<String>,
    pub(crate) on_command: bool,
    pub(crate) refuses_commits: bool,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) partitions: BTreeMap<TopicPartition, Partition>,
    topic_ids: BTreeMap<String, u64>,
    pub(crate) groups: BTreeMap<String, Group>,
    counter: u64,
    /// How much longer than a millisecond an answer about topics is on its way.
    answers_later: Duration,
}

/// What is done once, as soon as some read is through.
struct Hook(Box<dyn FnOnce(&MemoryLog) + Send>);

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hook")
    }
}

/// The log; clones share it.
#[derive(Clone, Debug)]
pub struct MemoryLog {
    identity: Arc<str>,
    state: Arc<Mutex<State>>,
    hook: Arc<Mutex<Option<Hook>>>,
    pub(crate) changed: Arc<Notify>,
}

impl MemoryLog {
    /// An empty log.
    #[must_use]
    pub fn new(identity: &str) -> Self {
        MemoryLog {
            identity: Arc::from(identity),
            state: Arc::default(),
            hook: Arc::default(),
            changed: Arc::default(),
        }
    }

    /// Creates a topic, or adds partitions to it.
    pub fn create_topic(&self, topic: &str, partitions: i32) {
        let mut state = self.lock();
        state.counter += 1;
        let id = state.counter;
        state.topic_ids.entry(topic.to_owned()).or_insert(id);
        for partition in 0..partitions {
            state.partitions.entry(TopicPartition::new(topic, partition)).or_default();
        }
        state.balance_all();
        self.changed.notify_waiters();
    }

    /// Deletes a topic; one created later under its name has another id.
    pub fn delete_topic(&self, topic: &str) {
        let mut state = self.lock();
        state.topic_ids.remove(topic);
        state.partitions.retain(|partition, _| &*partition.topic != topic);
        for group in state.groups.values_mut() {
            group.committed.retain(|partition, _| &*partition.topic != topic);
        }
        self.changed.notify_waiters();
    }

    /// A log of its own with the same topics and records, and no groups.
    #[must_use]
    pub fn copy(&self) -> MemoryLog {
        let state = self.lock();
        let copy = State {
            partitions: state.partitions.clone(),
            topic_ids: state.topic_ids.clone(),
            groups: BTreeMap::new(),
            counter: state.counter,
            answers_later: Duration::ZERO,
        };
        MemoryLog {
            identity: Arc::clone(&self.identity),
            state: Arc::new(Mutex::new(copy)),
            hook: Arc::default(),
            changed: Arc::default(),
        }
    }

    /// Appends a record and says at which offset. A partition that is missing is made.
    pub fn append(
        &self,
        topic: &str,
        partition: i32,
        key: Option<&str>,
        value: Option<&str>,
    ) -> i64 {
        let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
        self.append_record(topic, partition, (key.map(bytes), value.map(bytes)), Vec::new(), None)
    }

    /// Appends a record with all it may have: key and value, headers, timestamp in milliseconds.
    pub fn append_record(
        &self,
        topic: &str,
        partition: i32,
        (key, value): (Option<Bytes>, Option<Bytes>),
        headers: Headers,
        timestamp: Option<i64>,
    ) -> i64 {
        let mut state = self.lock();
        state.counter += 1;
        let id = state.counter;
        state.topic_ids.entry(topic.to_owned()).or_insert(id);
        let place = TopicPartition::new(topic, partition);
        let name = Arc::clone(&place.topic);
        let log = state.partitions.entry(place).or_default();
        let offset = log.high();
        let record = Record { topic: name, partition, offset, timestamp, key, value, headers };
        log.entries.push_back(Some(record));
        self.changed.notify_waiters();
        offset
    }

    /// Makes what stands at an offset unreadable.
    pub fn break_at(&self, topic: &str, partition: i32, offset: i64) {
        let place = TopicPartition::new(topic, partition);
        self.lock().partitions.entry(place).or_default().broken = Some(offset);
    }

    /// An answer about topics is on its way for so much longer.
    pub fn answer_later(&self, by: Duration) {
        self.lock().answers_later = by;
    }

    /// Does this once, when a reader (not a member) asks for the next records, before it gets them.
    pub fn before_read(&self, act: impl FnOnce(&MemoryLog) + Send + 'static) {
        *self.hook.lock().unwrap_or_else(PoisonError::into_inner) = Some(Hook(Box::new(act)));
    }

    fn reads(&self) {
        let hook = self.hook.lock().unwrap_or_else(PoisonError::into_inner).take();
        hook.into_iter().for_each(|Hook(act)| act(self));
    }

    /// Appends a transaction marker: an offset that no record has.
    pub fn append_marker(&self, topic: &str, partition: i32) {
        let place = TopicPartition::new(topic, partition);
        self.lock().partitions.entry(place).or_default().entries.push_back(None);
        self.changed.notify_waiters();
    }

    /// Retention: forgets what lies before `low`.
    pub fn forget_before(&self, partition: &TopicPartition, low: i64) {
        if let Some(log) = self.lock().partitions.get_mut(partition) {
            while log.low < low && log.entries.pop_front().is_some() {
                log.low += 1;
            }
        }
    }

    /// All records of a topic, partition by partition: what an oracle folds.
    #[must_use]
    pub fn records(&self, topic: &str) -> Vec<Record> {
        let state = self.lock();
        let logs = state.partitions.iter().filter(|(partition, _)| &*partition.topic == topic);
        logs.flat_map(|(_, log)| log.entries.iter().flatten().cloned()).collect()
    }

    /// A connector's view, as a member of `group`, of `topics`.
    #[must_use]
    pub fn group(&self, group: &str, topics: &[&str]) -> Arc<MemoryGroup> {
        let mut state = self.lock();
        let entry = state.groups.entry(group.to_owned()).or_default();
        entry.topics.extend(topics.iter().map(|topic| (*topic).to_owned()));
        Arc::new(MemoryGroup { log: self.clone(), name: Arc::from(group) })
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn balance_all(&mut self) {
        let names: Vec<String> = self.groups.keys().cloned().collect();
        names.iter().for_each(|name| self.balance(name));
    }

    /// Deals the group's partitions to its members in turn. What moves is taken back first and given
    /// once it is released.
    pub(crate) fn balance(&mut self, name: &str) {
        let Some(group) = self.groups.get_mut(name).filter(|group| !group.on_command) else {
            return;
        };
        let ids: Vec<u64> = group.members.keys().copied().collect();
        if ids.is_empty() {
            return;
        }
        let topics = &group.topics;
        let mine = self.partitions.keys().filter(|p| topics.contains(&*p.topic));
        let wanted: BTreeMap<TopicPartition, u64> =
            mine.cloned().zip(ids.iter().copied().cycle()).collect();
        for (id, member) in &mut group.members {
            let moved = |p: &&TopicPartition| wanted.get(*p) != Some(id);
            let moved: Vec<_> = member.assigned.keys().filter(moved).cloned().collect();
            member.revoke(&moved);
        }
        let held: BTreeSet<TopicPartition> =
            group.members.values().flat_map(|member| member.assigned.keys().cloned()).collect();
        for (id, member) in &mut group.members {
            let free = |(p, owner): &(&TopicPartition, &u64)| *owner == id && !held.contains(*p);
            let free: Vec<_> = wanted.iter().filter(free).map(|(p, _)| p.clone()).collect();
            member.assign(&free);
        }
    }
}

impl Member {
    fn assign(&mut self, partitions: &[TopicPartition]) {
        for partition in partitions {
            self.assigned.insert(partition.clone(), None);
            self.ended.remove(partition);
        }
        if !partitions.is_empty() {
            self.events.push_back(Ok(SourceEvent::Assigned(partitions.to_vec())));
        }
    }

    fn revoke(&mut self, partitions: &[TopicPartition]) {
        let fresh = partitions.iter().filter(|p| self.assigned.contains_key(*p)).cloned();
        let fresh: Vec<_> = fresh.filter(|p| !self.revoking.contains(p)).collect();
        if !fresh.is_empty() {
            self.revoking.extend(fresh.iter().cloned());
            self.events.push_back(Ok(SourceEvent::Revoked(fresh)));
        }
    }

    fn lose(&mut self, partitions: &[TopicPartition]) {
        for partition in partitions {
            self.assigned.remove(partition);
            self.revoking.remove(partition);
        }
        self.events.push_back(Ok(SourceEvent::Lost(partitions.to_vec())));
    }
}

/// A group's view of a [`MemoryLog`]. Partitions are dealt to members as they come and go, unless
/// [`MemoryGroup::on_command`] leaves that to the test.
#[derive(Clone, Debug)]
pub struct MemoryGroup {
    pub(crate) log: MemoryLog,
    pub(crate) name: Arc<str>,
}

impl MemoryGroup {
    /// From now on only `assign`, `revoke` and `lose` move partitions.
    pub fn on_command(&self) {
        self.with(|group| group.on_command = true);
    }

    /// The members' ids, oldest first.
    #[must_use]
    pub fn members(&self) -> Vec<u64> {
        self.with(|group| group.members.keys().copied().collect())
    }

    /// Gives partitions to a member. Nothing stops a test from giving one to two members.
    pub fn assign(&self, member: u64, partitions: &[TopicPartition]) {
        self.tell(member, |member| member.assign(partitions));
    }

    /// Takes partitions back from a member, which may finish first.
    pub fn revoke(&self, member: u64, partitions: &[TopicPartition]) {
        self.tell(member, |member| member.revoke(partitions));
    }

    /// Takes partitions away without asking: the session timed out.
    pub fn lose(&self, member: u64, partitions: &[TopicPartition]) {
        self.tell(member, |member| member.lose(partitions));
    }

    /// Makes a member's next call fail.
    pub fn fail(&self, member: u64, error: Error) {
        self.tell(member, |member| member.events.push_back(Err(error)));
    }

    /// While true, commits of members fail, as while the group's coordinator is away.
    pub fn refuse_commits(&self, refuse: bool) {
        self.with(|group| group.refuses_commits = refuse);
    }

    /// Whether some member holds the partition, or has not released it yet.
    #[must_use]
    pub fn is_held(&self, partition: &TopicPartition) -> bool {
        self.with(|group| group.members.values().any(|m| m.assigned.contains_key(partition)))
    }

    /// Sets or deletes a committed offset, as a tool from outside does.
    pub fn set_committed(&self, partition: &TopicPartition, commit: Option<Commit>) {
        self.with(|group| match commit {
            Some(commit) => group.committed.insert(partition.clone(), commit),
            None => group.committed.remove(partition),
        });
    }

    pub(crate) fn with<T>(&self, act: impl FnOnce(&mut Group) -> T) -> T {
        act(self.log.lock().groups.entry(self.name.to_string()).or_default())
    }

    fn tell(&self, member: u64, act: impl FnOnce(&mut Member)) {
        self.with(|group| group.members.get_mut(&member).map(act));
        self.log.changed.notify_waiters();
    }

    fn unknown(partition: &TopicPartition) -> Error {
        Error::config(format!("partition {partition} does not exist"))
    }
}

#[async_trait]
impl Log for MemoryGroup {
    async fn identity(&self) -> Result<String> {
        Ok(self.log.identity.to_string())
    }

    async fn survey(&self) -> Result<Survey> {
        let topics = self.with(|group| group.topics.clone());
        let state = self.log.lock();
        let missing = topics.iter().filter(|topic| !state.topic_ids.contains_key(*topic));
        let missing = missing
            .map(|topic| MissingTopic { name: topic.as_str().into(), way_out: String::new() })
            .collect();
        let mine = state.partitions.iter().filter(|(p, _)| topics.contains(&*p.topic));
        let info = |(partition, log): (&TopicPartition, &Partition)| PartitionInfo {
            partition: partition.clone(),
            topic_id: state.topic_ids.get(&*partition.topic).map(u64::to_string),
            low: Position(log.low),
            high: Position(log.high()),
        };
        Ok(Survey { partitions: mine.map(info).collect(), missing })
    }

    async fn topic_ids(&self, topics: &[Arc<str>]) -> Result<Vec<Option<String>>> {
        let (ids, later): (Result<_>, _) = {
            let state = self.log.lock();
            let missing = |topic: &str| Error::retriable(format!("topic {topic:?} does not exist"));
            let id = |topic: &Arc<str>| state.topic_ids.get(&**topic).ok_or_else(|| missing(topic));
            let ids = topics.iter().map(|topic| Ok(Some(id(topic)?.to_string()))).collect();
            (ids, state.answers_later)
        };
        // An answer is on its way while more comes of the log.
        tokio::time::sleep(Duration::from_millis(1) + later).await;
        ids
    }

    async fn find(&self, partitions: &[TopicPartition], start: Start) -> Result<Vec<Position>> {
        let state = self.log.lock();
        let find = |partition: &TopicPartition| {
            let log = state.partitions.get(partition).ok_or_else(|| Self::unknown(partition))?;
            let at_or_after = |moment| {
                let later = |entry: &&Record| entry.timestamp.is_some_and(|at| at >= moment);
                log.entries.iter().flatten().find(later).map(|record| record.offset)
            };
            Ok(Position(match start {
                Start::Earliest => log.low,
                Start::Latest => log.high(),
                Start::Timestamp(moment) => at_or_after(moment).unwrap_or(log.high()),
            }))
        };
        partitions.iter().map(find).collect()
    }

    async fn committed(&self) -> Result<Vec<Commit>> {
        Ok(self.with(|group| group.committed.values().cloned().collect()))
    }

    async fn members(&self) -> Result<usize> {
        Ok(self.with(|group| group.members.len()))
    }

    async fn commit(&self, commits: &[Commit]) -> Result<()> {
        self.with(|group| {
            if !group.members.is_empty() {
                return Err(Error::fenced("the group has members"));
            }
            for commit in commits {
                group.committed.insert(commit.partition.clone(), commit.clone());
            }
            Ok(())
        })
    }

    fn source(&self, _task: u32, memory: usize) -> Result<Box<dyn Source>> {
        let mut state = self.log.lock();
        state.counter += 1;
        let id = state.counter;
        let group = state.groups.entry(self.name.to_string()).or_default();
        group.members.insert(id, Member::default());
        state.balance(&self.name);
        drop(state);
        self.log.changed.notify_waiters();
        Ok(Box::new(MemorySource::new(self.clone(), id, memory)))
    }

    fn reader(&self) -> Result<Box<dyn Reader>> {
        Ok(Box::new(MemoryReader(self.log.clone())))
    }
}

/// Reads a [`MemoryLog`] beside its groups.
#[derive(Debug)]
struct MemoryReader(MemoryLog);

#[async_trait]
impl Reader for MemoryReader {
    async fn read(&mut self, wanted: &[Stretch], bytes: usize) -> Result<Chunk> {
        let Some(Stretch { partition, from, to }) = wanted.first() else {
            return Ok(Chunk::default());
        };
        let (from, to) = (*from, *to);
        self.0.reads();
        let state = self.0.lock();
        let log = state.partitions.get(partition).ok_or_else(|| MemoryGroup::unknown(partition))?;
        if from.0 < log.low {
            return Err(Error::config(format!("{partition} begins at {}, past {from}", log.low)));
        }
        let (mut chunk, mut size) = (Chunk { of: 0, records: Vec::new(), next: from }, 0);
        while chunk.next < to && size < bytes.max(1) {
            if log.broken == Some(chunk.next.0) {
                if chunk.records.is_empty() {
                    let at = chunk.next;
                    return Err(Error::config(format!("{partition} at {at}: cannot be read")));
                }
                break;
            }
            let Some(entry) = log.get(chunk.next.0) else {
                chunk.next = to;
                break;
            };
            if let Some(record) = entry {
                size += record.bytes();
                chunk.records.push(record.clone());
            }
            chunk.next.0 += 1;
        }
        Ok(chunk)
    }
}
