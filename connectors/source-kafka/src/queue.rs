//! Between the polling thread and its task: records in a queue that is bounded in bytes, rebalances
//! in a queue that overtakes them, and the task's commands the other way.
//!
//! A partition's records count only from the `start` that asked for them: each start has a number
//! (an epoch), each burst carries the number of the last start that its thread had carried out, and
//! what is older than its partition's start, or belongs to a partition that was revoked, is dropped.

use std::collections::{HashMap, VecDeque};
use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use foldline_api::error::{Error, ErrorClass, Result};
use foldline_api::record::{Position, Record, TopicPartition};
use foldline_api::source::{SourceEvent, Wanted};
use tokio::sync::Notify;

/// What the task asks of the polling thread.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// Read these from here; bursts carry `epoch` once it is done.
    Start { from: Vec<(TopicPartition, Position)>, epoch: u64 },
    /// The task has let go of these.
    Release(Vec<TopicPartition>),
}

enum Control {
    Event(SourceEvent),
    Failed(Error),
}

struct Data {
    epoch: u64,
    bytes: usize,
    event: SourceEvent,
}

#[derive(Default)]
struct State {
    data: VecDeque<Data>,
    bytes: usize,
    control: VecDeque<Control>,
    commands: Vec<Command>,
    epoch: u64,
    /// Partitions that the task knows to be its own, and the start since which their records count;
    /// none before the first.
    granted: HashMap<TopicPartition, Option<u64>>,
    ended: Option<(ErrorClass, String)>,
    closed: bool,
}

/// See the module.
pub(crate) struct Inbox {
    state: Mutex<State>,
    /// For the task: there is something.
    ready: Notify,
    /// For the thread: there is space, or a command.
    stirred: Condvar,
    limit: usize,
}

impl Inbox {
    /// An inbox that is full at `limit` bytes.
    pub(crate) fn new(limit: usize) -> Self {
        Inbox {
            state: Mutex::default(),
            ready: Notify::new(),
            stirred: Condvar::new(),
            limit: limit.max(1),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code that holds the lock leaves the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // What the thread does.

    /// Appends records that were fetched after the start numbered `epoch`.
    pub(crate) fn push_records(&self, epoch: u64, records: Vec<Record>) {
        let bytes = records.iter().map(Record::bytes).sum();
        self.push(Data { epoch, bytes, event: SourceEvent::Records(records) });
    }

    /// Appends the end of a partition, behind its records.
    pub(crate) fn push_end(&self, epoch: u64, partition: TopicPartition, at: Position) {
        self.push(Data { epoch, bytes: 64, event: SourceEvent::End(partition, at) });
    }

    /// Appends, behind a partition's records, that what follows them cannot be read.
    pub(crate) fn push_broken(
        &self,
        epoch: u64,
        (partition, at): (TopicPartition, Position),
        error: Error,
    ) {
        self.push(Data { epoch, bytes: 64, event: SourceEvent::Broken(partition, at, error) });
    }

    fn push(&self, data: Data) {
        let mut state = self.state();
        state.bytes += data.bytes;
        state.data.push_back(data);
        drop(state);
        self.ready.notify_one();
    }

    /// Tells the task of partitions that it may start.
    pub(crate) fn push_assigned(&self, partitions: Vec<TopicPartition>) {
        self.push_control(Control::Event(SourceEvent::Assigned(partitions)));
    }

    /// Tells the task that it must let go; nothing of these partitions is delivered any more.
    pub(crate) fn push_revoked(&self, partitions: Vec<TopicPartition>) {
        self.disown(&partitions);
        self.push_control(Control::Event(SourceEvent::Revoked(partitions)));
    }

    /// Tells the task that these are gone; nothing of them is delivered any more.
    pub(crate) fn push_lost(&self, partitions: Vec<TopicPartition>) {
        self.disown(&partitions);
        self.push_control(Control::Event(SourceEvent::Lost(partitions)));
    }

    /// Tells the task of an error, once.
    pub(crate) fn push_error(&self, error: Error) {
        self.push_control(Control::Failed(error));
    }

    fn push_control(&self, control: Control) {
        self.state().control.push_back(control);
        self.ready.notify_one();
    }

    fn disown(&self, partitions: &[TopicPartition]) {
        let mut state = self.state();
        for partition in partitions {
            state.granted.remove(partition);
        }
    }

    /// The thread is at its end: from now on the task gets this error, each time.
    pub(crate) fn end(&self, class: ErrorClass, message: impl Into<String>) {
        self.state().ended.get_or_insert_with(|| (class, message.into()));
        self.ready.notify_one();
    }

    /// Bytes waiting.
    pub(crate) fn bytes(&self) -> usize {
        self.state().bytes
    }

    pub(crate) fn is_full(&self) -> bool {
        self.bytes() >= self.limit
    }

    /// Whether it has emptied so far that a paused consumer should go on.
    pub(crate) fn is_low(&self) -> bool {
        self.bytes() <= self.limit / 2
    }

    /// Waits until there is space, a command or an end, but no longer than `timeout`.
    pub(crate) fn wait_for_space(&self, timeout: Duration) {
        let state = self.state();
        let still = |s: &mut State| s.bytes >= self.limit && s.commands.is_empty() && !s.closed;
        drop(self.stirred.wait_timeout_while(state, timeout, still));
    }

    pub(crate) fn take_commands(&self) -> Vec<Command> {
        mem::take(&mut self.state().commands)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.state().closed
    }

    // What the task does.

    /// The next thing that happened. Cancel-safe: it is taken out only when it is returned.
    pub(crate) async fn next(&self, wanted: Wanted) -> Result<SourceEvent> {
        loop {
            if let Some(next) = self.pop(wanted) {
                return next;
            }
            self.ready.notified().await;
        }
    }

    fn pop(&self, wanted: Wanted) -> Option<Result<SourceEvent>> {
        let mut state = self.state();
        match state.control.pop_front() {
            Some(Control::Event(event)) => {
                if let SourceEvent::Assigned(partitions) = &event {
                    state.grant(partitions);
                }
                return Some(Ok(event));
            }
            Some(Control::Failed(error)) => return Some(Err(error)),
            None => {}
        }
        let with_records = wanted == Wanted::All;
        while with_records && let Some(data) = state.data.pop_front() {
            state.bytes -= data.bytes;
            let kept = state.keep(data);
            if state.bytes < self.limit {
                self.stirred.notify_one();
            }
            if kept.is_some() {
                return kept.map(Ok);
            }
        }
        state.ended.clone().map(|(class, message)| Err(Error::new(class, message)))
    }

    /// Asks the thread to read from here. Partitions that are not the task's any more are left out.
    pub(crate) fn start(&self, from: &[(TopicPartition, Position)]) {
        let mut state = self.state();
        let epoch = state.epoch + 1;
        let mut accepted = Vec::with_capacity(from.len());
        for (partition, position) in from {
            if let Some(since) = state.granted.get_mut(partition) {
                *since = Some(epoch);
                accepted.push((partition.clone(), *position));
            }
        }
        if accepted.is_empty() {
            return;
        }
        state.epoch = epoch;
        state.commands.push(Command::Start { from: accepted, epoch });
        drop(state);
        self.stirred.notify_one();
    }

    /// Tells the thread that the task has let go.
    pub(crate) fn release(&self, partitions: &[TopicPartition]) {
        self.state().commands.push(Command::Release(partitions.to_vec()));
        self.stirred.notify_one();
    }

    /// Asks the thread to end.
    pub(crate) fn close(&self) {
        self.state().closed = true;
        self.stirred.notify_one();
        self.ready.notify_one();
    }
}

impl State {
    /// The task now sees that these are its own, unless they were taken back since.
    fn grant(&mut self, partitions: &[TopicPartition]) {
        for partition in partitions {
            let gone = self.control.iter().any(|control| match control {
                Control::Event(SourceEvent::Revoked(p) | SourceEvent::Lost(p)) => {
                    p.contains(partition)
                }
                _ => false,
            });
            if !gone {
                self.granted.insert(partition.clone(), None);
            }
        }
    }

    fn counts(&self, partition: &TopicPartition, epoch: u64) -> bool {
        self.granted.get(partition).is_some_and(|since| since.is_some_and(|s| s <= epoch))
    }

    fn keep(&self, data: Data) -> Option<SourceEvent> {
        match data.event {
            SourceEvent::Records(mut records) => {
                // Records come in runs of one partition: ask once for each run.
                let mut run: Option<(Arc<str>, i32, bool)> = None;
                records.retain(|record| match &run {
                    Some((topic, partition, kept))
                        if *partition == record.partition && Arc::ptr_eq(topic, &record.topic) =>
                    {
                        *kept
                    }
                    _ => {
                        let kept = self.counts(&record.topic_partition(), data.epoch);
                        run = Some((Arc::clone(&record.topic), record.partition, kept));
                        kept
                    }
                });
                (!records.is_empty()).then_some(SourceEvent::Records(records))
            }
            SourceEvent::End(partition, at) => {
                self.counts(&partition, data.epoch).then_some(SourceEvent::End(partition, at))
            }
            SourceEvent::Broken(partition, at, error) => self
                .counts(&partition, data.epoch)
                .then_some(SourceEvent::Broken(partition, at, error)),
            other => Some(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use foldline_api::record::Headers;

    fn tp(partition: i32) -> TopicPartition {
        TopicPartition::new("t", partition)
    }

    fn record(partition: i32, offset: i64) -> Record {
        Record {
            topic: "t".into(),
            partition,
            offset,
            timestamp: None,
            key: None,
            value: Some(vec![0; 100].into()),
            headers: Headers::new(),
        }
    }

    /// What is there, as short texts.
    fn drain(inbox: &Inbox) -> Vec<String> {
        std::iter::from_fn(|| inbox.pop(Wanted::All))
            .map(|event| match event {
                Ok(SourceEvent::Records(r)) => {
                    let each = r.iter().map(|r| format!("{}@{}", r.partition, r.offset));
                    each.collect::<Vec<_>>().join(" ")
                }
                Ok(SourceEvent::Assigned(p)) => format!("assigned {}", p.len()),
                Ok(SourceEvent::Revoked(p)) => format!("revoked {}", p.len()),
                Ok(SourceEvent::Lost(p)) => format!("lost {}", p.len()),
                Ok(SourceEvent::End(p, at)) => format!("end {}@{at}", p.partition),
                Ok(SourceEvent::Broken(p, _, error)) => format!("broken {} {error}", p.partition),
                Err(error) => format!("error {error}"),
            })
            .collect()
    }

    fn started(partitions: &[i32]) -> (Inbox, u64) {
        let inbox = Inbox::new(1000);
        inbox.push_assigned(partitions.iter().map(|p| tp(*p)).collect());
        drain(&inbox);
        let from: Vec<_> = partitions.iter().map(|p| (tp(*p), Position(0))).collect();
        inbox.start(&from);
        let epoch = epoch_of(&inbox);
        (inbox, epoch)
    }

    fn epoch_of(inbox: &Inbox) -> u64 {
        match &inbox.take_commands()[..] {
            [Command::Start { epoch, .. }] => *epoch,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn records_of_the_old_position_are_not_delivered_after_a_seek() {
        let (inbox, first) = started(&[0, 1]);
        inbox.push_records(first, vec![record(0, 7), record(1, 3), record(0, 8)]);
        inbox.push_end(first, tp(0), Position(9));
        inbox.start(&[(tp(0), Position(5))]);
        let second = epoch_of(&inbox);
        inbox.push_records(second, vec![record(0, 5), record(1, 4)]);
        assert_eq!(drain(&inbox), ["1@3", "0@5 1@4"]);
    }

    #[test]
    fn a_rebalance_overtakes_records_and_drops_those_of_revoked_partitions() {
        let (inbox, epoch) = started(&[0, 1]);
        inbox.push_records(epoch, vec![record(0, 0), record(1, 0)]);
        inbox.push_revoked(vec![tp(1)]);
        assert_eq!(drain(&inbox), ["revoked 1", "0@0"]);
    }

    #[test]
    fn a_partition_that_comes_back_starts_anew() {
        let (inbox, epoch) = started(&[0]);
        inbox.push_records(epoch, vec![record(0, 0)]);
        inbox.push_lost(vec![tp(0)]);
        inbox.push_assigned(vec![tp(0)]);
        assert_eq!(drain(&inbox), ["lost 1", "assigned 1"]);
        inbox.start(&[(tp(0), Position(4))]);
        assert!(epoch_of(&inbox) > epoch);
    }

    #[test]
    fn an_answer_to_an_assignment_that_is_over_is_ignored() {
        let inbox = Inbox::new(1000);
        inbox.push_assigned(vec![tp(0), tp(1)]);
        inbox.push_revoked(vec![tp(0)]);
        assert!(matches!(inbox.pop(Wanted::All), Some(Ok(SourceEvent::Assigned(_)))));
        inbox.start(&[(tp(0), Position(0)), (tp(1), Position(2))]);
        assert_eq!(
            inbox.take_commands(),
            [Command::Start { from: vec![(tp(1), Position(2))], epoch: 1 }]
        );
        inbox.start(&[(tp(9), Position(0))]);
        assert!(inbox.take_commands().is_empty());
    }

    #[test]
    fn it_is_full_by_bytes_and_low_at_half() {
        let (inbox, epoch) = started(&[0]);
        while !inbox.is_full() {
            inbox.push_records(epoch, vec![record(0, 0)]);
        }
        let full = inbox.bytes();
        assert!((1000..1000 + 2 * record(0, 0).bytes()).contains(&full), "{full}");
        assert!(!inbox.is_low());
        while !inbox.is_low() {
            assert!(inbox.pop(Wanted::All).is_some());
        }
        drain(&inbox);
        assert_eq!(inbox.bytes(), 0);
    }

    #[test]
    fn after_the_end_the_task_gets_what_is_left_and_then_the_same_error_each_time() {
        let (inbox, epoch) = started(&[0]);
        inbox.push_records(epoch, vec![record(0, 0)]);
        inbox.end(ErrorClass::Config, "fenced");
        inbox.end(ErrorClass::Retriable, "later");
        assert!(matches!(inbox.pop(Wanted::All), Some(Ok(SourceEvent::Records(_)))));
        for _ in 0..2 {
            let Some(Err(error)) = inbox.pop(Wanted::All) else { panic!("an error") };
            assert_eq!((error.class(), error.message()), (ErrorClass::Config, "fenced"));
        }
    }

    #[tokio::test]
    async fn a_cancelled_wait_loses_nothing() {
        let (inbox, epoch) = started(&[0]);
        {
            let waiting = inbox.next(Wanted::All);
            tokio::pin!(waiting);
            assert!(futures_poll(waiting.as_mut()).await.is_none());
        }
        inbox.push_records(epoch, vec![record(0, 1)]);
        assert!(matches!(inbox.next(Wanted::All).await, Ok(SourceEvent::Records(_))));
    }

    /// Polls once.
    async fn futures_poll<F: Future + Unpin>(mut future: F) -> Option<F::Output> {
        std::future::poll_fn(|cx| {
            std::task::Poll::Ready(match std::pin::Pin::new(&mut future).poll(cx) {
                std::task::Poll::Ready(out) => Some(out),
                std::task::Poll::Pending => None,
            })
        })
        .await
    }
}
