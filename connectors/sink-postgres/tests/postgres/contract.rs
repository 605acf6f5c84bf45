//! What every sink must do.

use std::sync::Arc;

use async_trait::async_trait;
use foldline_api::sink::{Target, TargetSpec};
use foldline_testkit::{Store, sink_contract};

use crate::support::Fixture;

struct Postgres(Fixture);

#[async_trait]
impl Store for Postgres {
    async fn target(&self, spec: TargetSpec) -> Arc<dyn Target> {
        Arc::new(self.0.target(spec))
    }

    async fn drop_target(&self, target: &str) {
        self.0.sql.batch_execute(&format!("DROP TABLE {target}")).await.unwrap();
    }

    fn name(&self, case: &str) -> String {
        format!("{}.{case}", self.0.schema)
    }
}

#[tokio::test]
async fn postgres_keeps_the_contract_of_a_sink() {
    sink_contract(&Postgres(Fixture::new().await)).await;
}
