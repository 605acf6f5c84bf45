//! Dead letters in memory.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use foldline_api::source::{DeadLetter, DeadLetters};
use foldline_api::{Error, Result};

/// Dead letters, kept in memory in the order they came.
#[derive(Clone, Debug, Default)]
pub struct MemoryDeadLetters(Arc<Mutex<Vec<DeadLetter>>>, Arc<AtomicBool>);

impl MemoryDeadLetters {
    /// All letters so far.
    #[must_use]
    pub fn letters(&self) -> Vec<DeadLetter> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes none from now on, as a topic that is away; or takes them again.
    pub fn refuse(&self, refuses: bool) {
        self.1.store(refuses, Ordering::Relaxed);
    }
}

#[async_trait]
impl DeadLetters for MemoryDeadLetters {
    async fn send(&self, letters: &[DeadLetter]) -> Vec<Result<()>> {
        if self.1.load(Ordering::Relaxed) {
            let away = || Err(Error::retriable("the topic of dead letters is away"));
            return letters.iter().map(|_| away()).collect();
        }
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(letters);
        letters.iter().map(|_| Ok(())).collect()
    }
}
