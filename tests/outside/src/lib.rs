//! A sink of one's own: rows live as long as the process.

use std::sync::Arc;

use foldline_api::Result;
use foldline_api::kind::Sink;
use foldline_api::sink::{Target, TargetSpec};
use foldline_language::config::form::Flag;
use foldline_language::config::key::{Key, Or};
use foldline_language::config::reader::Reader;
use foldline_language::config::sink::{SinkKind, TargetKey};
use foldline_testkit::MemoryStore;

/// `type = "memory"`.
pub static KIND: SinkKind = SinkKind {
    name: "memory",
    description: "A store in memory.",
    target: TargetKey::Table,
    keys: &[&TRANSACTIONS],
    read,
};

/// How to reach the store. Its `Debug` is shown, so secrets are left out of it.
#[derive(Clone, Debug)]
pub struct MemoryConfig {
    /// The store.
    pub store: MemoryStore,
}

const TRANSACTIONS: Key<Flag, Or<bool>> =
    Key::new("transactions", Flag, "Rows and positions change together").or(true);

fn read(reader: &mut Reader<'_>) -> Option<Arc<dyn Sink>> {
    let transactions = reader.read(&TRANSACTIONS);
    let store = if transactions { MemoryStore::transactional() } else { MemoryStore::with_marks() };
    Some(Arc::new(MemoryConfig { store }))
}

impl Sink for MemoryConfig {
    fn target(&self, spec: TargetSpec) -> Result<Arc<dyn Target>> {
        Ok(self.store.target(spec))
    }

    fn plan(&self, spec: &TargetSpec) -> Vec<String> {
        let column =
            |column: &foldline_api::model::Column| format!("{} {}", column.name, column.ty);
        let columns: Vec<String> = spec.model.columns.iter().map(column).collect();
        vec![format!("{}: {}", spec.target, columns.join(", "))]
    }

    fn speaks_sql(&self) -> bool {
        false
    }
}
