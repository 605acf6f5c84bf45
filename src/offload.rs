//! Work that keeps a processor busy, beside the runtime's other tasks: probes, REST, other connectors' sockets. How long it
//! takes depends on the machine and decides nothing but when others get their turn.

use std::time::Duration;

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::time::Instant;

/// After so long others get their turn.
const SLICE: Duration = Duration::from_millis(10);
/// What took longer is likely followed by more of it.
const SLOW: Duration = Duration::from_millis(1);
/// A record of so many bytes is not folded at once.
const LARGE: usize = 16 * 1024;

/// Runs `work` while another thread goes on with the runtime's tasks. A runtime of one thread, as tests have it, runs
/// it in its turn.
pub(crate) fn busy<T>(work: impl FnOnce() -> T) -> T {
    let threads = Handle::try_current().map(|handle| handle.runtime_flavor());
    match threads {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}

/// A loop over many records, most of them quick: handing the thread over for each would cost more than the record.
pub(crate) struct Pace {
    since: Instant,
    slow: bool,
}

impl Pace {
    pub(crate) fn new() -> Self {
        Pace { since: Instant::now(), slow: false }
    }

    /// Folds a record of so many bytes.
    pub(crate) fn run<T>(&mut self, bytes: usize, work: impl FnOnce() -> T) -> T {
        let begun = Instant::now();
        let done = if self.slow || bytes > LARGE { busy(work) } else { work() };
        self.slow = begun.elapsed() > SLOW;
        done
    }

    /// Lets others have the thread, once it was held for long.
    pub(crate) async fn rest(&mut self) {
        if self.since.elapsed() > SLICE {
            tokio::task::yield_now().await;
            self.since = Instant::now();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn others_go_on_while_one_is_busy() {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build();
        let answered = runtime.unwrap().block_on(async {
            tokio::spawn(async {
                let (send, receive) = mpsc::channel();
                tokio::spawn(async move { send.send(()).unwrap() });
                // The only thread is here; the other task ends meanwhile all the same.
                busy(|| receive.recv_timeout(Duration::from_secs(20)))
            })
            .await
            .unwrap()
        });
        assert_eq!(answered, Ok(()));
    }

    #[tokio::test]
    async fn a_runtime_of_one_thread_runs_it_in_its_turn() {
        assert_eq!(busy(|| 7), 7);
    }
}
