//! TOML as a tree that knows where each value stands: the parsed files before they are checked.

use std::ops::Range;
use std::sync::Arc;

use indexmap::IndexMap;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostic::{Diagnostic, join};
use super::secret;

/// Where a value stands: for an entry, its key's line.
#[derive(Clone, Debug)]
pub struct At {
    /// The file, or the environment variable as `$NAME`.
    pub file: Arc<str>,
    /// The line, from 1.
    pub line: Option<usize>,
}

impl At {
    /// A problem at this place.
    pub fn problem(&self, path: &str, message: impl Into<String>) -> Diagnostic {
        Diagnostic::new(&*self.file, path, message).line(self.line)
    }
}

/// A value and its place.
#[derive(Clone, Debug)]
pub struct Node {
    /// Where it stands.
    pub at: At,
    /// What stands there.
    pub item: Item,
    /// A text that came from outside (a variable): it is read by the type that is wanted.
    pub soft: bool,
    /// A variable in it is missing, which is said already: nothing more is said of this value.
    pub missing: bool,
}

/// A TOML value whose lists and tables are nodes again.
#[derive(Clone, Debug)]
pub enum Item {
    /// A text, a number, a boolean or a time.
    Scalar(toml::Value),
    /// A list.
    List(Vec<Node>),
    /// A table.
    Table(Table),
}

/// Keys and values, in the order of the file.
pub type Table = IndexMap<String, Node>;

impl Node {
    /// The text, if it is one.
    pub fn as_str(&self) -> Option<&str> {
        match &self.item {
            Item::Scalar(toml::Value::String(text)) => Some(text),
            Item::Scalar(_) | Item::List(_) | Item::Table(_) => None,
        }
    }

    /// The value without its places.
    pub fn to_value(&self) -> toml::Value {
        match &self.item {
            Item::Scalar(value) => value.clone(),
            Item::List(nodes) => toml::Value::Array(nodes.iter().map(Self::to_value).collect()),
            Item::Table(table) => toml::Value::Table(
                table.iter().map(|(key, node)| (key.clone(), node.to_value())).collect(),
            ),
        }
    }

    /// What kind of thing stands there, where it may be a secret.
    pub fn kind(&self) -> &'static str {
        match &self.item {
            Item::Scalar(toml::Value::String(_)) => "a text",
            Item::Scalar(toml::Value::Integer(_) | toml::Value::Float(_)) => "a number",
            Item::Scalar(toml::Value::Boolean(_)) => "a boolean",
            Item::Scalar(_) => "a date or time",
            Item::List(_) => "a list",
            Item::Table(_) => "a table",
        }
    }

    /// What stands there, for "found …".
    pub fn describe(&self) -> String {
        match &self.item {
            Item::Scalar(toml::Value::String(text)) => {
                let short: String = text.chars().take(40).collect();
                let dots = if short.len() < text.len() { "…" } else { "" };
                format!("the text {short:?}{dots}")
            }
            Item::Scalar(toml::Value::Integer(number)) => format!("the integer {number}"),
            Item::Scalar(toml::Value::Float(number)) => format!("the number {number:?}"),
            Item::Scalar(toml::Value::Boolean(value)) => format!("`{value}`"),
            Item::Scalar(value) => format!("the date or time {value}"),
            Item::List(nodes) if nodes.is_empty() => "an empty list".to_owned(),
            Item::List(_) | Item::Table(_) => self.kind().to_owned(),
        }
    }
}

/// Parses one file.
///
/// # Errors
/// Where it is not TOML: line, column and the line itself.
pub fn parse(file: &Arc<str>, text: &str) -> Result<Table, Vec<Diagnostic>> {
    let source = Source { file, starts: line_starts(text) };
    let document = DeTable::parse(text).map_err(|error| vec![source.syntax(text, &error)])?;
    let mut problems = Vec::new();
    let table = source.table(document.into_inner(), "", &mut problems);
    if problems.is_empty() { Ok(table) } else { Err(problems) }
}

/// A broken line is shown, but not with a password in it.
fn may_hold_secret(text: &str, start: usize, line: &str) -> bool {
    const NAMES: [&str; 5] = ["password", "secret", "token", "api_key", "ssl.key"];
    let lower = line.to_lowercase();
    let before = text.get(..start + line.len()).unwrap_or(text);
    NAMES.iter().any(|name| lower.contains(name))
        || line.contains("://")
        || secret::may_be_after(before)
}

struct Source<'a> {
    file: &'a Arc<str>,
    starts: Vec<usize>,
}

fn line_starts(text: &str) -> Vec<usize> {
    std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect()
}

impl Source<'_> {
    fn at(&self, span: &Range<usize>) -> At {
        let line = self.starts.partition_point(|start| *start <= span.start);
        At { file: Arc::clone(self.file), line: Some(line) }
    }

    fn syntax(&self, text: &str, error: &toml::de::Error) -> Diagnostic {
        let reason = error.message().trim_end_matches(", expected nothing");
        let mut diagnostic = Diagnostic::new(&**self.file, "", format!("not TOML: {reason}"));
        if reason.starts_with("invalid") {
            diagnostic.help = Some("a text stands in quotes".to_owned());
        }
        let Some(span) = error.span() else { return diagnostic };
        if reason.starts_with("duplicate key") && self.is_header(text, span.start) {
            let help = "where it is a list of tables (`on`, `tests`), each begins in double brackets: \
                        [[projections.NAME.on]]";
            diagnostic.help = Some(help.to_owned());
        }
        let line = self.at(&span).line.unwrap_or(1);
        let start = self.starts.get(line - 1).copied().unwrap_or(0);
        let shown = text.get(start..).unwrap_or("").lines().next().unwrap_or("");
        let before = text.get(start..span.start).unwrap_or("").chars().count();
        let room = shown.chars().count().saturating_sub(before).max(1);
        let width = text.get(span.clone()).map_or(1, |found| found.chars().count()).clamp(1, room);
        diagnostic.line = Some(line);
        diagnostic.column = Some(before + 1);
        if may_hold_secret(text, start, shown) {
            return diagnostic;
        }
        diagnostic.snippet = Some(format!("{shown}\n{}{}", " ".repeat(before), "^".repeat(width)));
        diagnostic
    }

    /// Whether a table begins in the line of `at`.
    fn is_header(&self, text: &str, at: usize) -> bool {
        let line = self.starts.partition_point(|start| *start <= at);
        let start = self.starts.get(line.saturating_sub(1)).copied().unwrap_or(0);
        text.get(start..).is_some_and(|rest| rest.trim_start().starts_with('['))
    }

    fn table(&self, table: DeTable<'_>, path: &str, problems: &mut Vec<Diagnostic>) -> Table {
        let mut out = Table::new();
        for (key, value) in table {
            let at = self.at(&key.span());
            let key = key.into_inner().into_owned();
            let node = self.node(value, at, &join(path, &key), problems);
            out.insert(key, node);
        }
        out
    }

    fn node(
        &self,
        value: Spanned<DeValue<'_>>,
        at: At,
        path: &str,
        problems: &mut Vec<Diagnostic>,
    ) -> Node {
        let item = match value.into_inner() {
            DeValue::Table(table) => Item::Table(self.table(table, path, problems)),
            DeValue::Array(array) => Item::List(
                array
                    .into_iter()
                    .enumerate()
                    .map(|(index, item)| {
                        let at = self.at(&item.span());
                        self.node(item, at, &format!("{path}[{index}]"), problems)
                    })
                    .collect(),
            ),
            scalar => match convert(scalar) {
                Ok(value) => Item::Scalar(value),
                Err(message) => {
                    problems.push(at.problem(path, message));
                    Item::Scalar(toml::Value::Boolean(false))
                }
            },
        };
        Node { at, item, soft: false, missing: false }
    }
}

fn convert(value: DeValue<'_>) -> Result<toml::Value, String> {
    match value {
        DeValue::String(text) => Ok(toml::Value::String(text.into_owned())),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map(toml::Value::Integer)
            .map_err(|_| format!("the integer {number} is beyond 64 bits; write it as a text")),
        DeValue::Float(number) => number
            .as_str()
            .parse::<f64>()
            .ok()
            .filter(|parsed| parsed.is_finite())
            .map(toml::Value::Float)
            .ok_or_else(|| format!("found {number}, expected a finite number")),
        DeValue::Boolean(value) => Ok(toml::Value::Boolean(value)),
        DeValue::Datetime(value) => Ok(toml::Value::Datetime(value)),
        DeValue::Array(_) | DeValue::Table(_) => Err("expected a plain value".to_owned()),
    }
}

/// Merges another file into the tree: tables join, any other key given twice is a problem, and so
/// is an entry (`sinks.warehouse`) with parts in two files.
pub fn merge(into: &mut Table, from: Table, problems: &mut Vec<Diagnostic>) {
    for (key, node) in from {
        let Some(existing) = into.get_mut(&key) else {
            into.insert(key, node);
            continue;
        };
        match (&mut existing.item, node.item) {
            (Item::Table(into), Item::Table(from)) => {
                for (name, node) in from {
                    if let Some(first) = into.get(&name) {
                        problems.push(given_twice(&join(&key, &name), &first.at, &node.at));
                    } else {
                        into.insert(name, node);
                    }
                }
            }
            _ => problems.push(given_twice(&key, &existing.at, &node.at)),
        }
    }
}

fn given_twice(path: &str, first: &At, second: &At) -> Diagnostic {
    let line = first.line.map_or(String::new(), |line| format!(":{line}"));
    second.problem(path, format!("given twice; it is also in {}{line}", first.file))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> Result<Table, Vec<Diagnostic>> {
        parse(&Arc::from("a.toml"), text)
    }

    #[test]
    fn order_types_and_lines_are_kept() {
        let table =
            file("b = 1\na = 2026-01-01T00:00:00Z\n[[c]]\nx = 1.50\n[[c]]\nx = {\n y = 2,\n}\n")
                .unwrap();
        assert_eq!(table.keys().collect::<Vec<_>>(), ["b", "a", "c"]);
        assert!(matches!(table["a"].item, Item::Scalar(toml::Value::Datetime(_))));
        let Item::List(items) = &table["c"].item else { panic!("a list") };
        assert_eq!(items.iter().map(|node| node.at.line).collect::<Vec<_>>(), [Some(3), Some(5)]);
        let Item::Table(second) = &items[1].item else { panic!("a table") };
        let Item::Table(x) = &second["x"].item else { panic!("a table") };
        assert_eq!(x["y"].at.line, Some(7));
    }

    #[test]
    fn broken_toml_shows_line_and_column() {
        let problems = file("a = 1\nb = = 2\n").unwrap_err();
        assert_eq!(problems[0].line, Some(2));
        assert_eq!(problems[0].column, Some(5));
        assert_eq!(problems[0].snippet.as_deref(), Some("b = = 2\n    ^"));
    }

    #[test]
    fn files_add_entries_and_an_entry_in_two_files_names_both() {
        let mut one = file("[sinks.a]\ntype = 'x'\n").unwrap();
        let two = parse(&Arc::from("b.toml"), "[sinks.b]\n[sinks.a]\n").unwrap();
        let mut problems = Vec::new();
        merge(&mut one, two, &mut problems);
        let shown: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["b.toml:2: sinks.a: given twice; it is also in a.toml:1"]);
        let Item::Table(sinks) = &one["sinks"].item else { panic!("a table") };
        assert_eq!(sinks.len(), 2);
    }
}
