//! What is asked of the books every few seconds, whether anything happens or not.

use std::sync::PoisonError;

use foldline_api::Result;
use foldline_api::sink::StoredPosition;
use futures_util::future::try_join3;
use tokio_postgres::Client;

use crate::books::Entry;
use crate::error::classify;
use crate::generations::Generation;
use crate::session::{Lane, SNAPSHOT};
use crate::target::PostgresTarget;

/// What the books say of a target at one moment.
pub(crate) struct Look {
    pub(crate) entry: Entry,
    /// Those of all generations.
    positions: Vec<(u64, StoredPosition)>,
    /// The generations beside the live one, by number.
    pub(crate) beside: Vec<Generation>,
}

impl Look {
    /// The positions of a generation, by topic and partition.
    pub(crate) fn positions(&self, generation: u64) -> Vec<StoredPosition> {
        let mine = self.positions.iter().filter(|(of, _)| *of == generation);
        mine.map(|(_, position)| position.clone()).collect()
    }
}

impl PostgresTarget {
    /// What the books call the table.
    async fn label(&self, lane: &Lane) -> Result<String> {
        let known = self.label.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match known {
            Some(label) => Ok(label),
            None => {
                let session = lane.snapshot().await?;
                let table = self.resolve(&session.client).await;
                Ok(session.finish(table).await?.label())
            }
        }
    }

    /// The target's entry now: one statement, which needs no transaction around it.
    pub(crate) async fn glance(&self, lane: &Lane) -> Result<Entry> {
        let label = self.label(lane).await?;
        let session = lane.take().await?;
        let entry = self.books.entry(&session.client, &label, "").await;
        session.keep_if_open();
        self.owned(entry?, &label)
    }

    /// All that the books say now, in one round trip.
    pub(crate) async fn look(&self, lane: &Lane) -> Result<Look> {
        let label = self.label(lane).await?;
        let read = async |client: &Client| {
            try_join3(
                self.books.entry(client, &label, ""),
                self.books.all_positions(client, &label),
                self.books.generations(client, &label, ""),
            )
            .await
        };
        let refused = |error| classify(error, "reading the books");
        let (entry, positions, beside) =
            lane.take().await?.at_once(SNAPSHOT, read, refused).await?;
        Ok(Look { entry: self.owned(entry, &label)?, positions, beside })
    }
}
