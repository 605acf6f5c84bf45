//! The contract of a sink. Each connection has a copy of its own, as each worker has.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use foldline_api::kind::Sink;
use foldline_api::sink::{Target, TargetSpec};
use foldline_testkit::{Store, sink_contract};

use crate::support::{delete, records, recreate, sink, write};

struct Kafka(u128);

#[async_trait]
impl Store for Kafka {
    async fn target(&self, spec: TargetSpec) -> Arc<dyn Target> {
        sink().target(spec).unwrap()
    }

    async fn drop_target(&self, target: &str) {
        delete(target).await;
    }

    async fn copy_target(&self, target: &str) {
        let before = records(target).await;
        recreate(target).await;
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        for record in before {
            let value = record.value.as_deref().map(text);
            let key = text(&record.key.unwrap());
            write(target, &[(record.partition, &key, value.as_deref())]).await;
        }
    }

    fn answers(&self) -> bool {
        false
    }

    fn name(&self, case: &str) -> String {
        format!("fl-state-{}-{case}", self.0)
    }

    fn at_once(&self) -> usize {
        4
    }

    fn keeps_generations(&self) -> bool {
        false
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sink_keeps_the_contract() {
    let run = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    sink_contract(&Kafka(run)).await;
}
