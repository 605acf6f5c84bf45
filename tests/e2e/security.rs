//! Logins and certificates on Kafka's own listeners: each way in folds, a wrong one is told without its secret, and a password that is
//! changed in its file is taken while the worker runs.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

use crate::support::daemon::Daemon;
use crate::support::kafka::{self, Raw};
use crate::support::servers::{self, required};
use crate::support::setup::{Setup, connector, sqlite_sink};
use crate::support::stores::{Columns, Kind, sqlite_rows};
use crate::support::wait;

const COLUMNS: Columns = &[("id", Kind::Plain)];
const CANARY: &str = "canary-7c11";

fn secure(arguments: &[&str]) -> String {
    let tool = std::path::PathBuf::from(required("FOLDLINE_KAFKA_BIN")).join("secure");
    servers::run(Command::new(tool).args(arguments))
}

/// A broker with its listeners; it ends with the test.
struct Broker {
    /// Without a login.
    open: String,
    /// TLS, and a login.
    sasl: String,
    /// TLS, and a certificate of the client's.
    mutual: String,
}

impl Broker {
    /// Starts it with a certificate of its own authority, of which a client has one too.
    fn start(directory: &Path) -> Self {
        std::fs::create_dir(directory).unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // OpenSSL takes a certificate whose issuer has its own name for one that signed itself.
        params.distinguished_name.push(DnType::CommonName, "authority");
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let write = |name: &str, pem: &str| std::fs::write(directory.join(name), pem).unwrap();
        write("ca.pem", &authority.pem());
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(["localhost".to_owned()])
            .and_then(|params| params.signed_by(&key, &authority))
            .unwrap();
        write("server.pem", &format!("{}{}", key.serialize_pem(), certificate.pem()));
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "reader");
        write("client.pem", &params.signed_by(&key, &authority).unwrap().pem());
        write("client.key", &key.serialize_pem());
        let said = secure(&["start", directory.to_str().unwrap()]);
        let mut addresses = said.lines().map(str::to_owned);
        let mut next = || addresses.next().unwrap();
        Broker { open: next(), sasl: next(), mutual: next() }
    }

    fn produce(&self, topic: &str, ids: std::ops::Range<u32>) {
        let record = |id: u32| Raw::value(0, &id.to_string(), format!(r#"{{"id":"{id}"}}"#));
        kafka::produce_raw_to(&self.open, topic, &ids.map(record).collect::<Vec<_>>());
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        secure(&["stop"]);
    }
}

fn source(name: &str, servers: &str, properties: &[(&str, String)]) -> String {
    let property = |(name, value): &(&str, String)| format!("{name:?} = {value}\n");
    let properties: String = properties.iter().map(property).collect();
    format!(
        "[sources.{name}]\ntype = \"kafka\"\nbootstrap_servers = {servers:?}\n[sources.{name}.properties]\n{properties}"
    )
}

async fn assert_folded(daemon: &Daemon, lite: &Path, name: &str, count: u32) {
    let expected: BTreeSet<String> = (0..count).map(|id| id.to_string()).collect();
    wait::until(&format!("{name} has folded {count}"), wait::LATER, async || {
        let status = daemon.status(name).await;
        let running = status["connector"]["state"] == "RUNNING" && status["lag"] == 0;
        if !running {
            return Err(status.to_string());
        }
        let found: BTreeSet<String> = sqlite_rows(lite, name, COLUMNS).into_keys().collect();
        if found == expected { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
}

/// A value of TOML.
fn text(text: &str) -> String {
    format!("{text:?}")
}

async fn assert_told(daemon: &Daemon, name: &str, words: &str) {
    wait::until(&format!("{name} says why"), wait::LATER, async || {
        let status = daemon.status(name).await.to_string();
        if status.contains(words) { Ok(()) } else { Err(status) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_way_into_kafka_folds_and_a_password_is_changed_while_the_worker_runs() {
    let setup = Setup::new();
    let (files, lite) = (setup.path("pem"), setup.path("lite.db"));
    let broker = Broker::start(&files);
    let topic = setup.name("seen");
    kafka::create_in(&broker.open, &topic).await;
    broker.produce(&topic, 0..50);
    let word = setup.path("word");
    std::fs::write(&word, "first word").unwrap();
    let file = |path: &Path| format!("{:?}", path.to_str().unwrap());
    let ca = ("ssl.ca.location", file(&files.join("ca.pem")));
    let login = |mechanism: &str, word: String| {
        let protocol = ("security.protocol", text("sasl_ssl"));
        let mechanism = ("sasl.mechanism", text(mechanism));
        let user = ("sasl.username", text("reader"));
        vec![ca.clone(), protocol, mechanism, user, ("sasl.password", word)]
    };
    let changing = format!("{{ file = {} }}", file(&word));
    let certificate = vec![
        ca.clone(),
        ("security.protocol", text("ssl")),
        ("ssl.certificate.location", file(&files.join("client.pem"))),
        ("ssl.key.location", file(&files.join("client.key"))),
    ];
    let ways = [
        ("plain", &broker.sasl, login("PLAIN", text("plain word"))),
        ("scram256", &broker.sasl, login("SCRAM-SHA-256", text("first word"))),
        ("scram512", &broker.sasl, login("SCRAM-SHA-512", changing)),
        ("mutual", &broker.mutual, certificate),
    ];
    let wrong = [
        ("word", &broker.sasl, login("SCRAM-SHA-512", text(CANARY)), "correct `sasl.username`"),
        (
            "nobody",
            &broker.mutual,
            vec![ca.clone(), ("security.protocol", text("ssl"))],
            "ertificate",
        ),
        (
            "stranger",
            &broker.sasl,
            login("PLAIN", text("plain word")).split_off(1),
            "`ssl.ca.location`",
        ),
    ];
    let projection = format!(
        "[projections.seen]\ntopics = [{topic:?}]\nkey = {{ id = \"event.id\" }}\n[projections.seen.fields]\nid = \"text\"\n\
         [[projections.seen.on]]\nset = {{}}\n"
    );
    let mut parts = vec!["watch = true\n".to_owned(), projection, sqlite_sink(&lite)];
    let right = ways.iter().map(|(name, servers, way)| (*name, *servers, way));
    for (name, servers, way) in right.chain(wrong.iter().map(|(n, s, way, _)| (*n, *s, way))) {
        parts.push(source(name, servers, way));
        parts.push(connector(name, "seen", "file", name, &format!("source = {name:?}")));
    }
    setup.config(&parts);
    let daemon = setup.start().await;
    for (name, ..) in &ways {
        assert_folded(&daemon, &lite, name, 50).await;
    }
    for (name, _, _, words) in &wrong {
        assert_told(&daemon, name, words).await;
    }
    secure(&["password", "reader", "second word"]);
    std::fs::write(&word, "second word").unwrap();
    broker.produce(&topic, 50..100);
    for (name, ..) in &ways {
        assert_folded(&daemon, &lite, name, 100).await;
    }
    assert!(!setup.log().contains(CANARY), "a secret is in the log");
    daemon.stop().await;
}
