//! Dead letters of a member that is not the owner any more.

use std::sync::Arc;
use std::time::Duration;

use foldline_api::record::{Position, TopicPartition};
use foldline_api::sink::{Advance, Beginning, Flush, Written};
use foldline_api::source::DeadLetter;
use foldline_testkit::{Faults, MemoryStore, Rng, Script};

use super::World;
use crate::task::TaskStatus;
use crate::task::ops::{Ops, WriteEnd};

fn letter() -> DeadLetter {
    DeadLetter { key: None, value: None, headers: Vec::new(), timestamp: None }
}

#[tokio::test]
async fn a_letter_is_sent_under_a_lease_only() {
    for store in [MemoryStore::transactional(), MemoryStore::with_marks()] {
        let world = World::of("hot", store, Rng::new(0), Script::new(0, Faults::default()));
        world.begin().await;
        let writer = world.target().writer(1).await.unwrap();
        let partition = TopicPartition::new("events", 0);
        let claim = Beginning {
            partition: partition.clone(),
            topic_id: Some("1".to_owned()),
            position: Position(0),
        };
        let acquire = async || {
            let claims = std::slice::from_ref(&claim);
            writer.acquire(claims).await.unwrap().leases.remove(0).epoch
        };
        let flush = |epoch, from, to| {
            let (from, to) = (Position(from), Position(to));
            let advance = Advance { partition: partition.clone(), epoch, from, to };
            Arc::new(Flush { advances: vec![advance], ..Flush::default() })
        };
        let ops = Ops {
            writer: Arc::clone(&writer),
            target: world.target(),
            generation: 1,
            log: Arc::clone(&world.group) as _,
            dead_letters: Arc::new(world.letters.clone()),
            metrics: world.metrics.connector("c"),
            status: TaskStatus::default(),
        };
        let write =
            async |flush| ops.clone().write(vec![letter()], flush, Duration::ZERO).await.unwrap();
        let first = acquire().await;
        let written = write(flush(first, 0, 5)).await;
        assert!(matches!(written, WriteEnd::Known(Written::Durable(_))), "{written:?}");
        assert_eq!(world.letters.letters().len(), 1);
        // Another member takes over, and maybe moves on: what the first folds now is folded on its rows.
        let second = acquire().await;
        for stale in [flush(first, 5, 9), flush(second, 0, 5)] {
            let written = write(stale).await;
            assert!(matches!(written, WriteEnd::Unknown(_, None)), "{written:?}");
            assert_eq!(world.letters.letters().len(), 1);
        }
        write(flush(second, 5, 9)).await;
        assert_eq!(world.letters.letters().len(), 2);
    }
}
