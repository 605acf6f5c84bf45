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
    connector.expiry();
    metrics.ingest("orders");
    connector.show_lag(&TopicPartition::new("orders", 0), Some(0));
    let text = metrics.render().unwrap();
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE foldline_"));
    let exposed: BTreeSet<String> =
        types.filter(|line| !line.starts_with("build_info ")).map(str::to_owned).collect();
    let mut told = BTreeSet::new();
    for heading in [
        "## Records",
        "## The store",
        "## Kafka",
        "## The connector",
        "## Expiry",
        "## The config",
        "## Ingest",
    ] {
        for row in page::table("docs/metrics.md", heading) {
            let name = row[0][0].trim_start_matches("foldline_");
            told.insert(format!("{name} {}", row[1][0]));
        }
    }
    assert_eq!(told, exposed);
}

/// Each path of the routers with its methods.
fn routes() -> BTreeSet<(String, String)> {
    let mut routes = BTreeSet::new();
    let mut files = vec![PathBuf::from("src/admin.rs")];
    files.extend(std::fs::read_dir("src/admin").unwrap().map(|entry| entry.unwrap().path()));
    let served = |file: &&PathBuf| {
        let name = file.to_string_lossy();
        name.ends_with(".rs") && !name.ends_with("_tests.rs")
    };
    for file in files.iter().filter(served) {
        let source = std::fs::read_to_string(file).unwrap();
        for route in source.split(".route(").skip(1) {
            let path = route.split('"').nth(1).unwrap().to_owned();
            let end = [".route(", ".merge(", "\n}"].iter().filter_map(|end| route.find(end)).min();
            let handlers = &route[..end.unwrap_or(route.len())];
            for method in ["get", "post", "put", "patch", "delete"] {
                if handlers.contains(&format!("{method}(")) {
                    routes.insert((method.to_uppercase(), path.clone()));
                }
            }
        }
    }
    assert!(routes.len() > 30, "{routes:?}");
    routes
}

#[test]
fn the_page_of_rest_has_each_path() {
    let rows = page::table("docs/rest.md", "## Paths");
    let told: BTreeSet<(String, String)> =
        rows.iter().map(|row| (row[0].join(""), row[1][0].clone())).collect();
    assert_eq!(told, routes());
}

#[test]
fn the_openapi_document_has_each_path() {
    let document: serde_json::Value =
        serde_json::from_str(crate::admin::openapi::DOCUMENT).unwrap();
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    let paths = document["paths"].as_object().unwrap().iter();
    let told: BTreeSet<(String, String)> = paths
        .flat_map(|(path, operations)| {
            let methods = operations.as_object().unwrap().keys();
            methods.map(|method| (method.to_uppercase(), path.clone())).collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(told, routes());
}

/// Whoever is called by an alert finds what to do under its name.
#[test]
fn each_alert_has_its_section() {
    let rules = std::fs::read_to_string("dashboards/rules/foldline.yml").unwrap();
    let after = |word: &str| -> Vec<String> {
        let rest = rules.lines().filter_map(|line| line.trim().strip_prefix(word));
        rest.map(|rest| rest.trim().to_owned()).collect()
    };
    let (alerts, runbooks) = (after("- alert:"), after("runbook:"));
    assert!(alerts.len() > 10, "{alerts:?}");
    let page = "docs/troubleshooting.md";
    let wanted: Vec<String> =
        alerts.iter().map(|alert| format!("{page}#{}", alert.to_lowercase())).collect();
    assert_eq!(runbooks, wanted);
    let text = std::fs::read_to_string(page).unwrap();
    for alert in alerts {
        assert!(text.contains(&format!("\n### {alert}\n")), "{alert}");
    }
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
