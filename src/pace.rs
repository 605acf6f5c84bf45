//! How often a connector asks its store what is wanted of it.
//!
//! While there is something to do its session, its part in rebuilds and its tasks each ask every few seconds. After five
//! minutes of nothing they all stop, and one look now and then stands for them: it wakes them where the books changed, and
//! so do a record and a command that is given here.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use foldline_api::rebuild::Generations;
use foldline_api::sink::DesiredState;
use prometheus::IntGauge;
use tokio::sync::Notify;
use tokio::time::Instant;

/// After so long with nothing to do a connector is idle.
const IDLE_AFTER: Duration = Duration::from_secs(300);

/// Whether a connector is idle, and who waits to hear that it no longer is.
#[derive(Debug)]
pub(crate) struct Pace {
    /// Between two looks of an idle connector; none where it does not look.
    idle_every: Option<Duration>,
    /// Records whose outcome is not durable.
    inflight: IntGauge,
    /// Paused or stopped: what is in flight stays there.
    rests: AtomicBool,
    /// When there was something to do last.
    last: Mutex<Instant>,
    seen: Mutex<Option<Seen>>,
    /// How often whoever waits was woken: all of them, in the order in which they began to wait.
    wakings: AtomicU64,
    woken: Notify,
}

/// Of the books, what makes a connector do something.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    live: u64,
    desired: DesiredState,
    build: Option<u64>,
    projection: serde_json::Value,
}

impl Pace {
    /// Of a connector that begins now.
    pub(crate) fn new(idle_every: Option<Duration>, inflight: IntGauge) -> Self {
        Pace {
            idle_every,
            inflight,
            rests: AtomicBool::new(false),
            last: Mutex::new(Instant::now()),
            seen: Mutex::default(),
            wakings: AtomicU64::new(0),
            woken: Notify::new(),
        }
    }

    /// Whether nothing has been to do for a while, nor is now.
    pub(crate) fn is_idle(&self) -> bool {
        let last = self.last();
        if last.elapsed() < IDLE_AFTER {
            return false;
        }
        let pending = self.inflight.get() > 0 && !self.rests.load(Ordering::Relaxed);
        if pending {
            self.set_last();
        }
        !pending
    }

    /// Whether what is asked of the store by the clock is asked now: always, but by an idle connector that does not look.
    pub(crate) fn looks(&self) -> bool {
        self.idle_every.is_some() || !self.is_idle()
    }

    /// There is something to do. Who is idle looks at once.
    pub(crate) fn touch(&self) {
        if self.set_last().elapsed() >= IDLE_AFTER {
            self.wake();
        }
    }

    /// A command was given here: everybody looks at once.
    pub(crate) fn wake(&self) {
        self.set_last();
        self.wakings.fetch_add(1, Ordering::Relaxed);
        self.woken.notify_waiters();
    }

    /// How often whoever waits was woken until now.
    pub(crate) fn wakings(&self) -> u64 {
        self.wakings.load(Ordering::Relaxed)
    }

    /// Returns once there were more wakings than `seen`.
    pub(crate) async fn woken(&self, seen: &mut u64) {
        loop {
            // Before the count is read, so that none is missed.
            let woken = self.woken.notified();
            let wakings = self.wakings();
            if wakings != *seen {
                *seen = wakings;
                return;
            }
            woken.await;
        }
    }

    /// Whether the operator wants nothing to be folded.
    pub(crate) fn rest(&self, rests: bool) {
        self.rests.store(rests, Ordering::Relaxed);
    }

    /// The books say this; what is new, or a build under way, is something to do.
    pub(crate) fn saw(&self, books: &Generations) {
        let now = Seen {
            live: books.live,
            desired: books.desired,
            build: books.build.as_ref().map(|build| build.generation),
            projection: books.projection.clone(),
        };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let same = seen.as_ref().is_none_or(|before| *before == now);
        *seen = Some(now);
        drop(seen);
        if !same || books.build.is_some() {
            self.touch();
        }
    }

    /// When the next idle look is due, where the last one was then; none where there is none.
    pub(crate) fn idle_look(&self, last: Instant) -> Option<Instant> {
        Some((self.last() + IDLE_AFTER).max(last + self.idle_every?))
    }

    fn last(&self) -> Instant {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that there is something to do; when there was before.
    fn set_last(&self) -> Instant {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *last, Instant::now())
    }
}

/// When one of those who ask every few seconds is to ask.
#[derive(Debug)]
pub(crate) struct Looks<'a> {
    pace: &'a Pace,
    seen: u64,
}

impl<'a> Looks<'a> {
    /// Of one that begins to ask now.
    pub(crate) fn new(pace: &'a Pace) -> Self {
        Looks { pace, seen: pace.wakings() }
    }

    /// Returns when a look is due: at this time but where the connector is idle, or as soon as it is to look at once.
    pub(crate) async fn due(&mut self, at: Instant) {
        loop {
            let idle = self.pace.is_idle();
            tokio::select! {
                biased;
                () = self.pace.woken(&mut self.seen) => return,
                () = tokio::time::sleep_until(at), if !idle => {
                    if !self.pace.is_idle() {
                        return;
                    }
                }
            }
        }
    }
}
