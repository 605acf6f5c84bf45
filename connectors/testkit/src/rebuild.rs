//! Rebuilds of the store in memory, beside the live generation.

use async_trait::async_trait;
use foldline_api::Result;
use foldline_api::letters::BadRecord;
use foldline_api::lifecycle::{Act, Command, Facts, Outcome};
use foldline_api::parked::Place;
use foldline_api::rebuild::{
    Build, By, Generations, Phase, Rebuilds, Role, Step, Stepped, is_reached,
};
use foldline_api::record::{Position, TopicPartition};
use foldline_api::sink::{Beginning, StoredPosition};
use foldline_api::source::DeadLetter;

use crate::store::{Entry, MemoryTarget, Table};

impl Entry {
    /// The number and the phase of the build, if there is one.
    pub(crate) fn build(&self) -> Option<(u64, Phase)> {
        let build = self.record.as_ref()?.build()?;
        Some((build.number, build.role.phase()?))
    }

    /// Whether the live generation is held for a swap.
    pub(crate) fn is_held(&self) -> bool {
        self.build().is_some_and(|(_, phase)| phase == Phase::Holding)
    }

    /// The fingerprint of the projection that folds `generation` now, as the live one or as the one that
    /// is being built; none where that is over.
    pub(crate) fn folds(&self, generation: u64, building: bool) -> Option<&str> {
        let record = self.record.as_ref()?;
        if !building {
            let live = Some(&record.binding).filter(|binding| binding.generation == generation);
            return live.map(|binding| binding.fingerprint.as_str());
        }
        let build = record.build().filter(|build| build.number == generation)?;
        Some(build.fingerprint.as_str())
    }

    /// The table of a generation that is live, or being built.
    pub(crate) fn table_of(&mut self, generation: u64, building: bool) -> Option<&mut Table> {
        self.folds(generation, building)?;
        if building { self.tables.get_mut(&generation) } else { self.table.as_mut() }
    }

    pub(crate) fn forget(&mut self, number: u64) {
        self.tables.remove(&number);
        self.goals.remove(&number);
        self.end_lookups(number);
        self.positions.retain(|(generation, _), _| *generation != number);
        self.decisions.retain(|(generation, _, _), _| *generation != number);
        self.holes.retain(|(generation, _)| *generation != number);
        self.verdicts.retain(|(generation, _, _), _| *generation != number);
        self.bad.retain(|(generation, _, _), _| *generation != number);
    }

    fn positions_of(&self, number: u64) -> Vec<StoredPosition> {
        let mine = self.positions.iter().filter(|((generation, _), _)| *generation == number);
        mine.map(|(_, stored)| stored.clone()).collect()
    }

    pub(crate) fn raise_epochs(&mut self, number: u64) {
        let mine = self.positions.iter_mut().filter(|((generation, _), _)| *generation == number);
        mine.for_each(|(_, stored)| stored.epoch += 1);
    }

    /// What one generation knows of letters that were sent, the next knows too, for topics of the same id.
    pub(crate) fn take_over_sent(&mut self, (from, to): (u64, u64)) {
        let id = |of: u64, partition: &TopicPartition| {
            self.positions.get(&(of, partition.clone())).map(|place| place.topic_id.clone())
        };
        let sent = self.bad.iter().filter(|((of, partition, _), bad)| {
            *of == from && bad.letter.is_none() && id(from, partition) == id(to, partition)
        });
        let sent: Vec<_> = sent
            .map(|((_, partition, offset), bad)| ((to, partition.clone(), *offset), bad.clone()))
            .collect();
        self.bad.extend(sent);
    }

    /// Of the letters of `next` only those stay that nobody sent while the other generation was live.
    fn keep_new_letters(&mut self, (live, next): (u64, u64), same_projection: bool) {
        let waits = |place: &Place| {
            let known = self.bad.get(&(live, place.0.clone(), place.1))?;
            Some(known.letter.is_some())
        };
        let folded = |(partition, offset): &Place| {
            let place = self.positions.get(&(live, partition.clone()));
            let within = |from: Position, to: Position| (from.0..to.0).contains(offset);
            place.is_some_and(|place| within(place.beginning, place.position))
                && !self.holes.iter().any(|(of, hole)| {
                    *of == live && hole.partition == *partition && within(hole.from, hole.to)
                })
        };
        let id = |of: u64, partition: &TopicPartition| {
            self.positions.get(&(of, partition.clone())).map(|place| place.topic_id.clone())
        };
        let sent = |((of, partition, offset), bad): (&(u64, TopicPartition, i64), &BadRecord)| {
            let place = (partition.clone(), *offset);
            let was = waits(&place)
                .map_or(same_projection && !bad.by_store && folded(&place), |waits| !waits);
            let counts = *of == next && was && id(live, partition) == id(next, partition);
            counts.then(|| (*of, partition.clone(), *offset))
        };
        let sent: Vec<_> = self.bad.iter().filter_map(sent).collect();
        for key in sent {
            if let Some(bad) = self.bad.get_mut(&key) {
                bad.letter = None;
            }
        }
    }
}

#[async_trait]
impl Rebuilds for MemoryTarget {
    async fn begin(
        &self,
        by: By,
        beginnings: &[Beginning],
        goals: &[(TopicPartition, Position)],
    ) -> Result<u64> {
        let mut state = self.store.lock();
        let fresh = state.tick();
        let (entry, outcome) = self.decide(&mut state, &Facts::default(), Command::Build(by))?;
        Ok(match outcome {
            Outcome::Changes(change) => {
                entry.carry_out(&change, fresh);
                entry.goals.insert(change.answer, goals.to_vec());
                for beginning in beginnings {
                    entry.insert_position(change.answer, beginning);
                }
                let pair = (entry.generation(), change.answer);
                entry.take_over_verdicts(pair.0, pair.1);
                entry.take_over_holes(pair);
                change.answer
            }
            Outcome::Stands(number) => number,
            Outcome::NotYet(_) | Outcome::Waits(_) => 0,
        })
    }

    async fn generations(&self) -> Result<Generations> {
        let state = self.store.lock();
        let entry = self.owned(&state)?;
        let record = entry.record.clone().ok_or_else(|| self.unknown())?;
        let build = record.build().and_then(|build| {
            Some(Build {
                generation: build.number,
                fingerprint: build.fingerprint.clone(),
                projection: build.projection.clone(),
                phase: build.role.phase()?,
                positions: entry.positions_of(build.number),
                goals: entry.goals.get(&build.number).cloned().unwrap_or_default(),
            })
        });
        Ok(Generations {
            live: record.binding.generation,
            desired: record.desired,
            positions: entry.live_positions(),
            build,
            old: record.beside.iter().filter(|b| b.role == Role::Old).map(|b| b.number).collect(),
            projection: record.binding.projection,
        })
    }

    fn rows_precede_positions(&self) -> bool {
        self.store.keeps_marks()
    }

    async fn fence(&self, generation: u64) -> Result<()> {
        // Writers ask for the phase with each row.
        let state = self.store.lock();
        let record = self.owned(&state)?.record.clone().ok_or_else(|| self.unknown())?;
        record.held_by(generation)
    }

    async fn step(&self, generation: u64, step: Step) -> Result<Stepped> {
        let mut state = self.store.lock();
        let entry = self.owned(&state)?;
        let reached = is_reached(&entry.positions_of(generation), &entry.live_positions());
        if step == Step::Swap && entry.table.is_none() {
            return Ok(Stepped::NotYet("the table is gone".to_owned()));
        }
        if matches!(step, Step::Hold { .. }) && entry.has_notes(generation) {
            return Ok(Stepped::NotYet("rows have still to show what they look up".to_owned()));
        }
        let facts = Facts { reached, ..Facts::default() };
        let (entry, outcome) = self.decide(&mut state, &facts, Command::Step(generation, step))?;
        Ok(match outcome {
            Outcome::Changes(change) => {
                if step == Step::Swap {
                    let (live, before) = (entry.generation(), entry.folds(generation, true));
                    let same = before.is_some() && before == entry.folds(live, false);
                    entry.keep_new_letters((live, generation), same);
                    entry.take_over_sent((live, generation));
                }
                entry.carry_out(&change, 0);
                Stepped::Done(change.notices)
            }
            Outcome::NotYet(reason) => Stepped::NotYet(reason),
            Outcome::Stands(_) | Outcome::Waits(_) => Stepped::NotYet("nothing to do".to_owned()),
        })
    }

    async fn cancel(&self, expected: Option<u64>) -> Result<Option<u64>> {
        let mut state = self.store.lock();
        let (entry, outcome) =
            self.decide(&mut state, &Facts::default(), Command::Cancel(expected))?;
        let Outcome::Changes(change) = outcome else { return Ok(None) };
        entry.carry_out(&change, 0);
        Ok(Some(change.answer))
    }

    async fn roll_back(&self, from: Option<u64>) -> Result<u64> {
        let mut state = self.store.lock();
        let (entry, outcome) =
            self.decide(&mut state, &Facts::default(), Command::RollBack(from))?;
        if let Outcome::Changes(change) = outcome {
            entry.take_over_sent((entry.generation(), change.answer));
            entry.carry_out(&change, 0);
        }
        Ok(entry.generation())
    }

    async fn letters(&self, generation: u64, max: usize) -> Result<Vec<(Place, DeadLetter)>> {
        let state = self.store.lock();
        let entry = self.owned(&state)?;
        let letter = |((of, partition, offset), bad): (&(u64, TopicPartition, i64), &BadRecord)| {
            let letter = bad.letter.clone().filter(|_| *of == generation)?;
            Some(((partition.clone(), *offset), letter))
        };
        Ok(entry.bad.iter().filter_map(letter).take(max).collect())
    }

    async fn sent(&self, generation: u64, places: &[Place]) -> Result<()> {
        let mut state = self.store.lock();
        let entry = self.owned_mut(&mut state)?;
        for (partition, offset) in places {
            if let Some(bad) = entry.bad.get_mut(&(generation, partition.clone(), *offset)) {
                bad.letter = None;
            }
        }
        Ok(())
    }

    async fn were_sent(&self, generation: u64, places: &[Place]) -> Result<Vec<Place>> {
        let state = self.store.lock();
        let entry = self.owned(&state)?;
        let was_sent = |(partition, offset): &&Place| {
            let known = entry.bad.get(&(generation, partition.clone(), *offset));
            known.is_some_and(|bad| bad.letter.is_none())
        };
        Ok(places.iter().filter(was_sent).cloned().collect())
    }

    async fn drop_old(&self, keep: usize) -> Result<Vec<u64>> {
        let mut state = self.store.lock();
        let (entry, outcome) =
            self.decide(&mut state, &Facts::default(), Command::DropOld(keep))?;
        let Outcome::Changes(change) = outcome else { return Ok(Vec::new()) };
        entry.carry_out(&change, 0);
        let dropped = |act: &Act| if let Act::Drop(number) = act { Some(*number) } else { None };
        Ok(change.steps.iter().filter_map(dropped).collect())
    }
}
