//! Who runs: one task a connector, each with its own way down.

use std::collections::HashMap;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::connector::Connector;
use crate::metrics::Metrics;

/// One that was started under a name.
struct One {
    stop: CancellationToken,
    /// Cancelled once it has ended, also by a panic.
    ended: CancellationToken,
    /// It has no successor: its series go with it.
    removed: bool,
}

/// The connectors that run, by name.
#[derive(Default)]
pub(super) struct Running {
    /// One that was stopped stays, so that whoever takes its name waits for its end.
    by_name: HashMap<String, One>,
    tasks: TaskTracker,
}

impl Running {
    /// Runs a connector once the one that had its name has flushed, committed and left its group.
    pub(super) fn start(&mut self, connector: &Arc<Connector>) {
        let run = Arc::clone(connector);
        self.take_turns(connector.name(), |stop| run.run(stop));
    }

    /// Runs one under a name once the one before it has ended, unless it is to stop by then.
    fn take_turns<F: Future<Output = ()> + Send + 'static>(
        &mut self,
        name: &str,
        run: impl FnOnce(CancellationToken) -> F + Send + 'static,
    ) {
        let (stop, ended) = (CancellationToken::new(), CancellationToken::new());
        let one = One { stop: stop.clone(), ended: ended.clone(), removed: false };
        let before = self.by_name.insert(name.to_owned(), one);
        if let Some(before) = &before {
            before.stop.cancel();
        }
        self.tasks.spawn(async move {
            let _ends = ended.drop_guard();
            if let Some(before) = before {
                before.ended.cancelled().await;
            }
            if !stop.is_cancelled() {
                run(stop).await;
            }
        });
    }

    /// Lets a connector flush, commit and leave.
    pub(super) fn remove(&mut self, name: &str) {
        if let Some(one) = self.by_name.get_mut(name) {
            one.stop.cancel();
            one.removed = true;
        }
    }

    /// Takes the series of those away that were removed and have ended. Whoever makes connectors must not do so meanwhile:
    /// one that takes the name again writes to the series that it found.
    pub(super) fn forget_removed(&mut self, metrics: &Metrics) {
        self.by_name.retain(|name, one| {
            let gone = one.removed && one.ended.is_cancelled();
            if gone {
                metrics.forget(name);
            }
            !gone
        });
    }

    /// Lets all of them flush, commit and leave.
    pub(super) async fn stop(self) {
        self.by_name.values().for_each(|one| one.stop.cancel());
        self.tasks.close();
        self.tasks.wait().await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_takes_a_name_waits_for_the_end_of_the_one_before() {
        let mut running = Running::default();
        let seen = Arc::new(Mutex::new(Vec::new()));
        for turn in 0..3 {
            let seen = Arc::clone(&seen);
            running.take_turns("one", move |stop| async move {
                seen.lock().unwrap().push((turn, "begins"));
                stop.cancelled().await;
                // It flushes and leaves.
                tokio::time::sleep(std::time::Duration::from_secs(1)).await;
                seen.lock().unwrap().push((turn, "ends"));
                assert!(turn > 0, "one that panics has ended, too");
            });
            // The one in the middle is not even begun when the last one comes.
            if turn == 0 {
                tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            }
        }
        tokio::time::sleep(std::time::Duration::from_secs(5)).await;
        running.stop().await;
        let expect = [(0, "begins"), (0, "ends"), (2, "begins"), (2, "ends")];
        assert_eq!(*seen.lock().unwrap(), expect);
    }
}
