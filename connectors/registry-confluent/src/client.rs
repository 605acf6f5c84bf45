//! One question over HTTP, of each address in turn until one of them answers.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use foldline_api::error::{Error, Result};
use reqwest::header::{ACCEPT, CONTENT_TYPE};
use reqwest::{Certificate, Identity, StatusCode};
use serde::Deserialize;
use serde_json::Value as Json;
use url::Url;

use crate::{Login, RegistryConfig};

const CONNECT: Duration = Duration::from_secs(5);
const ANSWER: Duration = Duration::from_secs(15);
/// No schema is so large, and no list of subjects.
const BODY_MAX: usize = 16 * 1024 * 1024;
/// What a registry answers in; Apicurio's own API answers in what the schema is.
const ACCEPTED: &str = "application/vnd.schemaregistry.v1+json, application/json, */*;q=0.5";
/// What it is handed.
const SENT: &str = "application/vnd.schemaregistry.v1+json";

/// What a registry said.
#[derive(Debug)]
pub(crate) enum Said {
    /// This.
    Body(Vec<u8>),
    /// That it has no such thing.
    Missing(String),
}

/// What a registry said of what it was handed.
#[derive(Debug)]
pub(crate) enum Took {
    /// It has it: this.
    Body(Vec<u8>),
    /// It has no such thing.
    Missing,
    /// It does not take it, in its words.
    Refused(String),
}

#[derive(Debug)]
pub(crate) struct Client {
    name: String,
    http: reqwest::Client,
    urls: Vec<Url>,
    login: Login,
    /// The address that answered last.
    last: AtomicUsize,
}

/// What came back.
enum Heard {
    Body(Vec<u8>),
    Complaint(StatusCode, Complaint),
}

/// How Confluent's API says what is wrong.
#[derive(Deserialize)]
struct Complaint {
    error_code: u32,
    #[serde(default)]
    message: String,
}

impl Client {
    pub(crate) fn new(config: &RegistryConfig) -> Result<Self> {
        let mut http = reqwest::Client::builder().connect_timeout(CONNECT).timeout(ANSWER);
        if let Some(path) = &config.ca {
            let wrong = |error| Error::config(format!("ca {}: {error}", path.display()));
            let bundle = Certificate::from_pem_bundle(&read("ca", path)?).map_err(wrong)?;
            if bundle.is_empty() {
                return Err(Error::config(format!("ca {} has no certificate", path.display())));
            }
            http = http.tls_built_in_root_certs(false);
            for certificate in bundle {
                http = http.add_root_certificate(certificate);
            }
        }
        if let Some((certificate, key)) = &config.certificate {
            let mut pem = read("certificate", certificate)?;
            pem.push(b'\n');
            pem.extend(read("private_key", key)?);
            let wrong = |error| {
                let (certificate, key) = (certificate.display(), key.display());
                Error::config(format!("certificate {certificate}, private_key {key}: {error}"))
            };
            http = http.identity(Identity::from_pem(&pem).map_err(wrong)?);
        }
        let http = http.build().map_err(|error| {
            Error::config(format!("registry {}: {}", config.name, without_url(error)))
        })?;
        let urls = config.urls.iter().map(|url| parse(url.expose())).collect::<Result<_>>()?;
        let (name, login) = (config.name.clone(), config.login.clone());
        Ok(Client { name, http, urls, login, last: AtomicUsize::new(0) })
    }

    /// What is at `path`, below each address or where `at` says that it is.
    ///
    /// # Errors
    /// Of class Retriable, when no address tells.
    pub(crate) async fn get(&self, path: &str, at: fn(&Url) -> Option<Url>) -> Result<Said> {
        match self.call(path, at, None).await? {
            Heard::Body(body) => Ok(Said::Body(body)),
            Heard::Complaint(StatusCode::NOT_FOUND, Complaint { message, .. }) => {
                Ok(Said::Missing(message))
            }
            Heard::Complaint(status, complaint) => Err(self.outage(&complaint.told(status))),
        }
    }

    /// Hands something over at `path`.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub(crate) async fn post(&self, path: &str, body: &Json) -> Result<Took> {
        match self.call(path, |url| Some(url.clone()), Some(body)).await? {
            Heard::Body(body) => Ok(Took::Body(body)),
            Heard::Complaint(StatusCode::NOT_FOUND, _) => Ok(Took::Missing),
            // Of what it was handed, not of how it is.
            Heard::Complaint(
                status @ (StatusCode::CONFLICT | StatusCode::UNPROCESSABLE_ENTITY),
                complaint,
            ) => Ok(Took::Refused(complaint.told(status))),
            Heard::Complaint(status, complaint) => Err(self.outage(&complaint.told(status))),
        }
    }

    async fn call(
        &self,
        path: &str,
        at: fn(&Url) -> Option<Url>,
        body: Option<&Json>,
    ) -> Result<Heard> {
        let first = self.last.load(Ordering::Relaxed);
        let mut failed = None;
        for nth in 0..self.urls.len() {
            let nth = (first + nth) % self.urls.len();
            let Some(url) = self.urls.get(nth) else { continue };
            let Some(base) = at(url) else {
                failed = Some(format!("{} is no address of Apicurio's API", shown(url)));
                continue;
            };
            match self.ask(&base, path, body).await {
                // What it cannot tell, another address may.
                Ok(Heard::Complaint(status, complaint)) if !is_answer(status) => {
                    failed = Some(format!("{}: {}", shown(&base), complaint.told(status)));
                }
                Ok(heard) => {
                    self.last.store(nth, Ordering::Relaxed);
                    return Ok(heard);
                }
                Err(why) => failed = Some(format!("{}: {why}", shown(&base))),
            }
        }
        Err(self.outage(&failed.unwrap_or_default()))
    }

    /// An error of the registry, which is tried again.
    pub(crate) fn outage(&self, why: &str) -> Error {
        Error::retriable(format!("the schema registry {:?} cannot tell: {why}", self.name))
    }

    async fn ask(&self, base: &Url, path: &str, body: Option<&Json>) -> Result<Heard, String> {
        let address = format!("{}/{path}", base.as_str().trim_end_matches('/'));
        let request = match body {
            None => self.http.get(address),
            Some(body) => self.http.post(address).header(CONTENT_TYPE, SENT).body(body.to_string()),
        };
        let request = request.header(ACCEPT, ACCEPTED);
        let request = match &self.login {
            Login::None => request,
            Login::Basic { username, password } => {
                request.basic_auth(username, Some(password.expose()))
            }
            Login::Bearer(token) => request.bearer_auth(token.expose()),
        };
        let mut response = request.send().await.map_err(without_url)?;
        let status = response.status();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(without_url)? {
            body.extend_from_slice(&chunk);
            if body.len() > BODY_MAX {
                return Err(format!("its answer is larger than {BODY_MAX} bytes"));
            }
        }
        if status.is_success() {
            return Ok(Heard::Body(body));
        }
        let complaint = serde_json::from_slice::<Complaint>(&body).ok();
        match (status, complaint) {
            (StatusCode::NOT_FOUND, None) => Err(format!(
                "{status} for /{path}, and not in a registry's words: is this its address?"
            )),
            (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, _) => {
                Err(format!("the login is refused ({status})"))
            }
            (_, Some(complaint)) => Ok(Heard::Complaint(status, complaint)),
            (_, None) => Err(status.to_string()),
        }
    }
}

/// Whether it is of what was asked, and any address would say it.
fn is_answer(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::NOT_FOUND | StatusCode::CONFLICT | StatusCode::UNPROCESSABLE_ENTITY
    )
}

impl Complaint {
    fn told(&self, status: StatusCode) -> String {
        format!("{status}, error_code {}: {}", self.error_code, first_line(&self.message))
    }
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().chars().take(200).collect()
}

fn read(key: &str, path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path)
        .map_err(|error| Error::config(format!("cannot read {key} {}: {error}", path.display())))
}

fn parse(text: &str) -> Result<Url> {
    let wrong = "a registry's url is no address such as http://localhost:8081";
    let url =
        Url::parse(text.trim()).map_err(|error| Error::config(format!("{wrong}: {error}")))?;
    match url.scheme() {
        "http" | "https" if url.has_host() => Ok(url),
        _ => Err(Error::config(wrong)),
    }
}

/// Without the login that it may hold.
fn shown(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{host}{port}{}", url.scheme(), url.path().trim_end_matches('/'))
}

/// Its causes, without the address: that may hold a password.
fn without_url(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
