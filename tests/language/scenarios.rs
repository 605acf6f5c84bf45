//! The contract's scenarios as they stand: what of them is there today passes its own tests, and the example of one that is there
//! whole is the scenario but for addresses.

use std::path::Path;
use std::sync::Arc;

use foldline::config::{load, unsupported};
use foldline_language::config::env::Env;
use foldline_language::projection::Projection;
use foldline_language::projection::test::run_among;

#[test]
fn their_own_tests_pass() {
    let mut passed = Vec::new();
    for name in ["1-users", "2-projects", "3-books", "4-orders", "5-profiles"] {
        let file = format!("tests/fixtures/scenarios/{name}.toml");
        let config = load(Path::new(&file), &Env::default().with_placeholders());
        let config = config.unwrap_or_else(|problems| panic!("{problems:#?}"));
        let later = unsupported(&config);
        let all = config.projections.iter().filter_map(|(name, projection)| {
            Some((name.clone(), Arc::new(Projection::compile(projection).ok()?)))
        });
        let all = all.collect();
        for (name, projection) in &config.projections {
            let below = format!("projections.{name}.");
            if later.iter().any(|problem| problem.path.starts_with(&below)) {
                continue;
            }
            let compiled = Arc::new(Projection::compile(projection).unwrap());
            for outcome in run_among(&compiled, &all, &projection.tests) {
                assert!(outcome.passed(), "{outcome}");
                passed.push(format!("{name}: {}", outcome.name));
            }
        }
    }
    for name in ["users", "projects", "books", "orders", "profiles"] {
        assert!(passed.iter().any(|test| test.starts_with(&format!("{name}: "))), "{passed:?}");
    }
}

#[test]
fn the_example_of_users_is_the_scenario_but_for_addresses() {
    let read = |file: &str| std::fs::read_to_string(file).unwrap();
    let address = r#"url  = "${DATABASE_URL:-postgres://localhost/foldline}""#;
    let scenario = read("tests/fixtures/scenarios/1-users.toml");
    let scenario = scenario.replace(r#"url  = { env = "DATABASE_URL" }"#, address);
    assert_eq!(read("config/examples/users/users.toml"), scenario);
    let config = load(Path::new("config/examples/users/users.toml"), &Env::default());
    assert!(unsupported(&config.unwrap()).is_empty());
}
