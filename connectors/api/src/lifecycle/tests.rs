use std::sync::Arc;

use serde_json::json;

use super::*;
use crate::error::ErrorClass;
use crate::model::Model;
use crate::sink::OnChange;

fn spec(fingerprint: &str, on_change: OnChange) -> TargetSpec {
    TargetSpec {
        worker: "w".to_owned(),
        connector: "c".to_owned(),
        group: "g".to_owned(),
        log: "log".to_owned(),
        target: "t".to_owned(),
        model: Arc::new(Model { columns: Vec::new(), key: Vec::new(), indexes: Vec::new() }),
        joins: None,
        fingerprint: fingerprint.to_owned(),
        projection: json!({ "on": fingerprint, "topics": [format!("{fingerprint}-events"), "all"] }),
        on_change,
        auto_create: true,
        mapping: None,
        settings: None,
        expire: None,
    }
}

fn deploy(fingerprint: &str) -> TargetSpec {
    spec(fingerprint, OnChange::Rebuild)
}

fn record() -> Record {
    let binding = Binding { physical: "1".to_owned(), ..first(&deploy("v1")) };
    Record { binding, desired: DesiredState::Running, beside: Vec::new() }
}

fn facts() -> Facts {
    let found = Some(Found { physical: "1".to_owned(), has_rows: true });
    Facts { found, reached: true, ..Facts::default() }
}

fn decide(record: &Record, spec: &TargetSpec, command: Command) -> Result<Outcome> {
    let found = Found { physical: record.binding.physical.clone(), has_rows: true };
    transition(Some(record), spec, &Facts { found: Some(found), ..facts() }, command)
}

/// Carries out what must be a change.
fn done(record: &mut Record, spec: &TargetSpec, command: Command) -> Change {
    let outcome = decide(record, spec, command).unwrap();
    let Outcome::Changes(change) = outcome else { panic!("{command:?}: {outcome:?}") };
    *record = change.record.clone();
    *change
}

fn swapped(record: &mut Record, spec: &TargetSpec, by: By) -> u64 {
    let number = done(record, spec, Command::Build(by)).answer;
    for step in [Step::Follow, Step::Hold { patient: true }, Step::Swap] {
        done(record, spec, Command::Step(number, step));
    }
    number
}

fn replaced(record: &Record, spec: &TargetSpec) -> String {
    match decide(record, spec, Command::Open).unwrap() {
        Outcome::Waits(Waits::Replaced(why)) => why,
        other => panic!("{other:?}"),
    }
}

fn is_to_be_built(record: &Record, spec: &TargetSpec) -> bool {
    let opened = decide(record, spec, Command::Open).unwrap();
    matches!(opened, Outcome::Waits(Waits::Rebuild(_)))
}

#[test]
fn ownership_comes_before_every_command() {
    let mut record = record();
    swapped(&mut record, &deploy("v2"), By::Deploy);
    done(&mut record, &deploy("v2"), Command::Build(By::Operator));
    let stranger = TargetSpec { connector: "other".to_owned(), ..deploy("v2") };
    for command in [
        Command::Adopt,
        Command::Open,
        Command::Begin(2),
        Command::Empty(2),
        Command::Build(By::Operator),
        Command::Build(By::Deploy),
        Command::Step(3, Step::Follow),
        Command::Step(3, Step::Swap),
        Command::Cancel(None),
        Command::RollBack(None),
        Command::DropOld(0),
        Command::Desire(DesiredState::Paused),
    ] {
        let error = decide(&record, &stranger, command).unwrap_err();
        assert_eq!(error.class(), ErrorClass::Config, "{command:?}");
        assert!(error.message().contains("belongs to"), "{command:?}: {error}");
    }
}

#[test]
fn a_build_takes_the_place_of_the_live_generation_step_by_step() {
    let (mut record, spec) = (record(), deploy("v1"));
    let begun = done(&mut record, &spec, Command::Build(By::Operator));
    assert_eq!((begun.answer, begun.steps), (2, vec![Act::Make(2)]));
    assert_eq!(decide(&record, &spec, Command::Build(By::Operator)).unwrap(), Outcome::Stands(2));
    for early in [Step::Hold { patient: true }, Step::Swap, Step::Release] {
        let outcome = decide(&record, &spec, Command::Step(2, early)).unwrap();
        assert!(matches!(outcome, Outcome::NotYet(_)), "{early:?}: {outcome:?}");
    }
    assert_eq!(done(&mut record, &spec, Command::Step(2, Step::Follow)).steps, [Act::Finish(2)]);
    let held = done(&mut record, &spec, Command::Step(2, Step::Hold { patient: true }));
    assert_eq!(held.fences, [1], "the live tasks stop");
    let behind = Facts { reached: false, ..facts() };
    let early = transition(Some(&record), &spec, &behind, Command::Step(2, Step::Swap)).unwrap();
    assert!(matches!(early, Outcome::NotYet(_)));
    let other = decide(&record, &deploy("v2"), Command::Step(2, Step::Swap)).unwrap();
    assert!(matches!(other, Outcome::NotYet(_)), "another config's");
    let swap = done(&mut record, &spec, Command::Step(2, Step::Swap));
    assert_eq!((swap.answer, &*swap.fences), (2, &[1, 2][..]));
    assert_eq!(swap.steps, [Act::Exchange { from: 1, to: 2 }]);
    assert_eq!(record.old().map(|old| old.number).collect::<Vec<_>>(), [1]);
    assert!(record.binding.superseded.is_empty(), "the same projection");
}

#[test]
fn a_build_that_was_never_live_is_not_superseded() {
    let mut record = record();
    done(&mut record, &deploy("v2"), Command::Build(By::Deploy));
    // The operator goes back to what is live, and builds that anew.
    let back = done(&mut record, &deploy("v1"), Command::Build(By::Operator));
    assert_eq!(back.steps, [Act::Drop(2), Act::Make(3)]);
    // A worker that is left of v2 does not take its place back, and says whose build it is.
    assert!(replaced(&record, &deploy("v2")).contains("generation 3"));
    let late = decide(&record, &deploy("v2"), Command::Build(By::Deploy)).unwrap();
    assert_eq!(late, Outcome::Stands(3));
    let mut cancelled = record.clone();
    done(&mut cancelled, &deploy("v1"), Command::Cancel(Some(3)));
    assert!(is_to_be_built(&cancelled, &deploy("v2")));
    for step in [Step::Follow, Step::Hold { patient: true }, Step::Swap] {
        done(&mut record, &deploy("v1"), Command::Step(3, step));
    }
    assert!(is_to_be_built(&record, &deploy("v2")), "v1 is live as it was before");
    assert_eq!(record.binding.superseded, Vec::<String>::new());
}

#[test]
fn what_a_newer_config_passed_over_comes_back_by_name_only() {
    let mut record = record();
    done(&mut record, &deploy("v2"), Command::Build(By::Deploy));
    swapped(&mut record, &deploy("v3"), By::Deploy);
    for passed in ["v1", "v2"] {
        assert!(replaced(&record, &deploy(passed)).contains("superseded"), "{passed}");
        let error = decide(&record, &deploy(passed), Command::Build(By::Deploy)).unwrap_err();
        assert_eq!(error.class(), ErrorClass::Config);
        let refused = decide(&record, &spec(passed, OnChange::Refuse), Command::Open);
        assert!(refused.unwrap_err().message().contains("superseded"), "{passed}");
    }
    done(&mut record, &deploy("v2"), Command::Build(By::Operator));
    assert!(is_to_be_built(&record, &deploy("v2")), "it was asked for");
}

#[test]
fn a_message_names_the_rollback_that_leads_to_a_kept_generation() {
    let mut record = record();
    swapped(&mut record, &deploy("v2"), By::Deploy);
    let why = replaced(&record, &deploy("v1"));
    assert!(why.contains("newer config") && why.contains("--rollback"), "{why}");
    done(&mut record, &deploy("v2"), Command::RollBack(Some(2)));
    let why = decide(&record, &spec("v2", OnChange::Refuse), Command::Open).unwrap_err();
    let why = why.message();
    assert!(why.contains("rolled back") && why.contains("older config"), "{why}");
    assert!(why.contains("generation 2") && why.contains("--rollback"), "{why}");
    done(&mut record, &deploy("v2"), Command::DropOld(0));
    let why = replaced(&record, &deploy("v2"));
    assert!(!why.contains("--rollback") && why.contains("foldline rebuild c`"), "{why}");
}

#[test]
fn a_command_for_another_generation_does_nothing() {
    let (mut record, spec) = (record(), deploy("v1"));
    swapped(&mut record, &spec, By::Operator);
    done(&mut record, &spec, Command::RollBack(Some(2)));
    let twice = decide(&record, &spec, Command::RollBack(Some(2))).unwrap();
    assert_eq!(twice, Outcome::Stands(1), "two rollbacks do not toggle");
    assert_eq!(decide(&record, &spec, Command::Empty(2)).unwrap(), Outcome::Stands(1));
    done(&mut record, &spec, Command::Build(By::Operator));
    let error = decide(&record, &spec, Command::Cancel(Some(2))).unwrap_err();
    assert!(error.message().contains("3 is"), "{error}");
}

#[test]
fn a_projection_that_is_carried_on_says_what_stays_of_a_topic_that_is_gone() {
    let mut record = record();
    let on = spec("v2", OnChange::Continue);
    let extended = done(&mut record, &on, Command::Open);
    assert_eq!((&*extended.steps, &*extended.fences), (&[Act::Extend][..], &[1][..]));
    assert!(extended.notices[0].contains("v1-events"), "{:?}", extended.notices);
    assert_eq!(record.binding.continued, [1]);
    assert!(replaced(&record, &spec("v1", OnChange::Continue)).contains("superseded"));
}

#[test]
fn a_dropped_target_is_begun_anew_under_a_number_that_never_was() {
    let mut record = record();
    done(&mut record, &deploy("v1"), Command::Build(By::Operator));
    let gone = Facts { newest: 7, ..Facts::default() };
    let outcome = transition(Some(&record), &deploy("v1"), &gone, Command::Open).unwrap();
    let Outcome::Changes(change) = outcome else { panic!("{outcome:?}") };
    assert_eq!((change.answer, &*change.fences), (8, &[1][..]));
    assert_eq!(change.steps, [Act::Drop(2), Act::Create]);
    assert!(change.record.build().is_none());
}

#[test]
fn a_copy_is_adopted_where_nobody_folds_and_rows_and_books_agree() {
    let mut record = record();
    swapped(&mut record, &deploy("v1"), By::Operator);
    let build = done(&mut record, &deploy("v1"), Command::Build(By::Operator)).answer;
    let place = |from: i64, to: i64| StoredPosition {
        partition: crate::record::TopicPartition::new("events", 0),
        topic_id: Some("a".to_owned()),
        beginning: crate::record::Position(from),
        position: crate::record::Position(to),
        epoch: 1,
    };
    let found = |has_rows| Some(Found { physical: "copy".to_owned(), has_rows });
    let all = Facts {
        found: found(true),
        copies: vec![(1, "one".to_owned()), (build, "three".to_owned())],
        positions: vec![place(0, 5)],
        ..Facts::default()
    };
    let adopt = |facts: &Facts| transition(Some(&record), &deploy("v1"), facts, Command::Adopt);
    let Outcome::Changes(change) = adopt(&all).unwrap() else { panic!("nothing changes") };
    assert_eq!((change.answer, change.fences), (2, vec![2, 1, build]));
    assert_eq!((change.steps, change.notices), (vec![Act::Take], Vec::new()));
    let physical: Vec<_> = change.record.beside.iter().map(|it| it.physical.as_str()).collect();
    assert_eq!((change.record.binding.physical.as_str(), physical), ("copy", vec!["one", "three"]));
    // What is kept for a rollback may be missing, what is being built may not.
    let kept = Facts { copies: all.copies[1..].to_vec(), ..all.clone() };
    let Outcome::Changes(change) = adopt(&kept).unwrap() else { panic!("nothing changes") };
    assert_eq!((change.steps, change.record.beside.len()), (vec![Act::Drop(1), Act::Take], 1));
    let topics = vec![(Arc::from("events"), Some("b".to_owned()))];
    for (facts, why) in [
        (Facts { copies: all.copies[..1].to_vec(), ..all.clone() }, "--cancel"),
        (Facts { log: LogNow { members: 1, ..LogNow::default() }, ..all.clone() }, "has 1 member"),
        (Facts { log: LogNow { members: 0, topics }, ..all.clone() }, "created again"),
        (Facts { found: None, ..all.clone() }, "does not exist"),
        (Facts { found: found(false), ..all.clone() }, "it has no rows"),
        (Facts { positions: vec![place(5, 5)], ..all.clone() }, "has folded nothing"),
        (Facts { torn: Some("it is torn".to_owned()), ..all.clone() }, "it is torn"),
    ] {
        let error = adopt(&facts).unwrap_err();
        assert!(error.to_string().contains(why), "{why}: {error}");
    }
    let other = TargetSpec { log: "other".to_owned(), ..deploy("v1") };
    assert!(transition(Some(&record), &other, &all, Command::Adopt).is_err());
    assert!(transition(None, &deploy("v1"), &all, Command::Adopt).is_err());
}
