//! The listener: accepts connections and bounds what each client may hold of it.

pub(super) mod received;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use axum::response::Response;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use self::received::{Busy, Received};

/// Connections at a time. A file descriptor is each one's price, and the stores need some too.
const CONNECTIONS_MAX: usize = 256;
/// How long a client may take over a request's head, and how long a connection may idle between
/// two requests.
const HEAD_WITHIN: Duration = Duration::from_secs(10);
/// How long a client may leave an answer unread before its connection ends: an answer that folds the
/// log again holds one of two turns.
const READ_WITHIN: Duration = Duration::from_secs(30);
/// How long a client may take over a request's body.
const BODY_WITHIN: Duration = Duration::from_secs(30);
/// A head has a token and a path, and is no place to store things.
const HEAD_BYTES: usize = 32 << 10;
/// The pause after an accept that failed, for want of file descriptors for instance.
const PAUSE: Duration = Duration::from_millis(500);

/// What bounds a client; tests use smaller figures.
#[derive(Clone, Copy, Debug)]
struct Limits {
    connections: usize,
    head_within: Duration,
    body_within: Duration,
    read_within: Duration,
}

const LIMITS: Limits = Limits {
    connections: CONNECTIONS_MAX,
    head_within: HEAD_WITHIN,
    body_within: BODY_WITHIN,
    read_within: READ_WITHIN,
};

/// Serves until `stop`; then lets each request that is under way end.
pub(super) async fn serve(
    listener: TcpListener,
    routes: watch::Receiver<Router>,
    stop: CancellationToken,
) {
    serve_within(LIMITS, listener, routes, stop).await;
}

async fn serve_within(
    limits: Limits,
    listener: TcpListener,
    routes: watch::Receiver<Router>,
    stop: CancellationToken,
) {
    let connections = Arc::new(Connections::default());
    let tracker = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "the listener cannot accept a connection");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        // Without room the new connection is closed at once: all the others are answering.
        let Some(connection) = connections.admit(limits.connections) else { continue };
        let served =
            serve_one(limits, stream, routes.clone(), Arc::clone(&connection), stop.clone());
        let connections = Arc::clone(&connections);
        tracker.spawn(async move {
            served.await;
            connections.remove(&connection);
        });
    }
    tracker.close();
    tracker.wait().await;
}

async fn serve_one(
    limits: Limits,
    stream: TcpStream,
    routes: watch::Receiver<Router>,
    connection: Arc<Connection>,
    stop: CancellationToken,
) {
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(limits.read_within));
    let answering = Arc::clone(&connection);
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let busy = Arc::new(Busy::new(&answering));
        let received = |body| Body::new(Received::new(body, limits.body_within, Arc::clone(&busy)));
        let answer = Router::clone(&routes.borrow()).oneshot(request.map(received));
        async move {
            let response = answer.await?;
            busy.set();
            // The request ends with the last byte of its answer, so the body holds the mark.
            let body = move |body: Body| {
                Body::new(body.map_frame(move |frame| {
                    let _ = &busy;
                    frame
                }))
            };
            Ok::<Response, std::convert::Infallible>(response.map(body))
        }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(limits.head_within).max_buf_size(HEAD_BYTES);
    let served = http.serve_connection(TokioIo::new(Box::pin(stream)), service);
    let mut served = std::pin::pin!(served);
    let ended = tokio::select! {
        biased;
        () = connection.evicted.cancelled() => return,
        ended = &mut served => ended,
        () = stop.cancelled() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a client's connection broke off");
    }
}

/// One client's connection.
#[derive(Debug, Default)]
struct Connection {
    /// Requests whose answers are not sent yet.
    answering: AtomicUsize,
    /// Ends it, to make room for another.
    evicted: CancellationToken,
}

/// The connections that are open, oldest first.
#[derive(Debug, Default)]
struct Connections(Mutex<VecDeque<Arc<Connection>>>);

impl Connections {
    /// Makes room for one more: where there is none, the oldest connection that has no request under way
    /// ends, so that those who only hold connections never keep a probe out. None where all answer.
    fn admit(&self, max: usize) -> Option<Arc<Connection>> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if open.len() >= max {
            let idle = |c: &Arc<Connection>| c.answering.load(Ordering::Relaxed) == 0;
            let at = open.iter().position(idle)?;
            if let Some(oldest) = open.remove(at) {
                oldest.evicted.cancel();
            }
        }
        let connection = Arc::new(Connection::default());
        open.push_back(Arc::clone(&connection));
        Some(connection)
    }

    fn remove(&self, connection: &Arc<Connection>) {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|one| !Arc::ptr_eq(one, connection));
    }
}

#[cfg(test)]
#[path = "listener_tests.rs"]
mod tests;
