//! The contract that every sink must pass.

use std::sync::Arc;

use async_trait::async_trait;
use foldline_api::kind::Sink;
use foldline_api::sink::{Target, TargetSpec};
use foldline_testkit::{Store, sink_contract};

use crate::support::{Bench, config};

struct Cluster(Bench);

#[async_trait]
impl Store for Cluster {
    async fn target(&self, spec: TargetSpec) -> Arc<dyn Target> {
        config().target(spec).unwrap()
    }

    async fn drop_target(&self, target: &str) {
        self.0.drop_indexes(&format!("{target}-g")).await;
    }

    async fn copy_target(&self, target: &str) {
        self.0.copy_indexes(&format!("{target}-g")).await;
    }

    // Beyond a double an index tells no numbers apart.
    fn orders(&self, ty: &str) -> bool {
        ty != "numeric"
    }

    fn name(&self, case: &str) -> String {
        format!("{}-{}", self.0.name, case.replace(' ', "-").to_lowercase())
    }

    fn looks_up(&self) -> bool {
        true
    }

    fn gathers(&self) -> bool {
        true
    }

    // Making an index takes most of the time, and most of that is waiting.
    fn at_once(&self) -> usize {
        8
    }
}

#[tokio::test]
async fn elasticsearch_keeps_the_contract() {
    let cluster = Cluster(Bench::new("contract"));
    sink_contract(&cluster).await;
    cluster.0.clean().await;
}
