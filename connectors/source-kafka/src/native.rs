//! librdkafka's event queue, commits with a deadline and cached watermarks: what the safe crate does
//! not offer. All pointers stay in this module.
#![expect(unsafe_code, reason = "the safe crate drops the topic and offset of an end of partition")]

use std::collections::VecDeque;
use std::ffi::{CStr, CString, c_char, c_void};
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::time::Duration;

use foldline_api::record::{Position, TopicPartition};
use foldline_api::source::Commit;
use rdkafka::bindings as rd;
use rdkafka::client::NativeClient;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::RDKafkaErrorCode as Code;
use rdkafka::{Offset, TopicPartitionList};

/// So many records are taken from a partition's queue at a time.
const BATCH: usize = 500;

type RawEvent = NonNull<rd::rd_kafka_event_t>;

fn millis(timeout: Duration) -> i32 {
    i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX)
}

/// A C string; librdkafka owns it.
unsafe fn text<'a>(raw: *const c_char) -> std::borrow::Cow<'a, str> {
    if raw.is_null() {
        return "".into();
    }
    // SAFETY: librdkafka's strings end in NUL and live as long as the object they were taken from.
    unsafe { CStr::from_ptr(raw) }.to_string_lossy()
}

unsafe fn bytes<'a>(raw: *const c_void, len: usize) -> Option<&'a [u8]> {
    if raw.is_null() {
        return None;
    }
    // SAFETY: librdkafka gives pointer and length of one buffer that the event keeps alive.
    Some(unsafe { std::slice::from_raw_parts(raw.cast(), len) })
}

/// A queue of librdkafka; destroyed on drop.
struct RawQueue(NonNull<rd::rd_kafka_queue_t>);

// SAFETY: librdkafka's queues are locked inside.
unsafe impl Send for RawQueue {}
// SAFETY: as above.
unsafe impl Sync for RawQueue {}

impl RawQueue {
    /// A queue of its own, for one reply.
    fn reply(client: &NativeClient) -> Option<Self> {
        // SAFETY: the client is alive while it is borrowed.
        NonNull::new(unsafe { rd::rd_kafka_queue_new(client.ptr()) }).map(RawQueue)
    }

    fn poll(&self, timeout: Duration) -> Option<OwnedEvent> {
        // SAFETY: the queue lives until drop; the event that comes back is ours to destroy.
        NonNull::new(unsafe { rd::rd_kafka_queue_poll(self.0.as_ptr(), millis(timeout)) })
            .map(OwnedEvent)
    }
}

impl Drop for RawQueue {
    fn drop(&mut self) {
        // SAFETY: this handle is ours, and nothing uses it afterwards.
        unsafe { rd::rd_kafka_queue_destroy(self.0.as_ptr()) }
    }
}

struct OwnedEvent(RawEvent);

impl OwnedEvent {
    fn kind(&self) -> i32 {
        // SAFETY: the event is alive until drop, here and below.
        unsafe { rd::rd_kafka_event_type(self.0.as_ptr()) }
    }

    fn code(&self) -> Code {
        // SAFETY: see `kind`.
        unsafe { rd::rd_kafka_event_error(self.0.as_ptr()) }.into()
    }

    fn partitions(&self) -> Vec<(TopicPartition, Code)> {
        // SAFETY: see `kind`; the list belongs to the event.
        let list = unsafe { rd::rd_kafka_event_topic_partition_list(self.0.as_ptr()).as_ref() };
        let Some(list) = list else { return Vec::new() };
        let count = usize::try_from(list.cnt).unwrap_or(0);
        // An empty list may have no elements to point to.
        if count == 0 || list.elems.is_null() {
            return Vec::new();
        }
        // SAFETY: librdkafka gives pointer and count of one array.
        let elements = unsafe { std::slice::from_raw_parts(list.elems, count) };
        elements
            .iter()
            .map(|e| {
                // SAFETY: an element's topic is a C string.
                let topic = unsafe { text(e.topic) };
                (TopicPartition::new(&*topic, e.partition), e.err.into())
            })
            .collect()
    }

    fn into_error(self) -> Event {
        let code = self.code();
        // SAFETY: see `kind`; the string belongs to the event, the partition is ours to destroy.
        let (reason, fatal, raw) = unsafe {
            let raw = self.0.as_ptr();
            (
                text(rd::rd_kafka_event_error_string(raw)).into_owned(),
                rd::rd_kafka_event_error_is_fatal(raw) != 0,
                rd::rd_kafka_event_topic_partition(raw),
            )
        };
        let at = NonNull::new(raw).map(|raw| {
            // SAFETY: just made for us, read before it is destroyed.
            unsafe {
                let of = raw.as_ref();
                let at = (TopicPartition::new(&*text(of.topic), of.partition), of.offset);
                rd::rd_kafka_topic_partition_destroy(raw.as_ptr());
                at
            }
        });
        match (code, at) {
            (Code::PartitionEOF, Some((partition, offset))) => {
                Event::End(partition, Position(offset))
            }
            (code, at) => Event::Failed(Failure { code, fatal, reason, at }),
        }
    }

    fn into_log(self) -> Event {
        let (mut facility, mut line, mut level) = (ptr::null(), ptr::null(), 0);
        // SAFETY: see `kind`; the strings belong to the event and are copied.
        unsafe {
            rd::rd_kafka_event_log(self.0.as_ptr(), &mut facility, &mut line, &mut level);
            Event::Log(level, text(facility).into_owned(), text(line).trim().to_owned())
        }
    }
}

impl Drop for OwnedEvent {
    fn drop(&mut self) {
        // SAFETY: the event is ours.
        unsafe { rd::rd_kafka_event_destroy(self.0.as_ptr()) }
    }
}

/// One thing that librdkafka says.
pub(crate) enum Event {
    Record(FetchedRecord),
    /// The end of what may be read of this partition, and the position there.
    End(TopicPartition, Position),
    Assign(Vec<TopicPartition>),
    Revoke(Vec<TopicPartition>),
    Failed(Failure),
    Log(i32, String, String),
    Other,
}

/// An error that librdkafka reports, with the partition and offset where it has them.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: Code,
    pub(crate) fatal: bool,
    pub(crate) reason: String,
    pub(crate) at: Option<(TopicPartition, i64)>,
}

/// A fetched record, in librdkafka's memory until dropped.
pub(crate) struct FetchedRecord {
    /// What the message belongs to; none where it is ours.
    event: Option<OwnedEvent>,
    message: NonNull<rd::rd_kafka_message_t>,
}

// SAFETY: nothing of a message is bound to a thread, and nobody else has it.
unsafe impl Send for FetchedRecord {}

impl Drop for FetchedRecord {
    fn drop(&mut self) {
        if self.event.is_none() {
            // SAFETY: the message is ours.
            unsafe { rd::rd_kafka_message_destroy(self.message.as_ptr()) }
        }
    }
}

impl FetchedRecord {
    fn raw(&self) -> &rd::rd_kafka_message_t {
        // SAFETY: the message is ours or the event's, which we hold.
        unsafe { self.message.as_ref() }
    }

    /// The partition's error that came instead of a record.
    fn failure(&self) -> Option<Event> {
        let code = Code::from(self.raw().err);
        let partition = || TopicPartition::new(&*self.topic(), self.partition());
        match code {
            Code::NoError => None,
            Code::PartitionEOF => Some(Event::End(partition(), Position(self.offset()))),
            code => Some(Event::Failed(Failure {
                code,
                fatal: code == Code::Fatal,
                reason: String::from_utf8_lossy(self.value().unwrap_or_default()).into_owned(),
                at: Some((partition(), self.offset())),
            })),
        }
    }

    pub(crate) fn topic(&self) -> std::borrow::Cow<'_, str> {
        // SAFETY: the message keeps its topic alive.
        unsafe { text(rd::rd_kafka_topic_name(self.raw().rkt)) }
    }

    pub(crate) fn partition(&self) -> i32 {
        self.raw().partition
    }

    pub(crate) fn offset(&self) -> i64 {
        self.raw().offset
    }

    pub(crate) fn key(&self) -> Option<&[u8]> {
        // SAFETY: the key lives as long as the message.
        unsafe { bytes(self.raw().key, self.raw().key_len) }
    }

    pub(crate) fn value(&self) -> Option<&[u8]> {
        // SAFETY: the payload lives as long as the message.
        unsafe { bytes(self.raw().payload, self.raw().len) }
    }

    pub(crate) fn timestamp(&self) -> Option<i64> {
        let mut kind = rd::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: the message is alive.
        let at = unsafe { rd::rd_kafka_message_timestamp(self.message.as_ptr(), &mut kind) };
        (kind != rd::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE && at >= 0)
            .then_some(at)
    }

    /// Calls `each` with every header, in order.
    pub(crate) fn headers(&self, mut each: impl FnMut(&str, Option<&[u8]>)) {
        let mut headers = ptr::null_mut();
        // SAFETY: the message is alive and owns its headers; each name and value is used before the
        // next call.
        unsafe {
            let found = rd::rd_kafka_message_headers(self.message.as_ptr(), &mut headers);
            if Code::from(found) != Code::NoError {
                return;
            }
            let (mut name, mut value, mut len) = (ptr::null(), ptr::null(), 0);
            for at in 0.. {
                let got = rd::rd_kafka_header_get_all(headers, at, &mut name, &mut value, &mut len);
                if Code::from(got) != Code::NoError {
                    return;
                }
                each(&text(name), bytes(value, len));
            }
        }
    }
}

/// A consumer's event queue. It keeps its consumer alive.
pub(crate) struct EventQueue<C: ConsumerContext + 'static> {
    // Before the consumer: a queue must not outlive its client.
    queue: RawQueue,
    _consumer: Arc<BaseConsumer<C>>,
}

impl<C: ConsumerContext + 'static> EventQueue<C> {
    /// None where the consumer has no group.
    pub(crate) fn of(consumer: &Arc<BaseConsumer<C>>) -> Option<Self> {
        // SAFETY: the client is alive; the handle that comes back is ours to destroy.
        let raw = unsafe { rd::rd_kafka_queue_get_consumer(consumer.client().native_ptr()) };
        Some(EventQueue { queue: RawQueue(NonNull::new(raw)?), _consumer: Arc::clone(consumer) })
    }

    /// Waits for the next event. Counts as polling for `max.poll.interval.ms`.
    pub(crate) fn poll(&self, timeout: Duration) -> Option<Event> {
        let event = self.queue.poll(timeout)?;
        Some(match event.kind() {
            rd::RD_KAFKA_EVENT_FETCH => {
                // SAFETY: the event is alive; the message belongs to it.
                let raw = unsafe { rd::rd_kafka_event_message_next(event.0.as_ptr()) };
                match NonNull::new(raw.cast_mut()) {
                    Some(message) => Event::Record(FetchedRecord { event: Some(event), message }),
                    None => Event::Other,
                }
            }
            rd::RD_KAFKA_EVENT_REBALANCE => {
                let partitions = event.partitions().into_iter().map(|(p, _)| p).collect();
                match event.code() {
                    Code::AssignPartitions => Event::Assign(partitions),
                    _ => Event::Revoke(partitions),
                }
            }
            rd::RD_KAFKA_EVENT_ERROR if event.code() != Code::NoError => event.into_error(),
            rd::RD_KAFKA_EVENT_LOG => event.into_log(),
            _ => Event::Other,
        })
    }

    /// Makes a waiting `poll` return at once.
    pub(crate) fn wake(&self) {
        // SAFETY: the queue is alive.
        unsafe { rd::rd_kafka_queue_yield(self.queue.0.as_ptr()) }
    }
}

/// One partition's own queue, apart from its consumer's: what is not taken from it holds up no other
/// partition. It keeps its consumer alive.
pub(crate) struct PartitionQueue<C: ConsumerContext + 'static> {
    // Before the consumer, as in `EventQueue`; records before both.
    taken: VecDeque<FetchedRecord>,
    queue: RawQueue,
    _consumer: Arc<BaseConsumer<C>>,
}

impl<C: ConsumerContext + 'static> PartitionQueue<C> {
    /// To be made before the partition is assigned; none where librdkafka has no such partition.
    pub(crate) fn of(consumer: &Arc<BaseConsumer<C>>, of: &TopicPartition) -> Option<Self> {
        let topic = CString::new(&*of.topic).ok()?;
        // SAFETY: client and name are alive; the handle that comes back is ours to destroy. Without a
        // destination the queue keeps what it gets.
        let queue = unsafe {
            let client = consumer.client().native_ptr();
            let raw = rd::rd_kafka_queue_get_partition(client, topic.as_ptr(), of.partition);
            let raw = NonNull::new(raw)?;
            rd::rd_kafka_queue_forward(raw.as_ptr(), ptr::null_mut());
            RawQueue(raw)
        };
        Some(PartitionQueue { taken: VecDeque::new(), queue, _consumer: Arc::clone(consumer) })
    }

    /// Waits for the next record, end or error of the partition.
    pub(crate) fn poll(&mut self, timeout: Duration) -> Option<Event> {
        if self.taken.is_empty() {
            self.take(Duration::ZERO, BATCH);
            if self.taken.is_empty() {
                self.take(timeout, 1);
            }
        }
        let record = self.taken.pop_front()?;
        Some(record.failure().unwrap_or(Event::Record(record)))
    }

    fn take(&mut self, timeout: Duration, most: usize) {
        let mut messages = [ptr::null_mut(); BATCH];
        let most = most.min(messages.len());
        // SAFETY: the queue is alive, and the array has room for as many.
        let count = unsafe {
            let (queue, to) = (self.queue.0.as_ptr(), messages.as_mut_ptr());
            rd::rd_kafka_consume_batch_queue(queue, millis(timeout), to, most)
        };
        let count = usize::try_from(count).unwrap_or(0);
        let messages = messages.into_iter().take(count).filter_map(NonNull::new);
        self.taken.extend(messages.map(|message| FetchedRecord { event: None, message }));
    }
}

/// A list as librdkafka wants it.
pub(crate) fn list<'a>(
    of: impl IntoIterator<Item = (&'a TopicPartition, Offset)>,
) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for (partition, offset) in of {
        // Only a negative offset is refused; it then stays invalid, and librdkafka says so.
        let _ = list.add_partition(&partition.topic, partition.partition).set_offset(offset);
    }
    list
}

/// Commits and waits for the answer, no longer than `timeout`: librdkafka's own synchronous commit
/// waits for ever while the broker is away.
///
/// # Errors
/// The code, and the partition where it is one partition's.
pub(crate) fn commit(
    client: &NativeClient,
    commits: &[Commit],
    timeout: Duration,
) -> Result<(), (Code, Option<TopicPartition>)> {
    let mut offsets = TopicPartitionList::new();
    for commit in commits {
        let of = &commit.partition;
        let mut element = offsets.add_partition(&of.topic, of.partition);
        let set = element.set_offset(Offset::Offset(commit.position.0));
        set.map_err(|_| (Code::InvalidArgument, Some(of.clone())))?;
        if !commit.metadata.is_empty() {
            element.set_metadata(&commit.metadata);
        }
    }
    let queue = RawQueue::reply(client).ok_or((Code::CriticalSystemResource, None))?;
    // SAFETY: client, list and queue are alive; librdkafka copies the list and holds the queue.
    let sent = unsafe {
        let none = ptr::null_mut();
        rd::rd_kafka_commit_queue(client.ptr(), offsets.ptr(), queue.0.as_ptr(), None, none)
    };
    match Code::from(sent) {
        Code::NoError => {}
        code => return Err((code, None)),
    }
    let reply = queue.poll(timeout).ok_or((Code::OperationTimedOut, None))?;
    let refused = reply.partitions().into_iter().find(|(_, code)| *code != Code::NoError);
    match (refused, reply.code()) {
        (Some((partition, code)), _) => Err((code, Some(partition))),
        (None, Code::NoError) => Ok(()),
        (None, code) => Err((code, None)),
    }
}

/// The offsets that the group has committed, with their metadata; partitions without one are left
/// out. Metadata that is not UTF-8 was not written by Foldline and is shown as well as it can be.
///
/// # Errors
/// The code, and the partition where it is one partition's.
pub(crate) fn committed(
    client: &NativeClient,
    partitions: &[TopicPartition],
    timeout: Duration,
) -> Result<Vec<Commit>, (Code, Option<TopicPartition>)> {
    let offsets = list(partitions.iter().map(|p| (p, Offset::Invalid)));
    // SAFETY: client and list are alive.
    let code = unsafe { rd::rd_kafka_committed(client.ptr(), offsets.ptr(), millis(timeout)) };
    match Code::from(code) {
        Code::NoError => {}
        code => return Err((code, None)),
    }
    let mut commits = Vec::new();
    // SAFETY: the list is ours, and its count and elements are librdkafka's.
    let raw = unsafe { &*offsets.ptr() };
    for at in 0..usize::try_from(raw.cnt).unwrap_or(0) {
        // SAFETY: `at` is below the count; an element's strings live as long as the list.
        let (element, topic, metadata) = unsafe {
            let element = &*raw.elems.add(at);
            let metadata = bytes(element.metadata, element.metadata_size).unwrap_or_default();
            (element, text(element.topic), String::from_utf8_lossy(metadata).into_owned())
        };
        let partition = TopicPartition::new(&*topic, element.partition);
        match Code::from(element.err) {
            Code::NoError if element.offset >= 0 => {
                commits.push(Commit { partition, position: Position(element.offset), metadata });
            }
            Code::NoError => {}
            code => return Err((code, Some(partition))),
        }
    }
    Ok(commits)
}

/// The last end that a fetch has seen (next offset to be written), without asking the network.
pub(crate) fn cached_end(client: &NativeClient, of: &TopicPartition) -> Option<Position> {
    let topic = CString::new(&*of.topic).ok()?;
    let (mut low, mut high) = (-1, -1);
    // SAFETY: the client and the name are alive, the results are written before the call returns.
    let code = unsafe {
        let raw = client.ptr();
        rd::rd_kafka_get_watermark_offsets(raw, topic.as_ptr(), of.partition, &mut low, &mut high)
    };
    (Code::from(code) == Code::NoError && high >= 0).then_some(Position(high))
}
