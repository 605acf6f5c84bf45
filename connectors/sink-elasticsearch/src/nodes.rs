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
use elasticsearch::http::Method;
use foldline_api::{Error, Result};
use tokio::time::Instant;
use url::Url;

use crate::client::Reply;
use crate::transport::Transport;

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
    /// Its address, without a login.
    place: String,
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
        let places: Vec<String> =
            urls.iter().map(|url| url.as_str().trim_end_matches('/').to_owned()).collect();
        let transports = Transport::all(urls, login, ca)?.into_iter();
        let node = |(transport, place)| Node { transport, place, health: Mutex::default() };
        let nodes = transports.zip(places).map(node).collect();
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
            last = sent.map_err(|error| self.unreachable(node, request, error));
            if !(bad && again) {
                break;
            }
        }
        last
    }

    fn unreachable(&self, node: &Node, request: Request<'_>, error: elasticsearch::Error) -> Error {
        if let Some(why) = untrusted(&error) {
            // The certificate may be mended on the other side too, so this is worth trying again.
            let message = format!(
                "the certificate of Elasticsearch is not trusted ({why}): give the sink the ca that signed it; where a \
                 ca is given, no other authority is trusted"
            );
            return Error::retriable(message).with_source(error);
        }
        if !error.is_timeout() || is_connect(&error) {
            let message = unanswered(&node.place, &deepest(&error));
            return Error::retriable(message).with_source(error);
        }
        let message = format!(
            "Elasticsearch at {} did not answer within {} s (the sink's request_timeout)",
            node.place,
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
        request: Request<'_>,
        body: Option<Bytes>,
        timeout: Duration,
    ) -> Result<Reply, elasticsearch::Error> {
        let bytes_max = request.bytes_max;
        let response = self.transport.send(request, body, timeout).await?;
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

/// The innermost cause: what the system or TLS says.
fn deepest(error: &elasticsearch::Error) -> String {
    let causes = std::iter::successors(error.source(), |&cause| cause.source());
    causes.last().map_or_else(|| error.to_string(), ToString::to_string)
}

/// What is at an address that gives no answer of HTTP, by its cause, with the way out where the cause tells one.
fn unanswered(place: &str, cause: &str) -> String {
    let has = |words: &[&str]| words.iter().any(|words| cause.contains(words));
    let tls = place.starts_with("https:");
    let way_out = if has(&["Connection refused"]) {
        "; nothing listens there: correct `urls`, or start it"
    } else if has(&["lookup address", "dns error"]) {
        "; its host is not known: correct `urls`"
    } else if tls && has(&["wrong version number", "packet length too long", "InvalidContentType"])
    {
        "; it speaks no TLS: write http:// in `urls`"
    } else if !tls
        && has(&[
            "connection closed before message completed",
            "invalid HTTP version",
            "Connection reset",
        ])
    {
        "; it may want TLS (https:// in `urls`), or be no Elasticsearch"
    } else {
        ""
    };
    format!("Elasticsearch at {place} cannot be reached: {cause}{way_out}")
}

/// What TLS has against the node's certificate.
fn untrusted(error: &elasticsearch::Error) -> Option<String> {
    let causes = std::iter::successors(error.source(), |&cause| cause.source());
    let texts = causes.map(ToString::to_string);
    texts
        .filter_map(|text| Some(text.split_once("invalid peer certificate: ")?.1.to_owned()))
        .last()
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
