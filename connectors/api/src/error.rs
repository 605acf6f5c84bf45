//! Errors at the boundary. Each has a class; what follows from a class is decided in one place, the
//! worker's error policy.

use std::error::Error as StdError;
use std::fmt;

/// What kind of problem an error is, and so whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// A machine problem: outage, overload, disk full, refused login. Wait and try again, for ever.
    Retriable,
    /// A data problem: this record cannot be applied. Set it aside; other keys go on.
    Record,
    /// A config problem: nothing gets better by trying. Stop the connector and say what to change.
    Config,
    /// Someone else owns what this task thought it owned. Drop what was cached and acquire again.
    Fenced,
}

impl ErrorClass {
    /// The metric label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            ErrorClass::Retriable => "retriable",
            ErrorClass::Record => "record",
            ErrorClass::Config => "config",
            ErrorClass::Fenced => "fenced",
        }
    }
}

/// An error from a source or a sink.
#[derive(Debug)]
pub struct Error {
    class: ErrorClass,
    code: Option<String>,
    message: String,
    definition: Option<String>,
    source: Option<Box<dyn StdError + Send + Sync>>,
    too_much: bool,
    of_schemas: bool,
}

impl Error {
    /// An error of `class`; `message` is a sentence for an operator and holds no payload and no secret.
    pub fn new(class: ErrorClass, message: impl Into<String>) -> Self {
        Error {
            class,
            code: None,
            message: message.into(),
            definition: None,
            source: None,
            too_much: false,
            of_schemas: false,
        }
    }

    /// A machine problem.
    pub fn retriable(message: impl Into<String>) -> Self {
        Self::new(ErrorClass::Retriable, message)
    }

    /// A data problem.
    pub fn record(message: impl Into<String>) -> Self {
        Self::new(ErrorClass::Record, message)
    }

    /// A config problem.
    pub fn config(message: impl Into<String>) -> Self {
        Self::new(ErrorClass::Config, message)
    }

    /// Ownership lost.
    pub fn fenced(message: impl Into<String>) -> Self {
        Self::new(ErrorClass::Fenced, message)
    }

    /// With the other side's own code: SQLSTATE, HTTP status with error type, librdkafka's name.
    #[must_use]
    pub fn with_code(mut self, code: impl Into<String>) -> Self {
        self.code = Some(code.into());
        self
    }

    /// With the definition that refused the data, see [`crate::sink::StoredVerdict::definition`].
    #[must_use]
    pub fn with_definition(mut self, definition: Option<String>) -> Self {
        self.definition = definition;
        self
    }

    /// With the error that caused it.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The same again takes as long again: less of it at once may go through.
    #[must_use]
    pub fn too_much(mut self) -> Self {
        self.too_much = true;
        self
    }

    /// Whether less at once may go through.
    #[must_use]
    pub fn is_too_much(&self) -> bool {
        self.too_much
    }

    /// It came of asking for schemas, which the records that were read wait for.
    #[must_use]
    pub fn of_schemas(mut self) -> Self {
        self.of_schemas = true;
        self
    }

    /// Whether schemas are waited for.
    #[must_use]
    pub fn is_of_schemas(&self) -> bool {
        self.of_schemas
    }

    /// Its class.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        self.class
    }

    /// The other side's own code, if it gave one.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        self.code.as_deref()
    }

    /// What refused the data, as the store spells it, if it can be told.
    #[must_use]
    pub fn definition(&self) -> Option<&str> {
        self.definition.as_deref()
    }

    /// The sentence alone.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if let Some(code) = &self.code {
            write!(f, " ({code})")?;
        }
        Ok(())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_ref().map(|s| &**s as &(dyn StdError + 'static))
    }
}

/// A result at the boundary.
pub type Result<T, E = Error> = std::result::Result<T, E>;
