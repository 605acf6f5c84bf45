use foldline_api::ErrorClass;

use super::*;

fn config(change: impl FnOnce(&mut ElasticsearchConfig)) -> ElasticsearchConfig {
    let urls = vec!["http://localhost:9200".to_owned()];
    let mut config = ElasticsearchConfig { urls, ..ElasticsearchConfig::default() };
    change(&mut config);
    config
}

#[test]
fn a_wrong_config_is_refused_without_its_secrets() {
    let some = |text: &str| Some(text.to_owned());
    for wrong in [
        config(|c| c.urls.clear()),
        config(|c| c.urls = vec!["http://u:canary@".to_owned()]),
        config(|c| c.urls = vec!["ftp://u:canary@localhost".to_owned()]),
        config(|c| c.username = some("ann")),
        config(|c| c.password = some("canary")),
        config(|c| (c.api_key, c.username) = (some("canary"), some("ann"))),
        config(|c| c.api_key = some("canary\n")),
        config(|c| c.ca = Some("/nowhere/ca.pem".into())),
    ] {
        let error = Client::new(&wrong).unwrap_err();
        assert!(!error.to_string().contains("canary"), "{error}");
        assert_eq!(error.class(), ErrorClass::Config);
    }
    assert!(Client::new(&config(|c| c.api_key = some("abc=="))).is_ok());
}

#[test]
fn an_api_that_a_server_lacks_is_told_from_a_wrong_request() {
    let says = |status, kind: &str, reason: &str| Reply {
        status,
        body: serde_json::json!({ "error": { "type": kind, "reason": reason } }).to_string().into(),
        unread: false,
    };
    let index = "invalid_index_name_exception";
    let old = "Invalid index name [_security], must not start with '_', '-', or '+'";
    assert!(says(400, index, old).is_unknown_to_the_server(), "Elasticsearch 7 without security");
    assert!(
        !says(400, index, "Invalid index name [A], must be lowercase").is_unknown_to_the_server()
    );
    assert!(!says(403, "security_exception", "no permissions").is_unknown_to_the_server());
    let none = r#"{"error":"no handler found for uri [/_security] and method [POST]"}"#;
    let none = Reply { status: 400, body: none.into(), unread: false };
    assert!(none.is_unknown_to_the_server(), "Elasticsearch 8 without security");
}

/// A node that answers each request's body as `answer` says, for as long as the test runs.
async fn node(
    answer: impl Fn(&str) -> (u16, String) + Send + Sync + 'static,
) -> std::net::SocketAddr {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = server.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = server.accept().await {
            let mut request = Vec::new();
            let body = loop {
                let text = String::from_utf8_lossy(&request).into_owned();
                if let Some((head, body)) = text.split_once("\r\n\r\n") {
                    let length = head.lines().find_map(|l| {
                        l.to_lowercase().strip_prefix("content-length: ")?.parse().ok()
                    });
                    if body.len() >= length.unwrap_or(0) {
                        break body.to_owned();
                    }
                }
                if socket.read_buf(&mut request).await.unwrap_or(0) == 0 {
                    break text;
                }
            };
            let (status, text) = answer(&body);
            if status == 0 {
                // Never; the others are answered beside it.
                tokio::spawn(async move {
                    let _ = socket.read_to_end(&mut Vec::new()).await;
                });
                continue;
            }
            let length = text.len();
            let head =
                format!("HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {length}");
            // Whoever asked may have gone.
            let _ = socket.write_all(format!("{head}\r\n\r\n{text}").as_bytes()).await;
        }
    });
    address
}

fn client(addresses: &[std::net::SocketAddr]) -> Client {
    let urls = addresses.iter().map(|address| format!("http://{address}")).collect();
    Client::new(&config(|c| c.urls = urls)).unwrap()
}

#[tokio::test]
async fn a_node_that_refuses_the_connection_is_passed_over() {
    let alive = node(|_| (200, "{}".to_owned())).await;
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let dead = closed.local_addr().unwrap();
    drop(closed);
    let client = client(&[dead, alive]);
    for _ in 0..3 {
        let reply = client.json(Method::Get, "/_cluster/health", &[], None).await.unwrap();
        assert_eq!(reply.status, 200);
    }
}

#[tokio::test]
async fn a_node_behind_a_bad_gateway_is_passed_over_and_rested() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    const SHARDS: &str = r#"{"error":{"type":"no_shard_available_action_exception"}}"#;
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let bad = node(move |_| {
        count.fetch_add(1, Ordering::Relaxed);
        (502, "<html>".to_owned())
    });
    let (bad, well) = (bad.await, node(|_| (200, "{\"items\":[]}".to_owned())).await);
    // A bulk may have been done: it is the worker's to retry, and goes to the other node then.
    let client = client(&[bad, well]);
    let items = [bulk::write("1", Version::Absent, "{}")];
    assert!(client.bulk_items("a", &items).await.is_err());
    for _ in 0..5 {
        let reply = client.json(Method::Get, "/_cluster/health", &[], None).await.unwrap();
        assert_eq!(reply.status, 200);
    }
    assert_eq!(asked.load(Ordering::Relaxed), 1, "it rests");

    let client = self::client(&[bad, well]);
    for _ in 0..5 {
        let reply = client.json(Method::Get, "/_cluster/health", &[], None).await.unwrap();
        assert_eq!(reply.status, 200, "what is idempotent goes to the next node at once");
    }
    assert_eq!(asked.load(Ordering::Relaxed), 2);

    // What is said of the whole cluster is no node's fault.
    let short = node(|_| (503, SHARDS.to_owned())).await;
    let client = self::client(&[short, well]);
    let reply = client.json(Method::Get, "/_cluster/health", &[], None).await.unwrap();
    assert_eq!(reply.status, 503);
}

#[tokio::test]
async fn only_items_refused_for_now_are_sent_again() {
    let calls = std::sync::atomic::AtomicUsize::new(0);
    let address = node(move |body| {
        let first = calls.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 0;
        let item = |line: &str| match line.trim() {
            "\"busy\"" if first => json_item(429, "es_rejected_execution_exception"),
            "\"stale\"" => json_item(409, "version_conflict_engine_exception"),
            "\"bad\"" => json_item(400, "document_parsing_exception"),
            _ => r#"{"index":{"status":200,"_seq_no":1,"_primary_term":1}}"#.to_owned(),
        };
        let items: Vec<String> = body.lines().skip(1).step_by(2).map(item).collect();
        if !first {
            assert_eq!(items.len(), 1, "{body}");
        }
        (200, format!("{{\"items\":[{}]}}", items.join(",")))
    })
    .await;
    let items: Vec<String> = ["\"ok\"", "\"busy\"", "\"stale\"", "\"bad\""]
        .map(|source| bulk::write("1", Version::At(0, 1), source))
        .to_vec();
    let outcomes = client(&[address]).bulk_items("a", &items).await.unwrap();
    let faults: Vec<_> = outcomes.iter().map(|o| o.as_ref().err().map(Failure::fault)).collect();
    assert_eq!(faults, [None, None, Some(Fault::Conflict), Some(Fault::Rejected)]);
}

fn json_item(status: u16, kind: &str) -> String {
    format!("{{\"index\":{{\"status\":{status},\"error\":{{\"type\":\"{kind}\"}}}}}}")
}

#[tokio::test]
async fn a_request_that_is_too_large_is_halved_down_to_the_document_to_blame() {
    let address = node(|body| {
        if body.len() > 150 || body.contains("huge") {
            return (413, String::new());
        }
        let ok = r#"{"create":{"status":201,"_seq_no":1,"_primary_term":1}}"#;
        (200, format!("{{\"items\":[{}]}}", vec![ok; body.lines().count() / 2].join(",")))
    })
    .await;
    let mut items = vec![bulk::write("1", Version::Absent, "{}"); 9];
    items[6] = bulk::write("1", Version::Absent, "\"huge\"");
    let outcomes = client(&[address]).bulk_items("a", &items).await.unwrap();
    for (at, outcome) in outcomes.iter().enumerate() {
        assert_eq!(outcome.is_ok(), at != 6, "{at}: {outcome:?}");
    }
}

#[tokio::test]
async fn a_bulk_that_takes_too_long_is_halved_down_to_one_document() {
    // Whatever has more than one document is never answered.
    let address = node(|body| {
        if body.lines().count() > 2 {
            return (0, String::new());
        }
        let ok = r#"{"create":{"status":201,"_seq_no":1,"_primary_term":1}}"#;
        (200, format!("{{\"items\":[{ok}]}}"))
    })
    .await;
    let timeout = Some(Duration::from_millis(500));
    let urls = vec![format!("http://{address}")];
    let client = Client::new(&config(|c| (c.urls, c.request_timeout) = (urls, timeout))).unwrap();
    let items = vec![bulk::write("1", Version::Absent, "{}"); 8];
    let mut attempts = 0;
    let outcomes = loop {
        let error = match client.bulk_items("a", &items).await {
            Ok(outcomes) => break outcomes,
            Err(error) => error,
        };
        let says = "0.5 s (the sink's request_timeout)";
        assert!(error.is_too_much() && error.message().contains(says), "{error}");
        attempts += 1;
        assert!(attempts < 20, "{error}");
    };
    assert!(outcomes.len() == 8 && outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    assert!(attempts >= 3, "of eight, four and two documents");
    assert_eq!(client.writes.items(), 1);
    // What a proxy gives up is the same.
    let address = node(|_| (504, "<html>".to_owned())).await;
    let client = self::client(&[address]);
    let error = client.bulk_items("a", &items).await.unwrap_err();
    assert!(error.is_too_much(), "{error}");
    assert_eq!(client.writes.items(), 4);
}

#[tokio::test]
async fn a_multi_get_that_takes_too_long_is_tried_again_with_half_as_many() {
    // Three documents at once are never answered; a proxy gives two of them up.
    let address = node(|body| {
        let ids = body.matches('"').count() / 2 - 1;
        match ids {
            1 => (200, r#"{"docs":[{"found":false}]}"#.to_owned()),
            2 => (504, "<html>".to_owned()),
            _ => (0, String::new()),
        }
    })
    .await;
    let timeout = Some(Duration::from_millis(500));
    let urls = vec![format!("http://{address}")];
    let client = Client::new(&config(|c| (c.urls, c.request_timeout) = (urls, timeout))).unwrap();
    let ids = ["1", "2", "3", "4"].map(str::to_owned);
    let one = client.mget_within("a", &ids, 4, 1 << 20, usize::MAX).await.unwrap_err();
    // The worker is to hear of it, and to wait before it asks again.
    assert!(!one.is_too_much() && one.message().contains("request_timeout"), "{one}");
    let two = client.mget("a", &ids, true, 4).await.unwrap_err();
    assert_eq!((two.class(), client.reads.items()), (ErrorClass::Retriable, 1), "{two}");
    assert_eq!(client.mget_within("a", &ids, 4, 1 << 20, usize::MAX).await.unwrap().len(), 4);
    assert_eq!(client.mget("a", &ids, true, 4).await.unwrap().len(), 4);
}

/// Whoever asks does not know how large they are: small ones came before.
#[tokio::test]
async fn a_multi_get_ends_where_there_is_no_room_for_more() {
    let address = node(|body| {
        let ids = body.matches('"').count() / 2 - 1;
        let one = format!(
            r#"{{"found":true,"_seq_no":1,"_primary_term":1,"_source":{{"s":"{}"}}}}"#,
            "x".repeat(50_000)
        );
        (200, format!(r#"{{"docs":[{}]}}"#, vec![one; ids].join(",")))
    })
    .await;
    let client = client(&[address]);
    let ids: Vec<String> = (0..400).map(|id| id.to_string()).collect();
    // Answers of more than 200,000 bytes are not read.
    for (per_request, room, most) in
        [(400, 1_000_000, 24), (2, 1_000_000, 28), (400, 0, 12), (2, 0, 8)]
    {
        let found = client.mget_within("a", &ids, per_request, 200_000, room).await.unwrap();
        assert!((1..=most).contains(&found.len()), "{per_request}, {room}: {}", found.len());
    }
    let found = client.mget_within("a", &ids, 400, 200_000, usize::MAX).await.unwrap();
    assert_eq!(found.len(), 400);
}

#[tokio::test]
async fn whole_requests_that_fail_leave_the_outcome_to_the_worker() {
    for (status, class) in [
        (401, ErrorClass::Retriable),
        (403, ErrorClass::Retriable),
        (429, ErrorClass::Retriable),
        (502, ErrorClass::Retriable),
        (503, ErrorClass::Retriable),
        (504, ErrorClass::Retriable),
        (405, ErrorClass::Config),
    ] {
        let address = node(move |_| (status, "<html>".to_owned())).await;
        let items = [bulk::write("1", Version::Absent, "{}")];
        let error = client(&[address]).bulk_items("a", &items).await.unwrap_err();
        assert_eq!(error.class(), class, "{status}");
    }
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let dead = closed.local_addr().unwrap();
    drop(closed);
    let error = client(&[dead]).mget("a", &["1".to_owned()], true, 1).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Retriable);
}

#[tokio::test]
async fn a_part_of_an_answer_is_no_answer() {
    let answers = [
        (true, r#""timed_out":false,"_shards":{"total":2,"successful":2,"skipped":1,"failed":0}"#),
        (false, r#""timed_out":true,"_shards":{"total":2,"successful":2,"failed":0}"#),
        (false, r#""timed_out":false,"_shards":{"total":2,"successful":1,"failed":1}"#),
        (false, r#""timed_out":false,"_shards":{"total":2,"successful":1,"failed":0}"#),
        (false, r#""timed_out":false"#),
    ];
    for (whole, outcome) in answers {
        let answer = format!(r#"{{{outcome},"hits":{{"hits":[]}}}}"#);
        let address = node(move |_| (200, answer.clone())).await;
        let query = serde_json::json!({});
        let found: Result<Json> = client(&[address]).search("/a/_search", &query, "looking").await;
        assert_eq!(found.is_ok(), whole, "{outcome}");
        if let Err(error) = found {
            assert_eq!(error.class(), ErrorClass::Retriable);
            assert!(is_unavailable(&error), "{error}");
            let out_of_time = outcome.contains(r#""timed_out":true"#);
            assert_eq!(error.is_too_much(), out_of_time, "{outcome}");
        }
    }
    let refreshed = [
        // A replica without a node.
        (true, r#"{"_shards":{"total":2,"successful":1,"failed":0}}"#),
        (false, r#"{"_shards":{"total":4,"successful":2,"failed":1}}"#),
        (false, r#"{"_shards":{"total":2,"successful":0,"failed":0}}"#),
    ];
    for (whole, answer) in refreshed {
        let address = node(move |_| (200, answer.to_owned())).await;
        let refreshed = client(&[address]).refresh("a", "refreshing").await;
        assert_eq!(refreshed.is_ok(), whole, "{answer}");
    }
}
