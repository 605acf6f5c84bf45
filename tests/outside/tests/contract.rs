//! What every sink must keep.

use std::sync::Arc;

use async_trait::async_trait;
use foldline_api::kind::Sink;
use foldline_api::sink::{Target, TargetSpec};
use foldline_sink_memory::MemoryConfig;
use foldline_testkit::{MemoryStore, Store, sink_contract};

struct Memory(MemoryConfig);

#[async_trait]
impl Store for Memory {
    async fn target(&self, spec: TargetSpec) -> Arc<dyn Target> {
        self.0.target(spec).unwrap()
    }

    async fn drop_target(&self, target: &str) {
        self.0.store.drop_table(target);
    }

    async fn copy_target(&self, target: &str) {
        self.0.store.copy_table(target);
    }

    fn name(&self, case: &str) -> String {
        case.to_owned()
    }
}

#[tokio::test]
async fn the_store_keeps_the_contract() {
    for store in [MemoryStore::transactional(), MemoryStore::with_marks()] {
        sink_contract(&Memory(MemoryConfig { store })).await;
    }
}
