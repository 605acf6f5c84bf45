//! Letters of a build that became live: about records that were good in the generation before, and are bad in this one.
//!
//! They stand in the books of the generation from the flush that moved its position past them until they are
//! acknowledged, so they leave whoever crashes. The worker that made the swap sends them at once; another does after a
//! while, in case that one is gone.

use std::time::Duration;

use foldline_api::error::Result;
use foldline_api::parked::Place;
use foldline_api::rebuild::Rebuilds;
use tokio::time::Instant;

use crate::connector_spec::ConnectorSpec;

/// Letters of one request.
const LETTERS_MAX: usize = 50;
/// After a failure.
const AGAIN: Duration = Duration::from_secs(5);
/// So long the worker that made the swap is left alone with its letters.
const OTHERS_AFTER: Duration = Duration::from_secs(30);

/// What this worker knows of letters that still have to leave.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    /// The generation that this is about.
    generation: u64,
    /// When it is looked at; none where it is empty.
    due: Option<Instant>,
}

impl Outbox {
    /// This worker made `generation` the live one.
    pub(super) fn swapped(&mut self, generation: u64) {
        *self = Outbox { generation, due: Some(Instant::now()) };
    }

    /// Whether letters may still have to leave.
    pub(super) fn has_some(&self) -> bool {
        self.due.is_some()
    }

    /// Sends what there is, once it is due.
    pub(super) async fn empty(
        &mut self,
        spec: &ConnectorSpec,
        rebuilds: &dyn Rebuilds,
        live: u64,
    ) -> Result<()> {
        if self.generation != live {
            // Left by a crash, or another worker's to send. The first look of a worker comes at once.
            let wait = if self.generation == 0 { Duration::ZERO } else { OTHERS_AFTER };
            *self = Outbox { generation: live, due: Some(Instant::now() + wait) };
        }
        if self.due.is_none_or(|due| due > Instant::now()) {
            return Ok(());
        }
        self.due = Some(Instant::now() + AGAIN);
        let count = send_all(spec, rebuilds, live).await?;
        self.due = None;
        if count > 0 {
            tracing::warn!(
                generation = live,
                letters = count,
                "the rebuild calls records bad that were good before: they were sent to the dead letters"
            );
        }
        Ok(())
    }
}

/// Sends the letters that wait in a generation; how many.
async fn send_all(spec: &ConnectorSpec, rebuilds: &dyn Rebuilds, live: u64) -> Result<u64> {
    let mut count = 0;
    loop {
        let letters = rebuilds.letters(live, LETTERS_MAX).await?;
        if letters.is_empty() {
            return Ok(count);
        }
        let (places, letters): (Vec<Place>, Vec<_>) = letters.into_iter().unzip();
        let ends = spec.dead_letters.send(&letters).await;
        let (mut sent, mut all) = (Vec::with_capacity(places.len()), Ok(()));
        for (place, end) in places.into_iter().zip(ends) {
            match end {
                Ok(()) => sent.push(place),
                Err(error) => all = all.and(Err(error)),
            }
        }
        rebuilds.sent(live, &sent).await?;
        spec.metrics.dead_lettered.inc_by(sent.len() as u64);
        count += sent.len() as u64;
        all?;
    }
}
