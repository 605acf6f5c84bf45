//! How to reach PostgreSQL: URL, password and TLS. Everything is checked before the first connection.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use foldline_api::{Error, Result, mask};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error as TlsError, RootCertStore,
    SignatureScheme,
};
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::url::{self, Parameters, one_of};

/// How to reach PostgreSQL, and where Foldline keeps its books there.
#[derive(Clone, PartialEq, Eq)]
pub struct PostgresConfig {
    /// `postgres://user:password@host:5432/database?sslmode=verify-full`: libpq's URL, or its pairs.
    pub url: String,
    /// The password, where the URL has none.
    pub password: Option<String>,
    /// A PEM file of the certificate authorities to trust, in place of the system's.
    pub ca: Option<PathBuf>,
    /// A PEM file of the client's certificate, with `key`.
    pub cert: Option<PathBuf>,
    /// A PEM file of the certificate's key.
    pub key: Option<PathBuf>,
    /// So many connections at most, for all connectors of this config.
    pub connections: usize,
    /// The schema of Foldline's own tables; `foldline` unless the config says otherwise.
    pub schema: String,
    /// How long a statement of a flush may take.
    pub statement_timeout: Duration,
}

impl std::fmt::Debug for PostgresConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostgresConfig")
            .field("url", &mask::url(&self.url))
            .field("password", &self.password.as_ref().map(|_| mask::MASK))
            .field("ca", &self.ca)
            .field("cert", &self.cert)
            .field("key", &self.key)
            .field("connections", &self.connections)
            .field("schema", &self.schema)
            .finish()
    }
}

/// libpq's word for the authorities that the system trusts, in place of a file.
const SYSTEM: &str = "system";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How much of the server's certificate is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verify {
    Nothing,
    Chain,
    ChainAndName,
}

/// The checked config.
pub(crate) struct Endpoint {
    /// The client's settings.
    pub(crate) client: tokio_postgres::Config,
    /// What makes TLS connections.
    pub(crate) tls: MakeRustlsConnect,
    /// Whom messages call: hosts and database, no secret.
    pub(crate) place: String,
    /// What a transaction that writes begins with.
    pub(crate) begin: String,
    /// How long a statement of it may take.
    pub(crate) statement_timeout: Duration,
}

/// Whether PostgreSQL's `url` can be used, told without a connection.
///
/// # Errors
/// A sentence without anything that could be part of a login.
pub(crate) fn check_url(url: &str) -> Result<(), String> {
    read_url(url).map(|_| ())
}

/// The URL's parameters and the client's settings by them.
fn read_url(url: &str) -> Result<(Parameters, tokio_postgres::Config), String> {
    let mut parameters = url::parse(url)?;
    if !parameters.contains_key("host") {
        // An address without a name is the name that its certificate must have.
        let Some(address) = parameters.get("hostaddr").cloned() else {
            return Err("it names no host, and PGHOST and its like are not read".to_owned());
        };
        parameters.insert("host", address);
    }
    if parameters.get("sslrootcert").is_some_and(|ca| ca == SYSTEM) {
        // As in libpq: a certificate of any authority is no proof without the name in it.
        let mode = parameters.entry("sslmode").or_insert_with(|| "verify-full".to_owned());
        if mode != "verify-full" {
            return Err("sslrootcert=system needs sslmode=verify-full".to_owned());
        }
    }
    let mut client = tokio_postgres::Config::new();
    client.connect_timeout(CONNECT_TIMEOUT);
    client.keepalives_idle(Duration::from_secs(30));
    client.keepalives_interval(Duration::from_secs(10));
    client.keepalives_retries(3);
    client.tcp_user_timeout(Duration::from_secs(30));
    url::apply(&parameters, &mut client)?;
    let attrs = [
        ("any", TargetSessionAttrs::Any),
        ("read-write", TargetSessionAttrs::ReadWrite),
        ("primary", TargetSessionAttrs::ReadWrite),
    ];
    if let Some(wanted) = parameters.get("target_session_attrs") {
        client.target_session_attrs(one_of("target_session_attrs", wanted, &attrs)?);
    }
    if client.get_hosts().len() > 1 && client.get_target_session_attrs() == TargetSessionAttrs::Any
    {
        // Of several hosts only the primary takes writes; after a failover it is another.
        client.target_session_attrs(TargetSessionAttrs::ReadWrite);
    }
    tls_mode(parameters.get("sslmode").map(String::as_str), is_local(&client), false)?;
    Ok((parameters, client))
}

impl Endpoint {
    /// Checks the config.
    pub(crate) fn new(config: &PostgresConfig) -> Result<Self> {
        let wrong = |reason: String| Error::config(format!("the PostgreSQL url: {reason}"));
        let (parameters, mut client) = read_url(&config.url).map_err(wrong)?;
        let path = |own: &Option<PathBuf>, name| {
            own.clone().or_else(|| parameters.get(name).map(PathBuf::from))
        };
        let ca = path(&config.ca, "sslrootcert").filter(|ca| ca != Path::new(SYSTEM));
        let sslmode = parameters.get("sslmode").map(String::as_str);
        let (mode, verify) = tls_mode(sslmode, is_local(&client), ca.is_some()).map_err(wrong)?;
        client.ssl_mode(mode);
        client.application_name("foldline");
        if let Some(password) = &config.password {
            if client.get_password().is_some() {
                return Err(wrong("it has a password, and there is one beside it".to_owned()));
            }
            client.password(password);
        }
        let cert = match (path(&config.cert, "sslcert"), path(&config.key, "sslkey")) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            _ => return Err(Error::config("a client's certificate needs both `cert` and `key`")),
        };
        let place = place(&client);
        let tls = MakeRustlsConnect::new(tls_config(verify, ca.as_deref(), cert.as_ref())?);
        let statement_timeout = config.statement_timeout;
        let begin = crate::session::begin(statement_timeout);
        Ok(Endpoint { client, tls, place, begin, statement_timeout })
    }
}

/// Whether all of it stays on this machine: an address is where it goes, whatever the host is called.
fn is_local(client: &tokio_postgres::Config) -> bool {
    let addresses = client.get_hostaddrs();
    if !addresses.is_empty() {
        return addresses.iter().all(std::net::IpAddr::is_loopback);
    }
    client.get_hosts().iter().all(|host| match host {
        Host::Tcp(name) => {
            name == "localhost"
                || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
        }
        Host::Unix(_) => true,
    })
}

fn place(client: &tokio_postgres::Config) -> String {
    // One port may stand for all hosts, none is the default.
    let ports = client.get_ports();
    let port = |at: usize| ports.get(at).or(ports.first()).copied().unwrap_or(5432);
    let hosts: Vec<String> = client
        .get_hosts()
        .iter()
        .enumerate()
        .map(|(at, host)| match host {
            Host::Tcp(name) => format!("{name}:{}", port(at)),
            Host::Unix(path) => path.display().to_string(),
        })
        .collect();
    let database = client.get_dbname().or_else(|| client.get_user()).unwrap_or_default();
    format!("PostgreSQL at {}, database {database:?}", hosts.join(","))
}

fn tls_mode(mode: Option<&str>, local: bool, has_ca: bool) -> Result<(SslMode, Verify), String> {
    // As in libpq, `require` checks the chain where there is an authority to check it against.
    let chain = if has_ca { Verify::Chain } else { Verify::Nothing };
    match mode {
        None if local => Ok((SslMode::Prefer, chain)),
        None | Some("verify-full") => Ok((SslMode::Require, Verify::ChainAndName)),
        Some("disable") => Ok((SslMode::Disable, Verify::Nothing)),
        Some("prefer") => Ok((SslMode::Prefer, chain)),
        Some("require") => Ok((SslMode::Require, chain)),
        Some("verify-ca") => Ok((SslMode::Require, Verify::Chain)),
        Some(_) => Err(
            "sslmode: allowed are disable, prefer, require, verify-ca and verify-full (the default, but prefer \
             for a local host)"
                .to_owned(),
        ),
    }
}

fn tls_config(
    verify: Verify,
    ca: Option<&Path>,
    client: Option<&(PathBuf, PathBuf)>,
) -> Result<ClientConfig> {
    let provider = Arc::new(ring::default_provider());
    let wrong = |error: &dyn std::fmt::Display| Error::config(format!("TLS: {error}"));
    let verifier: Arc<dyn ServerCertVerifier> = if verify == Verify::Nothing {
        Arc::new(Lenient { chain: None, provider: Arc::clone(&provider) })
    } else {
        let roots = Arc::new(roots(ca, || rustls_native_certs::load_native_certs().certs)?);
        let strict = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider))
            .build()
            .map_err(|error| {
                Error::config(format!(
                    "no certificate authority to check PostgreSQL's certificate against ({error}): give the \
                     sink a ca, or choose another sslmode"
                ))
            })?;
        if verify == Verify::ChainAndName {
            strict
        } else {
            Arc::new(Lenient { chain: Some(strict), provider: Arc::clone(&provider) })
        }
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(&error))?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    match client {
        None => Ok(builder.with_no_client_auth()),
        Some((cert, key)) => {
            let unreadable = |error: &dyn std::fmt::Display| {
                Error::config(format!(
                    "key {}: {error}; it must be PEM, and not encrypted",
                    key.display()
                ))
            };
            let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| unreadable(&error))?;
            builder.with_client_auth_cert(certificates("cert", cert)?, secret).map_err(|error| {
                let (cert, key) = (cert.display(), key.display());
                Error::config(format!("cert {cert} and key {key}: {error}"))
            })
        }
    }
}

/// The certificates of a PEM file, at least one.
fn certificates(name: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let wrong = |reason: String| Error::config(format!("{name} {}: {reason}", path.display()));
    let found = CertificateDer::pem_file_iter(path).map_err(|error| wrong(error.to_string()))?;
    let found: Vec<_> =
        found.collect::<Result<_, _>>().map_err(|error| wrong(error.to_string()))?;
    if found.is_empty() {
        return Err(wrong("it holds no certificate".to_owned()));
    }
    Ok(found)
}

/// Whom to trust: the given authorities alone, as whoever names his own does not mean every other.
fn roots(
    ca: Option<&Path>,
    system: impl FnOnce() -> Vec<CertificateDer<'static>>,
) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    let Some(path) = ca else {
        roots.add_parsable_certificates(system());
        return Ok(roots);
    };
    for cert in certificates("ca", path)? {
        let wrong = |error| Error::config(format!("ca {}: {error}", path.display()));
        roots.add(cert).map_err(wrong)?;
    }
    Ok(roots)
}

/// Checks less than the default: `prefer` and `require` encrypt without asking with whom, `verify-ca`
/// asks for the authority and not for the name.
#[derive(Debug)]
struct Lenient {
    chain: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        let Some(chain) = &self.chain else {
            return Ok(ServerCertVerified::assertion());
        };
        match chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            Err(TlsError::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use foldline_api::ErrorClass;
    use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
    use proptest::prelude::*;

    fn config(url: &str) -> PostgresConfig {
        let url = url.to_owned();
        let schema = "foldline".to_owned();
        PostgresConfig {
            url,
            password: None,
            ca: None,
            cert: None,
            key: None,
            connections: 8,
            schema,
            statement_timeout: Duration::from_secs(25),
        }
    }

    fn endpoint(url: &str) -> Result<Endpoint> {
        Endpoint::new(&config(url))
    }

    #[test]
    fn wrong_urls_are_config_errors_without_their_password() {
        for (url, part) in [
            ("mysql://u:hunter2@h/d", "begin with postgres://"),
            ("password=hunter2", "names no host"),
            ("postgres://u:hunter2@h/d?sslmode=maybe", "allowed are disable"),
            ("postgres://u:hunter2@h/d?sslkey=x", "needs both"),
            ("postgres://u:hunter2@h/d?sslmode=require&sslrootcert=system", "needs sslmode=verify"),
            ("postgres://u:hunter2@h/d?sslcrl=x", "not supported"),
            ("postgres://u:hunter2@h/d?colour=red", "none of user, password"),
            ("postgres://u:hunter2@h:port/d", "a port is none"),
            ("postgres://u:hunter2@/d", "names no host"),
            ("postgres://u:hunter2@h/d?target_session_attrs=standby", "must be one of any"),
        ] {
            let error = endpoint(url).err().unwrap();
            assert_eq!(error.class(), ErrorClass::Config);
            let text = error.to_string();
            assert!(text.contains(part) && !text.contains("ter2"), "{text}");
        }
        let both = PostgresConfig {
            password: Some("hunter2".to_owned()),
            ..config("postgres://u:hunter2@h/d")
        };
        let error = Endpoint::new(&both).err().unwrap().to_string();
        assert!(error.contains("one beside it") && !error.contains("hunter2"), "{error}");
        assert!(!format!("{both:?}").contains("hunter2"));
    }

    proptest! {
        #[test]
        fn a_password_is_used_whole_or_told_nowhere(
            before in "[ -~é]{0,8}", after in "[ -~é]{0,8}", form in 0..6_usize,
        ) {
            let password = format!("{before}CANARY{after}");
            let encoded = utf8_percent_encode(&password, NON_ALPHANUMERIC);
            let url = match form {
                0 => format!("postgres://ann:{password}@db:5432/app"),
                1 => format!("postgres://ann:{encoded}@db:5432/app"),
                2 => format!("postgres://db/app?user=ann&password={password}"),
                3 => format!("postgres://db/app?user=ann&password={encoded}"),
                4 => format!("host=db user=ann password={password}"),
                _ => format!("mysql://ann:{password}@db"),
            };
            prop_assert!(!mask::url(&url).contains("CANARY"), "{}", mask::url(&url));
            match endpoint(&url) {
                Err(error) => prop_assert!(!error.to_string().contains("CANARY"), "{error}"),
                Ok(endpoint) => {
                    prop_assert!(!endpoint.place.contains("CANARY"), "{}", endpoint.place);
                    let hosts = format!("{:?}", endpoint.client.get_hosts());
                    prop_assert!(!hosts.contains("CANARY"), "{hosts}");
                    let used = String::from_utf8_lossy(endpoint.client.get_password().unwrap());
                    if form == 1 || form == 3 {
                        prop_assert_eq!(used, password);
                    }
                }
            }
        }
    }

    #[test]
    fn remote_hosts_are_verified_and_local_ones_may_do_without() {
        for (mode, local, ca, expect) in [
            (None, true, false, (SslMode::Prefer, Verify::Nothing)),
            (None, false, false, (SslMode::Require, Verify::ChainAndName)),
            (Some("disable"), false, false, (SslMode::Disable, Verify::Nothing)),
            (Some("require"), false, false, (SslMode::Require, Verify::Nothing)),
            (Some("require"), false, true, (SslMode::Require, Verify::Chain)),
            (Some("verify-ca"), false, true, (SslMode::Require, Verify::Chain)),
            (Some("verify-full"), true, false, (SslMode::Require, Verify::ChainAndName)),
        ] {
            assert_eq!(tls_mode(mode, local, ca), Ok(expect), "{mode:?} {local} {ca}");
        }
        let place = endpoint("postgres://u:p@127.0.0.1/d?sslmode=disable").unwrap().place;
        assert_eq!(place, "PostgreSQL at 127.0.0.1:5432, database \"d\"");
    }

    #[test]
    fn an_address_is_where_it_goes_whatever_the_host_is_called() {
        for (url, local) in [
            ("postgres://u@localhost/d", true),
            ("postgres:///d?host=/run/postgresql", true),
            ("hostaddr=127.0.0.1 user=u", true),
            ("hostaddr=192.0.2.1 user=u", false),
            ("host=localhost hostaddr=192.0.2.1 user=u", false),
            ("postgres://u@localhost,db/d", false),
        ] {
            let (_, client) = read_url(url).unwrap();
            assert_eq!(is_local(&client), local, "{url}");
        }
    }

    #[test]
    fn given_authorities_take_the_place_of_the_systems() {
        let authority = || {
            let key = rcgen::KeyPair::generate().unwrap();
            rcgen::CertificateParams::default().self_signed(&key).unwrap()
        };
        let (system, own, directory) = (authority(), authority(), tempfile::tempdir().unwrap());
        let path = directory.path().join("ca.pem");
        std::fs::write(&path, own.pem()).unwrap();
        let system = || vec![system.der().clone()];
        assert_eq!(roots(None, system).unwrap().len(), 1);
        let trusted = roots(Some(&path), system).unwrap();
        assert_eq!(trusted.len(), 1, "the system's are trusted too");
        std::fs::write(&path, "").unwrap();
        let error = roots(Some(&path), system).unwrap_err();
        assert!(error.message().contains("holds no certificate"), "{error}");
    }

    #[test]
    fn several_hosts_mean_the_primary() {
        let endpoint = endpoint("postgres://u:p@a:1,b:2/d?sslmode=disable").unwrap();
        assert_eq!(endpoint.client.get_target_session_attrs(), TargetSessionAttrs::ReadWrite);
    }
}
