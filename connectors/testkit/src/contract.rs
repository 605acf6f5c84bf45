//! The contract of a sink, as cases that each must pass.
//!
//! ```ignore
//! struct Memory(MemoryStore);
//!
//! #[async_trait]
//! impl Store for Memory {
//!     async fn target(&self, spec: TargetSpec) -> Arc<dyn Target> { self.0.target(spec) }
//!     async fn drop_target(&self, target: &str) { self.0.drop_table(target) }
//!     async fn copy_target(&self, target: &str) { self.0.copy_table(target) }
//!     fn name(&self, case: &str) -> String { case.to_owned() }
//! }
//!
//! sink_contract(&Memory(MemoryStore::transactional())).await;
//! ```
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a suite of assertions")]

use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use foldline_api::column::{Children, ColumnType};
use foldline_api::json;
use foldline_api::model::{Column, Key, Model, Row};
use foldline_api::record::{Position, TopicPartition};
use foldline_api::sink::{
    Advance, Beginning, Check, Flush, Lease, Mark, Marks, OnChange, RowWrite, Target, TargetSpec,
    Version, Versions, Writer, Written,
};
use foldline_api::value::Value;
use futures_util::StreamExt;
use serde_json::json;

use crate::cases;

/// A store under test.
#[async_trait]
pub trait Store: Send + Sync {
    /// A target for `spec`, on its own connection. Called more than once for the same name.
    async fn target(&self, spec: TargetSpec) -> Arc<dyn Target>;

    /// Drops the physical table or index as an operator would by hand, the books untouched.
    async fn drop_target(&self, target: &str);

    /// Puts a faithful copy in the place of what stands of a target, of all its generations, the books untouched:
    /// as a restore from a backup does.
    async fn copy_target(&self, target: &str);

    /// A target's name that no other run uses, for a case.
    fn name(&self, case: &str) -> String;

    /// How many cases run at a time: some where a store lets its callers wait.
    fn at_once(&self) -> usize {
        1
    }

    /// Whether rows can show fields of another target's rows.
    fn looks_up(&self) -> bool {
        false
    }

    /// Whether rows can hold another target's rows as children.
    fn gathers(&self) -> bool {
        false
    }

    /// Whether a generation that was live is kept for a rollback. Where none is, a rollback is refused by name.
    fn keeps_generations(&self) -> bool {
        true
    }

    /// Whether it removes targets. Where it does not, it says so and what to do.
    fn removes(&self) -> bool {
        true
    }

    /// Whether it answers queries.
    fn answers(&self) -> bool {
        true
    }

    /// Whether it compares and orders values of a type.
    fn orders(&self, _ty: &str) -> bool {
        true
    }

    /// Changes a target by hand, the books untouched; false where the store has nothing of the kind.
    async fn meddle(&self, _target: &str, _what: Meddling) -> bool {
        false
    }
}

/// What someone with a shell does to a target of [`model`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meddling {
    /// Drops a column.
    LoseColumn(&'static str),
    /// Makes an index, which is nothing to a writer.
    AddIndex(&'static str),
    /// Makes a trigger `only_real` that leaves out, inserted or updated, a row whose `name` is `test`.
    KeepOut,
    /// Makes a trigger that leaves out an update which changes nothing.
    KeepEqual,
}

/// Runs every case against `store`, each on a target of its own; panics where one fails.
pub async fn sink_contract(store: &dyn Store) {
    futures_util::stream::iter(all(store)).for_each_concurrent(store.at_once(), |case| case).await;
}

type Case<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

fn all(store: &dyn Store) -> Vec<Case<'_>> {
    let mut cases = of_lives(store);
    cases.extend(of_rows(store));
    cases.extend(of_readers(store));
    cases
}

/// Of a target's life.
fn of_lives(store: &dyn Store) -> Vec<Case<'_>> {
    vec![
        Box::pin(cases::lifecycle::first_open_is_empty_and_idempotent(store)),
        Box::pin(cases::lifecycle::a_check_finds_what_open_would_and_changes_nothing(store)),
        Box::pin(cases::lifecycle::begin_records_once(store)),
        Box::pin(cases::lifecycle::epochs_rise_with_each_acquire(store)),
        Box::pin(cases::lifecycle::positions_survive_a_new_connection(store)),
        Box::pin(cases::lifecycle::the_desired_state_is_kept(store)),
        Box::pin(cases::lifecycle::rebuild_empties_and_fences(store)),
        Box::pin(cases::lifecycle::rebuild_takes_new_beginnings(store)),
        Box::pin(cases::lifecycle::a_dropped_target_voids_its_positions(store)),
        Box::pin(cases::lifecycle::another_owner_is_refused(store)),
        Box::pin(cases::owner::no_command_of_another_connector_does_anything(store)),
        Box::pin(cases::lifecycle::another_model_is_refused_or_carried_over(store)),
        Box::pin(cases::rebuild::a_build_takes_the_place_of_the_live_generation(store)),
        Box::pin(cases::rebuild::a_build_that_is_not_reached_lets_the_live_generation_go_on(store)),
        Box::pin(cases::rebuild::a_cancelled_build_is_gone(store)),
        Box::pin(cases::rebuild::a_rollback_swaps_back_and_old_generations_are_dropped(store)),
        Box::pin(cases::deploys::a_build_that_was_never_live_is_not_superseded(store)),
        Box::pin(cases::deploys::what_a_newer_config_passed_over_comes_back_by_name_only(store)),
        Box::pin(cases::deploys::a_command_for_another_generation_does_nothing(store)),
        Box::pin(cases::deploys::what_continue_leaves_behind_is_told(store)),
        Box::pin(cases::adopt::a_copy_is_taken_over_with_its_books(store)),
        Box::pin(cases::adopt::what_is_no_faithful_copy_is_refused_by_name(store)),
        Box::pin(cases::adopt::a_copy_with_a_build_is_whole_or_the_build_is_ended_first(store)),
        Box::pin(cases::adopt::what_is_no_copy_stays_as_it_is_and_fences(store)),
        Box::pin(cases::removal::what_is_removed_is_gone_with_its_books(store)),
        Box::pin(cases::removal::what_is_someone_elses_is_not_removed(store)),
    ]
}

/// Of its rows, and of what is kept beside them.
fn of_rows(store: &dyn Store) -> Vec<Case<'_>> {
    vec![
        Box::pin(cases::flush::rows_round_trip(store)),
        Box::pin(cases::flush::every_type_round_trips(store)),
        Box::pin(cases::flush::a_load_stops_where_its_bytes_end(store)),
        Box::pin(cases::flush::a_stale_version_conflicts(store)),
        Box::pin(cases::flush::two_inserts_of_one_key_conflict(store)),
        Box::pin(cases::flush::a_deleted_row_is_gone_and_can_come_back(store)),
        Box::pin(cases::flush::a_delete_of_a_changed_row_conflicts(store)),
        Box::pin(cases::flush::checks_hold_the_position_back(store)),
        Box::pin(cases::flush::a_stale_epoch_is_fenced(store)),
        Box::pin(cases::flush::a_stale_position_is_fenced(store)),
        Box::pin(cases::flush::an_empty_flush_moves_positions(store)),
        Box::pin(cases::flush::a_flush_of_two_partitions_moves_both_or_none(store)),
        Box::pin(cases::flush::verdicts_come_back_with_the_lease(store)),
        Box::pin(cases::flush::decisions_come_back_until_the_position_is_past_them(store)),
        Box::pin(cases::flush::a_conflict_tells_what_was_written_all_the_same(store)),
        Box::pin(cases::flush::many_rows_in_one_flush(store)),
        Box::pin(cases::hole::a_hole_moves_the_position_fences_and_is_kept(store)),
        Box::pin(cases::hole::a_hole_is_repeated_by_each_generation_of_its_topic(store)),
        Box::pin(cases::kept::what_an_id_stood_for_stays_for_all_generations(store)),
        Box::pin(cases::expiry::a_horizon_only_goes_forward_for_all_generations(store)),
        Box::pin(cases::expiry::what_a_horizon_has_passed_is_found_and_deleted(store)),
        Box::pin(cases::meddling::a_column_lost_under_a_writer_stops_it_by_name(store)),
        Box::pin(cases::meddling::a_row_that_a_trigger_keeps_out_is_refused_by_the_triggers_name(
            store,
        )),
        Box::pin(
            cases::meddling::a_write_that_changes_nothing_is_applied_where_a_trigger_leaves_it_out(
                store,
            ),
        ),
        Box::pin(cases::snapshot::rows_and_books_are_of_one_moment(store)),
        Box::pin(cases::snapshot::pages_show_each_row_once(store)),
        Box::pin(cases::snapshot::all_verdicts_are_told(store)),
        Box::pin(cases::parking::parked_events_come_back_whole_until_they_are_freed(store)),
        Box::pin(cases::parking::a_flush_that_does_not_go_through_parks_and_frees_nothing(store)),
        Box::pin(cases::parking::a_replay_does_not_park_twice(store)),
        Box::pin(cases::parking::what_some_rows_hold_keeps_its_decision_while_it_is_parked(store)),
        Box::pin(cases::parking::the_next_generation_decides_anew_but_for_what_was_dropped(store)),
        Box::pin(cases::verdicts::a_build_decides_anew_what_the_live_generation_left_out(store)),
        Box::pin(cases::verdicts::a_verdict_is_of_one_life_of_its_topic(store)),
        Box::pin(cases::verdicts::what_was_dropped_stays_dropped_in_every_generation(store)),
        Box::pin(cases::verdicts::a_rebuild_in_place_that_is_not_done_hands_its_questions_on(
            store,
        )),
        Box::pin(cases::letters::letters_of_what_is_bad_only_now_leave_at_the_swap(store)),
        Box::pin(cases::letters::a_cancelled_build_takes_its_letters_along(store)),
        Box::pin(cases::letters::what_was_sent_is_known_to_whichever_becomes_live(store)),
        Box::pin(cases::letters::what_was_sent_of_another_life_of_the_topic_counts_for_nothing(
            store,
        )),
        Box::pin(cases::joins::a_row_shows_the_other_whichever_came_first_and_follows_it(store)),
        Box::pin(cases::joins::a_step_is_bounded_and_what_is_left_is_still_noted(store)),
        Box::pin(cases::joins::the_fold_never_sees_what_is_shown(store)),
        Box::pin(cases::joins::all_rows_are_looked_at_where_the_other_target_lives_another_life(
            store,
        )),
        Box::pin(cases::joins::a_build_takes_no_place_while_its_rows_wait(store)),
        Box::pin(cases::children::children_come_move_go_and_come_back(store)),
        Box::pin(cases::children::the_first_children_are_held_where_there_are_more(store)),
        Box::pin(
            cases::children::all_children_are_looked_at_where_their_target_lives_another_life(
                store,
            ),
        ),
        Box::pin(cases::children::a_build_takes_no_place_before_its_rows_hold_their_children(
            store,
        )),
    ]
}

/// Of those who read its rows.
fn of_readers(store: &dyn Store) -> Vec<Case<'_>> {
    vec![
        Box::pin(cases::queries::a_row_is_read_by_its_key(store)),
        Box::pin(cases::queries::queries_give_what_a_plain_filter_and_sort_give(store)),
        Box::pin(cases::queries::rows_that_stay_are_on_one_page_while_others_move(store)),
    ]
}

/// The model of most cases: a bigint key and columns whose texts and numbers need care.
#[must_use]
pub fn model() -> Model {
    let names = [
        ("id", "bigint"),
        ("name", "text"),
        ("amount", "numeric(12,2)"),
        ("changes", "bigint"),
        ("updated_at", "timestamptz"),
        ("tags", "text[]"),
        ("doc", "jsonb"),
    ];
    let mut model = model_of(&names, 1);
    if let Some(changes) = model.columns.get_mut(3) {
        changes.default = Value::Int(0);
    }
    model
}

/// A model from names and types, the first `keys` of them the key.
#[must_use]
pub fn model_of(columns: &[(&str, &str)], keys: usize) -> Model {
    let column = |(name, ty): &(&str, &str)| Column {
        name: Arc::from(*name),
        ty: if *ty == "children" { lines() } else { ColumnType::parse(ty).unwrap() },
        index: false,
        default: Value::Null,
    };
    let columns = columns.iter().map(column).collect();
    Model { columns, key: (0..keys).collect(), indexes: Vec::new() }
}

fn lines() -> ColumnType {
    let field = |name: &str, ty| (Arc::from(name), ty);
    ColumnType::Children(Arc::new(Children {
        by: "line".to_owned(),
        fields: vec![
            field("line", ColumnType::Integer),
            field("sku", ColumnType::Text),
            field("price", ColumnType::Numeric(Some((12, 2)))),
            field("since", ColumnType::TimestampTz),
        ],
    }))
}

/// A spec for `target` and `model`; its projection is the model's columns, its fingerprint their hash.
#[must_use]
pub fn spec_of(target: &str, model: Model) -> TargetSpec {
    let key: Vec<_> = model.key_columns().map(|column| json!({ "name": &*column.name })).collect();
    let column = |column: &Column| json!({ "name": &*column.name, "type": column.ty.to_string() });
    let columns: Vec<_> = model.columns.iter().map(column).collect();
    let projection = json!({ "columns": columns, "key": key, "topics": ["events"] });
    TargetSpec {
        worker: "contract".to_owned(),
        connector: target.to_owned(),
        group: format!("contract-{target}"),
        log: "log-1".to_owned(),
        target: target.to_owned(),
        model: Arc::new(model),
        joins: None,
        fingerprint: projection.to_string(),
        projection,
        on_change: OnChange::Refuse,
        auto_create: true,
        mapping: None,
        settings: None,
        expire: None,
    }
}

/// A row of `model` from JSON values in column order.
#[must_use]
pub fn row(model: &Model, values: &[&str]) -> Row {
    let coerce = |(column, text): (&Column, &&str)| {
        let value = json::parse(text.as_bytes()).unwrap();
        column.ty.coerce(value).unwrap()
    };
    Row::new(model.columns.iter().zip(values).map(coerce).collect())
}

/// The partition of most cases.
#[must_use]
pub fn partition(number: i32) -> TopicPartition {
    TopicPartition::new("events", number)
}

/// A claim that begins at `position`.
#[must_use]
pub fn claim(number: i32, position: i64) -> Beginning {
    Beginning {
        partition: partition(number),
        topic_id: Some("topic-1".to_owned()),
        position: Position(position),
    }
}

/// An opened target with one writer that holds partition 0.
pub(crate) struct Bench {
    pub(crate) target: Arc<dyn Target>,
    pub(crate) writer: Arc<dyn Writer>,
    pub(crate) lease: Lease,
    pub(crate) model: Arc<Model>,
    pub(crate) spec: TargetSpec,
}

impl Bench {
    /// Opens a fresh target, begins partition 0 at 0 and takes it.
    pub(crate) async fn new(store: &dyn Store, case: &str, model: Model) -> Self {
        Bench::of(store, case, spec_of(&store.name(case), model)).await
    }

    /// The same for this spec.
    pub(crate) async fn of(store: &dyn Store, case: &str, spec: TargetSpec) -> Self {
        let target = store.target(spec.clone()).await;
        let opened = target.open().await.expect(case);
        target.begin(opened.generation, &[claim(0, 0)]).await.expect(case);
        let writer = target.writer(opened.generation).await.expect(case);
        let acquired = writer.acquire(&[claim(0, 0)]).await.expect(case);
        assert!(acquired.empty, "{case}: a fresh target is empty");
        let lease = acquired.leases.into_iter().next().expect(case);
        Bench { target, writer, lease, model: Arc::clone(&spec.model), spec }
    }

    /// A second connection's writer, which takes nothing.
    pub(crate) async fn other_writer(&self, store: &dyn Store) -> Arc<dyn Writer> {
        let target = store.target(self.spec.clone()).await;
        let opened = target.open().await.unwrap();
        target.writer(opened.generation).await.unwrap()
    }

    /// A row of this model with the values that matter to most cases.
    pub(crate) fn row(&self, id: i64, name: &str, changes: i64) -> Row {
        let (id, name, changes) = (id.to_string(), format!("{name:?}"), changes.to_string());
        let values = [&*id, &*name, "1.50", &*changes, "\"2026-01-01T00:00:00.25Z\"", "[]", "null"];
        row(&self.model, &values)
    }

    /// A flush of the lease's partition by one step.
    pub(crate) fn flush(&self, writes: Vec<RowWrite>) -> Flush {
        let from = self.lease.position;
        Flush {
            advances: vec![advance(&self.lease, from.0, from.0 + 1)],
            writes,
            ..Flush::default()
        }
    }

    /// A write as the worker makes it: marks where the sink keeps them.
    pub(crate) fn write(&self, key: i64, row: Option<Row>, version: Version) -> RowWrite {
        let mut marks = Marks::new();
        if self.writer.keeps_marks() {
            let position = Position(self.lease.position.0 + 1);
            marks.push(Mark { partition: self.lease.partition.clone(), position });
        }
        RowWrite { key: key_of(key), row, version, marks }
    }

    /// Writes and moves the lease on; the versions of the rows as the worker would keep them.
    pub(crate) async fn durable(&mut self, writes: Vec<RowWrite>) -> Vec<Version> {
        let flush = self.flush(writes);
        let versions = durable(&*self.writer, &flush).await;
        self.lease.position.0 += 1;
        versions
    }
}

/// A key of one bigint.
pub(crate) fn key_of(id: i64) -> Key {
    Key::new(vec![Value::Int(id)])
}

/// A step of a lease.
pub(crate) fn advance(lease: &Lease, from: i64, to: i64) -> Advance {
    Advance {
        partition: lease.partition.clone(),
        epoch: lease.epoch,
        from: Position(from),
        to: Position(to),
    }
}

/// A check of a key that is not written.
pub(crate) fn check(id: i64, version: Version) -> Check {
    Check { key: key_of(id), version }
}

/// Writes what must be durable, and says each row's version.
pub(crate) async fn durable(writer: &dyn Writer, flush: &Flush) -> Vec<Version> {
    let written = writer.write(flush).await.unwrap();
    let Written::Durable(versions) = written else { panic!("expected Durable, got {written:?}") };
    match versions {
        Versions::Each(each) => {
            assert_eq!(each.len(), flush.writes.len());
            each
        }
        Versions::All(version) => {
            let of = |w: &RowWrite| if w.row.is_some() { version } else { Version::Absent };
            flush.writes.iter().map(of).collect()
        }
        Versions::Unknown => {
            let keys: Vec<Key> = flush.writes.iter().map(|write| write.key.clone()).collect();
            let loaded = writer.load(&keys).await.unwrap();
            loaded.into_iter().map(|loaded| loaded.version).collect()
        }
    }
}
