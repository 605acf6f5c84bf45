//! By what a task is kept from going on. Pure: it follows from what stands of the task's parts at one moment, and the loop
//! folds and writes by the same answers that `status` shows.

/// By what nothing moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockedBy {
    /// The task ends, and lets what is in flight end first.
    End,
    /// Another writer of the same rows has its turn.
    Contention,
    /// Partitions are being taken over.
    Acquire,
    /// Partitions are being given back.
    Rebalance,
    /// The group does not know this generation's first offsets yet.
    Group,
    /// The log has not told yet that the topics are still the same.
    Topics,
    /// A request on parked events waits for what is in flight.
    Request,
    /// As many events are parked as may be.
    ParkedLimit,
    /// The states of keys are being loaded.
    Load,
    /// Rows in flight fill the memory for states until they are written.
    Memory,
    /// A flush is being written.
    Write,
    /// The log cannot be read, which is tried again.
    Log,
    /// The schemas of what was read cannot be told, which is asked again.
    Schemas,
    /// The connector is paused.
    Pause,
}

impl BlockedBy {
    /// All of them.
    pub const ALL: [BlockedBy; 14] = [
        BlockedBy::End,
        BlockedBy::Contention,
        BlockedBy::Acquire,
        BlockedBy::Rebalance,
        BlockedBy::Group,
        BlockedBy::Topics,
        BlockedBy::Request,
        BlockedBy::ParkedLimit,
        BlockedBy::Load,
        BlockedBy::Memory,
        BlockedBy::Write,
        BlockedBy::Log,
        BlockedBy::Schemas,
        BlockedBy::Pause,
    ];

    /// The word that `status` shows.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            BlockedBy::End => "end",
            BlockedBy::Contention => "contention",
            BlockedBy::Acquire => "acquire",
            BlockedBy::Rebalance => "rebalance",
            BlockedBy::Group => "group",
            BlockedBy::Topics => "topics",
            BlockedBy::Request => "request",
            BlockedBy::ParkedLimit => "parked_limit",
            BlockedBy::Load => "load",
            BlockedBy::Memory => "memory",
            BlockedBy::Write => "write",
            BlockedBy::Log => "log",
            BlockedBy::Schemas => "schemas",
            BlockedBy::Pause => "pause",
        }
    }
}

/// A folded batch that waits for its write.
#[derive(Clone, Copy, Debug)]
pub(super) struct Folded {
    /// It may take in more meanwhile.
    pub(super) grows: bool,
    /// The topics are known to be those that its records came of.
    pub(super) confirmed: bool,
}

/// What stands of a task's parts.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Facts {
    /// Nothing more may be folded, since the task ends.
    pub(super) ends: bool,
    /// It is another writer's turn.
    pub(super) stands_back: bool,
    /// A call takes partitions over.
    pub(super) acquires: bool,
    /// What is held is to be acquired again.
    pub(super) lost: bool,
    /// Partitions are being given back.
    pub(super) revokes: bool,
    /// Of some partition the group does not know the generation yet.
    pub(super) unmarked: bool,
    /// Something is wanted of parked events.
    pub(super) requested: bool,
    /// No more events may be parked.
    pub(super) parking_full: bool,
    /// What is in flight.
    pub(super) loading: bool,
    pub(super) folded: Option<Folded>,
    pub(super) writing: bool,
    /// States fill the memory for them.
    pub(super) memory_full: bool,
    /// Something was delivered and is not folded.
    pub(super) delivered: bool,
    /// The last read of the log failed.
    pub(super) log_fails: bool,
    /// The last question for schemas failed.
    pub(super) schemas_fail: bool,
    /// The connector is paused.
    pub(super) paused: bool,
}

impl Facts {
    /// What keeps the next batch from being folded, or the last one from growing.
    pub(super) fn fold(&self) -> Option<BlockedBy> {
        let grows = self.folded.is_none_or(|batch| self.writing && batch.grows);
        first([
            (self.ends, BlockedBy::End),
            (self.stands_back, BlockedBy::Contention),
            (self.lost, BlockedBy::Acquire),
            // What is folded now would hold the revocation up.
            (self.revokes, BlockedBy::Rebalance),
            (self.requested, BlockedBy::Request),
            (self.parking_full, BlockedBy::ParkedLimit),
            (self.loading, BlockedBy::Load),
            // What is written makes room for the next batch, and what is acquired for nothing.
            (self.writing && self.memory_full, BlockedBy::Memory),
            (!grows, self.write().unwrap_or(BlockedBy::Write)),
        ])
    }

    /// What keeps a folded batch from being written.
    pub(super) fn write(&self) -> Option<BlockedBy> {
        first([
            (self.writing, BlockedBy::Write),
            (self.acquires, BlockedBy::Acquire),
            (self.stands_back, BlockedBy::Contention),
            // The first flush of a generation waits for the group to know it (rule 12).
            (self.unmarked, BlockedBy::Group),
            (self.folded.is_some_and(|batch| !batch.confirmed), BlockedBy::Topics),
        ])
    }

    /// By what nothing moves, if something could: what is nearest to the store first.
    pub(super) fn all(&self) -> Option<BlockedBy> {
        if self.writing || self.folded.is_some() {
            return self.write();
        }
        if self.delivered || self.loading {
            return self.fold();
        }
        first([
            (self.acquires || self.lost, BlockedBy::Acquire),
            (self.revokes, BlockedBy::Rebalance),
            (self.log_fails, BlockedBy::Log),
            (self.schemas_fail, BlockedBy::Schemas),
            (self.paused, BlockedBy::Pause),
        ])
    }
}

/// The first that holds.
fn first<const N: usize>(of: [(bool, BlockedBy); N]) -> Option<BlockedBy> {
    of.into_iter().find_map(|(holds, by)| holds.then_some(by))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_holds_the_fold_or_the_write_is_named() {
        let free = Facts::default();
        assert_eq!((free.fold(), free.write(), free.all()), (None, None, None));
        let each = [
            (Facts { ends: true, ..free }, BlockedBy::End),
            (Facts { stands_back: true, ..free }, BlockedBy::Contention),
            (Facts { lost: true, ..free }, BlockedBy::Acquire),
            (Facts { revokes: true, ..free }, BlockedBy::Rebalance),
            (Facts { requested: true, ..free }, BlockedBy::Request),
            (Facts { parking_full: true, ..free }, BlockedBy::ParkedLimit),
            (Facts { loading: true, ..free }, BlockedBy::Load),
            (Facts { writing: true, memory_full: true, ..free }, BlockedBy::Memory),
        ];
        for (facts, by) in each {
            assert_eq!(facts.fold(), Some(by));
            let shown = if facts.writing { BlockedBy::Write } else { by };
            assert_eq!(Facts { delivered: true, ..facts }.all(), Some(shown));
        }
        let folded = Some(Folded { grows: true, confirmed: true });
        let free = Facts { folded, ..free };
        let open = Some(Folded { grows: true, confirmed: false });
        let each = [
            (Facts { writing: true, ..free }, BlockedBy::Write),
            (Facts { acquires: true, ..free }, BlockedBy::Acquire),
            (Facts { stands_back: true, ..free }, BlockedBy::Contention),
            (Facts { unmarked: true, ..free }, BlockedBy::Group),
            (Facts { folded: open, ..free }, BlockedBy::Topics),
        ];
        for (facts, by) in each {
            assert_eq!((facts.write(), facts.all()), (Some(by), Some(by)));
        }
        assert_eq!(free.write(), None);
    }

    #[test]
    fn a_batch_grows_only_while_another_is_written() {
        let waits =
            Facts { folded: Some(Folded { grows: true, confirmed: true }), ..Facts::default() };
        assert!(waits.fold().is_some());
        assert_eq!(Facts { writing: true, ..waits }.fold(), None);
        let whole = Some(Folded { grows: false, confirmed: true });
        let whole = Facts { folded: whole, writing: true, ..waits };
        assert_eq!(whole.fold(), Some(BlockedBy::Write));
    }

    #[test]
    fn who_has_nothing_to_do_is_not_blocked_but_by_what_brings_it_something() {
        let free = Facts::default();
        let quiet = Facts { requested: true, parking_full: true, unmarked: true, ..free };
        assert_eq!(quiet.all(), None);
        assert_eq!(Facts { paused: true, ..free }.all(), Some(BlockedBy::Pause));
        assert_eq!(Facts { log_fails: true, ..free }.all(), Some(BlockedBy::Log));
        assert_eq!(Facts { schemas_fail: true, ..free }.all(), Some(BlockedBy::Schemas));
        assert_eq!(Facts { acquires: true, ..free }.all(), Some(BlockedBy::Acquire));
    }
}
