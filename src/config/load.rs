//! From a path to a checked config: read, merge, overlay, interpolate, check.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use foldline_language::config::checks::resolve_children;
use foldline_language::config::diagnostic::{Diagnostic, sort};
use foldline_language::config::env::Env;
use foldline_language::config::form::{Entries, SubTable};
use foldline_language::config::interpolate::interpolate_node;
use foldline_language::config::key::{Key, Section};
use foldline_language::config::names::check_name;
use foldline_language::config::places::Places;
use foldline_language::config::projection::ProjectionConfig;
use foldline_language::config::projections::{self, PROJECTIONS};
use foldline_language::config::reader::{Context, Field, KnownKeys, Reader};
use foldline_language::config::schema::of;
use foldline_language::config::tree::{At, Item, Node, Table, merge, parse};
use indexmap::IndexMap;

use super::connector::{self, ConnectorConfig};
use super::prints::Prints;
use super::registry::{self, RegistryConfig};
use super::sink::{self, SinkConfig};
use super::source::{self, SourceConfig};
use super::worker::{self, Worker};
use super::{checks, layers};

/// The whole config, checked in form; expressions and types are not compiled yet.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// What belongs to the process.
    pub worker: Worker,
    /// Where events come from.
    pub sources: IndexMap<String, SourceConfig>,
    /// The pure folds.
    pub projections: IndexMap<String, ProjectionConfig>,
    /// Target stores.
    pub sinks: IndexMap<String, SinkConfig>,
    /// Projections running into sinks.
    pub connectors: IndexMap<String, ConnectorConfig>,
    /// Where schemas come from.
    pub registries: IndexMap<String, RegistryConfig>,
    /// Where each key stands.
    pub places: Places,
    /// The file or directory that it was read from.
    pub path: PathBuf,
    pub(super) prints: Prints,
}

/// Loads a TOML file, or a directory's `**/*.toml` as one config.
///
/// # Errors
/// All problems at once.
pub fn load(path: &Path, env: &Env) -> Result<Config, Vec<Diagnostic>> {
    load_knowing(path, env).0
}

pub(super) fn load_knowing(path: &Path, env: &Env) -> (Result<Config, Vec<Diagnostic>>, KnownKeys) {
    match read_tree(path, env) {
        Ok((tree, problems)) => {
            let (mut config, found, known) = check(&tree, env);
            path.clone_into(&mut config.path);
            let mut problems: Vec<Diagnostic> = problems.into_iter().chain(found).collect();
            sort(&mut problems);
            (if problems.is_empty() { Ok(config) } else { Err(problems) }, known)
        }
        Err(problems) => (Err(problems), KnownKeys::new()),
    }
}

/// Checks one text as a config of its own; it has no environment.
///
/// # Errors
/// All problems at once.
pub(crate) fn load_text(name: &str, text: &str) -> Result<Config, Vec<Diagnostic>> {
    let env = Env::default();
    let mut tree = parse(&Arc::from(name), text)?;
    let mut problems = Vec::new();
    for (key, node) in &mut tree {
        interpolate_node(node, key, &env, &mut problems);
    }
    let (config, found, _) = check(&tree, &env);
    problems.extend(found);
    if problems.is_empty() { Ok(config) } else { Err(problems) }
}

/// What would be wrong if `[connectors.NAME]` were this.
pub(super) fn check_with(
    path: &Path,
    env: &Env,
    (name, connector): (&str, Node),
) -> Result<Vec<Diagnostic>, Vec<Diagnostic>> {
    let (mut tree, _) = read_tree(path, env)?;
    let all = tree
        .entry("connectors".to_owned())
        .or_insert_with(|| Node { item: Item::Table(Table::new()), ..connector.clone() });
    if let Item::Table(all) = &mut all.item {
        all.insert(name.to_owned(), connector);
    }
    Ok(check(&tree, env).1)
}

/// The merged tree, and what is wrong with single values of it.
fn read_tree(path: &Path, env: &Env) -> Result<(Table, Vec<Diagnostic>), Vec<Diagnostic>> {
    let mut problems = Vec::new();
    let mut tree = Table::new();
    for file in files(path)? {
        let name: Arc<str> = Arc::from(file.display().to_string());
        let text = std::fs::read_to_string(&file).map_err(|error| {
            vec![Diagnostic::new(&*name, "", format!("cannot be read: {error}"))]
        })?;
        match parse(&name, &text) {
            Ok(table) => merge(&mut tree, table, &mut problems),
            Err(broken) => problems.extend(broken),
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let mut tree = layers::overlay(tree, env)?;
    for (key, node) in &mut tree {
        interpolate_node(node, key, env, &mut problems);
    }
    Ok((tree, problems))
}

/// The file, or the directory's `**/*.toml`, sorted. Hidden ones are left out, and so are directories
/// named `examples`: each of them holds configs of its own, one more worker in every one.
///
/// # Errors
/// Where a directory cannot be read or holds no such file.
pub fn files(path: &Path) -> Result<Vec<PathBuf>, Vec<Diagnostic>> {
    let shown = path.display().to_string();
    let unreadable = |error: std::io::Error| {
        let problem = Diagnostic::new(&*shown, "", format!("cannot be read: {error}"));
        vec![problem.help(
            "name the config: `foldline run PATH`, -c PATH or FOLDLINE_CONFIG; where none is named it is `config/`. \
             `foldline demo` needs none",
        )]
    };
    if !std::fs::metadata(path).map_err(unreadable)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut found = Vec::new();
    let mut directories = vec![path.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory).map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            // Kubernetes mounts a ConfigMap's files as links into a hidden directory.
            if entry.file_name().to_string_lossy().starts_with('.') {
                continue;
            }
            let path = entry.path();
            if path.is_dir() {
                if entry.file_name() != "examples" {
                    directories.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "toml") {
                found.push(path);
            }
        }
    }
    if found.is_empty() {
        return Err(vec![Diagnostic::new(&*shown, "", "holds no `.toml` file")]);
    }
    found.sort();
    Ok(found)
}

pub(super) static ROOT: Section = Section {
    name: "root",
    doc: "Foldline's config",
    keys: &[&WORKER, &REGISTRIES, &SOURCES, &PROJECTIONS, &SINKS, &CONNECTORS],
};

const WORKER: Key<SubTable> =
    Key::new("worker", SubTable(&worker::WORKER), "What belongs to the process");
const REGISTRIES: Key<Entries> =
    Key::new("registries", Entries(|| of("registry")), "Where schemas come from");
const SOURCES: Key<Entries> =
    Key::new("sources", Entries(|| of("source")), "Where events come from");
const SINKS: Key<Entries> = Key::new("sinks", Entries(|| of("sink")), "Target stores");
const CONNECTORS: Key<Entries> = Key::new(
    "connectors",
    Entries(|| of(connector::keys::CONNECTOR.name)),
    "Projections running into sinks",
);

fn check(tree: &Table, env: &Env) -> (Config, Vec<Diagnostic>, KnownKeys) {
    let read_file = |path: &Path| std::fs::read_to_string(path).map_err(|error| error.to_string());
    let cx = Context::new(env).with_files(read_file);
    let file = tree.values().next().map_or_else(|| Arc::from("config"), |n| Arc::clone(&n.at.file));
    let mut root = Reader::new(&cx, &ROOT, String::new(), At { file, line: None }, tree);
    let worker = root.read(&WORKER).map(worker::read).unwrap_or_default();
    let [registries, sources, projections, sinks, connectors] =
        [&REGISTRIES, &SOURCES, &PROJECTIONS, &SINKS, &CONNECTORS].map(|key| {
            let entries = root.read(key).unwrap_or_default();
            entries.iter().for_each(|(name, field)| check_name(field, name));
            entries
        });
    root.finish();
    let names = |entries: &[(&'_ str, Field<'_>)]| -> Vec<String> {
        entries.iter().map(|(name, _)| (*name).to_owned()).collect()
    };
    let (source_names, registry_names) = (names(&sources), names(&registries));
    let source_names: Vec<&str> = source_names.iter().map(String::as_str).collect();
    let registry_names: Vec<&str> = registry_names.iter().map(String::as_str).collect();
    let mut config = Config { worker, ..Config::default() };
    config.registries = each(&registries, |n, f| registry::read(n, f, &source_names));
    config.sources = each(&sources, |n, f| source::read(n, f, &registry_names));
    config.projections = each(&projections, projections::read);
    resolve_children(&mut config.projections);
    config.sinks = each(&sinks, |n, f| sink::read(n, f, &config.registries));
    let refer = connector::Names {
        worker: &config.worker.name,
        sources: source_names,
        projections: projections.iter().map(|(name, _)| *name).collect(),
        sinks: sinks.iter().map(|(name, _)| *name).collect(),
        connectors: connectors.iter().map(|(name, _)| *name).collect(),
        checked: &config.sinks,
    };
    config.connectors = each(&connectors, |n, f| connector::read(n, f, &refer));
    tell_of_topics(&mut config);
    config.places = Places::of(tree);
    config.prints = Prints::of(tree, cx.named_files());
    for problem in checks::check(&config) {
        cx.push(problem);
    }
    let (problems, known) = cx.into_parts();
    (config, problems, known)
}

/// Each projection with an envelope knows what the sources that it is read from say of its topics.
fn tell_of_topics(config: &mut Config) {
    let Config { sources, projections, connectors, .. } = config;
    for projection in projections.values_mut().filter(|one| one.envelope.is_some()) {
        let own = connectors.values().filter(|one| one.projection == projection.name);
        let mut names: Vec<&str> = own.map(|connector| connector.source.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        let read = |source: &&SourceConfig| {
            names.is_empty() || names.binary_search(&source.name.as_str()).is_ok()
        };
        projection.sources = sources.values().filter(read).map(SourceConfig::facts).collect();
    }
}

fn each<T>(
    entries: &[(&str, Field<'_>)],
    read: impl Fn(&str, &Field<'_>) -> Option<T>,
) -> IndexMap<String, T> {
    let read = |(name, field): &(&str, Field<'_>)| Some(((*name).to_owned(), read(name, field)?));
    entries.iter().filter_map(read).collect()
}
