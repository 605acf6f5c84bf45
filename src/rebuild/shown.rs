//! What a rebuild shows of itself.

use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

use super::progress::Progress;

/// What this worker shows of a connector's rebuild, and what wakes it up.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    pub(super) shown: Mutex<Shown>,
    pub(super) wake: Notify,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Shown {
    pub(super) progress: Option<Progress>,
    pub(super) old: Vec<u64>,
}

impl Watch {
    pub(super) fn lock(&self) -> std::sync::MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The rebuild under way, as this worker knows it.
    pub(crate) fn progress(&self) -> Option<Progress> {
        self.lock().progress.clone()
    }

    /// The generations kept for a rollback.
    pub(crate) fn kept(&self) -> Vec<u64> {
        self.lock().old.clone()
    }

    /// Looks at the books now.
    pub(crate) fn wake(&self) {
        self.wake.notify_one();
    }
}
