//! Moments at which a process can be told to die, so that tests can kill it just there. Nothing is armed unless
//! `FOLDLINE_FAILPOINT` names a moment (`after_fold`, or `after_fold:3` for its third time) when the worker starts. Unarmed,
//! passing one costs the load of an atomic; all are passed once per batch, commit or rebalance, never per event.

use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// The environment variable.
pub const VARIABLE: &str = "FOLDLINE_FAILPOINT";

/// A moment in a record's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failpoint {
    /// A batch is folded and nothing of it is written.
    AfterFold,
    /// Its dead letters are acknowledged, its rows are not sent.
    BeforeWrite,
    /// Its rows are in the store and can be seen there or not, by the store's kind; its positions are not.
    BeforePositions,
    /// Rows and positions are durable, and nobody here knows yet.
    AfterWrite,
    /// Durable positions are about to be committed to the group.
    BeforeCommit,
    /// The group has them.
    AfterCommit,
    /// Partitions are being taken away, and what is in flight of them is not durable yet.
    Revoke,
    /// They are about to be given back.
    Release,
}

impl Failpoint {
    /// All of them, in the order of a record's way.
    pub const ALL: [Failpoint; 8] = [
        Failpoint::AfterFold,
        Failpoint::BeforeWrite,
        Failpoint::BeforePositions,
        Failpoint::AfterWrite,
        Failpoint::BeforeCommit,
        Failpoint::AfterCommit,
        Failpoint::Revoke,
        Failpoint::Release,
    ];

    /// The name in the environment.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Failpoint::AfterFold => "after_fold",
            Failpoint::BeforeWrite => "before_write",
            Failpoint::BeforePositions => "before_positions",
            Failpoint::AfterWrite => "after_write",
            Failpoint::BeforeCommit => "before_commit",
            Failpoint::AfterCommit => "after_commit",
            Failpoint::Revoke => "revoke",
            Failpoint::Release => "release",
        }
    }

    /// The process dies here, at once and without a word to anyone, if this moment is armed and it is its turn.
    pub fn reach(self) {
        if let Some(armed) = ARMED.get()
            && armed.point == self
            && armed.left.fetch_sub(1, Ordering::Relaxed) == 1
        {
            std::process::abort();
        }
    }
}

impl fmt::Display for Failpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Turn {
    point: Failpoint,
    count: u64,
}

#[derive(Debug)]
struct Armed {
    point: Failpoint,
    left: AtomicU64,
}

static ARMED: OnceLock<Armed> = OnceLock::new();

/// Arms what the text says, for the life of the process: the moment, if it was not armed before.
///
/// # Errors
/// A sentence, when the text names no moment or no count.
pub fn arm(text: &str) -> Result<Failpoint, String> {
    let Turn { point, count } = parse(text)?;
    let armed = ARMED.get_or_init(|| Armed { point, left: AtomicU64::new(count) });
    Ok(armed.point)
}

fn parse(text: &str) -> Result<Turn, String> {
    let (name, count) = text.split_once(':').unwrap_or((text, "1"));
    let point = Failpoint::ALL.into_iter().find(|point| point.name() == name);
    let count = count.parse().ok().filter(|count| *count > 0);
    match (point, count) {
        (Some(point), Some(count)) => Ok(Turn { point, count }),
        (None, _) => {
            let names = Failpoint::ALL.map(Failpoint::name).join(", ");
            Err(format!("{VARIABLE} names no failpoint: {name:?}; there are {names}"))
        }
        (_, None) => Err(format!("{VARIABLE} wants a count from 1 behind the colon: {text:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_names_a_moment_and_its_turn() {
        for point in Failpoint::ALL {
            assert_eq!(parse(point.name()), Ok(Turn { point, count: 1 }));
            assert_eq!(parse(&format!("{point}:12")), Ok(Turn { point, count: 12 }));
        }
        for wrong in ["", "after_fold:0", "after_fold:x", "fold", ":1"] {
            assert!(parse(wrong).unwrap_err().contains(VARIABLE), "{wrong}");
        }
    }

    #[test]
    fn nothing_happens_where_nothing_is_armed() {
        Failpoint::ALL.into_iter().for_each(Failpoint::reach);
    }
}
