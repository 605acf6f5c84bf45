//! The one loop that outlasts machine problems.

use std::future::Future;

use foldline_api::error::{Error, Result};
use foldline_api::throttle::Throttle;
use tokio::time::Instant;

use crate::policy::{Reaction, backoff, reaction};

/// Who hears how the attempts go.
pub(crate) trait Attempts {
    /// An attempt at `what` failed and will be made again.
    fn failed(&self, what: &'static str, error: &Error);
    /// An attempt succeeded, be it the first.
    fn worked(&self);
}

/// Runs `call` until it succeeds or fails for a reason that waiting does not cure.
pub(crate) async fn retry<T, F: Future<Output = Result<T>>>(
    heard: &impl Attempts,
    what: &'static str,
    mut call: impl FnMut() -> F,
) -> Result<T> {
    let mut throttle = Throttle::default();
    let mut attempt = 0;
    loop {
        match call().await {
            Ok(value) => {
                if attempt > 0 {
                    tracing::info!(attempts = attempt + 1, "{what} works again");
                }
                heard.worked();
                return Ok(value);
            }
            Err(error) if reaction(error.class()) == Reaction::Retry => {
                heard.failed(what, &error);
                if throttle.admit(Instant::now().into_std()).is_some() {
                    tracing::warn!(%error, attempts = attempt + 1, "{what} failed, trying again");
                }
                tokio::time::sleep(backoff(attempt)).await;
                attempt += 1;
            }
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::log::captured;

    #[derive(Default)]
    struct Heard(Cell<u32>);

    impl Attempts for Heard {
        fn failed(&self, _: &'static str, _: &Error) {
            self.0.set(self.0.get() + 1);
        }

        fn worked(&self) {}
    }

    #[test]
    fn an_outage_of_an_hour_is_a_bounded_number_of_lines_that_name_their_span() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let heard = Heard::default();
        let lines = captured(|| {
            runtime.block_on(async {
                let over = Instant::now() + std::time::Duration::from_secs(3_600);
                let call = || async {
                    if Instant::now() < over { Err(Error::retriable("down")) } else { Ok(()) }
                };
                let span = tracing::error_span!("task", connector = "orders", task = 0);
                tracing::Instrument::instrument(retry(&heard, "load", call), span).await.unwrap();
            });
        });
        assert!(heard.0.get() > 120, "{}", heard.0.get());
        let warnings: Vec<&String> = lines.iter().filter(|l| l.contains("\"WARN\"")).collect();
        assert!((2..=121).contains(&warnings.len()), "{}", warnings.len());
        for line in &lines {
            assert!(line.contains(r#""connector":"orders""#), "{line}");
        }
        assert!(lines.last().is_some_and(|line| line.contains("load works again")), "{lines:?}");
    }
}
