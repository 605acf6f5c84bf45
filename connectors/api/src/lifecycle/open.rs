//! What becomes of a target that a session opens.

use serde_json::Value as Json;

use super::{
    Act, Beside, Change, Facts, Outcome, Record, change, displaced, first, renew, take_model,
};
use crate::binding::{Binding, breaking_changes, changes};
use crate::error::{Error, Result};
use crate::sink::{DesiredState, OnChange, TargetSpec, Waits};

pub(super) fn open_first(spec: &TargetSpec, facts: &Facts) -> Result<Outcome> {
    let step = match &facts.found {
        None if spec.auto_create => Act::Create,
        None => return Err(missing(spec)),
        Some(found) if found.has_rows => {
            return Err(Error::config(format!(
                "{:?} already has rows that no connector of Foldline wrote: give connector {:?} another target, or \
                 empty this one; where it was restored from a backup, restore Foldline's own tables from it too, and \
                 take it over with `foldline adopt {}`",
                spec.target, spec.connector, spec.connector
            )));
        }
        Some(_) => Act::Adopt,
    };
    let record =
        Record { binding: first(spec), desired: DesiredState::Running, beside: Vec::new() };
    Ok(change(record, 1, Vec::new(), vec![step]))
}

pub(super) fn open(record: &Record, spec: &TargetSpec, facts: &Facts) -> Result<Outcome> {
    let stored = &record.binding;
    check_log(stored, spec)?;
    let gone = match &facts.found {
        None if spec.auto_create => Some(Act::Create),
        None => return Err(missing(spec)),
        Some(found) if found.physical == stored.physical => None,
        Some(found) if found.has_rows => return Err(replaced(spec)),
        Some(_) => Some(Act::Adopt),
    };
    if let Some(making) = gone {
        // A deploy brings no superseded projection back, not even where nothing is left.
        return match superseded(record, spec) {
            Some(message) => Err(Error::config(message)),
            None => Ok(renew(record, spec, facts, &[making])),
        };
    }
    if stored.fingerprint == spec.fingerprint {
        return Ok(change(record.clone(), stored.generation, Vec::new(), vec![Act::Check]));
    }
    if let Some(waits) = waits(record, spec)? {
        return Ok(Outcome::Waits(waits));
    }
    change_model(record, spec)
}

fn replaced(spec: &TargetSpec) -> Error {
    Error::config(format!(
        "{:?} was replaced by another of the same name that already has rows. Where it was restored from a backup \
         together with Foldline's own tables, stop the workers and take it over as it is with `foldline adopt {}`; else \
         empty it, and connector {:?} fills it anew",
        spec.target, spec.connector, spec.connector
    ))
}

fn change_model(record: &Record, spec: &TargetSpec) -> Result<Outcome> {
    let stored = &record.binding.projection;
    match spec.on_change {
        OnChange::Rebuild => Ok(Outcome::Waits(rebuilding(record, spec))),
        OnChange::Continue => {
            let breaking = breaking_changes(stored, &spec.projection);
            if breaking.is_empty() {
                return Ok(extend(record, spec));
            }
            Err(Error::config(format!(
                "on_change = \"continue\" cannot carry {:?} over, because {}: rebuild with `foldline rebuild {}`",
                spec.target,
                breaking.join("; "),
                spec.connector
            )))
        }
        OnChange::Refuse => Err(Error::config(format!(
            "the projection is not the one that built {:?} (changed: {}): rebuild with `foldline rebuild {}`, or \
             set connectors.{}.on_change to \"rebuild\" or \"continue\"",
            spec.target,
            listed(stored, &spec.projection),
            spec.connector,
            spec.connector
        ))),
    }
}

fn missing(spec: &TargetSpec) -> Error {
    Error::config(format!(
        "{:?} does not exist and connectors.{}.auto_create is false: create it (`foldline plan {}` \
         shows how), or set auto_create = true",
        spec.target, spec.connector, spec.connector
    ))
}

pub(super) fn check_log(stored: &Binding, spec: &TargetSpec) -> Result<()> {
    if stored.log != spec.log {
        return Err(Error::config(format!(
            "{:?} was folded from the log {:?}, and the source now leads to {:?}: point the source back, \
             or rebuild with `foldline rebuild {} --in-place`",
            spec.target, stored.log, spec.log, spec.connector
        )));
    }
    Ok(())
}

/// The model changed, and the rows stay.
fn extend(record: &Record, spec: &TargetSpec) -> Outcome {
    let live = record.binding.generation;
    let mut next = record.clone();
    take_model(&mut next.binding, spec);
    next.binding.continued.push(live);
    next.binding.continued.dedup();
    let notices = lost_topics(&record.binding.projection, spec).into_iter().collect();
    let (fences, steps) = (vec![live], vec![Act::Extend]);
    Outcome::Changes(Box::new(Change { record: next, answer: live, fences, steps, notices }))
}

/// What `continue` leaves of topics that the projection reads no longer.
fn lost_topics(old: &Json, spec: &TargetSpec) -> Option<String> {
    let list = |json: &Json| -> Vec<String> {
        let topics = json.get("topics").and_then(Json::as_array).cloned().unwrap_or_default();
        topics.iter().filter_map(|topic| topic.as_str().map(str::to_owned)).collect()
    };
    let now = list(&spec.projection);
    let gone: Vec<String> = list(old).into_iter().filter(|topic| !now.contains(topic)).collect();
    (!gone.is_empty() && !now.is_empty()).then(|| {
        format!(
            "what was folded from {} stays in the rows of {:?}, although the projection reads it no longer: \
             `foldline rebuild {}` builds them without it",
            gone.join(", "),
            spec.target,
            spec.connector
        )
    })
}

/// Whether the build under way took the place of one of this projection.
pub(super) fn displaced_by(record: &Record, spec: &TargetSpec) -> bool {
    let note = |build: &Beside| displaced(&build.fingerprint, &spec.fingerprint);
    record.build().is_some_and(|build| record.binding.superseded.contains(&note(build)))
}

/// Why a deploy does not bring this projection back, and the way out.
pub(super) fn superseded(record: &Record, spec: &TargetSpec) -> Option<String> {
    let (binding, target, name) = (&record.binding, &spec.target, &spec.connector);
    let live = binding.generation;
    if binding.fingerprint == spec.fingerprint || !binding.superseded.contains(&spec.fingerprint) {
        return None;
    }
    let list = listed(&binding.projection, &spec.projection);
    // A rollback leads to the newest that is kept.
    let kept = record.old().next_back().filter(|old| old.fingerprint == spec.fingerprint);
    Some(match kept.map(|kept| kept.number) {
        Some(kept) if kept > live => format!(
            "{target:?} was rolled back to generation {live}, which an older projection built (different: {list}): \
             deploy the older config, or go forth to generation {kept}, which this projection built, with \
             `foldline rebuild {name} --rollback`"
        ),
        Some(kept) => format!(
            "this projection built generation {kept} of {target:?} and was superseded by the one that built \
             generation {live}, which is live (different: {list}): deploy the newer config, or go back to \
             generation {kept} with `foldline rebuild {name} --rollback`"
        ),
        None => format!(
            "this projection was superseded by the one that built generation {live} of {target:?} (different: \
             {list}): deploy that config, or build the next generation with this one with `foldline rebuild \
             {name}`"
        ),
    })
}

pub(super) fn listed(old: &Json, new: &Json) -> String {
    let changes = changes(old, new);
    if changes.is_empty() { "its expressions".to_owned() } else { changes.join("; ") }
}

/// Whether the projection of `spec`, which is not the live one's, has to wait, and for what.
///
/// # Errors
/// The projection was superseded, and its config does not say that a deploy may change the target.
fn waits(record: &Record, spec: &TargetSpec) -> Result<Option<Waits>> {
    let (target, live) = (&spec.target, record.binding.generation);
    if record.build().is_some_and(|build| build.fingerprint == spec.fingerprint) {
        // Someone has asked for it already, whatever the config says of it.
        return Ok(Some(rebuilding(record, spec)));
    }
    if displaced_by(record, spec)
        && let Some(build) = record.build()
    {
        return Ok(Some(Waits::Replaced(format!(
            "generation {} of {target:?} is being built by a config that was deployed after this one (different: \
             {}), in place of this one's build: this worker folds nothing, and waits to be replaced. To build \
             with this config all the same: `foldline rebuild {}`",
            build.number,
            listed(&build.projection, &spec.projection),
            spec.connector
        ))));
    }
    match superseded(record, spec) {
        None => Ok(None),
        Some(message) if spec.on_change != OnChange::Refuse => Ok(Some(Waits::Replaced(format!(
            "this worker folds nothing into generation {live}, and waits to be replaced: {message}"
        )))),
        Some(message) => Err(Error::config(message)),
    }
}

/// The live generation serves its readers until a rebuild with this projection takes its place.
fn rebuilding(record: &Record, spec: &TargetSpec) -> Waits {
    Waits::Rebuild(format!(
        "generation {} of {:?} was built by another projection: it serves its readers and folds nothing until a \
         rebuild with this one takes its place",
        record.binding.generation, spec.target
    ))
}
