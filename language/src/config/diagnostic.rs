//! What is wrong with a config, in a sentence that names file, line and key path.

use std::fmt;

/// Whether the config can be run in spite of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The config is refused.
    Error,
    /// The config runs, and not quite as written.
    Warning,
}

/// One problem of a config.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Whether the config can be run in spite of it.
    pub severity: Severity,
    /// The file, or the environment variable as `$NAME`.
    pub file: String,
    /// Line in the file, from 1.
    pub line: Option<usize>,
    /// Column in the line, from 1: for broken TOML only, where no key path can be known.
    pub column: Option<usize>,
    /// Dotted key path; empty where the TOML itself is broken.
    pub path: String,
    /// What was found, and what is allowed.
    pub message: String,
    /// The line of the file with a marker below, for broken TOML.
    pub snippet: Option<String>,
    /// How to put it right.
    pub help: Option<String>,
}

impl Diagnostic {
    /// An error at a key path of a file.
    pub fn new(
        file: impl Into<String>,
        path: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            severity: Severity::Error,
            file: file.into(),
            line: None,
            column: None,
            path: path.into(),
            message: message.into(),
            snippet: None,
            help: None,
        }
    }

    /// The same with a line.
    #[must_use]
    pub fn line(mut self, line: Option<usize>) -> Self {
        self.line = line;
        self
    }

    /// The same with advice.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The same as a warning.
    #[must_use]
    pub fn warning(mut self) -> Self {
        self.severity = Severity::Warning;
        self
    }
}

/// Puts problems in the order of the files.
pub fn sort(problems: &mut [Diagnostic]) {
    problems.sort_by(|a, b| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file)?;
        for number in [self.line, self.column].into_iter().flatten() {
            write!(f, ":{number}")?;
        }
        if self.severity == Severity::Warning {
            write!(f, ": warning")?;
        }
        if !self.path.is_empty() {
            write!(f, ": {}", self.path)?;
        }
        write!(f, ": {}", self.message)?;
        if let Some(snippet) = &self.snippet {
            for line in snippet.lines() {
                write!(f, "\n  {line}")?;
            }
        }
        if let Some(help) = &self.help {
            write!(f, "\n  help: {}", help.replace('\n', "\n        "))?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostic {}

/// The known name that `given` was probably meant to be.
pub fn closest<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = given.to_lowercase();
    let length = given.chars().count();
    let allowed = (length / 3).max(1).min(length.saturating_sub(1));
    known
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(&lower, &name.to_lowercase()), name))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// Names in a sentence: `a`, `b` and `c`.
pub fn listed<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let quoted: Vec<String> = names.into_iter().map(|name| format!("`{name}`")).collect();
    match quoted.split_last() {
        None => "none".to_owned(),
        Some((only, [])) => only.clone(),
        Some((last, rest)) => format!("{} and {last}", rest.join(", ")),
    }
}

/// A key path with one more key, quoted where TOML would quote it.
pub fn join(path: &str, key: &str) -> String {
    let bare = !key.is_empty()
        && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
    let key = if bare { key.to_owned() } else { format!("{key:?}") };
    if path.is_empty() { key } else { format!("{path}.{key}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diagnostic_reads_as_a_sentence_with_its_place() {
        let diagnostic = Diagnostic::new("config/orders.toml", "sinks.a.tpye", "unknown key")
            .line(Some(12))
            .help("did you mean `type`?");
        assert_eq!(
            diagnostic.to_string(),
            "config/orders.toml:12: sinks.a.tpye: unknown key\n  help: did you mean `type`?"
        );
    }

    #[test]
    fn only_a_near_name_is_suggested() {
        assert_eq!(closest("tabel", ["table", "topic"]), Some("table"));
        assert_eq!(closest("Table", ["table"]), Some("table"));
        assert_eq!(closest("colour", ["table", "topic"]), None);
    }

    #[test]
    fn keys_that_toml_would_quote_are_quoted() {
        assert_eq!(join("a", "b-c"), "a.b-c");
        assert_eq!(join("a", "group.id"), "a.\"group.id\"");
    }
}
