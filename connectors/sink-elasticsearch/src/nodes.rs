//! Which node a request goes to: round the nodes, past those that failed lately.
//!
//! A node is bad that cannot be connected to, breaks off, does not answer in time, or answers as a proxy or a
//! node without a master does. It is rested, for twice as long each time, and tried again with a request that
//! can go to the next node if it fails once more.

use std::error::Error as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use elasticsearch::auth::Credentials;
use elasticsearch::cert::{Certificate, CertificateValidation};
use elasticsearch::http::Method;
use elasticsearch::http::headers::{CONTENT_TYPE, HeaderMap, HeaderValue};
use elasticsearch::http::transport::{SingleNodeConnectionPool, Transport, TransportBuilder};
use foldline_api::{Error, Result};
use tokio::time::Instant;
use url::Url;

use crate::client::Reply;

/// How long a node rests after its first failure.
const REST: Duration = Duration::from_secs(1);
/// How often the rest doubles, at most: to about a minute.
const REST_DOUBLES: u32 = 6;

/// A request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request<'a> {
    pub(crate) method: Method,
    pub(crate) path: &'a str,
    pub(crate) query: &'a [(&'a str, &'a str)],
    /// An answer of more bytes is not read.
    pub(crate) bytes_max: usize,
}

impl Request<'_> {
    /// Whether it may be sent again without knowing what became of it. A bulk that was done finds other
    /// versions, and alias actions with `must_exist` find no alias: both would read as another worker's.
    fn is_idempotent(&self) -> bool {
        !self.path.ends_with("/_bulk") && self.path != "/_aliases"
    }

    /// Whether less of it can be asked for at once.
    fn has_parts(&self) -> bool {
        self.path.ends_with("/_bulk") || self.path.ends_with("/_mget")
    }
}

/// The nodes of a cluster.
#[derive(Debug)]
pub(crate) struct Nodes {
    nodes: Vec<Node>,
    next: AtomicUsize,
    timeout: Duration,
}

#[derive(Debug)]
struct Node {
    transport: Transport,
    health: Mutex<Health>,
}

/// How a node did of late.
#[derive(Clone, Copy, Debug, Default)]
struct Health {
    /// Failures since it last did well.
    failures: u32,
    /// Until when it rests.
    rests: Option<Instant>,
}

impl Health {
    fn note(&mut self, failed: bool, now: Instant) {
        if !failed {
            *self = Health::default();
            return;
        }
        let rest = REST * 2u32.pow(self.failures.min(REST_DOUBLES));
        self.failures = self.failures.saturating_add(1);
        self.rests = Some(now + rest);
    }

    /// The lower, the sooner it is chosen. One whose rest is over is tried with what can be sent again.
    fn rank(&self, idempotent: bool, now: Instant) -> (u8, Option<Instant>) {
        match self.rests {
            None => (0, None),
            Some(until) if until <= now => (u8::from(!idempotent), None),
            Some(until) => (2, Some(until)),
        }
    }
}

impl Nodes {
    /// Sends nothing yet. `timeout` is how long one request may take: a bulk that takes longer is asked about, not
    /// waited for.
    pub(crate) fn new(
        urls: Vec<Url>,
        login: Option<&Credentials>,
        ca: Option<&[u8]>,
        timeout: Duration,
    ) -> Result<Self> {
        let mut nodes = Vec::with_capacity(urls.len());
        for url in urls {
            let mut builder =
                TransportBuilder::new(SingleNodeConnectionPool::new(url)).enable_meta_header(false);
            if let Some(login) = login {
                builder = builder.auth(login.clone());
            }
            if let Some(pem) = ca {
                let ca = Certificate::from_pem(pem)
                    .map_err(|error| Error::config(format!("no PEM certificate: {error}")))?;
                builder = builder.cert_validation(CertificateValidation::Full(ca));
            }
            let transport = builder.build().map_err(|error| {
                Error::config(format!("cannot set up the HTTP client: {error}"))
            })?;
            nodes.push(Node { transport, health: Mutex::default() });
        }
        Ok(Nodes { nodes, next: AtomicUsize::new(0), timeout })
    }

    /// Sends a request to the next node that is well. What never reached a node, and what may be sent twice,
    /// goes on to another one where that node is bad. Any other failure leaves the outcome unknown and is
    /// the worker's to retry.
    pub(crate) async fn send(&self, request: Request<'_>, body: Option<Bytes>) -> Result<Reply> {
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        let mut tried: Vec<usize> = Vec::with_capacity(1);
        let mut last = Err(Error::retriable("no node is left to ask"));
        while let Some((at, node)) = self.pick(first, &tried, request.is_idempotent()) {
            tried.push(at);
            let sent = node.send(request, body.clone(), self.timeout).await;
            let bad = sent.as_ref().map_or(true, Reply::is_of_a_bad_node);
            node.note(bad);
            let again = request.is_idempotent() || sent.as_ref().is_err_and(is_connect);
            last = sent.map_err(|error| self.unreachable(request, error));
            if !(bad && again) {
                break;
            }
        }
        last
    }

    fn unreachable(&self, request: Request<'_>, error: elasticsearch::Error) -> Error {
        if !error.is_timeout() || is_connect(&error) {
            return Error::retriable("Elasticsearch cannot be reached").with_source(error);
        }
        let message = format!(
            "Elasticsearch did not answer within {} s (the sink's request_timeout)",
            self.timeout.as_secs_f64()
        );
        if request.has_parts() {
            let message = format!("{message}; less is sent at once now");
            return Error::retriable(message).with_source(error).too_much();
        }
        Error::retriable(message).with_source(error)
    }

    /// The best of the nodes that were not tried; those that are equally well take turns.
    fn pick(&self, first: usize, tried: &[usize], idempotent: bool) -> Option<(usize, &Node)> {
        let now = Instant::now();
        let count = self.nodes.len();
        let turns = (0..count).map(|turn| (first.wrapping_add(turn)) % count);
        let open = turns.filter(|at| !tried.contains(at));
        let at =
            open.min_by_key(|at| self.nodes.get(*at).map(|node| node.rank(idempotent, now)))?;
        self.nodes.get(at).map(|node| (at, node))
    }
}

impl Node {
    fn rank(&self, idempotent: bool, now: Instant) -> (u8, Option<Instant>) {
        self.health.lock().unwrap_or_else(PoisonError::into_inner).rank(idempotent, now)
    }

    fn note(&self, failed: bool) {
        let mut health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        health.note(failed, Instant::now());
    }

    async fn send(
        &self,
        Request { method, path, query, bytes_max }: Request<'_>,
        body: Option<Bytes>,
        timeout: Duration,
    ) -> Result<Reply, elasticsearch::Error> {
        let mut headers = HeaderMap::new();
        let kind =
            if path.ends_with("/_bulk") { "application/x-ndjson" } else { "application/json" };
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        let sent = self.transport.send(method, path, headers, Some(query), body, Some(timeout));
        let response = sent.await?;
        let status = response.status_code().as_u16();
        let most = u64::try_from(bytes_max).unwrap_or(u64::MAX);
        if response.content_length().is_some_and(|bytes| bytes > most) {
            return Ok(Reply { status, body: Bytes::new(), unread: true });
        }
        Ok(Reply { status, body: response.bytes().await?, unread: false })
    }
}

fn is_connect(error: &elasticsearch::Error) -> bool {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<reqwest::Error>());
    cause.is_some_and(reqwest::Error::is_connect)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(count: u16) -> Nodes {
        let url = |port: u16| Url::parse(&format!("http://localhost:{}", port + 1)).unwrap();
        Nodes::new((0..count).map(url).collect(), None, None, Duration::from_secs(60)).unwrap()
    }

    fn picked(nodes: &Nodes, idempotent: bool) -> Vec<usize> {
        (0..6).map(|first| nodes.pick(first, &[], idempotent).unwrap().0).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_fails_rests_and_is_tried_with_what_can_be_sent_again() {
        let nodes = nodes(3);
        assert_eq!(picked(&nodes, false), [0, 1, 2, 0, 1, 2]);
        nodes.nodes[1].note(true);
        assert_eq!(picked(&nodes, true), [0, 2, 2, 0, 2, 2]);
        tokio::time::advance(REST).await;
        assert_eq!(picked(&nodes, true), [0, 1, 2, 0, 1, 2]);
        assert_eq!(picked(&nodes, false), [0, 2, 2, 0, 2, 2], "a bulk is no trial");
        nodes.nodes[1].note(true);
        tokio::time::advance(REST).await;
        assert_eq!(picked(&nodes, true), [0, 2, 2, 0, 2, 2], "it rests for twice as long");
        nodes.nodes[1].note(false);
        assert_eq!(picked(&nodes, false), [0, 1, 2, 0, 1, 2]);
    }

    #[tokio::test(start_paused = true)]
    async fn where_all_rest_the_one_that_rested_longest_is_asked() {
        let nodes = nodes(2);
        nodes.nodes[0].note(true);
        nodes.nodes[1].note(true);
        nodes.nodes[1].note(true);
        assert_eq!(picked(&nodes, false), [0; 6]);
        assert_eq!(nodes.pick(0, &[0], true).map(|(at, _)| at), Some(1));
        assert!(nodes.pick(0, &[0, 1], true).is_none());
        for _ in 0..100 {
            nodes.nodes[1].note(true);
        }
        tokio::time::advance(Duration::from_secs(64)).await;
        assert_eq!(picked(&nodes, true), [0, 1, 0, 1, 0, 1], "no rest is longer than a minute");
    }

    #[test]
    fn a_write_that_may_be_done_is_not_sent_to_another_node() {
        let idempotent = |method, path| {
            Request { method, path, query: &[], bytes_max: usize::MAX }.is_idempotent()
        };
        assert!(!idempotent(Method::Post, "/orders-g1-w-0/_bulk"));
        assert!(!idempotent(Method::Post, "/_aliases"));
        assert!(idempotent(Method::Post, "/orders-g1-w-0/_mget"));
        assert!(idempotent(Method::Put, "/orders-g1"));
    }
}
