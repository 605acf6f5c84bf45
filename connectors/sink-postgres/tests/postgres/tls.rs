//! TLS against the real server, which gets a certificate of an authority that only the test knows.

use std::path::PathBuf;

use foldline_api::Error;
use foldline_api::sink::Target;
use foldline_sink_postgres::{PostgresConfig, PostgresTarget};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::TempDir;

use crate::support::{Fixture, orders, url, wait_for};

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap()
}

/// A server that answers with TLS, under the name `localhost` and no other.
struct Secured {
    fixture: Fixture,
    files: TempDir,
}

impl Secured {
    async fn new() -> Self {
        let authority = authority();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(["localhost".to_owned()])
            .and_then(|params| params.signed_by(&key, &authority))
            .unwrap();
        let files = tempfile::tempdir().unwrap();
        std::fs::write(files.path().join("ca.pem"), authority.pem()).unwrap();
        for (name, issuer) in [("client", &authority), ("stranger", &self::authority())] {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::default();
            params.distinguished_name.push(DnType::CommonName, name);
            let certificate = params.signed_by(&key, issuer).unwrap();
            std::fs::write(files.path().join(format!("{name}.pem")), certificate.pem()).unwrap();
            let path = files.path().join(format!("{name}-key.pem"));
            std::fs::write(path, key.serialize_pem()).unwrap();
        }
        let secured = Secured { fixture: Fixture::new().await, files };
        secured.serve("server.crt", &certificate.pem()).await;
        secured.serve("server.key", &key.serialize_pem()).await;
        secured.serve("fl_test_ca.crt", &authority.pem()).await;
        secured.fixture.run("ALTER SYSTEM SET ssl_ca_file = 'fl_test_ca.crt'").await;
        secured.switch("ALTER SYSTEM SET ssl = on", "on").await;
        secured
    }

    /// Puts a file into the server's own directory, which is where it looks for them.
    async fn serve(&self, name: &str, pem: &str) {
        let lines = pem.replace('\n', "','");
        self.fixture
            .run(&format!(
                "COPY (SELECT unnest(ARRAY['{lines}'])) TO PROGRAM 'umask 077; cat > {name}'"
            ))
            .await;
    }

    async fn switch(&self, sql: &str, shown: &str) {
        self.fixture.run(sql).await;
        self.fixture.run("SELECT pg_reload_conf()").await;
        let question = format!("SELECT current_setting('ssl') = '{shown}'");
        wait_for(&self.fixture.sql, &question).await;
    }

    fn ca(&self) -> Option<PathBuf> {
        Some(self.files.path().join("ca.pem"))
    }

    /// Opens the target with a client's certificate; whose the server says that it is.
    async fn open_as(&self, name: &str) -> Result<String, Error> {
        let file = |name: String| Some(self.files.path().join(name));
        let url = format!("{}?sslmode=require", url());
        let (cert, key) = (file(format!("{name}.pem")), file(format!("{name}-key.pem")));
        let config = PostgresConfig { url, cert, key, ..self.fixture.config() };
        let target = PostgresTarget::new(config, self.fixture.spec(orders()))?;
        self.seen(&target, "string_agg(DISTINCT client_dn, ' ')").await
    }

    /// Opens the target at `host`; whether its sessions are encrypted.
    async fn open(&self, host: &str, mode: &str, ca: Option<PathBuf>) -> Result<String, Error> {
        let url = format!("{}?sslmode={mode}", url().replace("127.0.0.1", host));
        let config = PostgresConfig { url, ca, ..self.fixture.config() };
        let target = PostgresTarget::new(config, self.fixture.spec(orders()))?;
        self.seen(&target, "bool_and(ssl)").await
    }

    /// What the server says of the target's sessions, which it knows by what they asked last.
    async fn seen(&self, target: &PostgresTarget, what: &str) -> Result<String, Error> {
        let sessions = format!(
            "FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = 'foldline' AND query LIKE \
             '%{}%'",
            self.fixture.schema
        );
        wait_for(&self.fixture.sql, &format!("SELECT NOT EXISTS (SELECT 1 {sessions})")).await;
        target.open().await?;
        target.live().await?;
        Ok(self.fixture.text(&format!("SELECT {what} {sessions}")).await)
    }
}

#[tokio::test]
async fn each_sslmode_asks_of_the_server_what_libpq_asks() {
    let server = Secured::new().await;
    let ca = server.ca();
    for (host, mode, ca, encrypted) in [
        ("localhost", "verify-full", ca.clone(), "true"),
        ("127.0.0.1", "verify-ca", ca.clone(), "true"),
        ("127.0.0.1", "require", ca.clone(), "true"),
        ("127.0.0.1", "require", None, "true"),
        ("127.0.0.1", "prefer", None, "true"),
        ("127.0.0.1", "disable", None, "false"),
    ] {
        let found = server.open(host, mode, ca).await.unwrap();
        assert_eq!(found, encrypted, "{mode} at {host}");
    }
    for (host, mode, ca, why) in [
        ("127.0.0.1", "verify-full", ca, "not valid for name"),
        ("localhost", "verify-full", None, "UnknownIssuer"),
        ("localhost", "verify-ca", None, "UnknownIssuer"),
    ] {
        let error = server.open(host, mode, ca).await.unwrap_err();
        for word in [why, "PostgreSQL at", "give the sink the ca", "sslmode"] {
            assert!(error.message().contains(word), "no {word} in {error} of {mode} at {host}");
        }
    }
    assert!(server.open_as("client").await.unwrap().contains("CN=client"));
    // Of an authority that the server does not know.
    let stranger = server.open_as("stranger").await.unwrap_err();
    assert_eq!(stranger.class(), foldline_api::ErrorClass::Retriable, "{stranger}");
    let halved = PostgresConfig { cert: server.ca(), ..server.fixture.config() };
    let halved = PostgresTarget::new(halved, server.fixture.spec(orders())).err().unwrap();
    assert!(halved.message().contains("both `cert` and `key`"), "{halved}");
    server.fixture.run("ALTER SYSTEM RESET ssl_ca_file").await;
    server.switch("ALTER SYSTEM RESET ssl", "off").await;
    let error = server.open("localhost", "require", None).await.unwrap_err();
    assert!(error.message().contains("TLS"), "{error}");
}
