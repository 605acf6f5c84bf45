//! Events that were left out by hand: each partition's are in its place, which moves past them.

use async_trait::async_trait;
use foldline_api::hole::{self, Hole, Holes};
use foldline_api::record::{Position, TopicPartition};
use foldline_api::sink::Version;
use foldline_api::{Error, Result};

use crate::books::{ATTEMPTS, BeginningDoc, Books, NextDoc, PositionDoc, TargetDoc, Versioned};
use crate::target::{ElasticsearchTarget, contended};

/// A place's holes.
pub(crate) fn holes_of(place: &PositionDoc) -> impl Iterator<Item = Hole> {
    let hole = |(from, to): &(i64, i64), repeated| Hole {
        repeated,
        ..Hole::new(place.topic_partition(), Position(*from), Position(*to))
    };
    let repeated = place.holes.iter().map(move |pair| hole(pair, true));
    repeated.chain(place.forgotten.iter().map(move |pair| hole(pair, false)))
}

/// Keeps a hole, unless all of it is passed; whether the place has changed. `true` for `moves` also moves a position that
/// stands in it, and fences who holds the partition.
fn keep(place: &mut PositionDoc, hole: &Hole, moves: bool) -> bool {
    let pair = (hole.from.0.max(place.position), hole.to.0);
    if pair.0 >= pair.1 || place.holes.contains(&pair) {
        return false;
    }
    if moves {
        place.epoch += 1;
        if hole.has(Position(place.position)) {
            place.position = hole.to.0;
        }
    }
    place.forgotten.retain(|forgotten| *forgotten != pair);
    place.holes.push(pair);
    place.holes.sort_unstable();
    true
}

/// Whether two lives of a topic may be one.
fn same(one: &BeginningDoc, other: &BeginningDoc) -> bool {
    one.topic_partition() == other.topic_partition()
        && one.topic_id.iter().zip(&other.topic_id).all(|(one, other)| one == other)
}

/// The generations beside the live one, with their beginnings.
fn beside(doc: &TargetDoc) -> impl Iterator<Item = (u64, &[BeginningDoc])> {
    let next = doc.next.iter().filter(|next: &&NextDoc| next.phase().is_some());
    let next = next.map(|next| (next.generation, next.beginnings.as_slice()));
    next.chain(doc.old.iter().map(|old| (old.generation, old.beginnings.as_slice())))
}

impl Books {
    /// Changes a partition's place, however often another task changes it meanwhile.
    async fn change_place(
        &self,
        generation: u64,
        beginning: &BeginningDoc,
        change: impl Fn(&mut PositionDoc) -> Result<bool> + Send + Sync,
    ) -> Result<()> {
        let partition = beginning.topic_partition();
        for _ in 0..ATTEMPTS {
            let found = self.positions(generation, std::slice::from_ref(&partition)).await?;
            let mut place = found.into_iter().flatten().next().unwrap_or_else(|| Versioned {
                value: self.fresh(generation, &partition, Position(beginning.position)),
                version: Version::Absent,
            });
            if !change(&mut place.value)?
                || self.put_positions(&[place]).await?.iter().all(Option::is_some)
            {
                return Ok(());
            }
        }
        Err(contended())
    }

    /// Leaves out of another generation what one leaves out of topics of the same id.
    pub(crate) async fn take_over_holes(
        &self,
        (from, known): (u64, &[BeginningDoc]),
        (to, beginnings): (u64, &[BeginningDoc]),
    ) -> Result<()> {
        for beginning in beginnings {
            if !known.iter().any(|known| same(known, beginning)) {
                continue;
            }
            let partition = beginning.topic_partition();
            let found = self.positions(from, std::slice::from_ref(&partition)).await?;
            let Some(place) = found.into_iter().flatten().next() else { continue };
            for hole in holes_of(&place.value).filter(|hole| hole.repeated) {
                self.change_place(to, beginning, |place| Ok(keep(place, &hole, false))).await?;
            }
        }
        Ok(())
    }
}

impl ElasticsearchTarget {
    /// Leaves a hole out of the generations beside the live one, of those that may be of the same topic.
    async fn leave_out_beside(
        &self,
        doc: &TargetDoc,
        beginning: &BeginningDoc,
        hole: &Hole,
    ) -> Result<()> {
        for (generation, beginnings) in beside(doc) {
            for of_it in beginnings.iter().filter(|of_it| same(of_it, beginning)) {
                let change = |place: &mut PositionDoc| Ok(keep(place, hole, true));
                self.books.change_place(generation, of_it, change).await?;
            }
        }
        Ok(())
    }

    /// Moves one partition of the live generation, after those beside it: a call that broke off is made again whole.
    async fn skip_one(
        &self,
        generation: u64,
        (partition, to): (&TopicPartition, Position),
    ) -> Result<()> {
        let doc = self.stored().await?.value;
        hole::check(&doc.binding, generation)?;
        let stored = self.positions_of(generation, &doc.beginnings).await?;
        let Some(hole) = hole::hole(&stored, partition, to)? else { return Ok(()) };
        let beginning = doc.beginning(partition).ok_or_else(contended)?;
        self.leave_out_beside(&doc, beginning, &hole).await?;
        let change = |place: &mut PositionDoc| {
            if place.position != hole.from.0 {
                return Err(Error::fenced(format!("`{partition}` has moved meanwhile: ask again")));
            }
            Ok(keep(place, &hole, true))
        };
        self.books.change_place(generation, beginning, change).await?;
        // A build that was begun meanwhile may have looked at the live generation before.
        let doc = self.stored().await?.value;
        self.leave_out_beside(&doc, beginning, &hole).await
    }
}

#[async_trait]
impl Holes for ElasticsearchTarget {
    async fn holes(&self, generation: u64) -> Result<Vec<Hole>> {
        let places = self.places(generation, None).await?;
        let mut holes: Vec<Hole> = places.iter().flat_map(holes_of).collect();
        holes.sort_by(|a, b| (&a.partition, a.from).cmp(&(&b.partition, b.from)));
        Ok(holes)
    }

    async fn skip(&self, generation: u64, to: &[(TopicPartition, Position)]) -> Result<()> {
        for (partition, to) in to {
            self.skip_one(generation, (partition, *to)).await?;
        }
        Ok(())
    }

    async fn forget(&self, generation: u64) -> Result<()> {
        let doc = self.stored().await?.value;
        hole::check(&doc.binding, generation)?;
        let live = (generation, doc.beginnings.as_slice());
        for (generation, beginnings) in beside(&doc).chain([live]) {
            for beginning in beginnings {
                let change = |place: &mut PositionDoc| {
                    let holes = std::mem::take(&mut place.holes);
                    let any = !holes.is_empty();
                    place.forgotten.extend(holes);
                    Ok(any)
                };
                self.books.change_place(generation, beginning, change).await?;
            }
        }
        Ok(())
    }
}
