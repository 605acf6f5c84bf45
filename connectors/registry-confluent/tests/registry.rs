//! The client, against a small registry that does what real ones do when things go wrong.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a test that cannot go on says so and ends"
)]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use foldline_api::error::{Error, ErrorClass};
use foldline_api::secret::Secret;
use foldline_language::converter::SchemaId;
use foldline_language::converter::schema::{Answer, Register, Registered, Schemas};
use foldline_registry_confluent::{Login, Registry, RegistryConfig};

const EMPTY: &str = r#"{"error_code":40403,"message":"Schema not found"}"#;

/// What it answers, by path, and what it was asked.
#[derive(Debug, Default)]
struct Double {
    answers: Mutex<HashMap<String, (u16, String)>>,
    /// In place of any answer.
    instead: Mutex<Option<(u16, String)>>,
    asked: Mutex<Vec<(String, Option<String>)>>,
    /// What it was handed, by path.
    handed: Mutex<Vec<(String, String)>>,
}

type Shared = Arc<Double>;

async fn answer(State(double): State<Shared>, request: Request) -> Response {
    let path = request.uri().path_and_query().map(ToString::to_string).unwrap_or_default();
    let login = request.headers().get(AUTHORIZATION);
    let login = login.map(|login| login.to_str().unwrap().to_owned());
    double.asked.lock().unwrap().push((path.clone(), login));
    let body = axum::body::to_bytes(request.into_body(), 1 << 20).await.unwrap();
    if !body.is_empty() {
        let text = String::from_utf8(body.to_vec()).unwrap();
        double.handed.lock().unwrap().push((path.clone(), text));
    }
    let instead = double.instead.lock().unwrap().clone();
    let known = double.answers.lock().unwrap().get(&path).cloned();
    let (status, body) = instead.or(known).unwrap_or((404, EMPTY.to_owned()));
    (StatusCode::from_u16(status).unwrap(), [(CONTENT_TYPE, "application/json")], body)
        .into_response()
}

impl Double {
    async fn start() -> (Shared, SocketAddr) {
        let double = Arc::new(Double::default());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(answer).with_state(Arc::clone(&double));
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        (double, address)
    }

    fn has(&self, path: &str, body: impl Into<String>) {
        self.answers.lock().unwrap().insert(path.to_owned(), (200, body.into()));
    }

    fn loses(&self, path: &str) {
        self.answers.lock().unwrap().remove(path);
    }

    fn instead(&self, status: u16, body: &str) {
        *self.instead.lock().unwrap() = Some((status, body.to_owned()));
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().iter().map(|(path, _)| path.clone()).collect()
    }
}

fn config(urls: &[String]) -> RegistryConfig {
    RegistryConfig {
        name: "main".to_owned(),
        urls: urls.iter().map(Secret::new).collect(),
        login: Login::None,
        ca: None,
        certificate: None,
    }
}

fn at(address: SocketAddr) -> Registry {
    Registry::new(&config(&[format!("http://{address}")])).unwrap()
}

async fn schema(registry: &Registry, id: SchemaId) -> Result<Arc<Registered>, String> {
    match registry.get(&[id]).await.map_err(|error| error.to_string())?.remove(0) {
        Answer::Schema(schema) => Ok(schema),
        Answer::Gone(why) => Err(why.to_string()),
    }
}

async fn fails(registry: &Registry, id: SchemaId) -> Error {
    // Longer than the failure before is remembered.
    pass(Duration::from_secs(1)).await;
    registry.get(&[id]).await.unwrap_err()
}

/// Lets the clock run on, without which a test would last as long.
async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

#[tokio::test]
async fn a_schema_comes_with_all_that_it_refers_to_and_is_asked_for_once() {
    let (double, address) = Double::start().await;
    double.has(
        "/schemas/ids/3",
        r#"{"schema":"order","references":[
            {"name":"shop.Line","subject":"shop/line v","version":2},
            {"name":"shop.Money","subject":"money","version":1}]}"#,
    );
    double.has(
        "/subjects/shop%2Fline%20v/versions/2?deleted=true",
        r#"{"schema":"line","references":[{"name":"shop.Money","subject":"money","version":1}]}"#,
    );
    // One that leads back does no harm.
    double.has(
        "/subjects/money/versions/1?deleted=true",
        r#"{"schema":"money","schemaType":"AVRO","references":[{"name":"shop.Line","subject":"shop/line v","version":2}]}"#,
    );
    let registry = Arc::new(at(address));
    let tasks = (0..8).map(|_| {
        let registry = Arc::clone(&registry);
        tokio::spawn(async move { schema(&registry, SchemaId::Id(3)).await })
    });
    for task in tasks.collect::<Vec<_>>() {
        let found = task.await.unwrap().unwrap();
        assert_eq!((found.kind.as_deref(), &*found.text), (Some("AVRO"), "order"));
        let names: Vec<&str> = found.references.iter().map(|(_, text)| &**text).collect();
        assert_eq!(names, ["money", "line"], "each after those that it names");
    }
    assert_eq!(double.asked().len(), 3, "{:?}", double.asked());
}

#[tokio::test]
async fn what_is_no_answer_of_a_registry_is_an_outage() {
    let (double, address) = Double::start().await;
    double.has("/schemas/ids/1", r#"{"schema":"\"long\""}"#);
    let registry = at(address);
    for (status, body, says) in [
        (401, "", "the login is refused (401"),
        (403, r#"{"error_code":40301,"message":"no"}"#, "the login is refused (403"),
        (429, "", "429"),
        (500, r#"{"error_code":50001,"message":"store\nat x"}"#, "error_code 50001: store"),
        (503, "<html>", "503"),
        (404, "<html>", "is this its address?"),
        (200, "<html>sign in</html>", "is no registry's"),
        (200, r#"{"schema":7}"#, "is no registry's"),
    ] {
        double.instead(status, body);
        let error = fails(&registry, SchemaId::Id(1)).await;
        assert_eq!(error.class(), ErrorClass::Retriable, "{error}");
        assert!(error.message().contains(says), "{error}");
        assert!(error.message().contains("the schema registry \"main\""), "{error}");
    }
    *double.instead.lock().unwrap() = None;
    pass(Duration::from_secs(1)).await;
    assert_eq!(schema(&registry, SchemaId::Id(1)).await.unwrap().text, "\"long\"");
    let nobody = Registry::new(&config(&["http://ann:CANARY@127.0.0.1:1/x".into()])).unwrap();
    let error = fails(&nobody, SchemaId::Id(1)).await;
    assert_eq!(error.class(), ErrorClass::Retriable);
    assert!(error.message().contains("http://127.0.0.1:1/x: "), "{error}");
    assert!(!error.message().contains("CANARY"), "{error}");
}

#[tokio::test]
async fn another_address_answers_where_one_does_not() {
    let (double, address) = Double::start().await;
    double.has("/below/schemas/ids/1", r#"{"schema":"\"long\""}"#);
    double.has("/below/schemas/ids/2", r#"{"schema":"\"int\""}"#);
    let (broken, other) = Double::start().await;
    broken.instead(503, "");
    let urls = [format!("http://{other}"), format!("http://{address}/below/")];
    let registry = Registry::new(&config(&urls)).unwrap();
    for id in [1, 2] {
        schema(&registry, SchemaId::Id(id)).await.unwrap();
    }
    assert_eq!(broken.asked().len(), 1, "the one that answered comes first from then on");
}

#[tokio::test]
async fn what_is_missing_is_asked_for_again_for_half_a_minute() {
    let (double, address) = Double::start().await;
    let registry = at(address);
    double.has("/schemas/ids/1", r#"{"schema":"\"long\""}"#);
    schema(&registry, SchemaId::Id(1)).await.unwrap();
    for _ in 0..3 {
        let error = fails(&registry, SchemaId::Id(7)).await;
        assert_eq!(error.class(), ErrorClass::Retriable, "{error}");
        assert!(error.message().contains("does not have schema 7; it is asked again"), "{error}");
    }
    // A replica that lagged.
    double.has("/schemas/ids/8", r#"{"schema":"\"int\""}"#);
    schema(&registry, SchemaId::Id(8)).await.unwrap();
    pass(Duration::from_secs(31)).await;
    let gone = schema(&registry, SchemaId::Id(7)).await.unwrap_err();
    assert!(gone.contains("is of schema 7, which the registry \"main\" does not have"), "{gone}");
    let asked = double.asked().len();
    schema(&registry, SchemaId::Id(7)).await.unwrap_err();
    assert_eq!(double.asked().len(), asked, "it is not asked for each batch");
    double.has("/schemas/ids/7", r#"{"schema":"\"int\""}"#);
    pass(Duration::from_secs(61)).await;
    schema(&registry, SchemaId::Id(7)).await.unwrap();
}

#[tokio::test]
async fn a_registry_that_lost_its_schemas_is_an_outage() {
    let (double, address) = Double::start().await;
    // Of what it had before, nothing is known.
    let registry = at(address);
    double.has("/subjects?limit=1", "[]");
    fails(&registry, SchemaId::Id(7)).await;
    pass(Duration::from_secs(31)).await;
    let error = fails(&registry, SchemaId::Id(7)).await;
    assert!(error.message().contains("it has no subjects at all"), "{error}");
    double.has("/subjects?limit=1", r#"["a"]"#);
    pass(Duration::from_secs(1)).await;
    assert!(schema(&registry, SchemaId::Id(7)).await.unwrap_err().contains("does not have"));

    // It had one, and has it no more; or another.
    let registry = at(address);
    double.has("/schemas/ids/1", r#"{"schema":"\"long\""}"#);
    schema(&registry, SchemaId::Id(1)).await.unwrap();
    double.loses("/schemas/ids/1");
    fails(&registry, SchemaId::Id(7)).await;
    pass(Duration::from_secs(31)).await;
    let error = fails(&registry, SchemaId::Id(7)).await;
    assert_eq!(error.class(), ErrorClass::Retriable);
    assert!(error.message().contains("it has lost schema 1, which it had"), "{error}");
    double.has("/schemas/ids/1", r#"{"schema":"\"string\""}"#);
    let error = fails(&registry, SchemaId::Id(7)).await;
    assert_eq!(error.class(), ErrorClass::Config);
    assert!(error.message().contains("it was \"long\" and is \"string\""), "{error}");
}

#[tokio::test]
async fn logins_are_told() {
    let (double, address) = Double::start().await;
    double.has("/schemas/ids/1", r#"{"schema":"\"long\""}"#);
    for (login, sends) in [
        (
            Login::Basic { username: "ann".to_owned(), password: Secret::new("pw") },
            "Basic YW5uOnB3",
        ),
        (Login::Bearer(Secret::new("t0ken")), "Bearer t0ken"),
    ] {
        let config = RegistryConfig { login, ..config(&[format!("http://{address}")]) };
        schema(&Registry::new(&config).unwrap(), SchemaId::Id(1)).await.unwrap();
        let (_, sent) = double.asked.lock().unwrap().pop().unwrap();
        assert_eq!(sent.as_deref(), Some(sends));
    }
}

#[tokio::test]
async fn guids_and_apicurios_ids_are_asked_for_where_they_are() {
    let (double, address) = Double::start().await;
    let guid = uuid::Uuid::from_u128(7);
    double.has(
        "/apis/ccompat/v7/schemas/guids/00000000-0000-0000-0000-000000000007",
        r#"{"schema":"\"int\""}"#,
    );
    for id in ["globalIds/9", "contentIds/9"] {
        double.has(&format!("/apis/registry/v2/ids/{id}"), "order");
        let references = r#"[{"groupId":"g","artifactId":"m","version":"1","name":"Money"}]"#;
        double.has(&format!("/apis/registry/v2/ids/{id}/references"), references);
    }
    double.has("/apis/registry/v2/groups/g/artifacts/m/versions/1", "money");
    double.has("/apis/registry/v2/groups/g/artifacts/m/versions/1/references", "[]");
    let registry = Registry::new(&config(&[format!("http://{address}/apis/ccompat/v7")])).unwrap();
    let found = schema(&registry, SchemaId::Guid(guid)).await.unwrap();
    assert_eq!(found.text, "\"int\"");
    for id in [SchemaId::GlobalId(9), SchemaId::ContentId(9)] {
        let found = schema(&registry, id).await.unwrap();
        assert_eq!((&found.kind, &*found.text), (&None, "order"));
        assert_eq!(found.references, [("Money".to_owned(), "money".to_owned())]);
    }
    let error = fails(&at(address), SchemaId::GlobalId(9)).await;
    assert!(error.message().contains("is no address of Apicurio's API"), "{error}");
}

#[test]
fn what_is_wrong_with_the_config_is_told() {
    let message = |config: RegistryConfig| Registry::new(&config).unwrap_err().to_string();
    let url = "http://localhost:8081".to_owned();
    assert!(message(config(&["localhost:8081".into()])).contains("is no address such as"));
    let ca = RegistryConfig { ca: Some("/nowhere".into()), ..config(std::slice::from_ref(&url)) };
    assert!(message(ca).contains("cannot read ca /nowhere"));
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_owned();
    let ca = RegistryConfig { ca: Some(path.clone()), ..config(std::slice::from_ref(&url)) };
    assert!(message(ca).contains("has no certificate"));
    let certificate = RegistryConfig { certificate: Some((path.clone(), path)), ..config(&[url]) };
    assert!(message(certificate).contains("private_key"));
}

fn states() -> Registered {
    Registered {
        kind: Some("AVRO".to_owned()),
        text: "\"long\"".to_owned(),
        references: Vec::new(),
    }
}

#[tokio::test]
async fn a_schema_is_looked_for_before_it_is_registered() {
    let (double, address) = Double::start().await;
    let registry = at(address);
    double.has("/subjects/a%2Fb-value/versions", r#"{"id":7}"#);
    assert_eq!(registry.register("a/b-value", &states()).await.unwrap(), 7);
    double.has(
        "/subjects/a%2Fb-value",
        r#"{"subject":"a/b-value","id":7,"version":1,"schema":"\"long\""}"#,
    );
    double.loses("/subjects/a%2Fb-value/versions");
    assert_eq!(registry.register("a/b-value", &states()).await.unwrap(), 7);
    let handed = double.handed.lock().unwrap().clone();
    let paths: Vec<&str> = handed.iter().map(|(path, _)| &**path).collect();
    let (subject, versions) = ("/subjects/a%2Fb-value", "/subjects/a%2Fb-value/versions");
    assert_eq!(paths, [subject, versions, subject]);
    for (_, body) in &handed {
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(body, serde_json::json!({ "schema": "\"long\"", "schemaType": "AVRO" }));
    }
}

#[tokio::test]
async fn what_a_registry_refuses_is_told_from_what_it_cannot_tell() {
    let (double, address) = Double::start().await;
    let registry = at(address);
    for (status, body, says, class) in [
        (
            409,
            r#"{"error_code":409,"message":"incompatible\nat x"}"#,
            "refuses it: 409",
            ErrorClass::Config,
        ),
        (
            422,
            r#"{"error_code":42205,"message":"read-only"}"#,
            "42205: read-only",
            ErrorClass::Config,
        ),
        (403, r#"{"error_code":40301,"message":"no"}"#, "login is refused", ErrorClass::Retriable),
        (503, r#"{"error_code":50003,"message":"no leader"}"#, "no leader", ErrorClass::Retriable),
        (404, "<html>", "is this its address?", ErrorClass::Retriable),
        (404, EMPTY, "it has no /subjects/s/versions", ErrorClass::Retriable),
        (200, "<html>", "is no registry's", ErrorClass::Retriable),
        (200, r#"{"id":0}"#, "which is none", ErrorClass::Retriable),
    ] {
        double.instead(status, body);
        let error = registry.register("s", &states()).await.unwrap_err();
        assert_eq!(error.class(), class, "{error}");
        assert!(error.message().contains(says), "{says:?} in {error}");
    }
}
