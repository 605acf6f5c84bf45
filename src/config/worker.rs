//! `[worker]`: what belongs to the process.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use foldline_api::secret::Secret;
use foldline_language::config::form::{ByteSize, KeyForm, SecretText, Text, Valued};
use foldline_language::config::key::{Key, Or, Section};
use foldline_language::config::names::check_name;
use foldline_language::config::reader::{Field, Reader};
use foldline_language::config::schema;
use serde_json::Value;

/// Below this there is no room for one batch and its rows.
const MEMORY_MIN: u64 = 16 << 20;

pub(super) static WORKER: Section = Section {
    name: "worker",
    doc: "What belongs to the process.",
    keys: &[&NAME, &LISTEN, &MEMORY, &TOKEN],
};

const NAME: Key<Text, Or<&str>> =
    Key::new("name", Text, "Name of the fleet: workers with one name share the work")
        .or("foldline")
        .checked(|field, name| check_name(field, name));
const LISTEN: Key<Address, Or<SocketAddr>> = Key::new(
    "listen",
    Address,
    "Address of REST, metrics and status page, beyond loopback with a token",
)
.or(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8083));
const MEMORY: Key<ByteSize, Or<u64>> = Key::new(
    "memory",
    ByteSize,
    "What queues and caches share, a rebuild takes its connector's share once more",
)
.or(128 << 20)
.checked(|field, bytes| {
    if *bytes < MEMORY_MIN {
        field.problem(format!("found {}, expected at least `16MiB`", field.node.describe()));
    }
});
const TOKEN: Key<SecretText> = Key::new("token", SecretText, "Bearer token of the listener")
    .checked(|field, token| {
        if token.expose().trim().is_empty() {
            field.problem("is blank: everybody could guess it");
        }
    });

/// An address and a port.
#[derive(Clone, Copy)]
struct Address;

impl KeyForm for Address {
    type Value<'a> = SocketAddr;

    fn read<'a>(&self, field: &Field<'a>) -> Option<SocketAddr> {
        let parsed = field.text()?.parse().ok();
        if parsed.is_none() {
            let message =
                format!("found {}, expected an address and a port", field.node.describe());
            field.problem_with_help(message, "listen = \"127.0.0.1:8083\"");
        }
        parsed
    }

    fn schema(&self, description: &str) -> Value {
        schema::text(description)
    }
}

impl Valued for Address {
    type Constant = SocketAddr;

    fn value<'a>(&self, constant: SocketAddr) -> Self::Value<'a> {
        constant
    }

    fn shown(&self, constant: SocketAddr) -> String {
        constant.to_string()
    }
}

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
        Self {
            name: NAME.default(),
            listen: LISTEN.default(),
            memory: MEMORY.default(),
            token: None,
        }
    }
}

pub(super) fn read(mut reader: Reader<'_>) -> Worker {
    let worker = Worker {
        name: reader.read(&NAME),
        listen: reader.read(&LISTEN),
        memory: reader.read(&MEMORY),
        token: reader.read(&TOKEN),
    };
    let open = !worker.listen.ip().is_loopback();
    if let (Some(field), None, true) = (reader.given(&LISTEN), reader.given(&TOKEN), open) {
        field.problem_with_help(
            format!("{} is open beyond this machine, which needs a `token`", worker.listen),
            "token = { file = \"/run/secrets/foldline-token\" }",
        );
    }
    reader.finish();
    worker
}
