//! A walk over inputs that nobody thought of: none may panic, overflow the stack or stop.
//!
//! Inputs are mutations of the project's own tables, scenarios and wrong configs. An input that is answered in a way not
//! seen before (another error, another kind of value) joins the corpus, so that the walk goes on from it. A seed
//! decides everything. `just fuzz 3600` walks for an hour; the tests that CI runs take a fixed number of steps.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a walk that cannot go on says so and ends the test"
)]

mod watch;
mod words;

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::mutate::mutate;
use crate::rng::Rng;
pub use words::CONFIG_WORDS;

/// Inputs kept beyond those that the walk began with.
const CORPUS_MAX: usize = 20_000;
/// An answer that takes longer is worth looking at.
const SLOW: Duration = Duration::from_secs(2);

/// What the walk starts from, and where it has been.
#[derive(Debug)]
pub struct Walk {
    kind: &'static str,
    corpus: Vec<String>,
    /// As many of the corpus's first inputs are as they were found in the repository.
    given: usize,
    seen: HashSet<u64>,
    rng: Rng,
}

impl Walk {
    /// A walk that starts from these inputs.
    ///
    /// # Panics
    /// When there are too few of them.
    #[must_use]
    pub fn new(kind: &'static str, corpus: Vec<String>) -> Self {
        assert!(corpus.len() > 30, "{} inputs to start from", corpus.len());
        let given = corpus.len();
        let seed = std::env::var("FOLDLINE_SEED").ok().and_then(|seed| seed.parse().ok());
        Walk { kind, corpus, given, seen: HashSet::new(), rng: Rng::new(seed.unwrap_or(1)) }
    }

    /// Tries one input after the other, `steps` of them or for as long as `FOLDLINE_FUZZ_SECONDS` says.
    ///
    /// # Panics
    /// When an answer panics: with the input.
    pub fn go(
        mut self,
        steps: u64,
        dictionary: &[&str],
        mut answer: impl FnMut(&str, &mut Rng) -> String,
    ) {
        let limit = std::env::var("FOLDLINE_FUZZ_SECONDS").ok().and_then(|s| s.parse().ok());
        let limit = limit.map(Duration::from_secs);
        let last = std::env::temp_dir().join(format!("foldline-fuzz-{}.txt", self.kind));
        let (start, mut slowest, mut tried) =
            (Instant::now(), (Duration::ZERO, String::new()), 0u64);
        let watch = watch::Watch::start();
        while limit.map_or(tried < steps, |limit| start.elapsed() < limit) {
            let input = self.next(tried, dictionary);
            if limit.is_some() {
                // Where the process itself is lost, this is what it was lost to.
                std::fs::write(&last, &input).unwrap();
            }
            let began = Instant::now();
            let found = watch.guard(|| answer(&input, &mut self.rng));
            let took = began.elapsed();
            if took > slowest.0 {
                slowest = (took, input.clone());
            }
            tried += 1;
            let found = found.unwrap_or_else(|panic| {
                panic!(
                    "{panic}\non {} {}:\n{input}\n---- as a literal: {input:?}",
                    self.kind, tried
                )
            });
            self.keep(input, &found);
        }
        if limit.is_some() {
            std::fs::remove_file(&last).ok();
        }
        let (grown, seconds) = (self.corpus.len() - self.given, start.elapsed().as_secs());
        println!(
            "{}: {tried} inputs in {seconds} s, {grown} of them answered in new ways, no panic of ours, {} in the \
             parser, contained; the slowest took {:?}",
            self.kind,
            watch.contained(),
            slowest.0
        );
        if slowest.0 > SLOW {
            println!("the slowest: {:?}", slowest.1);
        }
    }

    fn next(&mut self, tried: u64, dictionary: &[&str]) -> String {
        // First each as it is.
        if let Some(given) = usize::try_from(tried).ok().filter(|at| *at < self.given) {
            return self.corpus[given].clone();
        }
        let pick = |rng: &mut Rng, corpus: &[String]| {
            corpus[usize::try_from(rng.below(corpus.len() as u64)).unwrap()].clone()
        };
        let base = pick(&mut self.rng, &self.corpus);
        let donor = pick(&mut self.rng, &self.corpus);
        mutate(&mut self.rng, &base, &donor, dictionary)
    }

    fn keep(&mut self, input: String, answer: &str) {
        let mut hasher = DefaultHasher::new();
        shape(answer).hash(&mut hasher);
        if self.seen.insert(hasher.finish()) && self.corpus.len() < self.given + CORPUS_MAX {
            self.corpus.push(input);
        }
    }
}

/// An answer without what depends on the input: names, numbers and quoted texts.
fn shape(answer: &str) -> String {
    let mut out = String::new();
    let mut quote = None;
    for c in answer.chars().take(2_000) {
        match quote {
            Some(open) if c == open => quote = None,
            Some(_) => {}
            None if matches!(c, '"' | '`') => quote = Some(c),
            None if c.is_ascii_digit() => {}
            None => out.push(c),
        }
    }
    out
}

/// The texts of all files below `directory`, a path in the repository, that end so.
///
/// # Panics
/// When one cannot be read.
#[must_use]
pub fn files(directory: &str, extension: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut open = vec![repository().join(directory)];
    while let Some(directory) = open.pop() {
        let entries = std::fs::read_dir(&directory).unwrap();
        for path in entries.map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|found| found == extension) {
                let text = std::fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    found.sort();
    found
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}
