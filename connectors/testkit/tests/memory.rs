//! The doubles keep the contract themselves.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "clippy takes the helpers of an integration test for production code"
)]

use std::sync::Arc;

use async_trait::async_trait;
use foldline_api::record::{Position, TopicPartition};
use foldline_api::sink::{Target, TargetSpec};
use foldline_api::source::{Commit, Log, Source, SourceEvent, Wanted};
use foldline_testkit::contract::{claim, model, spec_of};
use foldline_testkit::{
    Faults, FaultyTarget, MemoryLog, MemoryStore, Script, Store, sink_contract,
};

/// A store, and whether it has transactions.
struct Memory(MemoryStore, bool);

#[async_trait]
impl Store for Memory {
    async fn target(&self, spec: TargetSpec) -> Arc<dyn Target> {
        self.0.target(spec)
    }

    async fn drop_target(&self, target: &str) {
        self.0.drop_table(target);
    }

    async fn copy_target(&self, target: &str) {
        self.0.copy_table(target);
    }

    fn name(&self, case: &str) -> String {
        case.to_owned()
    }

    fn looks_up(&self) -> bool {
        self.1
    }

    fn gathers(&self) -> bool {
        self.1
    }
}

#[tokio::test]
async fn the_store_with_transactions_keeps_the_contract() {
    sink_contract(&Memory(MemoryStore::transactional(), true)).await;
}

#[tokio::test]
async fn the_store_with_marks_keeps_the_contract() {
    sink_contract(&Memory(MemoryStore::with_marks(), false)).await;
}

fn place(partition: i32) -> TopicPartition {
    TopicPartition::new("t", partition)
}

async fn assigned(source: &mut dyn Source) -> Vec<TopicPartition> {
    match source.next(Wanted::All).await.unwrap() {
        SourceEvent::Assigned(partitions) => partitions,
        other => panic!("expected Assigned, got {other:?}"),
    }
}

#[tokio::test]
async fn partitions_move_only_when_they_are_released() {
    let log = MemoryLog::new("log");
    log.create_topic("t", 2);
    let group = log.group("g", &["t"]);
    let mut first = group.source(0, 1 << 20).unwrap();
    assert_eq!(assigned(&mut *first).await.len(), 2);
    first.start(&[(place(0), Position(0)), (place(1), Position(0))]).unwrap();
    let mut second = group.source(1, 1 << 20).unwrap();
    let moved = loop {
        match first.next(Wanted::All).await.unwrap() {
            SourceEvent::Revoked(partitions) => break partitions,
            SourceEvent::End(..) => {}
            other => panic!("unexpected {other:?}"),
        }
    };
    assert!(group.is_held(&moved[0]));
    log.append("t", 0, None, Some("1"));
    let quiet =
        tokio::time::timeout(std::time::Duration::from_millis(10), first.next(Wanted::Control));
    assert!(quiet.await.is_err(), "a record is no rebalance");
    let commit =
        Commit { partition: moved[0].clone(), position: Position(0), metadata: String::new() };
    first.committer().commit(std::slice::from_ref(&commit)).await.unwrap();
    first.release(&moved).unwrap();
    assert_eq!(assigned(&mut *second).await, moved);
    assert!(first.committer().commit(&[commit]).await.is_err(), "not its own any more");
    assert!(group.commit(&[]).await.is_err(), "the group has members");
}

#[tokio::test]
async fn records_come_in_order_and_the_end_lies_behind_markers() {
    let log = MemoryLog::new("log");
    let group = log.group("g", &["t"]);
    for n in 0..250 {
        log.append("t", 0, None, Some(&n.to_string()));
    }
    log.append_marker("t", 0);
    let mut source = group.source(0, 1 << 20).unwrap();
    assigned(&mut *source).await;
    source.start(&[(place(0), Position(10))]).unwrap();
    let mut offsets = Vec::new();
    let end = loop {
        match source.next(Wanted::All).await.unwrap() {
            SourceEvent::Records(records) => offsets.extend(records.iter().map(|r| r.offset)),
            SourceEvent::End(_, position) => break position,
            other => panic!("unexpected {other:?}"),
        }
    };
    assert_eq!(offsets, (10..250).collect::<Vec<_>>());
    assert_eq!(end, Position(251));
}

#[tokio::test(start_paused = true)]
async fn a_script_is_decided_by_its_seed() {
    let mut seen = Vec::new();
    for _ in 0..2 {
        let store = MemoryStore::with_marks();
        let script = Script::new(7, Faults::some());
        let inner = store.target(spec_of("t", model()));
        let target = FaultyTarget::new(inner, script.clone());
        let mut outcomes = Vec::new();
        for _ in 0..50 {
            let Ok(opened) = target.open().await else { continue };
            let Ok(writer) = target.writer(opened.generation).await else { continue };
            outcomes.push(writer.acquire(&[claim(0, 0)]).await.map(|a| a.leases[0].epoch).ok());
        }
        seen.push((outcomes, script.counts()));
    }
    assert_eq!(seen[0], seen[1]);
    assert!(seen[0].1.len() >= 3, "{:?}", seen[0].1);
}
