//! The source of a build's member once its load is done: its group is told of no positions.

use std::sync::Arc;

use async_trait::async_trait;
use foldline_api::error::Result;
use foldline_api::record::{Position, TopicPartition};
use foldline_api::source::{Commit, Committer, Source, SourceEvent, Wanted};

/// The member of a build's group: it commits nothing, as only the sink's positions count and a group
/// without offsets leaves nothing behind. `assigned` is what the loader held, told once more.
pub(super) struct Uncommitted {
    pub(super) source: Box<dyn Source>,
    pub(super) assigned: Option<Vec<TopicPartition>>,
}

#[async_trait]
impl Source for Uncommitted {
    async fn next(&mut self, wanted: Wanted) -> Result<SourceEvent> {
        match self.assigned.take() {
            Some(assigned) if !assigned.is_empty() => Ok(SourceEvent::Assigned(assigned)),
            _ => self.source.next(wanted).await,
        }
    }

    fn start(&mut self, from: &[(TopicPartition, Position)]) -> Result<()> {
        self.source.start(from)
    }

    fn release(&mut self, partitions: &[TopicPartition]) -> Result<()> {
        self.source.release(partitions)
    }

    fn committer(&self) -> Arc<dyn Committer> {
        Arc::new(Silent)
    }

    fn ends(&self) -> Vec<(TopicPartition, Position)> {
        self.source.ends()
    }

    async fn close(self: Box<Self>) {
        self.source.close().await;
    }
}

/// Takes commits of a build, and keeps none.
#[derive(Debug)]
struct Silent;

#[async_trait]
impl Committer for Silent {
    async fn commit(&self, _: &[Commit]) -> Result<()> {
        Ok(())
    }
}
