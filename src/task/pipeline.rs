//! What is in flight between source, fold and store: delivered, being loaded for, folded, being written. A batch is in one
//! of these places at a time, and goes back to the first when it is to be folded again.

use std::sync::Arc;

use foldline_api::error::Result;
use foldline_api::record::{Position, TopicPartition};
use foldline_api::sink::Flush;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::batch::Batch;
use super::blocked::Folded;
use super::folder::Decoded;
use super::inbox::{Inbox, Item, Limits};
use super::needed::States;
use super::ops::WriteEnd;
use crate::maps::{HashMap, HashSet};

/// A batch that is being written.
pub(super) struct Writing {
    pub(super) batch: Batch,
    pub(super) flush: Arc<Flush>,
    pub(super) started: Instant,
    /// The states were forgotten meanwhile: the cache must not take the versions in.
    pub(super) forgotten: bool,
    pub(super) handle: Call<WriteEnd>,
}

/// A call that runs beside the loop.
pub(super) type Call<T> = AbortOnDropHandle<Result<T>>;

/// A batch whose states are being loaded.
struct Loading {
    decoded: Decoded,
    handle: Call<States>,
}

/// See the module.
pub(super) struct Pipeline {
    pub(super) inbox: Inbox,
    loading: Option<Loading>,
    folded: Option<Batch>,
    writing: Option<Writing>,
    /// At most so many bytes of records are kept to be folded again; those of a batch that grew beyond are
    /// read again.
    kept_bytes_max: usize,
    /// What is to be folded again was let go: the source is to deliver it again.
    reads_again: bool,
    /// How many batches there were.
    batches: u64,
}

impl Pipeline {
    pub(super) fn new(limits: Limits) -> Self {
        Pipeline {
            inbox: Inbox::new(limits),
            loading: None,
            folded: None,
            writing: None,
            kept_bytes_max: limits.bytes,
            reads_again: false,
            batches: 0,
        }
    }

    /// Whether nothing is in flight.
    pub(super) fn is_drained(&self) -> bool {
        self.writing.is_none() && self.folded.is_none() && self.loading.is_none()
    }

    /// The timestamp of the oldest record that is in flight.
    pub(super) fn oldest(&self) -> Option<i64> {
        let loading = self.loading.iter().flat_map(|loading| loading.decoded.timestamps());
        let writing = self.writing.as_ref().map(|writing| &writing.batch);
        let batches = self.folded.iter().chain(writing).flat_map(Batch::timestamps);
        self.inbox.timestamps().chain(loading).chain(batches).min()
    }

    pub(super) fn is_writing(&self) -> bool {
        self.writing.is_some()
    }

    pub(super) fn is_loading(&self) -> bool {
        self.loading.is_some()
    }

    /// The folded batch, as the gates see it.
    pub(super) fn folded(&self, confirmed: impl FnOnce(u64) -> bool) -> Option<Folded> {
        let batch = self.folded.as_ref()?;
        // A flush of side work is one of its own.
        let grows = batch.side.is_none()
            && !batch.closed
            && self.inbox.lets_grow(batch.rows())
            && batch.may_grow(self.kept_bytes_max);
        Some(Folded { grows, confirmed: confirmed(batch.came) })
    }

    /// What of the log had come when the newest batch took the last of it in that waits for its write.
    pub(super) fn came(&self) -> Option<u64> {
        let loading = self.loading.as_ref().map(|loading| loading.decoded.came());
        let folded = self.folded.as_ref().map(|batch| batch.came);
        loading.max(folded)
    }

    /// The calls that are under way.
    pub(super) fn calls(&mut self) -> (Option<&mut Call<WriteEnd>>, Option<&mut Call<States>>) {
        let writing = self.writing.as_mut().map(|writing| &mut writing.handle);
        (writing, self.loading.as_mut().map(|loading| &mut loading.handle))
    }

    /// The number of a new batch.
    pub(super) fn number(&mut self) -> u64 {
        self.batches += 1;
        self.batches
    }

    /// The batch that what comes next is folded into: the one that waits for its write, or a new one.
    pub(super) fn open(&mut self) -> Batch {
        self.folded.take().unwrap_or_else(|| Batch::new(self.number()))
    }

    /// States are loaded for a batch.
    pub(super) fn load(&mut self, decoded: Decoded, handle: Call<States>) {
        self.loading = Some(Loading { decoded, handle });
    }

    /// The batch whose states came.
    pub(super) fn loaded(&mut self) -> Option<Decoded> {
        self.loading.take().map(|loading| loading.decoded)
    }

    /// A batch keeps what it grew by, as far as there is room.
    pub(super) fn keep(&self, batch: &mut Batch, items: Vec<Item>) {
        batch.keep(items, self.kept_bytes_max);
    }

    /// A batch was folded, and waits for its write.
    pub(super) fn fold(&mut self, batch: Batch) {
        self.folded = Some(batch);
    }

    /// The folded batch, to be written.
    pub(super) fn take_folded(&mut self) -> Option<Batch> {
        self.folded.take()
    }

    pub(super) fn write(&mut self, writing: Writing) {
        self.writing = Some(writing);
    }

    /// The batch that is no longer being written.
    pub(super) fn written(&mut self) -> Option<Writing> {
        self.writing.take()
    }

    /// The number of the batch that is being written.
    pub(super) fn writes(&self) -> Option<u64> {
        self.writing.as_ref().map(|writing| writing.batch.number)
    }

    /// From where to where each partition goes by what is being written.
    pub(super) fn write_steps(&self) -> Option<&HashMap<TopicPartition, (Position, Position)>> {
        self.writing.as_ref().map(|writing| &writing.batch.steps)
    }

    /// Everything that is folded and not being written, and `batch` before it, goes back to be folded anew. Returns how many
    /// records are let go for it, where not all of them are here any more: they are read again.
    pub(super) fn give_back(&mut self, batch: Option<Batch>, now: Instant) -> u64 {
        if let Some(writing) = &mut self.writing {
            writing.forgotten = true;
        }
        let kept = self.kept_bytes_max;
        let loading = self.loading.take().map(|loading| loading.decoded.into_batch(kept));
        // The newest first, since each is put back before all others.
        let batches = [loading, self.folded.take(), batch];
        if batches.iter().flatten().any(|batch| batch.let_go) {
            let records: usize = batches.iter().flatten().map(|batch| batch.records).sum();
            self.reads_again = true;
            return records as u64 + self.inbox.drop_partitions(None);
        }
        for batch in batches.into_iter().flatten() {
            self.inbox.put_back(batch.items, now);
        }
        0
    }

    /// Whether the source is to deliver again what is not folded; true once.
    pub(super) fn take_reads_again(&mut self) -> bool {
        std::mem::take(&mut self.reads_again)
    }

    /// Drops what was delivered of `partitions`, or of all, and not folded; returns how many records that were.
    pub(super) fn abandon(&mut self, partitions: Option<&HashSet<TopicPartition>>) -> u64 {
        self.inbox.drop_partitions(partitions)
    }
}
