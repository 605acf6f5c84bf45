//! Events that were left out by hand: each partition's are in its place, which moves past them.

use async_trait::async_trait;
use foldline_api::Result;
use foldline_api::hole::{self, Hole, Holes};
use foldline_api::record::{Position, TopicPartition};
use foldline_api::sink::Version;

use crate::books::{ATTEMPTS, PositionDoc, Versioned};
use crate::target::{ElasticsearchTarget, contended};

impl ElasticsearchTarget {
    /// Moves one partition; false where its place changed meanwhile.
    async fn leave_out(&self, generation: u64, hole: &Hole) -> Result<bool> {
        let partition = &hole.partition;
        let found = self.books.positions(generation, std::slice::from_ref(partition)).await?;
        let mut place = found.into_iter().flatten().next().unwrap_or_else(|| Versioned {
            value: self.books.fresh(generation, partition, hole.from),
            version: Version::Absent,
        });
        if place.value.position != hole.from.0 {
            return Ok(false);
        }
        place.value.position = hole.to.0;
        place.value.epoch += 1;
        place.value.holes.push((hole.from.0, hole.to.0));
        Ok(self.books.put_positions(&[place]).await?.iter().all(Option::is_some))
    }
}

/// A place's holes.
fn holes_of(place: &PositionDoc) -> impl Iterator<Item = Hole> {
    let hole = |(from, to): &(i64, i64)| Hole {
        partition: place.topic_partition(),
        from: Position(*from),
        to: Position(*to),
    };
    place.holes.iter().map(hole)
}

#[async_trait]
impl Holes for ElasticsearchTarget {
    async fn holes(&self, generation: u64) -> Result<Vec<Hole>> {
        let places = self.places(generation, None).await?;
        Ok(places.iter().flat_map(holes_of).collect())
    }

    async fn skip(&self, generation: u64, to: &[(TopicPartition, Position)]) -> Result<()> {
        for (partition, to) in to {
            let mut done = false;
            for _ in 0..ATTEMPTS {
                let doc = self.stored().await?.value;
                hole::check(&doc.binding, generation)?;
                let stored = self.positions_of(generation, &doc.beginnings).await?;
                let hole = hole::hole(&stored, partition, *to)?;
                done = match hole {
                    Some(hole) => self.leave_out(generation, &hole).await?,
                    None => true,
                };
                if done {
                    break;
                }
            }
            if !done {
                return Err(contended());
            }
        }
        Ok(())
    }
}
