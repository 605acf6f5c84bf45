//! The environment of this process.

use foldline_language::config::env::Env;

/// The variables that the process was started with; one that is not Unicode is left out.
pub fn process_env() -> Env {
    let texts = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    Env::new(texts)
}
