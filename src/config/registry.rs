//! `[registries.NAME]`: where schemas come from.

use std::path::PathBuf;

use foldline_api::secret::Secret;
use foldline_language::config::reader::{Field, Reader};
use foldline_language::config::tree::Item;

use super::names::check_topic;

/// One registry.
#[derive(Clone, Debug, PartialEq)]
pub struct RegistryConfig {
    /// Its name in the config.
    pub name: String,
    /// Where its schemas are.
    pub kind: RegistryKind,
}

/// Where schemas are.
#[derive(Clone, Debug, PartialEq)]
pub enum RegistryKind {
    /// A server with Confluent's API.
    Confluent {
        /// Its address.
        url: Secret,
        /// With `password`.
        username: Option<String>,
        /// With `username`.
        password: Option<Secret>,
        /// PEM file of the authority that signed the server's certificate.
        ca: Option<PathBuf>,
    },
    /// A topic: CRC-64-AVRO fingerprints to schemas.
    Topic {
        /// Its name.
        topic: String,
        /// The source that has it; where there is only one, that one.
        source: Option<String>,
    },
}

pub(super) fn read(name: &str, field: &Field<'_>, sources: &[&str]) -> Option<RegistryConfig> {
    let Item::Table(table) = &field.node.item else {
        field.table("registry.confluent");
        return None;
    };
    let Some(node) = table.get("type") else {
        field.problem_with_help("`type` is missing", "type = \"confluent\" or \"topic\"");
        return None;
    };
    let kind = Field { cx: field.cx, path: format!("{}.type", field.path), node };
    let is_topic = kind.choice(&[("confluent", false), ("topic", true)])?;
    let mut reader = field.table(if is_topic { "registry.topic" } else { "registry.confluent" })?;
    reader.get("type");
    let kind =
        if is_topic { read_topic(&mut reader, sources) } else { read_confluent(&mut reader) };
    reader.finish();
    Some(RegistryConfig { name: name.to_owned(), kind: kind? })
}

fn read_confluent(reader: &mut Reader<'_>) -> Option<RegistryKind> {
    let url = reader.required("url", "\"http://localhost:8081\"").and_then(|f| f.secret());
    let username = reader.text("username");
    let password = reader.get("password").and_then(|f| f.secret());
    if username.is_some() != password.is_some() {
        reader.problem("`username` and `password` go together");
    }
    let ca = reader.get("ca").and_then(|field| field.file_path());
    Some(RegistryKind::Confluent { url: url?, username, password, ca })
}

fn read_topic(reader: &mut Reader<'_>, sources: &[&str]) -> Option<RegistryKind> {
    let topic = reader.required("topic", "\"schemas\"").and_then(|field| {
        let topic = field.text()?;
        check_topic(&field, &topic);
        Some(topic)
    });
    let source =
        reader.get("source").and_then(|field| field.reference("source", sources.iter().copied()));
    if source.is_none() && sources.len() > 1 {
        reader.problem("`source` is missing, and there is more than one");
    }
    Some(RegistryKind::Topic { topic: topic?, source })
}
