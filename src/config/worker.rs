//! `[worker]`: what belongs to the process.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use foldline_api::secret::Secret;
use foldline_language::config::form::{
    ByteSize, Flag, KeyForm, Number, Period, SecretText, Text, Valued,
};
use foldline_language::config::key::{Key, Or, Section};
use foldline_language::config::names::check_name;
use foldline_language::config::reader::{Field, Reader};
use foldline_language::config::schema;
use serde_json::Value;

/// A host's name has 253 characters at most.
const ADVERTISED_MAX: usize = 260;

/// Below this there is no room for one batch and its rows.
const MEMORY_MIN: u64 = 16 << 20;

pub(super) static WORKER: Section = Section {
    name: "worker",
    doc: "What belongs to the process.",
    keys: &[
        &NAME,
        &LISTEN,
        &ADVERTISED,
        &MEMORY,
        &TOKEN,
        &INGEST_TOKEN,
        &WATCH,
        &QUERY_ROWS,
        &QUERY_TIME,
        &QUERY_WAIT,
    ],
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
const ADVERTISED: Key<Text> = Key::new(
    "advertised",
    Text,
    "What tells this worker from the others of its fleet, best where it is reached; by default the host's name and the port of `listen`",
)
.checked(|field, text| {
    let fits = |c: char| c.is_ascii_alphanumeric() || ".-_:[]".contains(c);
    if text.is_empty() || text.len() > ADVERTISED_MAX || !text.chars().all(fits) {
        let message = format!("found {}, expected a host and a port", field.node.describe());
        field.problem_with_help(message, "advertised = \"worker-1:8083\"");
    }
});
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

const WATCH: Key<Flag, Or<bool>> =
    Key::new("watch", Flag, "Whether the config is taken anew when its files change, as on SIGHUP")
        .or(false);

const INGEST_TOKEN: Key<SecretText> =
    Key::new("ingest_token", SecretText, "Bearer token that opens POST /topics and nothing else")
        .checked(|field, token| {
            if token.expose().trim().is_empty() {
                field.problem("is blank: everybody could guess it");
            }
        });

const QUERY_ROWS: Key<Number<usize>, Or<usize>> =
    Key::new("query_rows", Number::between(1, 10_000), "Rows of one page of GET …/rows, at most")
        .or(1_000);
const QUERY_TIME: Key<Period, Or<Duration>> =
    Key::new("query_time", Period, "How long a store may work on a page or a row")
        .or(Duration::from_secs(5))
        .checked(check_time);
const QUERY_WAIT: Key<Period, Or<Duration>> = Key::new(
    "query_wait",
    Period,
    "How long a read waits at most for the records that its `wait` names",
)
.or(Duration::from_secs(10))
.checked(check_time);

/// A request is not kept for longer.
const TIME_MAX: Duration = Duration::from_secs(60);

fn check_time(field: &Field<'_>, time: &Duration) {
    if time.is_zero() || *time > TIME_MAX {
        let message =
            format!("found {}, expected at most `1m`, and not nothing", field.node.describe());
        field.problem(message);
    }
}

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
    /// What tells it from the others of its fleet: `worker_id` in REST, and in its members' client ids.
    pub advertised: String,
    /// Bytes that queues and caches share; a rebuild takes its connector's share once more.
    pub memory: u64,
    /// Bearer token of the listener; needed beyond loopback.
    pub token: Option<Secret>,
    /// Whether the config is taken anew when its files change.
    pub watch: bool,
    /// Opens the posting of records, and nothing else; stands beside `token`.
    pub ingest_token: Option<Secret>,
    /// Rows of one page of a query, at most.
    pub query_rows: usize,
    /// How long a store may work on a page or a row.
    pub query_time: Duration,
    /// How long a read waits for the records that it names.
    pub query_wait: Duration,
}

impl Default for Worker {
    fn default() -> Self {
        Self {
            name: NAME.default(),
            listen: LISTEN.default(),
            advertised: own_address(LISTEN.default()),
            memory: MEMORY.default(),
            token: None,
            watch: WATCH.default(),
            ingest_token: None,
            query_rows: QUERY_ROWS.default(),
            query_time: QUERY_TIME.default(),
            query_wait: QUERY_WAIT.default(),
        }
    }
}

/// The host's name with the port; the address itself where it is one that others reach.
fn own_address(listen: SocketAddr) -> String {
    if !listen.ip().is_unspecified() && !listen.ip().is_loopback() {
        return listen.to_string();
    }
    let system = rustix::system::uname();
    let host = system.nodename().to_str().unwrap_or("localhost");
    format!("{host}:{}", listen.port())
}

/// A token that opens less than the other one does.
fn check_ingest_token(reader: &mut Reader<'_>, worker: &Worker) {
    let Some(field) = reader.given(&INGEST_TOKEN) else { return };
    match (&worker.token, &worker.ingest_token) {
        (None, Some(_)) => {
            field
                .problem("stands beside a `token`: without one everything is open to this machine");
        }
        (Some(all), Some(ingest)) if all.expose() == ingest.expose() => {
            field.problem("is the `token`, which opens everything");
        }
        _ => {}
    }
}

pub(super) fn read(mut reader: Reader<'_>) -> Worker {
    let (name, listen) = (reader.read(&NAME), reader.read(&LISTEN));
    let worker = Worker {
        name,
        listen,
        advertised: reader.read(&ADVERTISED).unwrap_or_else(|| own_address(listen)),
        memory: reader.read(&MEMORY),
        token: reader.read(&TOKEN),
        watch: reader.read(&WATCH),
        ingest_token: reader.read(&INGEST_TOKEN),
        query_rows: reader.read(&QUERY_ROWS),
        query_time: reader.read(&QUERY_TIME),
        query_wait: reader.read(&QUERY_WAIT),
    };
    check_ingest_token(&mut reader, &worker);
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
