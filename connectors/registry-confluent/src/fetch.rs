//! A schema with all that it refers to, by Confluent's API or, for Apicurio's own ids, by Apicurio's.

use std::collections::HashSet;

use foldline_api::error::Result;
use foldline_language::converter::SchemaId;
use foldline_language::converter::schema::Registered;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use url::Url;

use crate::client::{Client, Said};

/// What a part of a path may hold as it is.
pub(crate) const PLAIN: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// More references than a schema has; one that leads back to itself would never end.
const REFERENCES_MAX: usize = 1_000;

/// What there is under an id.
#[derive(Debug)]
pub(crate) enum Found {
    Schema(Registered),
    Missing(String),
}

/// A schema that may refer to others.
struct Document {
    kind: Option<String>,
    text: String,
    refers: Vec<Reference>,
}

/// What one schema calls another, and where that stands.
#[derive(Deserialize)]
struct Reference {
    name: String,
    #[serde(flatten)]
    place: Place,
}

#[derive(Clone, Deserialize, PartialEq, Eq, Hash)]
#[serde(untagged)]
enum Place {
    Confluent {
        subject: String,
        version: u32,
    },
    Apicurio {
        #[serde(rename = "groupId", default)]
        group: Option<String>,
        #[serde(rename = "artifactId")]
        artifact: String,
        #[serde(default)]
        version: Option<String>,
    },
}

#[derive(Deserialize)]
struct ConfluentSchema {
    schema: String,
    #[serde(rename = "schemaType")]
    kind: Option<String>,
    #[serde(default)]
    references: Option<Vec<Reference>>,
}

/// Gets a schema.
///
/// # Errors
/// Of class Retriable.
pub(crate) async fn fetch(client: &Client, id: SchemaId) -> Result<Found> {
    let document = match id {
        SchemaId::Id(id) => confluent(client, &format!("schemas/ids/{id}")).await?,
        SchemaId::Guid(guid) => confluent(client, &format!("schemas/guids/{guid}")).await?,
        SchemaId::GlobalId(id) => apicurio(client, &format!("ids/globalIds/{id}")).await?,
        SchemaId::ContentId(id) => apicurio(client, &format!("ids/contentIds/{id}")).await?,
        SchemaId::Fingerprint(_) => Err("no registry's API knows fingerprints".to_owned()),
    };
    let document = match document {
        Ok(document) => document,
        Err(missing) => return Ok(Found::Missing(missing)),
    };
    let Document { kind, text, refers } = document;
    Ok(match references(client, refers).await? {
        Ok(references) => Found::Schema(Registered { kind, text, references }),
        Err(missing) => Found::Missing(missing),
    })
}

/// Whether there is a registry at all.
pub(crate) async fn is_one(client: &Client) -> Result<()> {
    match subjects(client).await? {
        Said::Body(_) => Ok(()),
        Said::Missing(why) => Err(client.outage(&format!(
            "it has no /subjects, as a registry has: look at the path of its `url` ({why})"
        ))),
    }
}

async fn subjects(client: &Client) -> Result<Said> {
    client.get("subjects?limit=1", |url| Some(url.clone())).await
}

/// Whether the registry has anything at all.
pub(crate) async fn has_any(client: &Client) -> Result<bool> {
    match subjects(client).await? {
        Said::Missing(_) => Ok(false),
        Said::Body(body) => {
            let subjects: Vec<String> = serde_json::from_slice(&body)
                .map_err(|_| client.outage("its list of subjects is none"))?;
            Ok(!subjects.is_empty())
        }
    }
}

/// All that these schemas refer to, each after those that it refers to.
async fn references(
    client: &Client,
    roots: Vec<Reference>,
) -> Result<std::result::Result<Vec<(String, String)>, String>> {
    let mut found = Vec::new();
    let mut seen = HashSet::new();
    // What is to be asked for, and what comes once all that it refers to is there.
    let mut todo: Vec<Todo> = roots.into_iter().rev().map(Todo::Ask).collect();
    while let Some(next) = todo.pop() {
        let reference = match next {
            Todo::Done(name, text) => {
                found.push((name, text));
                continue;
            }
            Todo::Ask(reference) => reference,
        };
        if !seen.insert((reference.name.clone(), reference.place.clone())) {
            continue;
        }
        if seen.len() > REFERENCES_MAX {
            return Ok(Err(format!("it has more than {REFERENCES_MAX} references")));
        }
        let document = match at(client, &reference.place).await? {
            Ok(document) => document,
            Err(missing) => {
                return Ok(Err(format!(
                    "what it calls {:?} is missing: {missing}",
                    reference.name
                )));
            }
        };
        todo.push(Todo::Done(reference.name, document.text));
        todo.extend(document.refers.into_iter().rev().map(Todo::Ask));
    }
    Ok(Ok(found))
}

enum Todo {
    Ask(Reference),
    Done(String, String),
}

type Asked = Result<std::result::Result<Document, String>>;

async fn at(client: &Client, place: &Place) -> Asked {
    let part = |text: &str| utf8_percent_encode(text, PLAIN).to_string();
    match place {
        // What was deleted softly is still what a schema refers to.
        Place::Confluent { subject, version } => {
            let path = format!("subjects/{}/versions/{version}?deleted=true", part(subject));
            confluent(client, &path).await
        }
        Place::Apicurio { group, artifact, version } => {
            let group = part(group.as_deref().unwrap_or("default"));
            let version = part(version.as_deref().unwrap_or("latest"));
            let path = format!("groups/{group}/artifacts/{}/versions/{version}", part(artifact));
            apicurio(client, &path).await
        }
    }
}

async fn confluent(client: &Client, path: &str) -> Asked {
    let body = match client.get(path, |url| Some(url.clone())).await? {
        Said::Missing(why) => return Ok(Err(why)),
        Said::Body(body) => body,
    };
    let schema: ConfluentSchema = serde_json::from_slice(&body).map_err(|error| {
        client.outage(&format!("its answer for /{path} is no registry's: {error}"))
    })?;
    let kind = schema.kind.unwrap_or_else(|| "AVRO".to_owned());
    let refers = schema.references.unwrap_or_default();
    Ok(Ok(Document { kind: Some(kind), text: schema.schema, refers }))
}

async fn apicurio(client: &Client, path: &str) -> Asked {
    let text = match client.get(path, apicurios_own).await? {
        Said::Missing(why) => return Ok(Err(why)),
        Said::Body(body) => body,
    };
    let text = String::from_utf8(text)
        .map_err(|_| client.outage(&format!("its answer for /{path} is no text")))?;
    let refers = match client.get(&format!("{path}/references"), apicurios_own).await? {
        Said::Missing(why) => return Ok(Err(why)),
        Said::Body(body) => serde_json::from_slice(&body).map_err(|error| {
            client.outage(&format!("its answer for /{path}/references is no registry's: {error}"))
        })?,
    };
    Ok(Ok(Document { kind: None, text, refers }))
}

/// Apicurio's own API beside its one of Confluent's: `…/apis/ccompat/v7` to `…/apis/registry/v2`.
fn apicurios_own(url: &Url) -> Option<Url> {
    let (before, _) = url.path().split_once("/apis/")?;
    let mut own = url.clone();
    own.set_path(&format!("{before}/apis/registry/v2"));
    Some(own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn apicurios_own_api_is_beside_that_of_confluent() {
        let own = |url: &str| apicurios_own(&Url::parse(url).unwrap()).map(String::from);
        let at_host = own("http://h:8081/apis/ccompat/v7").unwrap();
        assert_eq!(at_host, "http://h:8081/apis/registry/v2");
        let below = own("https://h/x/apis/ccompat/v7/").unwrap();
        assert_eq!(below, "https://h/x/apis/registry/v2");
        assert_eq!(own("http://h:8081/"), None);
    }
}
