//! Sinks, as a config names them.

use std::sync::Arc;

use foldline_api::error::Result;
use foldline_api::kind::Sink;

use super::not_yet;
use crate::config::SinkKind;
#[cfg(not(all(feature = "postgres", feature = "elasticsearch", feature = "sqlite")))]
use crate::config::unsupported::lacks;

/// A sink of this kind: the one place where a store's name decides what is built.
///
/// # Errors
/// A config error where the build or this version lacks the sink.
pub(super) fn sink(kind: &SinkKind) -> Result<Arc<dyn Sink>> {
    match kind {
        #[cfg(feature = "postgres")]
        SinkKind::Postgres {
            url,
            password,
            ca,
            cert,
            key,
            connections,
            schema_name,
            statement_timeout,
        } => Ok(Arc::new(foldline_sink_postgres::PostgresConfig {
            url: url.expose().to_owned(),
            password: password.as_ref().map(|password| password.expose().to_owned()),
            ca: ca.clone(),
            cert: cert.clone(),
            key: key.clone(),
            connections: *connections,
            schema: schema_name.clone(),
            statement_timeout: *statement_timeout,
        })),
        #[cfg(feature = "elasticsearch")]
        SinkKind::Elasticsearch { urls, api_key, username, password, ca, request_timeout } => {
            Ok(Arc::new(foldline_sink_elasticsearch::ElasticsearchConfig {
                urls: urls.clone(),
                api_key: api_key.as_ref().map(|key| key.expose().to_owned()),
                username: username.clone(),
                password: password.as_ref().map(|password| password.expose().to_owned()),
                ca: ca.clone(),
                request_timeout: Some(*request_timeout),
            }))
        }
        #[cfg(feature = "sqlite")]
        SinkKind::Sqlite { path } => {
            Ok(Arc::new(foldline_sink_sqlite::SqliteConfig { path: path.clone() }))
        }
        SinkKind::Kafka { .. } => Err(not_yet("a sink of type \"kafka\"")),
        #[cfg(not(all(feature = "postgres", feature = "elasticsearch", feature = "sqlite")))]
        kind => Err(lacks(kind.name())),
    }
}
