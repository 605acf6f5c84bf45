//! Sinks, as a config names them.

use std::sync::Arc;

use foldline_api::error::Result;
use foldline_api::sink::{Target, TargetSpec};

use super::{commented, not_yet};
use crate::config::SinkKind;

/// A target of a sink of this kind.
///
/// # Errors
/// A config error where the build or this version lacks the sink, or where its settings contradict each other.
pub(super) fn target(sink: &SinkKind, spec: TargetSpec) -> Result<Arc<dyn Target>> {
    Ok(match sink {
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
        } => {
            let config = foldline_sink_postgres::PostgresConfig {
                url: url.expose().to_owned(),
                password: password.as_ref().map(|password| password.expose().to_owned()),
                ca: ca.clone(),
                cert: cert.clone(),
                key: key.clone(),
                connections: *connections,
                schema: schema_name.clone(),
                statement_timeout: *statement_timeout,
            };
            Arc::new(foldline_sink_postgres::PostgresTarget::new(config, spec)?)
        }
        #[cfg(feature = "elasticsearch")]
        SinkKind::Elasticsearch { urls, api_key, username, password, ca } => {
            let config = foldline_sink_elasticsearch::ElasticsearchConfig {
                urls: urls.clone(),
                api_key: api_key.as_ref().map(|key| key.expose().to_owned()),
                username: username.clone(),
                password: password.as_ref().map(|password| password.expose().to_owned()),
                ca: ca.clone(),
            };
            Arc::new(foldline_sink_elasticsearch::ElasticsearchTarget::new(&config, spec)?)
        }
        #[cfg(feature = "sqlite")]
        SinkKind::Sqlite { path } => {
            let config = foldline_sink_sqlite::SqliteConfig { path: path.clone() };
            Arc::new(foldline_sink_sqlite::SqliteTarget::new(config, spec)?)
        }
        #[cfg(not(feature = "postgres"))]
        SinkKind::Postgres { .. } => return Err(crate::config::unsupported::lacks("postgres")),
        #[cfg(not(feature = "elasticsearch"))]
        SinkKind::Elasticsearch { .. } => {
            return Err(crate::config::unsupported::lacks("elasticsearch"));
        }
        #[cfg(not(feature = "sqlite"))]
        SinkKind::Sqlite { .. } => return Err(crate::config::unsupported::lacks("sqlite")),
        SinkKind::Kafka { .. } => return Err(not_yet("a sink of type \"kafka\"")),
    })
}

/// What the sink makes and asks for a target, without a connection.
///
/// # Errors
/// A config error where the build or this version lacks the sink.
pub(super) fn plan(sink: &SinkKind, spec: &TargetSpec) -> Result<Vec<String>> {
    Ok(match sink {
        #[cfg(feature = "postgres")]
        SinkKind::Postgres { schema_name, .. } => {
            script(&foldline_sink_postgres::plan(spec, schema_name))
        }
        #[cfg(feature = "elasticsearch")]
        SinkKind::Elasticsearch { .. } => foldline_sink_elasticsearch::plan(spec),
        #[cfg(feature = "sqlite")]
        SinkKind::Sqlite { .. } => script(&foldline_sink_sqlite::plan(spec)),
        #[cfg(not(feature = "postgres"))]
        SinkKind::Postgres { .. } => return Err(crate::config::unsupported::lacks("postgres")),
        #[cfg(not(feature = "elasticsearch"))]
        SinkKind::Elasticsearch { .. } => {
            return Err(crate::config::unsupported::lacks("elasticsearch"));
        }
        #[cfg(not(feature = "sqlite"))]
        SinkKind::Sqlite { .. } => return Err(crate::config::unsupported::lacks("sqlite")),
        SinkKind::Kafka { .. } => return Err(not_yet("a sink of type \"kafka\"")),
    })
}

/// Statements as a script that runs as it stands: what takes parameters is in its comments.
#[cfg(any(feature = "postgres", feature = "sqlite"))]
fn script(statements: &[String]) -> Vec<String> {
    let runnable = |sql: &String| {
        if sql.starts_with("CREATE ") { format!("{sql};") } else { commented(sql) }
    };
    statements.iter().map(runnable).collect()
}
