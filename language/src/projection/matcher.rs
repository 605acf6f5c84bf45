//! Names to match: a list, or a regex.

use std::sync::Arc;

use regex::Regex;

use crate::config::projection::Names;

/// Compiled [`Names`].
#[derive(Clone, Debug)]
pub(super) enum Matcher {
    /// Any of these.
    List(Box<[Arc<str>]>),
    /// What the regex finds; it starts with `^`.
    Regex(Regex),
}

impl Matcher {
    pub(super) fn compile(names: &Names) -> Result<Self, String> {
        match names {
            Names::List(list) => {
                Ok(Matcher::List(list.iter().map(|name| Arc::from(name.as_str())).collect()))
            }
            Names::Regex(pattern) => Regex::new(pattern)
                .map(Matcher::Regex)
                .map_err(|error| format!("{pattern:?} is no regex: {error}")),
        }
    }

    pub(super) fn is_match(&self, name: &str) -> bool {
        match self {
            Matcher::List(list) => list.iter().any(|known| **known == *name),
            Matcher::Regex(regex) => regex.is_match(name),
        }
    }

    /// The names of a list; none of a regex.
    pub(super) fn names(&self) -> &[Arc<str>] {
        match self {
            Matcher::List(list) => list,
            Matcher::Regex(_) => &[],
        }
    }
}
