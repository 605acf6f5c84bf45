//! Logs: for people on a terminal, JSON elsewhere. Never a payload, never a secret.
//!
//! What a connector or one of its tasks says stands in a span that names it, so that no line has to.

use std::io::{IsTerminal, Write};
use std::sync::OnceLock;

use tracing::Span;
use tracing_subscriber::EnvFilter;

pub(crate) use levels::{Level, Levels};

use self::levels::Reload;
use crate::printable;

mod levels;

static LEVELS: OnceLock<Levels> = OnceLock::new();

/// Starts logging to standard error; `RUST_LOG` filters, `info` unless set.
pub fn start(default: &str) {
    let filter = std::env::var(EnvFilter::DEFAULT_ENV)
        .ok()
        .filter(|filter| EnvFilter::try_new(filter).is_ok())
        .unwrap_or_else(|| default.to_owned());
    let used = EnvFilter::new(&filter);
    let builder = tracing_subscriber::fmt().with_writer(|| Printable);
    // A second start (in tests) keeps the first.
    let reload: Reload = if std::io::stderr().is_terminal() {
        let builder = builder.with_target(false).with_env_filter(used).with_filter_reloading();
        let handle = builder.reload_handle();
        drop(builder.try_init());
        Box::new(move |filter| handle.reload(filter).map_err(|error| error.to_string()))
    } else {
        let builder = builder.json().flatten_event(true).with_span_list(false);
        let builder = builder.with_env_filter(used).with_filter_reloading();
        let handle = builder.reload_handle();
        drop(builder.try_init());
        Box::new(move |filter| handle.reload(filter).map_err(|error| error.to_string()))
    };
    drop(LEVELS.set(Levels::new(filter, reload)));
}

/// The levels of this process's log; none before it has started.
pub(crate) fn levels() -> Option<&'static Levels> {
    LEVELS.get()
}

/// Standard error, for lines that may quote a record's key. The formatter writes each line at once and escapes
/// what is below U+0020; controls beyond ASCII steer a terminal as well.
struct Printable;

impl Write for Printable {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        std::io::stderr().write_all(printable::beyond_ascii(&text).as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stderr().flush()
    }
}

/// The span of a connector's own work. Of level error, so that no filter takes the name away.
pub(crate) fn connector_span(connector: &str) -> Span {
    tracing::error_span!(parent: None, "connector", %connector)
}

/// The span of one of its tasks.
pub(crate) fn task_span(connector: &str, task: u32) -> Span {
    tracing::error_span!(parent: None, "task", %connector, task)
}

/// The lines that `run` logs on this thread, as JSON.
#[cfg(test)]
pub(crate) fn captured(run: impl FnOnce()) -> Vec<String> {
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    // While there is only one, a call site asks the thread's own subscriber whether it is wanted, and a thread
    // that has none turns it off for all.
    static SECOND: OnceLock<tracing::Dispatch> = OnceLock::new();
    SECOND.get_or_init(|| {
        tracing::Dispatch::new(tracing_subscriber::fmt().with_writer(std::io::sink).finish())
    });
    let buffer = Buffer::default();
    let writer = buffer.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(move || writer.clone())
        .json()
        .flatten_event(true)
        .with_span_list(false)
        .finish();
    tracing::subscriber::with_default(subscriber, run);
    let bytes = buffer.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap().lines().map(str::to_owned).collect()
}
