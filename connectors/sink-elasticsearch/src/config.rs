//! How to reach the cluster.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use foldline_api::mask;

/// Where Elasticsearch is and how to log in. Its `Debug` shows no secret.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ElasticsearchConfig {
    /// The nodes' addresses; requests go round them.
    pub urls: Vec<String>,
    /// An API key in its encoded form.
    pub api_key: Option<String>,
    /// A user's name, with `password`.
    pub username: Option<String>,
    /// The user's password.
    pub password: Option<String>,
    /// A PEM file with the authorities to trust, in place of the public ones.
    pub ca: Option<PathBuf>,
    /// How long one request may take; a minute where it is not given.
    pub request_timeout: Option<Duration>,
}

impl fmt::Debug for ElasticsearchConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hidden = |secret: &Option<String>| secret.as_ref().map(|_| "***");
        let urls: Vec<String> = self.urls.iter().map(|url| mask::url(url)).collect();
        f.debug_struct("ElasticsearchConfig")
            .field("urls", &urls)
            .field("api_key", &hidden(&self.api_key))
            .field("username", &self.username)
            .field("password", &hidden(&self.password))
            .field("ca", &self.ca)
            .field("request_timeout", &self.request_timeout)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_secret() {
        let config = ElasticsearchConfig {
            urls: vec!["https://ann:canary@localhost:9200".to_owned()],
            api_key: Some("canary".to_owned()),
            username: Some("ann".to_owned()),
            password: Some("canary".to_owned()),
            ..ElasticsearchConfig::default()
        };
        let shown = format!("{config:?}");
        assert!(!shown.contains("canary"), "{shown}");
        assert!(shown.contains("localhost:9200"), "{shown}");
    }

    #[test]
    fn the_example_parses() {
        let example: toml::Table = include_str!("../example.toml").parse().unwrap();
        let sink = example["sinks"]["search"].as_table().unwrap();
        for key in sink.keys() {
            let known = crate::KIND.keys.iter().any(|known| known.name() == key);
            assert!(known || key == "type", "{key}");
        }
        assert!(example["connectors"]["orders-search"]["mapping"]["properties"].is_table());
    }
}
