//! `foldline test`: the tests that a config holds, once or again on each save.

use std::path::Path;
use std::time::Duration;

use foldline_language::config::diagnostic::Diagnostic;
use foldline_language::projection;
use serde_json::json;

use super::{Failure, load, offline};
use crate::config::{self, process_env};

/// How often `--watch` looks at the files. It reads them: a stamp would miss two saves of one instant.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What is run, and how it is shown.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// Only tests whose `projection/name` contains this.
    #[arg(long)]
    filter: Option<String>,
    /// Machine-readable output: one line for each run.
    #[arg(long)]
    json: bool,
    /// Run again whenever a file of the config is saved, until Ctrl-C.
    #[arg(long)]
    watch: bool,
}

pub(super) fn test(path: &Path, options: &Options) -> Result<(), Failure> {
    if !options.watch {
        return run(path, options);
    }
    loop {
        // Read before the run: what is saved while it runs is a change.
        let before = config::contents(path);
        match run(path, options) {
            Err(Failure::Config(problems)) => show_problems(&problems, options.json),
            Err(
                Failure::Failed(message)
                | Failure::Unavailable(message)
                | Failure::Nothing(message),
            ) => eprintln!("error: {message}"),
            Ok(()) | Err(Failure::Silent) => {}
        }
        if !options.json {
            println!("-- waiting for a change of {}", path.display());
        }
        while config::contents(path) == before {
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

fn show_problems(problems: &[Diagnostic], json: bool) {
    if json {
        let problems: Vec<_> = problems.iter().map(offline::diagnostic_json).collect();
        println!("{}", json!({ "problems": problems }));
    } else {
        problems.iter().for_each(|problem| eprintln!("{problem}\n"));
    }
}

fn run(path: &Path, options: &Options) -> Result<(), Failure> {
    let config = load(path.to_owned(), &process_env().with_placeholders())?;
    let projections =
        projection::compile(&config.projections, &config.places).map_err(Failure::Config)?;
    let (mut passed, mut failed) = (0u64, 0u64);
    let mut all = Vec::new();
    let wanted = |test: &str| options.filter.as_deref().is_none_or(|filter| test.contains(filter));
    for (name, projection) in &config.projections {
        let Some(compiled) = projections.get(name) else { continue };
        let tests = projection.tests.iter();
        let tests: Vec<_> =
            tests.filter(|test| wanted(&format!("{name}/{}", test.value.name))).cloned().collect();
        for outcome in projection::test::run_among(compiled, &projections, &tests) {
            if outcome.passed() {
                passed += 1;
            } else {
                failed += 1;
            }
            if options.json {
                all.push(json!(outcome));
            } else {
                println!("{outcome}");
            }
        }
    }
    if let (0, Some(filter)) = (passed + failed, &options.filter) {
        // Nothing was run: to pass would hide a misspelled filter.
        return Err(Failure::Failed(format!("no test's `projection/name` contains {filter:?}")));
    }
    if options.json {
        println!("{}", json!({ "passed": passed, "failed": failed, "tests": all }));
    } else {
        println!("{passed} passed, {failed} failed");
    }
    if failed == 0 { Ok(()) } else { Err(Failure::Silent) }
}
