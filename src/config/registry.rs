//! `[registries.NAME]`: where schemas come from.

use std::path::PathBuf;
use std::sync::Arc;

use foldline_api::error::Result;
use foldline_api::secret::Secret;
use foldline_language::config::form::{FilePath, SecretText, Text};
use foldline_language::config::key::{Key, Required};
use foldline_language::config::reader::{Field, Reader};
use foldline_language::config::table_kind::{TableKind, read_type};
use foldline_language::converter::schema::Register;

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
        /// Its addresses.
        urls: Vec<Secret>,
        /// With `password`.
        username: Option<String>,
        /// With `username`.
        password: Option<Secret>,
        /// In their place.
        token: Option<Secret>,
        /// PEM file of the authority that signed the server's certificate.
        ca: Option<PathBuf>,
        /// PEM files of the certificate that it is shown, and of its key.
        certificate: Option<(PathBuf, PathBuf)>,
    },
    /// A topic: CRC-64-AVRO fingerprints to schemas.
    Topic {
        /// Its name.
        topic: String,
        /// The source that has it; where there is only one, that one.
        source: Option<String>,
    },
}

impl RegistryConfig {
    /// What asks its server. Nothing is asked yet.
    ///
    /// # Errors
    /// A config error where it is no server, or this build cannot ask one.
    #[cfg(feature = "registry")]
    pub(crate) fn server(&self) -> Result<Arc<dyn Register>> {
        use foldline_api::error::Error;
        use foldline_registry_confluent::{Login, Registry};

        let RegistryKind::Confluent { urls, username, password, token, ca, certificate } =
            &self.kind
        else {
            return Err(Error::config(format!("the registry {:?} is no server", self.name)));
        };
        let login = match (username, password, token) {
            (Some(username), Some(password), _) => {
                Login::Basic { username: username.clone(), password: password.clone() }
            }
            (_, _, Some(token)) => Login::Bearer(token.clone()),
            _ => Login::None,
        };
        Ok(Arc::new(Registry::new(&foldline_registry_confluent::RegistryConfig {
            name: self.name.clone(),
            urls: urls.clone(),
            login,
            ca: ca.clone(),
            certificate: certificate.clone(),
        })?))
    }

    /// As a build that has none of it.
    #[cfg(not(feature = "registry"))]
    pub(crate) fn server(&self) -> Result<Arc<dyn Register>> {
        Err(super::lacks("registry"))
    }

    /// The source that it names.
    pub(super) fn source(&self) -> Option<&str> {
        match &self.kind {
            RegistryKind::Topic { source, .. } => source.as_deref(),
            RegistryKind::Confluent { .. } => None,
        }
    }
}

pub(super) static CONFLUENT: TableKind = TableKind {
    of: "registry",
    name: "confluent",
    doc: "A schema registry.",
    keys: &[&URL, &USERNAME, &PASSWORD, &TOKEN, &CA, &CERTIFICATE, &PRIVATE_KEY],
};
pub(super) static TOPIC: TableKind = TableKind {
    of: "registry",
    name: "topic",
    doc: "Schemas in a topic.",
    keys: &[&TOPIC_NAME, &SOURCE],
};

const URL: Key<SecretText, Required> =
    Key::new("url", SecretText, "Its address; several, asked in turn, joined by commas")
        .required("\"http://localhost:8081\"");
const USERNAME: Key<Text> = Key::new("username", Text, "With `password`");
const PASSWORD: Key<SecretText> = Key::new("password", SecretText, "With `username`");
const CA: Key<FilePath> =
    Key::new("ca", FilePath, "PEM file of the authority that signed its certificate");
const TOKEN: Key<SecretText> = Key::new("token", SecretText, "Bearer token, in place of a login");
const CERTIFICATE: Key<FilePath> = Key::new(
    "certificate",
    FilePath,
    "PEM file of the certificate that it is shown; with `private_key`",
);
const PRIVATE_KEY: Key<FilePath> =
    Key::new("private_key", FilePath, "PEM file of the certificate's key, in PKCS 8");
const TOPIC_NAME: Key<Text, Required> =
    Key::new("topic", Text, "Topic of schemas, by CRC-64-AVRO fingerprint")
        .required("\"schemas\"")
        .checked(|field, topic| check_topic(field, topic));
const SOURCE: Key<Text> =
    Key::new("source", Text, "The source that has the topic, where there are several");

pub(super) fn read(name: &str, field: &Field<'_>, sources: &[&str]) -> Option<RegistryConfig> {
    let is_topic = read_type(field, &[(CONFLUENT.name, false), (TOPIC.name, true)])?;
    let mut reader = if is_topic { &TOPIC } else { &CONFLUENT }.reader(field)?;
    let kind =
        if is_topic { read_topic(&mut reader, sources) } else { read_confluent(&mut reader) };
    reader.finish();
    Some(RegistryConfig { name: name.to_owned(), kind: kind? })
}

fn read_confluent(reader: &mut Reader<'_>) -> Option<RegistryKind> {
    let url = reader.read(&URL);
    let username = reader.read(&USERNAME);
    let password = reader.read(&PASSWORD);
    if username.is_some() != password.is_some() {
        reader.problem("`username` and `password` go together");
    }
    let token = reader.read(&TOKEN);
    if token.is_some() && username.is_some() {
        reader.problem("either `token`, or `username` and `password`");
    }
    let ca = reader.read(&CA);
    let certificate = match (reader.read(&CERTIFICATE), reader.read(&PRIVATE_KEY)) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        _ => {
            reader.problem("`certificate` and `private_key` go together");
            None
        }
    };
    let urls = url?.expose().split(',').map(|url| Secret::new(url.trim())).collect();
    Some(RegistryKind::Confluent { urls, username, password, token, ca, certificate })
}

fn read_topic(reader: &mut Reader<'_>, sources: &[&str]) -> Option<RegistryKind> {
    let topic = reader.read(&TOPIC_NAME);
    let source = reader.field(&SOURCE);
    let source = source.and_then(|field| field.reference("source", sources.iter().copied()));
    if source.is_none() && sources.len() > 1 {
        reader.problem("`source` is missing, and there is more than one");
    }
    Some(RegistryKind::Topic { topic: topic?, source })
}
