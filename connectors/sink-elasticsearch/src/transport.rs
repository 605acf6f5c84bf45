//! How a request gets to a node.
//!
//! By the Elasticsearch client's transport. Where the config names the authorities, by the HTTP client that it
//! stands on: its transport trusts the public authorities beside those that it is given.

use std::time::Duration;

use bytes::Bytes;
use elasticsearch::auth::Credentials;
use elasticsearch::http::Method;
use elasticsearch::http::headers::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue,
};
use elasticsearch::http::response::Response;
use elasticsearch::http::transport as client;
use foldline_api::{Error, Result};
use reqwest::Certificate;
use url::Url;

use crate::nodes::Request;

/// To one node.
#[derive(Debug)]
pub(crate) enum Transport {
    /// Trusts the public authorities.
    Public(client::Transport),
    /// Trusts those of the config alone.
    Named(Named),
}

/// The HTTP client with the config's authorities; nodes share it.
#[derive(Clone, Debug)]
pub(crate) struct Named {
    http: reqwest::Client,
    /// Of the node; it ends with a slash.
    base: Url,
    login: Option<Credentials>,
}

impl Transport {
    /// One for each address. Sends nothing yet.
    ///
    /// # Errors
    /// Of class Config, where `ca` holds no certificate.
    pub(crate) fn all(
        urls: Vec<Url>,
        login: Option<&Credentials>,
        ca: Option<&[u8]>,
    ) -> Result<Vec<Transport>> {
        let Some(ca) = ca else {
            return urls.into_iter().map(|url| public(url, login)).collect();
        };
        let http = trusting(ca)?;
        let named = |mut base: Url| {
            if !base.path().ends_with('/') {
                base.set_path(&format!("{}/", base.path()));
            }
            Transport::Named(Named { http: http.clone(), base, login: login.cloned() })
        };
        Ok(urls.into_iter().map(named).collect())
    }

    pub(crate) async fn send(
        &self,
        Request { method, path, query, bytes_max }: Request<'_>,
        body: Option<Bytes>,
        timeout: Duration,
    ) -> Result<Response, elasticsearch::Error> {
        let mut headers = HeaderMap::new();
        let kind =
            if path.ends_with("/_bulk") { "application/x-ndjson" } else { "application/json" };
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        if bytes_max < usize::MAX {
            // Of what comes packed nobody knows the length before it is unpacked.
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        }
        match self {
            Transport::Public(transport) => {
                transport.send(method, path, headers, Some(query), body, Some(timeout)).await
            }
            Transport::Named(node) => {
                headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
                let url = node.base.join(path.trim_start_matches('/'))?;
                let request = node.http.request(verb(method), url).headers(headers).query(query);
                let mut request = node.log_in(request.timeout(timeout));
                if let Some(body) = body {
                    request = request.body(body);
                }
                Ok(Response::new(request.send().await?, method))
            }
        }
    }
}

impl Named {
    fn log_in(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        match &self.login {
            Some(Credentials::Basic(user, password)) => request.basic_auth(user, Some(password)),
            Some(Credentials::EncodedApiKey(key)) => {
                request.header(AUTHORIZATION, format!("ApiKey {key}"))
            }
            _ => request,
        }
    }
}

fn public(url: Url, login: Option<&Credentials>) -> Result<Transport> {
    let pool = client::SingleNodeConnectionPool::new(url);
    let mut builder = client::TransportBuilder::new(pool).enable_meta_header(false);
    if let Some(login) = login {
        builder = builder.auth(login.clone());
    }
    builder.build().map(Transport::Public).map_err(unbuilt)
}

fn trusting(ca: &[u8]) -> Result<reqwest::Client> {
    let authorities = Certificate::from_pem_bundle(ca)
        .map_err(|error| Error::config(format!("no PEM certificate: {error}")))?;
    if authorities.is_empty() {
        return Err(Error::config("no PEM certificate is in it"));
    }
    let builder = reqwest::Client::builder().tls_built_in_root_certs(false);
    let builder =
        authorities.into_iter().fold(builder, reqwest::ClientBuilder::add_root_certificate);
    builder.build().map_err(unbuilt)
}

fn unbuilt(error: impl std::fmt::Display) -> Error {
    Error::config(format!("cannot set up the HTTP client: {error}"))
}

fn verb(method: Method) -> reqwest::Method {
    match method {
        Method::Get => reqwest::Method::GET,
        Method::Put => reqwest::Method::PUT,
        Method::Post => reqwest::Method::POST,
        Method::Delete => reqwest::Method::DELETE,
        Method::Head => reqwest::Method::HEAD,
    }
}
