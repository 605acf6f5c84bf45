//! Stretches of the log that an operator left out of a fold.

use std::fmt;

use async_trait::async_trait;

use crate::binding::Binding;
use crate::error::{Error, Result};
use crate::record::{Position, TopicPartition};
use crate::sink::StoredPosition;
use crate::source::Stretch;

/// Events that a generation does not hold, since an operator left them out. It belongs to the topic's id: each later
/// generation leaves the same events out, until the operator wants them back ([`Holes::forget`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hole {
    /// The partition.
    pub partition: TopicPartition,
    /// The first offset that is left out.
    pub from: Position,
    /// The offset behind the last.
    pub to: Position,
    /// Whether the next generation leaves it out too.
    pub repeated: bool,
}

impl Hole {
    /// One that is repeated by the generations to come.
    #[must_use]
    pub fn new(partition: TopicPartition, from: Position, to: Position) -> Self {
        Hole { partition, from, to, repeated: true }
    }

    /// What the next generation does with it, for people.
    #[must_use]
    pub fn fate(&self) -> &'static str {
        if self.repeated {
            "every rebuild leaves them out too (`foldline offsets NAME --forget-holes` takes that back)"
        } else {
            "the next rebuild folds them"
        }
    }

    /// Which offsets it is, and what the next generation does with them, for people.
    #[must_use]
    pub fn told(&self) -> String {
        format!("{self}; {}", self.fate())
    }

    /// Whether `position` stands in it.
    #[must_use]
    pub fn has(&self, position: Position) -> bool {
        self.from <= position && position < self.to
    }
}

impl fmt::Display for Hole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let last = self.to.0 - 1;
        write!(f, "offsets {} to {last} of `{}`", self.from, self.partition)
    }
}

/// What is left of a stretch without its holes, in order.
#[must_use]
pub fn without(stretch: &Stretch, holes: &[Hole]) -> Vec<Stretch> {
    let of_it = |hole: &&Hole| {
        hole.partition == stretch.partition && hole.from < stretch.to && hole.to > stretch.from
    };
    let mut mine: Vec<&Hole> = holes.iter().filter(of_it).collect();
    mine.sort_by_key(|hole| hole.from);
    let (mut pieces, mut from) = (Vec::new(), stretch.from);
    let mut piece = |from: Position, to: Position| {
        if from < to {
            pieces.push(Stretch { partition: stretch.partition.clone(), from, to });
        }
    };
    for hole in mine {
        piece(from, hole.from);
        from = from.max(hole.to);
    }
    piece(from, stretch.to);
    pieces
}

/// The holes of a target, kept beside the positions of its generations.
#[async_trait]
pub trait Holes: Send + Sync {
    /// The holes of a generation, in partition and offset order.
    async fn holes(&self, generation: u64) -> Result<Vec<Hole>>;

    /// Moves positions of the live generation forward, keeps what lies between as holes and raises the epochs
    /// of these partitions: all of them or, where partitions move one by one, each whole. A position that
    /// stands there already is left alone. The generations beside the live one get the same holes for topics of the
    /// same id, as far as they have not folded them.
    ///
    /// # Errors
    /// Class Fenced where `generation` is not live; Config where a partition is not of the fold, or stands
    /// further on.
    async fn skip(&self, generation: u64, to: &[(TopicPartition, Position)]) -> Result<()>;

    /// The generation that is made next folds what is left out now. Those that there are stay as they are, and what
    /// is left out from now on is repeated again.
    ///
    /// # Errors
    /// Class Fenced where `generation` is not live.
    async fn forget(&self, generation: u64) -> Result<()>;
}

/// Whether `generation` is live.
///
/// # Errors
/// Class Fenced where another one is.
pub fn check(binding: &Binding, generation: u64) -> Result<()> {
    if binding.generation == generation {
        return Ok(());
    }
    Err(Error::fenced(format!("generation {generation} is no longer live")))
}

/// The hole that moving a partition `to` leaves; none where it stands there already.
///
/// # Errors
/// Class Config where the partition has no position, or a later one.
pub fn hole(
    stored: &[StoredPosition],
    partition: &TopicPartition,
    to: Position,
) -> Result<Option<Hole>> {
    let Some(place) = stored.iter().find(|stored| stored.partition == *partition) else {
        return Err(Error::config(format!("`{partition}` is no partition of this fold")));
    };
    let from = place.position;
    if to < from {
        return Err(Error::config(format!(
            "`{partition}` stands at {from}: {to} lies behind it, and what is folded stays folded. A rebuild folds from \
             the beginning, without the holes"
        )));
    }
    Ok((to > from).then(|| Hole::new(partition.clone(), from, to)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stretch_without_its_holes_is_what_lies_between() {
        let partition = TopicPartition::new("t", 0);
        let hole = |from, to| {
            let partition = partition.clone();
            Hole::new(partition, Position(from), Position(to))
        };
        let elsewhere = Hole { partition: TopicPartition::new("t", 1), ..hole(0, 99) };
        let left = |holes: &[Hole]| -> Vec<(i64, i64)> {
            let (from, to) = (Position(10), Position(20));
            let stretch = Stretch { partition: partition.clone(), from, to };
            without(&stretch, holes).iter().map(|piece| (piece.from.0, piece.to.0)).collect()
        };
        assert_eq!(left(&[elsewhere, hole(0, 10), hole(20, 30)]), [(10, 20)]);
        assert_eq!(left(&[hole(15, 17), hole(12, 13)]), [(10, 12), (13, 15), (17, 20)]);
        assert_eq!(left(&[hole(5, 11), hole(11, 12), hole(19, 25)]), [(12, 19)]);
        assert_eq!(left(&[hole(0, 30)]), []);
        assert_eq!(hole(12, 15).to_string(), "offsets 12 to 14 of `t-0`");
    }
}
