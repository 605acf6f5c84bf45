//! What the login may, asked before anything is written.

use std::collections::BTreeMap;

use elasticsearch::http::Method;
use foldline_api::{Error, Result};
use serde::Deserialize;
use serde_json::json;

use crate::books;
use crate::survey::Cluster;

/// What the role must be able to do with its indexes.
const WANTED: [&str; 3] = ["read", "write", "manage"];

/// What Elasticsearch answers; privileges by index.
#[derive(Deserialize)]
struct Privileges {
    has_all_requested: bool,
    #[serde(default)]
    cluster: BTreeMap<String, bool>,
    #[serde(default)]
    index: BTreeMap<String, BTreeMap<String, bool>>,
}

impl Cluster {
    /// Asks whether the login has the privileges that a target takes. A cluster without security has no such question.
    ///
    /// # Errors
    /// Retriable, with what is missing.
    ///
    /// Elasticsearch's reference: security APIs, "Check user privileges".
    pub(crate) async fn check_privileges(&self) -> Result<()> {
        let alias = self.names.alias();
        let names = [alias.to_owned(), format!("{alias}-g*"), format!("{}*", books::ALIAS)];
        let body = json!({
            "cluster": ["monitor"],
            "index": [{ "names": names, "privileges": WANTED }],
        });
        let path = "/_security/user/_has_privileges";
        let reply = self.client.json(Method::Post, path, &[], Some(&body)).await?;
        if reply.is_unknown_to_the_server() {
            return Ok(());
        }
        let found: Privileges = reply.read("asking for privileges")?;
        if found.has_all_requested { Ok(()) } else { Err(lacking(&found)) }
    }
}

fn lacking(found: &Privileges) -> Error {
    let of = |has: &BTreeMap<String, bool>| -> Vec<String> {
        has.iter().filter(|(_, has)| !**has).map(|(name, _)| name.clone()).collect()
    };
    let cluster = Some(("the cluster", of(&found.cluster)));
    let indexes = found.index.iter().map(|(name, has)| (name.as_str(), of(has)));
    let lacks: Vec<String> = cluster
        .into_iter()
        .chain(indexes)
        .filter(|(_, lacks)| !lacks.is_empty())
        .map(|(name, lacks)| format!("{} on {name}", lacks.join(", ")))
        .collect();
    Error::retriable(format!(
        "the login lacks {}: docs/getting-started.md has the role that it needs",
        lacks.join("; ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named() {
        let answer = r#"{"username":"foldline","has_all_requested":false,"cluster":{"monitor":true},"application":{},
            "index":{"orders":{"read":true,"write":false,"manage":false},"foldline-books*":{"read":true,"write":true,"manage":true}}}"#;
        let found: Privileges = serde_json::from_str(answer).unwrap();
        let message = lacking(&found).to_string();
        assert!(message.contains("lacks manage, write on orders: docs"), "{message}");
    }
}
