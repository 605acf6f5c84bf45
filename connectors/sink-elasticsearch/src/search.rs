//! Searches and refreshes of which nothing is missing.
//!
//! Where a shard does not answer, or answers too late, Elasticsearch answers with the hits of the others and status 200.
//! Whoever takes those for all of them takes a document for gone.

use elasticsearch::http::Method;
use foldline_api::sink::Version;
use foldline_api::{Error, Result};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value as Json;

use crate::client::{Client, decode};

/// What an answer says of itself.
#[derive(Deserialize)]
struct Outcome {
    #[serde(default)]
    timed_out: bool,
    #[serde(rename = "_shards")]
    shards: Option<Shards>,
}

#[derive(Deserialize)]
struct Shards {
    #[serde(default)]
    total: u64,
    #[serde(default)]
    successful: u64,
    #[serde(default)]
    failed: u64,
}

/// What a search found that asked for `seq_no_primary_term` and for an order; `S` is what it asked for of each document.
#[derive(Deserialize)]
pub(crate) struct Page<S> {
    /// The point in time to go on with, where the search was in one.
    #[serde(default)]
    pub(crate) pit_id: Option<String>,
    hits: Hits<S>,
}

impl<S> Page<S> {
    /// How many match, up to what the search asked to be counted.
    pub(crate) fn total(&self) -> u64 {
        self.hits.total.as_ref().map_or(0, |total| total.value)
    }

    pub(crate) fn into_hits(self) -> Vec<Hit<S>> {
        self.hits.hits
    }
}

#[derive(Deserialize)]
struct Hits<S> {
    total: Option<Total>,
    hits: Vec<Hit<S>>,
}

#[derive(Deserialize)]
struct Total {
    value: u64,
}

/// A document that was found.
#[derive(Deserialize)]
pub(crate) struct Hit<S> {
    #[serde(rename = "_id")]
    pub(crate) id: String,
    #[serde(rename = "_seq_no")]
    pub(crate) seq_no: u64,
    #[serde(rename = "_primary_term")]
    primary_term: u64,
    #[serde(rename = "_source")]
    pub(crate) source: S,
    /// Where it stands in the order: what `search_after` takes.
    pub(crate) sort: Vec<Json>,
}

impl<S> Hit<S> {
    /// What the next write of it must find.
    pub(crate) fn version(&self) -> Version {
        Version::At(self.seq_no, self.primary_term)
    }
}

/// The error of an answer that leaves something out, which waiting may cure; its code is that of shards that are not there.
fn partial(doing: &str, why: &str) -> Error {
    Error::retriable(format!("only a part of the answer came while {doing}: {why}"))
        .with_code("503 no_shard_available_action_exception")
}

impl Client {
    /// Searches by `query`; all hits that match, or an error. `path` ends in `_search`.
    ///
    /// # Errors
    /// A retriable one where a shard did not answer, or not in time, which is too much.
    pub(crate) async fn search<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &Json,
        doing: &str,
    ) -> Result<T> {
        let whole = [("allow_partial_search_results", "false")];
        let reply = self.json(Method::Post, path, &whole, Some(query)).await?;
        let body = reply.success().map_err(|failure| failure.error(doing))?;
        let outcome: Outcome = decode(&body, doing)?;
        if outcome.timed_out {
            return Err(partial(doing, "the search timed out").too_much());
        }
        // A shard that has no copy to ask is not always called failed.
        match outcome.shards {
            Some(shards) if shards.failed == 0 && shards.successful == shards.total => {
                decode(&body, doing)
            }
            Some(Shards { total, successful, .. }) => {
                Err(partial(doing, &format!("{successful} of {total} shards answered")))
            }
            None => Err(partial(doing, "it does not say which shards answered")),
        }
    }

    /// Makes what was written to an index or alias visible to searches.
    ///
    /// # Errors
    /// A retriable one where a shard was not refreshed.
    pub(crate) async fn refresh(&self, index: &str, doing: &str) -> Result<()> {
        let path = format!("/{index}/_refresh");
        let outcome: Outcome = self.json(Method::Post, &path, &[], None).await?.read(doing)?;
        // Replicas that have no node are counted, and neither successful nor failed.
        match outcome.shards {
            Some(shards) if shards.failed > 0 || (shards.total > 0 && shards.successful == 0) => {
                Err(partial(doing, &format!("{} shards were not refreshed", shards.failed.max(1))))
            }
            Some(_) | None => Ok(()),
        }
    }
}
