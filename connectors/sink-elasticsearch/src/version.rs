//! Servers that are too old are refused before anything is made there.

use elasticsearch::http::Method;
use foldline_api::{Error, Result};
use serde::Deserialize;

use crate::client::Client;

/// The oldest that the tests of the sink are run against.
const ELASTICSEARCH: (u32, u32) = (7, 17);
/// The first whose alias actions know `must_exist`, without which two workers could undo each other's swap.
const OPENSEARCH: (u32, u32) = (2, 12);

#[derive(Deserialize)]
struct Main {
    version: Version,
}

#[derive(Deserialize)]
struct Version {
    number: String,
    distribution: Option<String>,
}

impl Client {
    /// Refuses a server that is too old. One that does not tell its version, or not to this login, is taken.
    pub(crate) async fn check_version(&self) -> Result<()> {
        let reply = self.json(Method::Get, "/", &[], None).await?;
        match reply.success().map(|body| serde_json::from_slice::<Main>(&body)) {
            Ok(Ok(main)) => check(&main.version),
            _ => Ok(()),
        }
    }
}

fn check(Version { number, distribution }: &Version) -> Result<()> {
    let opensearch = distribution.as_deref() == Some("opensearch");
    // What an OpenSearch answers that is told to pass for an old Elasticsearch.
    if opensearch && number == "7.10.2" {
        return Ok(());
    }
    let mut parts = number.split('.').map(str::parse);
    let (Some(Ok(major)), Some(Ok(minor))) = (parts.next(), parts.next()) else { return Ok(()) };
    let (name, least) =
        if opensearch { ("OpenSearch", OPENSEARCH) } else { ("Elasticsearch", ELASTICSEARCH) };
    if (major, minor) >= least {
        return Ok(());
    }
    Err(Error::config(format!(
        "{name} {number} is too old: Foldline needs {name} {}.{} or a newer one, and made nothing there",
        least.0, least.1
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_old_is_refused_by_its_name() {
        let is = |number: &str, distribution: Option<&str>| {
            let distribution = distribution.map(str::to_owned);
            check(&Version { number: number.to_owned(), distribution })
        };
        for (number, distribution) in [
            ("7.17.28", None),
            ("8.0.1", None),
            ("9.2.0", None),
            ("8.19.0-SNAPSHOT", None),
            ("2.12.0", Some("opensearch")),
            ("3.4.0", Some("opensearch")),
            ("7.10.2", Some("opensearch")),
            ("next", None),
        ] {
            assert!(is(number, distribution).is_ok(), "{number}");
        }
        for (number, distribution, says) in [
            ("7.16.3", None, "Elasticsearch 7.16.3 is too old: Foldline needs Elasticsearch 7.17"),
            ("6.8.23", None, "Elasticsearch 6.8.23"),
            ("2.11.1", Some("opensearch"), "needs OpenSearch 2.12 or a newer one"),
            ("1.3.20", Some("opensearch"), "OpenSearch 1.3.20 is too old"),
        ] {
            let error = is(number, distribution).unwrap_err();
            assert_eq!(error.class(), foldline_api::ErrorClass::Config);
            assert!(error.message().contains(says), "{error}");
        }
    }
}
