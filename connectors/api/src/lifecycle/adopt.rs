//! What becomes of a copy: a table or an index that was restored from a backup, together with its books.
//!
//! The books name the physical target that they were kept for, and a copy is another one. That it is faithful, rows
//! and books of one moment, is the operator's word, as far as the store cannot tell; nobody may fold meanwhile, and
//! whoever held a partition before is fenced. A crash leaves what was, or, where a store has no transactions, a
//! record from which whoever opens the target goes on.

use super::{Act, Change, Facts, Outcome, Record, open};
use crate::error::{Error, Result};
use crate::rebuild::Role;
use crate::sink::TargetSpec;

/// Takes what stands under the target's name for its live generation, and what is kept or built beside it.
pub(super) fn adopt(record: &Record, spec: &TargetSpec, facts: &Facts) -> Result<Outcome> {
    let (target, live) = (&spec.target, record.binding.generation);
    open::check_log(&record.binding, spec)?;
    check_log_now(spec, facts)?;
    let Some(found) = &facts.found else {
        return Err(Error::config(format!(
            "{target:?} does not exist: restore it from the backup that Foldline's own tables came from, under this name"
        )));
    };
    let copied = found.physical != record.binding.physical;
    if copied && let Some(reason) = torn(record, facts, found.has_rows) {
        return Err(Error::config(format!(
            "{target:?} cannot be taken over: {reason}. Restore rows and books of one backup, or let connector {:?} \
             fold everything again: empty {target:?} and restart it",
            spec.connector
        )));
    }
    let (mut next, mut steps, mut notices) = (record.clone(), Vec::new(), Vec::new());
    next.binding.physical.clone_from(&found.physical);
    next.beside.clear();
    for beside in &record.beside {
        let number = beside.number;
        let copy = facts.copies.iter().find(|(of, _)| *of == number);
        match (copy, beside.role) {
            (Some((_, physical)), _) => {
                let mut beside = beside.clone();
                beside.physical.clone_from(physical);
                next.beside.push(beside);
            }
            (None, Role::Old) => {
                steps.push(Act::Drop(number));
                notices.push(format!("generation {number}, kept for a rollback, is not there"));
            }
            (None, Role::Build(_)) => {
                return Err(Error::config(format!(
                    "generation {number} of {target:?} was being built when the backup was made, and its rows and \
                     books need not be of one moment: run a worker and end the build with `foldline rebuild {} \
                     --cancel`, stop the worker, and adopt then",
                    spec.connector
                )));
            }
        }
    }
    steps.push(Act::Take);
    let beside = record.beside.iter().map(|beside| beside.number);
    let fences = std::iter::once(live).chain(beside).collect();
    Ok(Outcome::Changes(Box::new(Change { record: next, answer: live, fences, steps, notices })))
}

/// The log must be the one that was folded, and nobody may fold it now.
fn check_log_now(spec: &TargetSpec, facts: &Facts) -> Result<()> {
    if facts.log.members > 0 {
        let members = facts.log.members;
        return Err(Error::config(format!(
            "the group {:?} has {members} member{}: stop every worker that runs connector {:?}, also those that fold \
             into what {:?} is a copy of, and adopt once they have left (one that was killed leaves after its session \
             timeout)",
            spec.group,
            if members == 1 { "" } else { "s" },
            spec.connector,
            spec.target
        )));
    }
    for stored in &facts.positions {
        let now = facts.log.topics.iter().find(|(topic, _)| *topic == stored.partition.topic);
        if let (Some(known), Some(now)) = (&stored.topic_id, now.and_then(|(_, id)| id.as_ref()))
            && known != now
        {
            return Err(Error::config(format!(
                "topic {:?} was deleted and created again since {:?} was folded: its offsets start anew, and the stored \
                 positions belong to the old one. Restore the old topic, or rebuild from the new one with `foldline \
                 rebuild {} --in-place`",
                stored.partition.topic, spec.target, spec.connector
            )));
        }
    }
    Ok(())
}

/// What shows that rows and books are not of one moment.
fn torn(record: &Record, facts: &Facts, has_rows: bool) -> Option<String> {
    let folded = facts.positions.iter().any(|stored| stored.position > stored.beginning);
    let live = record.binding.generation;
    facts.torn.clone().or_else(|| match (has_rows, folded) {
        (true, false) => Some(format!(
            "it has rows, and its books say that generation {live} has folded nothing"
        )),
        (false, true) => Some(format!(
            "it has no rows, and its books say that generation {live} has folded events"
        )),
        _ => None,
    })
}
