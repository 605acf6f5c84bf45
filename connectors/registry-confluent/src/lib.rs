//! Schemas of a registry with Confluent's API: Confluent's own, Apicurio, Karapace.
//!
//! All connectors and tasks of a worker share one [`Registry`]: each schema is asked for once and kept for as long as the
//! worker runs, since an id means the same for ever. What does not come is told from what does not exist: an outage, a
//! refused login, a page of a proxy, and an answer that makes no sense are errors of class Retriable, and their records
//! wait; only what the registry itself says that it does not have, for half a minute and while it still has what it had
//! before, makes records bad.

mod cache;
mod client;
mod fetch;
mod register;

use std::path::PathBuf;

use foldline_api::secret::Secret;

pub use cache::Registry;

/// How a registry is reached.
#[derive(Clone, Debug)]
pub struct RegistryConfig {
    /// Its name in the config.
    pub name: String,
    /// Its addresses, asked in turn.
    pub urls: Vec<Secret>,
    /// Who asks.
    pub login: Login,
    /// PEM file of the authority that signed its certificate.
    pub ca: Option<PathBuf>,
    /// PEM files of the certificate that it is shown, and of its key.
    pub certificate: Option<(PathBuf, PathBuf)>,
}

/// Who asks.
#[derive(Clone, Debug)]
pub enum Login {
    /// Whoever the address names.
    None,
    /// By name and password.
    Basic {
        /// The name.
        username: String,
        /// The password.
        password: Secret,
    },
    /// By a token.
    Bearer(Secret),
}
