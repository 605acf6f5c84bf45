//! Whether someone reset the consumer group, told by whose offsets are committed (rule 12). Pure.

use foldline_api::sink::StoredPosition;
use foldline_api::source::{Commit, PartitionInfo};

/// What the group's committed offsets say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Foldline's own, or a first start: go on.
    Ours,
    /// There are none though events were folded (expired, deleted): resume from the sink's positions.
    Missing,
    /// Every one was written by someone else, and lies at the fold's beginning or the log's start.
    Reset,
    /// Some were written by someone else and lie elsewhere: a fold that starts there would be wrong.
    Foreign,
}

/// The prefix of the mark in the commit metadata.
const MARK: &str = "foldline/1 ";

/// The mark that tells Foldline's own commits from those of others.
#[must_use]
pub fn mark(topic_id: Option<&str>, generation: u64) -> String {
    format!("{MARK}{} {generation}", topic_id.unwrap_or("-"))
}

/// Judges the committed offsets against the sink's positions and the log's starts.
///
/// | committed                                              | verdict |
/// |--------------------------------------------------------|---------|
/// | none, nothing folded                                   | ours    |
/// | none, something folded                                 | missing |
/// | all marked                                             | ours    |
/// | all unmarked, each at the fold's beginning or log start | reset   |
/// | anything else with an unmarked one                     | foreign |
///
/// Left out are unmarked offsets at the start of partitions of which this generation has folded nothing:
/// there is nothing to empty, and it may have been this very reset that made the generation. A task writes
/// nothing of a partition before the group has its mark, so what was folded and is unmarked was reset since.
#[must_use]
pub fn judge(committed: &[Commit], stored: &[StoredPosition], log: &[PartitionInfo]) -> Verdict {
    let of_ours: Vec<(&Commit, &StoredPosition)> = committed
        .iter()
        .filter_map(|commit| {
            let stored = stored.iter().find(|s| s.partition == commit.partition)?;
            Some((commit, stored))
        })
        .collect();
    let marked = |commit: &Commit| commit.metadata.starts_with(MARK);
    let at_start = |commit: &Commit, stored: &StoredPosition| {
        let low = log.iter().find(|info| info.partition == commit.partition).map(|info| info.low);
        commit.position <= stored.beginning || low.is_some_and(|low| commit.position <= low)
    };
    let untouched = |(commit, stored): &(&Commit, &StoredPosition)| {
        stored.position <= stored.beginning && !marked(commit) && at_start(commit, stored)
    };
    if of_ours.is_empty() {
        let folded = stored.iter().any(|s| s.position > s.beginning);
        return if folded { Verdict::Missing } else { Verdict::Ours };
    }
    let telling: Vec<(&Commit, &StoredPosition)> =
        of_ours.into_iter().filter(|pair| !untouched(pair)).collect();
    if telling.iter().all(|(commit, _)| marked(commit)) {
        return Verdict::Ours;
    }
    let all_back =
        telling.iter().all(|(commit, stored)| !marked(commit) && at_start(commit, stored));
    if all_back { Verdict::Reset } else { Verdict::Foreign }
}

#[cfg(test)]
mod tests {
    use foldline_api::record::{Position, TopicPartition};

    use super::*;

    fn commit(partition: i32, position: i64, metadata: &str) -> Commit {
        Commit {
            partition: TopicPartition::new("t", partition),
            position: Position(position),
            metadata: metadata.to_owned(),
        }
    }

    fn stored(partition: i32, beginning: i64, position: i64) -> StoredPosition {
        StoredPosition {
            partition: TopicPartition::new("t", partition),
            topic_id: None,
            beginning: Position(beginning),
            position: Position(position),
            epoch: 1,
        }
    }

    fn low(partition: i32, low: i64) -> PartitionInfo {
        PartitionInfo {
            partition: TopicPartition::new("t", partition),
            topic_id: None,
            low: Position(low),
            high: Position(100),
        }
    }

    #[test]
    fn a_reset_is_told_by_whose_offsets_they_are() {
        let stored = [stored(0, 0, 50), stored(1, 0, 60)];
        let log = [low(0, 0), low(1, 0)];
        let ours = mark(Some("id"), 3);
        for (committed, verdict) in [
            (vec![], Verdict::Missing),
            (vec![commit(0, 50, &ours), commit(1, 60, &ours)], Verdict::Ours),
            (vec![commit(0, 0, &ours)], Verdict::Ours),
            (vec![commit(0, 0, ""), commit(1, 0, "")], Verdict::Reset),
            (vec![commit(0, 0, "")], Verdict::Reset),
            (vec![commit(0, 0, ""), commit(1, 60, &ours)], Verdict::Foreign),
            (vec![commit(0, 20, ""), commit(1, 0, "")], Verdict::Foreign),
            (vec![commit(7, 0, "")], Verdict::Missing),
        ] {
            assert_eq!(judge(&committed, &stored, &log), verdict, "{committed:?}");
        }
    }

    #[test]
    fn the_logs_start_counts_where_retention_moved_it() {
        let verdict = judge(&[commit(0, 10, "")], &[stored(0, 0, 50)], &[low(0, 10)]);
        assert_eq!(verdict, Verdict::Reset);
        let verdict = judge(&[commit(0, 11, "")], &[stored(0, 0, 50)], &[low(0, 10)]);
        assert_eq!(verdict, Verdict::Foreign);
    }

    #[test]
    fn a_generation_that_has_folded_nothing_is_not_emptied_again() {
        let (log, ours) = ([low(0, 0), low(1, 0)], mark(None, 2));
        let fresh = [stored(0, 0, 0), stored(1, 0, 0)];
        let back = [commit(0, 0, ""), commit(1, 0, "")];
        assert_eq!(judge(&back, &fresh, &log), Verdict::Ours);
        // Another worker has begun: what it writes is marked before.
        let begun = [commit(0, 0, &ours), commit(1, 0, "")];
        assert_eq!(judge(&begun, &[stored(0, 0, 7), stored(1, 0, 0)], &log), Verdict::Ours);
        // Reset again, before anything of the second partition came.
        let verdict = judge(&back, &[stored(0, 0, 7), stored(1, 0, 0)], &log);
        assert_eq!(verdict, Verdict::Reset);
        let elsewhere = [commit(0, 3, "")];
        assert_eq!(judge(&elsewhere, &fresh, &log), Verdict::Foreign);
    }

    #[test]
    fn a_group_that_never_folded_is_no_reset() {
        assert_eq!(judge(&[], &[stored(0, 5, 5)], &[low(0, 0)]), Verdict::Ours);
    }
}
