//! The sink as the worker knows it.

use std::sync::Arc;

use foldline_api::Result;
use foldline_api::kind::Sink;
use foldline_api::sink::{Target, TargetSpec};

use crate::config::PostgresConfig;
use crate::target::{self, PostgresTarget};

impl Sink for PostgresConfig {
    fn target(&self, spec: TargetSpec) -> Result<Arc<dyn Target>> {
        Ok(Arc::new(PostgresTarget::new(self.clone(), spec)?))
    }

    fn plan(&self, spec: &TargetSpec) -> Vec<String> {
        target::plan(spec, &self.schema)
    }

    fn speaks_sql(&self) -> bool {
        true
    }
}
