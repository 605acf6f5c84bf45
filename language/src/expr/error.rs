//! What is wrong with an expression, told so that its author can mend it.

use std::fmt;

/// Why a text is no expression, or none that may stand where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExprError {
    /// What is wrong.
    pub message: String,
    /// The expression as written.
    pub expression: String,
    /// Where, in bytes from the start of the expression.
    pub offset: usize,
    /// How many bytes of the expression are meant; at least one.
    pub width: usize,
    /// How it may have been meant, where that can be guessed.
    pub help: Option<String>,
}

/// An operation that has no result: the record it was for is bad. It names the operation and the types
/// it met, never a value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct EvalError {
    /// The operation and what it cannot take.
    pub message: String,
    /// It met a column that the source could not send.
    pub unavailable: bool,
}

impl EvalError {
    pub(super) fn new(message: impl Into<String>) -> Self {
        EvalError { message: message.into(), unavailable: false }
    }
}

/// Lines longer than this are shown only around the place that is meant.
const SNIPPET_CHARS_MAX: usize = 100;

impl ExprError {
    pub(super) fn new(expression: &str, at: (usize, usize), message: impl Into<String>) -> Self {
        ExprError {
            message: message.into(),
            expression: expression.to_owned(),
            offset: at.0.min(expression.len()),
            width: at.1.saturating_sub(at.0).max(1),
            help: None,
        }
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Says this below what helps already.
    pub(super) fn also(mut self, more: &str) -> Self {
        self.help = Some(match self.help {
            Some(help) => format!("{help}\n{more}"),
            None => more.to_owned(),
        });
        self
    }

    /// Suggests the expression with the meant part replaced.
    pub(super) fn corrected(self, replacement: &str) -> Self {
        let (start, end) = (self.offset, self.offset + self.width);
        let line = match (self.expression.get(..start), self.expression.get(end..)) {
            (Some(before), Some(after)) => format!("{before}{replacement}{after}"),
            _ => return self,
        };
        if line.len() > SNIPPET_CHARS_MAX || line.contains('\n') {
            return self.help(format!("did you mean {replacement} here?"));
        }
        self.help(format!("did you mean {line} ?"))
    }

    fn before(&self) -> &str {
        self.expression.get(..self.offset).unwrap_or(&self.expression)
    }

    /// The line in the expression, from 1.
    #[must_use]
    pub fn line(&self) -> usize {
        self.before().matches('\n').count() + 1
    }

    /// The character in the line, from 1.
    #[must_use]
    pub fn column(&self) -> usize {
        self.before().rsplit('\n').next().unwrap_or_default().chars().count() + 1
    }

    /// The line that is meant with carets below the place; of a long one, what stands around it.
    #[must_use]
    pub fn snippet(&self) -> String {
        let line = self.expression.lines().nth(self.line() - 1).unwrap_or_default();
        let column = self.column() - 1;
        let first = if line.chars().count() > SNIPPET_CHARS_MAX {
            column.saturating_sub(SNIPPET_CHARS_MAX / 2)
        } else {
            0
        };
        let shown: String = line.chars().skip(first).take(SNIPPET_CHARS_MAX).collect();
        let end = (self.offset + self.width).min(self.expression.len());
        let meant = self.expression.get(self.offset..end).unwrap_or_default();
        let width = meant.lines().next().unwrap_or_default().chars().count().max(1);
        let width = width.min(SNIPPET_CHARS_MAX);
        format!("{shown}\n{}{}", " ".repeat(column - first), "^".repeat(width))
    }
}

impl fmt::Display for ExprError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if self.expression.is_empty() {
            return Ok(());
        }
        if self.expression.contains('\n') {
            write!(f, " (line {}, column {})", self.line(), self.column())?;
        }
        for line in self.snippet().lines() {
            write!(f, "\n    {line}")?;
        }
        if let Some(help) = &self.help {
            write!(f, "\n  {help}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ExprError {}

/// The one of `candidates` that `name` was most likely meant to be.
pub(super) fn nearest<'a>(
    name: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let close = (name.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|known| (strsim::osa_distance(&name.to_lowercase(), &known.to_lowercase()), known))
        .filter(|(distance, _)| *distance <= close)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}

/// `name` as the member of something: `.name`, or `['na-me']` where CEL cannot spell it.
pub(super) fn member(name: &str) -> String {
    let word = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    let starts_well = name.bytes().next().is_some_and(|b| !b.is_ascii_digit());
    if word && starts_well && !matches!(name, "in" | "true" | "false" | "null") {
        format!(".{name}")
    } else {
        format!("[{}]", quoted(name))
    }
}

/// `text` as a CEL literal.
pub(super) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'").replace('\n', "\\n"))
}
