//! The sink as the worker knows it.

use std::sync::Arc;

use foldline_api::Result;
use foldline_api::kind::Sink;
use foldline_api::sink::{Target, TargetSpec};

use crate::config::ElasticsearchConfig;
use crate::plan::plan;
use crate::target::ElasticsearchTarget;

impl Sink for ElasticsearchConfig {
    fn target(&self, spec: TargetSpec) -> Result<Arc<dyn Target>> {
        Ok(Arc::new(ElasticsearchTarget::new(self, spec)?))
    }

    fn plan(&self, spec: &TargetSpec) -> Vec<String> {
        plan(spec)
    }

    fn speaks_sql(&self) -> bool {
        false
    }
}
