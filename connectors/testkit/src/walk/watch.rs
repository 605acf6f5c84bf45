//! Sees panics, also those that the compiler of expressions contains.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::sync::{Mutex, Once};

thread_local! {
    static WATCHED: Cell<bool> = const { Cell::new(false) };
}

/// Panics on threads that compile an expression: in the parser, and anywhere else.
static PARSER: Mutex<u64> = Mutex::new(0);
static OURS: Mutex<Option<String>> = Mutex::new(None);

/// The panic hook of this process, in place.
pub(super) struct Watch(());

impl Watch {
    pub(super) fn start() -> Self {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let before = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |info| {
                let compiling = std::thread::current().name() == Some("expression");
                if compiling || WATCHED.get() {
                    note(info, compiling);
                } else {
                    before(info);
                }
            }));
        });
        Watch(())
    }

    /// What `run` returns, or where it or a thread of it panicked.
    pub(super) fn guard<T>(&self, run: impl FnOnce() -> T) -> Result<T, String> {
        WATCHED.set(true);
        let result = catch_unwind(AssertUnwindSafe(run));
        WATCHED.set(false);
        match OURS.lock().unwrap().take() {
            Some(panic) => Err(panic),
            None => result.map_err(|_| "a panic that no hook saw".to_owned()),
        }
    }

    /// Panics of the parser, which its caller turned into an error.
    pub(super) fn contained(&self) -> u64 {
        *PARSER.lock().unwrap()
    }
}

fn note(info: &PanicHookInfo<'_>, compiling: bool) {
    let place = info.location().map_or(String::new(), ToString::to_string);
    if compiling && (place.contains("/cel-") || place.contains("antlr")) {
        *PARSER.lock().unwrap() += 1;
    } else {
        OURS.lock().unwrap().get_or_insert(format!("panic at {place}: {info}"));
    }
}
