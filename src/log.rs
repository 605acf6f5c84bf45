//! Logs: for people on a terminal, JSON elsewhere. Never a payload, never a secret.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// Starts logging to standard error; `RUST_LOG` filters, `info` unless set.
pub fn start(default: &str) {
    let filter = EnvFilter::try_from_env("RUST_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second start (in tests) keeps the first.
    if std::io::stderr().is_terminal() {
        drop(builder.with_target(false).try_init());
    } else {
        drop(builder.json().flatten_event(true).try_init());
    }
}
