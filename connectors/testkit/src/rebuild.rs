//! Rebuilds of the store in memory, beside the live generation.

use async_trait::async_trait;
use foldline_api::binding::Binding;
use foldline_api::rebuild::{Build, Generations, Phase, Rebuilds, Step, Stepped, is_reached};
use foldline_api::record::{Position, TopicPartition};
use foldline_api::sink::{Beginning, StoredPosition, TargetSpec};
use foldline_api::{Error, Result};

use crate::store::{Entry, MemoryTarget, Table};

/// What a generation beside the live one is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// It is being built.
    Build(Phase),
    /// It was live, and is kept for a rollback.
    Old,
}

/// A generation beside the live one.
#[derive(Clone, Debug)]
pub(crate) struct Beside {
    pub(crate) role: Role,
    pub(crate) table: Table,
    pub(crate) fingerprint: String,
    projection: serde_json::Value,
    goals: Vec<(TopicPartition, Position)>,
}

impl Entry {
    /// The number and the phase of the build, if there is one.
    pub(crate) fn build(&self) -> Option<(u64, Phase)> {
        self.beside.iter().find_map(|(number, beside)| match beside.role {
            Role::Build(phase) => Some((*number, phase)),
            Role::Old => None,
        })
    }

    /// The next generation's number: no number comes twice.
    pub(crate) fn next_number(&self) -> u64 {
        let newest = self.beside.keys().next_back().copied().unwrap_or_default();
        newest.max(self.generation()) + 1
    }

    /// Whether the live generation is held for a swap.
    pub(crate) fn is_held(&self) -> bool {
        self.build().is_some_and(|(_, phase)| phase == Phase::Holding)
    }

    /// The fingerprint of the projection that folds `generation` now, as the live one or as the one that
    /// is being built; none where that is over.
    pub(crate) fn folds(&self, generation: u64, building: bool) -> Option<&str> {
        if !building {
            let live = self.binding.as_ref().filter(|binding| binding.generation == generation);
            return live.map(|binding| binding.fingerprint.as_str());
        }
        let build = self.beside.get(&generation)?;
        matches!(build.role, Role::Build(_)).then_some(build.fingerprint.as_str())
    }

    /// The table of a generation that is live, or being built.
    pub(crate) fn table_of(&mut self, generation: u64, building: bool) -> Option<&mut Table> {
        if !building {
            return if self.generation() == generation { self.table.as_mut() } else { None };
        }
        let build = self.beside.get_mut(&generation)?;
        matches!(build.role, Role::Build(_)).then_some(&mut build.table)
    }

    /// Ends the build and forgets all that belongs to it; its number.
    pub(crate) fn drop_build(&mut self) -> Option<u64> {
        let (number, _) = self.build()?;
        self.forget(number);
        Some(number)
    }

    fn forget(&mut self, number: u64) {
        self.beside.remove(&number);
        self.positions.retain(|(generation, _), _| *generation != number);
        self.decisions.retain(|(generation, _, _), _| *generation != number);
    }

    fn positions_of(&self, number: u64) -> Vec<StoredPosition> {
        let mine = self.positions.iter().filter(|((generation, _), _)| *generation == number);
        mine.map(|(_, stored)| stored.clone()).collect()
    }

    fn raise_epochs(&mut self, number: u64) {
        let mine = self.positions.iter_mut().filter(|((generation, _), _)| *generation == number);
        mine.for_each(|(_, stored)| stored.epoch += 1);
    }

    fn begin_build(
        &mut self,
        spec: &TargetSpec,
        physical: u64,
        beginnings: &[Beginning],
        goals: &[(TopicPartition, Position)],
    ) -> Result<u64> {
        let Some(binding) = &mut self.binding else {
            return Err(Error::fenced("the target has not been opened"));
        };
        let superseded = binding.superseded.contains(&spec.fingerprint);
        if binding.fingerprint != spec.fingerprint && superseded {
            return Err(Error::config("this projection was superseded by a newer one"));
        }
        if let Some((number, _)) = self.build() {
            let build = self.beside.get(&number).map(|build| build.fingerprint.clone());
            let build = build.unwrap_or_default();
            if build == spec.fingerprint {
                return Ok(number);
            }
            // A newer config's rebuild: the older one's projection never comes back.
            if let Some(binding) = &mut self.binding {
                binding.superseded.push(build);
            }
            self.forget(number);
        }
        let number = self.next_number();
        let build = Beside {
            role: Role::Build(Phase::Loading),
            table: Table { physical, ..Table::default() },
            fingerprint: spec.fingerprint.clone(),
            projection: spec.projection.clone(),
            goals: goals.to_vec(),
        };
        self.beside.insert(number, build);
        for beginning in beginnings {
            self.insert_position(number, beginning);
        }
        Ok(number)
    }

    fn move_build(&mut self, number: u64, from: Phase, to: Phase) -> Stepped {
        match self.beside.get_mut(&number) {
            Some(build) if build.role == Role::Build(from) => {
                build.role = Role::Build(to);
                Stepped::Done(Vec::new())
            }
            _ => Stepped::NotYet(format!("the build is not {}", from.name())),
        }
    }

    fn try_swap(&mut self, spec: &TargetSpec, number: u64) -> Stepped {
        let not_yet = |reason: &str| Stepped::NotYet(reason.to_owned());
        match self.beside.get(&number) {
            Some(build) if build.role != Role::Build(Phase::Holding) => {
                return not_yet("the build is not holding");
            }
            Some(build) if build.fingerprint != spec.fingerprint => {
                return not_yet("the build is another config's");
            }
            None => return not_yet("the build is over"),
            Some(_) => {}
        }
        if !is_reached(&self.positions_of(number), &self.live_positions()) {
            return not_yet("the live generation's positions are not reached");
        }
        if self.swap(number) { Stepped::Done(Vec::new()) } else { not_yet("the table is gone") }
    }

    /// Makes a generation live and keeps what was; false where there is nothing to keep.
    fn swap(&mut self, number: u64) -> bool {
        let (Some(binding), Some(table)) = (&mut self.binding, &mut self.table) else {
            return false;
        };
        let Some(next) = self.beside.remove(&number) else { return false };
        let live = binding.generation;
        let superseded = std::mem::replace(&mut binding.fingerprint, next.fingerprint);
        binding.superseded.push(superseded.clone());
        let Binding { superseded: list, fingerprint, .. } = &mut *binding;
        list.retain(|other| other != fingerprint);
        binding.generation = number;
        binding.physical = next.table.physical.to_string();
        let old = Beside {
            role: Role::Old,
            table: std::mem::replace(table, next.table),
            fingerprint: superseded,
            projection: std::mem::replace(&mut binding.projection, next.projection),
            goals: Vec::new(),
        };
        self.beside.insert(live, old);
        self.raise_epochs(live);
        self.raise_epochs(number);
        true
    }

    fn old(&self) -> Vec<u64> {
        let old = self.beside.iter().filter(|(_, beside)| beside.role == Role::Old);
        old.map(|(number, _)| *number).collect()
    }
}

#[async_trait]
impl Rebuilds for MemoryTarget {
    async fn begin(
        &self,
        beginnings: &[Beginning],
        goals: &[(TopicPartition, Position)],
    ) -> Result<u64> {
        let mut state = self.store.lock();
        let physical = state.tick();
        let entry = self.owned_mut(&mut state)?;
        entry.begin_build(&self.spec, physical, beginnings, goals)
    }

    async fn generations(&self) -> Result<Generations> {
        let state = self.store.lock();
        let entry = self.owned(&state)?;
        let Some(binding) = &entry.binding else {
            return Err(Error::fenced("the target has not been opened"));
        };
        let build = entry.build().and_then(|(number, phase)| {
            let build = entry.beside.get(&number)?;
            Some(Build {
                generation: number,
                fingerprint: build.fingerprint.clone(),
                phase,
                positions: entry.positions_of(number),
                goals: build.goals.clone(),
            })
        });
        Ok(Generations {
            live: binding.generation,
            projection: binding.projection.clone(),
            desired: entry.desired,
            positions: entry.live_positions(),
            build,
            old: entry.old(),
        })
    }

    async fn step(&self, generation: u64, step: Step) -> Result<Stepped> {
        let mut state = self.store.lock();
        let entry = self.owned_mut(&mut state)?;
        Ok(match step {
            Step::Follow => entry.move_build(generation, Phase::Loading, Phase::Following),
            Step::Hold { .. } => {
                let held = entry.move_build(generation, Phase::Following, Phase::Holding);
                if let Stepped::Done(_) = held {
                    entry.raise_epochs(entry.generation());
                }
                held
            }
            Step::Release => entry.move_build(generation, Phase::Holding, Phase::Following),
            Step::Swap => entry.try_swap(&self.spec, generation),
        })
    }

    async fn cancel(&self) -> Result<Option<u64>> {
        let mut state = self.store.lock();
        let entry = self.owned_mut(&mut state)?;
        Ok(entry.drop_build())
    }

    async fn roll_back(&self) -> Result<u64> {
        let mut state = self.store.lock();
        let entry = self.owned_mut(&mut state)?;
        if let Some((build, _)) = entry.build() {
            return Err(Error::config(format!("generation {build} is being built")));
        }
        let Some(newest) = entry.old().pop() else {
            return Err(Error::config("no older generation is kept"));
        };
        if entry.swap(newest) { Ok(newest) } else { Err(Error::fenced("the table is gone")) }
    }

    async fn drop_old(&self, keep: usize) -> Result<Vec<u64>> {
        let mut state = self.store.lock();
        let entry = self.owned_mut(&mut state)?;
        let mut old = entry.old();
        old.truncate(old.len().saturating_sub(keep));
        old.iter().for_each(|number| entry.forget(*number));
        Ok(old)
    }
}
