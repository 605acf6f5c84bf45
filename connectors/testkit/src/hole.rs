//! Events that are left out, in the store in memory.

use async_trait::async_trait;
use foldline_api::Result;
use foldline_api::hole::{self, Hole, Holes};
use foldline_api::record::{Position, TopicPartition};

use crate::store::{Entry, MemoryTarget};

impl Entry {
    fn topic_id(&self, generation: u64, partition: &TopicPartition) -> Option<Option<String>> {
        let place = self.positions.get(&(generation, partition.clone()));
        place.map(|place| place.topic_id.clone())
    }

    /// Leaves a hole of the live generation out of all that have not folded it.
    fn leave_out(&mut self, live: u64, hole: &Hole) {
        let id = self.topic_id(live, &hole.partition);
        for ((generation, partition), place) in &mut self.positions {
            let same = *partition == hole.partition && Some(&place.topic_id) == id.as_ref();
            if !same || place.position >= hole.to {
                continue;
            }
            let from = place.position.max(hole.from);
            place.epoch += 1;
            if hole.has(place.position) {
                place.position = hole.to;
            }
            self.holes.push((*generation, Hole { from, ..hole.clone() }));
        }
    }

    /// Leaves out of a new generation what the one before leaves out of topics of the same id.
    pub(crate) fn take_over_holes(&mut self, (from, to): (u64, u64)) {
        let taken = self.holes.iter().filter(|(of, hole)| {
            let ids = (self.topic_id(from, &hole.partition), self.topic_id(to, &hole.partition));
            let place = self.positions.get(&(to, hole.partition.clone()));
            *of == from
                && hole.repeated
                && ids.0 == ids.1
                && place.is_some_and(|place| hole.to > place.position)
        });
        let taken: Vec<_> = taken.map(|(_, hole)| (to, hole.clone())).collect();
        self.holes.extend(taken);
    }

    /// What a generation leaves out of a partition.
    pub(crate) fn holes_of(&self, generation: u64, partition: &TopicPartition) -> Vec<Hole> {
        let mine = |(of, hole): &&(u64, Hole)| *of == generation && hole.partition == *partition;
        self.holes.iter().filter(mine).map(|(_, hole)| hole.clone()).collect()
    }
}

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
            entry.leave_out(generation, &hole);
        }
        Ok(())
    }

    async fn forget(&self, generation: u64) -> Result<()> {
        let mut state = self.store.lock();
        let entry = self.owned_mut(&mut state)?;
        if let Some(record) = &entry.record {
            hole::check(&record.binding, generation)?;
        }
        entry.holes.iter_mut().for_each(|(_, hole)| hole.repeated = false);
        Ok(())
    }
}
