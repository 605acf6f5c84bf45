//! How far a rebuild is.

use std::time::Instant;

use foldline_api::rebuild::{Build, Generations, Phase};
use foldline_api::record::{Position, TopicPartition};

use crate::task::Snapshot;

/// How much the newest rate counts.
const SMOOTH: f64 = 0.2;

/// A rebuild as one worker sees it: durable positions of all workers, and its own tasks' in memory.
#[derive(Clone, Debug)]
pub struct Progress {
    /// The generation that is built.
    pub generation: u64,
    /// How far it is.
    pub phase: Phase,
    /// The share of the load that is folded, 0 to 1.
    pub ratio: f64,
    /// Offsets until it is where the log ended when it began, or where the live generation is now.
    pub remaining: i64,
    /// Offsets per second.
    pub rate: f64,
    /// Until nothing remains, in seconds; none where the rate is unknown.
    pub eta_seconds: Option<f64>,
    /// Records that could not be folded; their dead letters were sent before.
    pub bad_records: u64,
    /// What the next step waits for.
    pub waiting: Option<String>,
    /// What went wrong last and is tried again.
    pub trouble: Option<String>,
    /// What one of its tasks here tries again, as the task tells it.
    pub failing: Option<String>,
    done: i64,
    at: Instant,
}

impl Progress {
    /// What the books and this worker's tasks say now; `before` is what was shown last.
    pub(crate) fn new(
        before: Option<Progress>,
        build: &Build,
        generations: &Generations,
        tasks: &[Snapshot],
        bad_records: u64,
    ) -> Self {
        let reached = |partition: &TopicPartition| -> Option<(Position, Position)> {
            let stored = build.positions.iter().find(|p| p.partition == *partition)?;
            let local =
                tasks.iter().flat_map(|t| &t.partitions).find(|p| p.partition == *partition);
            let at = local.map_or(stored.position, |local| local.position.max(stored.position));
            Some((stored.beginning, at))
        };
        let (mut total, mut done, mut remaining) = (0, 0, 0);
        for (partition, goal) in &build.goals {
            let Some((from, at)) = reached(partition) else { continue };
            let live = generations.positions.iter().find(|p| p.partition == *partition);
            let until = live.map_or(*goal, |live| live.position.max(*goal));
            total += (goal.0 - from.0).max(0);
            done += (at.min(*goal).0 - from.0).max(0);
            remaining += (until.0 - at.0).max(0);
        }
        let now = Instant::now();
        let ratio = if total == 0 { 1.0 } else { done as f64 / total as f64 };
        let rate = before.as_ref().map_or(0.0, |before| {
            let seconds = now.duration_since(before.at).as_secs_f64().max(0.001);
            let newest = (done - before.done).max(0) as f64 / seconds;
            if before.rate == 0.0 { newest } else { before.rate * (1.0 - SMOOTH) + newest * SMOOTH }
        });
        let eta_seconds = match remaining {
            0 => Some(0.0),
            _ if rate > 0.0 => Some(remaining as f64 / rate),
            _ => None,
        };
        let (waiting, trouble) =
            before.map_or((None, None), |before| (before.waiting, before.trouble));
        let failing = tasks.iter().find_map(|task| task.trouble.clone());
        let (generation, phase) = (build.generation, build.phase);
        Progress {
            generation,
            phase,
            ratio,
            remaining,
            rate,
            eta_seconds,
            bad_records,
            waiting,
            trouble,
            failing,
            done,
            at: now,
        }
    }

    /// As REST shows it.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "generation": self.generation,
            "phase": self.phase.name(),
            "progress": (self.ratio * 10_000.0).floor() / 10_000.0,
            "remaining": self.remaining,
            "rate": self.rate.round(),
            "eta_seconds": self.eta_seconds.map(f64::round),
            "bad_records": self.bad_records,
            "waiting": self.waiting,
            "trouble": self.failing.as_ref().or(self.trouble.as_ref()),
        })
    }
}

#[cfg(test)]
mod tests {
    use foldline_api::sink::{DesiredState, StoredPosition};

    use super::*;
    use crate::task::PartitionStatus;

    fn stored(beginning: i64, position: i64) -> StoredPosition {
        StoredPosition {
            partition: TopicPartition::new("t", 0),
            topic_id: None,
            beginning: Position(beginning),
            position: Position(position),
            epoch: 1,
        }
    }

    #[test]
    fn what_is_folded_in_memory_counts() {
        let build = Build {
            generation: 2,
            fingerprint: String::new(),
            projection: serde_json::Value::Null,
            phase: Phase::Loading,
            positions: vec![stored(100, 100)],
            goals: vec![(TopicPartition::new("t", 0), Position(300))],
        };
        let live = Generations {
            live: 1,
            projection: serde_json::Value::Null,
            desired: DesiredState::Running,
            positions: vec![stored(100, 320)],
            build: None,
            old: Vec::new(),
        };
        let nothing = Progress::new(None, &build, &live, &[], 0);
        assert_eq!((nothing.ratio, nothing.remaining, nothing.eta_seconds), (0.0, 220, None));
        let partition = TopicPartition::new("t", 0);
        let folded = PartitionStatus { partition, position: Position(150), end: None };
        let task = Snapshot { partitions: vec![folded], ..Snapshot::default() };
        let half = Progress::new(Some(nothing), &build, &live, &[task], 3);
        assert_eq!((half.ratio, half.remaining, half.bad_records), (0.25, 170, 3));
        assert!(half.rate > 0.0 && half.eta_seconds.is_some_and(|eta| eta > 0.0));
    }
}
