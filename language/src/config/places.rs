//! Where each key of a config stands.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::diagnostic::{Diagnostic, join};
use super::tree::{Item, Node, Table};

/// Where each key path stands, so that later checks can name file and line.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Places(BTreeMap<String, (Arc<str>, Option<usize>)>);

impl Places {
    /// A problem at a key path; where the path itself is not in a file, at the nearest above it.
    pub fn problem(&self, path: &str, message: impl Into<String>) -> Diagnostic {
        let mut known = path;
        loop {
            if let Some((file, line)) = self.0.get(known) {
                return Diagnostic::new(&**file, path, message).line(*line);
            }
            match known.rfind(['.', '[']) {
                Some(end) => known = known.split_at(end).0,
                None => return Diagnostic::new("config", path, message),
            }
        }
    }

    /// The places of a whole tree.
    #[must_use]
    pub fn of(tree: &Table) -> Self {
        let mut places = Self::default();
        for (key, node) in tree {
            places.add(key, node);
        }
        places
    }

    fn add(&mut self, path: &str, node: &Node) {
        self.0.insert(path.to_owned(), (Arc::clone(&node.at.file), node.at.line));
        match &node.item {
            Item::Scalar(_) => {}
            Item::List(nodes) => {
                for (index, node) in nodes.iter().enumerate() {
                    self.add(&format!("{path}[{index}]"), node);
                }
            }
            Item::Table(table) => {
                for (key, node) in table {
                    self.add(&join(path, key), node);
                }
            }
        }
    }
}
