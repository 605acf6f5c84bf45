//! The URL and TLS. Everything is checked before the first connection.

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use foldline_api::{Error, Result};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error as TlsError, RootCertStore,
    SignatureScheme,
};
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};
use tokio_postgres_rustls::MakeRustlsConnect;

/// How to reach PostgreSQL, and where Foldline keeps its books there.
#[derive(Clone)]
pub struct PostgresConfig {
    /// `postgres://user:password@host:5432/database?sslmode=verify-full`: libpq's URL.
    pub url: String,
    /// A PEM file of certificate authorities to trust beside the system's.
    pub ca: Option<PathBuf>,
    /// The schema of Foldline's own tables; `foldline` unless the config says otherwise.
    pub schema: String,
}

impl std::fmt::Debug for PostgresConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostgresConfig")
            .field("url", &mask(&self.url))
            .field("ca", &self.ca)
            .field("schema", &self.schema)
            .finish()
    }
}

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
}

impl Endpoint {
    /// Checks the config. `application` is the name that `pg_stat_activity` shows.
    pub(crate) fn new(config: &PostgresConfig, application: &str) -> Result<Self> {
        let wrong = |reason: String| {
            Error::config(format!("the PostgreSQL url {}: {reason}", mask(&config.url)))
        };
        let url = Url::split(&config.url).map_err(&wrong)?;
        let mut client = tokio_postgres::Config::from_str(&url.rest)
            .map_err(|error| wrong(reason_of(&error)))?;
        if client.get_hosts().is_empty() && client.get_hostaddrs().is_empty() {
            return Err(wrong("it names no host".to_owned()));
        }
        let local = client.get_hosts().iter().all(is_local);
        let ca = config.ca.clone().or(url.root_cert);
        let (mode, verify) =
            tls_mode(url.ssl_mode.as_deref(), local, ca.is_some()).map_err(wrong)?;
        client.ssl_mode(mode);
        client.application_name(application);
        if client.get_connect_timeout().is_none() {
            client.connect_timeout(CONNECT_TIMEOUT);
        }
        client.keepalives_idle(Duration::from_secs(30));
        client.keepalives_interval(Duration::from_secs(10));
        client.keepalives_retries(3);
        if client.get_tcp_user_timeout().is_none() {
            client.tcp_user_timeout(Duration::from_secs(30));
        }
        if client.get_hosts().len() > 1
            && client.get_target_session_attrs() == TargetSessionAttrs::Any
        {
            // Of several hosts only the primary takes writes; after a failover it is another.
            client.target_session_attrs(TargetSessionAttrs::ReadWrite);
        }
        let place = place(&client);
        let tls = MakeRustlsConnect::new(tls_config(verify, ca.as_ref())?);
        Ok(Endpoint { client, tls, place })
    }
}

fn reason_of(error: &tokio_postgres::Error) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string)
}

fn is_local(host: &Host) -> bool {
    match host {
        Host::Tcp(name) => {
            name == "localhost"
                || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
        }
        Host::Unix(_) => true,
    }
}

fn place(client: &tokio_postgres::Config) -> String {
    let hosts: Vec<String> = client
        .get_hosts()
        .iter()
        .map(|host| match host {
            Host::Tcp(name) => name.clone(),
            Host::Unix(path) => path.display().to_string(),
        })
        .collect();
    let database = client.get_dbname().or_else(|| client.get_user()).unwrap_or_default();
    format!("PostgreSQL at {}, database {database:?}", hosts.join(","))
}

/// The URL with its password, and whatever else could be one, replaced.
pub(crate) fn mask(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return "***".to_owned();
    };
    let (user, rest) = match rest.rsplit_once('@') {
        Some((credentials, rest)) => match credentials.split_once(':') {
            Some((user, _)) => (format!("{user}:***@"), rest),
            None => (format!("{credentials}@"), rest),
        },
        None => (String::new(), rest),
    };
    let shown = rest.split('?').next().unwrap_or_default();
    let query = if rest.contains('?') { "?***" } else { "" };
    format!("{scheme}://{user}{shown}{query}")
}

/// The URL, and the parameters of libpq that the client library does not know.
struct Url {
    rest: String,
    ssl_mode: Option<String>,
    root_cert: Option<PathBuf>,
}

impl Url {
    fn split(url: &str) -> Result<Self, String> {
        if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
            return Err("it must begin with postgres:// or postgresql://".to_owned());
        }
        // A password may hold a question mark: the query begins after the credentials.
        let after = url.find('@').unwrap_or(0);
        let Some(query_at) = url.get(after..).and_then(|rest| rest.find('?')).map(|at| at + after)
        else {
            return Ok(Url { rest: url.to_owned(), ssl_mode: None, root_cert: None });
        };
        let (base, query) = url.split_at(query_at);
        let (mut ssl_mode, mut root_cert, mut kept) = (None, None, Vec::new());
        for pair in query.trim_start_matches('?').split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            match name {
                "sslmode" => ssl_mode = Some(value.to_owned()),
                "sslrootcert" => root_cert = Some(PathBuf::from(value.replace("%2F", "/"))),
                "sslcert" | "sslkey" | "sslpassword" | "sslcrl" => {
                    return Err(format!("parameter {name} is not supported"));
                }
                "application_name" => {
                    return Err(
                        "application_name is Foldline's own, foldline/<connector>".to_owned()
                    );
                }
                _ => kept.push(pair),
            }
        }
        let rest =
            if kept.is_empty() { base.to_owned() } else { format!("{base}?{}", kept.join("&")) };
        Ok(Url { rest, ssl_mode, root_cert })
    }
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
        Some(other) => Err(format!(
            "sslmode is {other:?}: allowed are disable, prefer, require, verify-ca and verify-full (the \
             default, but prefer for a local host)"
        )),
    }
}

fn tls_config(verify: Verify, ca: Option<&PathBuf>) -> Result<ClientConfig> {
    let provider = Arc::new(ring::default_provider());
    let wrong = |error: &dyn std::fmt::Display| Error::config(format!("TLS: {error}"));
    let verifier: Arc<dyn ServerCertVerifier> = if verify == Verify::Nothing {
        Arc::new(Lenient { chain: None, provider: Arc::clone(&provider) })
    } else {
        let roots = Arc::new(roots(ca)?);
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
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(&error))?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth())
}

fn roots(ca: Option<&PathBuf>) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(path) = ca {
        let wrong = |reason: String| Error::config(format!("ca {}: {reason}", path.display()));
        let certs =
            CertificateDer::pem_file_iter(path).map_err(|error| wrong(error.to_string()))?;
        let mut count = 0;
        for cert in certs {
            let cert = cert.map_err(|error| wrong(error.to_string()))?;
            roots.add(cert).map_err(|error| wrong(error.to_string()))?;
            count += 1;
        }
        if count == 0 {
            return Err(wrong("it holds no certificate".to_owned()));
        }
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

    fn endpoint(url: &str) -> Result<Endpoint> {
        let config =
            PostgresConfig { url: url.to_owned(), ca: None, schema: "foldline".to_owned() };
        Endpoint::new(&config, "foldline/orders")
    }

    #[test]
    fn wrong_urls_are_config_errors_without_their_password() {
        for (url, part) in [
            ("mysql://u:hunter2@h/d", "begin with postgres://"),
            ("host=h password=hunter2", "begin with postgres://"),
            ("postgres://u:hunter2@h/d?sslmode=maybe", "allowed are disable"),
            ("postgres://u:hunter2@h/d?sslkey=x", "not supported"),
            ("postgres://u:hunter2@h/d?colour=red", "colour"),
            ("postgres://u:hunter2@h:port/d", "port"),
            ("postgres://u:hun?ter2@h/d?sslmode=maybe&password=hunter2", "allowed are disable"),
        ] {
            let error = endpoint(url).err().unwrap();
            assert_eq!(error.class(), ErrorClass::Config);
            let text = error.to_string();
            assert!(text.contains(part) && !text.contains("ter2"), "{text}");
        }
        let config = PostgresConfig {
            url: "postgres://u:hunter2@h/d".to_owned(),
            ca: None,
            schema: "foldline".to_owned(),
        };
        assert!(!format!("{config:?}").contains("hunter2"));
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
        assert_eq!(place, "PostgreSQL at 127.0.0.1, database \"d\"");
    }

    #[test]
    fn several_hosts_mean_the_primary() {
        let endpoint = endpoint("postgres://u:p@a:1,b:2/d?sslmode=disable").unwrap();
        assert_eq!(endpoint.client.get_target_session_attrs(), TargetSessionAttrs::ReadWrite);
    }
}
