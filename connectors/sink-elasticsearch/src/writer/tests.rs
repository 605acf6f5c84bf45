use foldline_api::parked::{Changes, ParkedEvent};
use foldline_api::record::Record;
use foldline_api::sink::StoredVerdict;

use super::*;
use crate::books::{DecisionDoc, VerdictDoc};
use crate::bulk::Outcome;
use crate::error::Cause;

fn partition() -> TopicPartition {
    TopicPartition::new("t", 0)
}

fn held(position: i64, verdicts: &[i64]) -> Versioned<PositionDoc> {
    let verdict = |&offset: &i64| {
        let verdict = StoredVerdict::new(partition(), offset, "r", None);
        VerdictDoc::of(&verdict, None)
    };
    Versioned {
        value: PositionDoc {
            target: "orders".to_owned(),
            generation: 1,
            topic: "t".to_owned(),
            partition: 0,
            position,
            epoch: 3,
            verdicts: verdicts.iter().map(verdict).collect(),
            decisions: Vec::new(),
            parked: Vec::new(),
            holes: Vec::new(),
            forgotten: Vec::new(),
        },
        version: Version::At(1, 1),
    }
}

fn advance(epoch: i64, from: i64, to: i64) -> Advance {
    Advance { partition: partition(), epoch, from: Position(from), to: Position(to) }
}

#[test]
fn a_step_starts_from_its_epoch_and_place_only() {
    let flush = Flush::default();
    assert!(step(&held(5, &[]), &advance(3, 5, 9), &flush, None).is_some());
    assert!(step(&held(5, &[]), &advance(2, 5, 9), &flush, None).is_none());
    assert!(step(&held(5, &[]), &advance(3, 4, 9), &flush, None).is_none());
}

#[test]
fn verdicts_go_through_the_fence_before_they_are_settled() {
    let verdict = |offset| StoredVerdict::new(partition(), offset, "n", None);
    let flush = Flush { verdicts: vec![verdict(7), verdict(6)], ..Flush::default() };
    let step = step(&held(5, &[4, 7]), &advance(3, 5, 9), &flush, None).unwrap();
    let settled: Vec<i64> = step.settled.iter().map(|v| v.offset).collect();
    assert_eq!(settled, [4]);
    let kept = &step.place.value.verdicts;
    let kept: Vec<_> = kept.iter().map(|v| (v.offset, &*v.reason)).collect();
    assert_eq!(kept, [(6, "n"), (7, "r")]);
    assert_eq!(step.place.value.position, 9);
}

#[test]
fn decisions_stand_until_the_place_is_past_them() {
    let decision = |offset, refused: &[u32]| StoredDecision {
        partition: partition(),
        offset,
        refused: refused.to_vec(),
        bad: None,
    };
    let mut places = HashMap::from([(partition(), held(5, &[]))]);
    let longer = [decision(6, &[0]), decision(8, &[1])];
    let next = with_decisions(&places, &longer);
    assert_eq!(next[0].value.decisions(&partition()), longer);
    places.insert(partition(), next[0].clone());
    assert!(with_decisions(&places, &longer[..1]).is_empty(), "it stands already");
    let again = with_decisions(&places, &[decision(6, &[2])]);
    assert_eq!(again[0].value.decisions.len(), 2, "the rest of the longer flush stays");
    let step = step(&again[0], &advance(3, 5, 7), &Flush::default(), None).unwrap();
    assert_eq!(step.place.value.decisions(&partition()), [decision(8, &[1])]);
}

#[test]
fn a_place_names_what_is_parked_and_keeps_its_decisions() {
    let decision = |offset, bad: Option<&str>| StoredDecision {
        partition: partition(),
        offset,
        refused: vec![0],
        bad: bad.map(str::to_owned),
    };
    let mut place = held(5, &[]);
    let decisions = [decision(5, None), decision(6, Some("bad")), decision(7, None)];
    place.value.decisions = decisions.iter().map(DecisionDoc::from).collect();
    let event = |offset| ParkedEvent {
        record: Record {
            topic: partition().topic,
            partition: 0,
            offset,
            timestamp: None,
            key: None,
            value: None,
            headers: Vec::new(),
        },
        keys: vec!["1".to_owned()],
        reason: None,
    };
    let parking = Changes { park: vec![event(6), event(5)], ..Changes::default() };
    let flush = Flush { parking, ..Flush::default() };
    let parked = step(&place, &advance(3, 5, 8), &flush, None).unwrap().place;
    assert_eq!(parked.value.parked, [5, 6]);
    assert_eq!(parked.value.decisions(&partition()), [decision(5, None)]);
    let free = vec![(partition(), 5), (TopicPartition::new("t", 1), 6)];
    let flush = Flush { parking: Changes { free, ..Changes::default() }, ..Flush::default() };
    let freed = step(&parked, &advance(3, 8, 8), &flush, None).unwrap().place;
    assert_eq!((freed.value.parked, freed.value.decisions), (vec![6], Vec::new()));
}

#[test]
fn the_gravest_failure_decides() {
    let failed = |status, kind: &str| {
        Err(Failure { status, cause: Cause { kind: kind.to_owned(), reason: None } })
    };
    let rejected = || failed(400, "document_parsing_exception");
    let conflict = || failed(409, "version_conflict_engine_exception");
    let ok = || Ok(Version::At(1, 1));
    let fault = |outcomes: Vec<Outcome>| judge(outcomes).map_err(|failure| failure.fault());
    assert_eq!(fault(vec![ok(), ok()]), Ok(vec![Version::At(1, 1); 2]));
    assert_eq!(fault(vec![ok(), rejected()]), Err(Fault::Rejected));
    assert_eq!(fault(vec![rejected(), conflict()]), Err(Fault::Conflict));
    assert_eq!(fault(vec![conflict(), failed(503, ""), rejected()]), Err(Fault::Retriable));
    assert_eq!(
        fault(vec![failed(503, ""), failed(404, "index_not_found_exception")]),
        Err(Fault::Gone)
    );
}
