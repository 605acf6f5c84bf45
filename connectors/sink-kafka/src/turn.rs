//! Whose turn it is to run the connector: the member of a group of its own that has the one partition of the books.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use foldline_api::sink::Turn;
use foldline_source_kafka::KafkaConfig;
use rdkafka::TopicPartitionList;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::KafkaError;
use tokio::sync::watch;

/// Between two polls. The heartbeats are librdkafka's own.
const POLL: Duration = Duration::from_millis(100);
/// A member that is heard of no more has lost its turn after so long, in milliseconds.
const SESSION_MS: &str = "10000";
const HEARTBEAT_MS: &str = "1000";
/// A member that leaves is polled for so long: librdkafka says nothing to the group if it is closed at once.
const LEAVE: Duration = Duration::from_secs(1);
/// So long leaving is waited for.
const LEFT: Duration = Duration::from_secs(3);
/// A member that could not be made is made again after so long.
const AGAIN: Duration = Duration::from_secs(2);

/// See the module.
#[derive(Debug)]
pub(crate) struct Line {
    config: KafkaConfig,
    books: String,
    mine: watch::Sender<bool>,
    /// The member that stands in line.
    member: Mutex<Option<Member>>,
}

#[derive(Debug)]
struct Member {
    ends: Arc<AtomicBool>,
    /// Closed when it has left.
    left: watch::Receiver<()>,
}

impl Member {
    fn end(&self) {
        self.ends.store(true, Ordering::Relaxed);
    }
}

/// Hears what the group says.
struct Hears {
    books: String,
    mine: watch::Sender<bool>,
}

impl ClientContext for Hears {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, line: &str) {
        tracing::debug!(target: "librdkafka", facility, "{line}");
    }

    fn stats_raw(&self, _: &[u8]) {}

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "waiting for a turn");
    }
}

impl ConsumerContext for Hears {
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let over = match rebalance {
            Rebalance::Assign(_) => false,
            Rebalance::Revoke(revoked) => has(revoked, &self.books),
            Rebalance::Error(_) => true,
        };
        if over {
            self.mine.send_replace(false);
        }
    }

    fn post_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        // What is assigned comes to what it has: nothing, mostly.
        let Rebalance::Assign(assigned) = rebalance else { return };
        if !has(assigned, &self.books) {
            return;
        }
        // It has the partition to have it, and reads nothing.
        if let Err(error) = consumer.pause(assigned) {
            tracing::debug!(%error, "waiting for a turn");
        }
        self.mine.send_replace(true);
    }
}

fn has(assigned: &TopicPartitionList, books: &str) -> bool {
    assigned.find_partition(books, 0).is_some()
}

impl Line {
    pub(crate) fn new(config: KafkaConfig, books: String) -> Self {
        Line { config, books, mine: watch::Sender::new(false), member: Mutex::default() }
    }

    fn member(&self) -> std::sync::MutexGuard<'_, Option<Member>> {
        self.member.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if let Some(member) = self.member().take() {
            member.end();
        }
    }
}

/// A member, from when it stands in line until it is told to leave.
fn stand(config: &KafkaConfig, books: &str, mine: &watch::Sender<bool>, ends: &AtomicBool) {
    let mut client = config.asking();
    // Who has the turn keeps it when another one comes.
    client.set("partition.assignment.strategy", "cooperative-sticky");
    client.set("auto.offset.reset", "latest");
    for (name, value) in
        [("session.timeout.ms", SESSION_MS), ("heartbeat.interval.ms", HEARTBEAT_MS)]
    {
        if config.number(name).is_none() {
            client.set(name, value);
        }
    }
    while !ends.load(Ordering::Relaxed) {
        let hears = Hears { books: books.to_owned(), mine: mine.clone() };
        let joined = client.create_with_context::<_, BaseConsumer<Hears>>(hears);
        let joined = joined.and_then(|member| member.subscribe(&[books]).map(|()| member));
        let member = match joined {
            Ok(member) => member,
            Err(error) => {
                tracing::debug!(%error, "waiting for a turn");
                std::thread::sleep(AGAIN);
                continue;
            }
        };
        while !ends.load(Ordering::Relaxed) {
            // Nothing is read; what fails is tried again by librdkafka.
            drop(member.poll(POLL));
        }
        member.unsubscribe();
        let until = Instant::now() + LEAVE;
        while Instant::now() < until {
            drop(member.poll(POLL));
        }
    }
    mine.send_replace(false);
}

#[async_trait]
impl Turn for Line {
    fn join(&self) {
        let mut member = self.member();
        if member.is_some() {
            return;
        }
        let ends = Arc::new(AtomicBool::new(false));
        let (leaves, left) = watch::channel(());
        *member = Some(Member { ends: Arc::clone(&ends), left });
        let (config, books, mine) = (self.config.clone(), self.books.clone(), self.mine.clone());
        let named = std::thread::Builder::new().name("foldline-turn".to_owned());
        let stand = move || {
            stand(&config, &books, &mine, &ends);
            drop(leaves);
        };
        if let Err(error) = named.spawn(stand) {
            tracing::warn!(%error, "a thread could not be started");
            *member = None;
        }
    }

    fn is_mine(&self) -> bool {
        *self.mine.borrow()
    }

    async fn wait(&self, mine: bool) {
        // The sender lives as long as this.
        drop(self.mine.subscribe().wait_for(|now| *now == mine).await);
    }

    async fn leave(&self) {
        let Some(mut member) = self.member().take() else { return };
        member.end();
        self.mine.send_replace(false);
        // Where the brokers are away, its session ends by itself.
        drop(tokio::time::timeout(LEFT, member.left.changed()).await);
    }
}
