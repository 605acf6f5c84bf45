//! The configs of the pages.

use foldline_language::config::env::Env;
use foldline_language::projection::test;
use foldline_testkit::page::{self, blocks};

use super::{GUIDES, LANGUAGE, configs};
use crate::config::{load, unsupported};
use crate::registry;

#[test]
fn every_config_of_the_pages_loads_compiles_and_passes_its_tests() {
    let (configs, tests) = run(LANGUAGE);
    assert!(configs >= 10 && tests >= 12, "{configs} configs, {tests} tests");
    for guide in GUIDES {
        let (_, tests) = run(guide);
        assert!(tests > 0, "{guide} has no config with a test");
    }
}

/// How many configs a page has, each of which holds, and how many tests of theirs pass.
fn run(of: &str) -> (usize, usize) {
    let page = page::text(of);
    let configs = configs(&page);
    let count = configs.len();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("config.toml");
    for block in blocks(&page) {
        if let Some(name) = block.kind.strip_prefix("json ").or(block.kind.strip_prefix("proto ")) {
            std::fs::write(directory.path().join(name), &block.text).unwrap();
        }
    }
    let mut tests = 0;
    for (line, text) in configs {
        std::fs::write(&file, &text).unwrap();
        let shown = |problems: Vec<foldline_language::config::diagnostic::Diagnostic>| -> String {
            problems.iter().map(|problem| format!("{problem}\n")).collect()
        };
        let config = load(&file, &Env::default().with_placeholders())
            .unwrap_or_else(|problems| panic!("{of}:{line}:\n{}", shown(problems)));
        for problem in unsupported(&config) {
            let text = problem.to_string();
            assert!(text.contains("not available yet") || text.contains("not created"), "{text}");
        }
        let all = config.projections.iter().filter_map(|(name, projection)| {
            let compiled = foldline_language::projection::Projection::compile(projection).ok()?;
            Some((name.clone(), std::sync::Arc::new(compiled)))
        });
        let all = all.collect();
        for (name, projection) in &config.projections {
            // What is not available yet does not compile, and says so.
            let compiled = match foldline_language::projection::Projection::compile(projection) {
                Ok(compiled) => std::sync::Arc::new(compiled),
                Err(problems) => {
                    let later = |p: &foldline_language::projection::Problem| {
                        p.message.contains("not available yet")
                    };
                    assert!(problems.iter().all(later), "{of}:{line}: {problems:#?}");
                    continue;
                }
            };
            for outcome in test::run_among(&compiled, &all, &projection.tests) {
                assert!(outcome.passed(), "{of}:{line}: {outcome}");
                tests += 1;
            }
            for connector in config.connectors.values().filter(|c| c.projection == *name) {
                let plan = registry::plan(&config, connector, &compiled);
                let later =
                    |error: &foldline_api::Error| error.to_string().contains("not available");
                assert!(
                    plan.as_ref().is_ok_and(|p| !p.is_empty()) || plan.is_err_and(|e| later(&e))
                );
            }
        }
    }
    (count, tests)
}
