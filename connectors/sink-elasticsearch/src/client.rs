//! Requests: how they are sent, and what is retried before the worker hears of it.

use std::time::Duration;

use bytes::Bytes;
use elasticsearch::auth::Credentials;
use elasticsearch::http::Method;
use elasticsearch::http::headers::HeaderValue;
use foldline_api::sink::Version;
use foldline_api::{Error, Result, mask};
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt, TryStreamExt, stream};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value as Json;
use serde_json::value::RawValue;
use url::Url;

use crate::bulk::{self, Lines, Outcome};
use crate::config::ElasticsearchConfig;
use crate::error::{Cause, Failure, Fault};
use crate::nodes::{Nodes, Request};
use crate::size::Size;

mod within;

/// How long a request may take where the config does not say.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// Documents of one multi-get, where none took too long; its callers ask for no more.
const READ_MAX: usize = 10_000;
/// What a multi-get that fails was doing.
const READING: &str = "reading documents";
/// Requests of one write or load under way at a time.
pub(crate) const IN_FLIGHT: usize = 4;
/// No more is sent while so many bytes are under way.
const BYTES_IN_FLIGHT: usize = 12 << 20;
/// How often items that were refused for now are sent before the worker hears of it.
const ATTEMPTS: u32 = 4;
/// The first pause before such items are sent again; it doubles.
const PAUSE: Duration = Duration::from_millis(100);

/// How often a read that found no shard is sent again: about six seconds.
pub(crate) const READ_ATTEMPTS: u32 = 6;

/// The pause after an attempt, from 0.
pub(crate) async fn pause(attempt: u32) {
    let jitter = rand::random_range(0.5..1.5);
    tokio::time::sleep((PAUSE * 2u32.pow(attempt)).mul_f64(jitter)).await;
}

/// Whether the shards were not there to answer, as right after an index was created.
pub(crate) fn is_unavailable(error: &Error) -> bool {
    error.code().is_some_and(|code| code.starts_with("503 "))
}

/// A cluster.
#[derive(Debug)]
pub(crate) struct Client {
    nodes: Nodes,
    /// Of bulks.
    writes: Size,
    /// Of multi-gets.
    reads: Size,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) body: Bytes,
    /// It was larger than it was to be.
    pub(crate) unread: bool,
}

impl Reply {
    /// The answer, if it is a success.
    pub(crate) fn success(self) -> Result<Bytes, Failure> {
        if self.status < 300 {
            return Ok(self.body);
        }
        Err(Failure { status: self.status, cause: self.cause() })
    }

    fn cause(&self) -> Cause {
        match serde_json::from_slice::<Refusal>(&self.body) {
            Ok(Refusal { error: Some(Words::Cause(cause)) }) => cause,
            Ok(Refusal { error: Some(Words::Text(text)) }) => {
                Cause { kind: String::new(), reason: Some(text) }
            }
            _ => Cause::default(),
        }
    }

    /// Whether the server has no such request: OpenSearch's point in time is another one. Elasticsearch 7
    /// takes the path of an API that it lacks, or has switched off, for an index's name.
    pub(crate) fn is_unknown_to_the_server(&self) -> bool {
        const SAYS: [&str; 2] = ["no handler found", "Invalid index name [_"];
        let unknown =
            || self.cause().reason.is_some_and(|r| SAYS.iter().any(|says| r.starts_with(says)));
        self.status == 405 || (self.status == 400 && unknown())
    }

    /// Whether another node may do better: a proxy's word, or that of a node without a master. What
    /// Elasticsearch says of the whole cluster, such as that shards are missing, it says on each node.
    pub(crate) fn is_of_a_bad_node(&self) -> bool {
        const ALONE: [&str; 3] = ["", "master_not_discovered_exception", "cluster_block_exception"];
        matches!(self.status, 502..=504) && ALONE.contains(&self.cause().kind.as_str())
    }

    /// The answer as `T`; `doing` completes "while".
    pub(crate) fn read<T: DeserializeOwned>(self, doing: &str) -> Result<T> {
        let body = self.success().map_err(|failure| failure.error(doing))?;
        decode(&body, doing)
    }
}

pub(crate) fn decode<T: DeserializeOwned>(body: &[u8], doing: &str) -> Result<T> {
    serde_json::from_slice(body).map_err(|error| {
        Error::retriable(format!("unreadable answer while {doing}")).with_source(error)
    })
}

#[derive(Deserialize)]
struct Refusal {
    error: Option<Words>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Words {
    Cause(Cause),
    Text(String),
}

impl Client {
    /// Sends nothing yet.
    pub(crate) fn new(config: &ElasticsearchConfig) -> Result<Self> {
        let mut login = credentials(config)?;
        let mut urls = Vec::with_capacity(config.urls.len());
        for text in &config.urls {
            let mut url = Url::parse(text).map_err(|error| {
                let shown = mask::url(text);
                Error::config(format!("{shown:?} is no URL: {error}"))
            })?;
            if !matches!(url.scheme(), "http" | "https") {
                return Err(Error::config(format!(
                    "{:?} must start with http:// or https://",
                    mask::url(text)
                )));
            }
            if !url.username().is_empty() {
                let password = url.password().unwrap_or_default().to_owned();
                login.get_or_insert(Credentials::Basic(url.username().to_owned(), password));
                // Both setters only fail for URLs that cannot have a login.
                let _ = url.set_username("");
                let _ = url.set_password(None);
            }
            urls.push(url);
        }
        if urls.is_empty() {
            return Err(Error::config("urls is empty: name at least one Elasticsearch node"));
        }
        let ca = match &config.ca {
            None => None,
            Some(path) => Some(std::fs::read(path).map_err(|error| {
                Error::config(format!("cannot read ca {}: {error}", path.display()))
            })?),
        };
        let timeout = config.request_timeout.unwrap_or(REQUEST_TIMEOUT);
        let nodes = Nodes::new(urls, login.as_ref(), ca.as_deref(), timeout);
        let nodes = nodes.map_err(|error| match &config.ca {
            Some(path) => Error::config(format!("ca {}: {}", path.display(), error.message())),
            None => error,
        })?;
        Ok(Client { nodes, writes: Size::new(bulk::ITEMS_MAX), reads: Size::new(READ_MAX) })
    }

    /// Sends a request whose body, if any, is JSON.
    pub(crate) async fn json(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        body: Option<&Json>,
    ) -> Result<Reply> {
        let body = body.map(|body| Bytes::from(body.to_string()));
        let request = Request { method, path, query, bytes_max: usize::MAX };
        self.nodes.send(request, body).await
    }

    /// As [`Client::bulk`], of items that are there as text.
    ///
    /// # Errors
    /// As there.
    pub(crate) async fn bulk_items(&self, alias: &str, items: &[String]) -> Result<Vec<Outcome>> {
        let lines = |at: usize, out: &mut String| out.extend(items.get(at).map(String::as_str));
        self.bulk(alias, items.len(), &lines).await
    }

    /// Writes so many items through an alias, never creating an index, and answers for each in their order.
    /// Items that were refused for now are sent again a few times.
    ///
    /// # Errors
    /// When a request as a whole failed: what became of its items is then unknown.
    pub(crate) async fn bulk(
        &self,
        alias: &str,
        items: usize,
        lines: &Lines<'_>,
    ) -> Result<Vec<Outcome>> {
        let mut outcomes: Vec<Option<Outcome>> = vec![None; items];
        let mut pending: Vec<usize> = (0..items).collect();
        for attempt in 0..ATTEMPTS {
            for (at, outcome) in self.send_all(alias, &pending, lines).await? {
                if let Some(slot) = outcomes.get_mut(at) {
                    *slot = Some(outcome);
                }
            }
            pending.retain(|&at| {
                let outcome = outcomes.get(at).and_then(Option::as_ref);
                matches!(outcome, Some(Err(failure)) if failure.fault() == Fault::Retriable)
            });
            if pending.is_empty() || attempt + 1 == ATTEMPTS {
                break;
            }
            pause(attempt).await;
        }
        self.writes.passed(items);
        outcomes
            .into_iter()
            .map(|outcome| outcome.ok_or_else(|| Error::retriable("a bulk item was not answered")))
            .collect()
    }

    /// Sends these items, each once. A request is written when there is room for it beside those that are under way.
    async fn send_all(
        &self,
        alias: &str,
        items: &[usize],
        lines: &Lines<'_>,
    ) -> Result<Vec<(usize, Outcome)>> {
        let mut requests = bulk::requests(items, lines, self.writes.items());
        let (mut under_way, mut bytes) = (FuturesUnordered::new(), 0);
        let mut answers = Vec::new();
        loop {
            while under_way.len() < IN_FLIGHT
                && bytes < BYTES_IN_FLIGHT
                && let Some((chosen, body)) = requests.next()
            {
                let size = body.len();
                bytes += size;
                let request = self.bulk_request(alias, lines, chosen, body);
                under_way.push(request.map(move |answer| (size, answer)));
            }
            // All requests are waited for, also when one failed: the next step must find them ended.
            let Some((size, answer)) = under_way.next().await else { break };
            bytes -= size;
            answers.push(answer);
        }
        let answers: Vec<Vec<(usize, Outcome)>> = answers.into_iter().collect::<Result<_>>()?;
        Ok(answers.concat())
    }

    /// One bulk request of the chosen items; halved as long as the cluster finds it too large.
    async fn bulk_request(
        &self,
        alias: &str,
        lines: &Lines<'_>,
        chosen: Vec<usize>,
        body: String,
    ) -> Result<Vec<(usize, Outcome)>> {
        // `_none`: no pipeline may touch what is read back as state.
        let query =
            [("require_alias", "true"), ("pipeline", "_none"), ("filter_path", bulk::FILTER)];
        let path = format!("/{alias}/_bulk");
        let mut out = Vec::with_capacity(chosen.len());
        let mut stack = vec![(chosen, body)];
        while let Some((part, body)) = stack.pop() {
            let bytes_max = usize::MAX;
            let request = Request { method: Method::Post, path: &path, query: &query, bytes_max };
            let reply = self.nodes.send(request, Some(Bytes::from(body))).await;
            // What became of its items is the worker's to ask before they are sent again.
            let reply = reply.inspect_err(|error| {
                if error.is_too_much() {
                    self.writes.shrink(part.len());
                }
            })?;
            match reply.success() {
                Ok(body) => {
                    let outcomes = bulk::decode(&body, part.len())?;
                    out.extend(part.into_iter().zip(outcomes));
                }
                Err(failure) if failure.fault() == Fault::TooLarge => {
                    if let [only] = part.as_slice() {
                        out.push((*only, Err(failure)));
                    } else {
                        let (first, second) = part.split_at(part.len() / 2);
                        for half in [second, first] {
                            let mut body = String::new();
                            half.iter().for_each(|&item| lines(item, &mut body));
                            stack.push((half.to_vec(), body));
                        }
                    }
                }
                // A proxy or the cluster gave it up.
                Err(failure) if failure.is_of_time() => {
                    self.writes.shrink(part.len());
                    return Err(failure.of_document("writing").too_much());
                }
                Err(failure) => return Err(failure.of_document("writing")),
            }
        }
        Ok(out)
    }

    /// Reads documents by id, as they are now and not as a search would see them, in their order;
    /// with `source` their content too. `per_request` ids go into one request.
    pub(crate) async fn mget(
        &self,
        index: &str,
        ids: &[String],
        source: bool,
        per_request: usize,
    ) -> Result<Vec<Document>> {
        let requests: Vec<_> = ids
            .chunks(per_request.clamp(1, self.reads.items()))
            .map(|ids| self.mget_request(index, ids, source, usize::MAX))
            .collect();
        let answers: Vec<Vec<Document>> =
            stream::iter(requests).buffered(IN_FLIGHT).try_collect().await?;
        self.reads.passed(ids.len());
        Ok(answers.into_iter().flatten().collect())
    }

    async fn mget_request(
        &self,
        index: &str,
        ids: &[String],
        source: bool,
        bytes_max: usize,
    ) -> Result<Vec<Document>> {
        let mut attempt = 0;
        loop {
            match self.mget_once(index, ids, source, bytes_max).await {
                // An index that another worker just created answers so until its shards are up.
                Err(error) if attempt < READ_ATTEMPTS && is_unavailable(&error) => {
                    pause(attempt).await;
                    attempt += 1;
                }
                result => return result,
            }
        }
    }

    async fn mget_once(
        &self,
        index: &str,
        ids: &[String],
        source: bool,
        bytes_max: usize,
    ) -> Result<Vec<Document>> {
        let query = [("_source", if source { "true" } else { "false" })];
        let body = Bytes::from(serde_json::json!({ "ids": ids }).to_string());
        let path = format!("/{index}/_mget");
        let request = Request { method: Method::Post, path: &path, query: &query, bytes_max };
        let reply = self.nodes.send(request, Some(body)).await.map_err(|error| {
            if !error.is_too_much() {
                return error;
            }
            // Tried again as after any outage, and heard of: with fewer at once, which nobody else need see to.
            self.reads.shrink(ids.len());
            Error::retriable(error.message()).with_source(error)
        })?;
        if reply.unread {
            return Err(Error::retriable("more documents than fit into memory").too_much());
        }
        let found: Found = match reply.success() {
            Err(failure) => {
                if failure.is_of_time() {
                    self.reads.shrink(ids.len());
                }
                return Err(failure.error(READING));
            }
            Ok(body) => decode(&body, READING)?,
        };
        if found.docs.len() != ids.len() {
            return Err(Error::retriable("an answer to fewer documents than were asked for"));
        }
        found.docs.into_iter().map(document).collect()
    }
}

/// A document that was asked for by id.
#[derive(Debug)]
pub(crate) struct Document {
    /// Its version; absent where there is none.
    pub(crate) version: Version,
    /// Its content, if there is one and it was asked for.
    pub(crate) source: Option<Box<RawValue>>,
}

impl Document {
    /// Bytes of its content.
    pub(crate) fn bytes(&self) -> usize {
        self.source.as_ref().map_or(0, |source| source.get().len())
    }
}

#[derive(Deserialize)]
struct Found {
    docs: Vec<Got>,
}

#[derive(Deserialize)]
struct Got {
    #[serde(default)]
    found: bool,
    #[serde(rename = "_seq_no")]
    seq_no: Option<u64>,
    #[serde(rename = "_primary_term")]
    primary_term: Option<u64>,
    #[serde(rename = "_source")]
    source: Option<Box<RawValue>>,
    error: Option<Cause>,
}

fn document(got: Got) -> Result<Document> {
    if let Some(cause) = got.error {
        // The items of a multi-get carry no status of their own.
        let status = if cause.kind == "index_not_found_exception" { 404 } else { 503 };
        return Err(Failure { status, cause }.error(READING));
    }
    match (got.found, got.seq_no, got.primary_term) {
        (false, ..) => Ok(Document { version: Version::Absent, source: None }),
        (true, Some(seq_no), Some(term)) => {
            Ok(Document { version: Version::At(seq_no, term), source: got.source })
        }
        (true, ..) => Err(Error::retriable("a document came without its sequence number")),
    }
}

fn credentials(config: &ElasticsearchConfig) -> Result<Option<Credentials>> {
    match (&config.api_key, &config.username, &config.password) {
        (Some(_), Some(_), _) | (Some(_), _, Some(_)) => {
            Err(Error::config("give api_key, or username and password, not both"))
        }
        (Some(key), None, None) => {
            // The client would panic on what no header can hold.
            if HeaderValue::from_str(key).is_err() {
                return Err(Error::config("api_key holds what an HTTP header cannot"));
            }
            Ok(Some(Credentials::EncodedApiKey(key.clone())))
        }
        (None, Some(user), Some(password)) => {
            Ok(Some(Credentials::Basic(user.clone(), password.clone())))
        }
        (None, None, None) => Ok(None),
        (None, ..) => Err(Error::config("username and password belong together")),
    }
}

#[cfg(test)]
mod tests;
