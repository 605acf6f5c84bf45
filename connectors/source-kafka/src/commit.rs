//! Commits for a member.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use foldline_api::error::{Error, ErrorClass, Result};
use foldline_api::record::TopicPartition;
use foldline_api::source::{Commit, Committer};
use rdkafka::consumer::Consumer;
use rdkafka::error::RDKafkaErrorCode as Code;

use crate::context::Member;
use crate::error::{class, from_code};
use crate::native;

/// A commit that takes longer has failed; it costs a replay of what the sink skips anyway.
pub(crate) const COMMIT_TIMEOUT: Duration = Duration::from_secs(10);

/// Commits through the member's consumer, which it does not keep alive.
pub(crate) struct KafkaCommitter {
    consumer: Weak<Member>,
    /// The group refused a commit as that of no member of it.
    refused: Arc<AtomicBool>,
}

impl KafkaCommitter {
    pub(crate) fn new(consumer: &Arc<Member>, refused: Arc<AtomicBool>) -> Self {
        KafkaCommitter { consumer: Arc::downgrade(consumer), refused }
    }
}

#[async_trait]
impl Committer for KafkaCommitter {
    async fn commit(&self, commits: &[Commit]) -> Result<()> {
        if commits.is_empty() {
            return Ok(());
        }
        let (consumer, commits) = (Weak::clone(&self.consumer), commits.to_vec());
        let doubt = Arc::clone(&self.refused);
        let committed = tokio::task::spawn_blocking(move || {
            let Some(consumer) = consumer.upgrade() else {
                return Err(Error::fenced("the consumer has left its group"));
            };
            // librdkafka would send it without a member id, and a static member would be fenced.
            if consumer.assignment_lost() {
                return Err(Error::fenced("the group has given these partitions to others"));
            }
            let client = consumer.client().native_client();
            native::commit(client, &commits, COMMIT_TIMEOUT).map_err(|(code, partition)| {
                if class(code) == ErrorClass::Fenced || code == Code::GroupIdNotFound {
                    doubt.store(true, Ordering::Relaxed);
                }
                refused((code, partition))
            })
        });
        committed.await.map_err(|e| Error::retriable("a commit was abandoned").with_source(e))?
    }
}

/// The error for a commit that was refused.
pub(crate) fn refused((code, partition): (Code, Option<TopicPartition>)) -> Error {
    match partition {
        Some(partition) => from_code(format!("committing the offset of `{partition}`"), code),
        None => from_code("committing offsets", code),
    }
}
