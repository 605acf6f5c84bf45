//! `[worker]`: what belongs to the process.

use std::net::SocketAddr;

use foldline_api::secret::Secret;
use foldline_language::config::names::check_name;
use foldline_language::config::reader::Reader;

const NAME: &str = "foldline";
const LISTEN: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8083);
const MEMORY: u64 = 128 << 20;
/// Below this there is no room for one batch and its rows.
const MEMORY_MIN: u64 = 16 << 20;

/// `[worker]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Worker {
    /// Of the fleet: workers with one name share the work.
    pub name: String,
    /// REST, metrics, probes and the status page.
    pub listen: SocketAddr,
    /// Bytes that queues and caches share; a rebuild takes its connector's share once more.
    pub memory: u64,
    /// Bearer token of the listener; needed beyond loopback.
    pub token: Option<Secret>,
}

impl Default for Worker {
    fn default() -> Self {
        Self { name: NAME.to_owned(), listen: LISTEN, memory: MEMORY, token: None }
    }
}

pub(super) fn read(mut reader: Reader<'_>) -> Worker {
    let default = Worker::default();
    let name = reader.get("name").and_then(|field| {
        let name = field.text()?;
        check_name(&field, &name);
        Some(name)
    });
    let listen = reader.get("listen");
    let address = listen.as_ref().and_then(|field| {
        let text = field.text()?;
        let parsed = text.parse().ok();
        if parsed.is_none() {
            let message =
                format!("found {}, expected an address and a port", field.node.describe());
            field.problem_with_help(message, "listen = \"127.0.0.1:8083\"");
        }
        parsed
    });
    let memory = reader.get("memory").and_then(|field| {
        let bytes = field.size()?;
        if bytes < MEMORY_MIN {
            field.problem(format!("found {}, expected at least `16MiB`", field.node.describe()));
        }
        Some(bytes)
    });
    let token_field = reader.get("token");
    let token = token_field.as_ref().and_then(|field| {
        let token = field.secret()?;
        if token.expose().trim().is_empty() {
            field.problem("is blank: everybody could guess it");
            return None;
        }
        Some(token)
    });
    let address = address.unwrap_or(default.listen);
    if let (Some(field), None, false) = (listen, &token_field, address.ip().is_loopback()) {
        field.problem_with_help(
            format!("{address} is open beyond this machine, which needs a `token`"),
            "token = { file = \"/run/secrets/foldline-token\" }",
        );
    }
    reader.finish();
    Worker {
        name: name.unwrap_or(default.name),
        listen: address,
        memory: memory.unwrap_or(default.memory),
        token,
    }
}
