//! The log's levels, as an operator changes them while the worker runs.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::clock::now_millis;

/// The logger above all others.
const ROOT: &str = "root";
/// More loggers than anyone sets; each costs a comparison where a line is written.
const LOGGERS_MAX: usize = 200;

/// Puts another filter in the place of the one that is used.
pub(super) type Reload = Box<dyn Fn(EnvFilter) -> Result<(), String> + Send + Sync>;

/// The filter that the process began with, and what was set since.
pub(crate) struct Levels {
    began: String,
    reload: Reload,
    set: Mutex<BTreeMap<String, Level>>,
}

/// A logger's level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Level {
    pub(crate) level: LevelFilter,
    /// In milliseconds since the epoch; none where it is as it began.
    pub(crate) modified: Option<i64>,
}

impl Levels {
    pub(super) fn new(began: String, reload: Reload) -> Self {
        let set = Mutex::new(plain(&began));
        Levels { began, reload, set }
    }

    /// Each logger that has a level of its own.
    pub(crate) fn all(&self) -> BTreeMap<String, Level> {
        self.set.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Gives a logger a level: the root, or a target as log lines name it, with all below it.
    ///
    /// # Errors
    /// A sentence where the name is none of a logger, or the filter cannot be changed.
    pub(crate) fn set(&self, logger: &str, level: LevelFilter) -> Result<(), String> {
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | ':');
        if logger.is_empty() || !logger.chars().all(fits) {
            return Err(format!("{logger:?} is no logger: a target such as `foldline::task`"));
        }
        let mut set = self.set.lock().unwrap_or_else(PoisonError::into_inner);
        if set.len() >= LOGGERS_MAX && !set.contains_key(logger) {
            return Err(format!("{LOGGERS_MAX} loggers have levels of their own already"));
        }
        let mut next = set.clone();
        next.insert(logger.to_owned(), Level { level, modified: Some(now_millis()) });
        let filter = EnvFilter::try_new(directives(&self.began, &next));
        (self.reload)(filter.map_err(|error| error.to_string())?)?;
        *set = next;
        Ok(())
    }
}

/// The levels that a filter gives to whole targets. What it says of spans and fields stays, and is not listed.
fn plain(filter: &str) -> BTreeMap<String, Level> {
    let one = |directive: &str| {
        let (logger, level) = match directive.split_once('=') {
            Some((target, level)) => (target, level.parse().ok()?),
            None => match directive.parse() {
                Ok(level) => (ROOT, level),
                Err(_) => (directive, LevelFilter::TRACE),
            },
        };
        let named = !logger.is_empty() && !logger.contains(['[', '{']);
        named.then(|| (logger.to_owned(), Level { level, modified: None }))
    };
    let root = (ROOT.to_owned(), Level { level: LevelFilter::ERROR, modified: None });
    let found = filter.split(',').map(str::trim).filter(|part| !part.is_empty()).filter_map(one);
    std::iter::once(root).chain(found).collect()
}

/// A filter's directives with those that were set: of two for one target the later one counts.
fn directives(began: &str, set: &BTreeMap<String, Level>) -> String {
    let changed = set.iter().filter(|(_, level)| level.modified.is_some());
    let one = |(logger, level): (&String, &Level)| match logger.as_str() {
        ROOT => level.level.to_string(),
        target => format!("{target}={}", level.level),
    };
    let began = (!began.is_empty()).then(|| began.to_owned());
    began.into_iter().chain(changed.map(one)).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn shown(filter: &str) -> Vec<String> {
        let one = |(logger, level): (String, Level)| format!("{logger} {}", level.level);
        plain(filter).into_iter().map(one).collect()
    }

    #[test]
    fn a_filter_is_shown_as_loggers() {
        assert_eq!(shown("info"), ["root info"]);
        assert_eq!(shown("foldline::task=debug, warn"), ["foldline::task debug", "root warn"]);
        assert_eq!(shown("hyper"), ["hyper trace", "root error"]);
        assert_eq!(shown("[task{task=1}]=trace,info"), ["root info"]);
        assert_eq!(shown(""), ["root error"]);
    }

    #[test]
    fn what_is_set_comes_after_what_was_there() {
        let used = Arc::new(Mutex::new(String::new()));
        let seen = Arc::clone(&used);
        let reload: Reload = Box::new(move |filter| {
            *seen.lock().unwrap() = filter.to_string();
            Ok(())
        });
        let levels = Levels::new("info,hyper=warn".to_owned(), reload);
        levels.set("foldline::task", LevelFilter::TRACE).unwrap();
        levels.set(ROOT, LevelFilter::WARN).unwrap();
        levels.set("hyper", LevelFilter::OFF).unwrap();
        let mut parts: Vec<String> = used.lock().unwrap().split(',').map(str::to_owned).collect();
        parts.sort();
        assert_eq!(parts, ["foldline::task=trace", "hyper=off", "warn"]);
        let all = levels.all();
        assert_eq!(all["hyper"].level, LevelFilter::OFF);
        assert!(all["hyper"].modified.is_some());
        for name in ["", "a=b", "a,b", "a[b]", "{"] {
            assert!(levels.set(name, LevelFilter::INFO).is_err(), "{name}");
        }
        for number in 0..LOGGERS_MAX {
            drop(levels.set(&format!("l{number}"), LevelFilter::INFO));
        }
        assert_eq!(levels.all().len(), LOGGERS_MAX);
        levels.set("hyper", LevelFilter::INFO).unwrap();
    }
}
