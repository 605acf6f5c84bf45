//! The sink as the worker knows it.

use std::sync::Arc;

use foldline_api::Result;
use foldline_api::kind::Sink;
use foldline_api::sink::{Target, TargetSpec};

use crate::target::{self, SqliteConfig, SqliteTarget};

impl Sink for SqliteConfig {
    fn target(&self, spec: TargetSpec) -> Result<Arc<dyn Target>> {
        Ok(Arc::new(SqliteTarget::new(self.clone(), spec)?))
    }

    fn plan(&self, spec: &TargetSpec) -> Vec<String> {
        target::plan(spec)
    }

    fn speaks_sql(&self) -> bool {
        true
    }
}
