//! The pages beside the language's: each metric and each path of REST has its row, each link leads somewhere, the README is
//! a page.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use foldline_api::record::TopicPartition;
use foldline_testkit::page;

use crate::metrics::Metrics;

#[test]
fn the_page_of_metrics_has_each_metric_with_its_type() {
    let metrics = Metrics::new().unwrap();
    let connector = metrics.connector("orders");
    connector.set_state("RUNNING");
    connector.show_lag(&TopicPartition::new("orders", 0), Some(0));
    let text = metrics.render().unwrap();
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE foldline_"));
    let exposed: BTreeSet<String> =
        types.filter(|line| !line.starts_with("build_info ")).map(str::to_owned).collect();
    let mut told = BTreeSet::new();
    for heading in ["## Records", "## The store", "## Kafka", "## The connector"] {
        for row in page::table("docs/metrics.md", heading) {
            let name = row[0][0].trim_start_matches("foldline_");
            told.insert(format!("{name} {}", row[1][0]));
        }
    }
    assert_eq!(told, exposed);
}

#[test]
fn the_page_of_rest_has_each_path() {
    let mut routes: BTreeSet<String> = BTreeSet::new();
    for file in ["src/admin.rs", "src/admin/offsets.rs", "src/admin/page.rs", "src/admin/parked.rs"]
    {
        let source = std::fs::read_to_string(file).unwrap();
        let paths = source.split(".route(\"").skip(1).filter_map(|rest| rest.split('"').next());
        routes.extend(paths.map(str::to_owned));
    }
    let rows = page::table("docs/rest.md", "## Paths");
    let told: BTreeSet<String> = rows.iter().map(|row| row[1][0].clone()).collect();
    assert_eq!(told, routes);
}

/// The headings of a page as links name them.
fn headings(page: &Path) -> BTreeSet<String> {
    let text = std::fs::read_to_string(page).unwrap();
    let slug = |heading: &str| -> String {
        let heading = heading.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
        heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_')).collect()
    };
    text.lines().filter(|line| line.starts_with('#')).map(slug).collect()
}

#[test]
fn every_link_of_the_pages_leads_somewhere() {
    let mut pages = vec![PathBuf::from("README.md")];
    for entry in std::fs::read_dir("docs").unwrap() {
        let path = entry.unwrap().path();
        pages.extend(path.extension().is_some_and(|ext| ext == "md").then_some(path));
    }
    assert!(pages.len() > 8, "{pages:?}");
    for page in pages {
        let text = std::fs::read_to_string(&page).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.starts_with("https://") {
                continue;
            }
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { page.clone() } else { page.with_file_name(file) };
            assert!(target.exists(), "{}: {link} leads nowhere", page.display());
            let there = heading.is_empty() || headings(&target).contains(heading);
            assert!(there, "{}: {link} names no heading", page.display());
        }
    }
}

#[test]
fn the_readme_is_a_page() {
    let bytes = page::text("README.md").len();
    assert!(bytes <= 8_192, "{bytes} bytes");
}
