//! Reads the tree key by key: collects problems instead of stopping at the first, and knows which
//! keys were asked for, so that what is left over is unknown.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::diagnostic::{Diagnostic, closest, join, listed};
use super::env::Env;
use super::form::KeyForm;
use super::key::{Key, Presence};
use super::scalar::{DURATION_FORM, SIZE_FORM, parse_duration, parse_size};
use super::secret;
use super::tree::{At, Item, Node, Table};

/// Keys that each kind of table takes.
pub type KnownKeys = BTreeMap<Cow<'static, str>, BTreeSet<&'static str>>;

/// Reads a file that a secret is in; the language reads none itself.
pub type ReadFile = fn(&Path) -> Result<String, String>;

/// A file that a value names, and the key path of that value.
pub type NamedFile = (String, PathBuf);

/// What all readers of one load share.
#[derive(Debug)]
pub struct Context<'a> {
    /// The variables that secrets may name.
    pub env: &'a Env,
    pub(super) read_file: ReadFile,
    problems: RefCell<Vec<Diagnostic>>,
    /// A test compares them with the JSON Schema.
    known: RefCell<KnownKeys>,
    named: RefCell<Vec<NamedFile>>,
}

impl<'a> Context<'a> {
    /// A load that has found no problem yet, and takes no secret from a file.
    pub fn new(env: &'a Env) -> Self {
        let read_file: ReadFile = |_| Err("no files are read here".to_owned());
        let (problems, known, named) = Default::default();
        Self { env, read_file, problems, known, named }
    }

    /// The same, with secrets from files.
    #[must_use]
    pub fn with_files(self, read_file: ReadFile) -> Self {
        Self { read_file, ..self }
    }

    /// Adds a problem.
    pub fn push(&self, problem: Diagnostic) {
        self.problems.borrow_mut().push(problem);
    }

    /// The files that values have named so far.
    pub fn named_files(&self) -> Vec<NamedFile> {
        self.named.borrow().clone()
    }

    /// The problems found, and the keys that each kind of table was asked for.
    pub fn into_parts(self) -> (Vec<Diagnostic>, KnownKeys) {
        (self.problems.into_inner(), self.known.into_inner())
    }
}

/// A value, and the key path that leads to it.
#[derive(Clone, Debug)]
pub struct Field<'a> {
    /// What is shared with all readers of the load.
    pub cx: &'a Context<'a>,
    /// Its key path.
    pub path: String,
    /// The value and its place.
    pub node: &'a Node,
}

impl<'a> Field<'a> {
    /// Tells a problem with this value, unless a variable in it is missing, which is told already.
    pub fn problem(&self, message: impl Into<String>) {
        if !self.node.missing {
            self.cx.push(self.node.at.problem(&self.path, message));
        }
    }

    /// The same with advice.
    pub fn problem_with_help(&self, message: impl Into<String>, help: impl Into<String>) {
        if !self.node.missing {
            self.cx.push(self.node.at.problem(&self.path, message).help(help));
        }
    }

    fn wrong<T>(&self, wanted: &str) -> Option<T> {
        self.problem(format!("found {}, expected {wanted}", self.found()));
        None
    }

    /// What stands there, for "found …": but not where it may be a secret, unless it is a word or a number where one
    /// was expected.
    fn found(&self) -> String {
        let word = |text: &str| {
            text.len() <= 20 && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c))
        };
        match self.node.as_str() {
            Some(text) if secret::may_be_at(&self.path) && !word(text) => {
                self.node.kind().to_owned()
            }
            _ => self.node.describe(),
        }
    }

    /// The same where a text or a table was expected, so that anything may be a secret.
    pub fn wrong_kind<T>(&self, wanted: &str) -> Option<T> {
        if !secret::may_be_at(&self.path) {
            return self.wrong(wanted);
        }
        self.problem(format!("found {}, expected {wanted}", self.node.kind()));
        None
    }

    /// The file that it stands in.
    pub fn file(&self) -> &str {
        &self.node.at.file
    }

    /// A text that is not empty.
    pub fn text(&self) -> Option<String> {
        match self.node.as_str() {
            Some("") => {
                self.problem("is empty");
                None
            }
            Some(text) => Some(text.to_owned()),
            None => self.wrong_kind("a text"),
        }
    }

    /// A text; a number or boolean is taken for its text, as Kafka has texts only.
    pub fn plain_text(&self) -> Option<String> {
        match &self.node.item {
            Item::Scalar(toml::Value::String(text)) => Some(text.clone()),
            Item::Scalar(toml::Value::Integer(number)) => Some(number.to_string()),
            Item::Scalar(toml::Value::Float(number)) => Some(number.to_string()),
            Item::Scalar(toml::Value::Boolean(value)) => Some(value.to_string()),
            Item::Scalar(_) | Item::List(_) | Item::Table(_) => self.wrong_kind("a text"),
        }
    }

    /// `true` or `false`.
    pub fn flag(&self) -> Option<bool> {
        match &self.node.item {
            Item::Scalar(toml::Value::Boolean(value)) => return Some(*value),
            Item::Scalar(toml::Value::String(text)) if self.node.soft => {
                if let Ok(value) = text.trim().to_lowercase().parse() {
                    return Some(value);
                }
            }
            Item::Scalar(_) | Item::List(_) | Item::Table(_) => {}
        }
        self.wrong("`true` or `false`")
    }

    /// An integer between two bounds.
    pub fn number<T: TryFrom<i64>>(&self, min: i64, max: i64) -> Option<T> {
        let found = match &self.node.item {
            Item::Scalar(toml::Value::Integer(number)) => Some(*number),
            Item::Scalar(toml::Value::String(text)) if self.node.soft => text.trim().parse().ok(),
            Item::Scalar(_) | Item::List(_) | Item::Table(_) => None,
        };
        let allowed = found.filter(|number| (min..=max).contains(number));
        match allowed.and_then(|number| T::try_from(number).ok()) {
            Some(number) => Some(number),
            None if max == i64::MAX => self.wrong(&format!("an integer from {min}")),
            None => self.wrong(&format!("an integer from {min} to {max}")),
        }
    }

    /// A duration with its unit.
    pub fn duration(&self) -> Option<Duration> {
        let parsed = self.node.as_str().and_then(parse_duration);
        parsed.or_else(|| self.wrong(DURATION_FORM))
    }

    /// A size with its unit, in bytes.
    pub fn size(&self) -> Option<u64> {
        let parsed = self.node.as_str().and_then(parse_size);
        parsed.or_else(|| self.wrong(SIZE_FORM))
    }

    /// One of some names.
    pub fn choice<T: Clone>(&self, choices: &[(&str, T)]) -> Option<T> {
        let names = || choices.iter().map(|(name, _)| *name);
        let Some(text) = self.node.as_str() else {
            return self.wrong(&format!("one of {}", listed(names())));
        };
        if let Some((_, value)) = choices.iter().find(|(name, _)| *name == text) {
            return Some(value.clone());
        }
        let wanted = match choices {
            [(only, _)] => format!("`{only}`"),
            _ => format!("one of {}", listed(names())),
        };
        self.not_among(&wanted, text, names());
        None
    }

    /// Says that `text` is none of `names`, with the nearest.
    pub fn not_among<'n>(
        &self,
        wanted: &str,
        text: &str,
        names: impl IntoIterator<Item = &'n str>,
    ) {
        let message = format!("found {}, expected {wanted}", self.found());
        match closest(text, names) {
            Some(name) => self.problem_with_help(message, format!("did you mean `{name}`?")),
            None => self.problem(message),
        }
    }

    /// A text that names an entry of another table.
    pub fn reference<'n>(
        &self,
        what: &str,
        names: impl Iterator<Item = &'n str> + Clone,
    ) -> Option<String> {
        let text = self.text()?;
        if names.clone().any(|name| name == text) {
            return Some(text);
        }
        let wanted = match names.clone().next() {
            None => format!("the name of a {what}, and there is none"),
            Some(_) => format!("the name of a {what}: {}", listed(names.clone())),
        };
        self.not_among(&wanted, &text, names);
        None
    }

    /// The items of a list; a text from a variable is split at commas.
    pub fn list(&self, wanted: &str) -> Option<Vec<Field<'a>>> {
        let Item::List(nodes) = &self.node.item else { return self.wrong_kind(wanted) };
        let item =
            |(index, node)| Field { cx: self.cx, path: format!("{}[{index}]", self.path), node };
        Some(nodes.iter().enumerate().map(item).collect())
    }

    /// A list of texts; a text from a variable is split at commas.
    pub fn texts(&self) -> Option<Vec<String>> {
        match self.node.as_str() {
            Some(text) if self.node.soft => {
                Some(text.split(',').map(|part| part.trim().to_owned()).collect())
            }
            _ => Some(self.list("a list of texts")?.iter().filter_map(Field::text).collect()),
        }
    }

    /// A path; a relative one starts at the directory of the file that names it.
    pub fn file_path(&self) -> Option<PathBuf> {
        let path = self.beside(&self.text()?);
        self.cx.named.borrow_mut().push((self.path.clone(), path.clone()));
        Some(path)
    }

    fn beside(&self, text: &str) -> PathBuf {
        let directory = match self.node.at.line {
            Some(_) => Path::new(self.file()).parent(),
            None => None,
        };
        directory.map_or_else(|| PathBuf::from(text), |directory| directory.join(text))
    }

    /// The entries of a table whose keys are names.
    pub fn entries(&self) -> Option<Vec<(&'a str, Field<'a>)>> {
        let Item::Table(table) = &self.node.item else { return self.wrong_kind("a table") };
        let entry = |(key, node): (&'a String, &'a Node)| {
            (key.as_str(), Field { cx: self.cx, path: join(&self.path, key), node })
        };
        Some(table.iter().map(entry).collect())
    }

    /// A table with known keys.
    pub fn table(&self, kind: impl Into<Cow<'static, str>>) -> Option<Reader<'a>> {
        let Item::Table(table) = &self.node.item else { return self.wrong_kind("a table") };
        let at = self.node.at.clone();
        Some(Reader::new(self.cx, kind, self.path.clone(), at, table))
    }

    /// Whether it is a table.
    pub fn is_table(&self) -> bool {
        matches!(self.node.item, Item::Table(_))
    }
}

/// One table; the keys that are asked for are the keys that it takes.
#[derive(Debug)]
pub struct Reader<'a> {
    /// What is shared with all readers of the load.
    pub cx: &'a Context<'a>,
    /// Its key path.
    pub path: String,
    kind: Cow<'static, str>,
    at: At,
    table: &'a Table,
    seen: BTreeSet<&'static str>,
}

impl<'a> Reader<'a> {
    /// Reads a table at a key path; `kind` names its form.
    pub fn new(
        cx: &'a Context<'a>,
        kind: impl Into<Cow<'static, str>>,
        path: String,
        at: At,
        table: &'a Table,
    ) -> Self {
        Self { cx, path, kind: kind.into(), at, table, seen: BTreeSet::new() }
    }

    /// Tells a problem with the table as a whole.
    pub fn problem(&self, message: impl Into<String>) {
        self.cx.push(self.at.problem(&self.path, message));
    }

    /// The same with advice.
    pub fn problem_with_help(&self, message: impl Into<String>, help: impl Into<String>) {
        self.cx.push(self.at.problem(&self.path, message).help(help));
    }

    /// What stands at a key, or its default.
    pub fn read<F: KeyForm, P: Presence<F>>(&mut self, key: &Key<F, P>) -> P::Out<'a> {
        let found = self.field(key).and_then(|field| key.read(&field));
        key.settle(found)
    }

    /// The field of a key, unread; one that must be there and is not is told.
    pub fn field<F: KeyForm, P: Presence<F>>(&mut self, key: &Key<F, P>) -> Option<Field<'a>> {
        let field = self.given(key);
        if let (None, Some(example)) = (&field, key.example()) {
            let name = key.name;
            self.problem_with_help(format!("`{name}` is missing"), format!("{name} = {example}"));
        }
        field
    }

    /// The field of a key, unread, if it is there.
    pub fn given<F: KeyForm, P: Presence<F>>(&mut self, key: &Key<F, P>) -> Option<Field<'a>> {
        self.know(key.name);
        let node = self.table.get(key.name)?;
        Some(Field { cx: self.cx, path: join(&self.path, key.name), node })
    }

    /// Takes a key for known.
    pub(super) fn know(&mut self, key: &'static str) {
        self.seen.insert(key);
    }

    /// Whether the table has this key.
    pub fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// Reports the keys that nobody asked for.
    pub fn finish(self) {
        self.finish_advising(|_| None);
    }

    /// The same, with advice for words that are known elsewhere.
    pub fn finish_hinting(self, hint: impl Fn(&str) -> Option<&'static str>) {
        self.finish_advising(|key| hint(key).map(str::to_owned));
    }

    /// The same, with advice where no known key is near.
    pub fn finish_with_help(self, help: &str) {
        self.finish_advising(|_| Some(help.to_owned()));
    }

    fn finish_advising(self, help: impl Fn(&str) -> Option<String>) {
        let known = || self.seen.iter().copied();
        for (key, node) in self.table {
            if self.seen.contains(key.as_str()) {
                continue;
            }
            let message = format!("unknown key; known are {}", listed(known()));
            let problem = node.at.problem(&join(&self.path, key), message);
            self.cx.push(match (closest(key, known()), help(key)) {
                (Some(name), _) => problem.help(format!("did you mean `{name}`?")),
                (None, Some(help)) => problem.help(help),
                (None, None) => problem,
            });
        }
        self.cx.known.borrow_mut().entry(self.kind).or_default().extend(known());
    }
}
