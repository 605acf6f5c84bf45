//! The sink as the worker knows it.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use foldline_api::Result;
use foldline_api::kind::Sink;
use foldline_api::removal::Owned;
use foldline_api::sink::{Target, TargetSpec};
use foldline_language::config::form::FilePath;
use foldline_language::config::key::{Key, Required};
use foldline_language::config::reader::Reader;
use foldline_language::config::sink::{SinkKind, TargetKey};

use crate::target::{self, SqliteConfig, SqliteTarget};

/// `type = "sqlite"`.
pub static KIND: SinkKind = SinkKind {
    name: "sqlite",
    description: "SQLite.",
    target: TargetKey::Table,
    keys: &[&PATH],
    read,
};

/// A database that lives with the process.
const MEMORY: &str = ":memory:";

const PATH: Key<FilePath, Required> =
    Key::new("path", FilePath, "The database file").required("\"foldline.db\"");

fn read(reader: &mut Reader<'_>) -> Option<Arc<dyn Sink>> {
    let field = reader.field(&PATH)?;
    let in_memory = field.node.as_str() == Some(MEMORY);
    let path = if in_memory { PathBuf::from(MEMORY) } else { field.file_path()? };
    Some(Arc::new(SqliteConfig { path }))
}

#[async_trait]
impl Sink for SqliteConfig {
    fn target(&self, spec: TargetSpec) -> Result<Arc<dyn Target>> {
        Ok(Arc::new(SqliteTarget::new(self.clone(), spec)?))
    }

    fn plan(&self, spec: &TargetSpec) -> Vec<String> {
        target::plan(spec)
    }

    async fn owned(&self, connector: &str) -> Result<Vec<Owned>> {
        target::owned(self, connector).await
    }

    fn speaks_sql(&self) -> bool {
        true
    }

    fn looks_up(&self) -> bool {
        true
    }
}
