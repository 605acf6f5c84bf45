//! The contract's scenarios: the parts of their configs that need nothing but the fold.

use super::config;
use crate::projection::Projection;
use crate::projection::test::run;

/// Projects: named by a header, keyed by the record's key, made, renamed and deleted.
const PROJECTS: &str = include_str!("projects.toml");
/// Orders: an event holds only what changed.
const ORDERS: &str = include_str!("orders.toml");
/// Profiles: whole values and tombstones.
const PROFILES: &str = include_str!("profiles.toml");
/// A projection with children and a computed field, and an event that names lines.
const ORDER_LINES: &str = include_str!("order_lines.toml");

#[test]
fn their_own_tests_pass() {
    for text in [PROJECTS, ORDERS, PROFILES, ORDER_LINES] {
        for config in config(text).unwrap() {
            let projection = Projection::compile(&config).unwrap();
            assert!(!config.tests.is_empty());
            for outcome in run(&projection, &config.tests) {
                assert!(outcome.passed(), "{outcome}");
            }
        }
    }
}
