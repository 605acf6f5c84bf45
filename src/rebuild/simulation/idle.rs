//! What an idle connector asks of its store.

use foldline_api::parked::Request;
use foldline_api::sink::DesiredState;

use super::*;
use crate::connector::State;

const HALF_AN_HOUR: Duration = Duration::from_secs(1_800);

impl World {
    /// A quiet world in which one event is folded, and nothing else for ten minutes.
    async fn idle(store: MemoryStore, change: impl Fn(&mut World)) -> Self {
        let mut world = World::quiet(store);
        for worker in world.workers.drain(..) {
            worker.stop().await;
        }
        change(&mut world);
        world.start_worker();
        world.until(|world| !world.store.positions("t").is_empty()).await;
        world.append().await;
        tokio::time::sleep(Duration::from_secs(600)).await;
        world
    }

    /// Calls of the store in so long.
    async fn calls_in(&self, time: Duration) -> u64 {
        let before = self.script.calls();
        tokio::time::sleep(time).await;
        self.script.calls() - before
    }

    fn connector(&self) -> &Connector {
        &self.workers[0].connector
    }

    async fn end(mut self) {
        for worker in self.workers.drain(..) {
            worker.stop().await;
        }
    }
}

fn in_both(test: impl AsyncFn(MemoryStore)) {
    runtime(3).block_on(async {
        test(MemoryStore::transactional()).await;
        test(MemoryStore::with_marks()).await;
    });
}

#[test]
fn it_asks_twice_a_minute_or_never_and_wakes_with_the_next_record() {
    in_both(async |store| {
        let world = World::idle(store.clone(), |_| {}).await;
        assert_eq!(world.calls_in(HALF_AN_HOUR).await, 60);
        world.append().await;
        let minute = world.calls_in(Duration::from_secs(60)).await;
        assert!((40..50).contains(&minute), "who folds asks every few seconds: {minute}");
        world.end().await;
        let never = |world: &mut World| world.idle_poll_interval = None;
        let world = World::idle(store, never).await;
        assert_eq!(world.calls_in(HALF_AN_HOUR).await, 0);
        world.append().await;
        world.end().await;
    });
}

#[test]
fn a_stopped_or_a_paused_one_asks_no_more() {
    in_both(async |store| {
        let world = World::idle(store, |_| {}).await;
        for (desired, state) in [
            (DesiredState::Paused, State::Paused),
            (DesiredState::Stopped, State::Stopped),
            (DesiredState::Running, State::Running),
        ] {
            world.connector().set_desired(desired).await.unwrap();
            tokio::time::sleep(Duration::from_millis(500)).await;
            assert_eq!(world.connector().view().state, state, "a command given here acts at once");
            tokio::time::sleep(Duration::from_secs(600)).await;
            assert_eq!(world.calls_in(HALF_AN_HOUR).await, 60, "{state:?}");
        }
        world.end().await;
    });
}

#[test]
fn a_command_given_elsewhere_is_seen_by_the_next_look() {
    in_both(async |store| {
        let world = World::idle(store, |_| {}).await;
        let elsewhere = world.store.target(world.spec.clone());
        elsewhere.set_desired(DesiredState::Paused).await.unwrap();
        tokio::time::sleep(Duration::from_secs(31)).await;
        assert_eq!(world.connector().view().state, State::Paused);
        elsewhere.set_desired(DesiredState::Running).await.unwrap();
        tokio::time::sleep(Duration::from_secs(600)).await;
        assert_eq!(world.connector().view().state, State::Running);
        // A build that another worker began is taken part in.
        let infos = world.group.partitions().await.unwrap();
        let books = elsewhere.status().await.unwrap();
        let beginnings = crate::rebuild::beginnings("c", &books, &infos, false).unwrap();
        let (by, goals) = (foldline_api::rebuild::By::Operator, crate::rebuild::goals(&infos));
        let build = elsewhere.rebuilds().begin(by, &beginnings, &goals).await.unwrap();
        world.until(|world| world.connector().view().generation == build).await;
        world.end().await;
    });
}

#[test]
fn a_rebuild_asked_for_here_begins_at_once() {
    in_both(async |store| {
        let world = World::idle(store, |world| world.idle_poll_interval = None).await;
        let build = world.connector().rebuild(false).await.unwrap();
        tokio::time::sleep(Duration::from_secs(4)).await;
        assert_eq!(world.connector().view().generation, build);
        world.end().await;
    });
}

#[test]
fn parked_keys_cost_another_request_and_a_retry_is_carried_out_at_once() {
    in_both(async |store| {
        let park = |world: &mut World| {
            world.on_bad_record = OnBadRecord::Park;
            world.store.constrain("t", Some(Arc::new(|_: &Row| Some("no".to_owned()))));
        };
        let world = World::idle(store, park).await;
        assert_eq!(world.calls_in(HALF_AN_HOUR).await, 120);
        let place = world.connector().parked().await.unwrap()[0][0].place();
        let elsewhere = world.store.target(world.spec.clone());
        assert!(elsewhere.parking().ask(1, &place, Request::Retry).await.unwrap());
        // It is tried and stays, so the request is gone.
        tokio::time::sleep(Duration::from_secs(31)).await;
        let asked = Which { partitions: None, asked: true };
        assert!(elsewhere.parking().parked(1, &asked).await.unwrap().is_empty());
        tokio::time::sleep(Duration::from_secs(600)).await;
        world.store.constrain("t", None);
        assert!(world.connector().ask_parked(&place, Request::Retry).await.unwrap());
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(world.connector().view().parked_keys, 0);
        assert_eq!(world.store.rows("t").len(), 1);
        world.end().await;
    });
}

#[test]
fn who_waits_for_the_store_is_not_idle() {
    in_both(async |store| {
        let world = World::idle(store, |_| {}).await;
        world.script.hold();
        let record = (None, Some(bytes::Bytes::from_static(br#"{"id":1,"kind":"add","v":1}"#)));
        world.log.append_record("events", 0, record, Vec::new(), None);
        tokio::time::sleep(Duration::from_secs(600)).await;
        let minute = world.calls_in(Duration::from_secs(60)).await;
        assert!(minute > 30, "its record is still to be written: {minute}");
        world.script.release();
        world.append().await;
        world.end().await;
    });
}
