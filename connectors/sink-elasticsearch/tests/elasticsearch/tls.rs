//! TLS before the real cluster, with certificates of authorities that only the test knows.

use std::sync::{Arc, Mutex};

use foldline_api::sink::{RowWrite, Target, Version};
use foldline_api::{Error, ErrorClass};
use foldline_sink_elasticsearch::{ElasticsearchConfig, ElasticsearchTarget};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, DnValue, IsCa,
    KeyPair,
};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::support::{Bench, SMALL, beginning, durable, flush, key, url, write};

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority(name: DistinguishedName) -> Authority {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.distinguished_name = name;
    CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap()
}

/// By the name of the test's own.
fn private() -> Authority {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, "Foldline's test");
    authority(name)
}

/// By a public authority's name, without its key. Who trusts that authority finds the signature bad; who does not,
/// no authority.
fn by_a_public_name() -> Authority {
    let mut name = DistinguishedName::new();
    let text = |text: &str| DnValue::PrintableString(text.try_into().unwrap());
    name.push(DnType::CountryName, text("US"));
    name.push(DnType::OrganizationName, text("Internet Security Research Group"));
    name.push(DnType::CommonName, text("ISRG Root X2"));
    authority(name)
}

/// The cluster behind a listener that hears what comes.
struct Front {
    address: String,
    heard: Arc<Mutex<Vec<u8>>>,
}

impl Front {
    /// With a certificate for `localhost`, or without TLS.
    async fn new(issuer: Option<&Authority>) -> Self {
        let tls = issuer.map(acceptor);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let heard = Arc::default();
        let front = Front { address: format!("{scheme}://localhost:{port}"), heard };
        let heard = Arc::clone(&front.heard);
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (tls, heard) = (tls.clone(), Arc::clone(&heard));
                tokio::spawn(async move {
                    match tls {
                        None => pass(socket, &heard).await,
                        // A client that does not trust the certificate hangs up.
                        Some(tls) => match tls.accept(socket).await {
                            Ok(socket) => pass(socket, &heard).await,
                            Err(_) => Ok(()),
                        },
                    }
                });
            }
        });
        front
    }

    fn heard(&self, text: &str) -> bool {
        String::from_utf8_lossy(&self.heard.lock().unwrap()).to_lowercase().contains(text)
    }

    /// Opens the target here.
    async fn open(
        &self,
        bench: &Bench,
        change: impl FnOnce(&mut ElasticsearchConfig),
    ) -> Result<ElasticsearchTarget, Error> {
        let urls = vec![self.address.clone()];
        let mut config = ElasticsearchConfig { urls, ..ElasticsearchConfig::default() };
        change(&mut config);
        let target = ElasticsearchTarget::new(&config, bench.spec(&SMALL))?;
        target.open().await?;
        Ok(target)
    }
}

fn acceptor(issuer: &Authority) -> TlsAcceptor {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    let certificate = CertificateDer::from(params.signed_by(&key, issuer).unwrap());
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = ServerConfig::builder().with_no_client_auth();
    TlsAcceptor::from(Arc::new(config.with_single_cert(vec![certificate], key).unwrap()))
}

/// Between a client and the cluster, both ways.
async fn pass(client: impl AsyncRead + AsyncWrite, heard: &Mutex<Vec<u8>>) -> std::io::Result<()> {
    let address = url().trim_start_matches("http://").to_owned();
    let (mut from_server, mut to_server) = TcpStream::connect(address).await?.into_split();
    let (mut from_client, mut to_client) = tokio::io::split(client);
    let there = async {
        let mut piece = [0; 4096];
        loop {
            let count = from_client.read(&mut piece).await?;
            heard.lock().unwrap().extend_from_slice(&piece[..count]);
            if count == 0 {
                return to_server.shutdown().await;
            }
            to_server.write_all(&piece[..count]).await?;
        }
    };
    tokio::try_join!(there, tokio::io::copy(&mut from_server, &mut to_client)).map(|_| ())
}

/// A PEM file of these.
fn pem(files: &TempDir, name: &str, authorities: &[&Authority]) -> Option<std::path::PathBuf> {
    let path = files.path().join(name);
    let text: String = authorities.iter().map(|authority| authority.pem()).collect();
    std::fs::write(&path, text).unwrap();
    Some(path)
}

#[tokio::test]
async fn a_given_ca_is_trusted_and_no_other_authority() {
    let bench = Bench::new("tls");
    let files = tempfile::tempdir().unwrap();
    let (ours, theirs, public) = (private(), private(), by_a_public_name());
    let ca = pem(&files, "ca.pem", &[&ours]);
    let both = pem(&files, "both.pem", &[&theirs, &ours]);
    let front = Front::new(Some(&ours)).await;
    front.open(&bench, |config| config.ca.clone_from(&both)).await.unwrap();
    let target = front
        .open(&bench, |config| {
            config.ca.clone_from(&ca);
            config.api_key = Some("Y2FuYXJ5OmtleQ==".to_owned());
        })
        .await
        .unwrap();
    assert!(front.heard("authorization: apikey y2fuyxj5omtleq=="));

    // What it does is done there, by requests of each kind.
    target.begin(1, &[beginning(0)]).await.unwrap();
    let writer = target.writer(1).await.unwrap();
    writer.acquire(&[beginning(0)]).await.unwrap();
    let one: Vec<RowWrite> = vec![write(1, Some(7), Version::Absent, 1)];
    durable(writer.write(&flush(1, 0, 1, one)).await.unwrap());
    assert!(writer.load(&[key(1)]).await.unwrap()[0].row.is_some());

    let foreign = Front::new(Some(&theirs)).await;
    let named_public = Front::new(Some(&public)).await;
    for (front, ca, why) in [
        (&foreign, &ca, "BadSignature"),
        (&named_public, &ca, "UnknownIssuer"),
        (&front, &None, "UnknownIssuer"),
        // So it is one that is trusted without a `ca`.
        (&named_public, &None, "BadSignature"),
    ] {
        let error = front.open(&bench, |config| config.ca.clone_from(ca)).await.err().unwrap();
        assert_eq!(error.class(), ErrorClass::Retriable, "{error}");
        for word in [why, "certificate of Elasticsearch", "give the sink the ca"] {
            assert!(error.message().contains(word), "no {word} in {error}");
        }
        assert!(!front.heard("canary"), "nothing is said to whom is not trusted");
    }
    bench.clean().await;
}

#[tokio::test]
async fn each_login_is_sent_as_elasticsearch_reads_it() {
    let bench = Bench::new("login");
    let files = tempfile::tempdir().unwrap();
    let ours = private();
    let ca = pem(&files, "ca.pem", &[&ours]);
    for (issuer, ca) in [(None, None), (Some(&ours), ca)] {
        let front = Front::new(issuer).await;
        front
            .open(&bench, |config| {
                config.ca.clone_from(&ca);
                config.api_key = Some("YTpi".to_owned());
            })
            .await
            .unwrap();
        assert!(front.heard("authorization: apikey ytpi"));
        front
            .open(&bench, |config| {
                config.ca = ca;
                config.username = Some("a".to_owned());
                config.password = Some("c".to_owned());
            })
            .await
            .unwrap();
        assert!(front.heard("authorization: basic ytpj"));
    }
    bench.clean().await;
}
