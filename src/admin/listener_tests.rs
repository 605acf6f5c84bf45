use std::net::SocketAddr;
use std::time::Instant;

use axum::routing::get;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

const LIMITS: Limits = Limits {
    connections: 8,
    head_within: Duration::from_millis(400),
    body_within: Duration::from_millis(400),
    read_within: Duration::from_millis(400),
};
/// Far more than any of the limits; what takes longer would never end.
const LONG: Duration = Duration::from_secs(30);

async fn start(router: Router) -> (SocketAddr, CancellationToken) {
    start_within(LIMITS, router).await
}

async fn start_within(limits: Limits, router: Router) -> (SocketAddr, CancellationToken) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
    tokio::spawn(serve_within(limits, listener, watch::channel(router).1, stop.clone()));
    (address, stop)
}

async fn ask(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = b"GET /livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// Waits until the other side has ended the connection.
async fn ended(mut stream: TcpStream) {
    let mut rest = Vec::new();
    let read = tokio::time::timeout(LONG, stream.read_to_end(&mut rest)).await;
    assert!(read.is_ok(), "the connection is still open");
}

fn livez() -> Router {
    Router::new().route("/livez", get(|| async { "ok\n" }))
}

#[tokio::test]
async fn a_head_that_never_ends_ends_the_connection() {
    let (address, _stop) = start(livez()).await;
    let mut half = TcpStream::connect(address).await.unwrap();
    half.write_all(b"GET /livez HTTP/1.1\r\nX-").await.unwrap();
    ended(half).await;
    // Nor may one be kept open with nothing on it.
    ended(TcpStream::connect(address).await.unwrap()).await;
}

#[tokio::test]
async fn a_body_that_never_ends_ends_the_request_and_keeps_no_probe_out() {
    let posted = axum::routing::post(|_: axum::body::Bytes| async { "ok\n" });
    let patient = Limits { body_within: LONG * 10, ..LIMITS };
    for (limits, held) in [(LIMITS, 1), (patient, LIMITS.connections * 4)] {
        let routes = livez().route("/posted", posted.clone());
        let (address, _stop) = start_within(limits, routes).await;
        let mut slow = Vec::new();
        for _ in 0..held {
            let mut half = TcpStream::connect(address).await.unwrap();
            let head = b"POST /posted HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\n{";
            half.write_all(head).await.unwrap();
            slow.push(half);
        }
        assert!(ask(address).await.ends_with("ok\n"), "there is room for a probe");
        if held == 1 {
            ended(slow.remove(0)).await;
        }
    }
}

#[tokio::test]
async fn whoever_only_holds_connections_keeps_no_probe_out() {
    let (address, _stop) = start(livez()).await;
    let mut held = Vec::new();
    for _ in 0..LIMITS.connections * 4 {
        let mut half = TcpStream::connect(address).await.unwrap();
        half.write_all(b"GET /livez HTTP/1.1\r\nX-").await.unwrap();
        held.push(half);
    }
    assert!(ask(address).await.ends_with("ok\n"));
    drop(held);
}

#[tokio::test]
async fn an_answer_that_nobody_reads_ends() {
    struct Told(tokio::sync::mpsc::UnboundedSender<()>);
    impl Drop for Told {
        fn drop(&mut self) {
            let _ = self.0.send(());
        }
    }
    let (over, mut told) = tokio::sync::mpsc::unbounded_channel();
    let endless = move || {
        let guard = Told(over.clone());
        let chunks = futures_util::stream::repeat_with(move || {
            let _ = &guard;
            Ok::<_, std::convert::Infallible>(vec![b'x'; 1 << 16])
        });
        async move { Body::from_stream(chunks) }
    };
    let (address, _stop) = start(livez().route("/endless", get(endless))).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /endless HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    // It is not read: what it holds is let go nevertheless.
    let let_go = tokio::time::timeout(LONG, told.recv()).await;
    assert!(let_go.is_ok(), "the answer is still held");
    drop(stream);
}

#[tokio::test]
async fn a_stop_lets_the_request_under_way_end() {
    let slow = || async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        "done\n"
    };
    let (address, stop) = start(Router::new().route("/livez", get(slow))).await;
    let asked = tokio::spawn(ask(address));
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(100) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    stop.cancel();
    assert!(asked.await.unwrap().ends_with("done\n"));
}
