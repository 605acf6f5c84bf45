//! The polling thread: it owns the consumer and polls it always, so that rebalances are answered and
//! the group keeps this member, however slow the sink is.

use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use foldline_api::error::{Error, ErrorClass};
use foldline_api::record::{Position, TopicPartition};
use foldline_api::throttle::Throttle;
use rdkafka::consumer::Consumer;
use rdkafka::error::RDKafkaErrorCode as Code;
use rdkafka::{Offset, TopicPartitionList};

use crate::burst::Burst;
use crate::config::KafkaConfig;
use crate::context::{Context, Member, log};
use crate::error::{class, from_code, from_kafka};
use crate::heard::Heard;
use crate::membership::{Doubt, Nothing};
use crate::native::{Event, EventQueue, Failure, cached_end, list};
use crate::queue::{Command, Inbox};
use crate::rebalance::{Assignment, From};
use crate::topics::TopicFilter;
use crate::unreadable::{self, is_unreadable};

/// How long a poll waits; commands wake it.
const POLL: Duration = Duration::from_secs(1);
/// The same while the partitions are paused: that the task has caught up wakes nobody.
const POLL_PAUSED: Duration = Duration::from_millis(100);
/// How long a revoked partition is waited for.
const DRAIN: Duration = Duration::from_secs(20);
/// How often the cached ends are looked at.
const ENDS: Duration = Duration::from_secs(1);
/// A rebalance waits behind a full queue; pausing drops what was prefetched. So neither at once nor
/// never.
const STALL_MAX: Duration = Duration::from_secs(5);
pub(crate) const ASK: Duration = Duration::from_secs(5);

/// librdkafka asks each broker for the versions of its API when it connects, and tells of what it misses in its log alone.
fn is_unsupported(line: &str) -> bool {
    line.contains("ConsumerGroupHeartbeat") && line.contains("not supported by broker")
}

const NO_CONSUMER_PROTOCOL: &str = "these brokers do not know the consumer group protocol that \
    `group_protocol = \"consumer\"` asks for (ConsumerGroupHeartbeat version 1): it needs Kafka 4.0. Write \
    `group_protocol = \"classic\"` in the source, or upgrade the brokers";

/// The last known end of each partition that is read.
pub(crate) type Ends = Arc<Mutex<Vec<(TopicPartition, Position)>>>;

/// See the module.
pub(crate) struct Poller {
    // Before the consumer: its handle must be gone when the consumer is.
    pub(crate) queue: Arc<EventQueue<Context>>,
    pub(crate) consumer: Arc<Member>,
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) config: KafkaConfig,
    pub(crate) topics: TopicFilter,
    pub(crate) ends: Ends,
    /// The group refused a commit as that of no member of it.
    pub(crate) refused: Arc<AtomicBool>,
    pub(crate) max_poll: Duration,
    pub(crate) refresh: Duration,
    /// The group's name.
    pub(crate) group: String,
    /// Whether the members share the partitions out, not the broker.
    pub(crate) is_classic: bool,
    /// Whether the group keeps this member's place over a restart.
    pub(crate) is_static: bool,
    pub(crate) state: PollState,
}

/// What the thread remembers between polls.
#[derive(Default)]
pub(crate) struct PollState {
    pub(crate) assignment: Assignment,
    burst: Burst,
    /// The last start that was carried out.
    epoch: u64,
    /// Starts that wait to be assigned anew.
    deferred: From,
    full_since: Option<Instant>,
    paused: bool,
    ends_at: Option<Instant>,
    seen_ends: HashMap<TopicPartition, Position>,
    pub(crate) subscribed: Vec<String>,
    subscribed_at: Option<Instant>,
    pub(crate) nothing: Nothing,
    pub(crate) doubt: Doubt,
    /// Of lines about the brokers.
    trouble: Throttle,
    /// The task was told that a batch cannot be read; librdkafka tells it each time it tries.
    broken: bool,
}

/// However the thread ends, its task must hear of it.
struct Farewell(Arc<Inbox>);

impl Drop for Farewell {
    fn drop(&mut self) {
        self.0.end(ErrorClass::Config, "the Kafka consumer's thread has ended; restart the task");
    }
}

impl Poller {
    /// Polls until the inbox is closed, then leaves the group.
    pub(crate) fn run(mut self) {
        let _farewell = Farewell(Arc::clone(&self.inbox));
        while !self.inbox.is_closed() {
            self.keep_subscribed();
            for command in self.inbox.take_commands() {
                self.obey(command);
            }
            let now = Instant::now();
            if let Some((unassign, held)) = self.state.assignment.overdue(now) {
                tracing::warn!(partitions = ?held.len(), "revoked partitions were not let go in time");
                self.unassign(&unassign);
            }
            self.assign_anew();
            self.look_at_ends(now);
            self.look_at_nothing(now);
            self.look_at_membership(now);
            if self.hold_back(now) {
                self.inbox.wait_for_space(POLL);
            } else {
                self.poll_burst();
            }
        }
        self.leave();
    }

    /// Subscribes; for a regex again whenever the topics that it finds have changed. The regex is
    /// matched here: librdkafka and, with KIP-848, the broker speak other dialects.
    fn keep_subscribed(&mut self) {
        let state = &mut self.state;
        if state.subscribed_at.is_some_and(|at| at.elapsed() < self.refresh) {
            return;
        }
        let topics = match &self.topics {
            TopicFilter::List(_) if !state.subscribed.is_empty() => return,
            TopicFilter::List(names) => names.clone(),
            TopicFilter::Regex(regex) => match self.consumer.fetch_metadata(None, ASK) {
                Ok(metadata) => {
                    let names = metadata.topics().iter().map(|topic| topic.name());
                    let taken = names.filter(|name| regex.takes(name));
                    let mut taken: Vec<String> = taken.map(str::to_owned).collect();
                    taken.sort_unstable();
                    taken
                }
                Err(error) => {
                    if state.trouble.admit(Instant::now()).is_some() {
                        tracing::warn!(%error, "listing the topics failed; trying again");
                    }
                    state.subscribed_at = Some(Instant::now());
                    return;
                }
            },
        };
        state.subscribed_at = Some(Instant::now());
        if topics.is_empty() || topics == state.subscribed {
            return;
        }
        let names: Vec<&str> = topics.iter().map(String::as_str).collect();
        match self.consumer.subscribe(&names) {
            Ok(()) => state.subscribed = topics,
            Err(error) => self.inbox.push_error(from_kafka("subscribing", &error)),
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Start { from, epoch } => {
                (self.state.epoch, self.state.broken) = (epoch, false);
                self.state.deferred.retain(|(old, _)| !from.iter().any(|(new, _)| new == old));
                let starts = self.state.assignment.start(&from);
                self.assign(&starts.assign);
                self.seek(starts.seek);
            }
            Command::Release(partitions) => {
                if let Some(unassign) = self.state.assignment.release(&partitions) {
                    self.unassign(&unassign);
                }
            }
        }
    }

    fn assign(&mut self, from: &[(TopicPartition, Position)]) {
        if from.is_empty() {
            return;
        }
        let assign = list(from.iter().map(|(partition, at)| (partition, Offset::Offset(at.0))));
        if let Err(error) = self.consumer.incremental_assign(&assign) {
            let what = format!("starting {} partitions failed: {error}", from.len());
            self.inbox.push_error(Error::fenced(what));
            return;
        }
        self.state.assignment.reading(from);
        if self.state.paused {
            self.pause(&assign);
        }
    }

    /// Reads partitions from elsewhere. Where librdkafka does not seek (after an offset that the log
    /// does not have it reads no more), they are taken off and assigned anew.
    fn seek(&mut self, from: From) {
        if from.is_empty() {
            return;
        }
        let seek = list(from.iter().map(|(partition, at)| (partition, Offset::Offset(at.0))));
        let (done, not): (From, From) = match self.consumer.seek_partitions(seek, ASK) {
            Ok(found) => from.into_iter().partition(|(of, _)| {
                let element = found.find_partition(&of.topic, of.partition);
                element.is_some_and(|element| element.error().is_ok())
            }),
            Err(_) => (From::new(), from),
        };
        self.state.assignment.reading(&done);
        self.state.deferred.extend(not);
    }

    /// Assigns anew what could not seek. Not while a revocation waits for the task: librdkafka takes
    /// any unassign for its answer.
    fn assign_anew(&mut self) {
        if self.state.deferred.is_empty() || self.state.assignment.is_revoking() {
            return;
        }
        let mut from = std::mem::take(&mut self.state.deferred);
        from.retain(|(partition, _)| self.state.assignment.has(partition));
        if from.is_empty() {
            return;
        }
        let known: Vec<_> = from.iter().map(|(partition, _)| partition.clone()).collect();
        self.unassign(&known);
        self.state.assignment.forgotten(&from);
        self.assign(&from);
    }

    /// Whether to wait instead of polling because the task is behind. A short wait keeps what was
    /// prefetched; after a longer one the partitions are paused and polling goes on.
    fn hold_back(&mut self, now: Instant) -> bool {
        if self.state.paused {
            if self.inbox.is_low() {
                let resumed = self.consumer.resume(&list(self.known()));
                if let Err(error) = resumed {
                    if self.state.trouble.admit(now).is_some() {
                        tracing::warn!(%error, "resuming the partitions failed; trying again");
                    }
                } else {
                    self.state.paused = false;
                    self.state.full_since = None;
                }
            }
            return false;
        }
        if !self.inbox.is_full() {
            self.state.full_since = None;
            return false;
        }
        let since = *self.state.full_since.get_or_insert(now);
        if now - since < (self.max_poll / 4).min(STALL_MAX) {
            return true;
        }
        tracing::debug!("the task is behind: pausing the partitions");
        self.pause(&list(self.known()));
        self.state.paused = true;
        false
    }

    fn known(&self) -> impl Iterator<Item = (&TopicPartition, Offset)> {
        self.state.assignment.known().map(|partition| (partition, Offset::Invalid))
    }

    fn pause(&self, partitions: &TopicPartitionList) {
        if let Err(error) = self.consumer.pause(partitions) {
            tracing::warn!(%error, "pausing partitions failed");
        }
    }

    /// Tells librdkafka that a revocation is done, even where it knows none of the partitions.
    pub(crate) fn unassign(&self, partitions: &[TopicPartition]) {
        if !partitions.is_empty() {
            // A pause outlives the assignment, and these may be paused although the others are not any more:
            // given to this member again, they would never be read.
            let paused = list(partitions.iter().map(|partition| (partition, Offset::Invalid)));
            if let Err(error) = self.consumer.resume(&paused) {
                tracing::warn!(%error, "resuming partitions that go failed");
            }
        }
        let take_off = |partitions: &[TopicPartition]| {
            let known = list(partitions.iter().map(|partition| (partition, Offset::Invalid)));
            self.consumer.incremental_unassign(&known)
        };
        let Err(error) = take_off(partitions) else { return };
        // It refuses the whole list for one partition that it does not know, and without an answer
        // the group would wait.
        tracing::warn!(%error, "giving partitions back failed; trying one by one");
        for partition in partitions {
            if let Err(error) = take_off(std::slice::from_ref(partition)) {
                tracing::warn!(%error, %partition, "giving a partition back failed");
            }
        }
        if let Err(error) = take_off(&[]) {
            tracing::warn!(%error, "answering a revocation failed");
        }
    }

    fn poll_burst(&mut self) {
        let mut wait = if self.state.paused { POLL_PAUSED } else { POLL };
        while let Some(event) = self.queue.poll(wait) {
            wait = Duration::ZERO;
            if let Event::Record(record) = event {
                let (topic, partition) = (record.topic(), record.partition());
                let offset = record.offset();
                if let Some(of) = self.state.assignment.accept(&topic, partition, offset) {
                    self.state.burst.push(of, &record);
                }
                if self.state.burst.is_full() {
                    break;
                }
            } else {
                self.flush();
                self.handle(event);
                break;
            }
        }
        self.flush();
    }

    fn flush(&mut self) {
        let records = self.state.burst.take();
        if !records.is_empty() {
            self.inbox.push_records(self.state.epoch, records);
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::End(partition, at) => {
                if self.state.assignment.position(&partition).is_some() {
                    self.state.seen_ends.insert(partition.clone(), at);
                    self.inbox.push_end(self.state.epoch, partition, at);
                }
            }
            Event::Assign(partitions) => self.assigned(partitions),
            Event::Revoke(partitions) => self.revoked(partitions),
            Event::Failed(failure) => self.failed(&failure),
            Event::Log(level, facility, line) => {
                self.heard().line(&facility, &line);
                log(level, &facility, &line);
                if is_unsupported(&line) {
                    self.inbox.end(ErrorClass::Config, NO_CONSUMER_PROTOCOL);
                }
            }
            Event::Record(_) | Event::Other => {}
        }
    }

    /// Answers the group at once, with no partition yet: it need not wait for the task, the
    /// partitions that stay are read on, and each new one is assigned once, when its start is known.
    fn assigned(&mut self, partitions: Vec<TopicPartition>) {
        self.finish_earlier_revocation();
        if let Err(error) = self.consumer.incremental_assign(&TopicPartitionList::new()) {
            tracing::warn!(%error, "answering an assignment failed");
        }
        if !partitions.is_empty() {
            self.state.assignment.assigned(&partitions);
            self.inbox.push_assigned(partitions);
        }
    }

    fn revoked(&mut self, partitions: Vec<TopicPartition>) {
        self.finish_earlier_revocation();
        for partition in &partitions {
            self.state.seen_ends.remove(partition);
        }
        if self.consumer.assignment_lost() || partitions.is_empty() {
            let known = self.state.assignment.remove(&partitions);
            self.unassign(&known);
            if !partitions.is_empty() {
                self.inbox.push_lost(partitions);
            }
        } else {
            self.state.assignment.revoke(partitions.clone(), Instant::now() + DRAIN);
            self.inbox.push_revoked(partitions);
        }
    }

    pub(crate) fn finish_earlier_revocation(&mut self) {
        if let Some(unassign) = self.state.assignment.hurry() {
            self.unassign(&unassign);
        }
    }

    /// Why its connections failed.
    fn heard(&self) -> &Heard {
        &self.consumer.client().context().heard
    }

    fn failed(&mut self, failure: &Failure) {
        if failure.fatal || failure.code == Code::Fatal {
            let (code, reason) = self
                .consumer
                .client()
                .fatal_error()
                .unwrap_or_else(|| (failure.code, failure.reason.clone()));
            let sentence = format!("the Kafka consumer cannot go on: {reason} ({code:?})");
            self.inbox.end(ErrorClass::Config, sentence);
            return;
        }
        match (failure.code, &failure.at) {
            (Code::AutoOffsetReset | Code::OffsetOutOfRange, Some((partition, offset))) => {
                if let Some(at) = self.state.assignment.position(partition) {
                    // Behind the last record there may be markers, so the later one is meant.
                    let stored = Position(at.0.max(*offset));
                    self.inbox.push_error(self.out_of_range(partition, stored));
                }
            }
            (code, Some((partition, at))) if is_unreadable(code) => {
                self.unreadable(failure, partition, *at);
            }
            // While it runs, a topic that is not there may come back.
            (Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition, _) => {
                self.inbox.push_error(
                    Error::retriable(failure.reason.clone())
                        .with_code(format!("{:?}", failure.code)),
                );
            }
            (code, at) if class(code) == ErrorClass::Retriable => {
                let partition = at.as_ref().map(|(partition, _)| partition.to_string());
                if at.is_none() {
                    self.heard().line("FAIL", &failure.reason);
                }
                if let Some(held_back) = self.state.trouble.admit(Instant::now()) {
                    let reason = &failure.reason;
                    tracing::warn!(?code, partition, reason, held_back, "kafka consumer");
                }
                if code == Code::AllBrokersDown || at.is_some() {
                    self.inbox.push_error(self.heard().explain(from_code(&failure.reason, code)));
                }
            }
            (code, at) => {
                let of = at.as_ref().map(|(tp, offset)| format!("`{tp}` at offset {offset}: "));
                let what = format!("{}{}", of.unwrap_or_default(), failure.reason);
                self.inbox.push_error(from_code(what, code));
            }
        }
    }

    /// Told behind the records before it, once: where the task then stands is where the hole begins.
    fn unreadable(&mut self, failure: &Failure, partition: &TopicPartition, at: i64) {
        if self.state.assignment.position(partition).is_none() || self.state.broken {
            return;
        }
        self.state.broken = true;
        let error = unreadable::error(&self.config, failure, partition, at);
        self.inbox.push_broken(self.state.epoch, (partition.clone(), Position(at)), error);
    }

    /// The sentence for a position that the log does not have.
    fn out_of_range(&self, partition: &TopicPartition, at: Position) -> Error {
        let has = self.consumer.fetch_watermarks(&partition.topic, partition.partition, ASK);
        let found = match &has {
            Ok((low, high)) if at.0 < *low => {
                format!("the log now begins at {low} and ends at {high}: retention took the rest")
            }
            Ok((low, high)) => format!(
                "the log has only {low} to {high}: it was truncated, or the topic was made anew"
            ),
            Err(error) => format!("what the log still has could not be asked ({error})"),
        };
        let (topic, number) = (&partition.topic, partition.partition);
        let skip = match has {
            Ok((low, _)) if at.0 < low => format!(
                ", or leave the hole and go on (`foldline stop NAME`, `foldline offsets NAME --skip-to \
                 {topic}:{number}={low}` or `--skip-to latest`, `foldline resume NAME`)"
            ),
            _ => String::new(),
        };
        Error::config(format!(
            "`{partition}` cannot be read on from position {at}: {found}. Rebuild (`foldline rebuild NAME`){skip}"
        ))
        .with_code("OffsetOutOfRange")
    }

    fn look_at_ends(&mut self, now: Instant) {
        if self.state.ends_at.is_some_and(|at| now - at < ENDS) {
            return;
        }
        self.state.ends_at = Some(now);
        let client = self.consumer.client().native_client();
        let ends = self.state.assignment.known().filter_map(|partition| {
            let seen = self.state.seen_ends.get(partition).copied();
            Some((partition.clone(), cached_end(client, partition).max(seen)?))
        });
        *self.ends.lock().unwrap_or_else(PoisonError::into_inner) = ends.collect();
    }
}
