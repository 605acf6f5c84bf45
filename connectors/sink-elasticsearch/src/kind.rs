//! The sink as the worker knows it.

use std::sync::Arc;
use std::time::Duration;

use foldline_api::Result;
use foldline_api::kind::Sink;
use foldline_api::mask;
use foldline_api::sink::{Target, TargetSpec};
use foldline_language::config::reader::{Field, Reader};
use foldline_language::config::schema::{duration, secret, text, texts};
use foldline_language::config::sink::{Key, SinkKind, TargetKey};

use crate::config::ElasticsearchConfig;
use crate::plan::plan;
use crate::target::ElasticsearchTarget;

/// `type = "elasticsearch"`.
pub static KIND: SinkKind = SinkKind {
    name: "elasticsearch",
    description: "Elasticsearch.",
    target: TargetKey::Index,
    keys,
    read,
};

fn keys() -> Vec<Key> {
    vec![
        Key::required("urls", texts("Its nodes.")),
        Key::optional("api_key", secret("Base64 of id:api_key.")),
        Key::optional("username", text("With `password`, instead of `api_key`.")),
        Key::optional("password", secret("With `username`.")),
        Key::optional("ca", text("PEM file of the authority that signed its certificate.")),
        Key::optional("request_timeout", duration("So long may a request take; by default 60s.")),
    ]
}

fn read(reader: &mut Reader<'_>) -> Option<Arc<dyn Sink>> {
    let urls_field = reader.required("urls", "[\"http://localhost:9200\"]");
    let urls = urls_field.as_ref().and_then(|field| field.texts());
    if let (Some(field), Some(urls)) = (&urls_field, &urls) {
        check_urls(field, urls);
    }
    let api_key_field = reader.get("api_key");
    let api_key = api_key_field.as_ref().and_then(|field| field.secret());
    let username_field = reader.get("username");
    let password_field = reader.get("password");
    match (&api_key_field, &username_field, &password_field) {
        (Some(field), Some(_), _) | (Some(field), _, Some(_)) => {
            field.problem("is given beside `username` or `password`: one way to log in is allowed");
        }
        (None, Some(field), None) => field.problem("needs a `password`"),
        (None, None, Some(field)) => field.problem("needs a `username`"),
        _ => {}
    }
    let username = username_field.and_then(|field| field.text());
    let password = password_field.and_then(|field| field.secret());
    let ca = reader.get("ca").and_then(|field| field.file_path());
    let request_timeout = reader.get("request_timeout").and_then(|field| {
        let time = field.duration()?;
        if time < Duration::from_secs(1) {
            field.problem("a request needs a second at least");
        }
        Some(time)
    });
    Some(Arc::new(ElasticsearchConfig {
        urls: urls?,
        api_key: api_key.map(|key| key.expose().to_owned()),
        username,
        password: password.map(|password| password.expose().to_owned()),
        ca,
        request_timeout,
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

impl Sink for ElasticsearchConfig {
    fn target(&self, spec: TargetSpec) -> Result<Arc<dyn Target>> {
        Ok(Arc::new(ElasticsearchTarget::new(self, spec)?))
    }

    fn plan(&self, spec: &TargetSpec) -> Vec<String> {
        plan(spec)
    }

    fn speaks_sql(&self) -> bool {
        false
    }
}
