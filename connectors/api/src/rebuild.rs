//! Building the next generation beside the live one, swapping them, and going back.
//!
//! A target has one live generation, at most one that is being built, and old ones that are kept for a
//! rollback. Positions belong to a generation and never move to another.
//!
//! | a build is | it becomes | by |
//! |---|---|---|
//! | none | loading | [`Rebuilds::begin`] |
//! | loading | following | [`Step::Follow`]: the load is durable; indexes and settings are restored |
//! | following | holding | [`Step::Hold`]: the live generation's tasks are fenced, its readers go on |
//! | holding | following | [`Step::Release`]: the positions were not reached in time |
//! | holding | live | [`Step::Swap`]: the positions are reached; names change in one step; what was live is kept |
//! | any | none | [`Rebuilds::cancel`] |
//!
//! Every step is whole or not done at all, may be asked for by any worker and any number of times, and
//! holds across a crash: whoever comes next finds the phase in the books and goes on from there.

use std::time::Duration;

use async_trait::async_trait;

use crate::error::Result;
use crate::parked::Place;
use crate::record::{Position, TopicPartition};
use crate::sink::{Beginning, DesiredState, StoredPosition};
use crate::source::DeadLetter;

/// How far a build is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It is filled from the fold's beginning; secondary indexes and replicas are still missing.
    Loading,
    /// It is complete up to its positions, and follows the log.
    Following,
    /// The live generation's tasks are stopped, and it reaches their positions.
    Holding,
}

impl Phase {
    /// As the books and REST spell it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Phase::Loading => "loading",
            Phase::Following => "following",
            Phase::Holding => "holding",
        }
    }

    /// Reads [`Phase::name`].
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        [Phase::Loading, Phase::Following, Phase::Holding].into_iter().find(|p| p.name() == name)
    }
}

/// What a generation beside the live one is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It is being built.
    Build(Phase),
    /// It was live, and is kept for a rollback.
    Old,
}

impl Role {
    /// As the books spell it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Role::Build(phase) => phase.name(),
            Role::Old => "old",
        }
    }

    /// Reads [`Role::name`].
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        if name == "old" { Some(Role::Old) } else { Phase::parse(name).map(Role::Build) }
    }

    /// How far it is, where it is being built.
    #[must_use]
    pub fn phase(self) -> Option<Phase> {
        match self {
            Role::Build(phase) => Some(phase),
            Role::Old => None,
        }
    }
}

/// The generation that is being built.
#[derive(Clone, Debug)]
pub struct Build {
    /// Its number.
    pub generation: u64,
    /// The fingerprint of the projection that builds it; tasks of another leave it alone.
    pub fingerprint: String,
    /// That projection in its stable JSON form.
    pub projection: serde_json::Value,
    /// How far it is.
    pub phase: Phase,
    /// Its partitions' positions, each no less than its beginning.
    pub positions: Vec<StoredPosition>,
    /// The end of each partition when the build began: until there it is loaded.
    pub goals: Vec<(TopicPartition, Position)>,
}

impl Build {
    /// Whether every partition's goal is durable.
    #[must_use]
    pub fn is_loaded(&self) -> bool {
        self.behind_log(&self.goals) == 0
    }

    /// How many offsets it is behind these ends of the log.
    #[must_use]
    pub fn behind_log(&self, ends: &[(TopicPartition, Position)]) -> i64 {
        let missing = |(partition, end): &(TopicPartition, Position)| {
            (end.0 - position_of(&self.positions, partition).0).max(0)
        };
        ends.iter().map(missing).sum()
    }

    /// How many offsets it is behind `live`.
    #[must_use]
    pub fn behind(&self, live: &[StoredPosition]) -> i64 {
        live.iter().map(|live| missing(&self.positions, live)).sum()
    }
}

/// How many offsets `build` is behind one partition of the live generation. None behind what it cannot
/// reach: a topic that it does not fold, or one that has been made anew since.
fn missing(build: &[StoredPosition], live: &StoredPosition) -> i64 {
    let Some(next) = build.iter().find(|next| next.partition == live.partition) else {
        // A partition of one of its topics that none of its tasks has come to yet.
        let folds = build.iter().any(|next| next.partition.topic == live.partition.topic);
        return if folds { (live.position.0 - live.beginning.0).max(0) } else { 0 };
    };
    match (&next.topic_id, &live.topic_id) {
        (Some(new), Some(old)) if new != old => 0,
        _ => (live.position.0 - next.position.0).max(0),
    }
}

/// Whether a build has reached the live generation's positions.
#[must_use]
pub fn is_reached(build: &[StoredPosition], live: &[StoredPosition]) -> bool {
    live.iter().all(|live| missing(build, live) == 0)
}

fn position_of(positions: &[StoredPosition], partition: &TopicPartition) -> Position {
    let found = positions.iter().find(|stored| stored.partition == *partition);
    found.map(|stored| stored.position).unwrap_or_default()
}

/// A target's generations at one moment.
#[derive(Clone, Debug)]
pub struct Generations {
    /// The live one.
    pub live: u64,
    /// The projection that builds the live one, in its stable JSON form.
    pub projection: serde_json::Value,
    /// What the operator wants of the connector.
    pub desired: DesiredState,
    /// The live one's positions.
    pub positions: Vec<StoredPosition>,
    /// The one that is being built.
    pub build: Option<Build>,
    /// Those kept for a rollback, the newest last.
    pub old: Vec<u64>,
}

impl Generations {
    /// What became of a build that is there no more and is not live, for people, as far as the books tell it.
    #[must_use]
    pub fn what_became_of(&self, generation: u64) -> &'static str {
        if self.old.contains(&generation) {
            "the rebuilt generation was live, and another one is now"
        } else if self.live > generation {
            "another generation took the place of the one that was built"
        } else {
            "the rebuild was cancelled, or rolled back as soon as it was live"
        }
    }
}

/// Who asks for a build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// An operator, by name: any projection may be built.
    Operator,
    /// A worker whose config has `on_change = "rebuild"`: no projection comes back that was superseded, and none takes
    /// the place of the build that took its own.
    Deploy,
}

/// A step of a build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// From loading to following: builds secondary indexes, restores what the load was spared.
    Follow,
    /// From following to holding. A patient one waits while a transaction holds a snapshot from before
    /// the end of the load: after the swap that one would read an empty table.
    Hold {
        /// Whether to wait for old snapshots.
        patient: bool,
    },
    /// From holding back to following.
    Release,
    /// Makes the build the live generation. Of its letters only those stay that the live one did not have.
    Swap,
}

/// What became of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stepped {
    /// It is done; sentences for the log.
    Done(Vec<String>),
    /// Not now, and why: another worker was faster, a lock is taken, a position not reached.
    NotYet(String),
}

/// Where a store says nothing else: its refreshes and health checks may take a while.
const HOLD_MAX: Duration = Duration::from_secs(15);

/// Rebuilds beside the live generation. The writer of a build is [`crate::sink::Target::writer`]'s, which
/// refuses to acquire once its build is over.
#[async_trait]
pub trait Rebuilds: Send + Sync {
    /// Makes the next generation, empty, to be filled from `beginnings`. Returns its number, or that of
    /// the build under way if it is of the same projection; one of another projection is dropped.
    ///
    /// # Errors
    /// Config errors name what users put on the target that a swap would lose, and the way out.
    async fn begin(
        &self,
        by: By,
        beginnings: &[Beginning],
        goals: &[(TopicPartition, Position)],
    ) -> Result<u64>;

    /// The generations, read at one moment.
    async fn generations(&self) -> Result<Generations>;

    /// So long the live generation's tasks are held for a swap at most; then they go on, and it is tried again.
    fn hold_max(&self) -> Duration {
        HOLD_MAX
    }

    /// Whether readers may see more of the live generation than its positions say: where rows are not written in one
    /// transaction with them, a writer that was killed or fenced between leaves such rows. A swap then waits until the
    /// build has reached the log's end as it was when [`Rebuilds::fence`] returned: nothing that is seen is of a later event.
    fn rows_precede_positions(&self) -> bool {
        false
    }

    /// Makes sure that nobody writes rows of the live generation, which build `generation` holds. May be asked for any number
    /// of times.
    ///
    /// # Errors
    /// Retriable where the build does not hold it.
    async fn fence(&self, _generation: u64) -> Result<()> {
        Ok(())
    }

    /// Carries out a step of build `generation`.
    async fn step(&self, generation: u64, step: Step) -> Result<Stepped>;

    /// Drops the build and all that belongs to it; its number, if there was one. Where `expected` is another one,
    /// it is left alone.
    async fn cancel(&self, expected: Option<u64>) -> Result<Option<u64>>;

    /// Makes the newest kept generation live again, at its own positions; what was live is kept in its
    /// place. Where `from` is no longer live, someone was faster, and nothing is done. Returns the live generation.
    ///
    /// # Errors
    /// Config errors: none is kept, or a build is under way. Retriable where a lock is taken.
    async fn roll_back(&self, from: Option<u64>) -> Result<u64>;

    /// Letters that were kept for the swap of what is `generation` now, the live one: at most `max`, in no order.
    async fn letters(&self, generation: u64, max: usize) -> Result<Vec<(Place, DeadLetter)>>;

    /// The letters of these places are acknowledged.
    async fn sent(&self, generation: u64, places: &[Place]) -> Result<()>;

    /// Of these records, those whose letters were sent: by this generation, or by one that was live before it, of the same
    /// life of the topic. What was live hands on what it knows with the change to the next, in place, by a swap and by a
    /// rollback.
    async fn were_sent(&self, generation: u64, places: &[Place]) -> Result<Vec<Place>>;

    /// Drops the oldest kept generations until `keep` are left; which were dropped.
    async fn drop_old(&self, keep: usize) -> Result<Vec<u64>>;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(partition: i32, position: i64) -> StoredPosition {
        StoredPosition {
            partition: TopicPartition::new("t", partition),
            topic_id: None,
            beginning: Position(0),
            position: Position(position),
            epoch: 0,
        }
    }

    #[test]
    fn a_build_is_loaded_when_every_goal_is_durable() {
        let goal = |partition, at| (TopicPartition::new("t", partition), Position(at));
        let mut build = Build {
            generation: 2,
            fingerprint: String::new(),
            projection: serde_json::Value::Null,
            phase: Phase::Loading,
            positions: vec![stored(0, 5), stored(1, 9)],
            goals: vec![goal(0, 5), goal(1, 9), goal(2, 0)],
        };
        assert!(build.is_loaded(), "an empty partition needs no position");
        build.goals.push(goal(3, 1));
        assert!(!build.is_loaded());
    }

    #[test]
    fn a_build_reaches_the_live_generation_where_they_fold_the_same() {
        let build = [stored(0, 5), stored(1, 9)];
        assert!(is_reached(&build, &[stored(0, 5), stored(1, 3)]));
        assert!(!is_reached(&build, &[stored(0, 6)]));
        assert!(!is_reached(&build, &[stored(3, 4)]), "a partition nobody has come to yet");
        assert!(is_reached(&build, &[stored(3, 0)]), "nothing of it was folded");
        let mut other = stored(0, 100);
        other.partition = TopicPartition::new("gone", 0);
        assert!(is_reached(&build, &[other]), "a topic that it does not fold");
        let (mut old, mut new) = (stored(0, 100), stored(0, 5));
        (old.topic_id, new.topic_id) = (Some("a".to_owned()), Some("b".to_owned()));
        assert!(is_reached(&[new], &[old]), "another life of the topic");
    }
}
