//! Calls that run beside the loop.

use std::task::{Context, Poll, Waker};

use foldline_api::error::{Error, Result};
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

/// Runs a call beside the loop.
pub(super) fn spawn<T: Send + 'static>(
    future: impl Future<Output = T> + Send + 'static,
) -> AbortOnDropHandle<T> {
    AbortOnDropHandle::new(tokio::spawn(future.in_current_span()))
}

/// The same for a call that is to leave before the spawner goes on: what is spawned begins when the spawner waits.
pub(super) fn spawn_at_once<T: Send + 'static>(
    future: impl Future<Output = T> + Send + 'static,
) -> AbortOnDropHandle<T> {
    let mut future = Box::pin(future);
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(done) => spawn(std::future::ready(done)),
        Poll::Pending => spawn(future),
    }
}

/// Waits for a call that may not be under way; never ends if it is not.
pub(super) async fn join<T>(handle: Option<&mut AbortOnDropHandle<Result<T>>>) -> Result<T> {
    match handle {
        Some(handle) => match handle.await {
            Ok(result) => result,
            Err(error) => Err(Error::retriable("a call of the task broke off").with_source(error)),
        },
        None => std::future::pending().await,
    }
}
