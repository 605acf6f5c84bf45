//! A scrape of `/metrics`, parsed.

use std::collections::{BTreeMap, BTreeSet};

/// One line of the exposition.
#[derive(Debug)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

/// All samples of one scrape.
#[derive(Debug)]
pub(crate) struct Scrape(Vec<Sample>);

impl Scrape {
    pub(crate) fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
        Scrape(
            lines.map(|line| sample(line).unwrap_or_else(|| panic!("no sample: {line}"))).collect(),
        )
    }

    /// The sum of `foldline_<name>` over the series with these labels; none where there is no such series.
    pub(crate) fn find(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let name = format!("foldline_{name}");
        let fits = |sample: &&Sample| {
            sample.name == name
                && labels.iter().all(|(k, v)| sample.labels.get(*k).is_some_and(|found| found == v))
        };
        let found: Vec<f64> = self.0.iter().filter(fits).map(|sample| sample.value).collect();
        (!found.is_empty()).then(|| found.iter().sum())
    }

    /// The sum of a connector's series; 0 where there is none.
    pub(crate) fn of(&self, connector: &str, name: &str) -> u64 {
        let value = self.find(name, &[("connector", connector)]).unwrap_or(0.0);
        assert!(value >= 0.0 && value.fract() == 0.0, "{name} of {connector} is {value}");
        value as u64
    }

    /// The names of all families with the prefix, without a histogram's suffixes.
    pub(crate) fn families(&self) -> BTreeSet<String> {
        let family = |sample: &Sample| {
            let name = sample.name.strip_prefix("foldline_")?;
            let cut = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
            Some(cut.unwrap_or(name).to_owned())
        };
        self.0.iter().filter_map(family).collect()
    }

    /// Each record ended in exactly one outcome, and nothing was lost between fetching and deciding.
    pub(crate) fn assert_balanced(&self, connector: &str) {
        let of = |name: &str| self.of(connector, name);
        let outcomes = ["applied", "filtered", "replayed", "dead_lettered", "parked", "skipped"];
        let decided: u64 = outcomes.iter().map(|name| of(&format!("events_{name}_total"))).sum();
        let (fetched, consumed) = (of("records_fetched_total"), of("records_consumed_total"));
        assert_eq!(
            consumed, decided,
            "consumed of {connector} is not the sum of the outcomes: {self:#?}"
        );
        let accounted = consumed + of("inflight_events") + of("events_abandoned_total");
        assert_eq!(fetched, accounted, "fetched of {connector} is not accounted for: {self:#?}");
    }
}

fn sample(line: &str) -> Option<Sample> {
    let (series, value) = line.rsplit_once(' ')?;
    let (name, labels) = match series.split_once('{') {
        Some((name, rest)) => (name, rest.strip_suffix('}')?),
        None => (series, ""),
    };
    let pair = |pair: &str| {
        let (key, value) = pair.split_once("=\"")?;
        Some((key.trim_start_matches(',').to_owned(), value.to_owned()))
    };
    // No label of ours holds a quote.
    let labels = labels.split('"').collect::<Vec<_>>();
    let labels = labels.chunks_exact(2).map(|two| pair(&two.join("\"")));
    Some(Sample {
        name: name.to_owned(),
        labels: labels.collect::<Option<_>>()?,
        value: value.parse().ok()?,
    })
}
