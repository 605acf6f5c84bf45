//! Sessions of two workers over one log and one store in memory.

use std::time::Duration;

use foldline_api::rebuild::{Step, Stepped};
use foldline_api::record::{Position, TopicPartition};
use foldline_api::sink::{Advance, Beginning, DesiredState, Flush, OnChange, TargetSpec, Written};
use foldline_api::source::{Commit, Log, Start};
use foldline_language::projection::Projection;
use foldline_testkit::contract::spec_of;
use foldline_testkit::{MemoryGroup, MemoryLog, MemoryStore};

use super::*;
use crate::in_memory::connector_spec;
use crate::task::Limits;
use crate::task::simulation::projection;

const EVENTS: i64 = 3;

struct Fleet {
    log: MemoryLog,
    projection: Arc<Projection>,
    group: Arc<MemoryGroup>,
    store: MemoryStore,
    spec: TargetSpec,
}

impl Fleet {
    /// A log whose events are all folded.
    async fn folded() -> Self {
        let projection = projection("hot");
        let log = MemoryLog::new("log-1");
        log.create_topic("events", 1);
        for _ in 0..EVENTS {
            log.append("events", 0, None, Some("{}"));
        }
        let mut spec = spec_of("t", (**projection.model()).clone());
        spec.fingerprint = projection.fingerprint().to_owned();
        let group = log.group("g", &["events"]);
        let fleet = Fleet { log, projection, group, store: MemoryStore::transactional(), spec };
        let target = fleet.store.target(fleet.spec.clone());
        let opened = target.open().await.unwrap();
        target.begin(opened.generation, &[fleet.beginning().await]).await.unwrap();
        fleet.fold_all(opened.generation).await;
        fleet
    }

    async fn beginning(&self) -> Beginning {
        let info = self.group.partitions().await.unwrap().remove(0);
        Beginning { partition: info.partition, topic_id: info.topic_id, position: Position(0) }
    }

    /// What a task of `generation` does, but for the rows.
    async fn fold_all(&self, generation: u64) {
        let target = self.store.target(self.spec.clone());
        let writer = target.writer(generation).await.unwrap();
        let lease = writer.acquire(&[self.beginning().await]).await.unwrap().leases.remove(0);
        let advance = Advance {
            partition: lease.partition,
            epoch: lease.epoch,
            from: Position(0),
            to: Position(EVENTS),
        };
        let flush = Flush { advances: vec![advance], ..Flush::default() };
        assert!(matches!(writer.write(&flush).await.unwrap(), Written::Durable(_)));
    }

    /// As Kafka's own tool does.
    fn reset(&self) {
        let partition = TopicPartition::new("events", 0);
        let commit =
            Commit { partition: partition.clone(), position: Position(0), metadata: String::new() };
        self.group.set_committed(&partition, Some(commit));
    }

    /// The connector as another worker runs it.
    fn worker(&self) -> Connector {
        let (store, spec) = (self.store.clone(), self.spec.clone());
        let target = move || store.target(spec.clone()) as Arc<dyn Target>;
        let groups = (&self.group, &self.group);
        Connector::new(ConnectorSpec {
            place: "t.toml:1: connectors.c".to_owned(),
            topics: "`^events`".to_owned(),
            limits: Limits { rows: 10, bytes: 1 << 20, age: Duration::from_millis(1) },
            ..connector_spec(("c", "g"), &self.projection, groups, target)
        })
    }

    /// What another worker finds when it starts: the live generation, and the one that is being built.
    async fn found_at_start(&self) -> (u64, Option<u64>) {
        let (target, opened, _) = self.worker().open().await.unwrap();
        let build = target.rebuilds().generations().await.unwrap().build;
        (opened.generation, build.map(|build| build.generation))
    }

    /// Ends a build as the workers do that take part in it.
    async fn swap(&self, generation: u64) {
        self.fold_all(generation).await;
        let target = self.store.target(self.spec.clone());
        for step in [Step::Follow, Step::Hold { patient: false }, Step::Swap] {
            let stepped = target.rebuilds().step(generation, step).await.unwrap();
            assert!(matches!(stepped, Stepped::Done(_)), "{step:?}: {stepped:?}");
        }
    }
}

#[tokio::test]
async fn two_workers_that_notice_one_reset_rebuild_once() {
    let fleet = Fleet::folded().await;
    fleet.reset();
    // While a member lives elsewhere, the group takes no marks from the worker that begins the rebuild.
    let member = fleet.group.source(0, 1 << 10).unwrap();
    assert_eq!(fleet.found_at_start().await, (1, Some(2)));
    let unmarked = fleet.group.committed().await.unwrap();
    assert!(unmarked.iter().all(|commit| commit.metadata.is_empty()), "{unmarked:?}");
    assert_eq!(fleet.found_at_start().await, (1, Some(2)), "the same reset, seen again");
    drop(member);
    assert_eq!(fleet.found_at_start().await, (1, Some(2)), "and by a third");
}

#[tokio::test]
async fn a_second_reset_is_a_second_rebuild() {
    let fleet = Fleet::folded().await;
    fleet.reset();
    assert_eq!(fleet.found_at_start().await, (1, Some(2)));
    let marked = fleet.group.committed().await.unwrap();
    assert_eq!(marked[0].metadata, crate::reset::mark(Some("1"), 1), "the group was free");
    assert_eq!(fleet.found_at_start().await, (1, Some(2)), "a start changes nothing");
    fleet.swap(2).await;
    assert_eq!(fleet.found_at_start().await, (2, None), "nor behind the swap");
    fleet.reset();
    assert_eq!(fleet.found_at_start().await, (2, Some(3)));
}

/// A connector as it runs, and the lag that it shows.
struct Running {
    fleet: Fleet,
    worker: Arc<Connector>,
    cancel: CancellationToken,
}

impl Running {
    async fn new() -> Self {
        let fleet = Fleet::folded().await;
        let (worker, cancel) = (Arc::new(fleet.worker()), CancellationToken::new());
        assert_eq!(worker.view().lag(), None, "nothing was asked yet");
        tokio::spawn(Arc::clone(&worker).run(cancel.clone()));
        Running { fleet, worker, cancel }
    }

    /// The group gives its only partition to the member that there is, until all is as it should be.
    async fn shows(&self, state: State, lag: Option<i64>) {
        let partition = [TopicPartition::new("events", 0)];
        let wait = async {
            loop {
                let view = self.worker.view();
                if view.state == state && view.lag() == lag {
                    return;
                }
                if let [member] = *self.fleet.group.members()
                    && !self.fleet.group.is_held(&partition[0])
                {
                    self.fleet.group.assign(member, &partition);
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        let shown = tokio::time::timeout(Duration::from_secs(60), wait).await;
        let view = self.worker.view();
        assert!(shown.is_ok(), "{state:?} {lag:?}: {:?} {:?}", view.state, view.lag());
    }

    async fn wants(&self, desired: DesiredState) {
        self.worker.command(desired).await.unwrap();
    }

    fn append(&self) {
        self.fleet.log.append("events", 0, None, Some("{}"));
    }

    /// What a scrape finds of the partition.
    fn measured(&self) -> Option<i64> {
        self.worker.spec.metrics.shown_lag("events", 0)
    }
}

#[tokio::test(start_paused = true)]
async fn the_lag_is_true_where_nothing_is_fetched() {
    let running = Running::new().await;
    running.shows(State::Running, Some(0)).await;
    running.wants(DesiredState::Paused).await;
    running.shows(State::Paused, Some(0)).await;
    running.append();
    running.shows(State::Paused, Some(1)).await;
    assert_eq!(running.measured(), Some(1));
    running.wants(DesiredState::Stopped).await;
    running.shows(State::Stopped, Some(1)).await;
    running.append();
    running.shows(State::Stopped, Some(2)).await;
    assert_eq!(running.measured(), Some(2));
    running.wants(DesiredState::Running).await;
    running.shows(State::Running, Some(0)).await;
    assert_eq!(running.measured(), Some(0));
    running.cancel.cancel();
}

#[tokio::test(start_paused = true)]
async fn who_was_given_no_partition_is_unassigned_and_ready() {
    let running = Running::new().await;
    running.shows(State::Running, Some(0)).await;
    running.fleet.group.on_command();
    let [member] = *running.fleet.group.members() else { panic!("one task is one member") };
    running.fleet.group.revoke(member, &[TopicPartition::new("events", 0)]);
    let wait = async {
        while running.worker.shown().partitions.is_none() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait).await.unwrap();
    let view = running.worker.view();
    assert_eq!(view.state, State::Unassigned, "the group has given it nothing");
    assert!(view.trace.as_ref().is_some_and(|why| why.contains("other workers hold them all")));
    assert_eq!(view.last_error(), None, "which is no error");
    assert!(running.worker.is_ready(), "a spare must not hold up a deploy");
    let task = &view.tasks[0];
    assert_eq!(running.worker.view().state_of(task), State::Unassigned);
    running.worker.shown().partitions = Some(0);
    let why = running.worker.view().trace.unwrap();
    assert!(why.starts_with("no topic matches `^events`"), "{why}");
    running.shows(State::Running, Some(0)).await;
    assert_eq!(running.worker.view().trace, None);
    running.cancel.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_listed_topic_that_is_missing_is_named_and_read_from_its_start_once_it_is_there() {
    let fleet = Fleet::folded().await;
    let _ = fleet.log.group("g", &["late"]);
    // Who began once begins what comes later where that begins.
    let mut worker = fleet.worker();
    worker.spec.start = Start::Latest;
    let (worker, cancel) = (Arc::new(worker), CancellationToken::new());
    tokio::spawn(Arc::clone(&worker).run(cancel.clone()));
    let until = async |what: &dyn Fn(&View) -> bool| {
        let wait = async {
            while !what(&worker.view()) {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        let came = tokio::time::timeout(Duration::from_secs(60), wait).await;
        assert!(came.is_ok(), "{:?}", worker.view());
    };
    let named = |view: &View| {
        view.trace.as_ref().is_some_and(|why| why.starts_with("topic `late` does not exist"))
    };
    until(&|view| view.state == State::Running && view.lag() == Some(0) && named(view)).await;
    assert_eq!(worker.view().last_error(), None, "which is no error");
    for _ in 0..2 {
        fleet.log.append("late", 0, None, Some("{}"));
    }
    fleet.log.create_topic("late", 1);
    let late = TopicPartition::new("late", 0);
    let holds = |view: &View| view.tasks[0].partitions.iter().any(|p| p.partition == late);
    until(&|view| view.trace.is_none() && holds(view) && view.lag() == Some(0)).await;
    let books = fleet.store.target(fleet.spec.clone()).status().await.unwrap();
    let stored = books.positions.iter().find(|stored| stored.partition == late).unwrap();
    assert_eq!((stored.beginning, stored.position), (Position(0), Position(2)));
    // Now that it was folded, nothing may be missing of it.
    fleet.log.delete_topic("late");
    worker.restart();
    until(&|view| view.state == State::Failed && named(view)).await;
    cancel.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_partition_that_does_not_show_yet_is_not_begun() {
    let running = Running::new().await;
    running.shows(State::Running, Some(0)).await;
    running.fleet.group.on_command();
    let before = running.fleet.group.members();
    // Its member has heard of it from one broker, and another one is asked.
    running.fleet.group.assign(before[0], &[TopicPartition::new("late", 0)]);
    let wait = async {
        while running.fleet.group.members() == before || running.fleet.group.members().is_empty() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let joins_anew = tokio::time::timeout(Duration::from_secs(60), wait).await;
    assert!(joins_anew.is_ok(), "{:?}", running.worker.view());
    let fleet = &running.fleet;
    let books = fleet.store.target(fleet.spec.clone()).status().await.unwrap();
    let begun: Vec<_> = books.positions.iter().map(|stored| &*stored.partition.topic).collect();
    assert_eq!(begun, ["events"]);
    running.shows(State::Running, Some(0)).await;
    running.cancel.cancel();
}

#[tokio::test]
async fn an_error_before_anything_was_folded_names_the_place_of_the_config() {
    let fleet = Fleet::folded().await;
    let worker = fleet.worker();
    let error = Error::config("no such table");
    assert_eq!(worker.placed(&error), "no such table [t.toml:1: connectors.c]");
    worker.began.send_replace(true);
    assert_eq!(worker.placed(&error), "no such table");
}

#[tokio::test]
async fn an_error_is_past_once_work_goes_on_and_a_wait_is_none() {
    let worker = Fleet::folded().await.worker();
    worker.failed("open", &Error::retriable("refused"));
    let now = worker.view();
    assert_eq!((now.last_error().map(|e| e.0), now.past_error()), (Some("refused"), None));
    worker.worked();
    let now = worker.view();
    assert_eq!((now.last_error(), now.trace.clone()), (None, None));
    assert_eq!(now.past_error().map(|past| past.message).as_deref(), Some("refused"));
    worker.set_state(State::Running, Some("waits for its rebuild".to_owned()));
    assert_eq!(worker.view().last_error(), None);
    worker.shown().flood = Some("paused: too many".to_owned());
    worker.set_state(State::Paused, None);
    let now = worker.view();
    assert_eq!(now.last_error().map(|e| e.0), Some("paused: too many"));
    assert_eq!(now.trace.as_deref(), Some("paused: too many"));
    worker.set_state(State::Running, None);
    assert_eq!(worker.view().last_error(), None);
}

#[tokio::test]
async fn a_worker_that_is_refused_shows_the_live_generation() {
    let mut fleet = Fleet::folded().await;
    let target = fleet.store.target(fleet.spec.clone());
    assert_eq!(target.rebuild(1, None).await.unwrap(), 2);
    fleet.spec.projection["topics"] = serde_json::json!(["others"]);
    fleet.spec.fingerprint = fleet.spec.projection.to_string();
    fleet.spec.on_change = OnChange::Refuse;
    let worker = fleet.worker();
    worker.shown().generation = 1;
    let refused = worker.open().await.map(|_| ()).unwrap_err();
    assert_eq!(refused.class(), foldline_api::ErrorClass::Config, "{refused}");
    assert_eq!(worker.view().generation, 2, "the one that it folded is gone");
}
