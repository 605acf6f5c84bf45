//! A member of a group of the log in memory.

use std::sync::Arc;

use async_trait::async_trait;
use foldline_api::record::{Position, TopicPartition};
use foldline_api::source::{Commit, Committer, Source, SourceEvent, Wanted};
use foldline_api::{Error, Result};

use crate::log::{Member, MemoryGroup, State};

/// Records of one delivery at most; small, so that batches end in many places.
const RECORDS_MAX: usize = 100;

/// A consuming member, made by [`MemoryGroup`]'s `source`.
#[derive(Debug)]
pub struct MemorySource {
    group: MemoryGroup,
    id: u64,
    memory: usize,
    /// The partition that was read last: the others come first next time.
    last: Option<TopicPartition>,
}

impl MemorySource {
    pub(crate) fn new(group: MemoryGroup, id: u64, memory: usize) -> Self {
        MemorySource { group, id, memory, last: None }
    }

    fn with<T>(&self, act: impl FnOnce(&mut Member) -> T) -> Result<T> {
        let gone = || Error::fenced("this member left the group");
        self.group.with(|group| group.members.get_mut(&self.id).map(act)).ok_or_else(gone)
    }

    /// What there is to say now, if anything.
    fn poll(&mut self, wanted: Wanted) -> Option<Result<SourceEvent>> {
        let mut guard = self.group.log.lock();
        let State { partitions, groups, .. } = &mut *guard;
        let group = groups.get_mut(&*self.group.name)?;
        let Some(member) = group.members.get_mut(&self.id) else {
            return Some(Err(Error::fenced("this member left the group")));
        };
        if let Some(event) = member.events.pop_front() {
            return Some(event);
        }
        if wanted == Wanted::Control {
            return None;
        }
        let last = self.last.clone();
        let mut order: Vec<TopicPartition> = member.assigned.keys().cloned().collect();
        order.sort_by_key(|partition| (Some(partition) <= last.as_ref(), partition.clone()));
        for partition in order {
            let at = member.assigned.get(&partition).copied().flatten();
            let (Some(from), Some(log)) = (at, partitions.get(&partition)) else { continue };
            if from < log.low || from > log.high() {
                return Some(Err(Error::config(format!("{partition} has no offset {from}"))));
            }
            let (mut next, mut bytes, mut records) = (from, 0, Vec::new());
            while let Some(entry) = log.get(next).filter(|_| log.broken != Some(next)) {
                if records.len() == RECORDS_MAX || (bytes >= self.memory && !records.is_empty()) {
                    break;
                }
                next += 1;
                if let Some(record) = entry {
                    bytes += record.bytes();
                    records.push(record.clone());
                }
            }
            member.assigned.insert(partition.clone(), Some(next));
            if !records.is_empty() {
                self.last = Some(partition);
                return Some(Ok(SourceEvent::Records(records)));
            }
            if log.broken == Some(next) {
                let place = format!("`{partition}` at offset {next}: a batch cannot be read");
                member.assigned.insert(partition.clone(), None);
                let at = Position(next);
                return Some(Ok(SourceEvent::Broken(partition, at, Error::config(place))));
            }
            if member.ended.insert(partition.clone(), next) != Some(next) {
                return Some(Ok(SourceEvent::End(partition, Position(next))));
            }
        }
        None
    }
}

#[async_trait]
impl Source for MemorySource {
    async fn next(&mut self, wanted: Wanted) -> Result<SourceEvent> {
        let changed = Arc::clone(&self.group.log.changed);
        loop {
            // Made before the look: what changes after it wakes us.
            let wake = changed.notified();
            if let Some(event) = self.poll(wanted) {
                return event;
            }
            wake.await;
        }
    }

    fn start(&mut self, from: &[(TopicPartition, Position)]) -> Result<()> {
        self.with(|member| {
            for (partition, position) in from {
                if let Some(at) = member.assigned.get_mut(partition) {
                    *at = Some(position.0);
                    member.ended.remove(partition);
                }
            }
        })?;
        self.group.log.changed.notify_waiters();
        Ok(())
    }

    fn release(&mut self, partitions: &[TopicPartition]) -> Result<()> {
        self.with(|member| {
            for partition in partitions {
                if member.revoking.remove(partition) {
                    member.assigned.remove(partition);
                }
            }
        })?;
        self.group.log.lock().balance(&self.group.name);
        self.group.log.changed.notify_waiters();
        Ok(())
    }

    fn committer(&self) -> Arc<dyn Committer> {
        Arc::new(MemoryCommitter { group: self.group.clone(), id: self.id })
    }

    fn ends(&self) -> Vec<(TopicPartition, Position)> {
        let mine: Vec<_> =
            self.with(|member| member.assigned.keys().cloned().collect()).unwrap_or_default();
        let state = self.group.log.lock();
        let end = |p: TopicPartition| {
            let high = state.partitions.get(&p)?.high();
            Some((p, Position(high)))
        };
        mine.into_iter().filter_map(end).collect()
    }

    async fn close(self: Box<Self>) {
        // Dropping it leaves the group.
    }
}

impl Drop for MemorySource {
    fn drop(&mut self) {
        self.group.with(|group| group.members.remove(&self.id));
        self.group.log.lock().balance(&self.group.name);
        self.group.log.changed.notify_waiters();
    }
}

/// Commits for one member: only what it holds.
#[derive(Debug)]
pub struct MemoryCommitter {
    group: MemoryGroup,
    id: u64,
}

#[async_trait]
impl Committer for MemoryCommitter {
    async fn commit(&self, commits: &[Commit]) -> Result<()> {
        self.group.with(|group| {
            if group.refuses_commits {
                return Err(Error::retriable("the coordinator is away"));
            }
            let held = group.members.get(&self.id).map(|member| &member.assigned);
            let holds = |commit: &Commit| held.is_some_and(|h| h.contains_key(&commit.partition));
            if !commits.iter().all(holds) {
                return Err(Error::fenced("a partition is not this member's any more"));
            }
            for commit in commits {
                group.committed.insert(commit.partition.clone(), commit.clone());
            }
            Ok(())
        })
    }
}
