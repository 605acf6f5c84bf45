//! Fingerprints of the config's sections, to tell at a reload which connectors changed.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use foldline_language::config::diagnostic::join;
use foldline_language::config::projection::Names;
use foldline_language::config::reader::NamedFile;
use foldline_language::config::tree::{Item, Node, Table};

use indexmap::IndexMap;

use super::{Config, ConnectorConfig, RegistryConfig, SinkConfig};

/// What a file holds; none where it cannot be read.
pub(crate) type Content = Option<Vec<u8>>;

/// What a file holds now.
pub(crate) fn content(file: &Path) -> Content {
    std::fs::read(file).ok()
}

/// The config's files with what they hold.
pub(crate) fn contents(path: &Path) -> Vec<(PathBuf, Content)> {
    let files = super::files(path).unwrap_or_default();
    files.into_iter().map(|file| (file.clone(), content(&file))).collect()
}

/// A number for each section, such as `sinks.search`: of its values after variables and layers, and of what stands in
/// the files that they name. It tells apart what one process has read; it is kept nowhere.
#[derive(Clone, Debug, Default)]
pub(crate) struct Prints {
    sections: BTreeMap<String, u64>,
    /// The files that values name.
    files: Vec<PathBuf>,
}

impl Prints {
    pub(super) fn of(tree: &Table, mut files: Vec<NamedFile>) -> Self {
        // `path` is where a store or a log lies: what stands there is data.
        files.retain(|(key, _)| !key.ends_with(".path"));
        let mut prints = BTreeMap::new();
        for (kind, node) in tree {
            let Item::Table(entries) = &node.item else { continue };
            for (name, entry) in entries {
                let section = join(kind, name);
                let print = print_of(&section, entry, &files);
                prints.insert(section, print);
            }
        }
        let mut files: Vec<PathBuf> = files.into_iter().map(|(_, path)| path).collect();
        files.sort();
        files.dedup();
        Prints { sections: prints, files }
    }

    fn get(&self, kind: &str, name: &str) -> Option<u64> {
        self.sections.get(&join(kind, name)).copied()
    }
}

fn print_of(section: &str, node: &Node, files: &[NamedFile]) -> u64 {
    let mut hasher = DefaultHasher::new();
    let mut value = node.to_value();
    // A projection's tests fold nothing.
    if let (toml::Value::Table(table), true) = (&mut value, section.starts_with("projections.")) {
        table.remove("tests");
    }
    value.to_string().hash(&mut hasher);
    for (key, path) in files {
        let within = key.strip_prefix(section).is_some_and(|rest| rest.starts_with(['.', '[']));
        if within {
            (key, content(path)).hash(&mut hasher);
        }
    }
    hasher.finish()
}

impl Config {
    /// A number that changes with all that a connector is made of, but for its share of `worker.memory`.
    pub(crate) fn print(&self, connector: &ConnectorConfig) -> u64 {
        let mut hasher = DefaultHasher::new();
        let mut add =
            |kind, name: &str| (kind, name, self.prints.get(kind, name)).hash(&mut hasher);
        add("connectors", &connector.name);
        add("sources", &connector.source);
        add("projections", &connector.projection);
        add("sinks", &connector.sink);
        for registry in self.sources.get(&connector.source).iter().flat_map(|one| one.registries())
        {
            add("registries", registry);
            let topic = self.registries.get(registry).and_then(RegistryConfig::source);
            topic.into_iter().for_each(|source| add("sources", source));
        }
        for registry in self.sinks.get(&connector.sink).into_iter().flat_map(SinkConfig::registries)
        {
            add("registries", registry);
        }
        // A regex leaves out the topics that all connectors send dead letters to.
        let regex = self
            .projections
            .get(&connector.projection)
            .is_some_and(|one| matches!(one.topics, Names::Regex(_)));
        if regex {
            for other in self.connectors.values() {
                other.errors.dead_letter_topic.hash(&mut hasher);
            }
        }
        hasher.finish()
    }

    /// The files that its values name, such as those of secrets and schemas.
    pub(crate) fn named_files(&self) -> Vec<PathBuf> {
        self.prints.files.clone()
    }

    /// Takes over the stores of sections that did not change: who is added shares them with those that run.
    pub(crate) fn share_unchanged(&mut self, with: &Config) {
        let registries = self.same_registries(with);
        for (name, sink) in &mut self.sinks {
            if let (true, Some(theirs)) = (
                same(self.prints.get("sinks", name), with.prints.get("sinks", name)),
                with.sinks.get(name),
            ) && (registries || sink.registries().next().is_none())
            {
                sink.clone_from(theirs);
            }
        }
    }

    /// Whether all that registries are made of is as it is in `with`.
    pub(crate) fn same_registries(&self, with: &Config) -> bool {
        let prints = |config: &Config| -> Vec<_> {
            let of = |(name, registry): (&String, &RegistryConfig)| {
                let source = registry.source().map(|source| config.prints.get("sources", source));
                (name.clone(), config.prints.get("registries", name), source)
            };
            config.registries.iter().map(of).collect()
        };
        prints(self) == prints(with)
    }

    /// Takes over a connector that it lacks, with the sections that it names and this one lacks.
    pub(crate) fn keep_connector(&mut self, name: &str, from: &Config) {
        let Some(connector) = from.connectors.get(name) else { return };
        self.connectors.insert(name.to_owned(), connector.clone());
        keep(&mut self.sources, &connector.source, &from.sources);
        keep(&mut self.projections, &connector.projection, &from.projections);
        keep(&mut self.sinks, &connector.sink, &from.sinks);
    }
}

fn same(one: Option<u64>, other: Option<u64>) -> bool {
    one.is_some() && one == other
}

fn keep<T: Clone>(all: &mut IndexMap<String, T>, name: &str, from: &IndexMap<String, T>) {
    if let (false, Some(kept)) = (all.contains_key(name), from.get(name)) {
        all.insert(name.to_owned(), kept.clone());
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use foldline_language::config::env::Env;

    const CONFIG: &str = r#"
[sources.events]
type = "file"
path = "log"
[projections.orders]
topics = ["orders"]
key = { id = "event.id" }
fields = { id = "text", kind = "text" }
[[projections.orders.on]]
event = "*"
set = { kind = "event.kind" }
[sinks.file]
type = "sqlite"
path = "orders.db"
[sinks.warehouse]
type = "postgres"
url = "postgres://localhost/db"
password = { file = "password" }
[connectors.one]
projection = "orders"
sink = "file"
[connectors.two]
projection = "orders"
sink = "warehouse"
table = "public.two"
"#;

    /// Writes a file beside the config, then reads the config: which of the two connectors are other ones now.
    fn changed_by(file: &str, text: &str) -> [bool; 2] {
        let folder = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| fs::write(folder.path().join(file), text).unwrap();
        let prints = || {
            let config = super::super::load(&folder.path().join("a.toml"), &Env::default());
            let config = config.unwrap_or_else(|problems| panic!("{problems:?}"));
            ["one", "two"].map(|name| config.print(&config.connectors[name]))
        };
        for (file, text) in [("a.toml", CONFIG), ("password", "one"), ("orders.db", "")] {
            write(file, text);
        }
        let before = prints();
        assert_eq!(prints(), before, "it is the same each time");
        write(file, text);
        let after = prints();
        [before[0] != after[0], before[1] != after[1]]
    }

    #[test]
    fn a_connector_is_another_one_by_what_it_is_made_of_and_by_nothing_else() {
        let with = |old: &str, new: &str| {
            assert!(CONFIG.contains(old));
            changed_by("a.toml", &CONFIG.replacen(old, new, 1))
        };
        let comment = format!("# about\n{CONFIG}");
        assert_eq!(changed_by("a.toml", &comment), [false, false], "a place is no part of it");
        assert_eq!(with("\"event.kind\"", "\"event.sort\""), [true, true]);
        assert_eq!(with("path = \"log\"", "path = \"logs\""), [true, true]);
        assert_eq!(with("localhost/db", "localhost/other"), [false, true]);
        assert_eq!(with("sink = \"file\"", "sink = \"file\"\ntasks_max = 2"), [true, false]);
        let tests = format!(
            "{CONFIG}\n[[projections.orders.tests]]\nname = \"t\"\ngiven = []\nexpect = []\n"
        );
        assert_eq!(changed_by("a.toml", &tests), [false, false], "tests fold nothing");
        assert_eq!(changed_by("password", "two"), [false, true]);
        assert_eq!(changed_by("orders.db", "rows"), [false, false], "a store is no config");
    }
}
