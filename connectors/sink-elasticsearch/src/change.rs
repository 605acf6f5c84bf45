//! The target's record as the lifecycle knows it, and as it reads after a change.
//!
//! Elasticsearch has no transactions: a change is one compare-and-set of the record, and what follows from it in the
//! cluster is derived from the record by whoever reads it.

use foldline_api::Result;
use foldline_api::binding::Binding;
use foldline_api::lifecycle::{Act, Beside, Change, Command, Facts, Outcome, Record, transition};
use foldline_api::rebuild::Role;

use crate::books::{BeforeDoc, NextDoc, OldDoc, TargetDoc};
use crate::survey::Survey;
use crate::target::{ElasticsearchTarget, new_build};

impl From<NextDoc> for OldDoc {
    fn from(next: NextDoc) -> Self {
        OldDoc {
            generation: next.generation,
            tag: next.tag,
            physical: next.physical,
            fingerprint: next.fingerprint,
            projection: next.projection,
            beginnings: next.beginnings,
        }
    }
}

impl TargetDoc {
    /// What the lifecycle knows. A build that is being dropped is over.
    pub(crate) fn record(&self) -> Record {
        let old = self.old.iter().map(|old| Beside {
            number: old.generation,
            role: Role::Old,
            physical: old.physical.clone(),
            fingerprint: old.fingerprint.clone(),
            projection: old.projection.clone(),
        });
        let next = self.next.iter().filter_map(|next| {
            Some(Beside {
                number: next.generation,
                role: Role::Build(next.phase()?),
                physical: next.physical.clone(),
                fingerprint: next.fingerprint.clone(),
                projection: next.projection.clone(),
            })
        });
        let mut beside: Vec<Beside> = old.chain(next).collect();
        beside.sort_by_key(|beside| beside.number);
        Record { binding: self.binding.clone(), desired: self.desired.into(), beside }
    }

    /// The record after a change of what is beside the live generation, or of which one is live.
    pub(crate) fn after(&self, change: &Change) -> Self {
        let mut doc = self.clone();
        for act in &change.steps {
            match *act {
                Act::Exchange { to, .. } => doc.exchange(to),
                Act::Drop(number) => doc.old.retain(|old| old.generation != number),
                // Done where the index is.
                Act::Create | Act::Adopt | Act::Take => {}
                Act::Check | Act::Extend | Act::Empty => {}
                Act::Make(_) | Act::Finish(_) => {}
            }
        }
        if let (Some(next), Some(build)) = (&mut doc.next, change.record.build()) {
            build.role.name().clone_into(&mut next.phase);
        }
        doc.desired = change.record.desired.into();
        doc.binding = change.record.binding.clone();
        doc
    }

    /// Makes a generation the live one, and keeps what was; index and aliases are still to follow.
    fn exchange(&mut self, to: u64) {
        let next = self.next.take_if(|next| next.generation == to).map(OldDoc::from);
        let kept = self.old.iter().position(|old| old.generation == to);
        let Some(back) = next.or_else(|| kept.map(|at| self.old.remove(at))) else { return };
        let old = OldDoc::of(self);
        self.revive(back);
        self.old.push(old);
        self.swapped = true;
    }

    /// The record with the next generation in the place of the live one: a new index, from the fold's beginnings.
    pub(crate) fn renewed(&self, change: &Change) -> Self {
        let mut next = self.clone();
        next.binding = Binding { physical: String::new(), ..change.record.binding.clone() };
        // What was being built is of another beginning now.
        next.dropping.extend(next.next.take().map(|build| build.generation));
        next.build = new_build();
        next.ready = false;
        let generation = self.binding.generation;
        next.dropping.push(generation);
        // Another log's offsets mean nothing here.
        let same_log = next.binding.log == self.binding.log;
        let beginnings = self.beginnings.clone();
        next.before = same_log.then_some(BeforeDoc { generation, beginnings });
        next
    }
}

impl ElasticsearchTarget {
    /// What a command leads to.
    pub(crate) fn decide(
        &self,
        doc: &TargetDoc,
        facts: &Facts,
        command: Command,
    ) -> Result<Outcome> {
        transition(Some(&doc.record()), &self.spec, facts, command)
    }

    /// What stands in the cluster, and no record may name.
    pub(crate) fn facts(doc: &TargetDoc, survey: &Survey) -> Facts {
        let dropped = doc.next.iter().map(|next| next.generation);
        let newest = survey.used().chain(dropped).max().unwrap_or_default();
        let stands = |old: &OldDoc| {
            survey.generations.get(&old.generation).is_some_and(|i| i.uuid() == old.physical)
        };
        let lost = doc.old.iter().filter(|old| !stands(old)).map(|old| old.generation).collect();
        Facts { newest, lost, ..Facts::default() }
    }
}
