//! The sink as the worker knows it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use foldline_api::Result;
use foldline_api::kind::Sink;
use foldline_api::mask;
use foldline_api::removal::Owned;
use foldline_api::sink::{Target, TargetSpec};
use foldline_language::config::form::{FilePath, Period, SecretText, Text, TextList};
use foldline_language::config::key::{Key, Or, Required};
use foldline_language::config::reader::{Field, Reader};
use foldline_language::config::sink::{SinkKind, TargetKey};

use crate::client;
use crate::config::ElasticsearchConfig;
use crate::plan::plan;
use crate::removal;
use crate::target::ElasticsearchTarget;

/// `type = "elasticsearch"`.
pub static KIND: SinkKind = SinkKind {
    name: "elasticsearch",
    description: "Elasticsearch.",
    target: TargetKey::Index,
    keys: &[&URLS, &API_KEY, &USERNAME, &PASSWORD, &CA, &REQUEST_TIMEOUT],
    read,
};

const URLS: Key<TextList, Required> = Key::new("urls", TextList, "Its nodes")
    .required("[\"http://localhost:9200\"]")
    .checked(|field, urls| check_urls(field, urls));
const API_KEY: Key<SecretText> = Key::new("api_key", SecretText, "Base64 of id:api_key");
const USERNAME: Key<Text> = Key::new("username", Text, "With `password`, instead of `api_key`");
const PASSWORD: Key<SecretText> = Key::new("password", SecretText, "With `username`");
const CA: Key<FilePath> =
    Key::new("ca", FilePath, "PEM file of the authorities to trust, in place of the public ones");
const REQUEST_TIMEOUT: Key<Period, Or<Duration>> =
    Key::new("request_timeout", Period, "So long may a request take")
        .or(client::REQUEST_TIMEOUT)
        .checked(|field, time| {
            if *time < Duration::from_secs(1) {
                field.problem("a request needs a second at least");
            }
        });

fn read(reader: &mut Reader<'_>) -> Option<Arc<dyn Sink>> {
    match (reader.given(&API_KEY), reader.given(&USERNAME), reader.given(&PASSWORD)) {
        (Some(field), Some(_), _) | (Some(field), _, Some(_)) => {
            field.problem("is given beside `username` or `password`: one way to log in is allowed");
        }
        (None, Some(field), None) => field.problem("needs a `password`"),
        (None, None, Some(field)) => field.problem("needs a `username`"),
        _ => {}
    }
    Some(Arc::new(ElasticsearchConfig {
        api_key: reader.read(&API_KEY).map(|key| key.expose().to_owned()),
        username: reader.read(&USERNAME),
        password: reader.read(&PASSWORD).map(|password| password.expose().to_owned()),
        ca: reader.read(&CA),
        request_timeout: Some(reader.read(&REQUEST_TIMEOUT)),
        // Last, so that what is wrong with the others is told where they are missing.
        urls: reader.read(&URLS)?,
    }))
}

fn check_urls(field: &Field<'_>, urls: &[String]) {
    if urls.is_empty() {
        field.problem("the list is empty");
    }
    for text in urls {
        let parsed = url::Url::parse(text).ok();
        let plain = parsed.filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        if text.starts_with("${") {
            continue;
        }
        match plain {
            Some(url) if url.username().is_empty() && url.password().is_none() => {}
            Some(_) => field.problem_with_help(
                format!("`{}` holds a login", mask::url(text)),
                "give `username` and `password`, so that no log shows them",
            ),
            None => {
                let found = match mask::url(text) {
                    shown if shown == mask::MASK => "no URL".to_owned(),
                    shown => format!("`{shown}`"),
                };
                let wanted = "expected a URL such as `http://localhost:9200`";
                field.problem(format!("found {found}, {wanted}"));
            }
        }
    }
}

#[async_trait]
impl Sink for ElasticsearchConfig {
    fn target(&self, spec: TargetSpec) -> Result<Arc<dyn Target>> {
        Ok(Arc::new(ElasticsearchTarget::new(self, spec)?))
    }

    fn plan(&self, spec: &TargetSpec) -> Vec<String> {
        plan(spec)
    }

    async fn owned(&self, connector: &str) -> Result<Vec<Owned>> {
        removal::owned(self, connector).await
    }

    fn speaks_sql(&self) -> bool {
        false
    }

    fn looks_up(&self) -> bool {
        true
    }
}
