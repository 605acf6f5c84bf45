//! The signals that end a worker.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Cancels on the first signal, ends the process on the second.
pub(crate) async fn cancel_on_signal(cancel: CancellationToken) {
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::error!("signals cannot be caught: the worker ends without flushing");
        return;
    };
    for turn in 0..2 {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        if turn == 0 {
            cancel.cancel();
        }
    }
    tracing::warn!("second signal: leaving at once");
    std::process::exit(1);
}
