//! A projection with children and a computed field passes its own tests.

use super::one;
use crate::projection::test::run;

/// Orders whose events name lines.
const ORDER_LINES: &str = include_str!("order_lines.toml");

#[test]
fn lines_are_kept_and_counted() {
    let (config, projection) = one(ORDER_LINES);
    assert!(!config.tests.is_empty());
    for outcome in run(&projection, &config.tests) {
        assert!(outcome.passed(), "{outcome}");
    }
}
