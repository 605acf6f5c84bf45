//! TLS against the real server, which gets a certificate of an authority that only the test knows.

use std::path::PathBuf;

use foldline_api::Error;
use foldline_api::sink::Target;
use foldline_sink_postgres::{PostgresConfig, PostgresTarget};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;

use crate::support::{Fixture, orders, url, wait_for};

/// A server that answers with TLS, under the name `localhost` and no other.
struct Secured {
    fixture: Fixture,
    files: TempDir,
}

impl Secured {
    async fn new() -> Self {
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority =
            CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(["localhost".to_owned()])
            .and_then(|params| params.signed_by(&key, &authority))
            .unwrap();
        let files = tempfile::tempdir().unwrap();
        std::fs::write(files.path().join("ca.pem"), authority.pem()).unwrap();
        let secured = Secured { fixture: Fixture::new().await, files };
        secured.serve("server.crt", &certificate.pem()).await;
        secured.serve("server.key", &key.serialize_pem()).await;
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

    /// Opens the target at `host`; whether its sessions are encrypted.
    async fn open(&self, host: &str, mode: &str, ca: Option<PathBuf>) -> Result<String, Error> {
        let url = format!("{}?sslmode={mode}", url().replace("127.0.0.1", host));
        let config = PostgresConfig { url, ca, ..self.fixture.config() };
        let target = PostgresTarget::new(config, self.fixture.spec(orders()))?;
        target.open().await?;
        let name = &self.fixture.schema;
        let sessions = format!(
            "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
             WHERE application_name LIKE 'foldline/{name}%'"
        );
        Ok(self.fixture.text(&sessions).await)
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
    server.switch("ALTER SYSTEM RESET ssl", "off").await;
    let error = server.open("localhost", "require", None).await.unwrap_err();
    assert!(error.message().contains("TLS"), "{error}");
}
