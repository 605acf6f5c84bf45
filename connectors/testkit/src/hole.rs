//! Events that are left out, in the store in memory.

use async_trait::async_trait;
use foldline_api::Result;
use foldline_api::hole::{self, Hole, Holes};
use foldline_api::record::{Position, TopicPartition};

use crate::store::MemoryTarget;

#[async_trait]
impl Holes for MemoryTarget {
    async fn holes(&self, generation: u64) -> Result<Vec<Hole>> {
        let state = self.store.lock();
        let mine = self.owned(&state)?.holes.iter().filter(|(of, _)| *of == generation);
        let mut holes: Vec<Hole> = mine.map(|(_, hole)| hole.clone()).collect();
        holes.sort_by(|a, b| (&a.partition, a.from).cmp(&(&b.partition, b.from)));
        Ok(holes)
    }

    async fn skip(&self, generation: u64, to: &[(TopicPartition, Position)]) -> Result<()> {
        let mut state = self.store.lock();
        let entry = self.owned_mut(&mut state)?;
        if let Some(record) = &entry.record {
            hole::check(&record.binding, generation)?;
        }
        let stored = entry.live_positions();
        let holes: Result<Vec<Option<Hole>>> =
            to.iter().map(|(partition, to)| hole::hole(&stored, partition, *to)).collect();
        for hole in holes?.into_iter().flatten() {
            if let Some(place) = entry.positions.get_mut(&(generation, hole.partition.clone())) {
                (place.position, place.epoch) = (hole.to, place.epoch + 1);
            }
            entry.holes.push((generation, hole));
        }
        Ok(())
    }
}
