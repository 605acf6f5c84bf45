//! The requests of a flush, in their order, and what their answers say.

use std::collections::{BTreeMap, HashMap};

use foldline_api::Result;
use foldline_api::record::TopicPartition;
use foldline_api::sink::{Advance, Flush, StoredDecision, Version};

use crate::books::{DecisionDoc, PositionDoc, VerdictDoc, Versioned};
use crate::bulk::Outcome;
use crate::error::{Failure, Fault};
use crate::parking;

/// One partition's step.
#[derive(Debug)]
pub(super) struct Step {
    /// The place that it moves to.
    pub(super) place: Versioned<PositionDoc>,
    /// Verdicts that the fence let through before and that the place need not hold any longer.
    pub(super) settled: Vec<VerdictDoc>,
}

/// One partition's step, if it stands where `advance` says.
pub(super) fn step(
    held: &Versioned<PositionDoc>,
    advance: &Advance,
    flush: &Flush,
    topic_id: Option<&String>,
) -> Option<Step> {
    if held.value.epoch != advance.epoch || held.value.position != advance.from.0 {
        return None;
    }
    let mut place = held.clone();
    let mut settled = place.value.verdicts.clone();
    settled.retain(|verdict| verdict.offset < advance.from.0);
    place.value.verdicts.retain(|verdict| verdict.offset >= advance.from.0);
    let new = flush.verdicts.iter().filter(|verdict| verdict.partition == advance.partition);
    place.value.verdicts.extend(new.map(|verdict| VerdictDoc::of(verdict, topic_id)));
    place.value.verdicts.sort_by_key(|verdict| verdict.offset);
    place.value.verdicts.dedup_by_key(|verdict| verdict.offset);
    parking::change(&mut place.value, &flush.parking);
    let parked = place.value.parked.clone();
    // A parked event that some of its rows hold is still to be applied as it was then.
    place.value.decisions.retain(|decision| {
        let waits = decision.bad.is_none() && parked.binary_search(&decision.offset).is_ok();
        waits || decision.offset >= advance.to.0
    });
    place.value.position = advance.to.0;
    Some(Step { place, settled })
}

/// The places whose decisions change by these. What an earlier and longer flush decided and did not finish
/// stays.
pub(super) fn with_decisions(
    held: &HashMap<TopicPartition, Versioned<PositionDoc>>,
    decisions: &[StoredDecision],
) -> Vec<Versioned<PositionDoc>> {
    let mut by_partition: HashMap<&TopicPartition, BTreeMap<i64, DecisionDoc>> = HashMap::new();
    for decision in decisions {
        let of_partition = by_partition.entry(&decision.partition).or_default();
        of_partition.insert(decision.offset, DecisionDoc::from(decision));
    }
    let changed = |(partition, new): (&TopicPartition, BTreeMap<i64, DecisionDoc>)| {
        let known = held.get(partition)?;
        let old = known.value.decisions.iter().map(|doc| (doc.offset, doc.clone()));
        let mut all: BTreeMap<i64, DecisionDoc> = old.collect();
        all.extend(new);
        let mut place = known.clone();
        place.value.decisions = all.into_values().collect();
        (place.value.decisions != known.value.decisions).then_some(place)
    };
    by_partition.into_iter().filter_map(changed).collect()
}

/// The versions of the documents of a flush that are durable, in their order.
pub(super) fn durable(outcomes: &[Outcome]) -> Vec<Option<Version>> {
    outcomes.iter().map(|outcome| outcome.as_ref().ok().copied()).collect()
}

/// What became of all documents of a flush: their versions, or the failure that decides.
pub(super) fn judge(outcomes: Vec<Outcome>) -> Result<Vec<Version>, Failure> {
    // The gravest first: without an index nothing else matters, an outage leaves the rest undecided,
    // and a stale document must be folded again before anything about its content is believed.
    let rank = |fault: Fault| match fault {
        Fault::Gone | Fault::Blocked => 0,
        Fault::Retriable => 1,
        Fault::Config => 2,
        Fault::Conflict => 3,
        Fault::Rejected | Fault::TooLarge => 4,
    };
    let mut versions = Vec::with_capacity(outcomes.len());
    let mut worst: Option<Failure> = None;
    for outcome in outcomes {
        match outcome {
            Ok(version) => versions.push(version),
            Err(failure) => {
                let graver = |worst: &Failure| rank(failure.fault()) < rank(worst.fault());
                if worst.as_ref().is_none_or(graver) {
                    worst = Some(failure);
                }
            }
        }
    }
    worst.map_or(Ok(versions), Err)
}
