//! Parked keys as the operator sees them: what is set aside in the live generation, and what is wanted of it.

use foldline_api::error::Result;
use foldline_api::parked::{Parked, Place, Request, Which, groups};
use foldline_api::record::Record;

use super::Connector;

impl Connector {
    /// The parked events of the live generation, in groups that share keys: each is retried or dropped as a
    /// whole.
    ///
    /// # Errors
    /// When the books cannot be reached.
    pub async fn parked(&self) -> Result<Vec<Vec<Parked>>> {
        let target = self.opened_target()?;
        let live = target.status().await?.generation;
        Ok(groups(target.parking().parked(live, &Which::default()).await?))
    }

    /// The records of parked events, in the order of `places`.
    ///
    /// # Errors
    /// When the books cannot be reached.
    pub async fn parked_records(&self, places: &[Place]) -> Result<Vec<Record>> {
        let target = self.opened_target()?;
        let live = target.status().await?.generation;
        target.parking().records(live, places).await
    }

    /// Notes what is wanted of a parked event and all that share its keys; the owner of its partition carries
    /// it out. False where it is not parked.
    ///
    /// # Errors
    /// When the books cannot be reached.
    pub async fn ask_parked(&self, place: &Place, request: Request) -> Result<bool> {
        let target = self.opened_target()?;
        let live = target.status().await?.generation;
        let (topic, partition, offset) = (&place.0.topic, place.0.partition, place.1);
        let request_name = request.name();
        tracing::info!(connector = self.name(), %topic, partition, offset, request = request_name, "asked for");
        let noted = target.parking().ask(live, place, request).await?;
        self.pace.wake();
        Ok(noted)
    }
}
