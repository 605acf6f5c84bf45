//! An HTTP layer in front of Elasticsearch that refuses what it is told to refuse.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::wait;

/// What happens to a bulk request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The whole of it is refused, and nothing is done.
    Request(u16),
    /// Every other document is refused, the others are written.
    Items(u16),
    /// All of it is done, and the answer is this all the same, as a gateway's that waited for too long.
    Applied(u16),
}

/// The layer; it ends with the test's runtime.
pub(crate) struct Refusals {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    server: String,
    client: reqwest::Client,
    armed: Mutex<Option<(Refusal, u64)>>,
    hits: AtomicU64,
}

impl Refusals {
    /// In front of the server at this URL.
    pub(crate) async fn start(server: &str) -> Self {
        let shared = Arc::new(Shared {
            server: server.to_owned(),
            client: crate::support::http(wait::SOON),
            armed: Mutex::new(None),
            hits: AtomicU64::new(0),
        });
        let app = Router::new().fallback(pass).with_state(Arc::clone(&shared));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, app).await });
        Refusals { address, shared }
    }

    /// Does this to the next `times` bulk requests, and waits until it was done.
    pub(crate) async fn strike(&self, refusal: Refusal, times: u64) {
        let before = self.shared.hits.load(Ordering::SeqCst);
        *self.shared.armed.lock().unwrap() = Some((refusal, times));
        wait::until(&format!("{refusal:?} strikes"), wait::LATER, async || {
            let struck = self.shared.hits.load(Ordering::SeqCst) - before;
            if struck == times { Ok(()) } else { Err(format!("{struck} of {times}")) }
        })
        .await;
    }
}

async fn pass(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    let path = head.uri.path_and_query().unwrap().to_string();
    let refusal = if head.uri.path().ends_with("/_bulk") { shared.take() } else { None };
    let send = async |body: Bytes| {
        let mut sent = shared.client.request(head.method.clone(), shared.server.clone() + &path);
        if let Some(kind) = head.headers.get(header::CONTENT_TYPE) {
            sent = sent.header(header::CONTENT_TYPE, kind);
        }
        let answer = sent.body(body).send().await;
        match answer {
            Ok(answer) => (answer.status(), answer.bytes().await.unwrap_or_default()),
            Err(_) => (StatusCode::BAD_GATEWAY, Bytes::new()),
        }
    };
    let (status, body) = match refusal {
        None => send(body).await,
        Some(Refusal::Request(status)) => refused(status),
        Some(Refusal::Applied(status)) => {
            send(body).await;
            refused(status)
        }
        Some(Refusal::Items(status)) => {
            let (kept, count) = every_other(&body);
            if kept.is_empty() {
                refused(status)
            } else {
                let (code, answer) = send(kept.into()).await;
                (code, with_refused(&answer, count, status))
            }
        }
    };
    let json = HeaderValue::from_static("application/json");
    // The client asks whom it talks to.
    let product = ("x-elastic-product", HeaderValue::from_static("Elasticsearch"));
    (status, [(header::CONTENT_TYPE.as_str(), json), product], body).into_response()
}

fn cause(status: u16) -> Value {
    let kind = match status {
        429 => "es_rejected_execution_exception",
        _ => "unavailable_shards_exception",
    };
    json!({ "type": kind, "reason": "as the test asks" })
}

fn refused(status: u16) -> (StatusCode, Bytes) {
    let body = json!({ "status": status, "error": cause(status) });
    (StatusCode::from_u16(status).unwrap(), body.to_string().into())
}

/// Every other document of a bulk, from the second on, and how many there are in all.
fn every_other(body: &[u8]) -> (String, usize) {
    let text = std::str::from_utf8(body).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let mut documents = Vec::new();
    let mut at = 0;
    while at < lines.len() {
        let size = if lines[at].starts_with("{\"delete\"") { 1 } else { 2 };
        documents.push(lines[at..at + size].join("\n") + "\n");
        at += size;
    }
    (documents.iter().skip(1).step_by(2).cloned().collect(), documents.len())
}

/// The answer to the documents that were passed on, with refusals in the others' places.
fn with_refused(answer: &[u8], count: usize, status: u16) -> Bytes {
    let mut answer: Value = serde_json::from_slice(answer).unwrap();
    let Some(items) = answer["items"].as_array_mut() else { return answer.to_string().into() };
    let mut passed = std::mem::take(items).into_iter();
    for at in 0..count {
        let refused = json!({ "index": { "status": status, "error": cause(status) } });
        items.push(if at % 2 == 0 { refused } else { passed.next().unwrap() });
    }
    answer.to_string().into()
}

impl Shared {
    fn take(&self) -> Option<Refusal> {
        let mut armed = self.armed.lock().unwrap();
        let (refusal, left) = armed.take()?;
        *armed = (left > 1).then_some((refusal, left - 1));
        self.hits.fetch_add(1, Ordering::SeqCst);
        Some(refusal)
    }
}
