//! A topic that is deleted and made again while a rebuild loads it.

use std::time::Duration;

use foldline_api::sink::Target;
use foldline_testkit::MemoryStore;

use super::World;
use crate::connector::State;
use crate::task::simulation::runtime;

#[test]
fn a_load_writes_nothing_of_a_topic_that_was_made_anew_under_it() {
    runtime(5).block_on(async {
        for store in [MemoryStore::transactional(), MemoryStore::with_marks()] {
            let mut world = World::quiet(store);
            world.until(|world| !world.store.positions("t").is_empty()).await;
            for _ in 0..3 {
                world.append().await;
            }
            let rows = world.store.rows("t");
            let held = world.store.positions("t");
            world.log.before_read(|log| {
                log.delete_topic("events");
                log.create_topic("events", crate::task::simulation::PARTITIONS);
                for _ in 0..9 {
                    log.append("events", 0, None, Some(r#"{"id":1,"kind":"add","v":2}"#));
                }
            });
            let asked = world.workers[0].connector.rebuild(false).await.unwrap();
            let failed = |world: &World| world.workers[0].connector.view().state == State::Failed;
            world.until(failed).await;
            tokio::time::sleep(Duration::from_secs(120)).await;
            let target = world.store.target(world.spec.clone());
            let found = target.rebuilds().generations().await.unwrap();
            assert_ne!(found.live, asked);
            if let Some(build) = found.build {
                let written = build.positions.iter().find(|stored| stored.position.0 > 0);
                assert!(written.is_none(), "{written:?} of the new topic");
            }
            assert_eq!((world.store.rows("t"), world.store.positions("t")), (rows, held));
            for worker in world.workers.drain(..) {
                worker.stop().await;
            }
        }
    });
}
