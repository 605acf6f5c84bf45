//! The task as a member of its group: partitions that come, go and are lost, commits, and leaving.

use std::time::Duration;

use foldline_api::error::Result;
use foldline_api::failpoint::Failpoint;
use foldline_api::record::{Position, TopicPartition};
use tokio::time::Instant;

use super::inbox::Item;
use super::ops::Taken;
use super::pipeline::Call;
use super::{COMMIT_EVERY, DRAIN, Task, spawn};

/// The calls by which a task takes partitions over and commits to its group, one of each at a time.
pub(super) struct Membership {
    acquiring: Option<Call<Taken>>,
    committing: Option<Call<()>>,
    /// The generation that is written, for the mark in the commit metadata.
    generation: u64,
}

impl Membership {
    pub(super) fn new(generation: u64) -> Self {
        Membership { acquiring: None, committing: None, generation }
    }

    /// Whether partitions are being taken over.
    pub(super) fn acquires(&self) -> bool {
        self.acquiring.is_some()
    }

    /// Whether positions are being committed.
    pub(super) fn commits(&self) -> bool {
        self.committing.is_some()
    }

    /// The calls that are under way.
    pub(super) fn calls(&mut self) -> (Option<&mut Call<Taken>>, Option<&mut Call<()>>) {
        (self.acquiring.as_mut(), self.committing.as_mut())
    }

    pub(super) fn acquire(&mut self, call: Call<Taken>) {
        self.acquiring = Some(call);
    }
}

impl Task {
    /// Commits what is durable, now and then.
    pub(super) fn start_commit(&mut self, now: Instant) {
        if self.membership.commits() {
            return;
        }
        let Some(commits) = self.held.take_commits(now, self.membership.generation) else { return };
        self.held.next_commit(now + COMMIT_EVERY);
        let committer = self.source.committer();
        self.membership.committing = Some(spawn(async move {
            Failpoint::BeforeCommit.reach();
            committer.commit(&commits).await?;
            Failpoint::AfterCommit.reach();
            Ok(())
        }));
    }

    pub(super) fn on_acquired(&mut self, taken: Taken) -> Result<()> {
        self.membership.acquiring = None;
        let Taken { mut acquired, topic_ids, ends, untouched } = taken;
        self.folder.recall(&acquired, &ends);
        let fresh = self.held.is_fresh();
        let starts = self.held.acquired(&acquired.leases, &topic_ids, &untouched);
        self.held.leave_out(std::mem::take(&mut acquired.holes));
        // What was lost or revoked meanwhile is not this task's to know.
        let gone = acquired.leases.iter().filter(|lease| !self.held.holds(&lease.partition));
        gone.for_each(|lease| self.folder.parking.release(&lease.partition));
        if self.held.unmarked() {
            self.held.next_commit(Instant::now());
        }
        // Only while no state was read before, and only a hint: inserts are guarded.
        if !acquired.empty {
            self.cache.set_complete(false);
        } else if fresh && self.contention.fences() == 0 {
            self.cache.set_complete(true);
        }
        self.exit.forget_broken(None);
        self.read_on(starts)?;
        self.gauges.assigned(self.held.len());
        self.show_parked();
        self.show();
        Ok(())
    }

    /// Reads from `starts`, and what stands in a hole from behind it: the position moves there as past a transaction's
    /// marker.
    pub(super) fn read_on(&mut self, mut starts: Vec<(TopicPartition, Position)>) -> Result<()> {
        let now = Instant::now();
        for (partition, to) in self.held.pass_holes() {
            self.topics.came(self.held.topic_of(&partition).into_iter().collect());
            self.pipeline.inbox.push(Item::End(partition.clone(), to), now);
            starts.retain(|(other, _)| *other != partition);
            starts.push((partition, to));
        }
        if starts.is_empty() { Ok(()) } else { self.source.start(&starts) }
    }

    pub(super) fn on_committed(&mut self, committed: Result<()>) {
        self.membership.committing = None;
        match committed {
            Ok(()) => {
                self.held.committed();
                self.ops.metrics.commits.inc();
            }
            Err(error) => {
                // Nothing is lost: the sink's positions win, and the next commit tries again.
                self.held.commit_failed();
                self.ops.metrics.commit_failures.inc();
                tracing::debug!(%error, "offset commit refused");
                if self.held.unmarked() {
                    // Nothing is written before the group knows this generation.
                    self.ops.status.trouble(&error);
                    if self.read_errors.admit() {
                        tracing::warn!(%error, "the group takes no offsets; writing waits for its first");
                    }
                }
            }
        }
    }

    pub(super) fn assigned(&mut self, partitions: Vec<TopicPartition>) {
        self.ops.metrics.rebalances.inc();
        tracing::info!(count = partitions.len(), "partitions assigned");
        let again: Vec<TopicPartition> =
            partitions.iter().filter(|p| self.held.holds(p)).cloned().collect();
        if !again.is_empty() {
            // Lost and given back before this task heard of it.
            self.lose(&again);
        }
        self.held.assigned(partitions);
    }

    pub(super) fn revoked(&mut self, partitions: Vec<TopicPartition>, now: Instant) {
        self.ops.metrics.rebalances.inc();
        tracing::info!(count = partitions.len(), "partitions revoked, draining");
        self.side_work.cancel();
        self.sweep.cancel();
        let abandoned = self.pipeline.abandon(Some(&self.held.revoking(partitions, now + DRAIN)));
        self.gauges.abandoned(abandoned);
        Failpoint::Revoke.reach();
    }

    /// These partitions are someone else's already: nothing of them may count as ours.
    pub(super) fn lose(&mut self, partitions: &[TopicPartition]) {
        self.ops.metrics.rebalances.inc();
        self.ops.metrics.fenced.inc();
        tracing::warn!(count = partitions.len(), "partitions lost");
        self.side_work.cancel();
        self.sweep.cancel();
        // A write under way is fenced by the new owner or was in time; either way it is not asked again.
        let batch = self.pipeline.written().map(|writing| writing.batch);
        self.cache.set_writing(None);
        self.fold_again(batch);
        let gone = partitions.iter().cloned().collect();
        let abandoned = self.pipeline.abandon(Some(&gone));
        self.gauges.abandoned(abandoned);
        self.drop_partitions(partitions);
        // What was written together with them has an unknown outcome.
        self.abandon_inbox();
        self.held.acquire_all(Instant::now());
    }

    fn drop_partitions(&mut self, partitions: &[TopicPartition]) {
        for partition in partitions {
            self.exit.forget_broken(Some(partition));
            self.held.remove(partition);
            self.folder.parking.release(partition);
            self.ops.sent.forget(partition);
        }
        self.gauges.assigned(self.held.len());
        self.show_parked();
        self.show();
        // What is no longer shown is no longer measured.
        for partition in partitions {
            self.ops.metrics.forget_lag(&partition.topic, partition.partition);
        }
    }

    /// Gives revoked partitions back once nothing of them is in flight and their positions are
    /// committed, or when the time is up.
    pub(super) fn finish_revocation(&mut self, now: Instant) -> Result<()> {
        let Some((partitions, deadline)) = self.held.revocation() else { return Ok(()) };
        let drained =
            self.idle() && !self.membership.commits() && !self.held.uncommitted(&partitions);
        if !drained && now < deadline {
            if self.idle() {
                self.held.next_commit(now);
            }
            return Ok(());
        }
        self.fold_again(None);
        let gone = partitions.iter().cloned().collect();
        let abandoned = self.pipeline.abandon(Some(&gone));
        self.gauges.abandoned(abandoned);
        self.drop_partitions(&partitions);
        Failpoint::Release.reach();
        self.source.release(&partitions)
    }

    /// Commits what is durable and leaves the group, each within a bound.
    pub(super) async fn leave(mut self) {
        self.abandon_rest();
        if let Some(commits) = self.held.all_durable(self.membership.generation) {
            let committer = self.source.committer();
            let commit = tokio::time::timeout(Duration::from_secs(5), committer.commit(&commits));
            match commit.await {
                Ok(Ok(())) => self.ops.metrics.commits.inc(),
                Ok(Err(_)) | Err(_) => self.ops.metrics.commit_failures.inc(),
            }
        }
        let held: Vec<TopicPartition> = self.held.partitions();
        self.gauges.positions(Vec::new());
        for partition in &held {
            self.folder.parking.release(partition);
            self.ops.metrics.forget_lag(&partition.topic, partition.partition);
        }
        self.gauges.assigned(0);
        self.show_parked();
        let closed = tokio::time::timeout(DRAIN, self.source.close()).await;
        if closed.is_err() {
            tracing::warn!("the consumer did not leave its group in time");
        }
    }

    pub(super) fn abandon_inbox(&mut self) {
        let abandoned = self.pipeline.abandon(None);
        self.gauges.abandoned(abandoned);
    }

    fn abandon_rest(&mut self) {
        let batch = self.pipeline.written().map(|writing| writing.batch);
        self.cache.set_writing(None);
        self.fold_again(batch);
        self.abandon_inbox();
    }
}
