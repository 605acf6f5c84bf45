//! The sink as the worker knows it.

use std::path::PathBuf;
use std::sync::Arc;

use foldline_api::Result;
use foldline_api::kind::Sink;
use foldline_api::sink::{Target, TargetSpec};
use foldline_language::config::reader::Reader;
use foldline_language::config::schema::text;
use foldline_language::config::sink::{Key, SinkKind, TargetKey};

use crate::target::{self, SqliteConfig, SqliteTarget};

/// `type = "sqlite"`.
pub static KIND: SinkKind =
    SinkKind { name: "sqlite", description: "SQLite.", target: TargetKey::Table, keys, read };

/// A database that lives with the process.
const MEMORY: &str = ":memory:";

fn keys() -> Vec<Key> {
    vec![Key::required("path", text("The database file."))]
}

fn read(reader: &mut Reader<'_>) -> Option<Arc<dyn Sink>> {
    let path = reader.required("path", "\"foldline.db\"").and_then(|field| {
        let in_memory = field.node.as_str() == Some(MEMORY);
        if in_memory { Some(PathBuf::from(MEMORY)) } else { field.file_path() }
    });
    Some(Arc::new(SqliteConfig { path: path? }))
}

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
