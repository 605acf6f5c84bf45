//! Where a config may hold secrets, so that no message shows one.

/// Tables whose values may be logins, whatever key they were written under.
const TABLES: [&str; 4] = ["sources", "sinks", "registries", "worker"];

/// Whether a value at this key path may be a secret that was written in the wrong place.
pub(super) fn may_be_at(path: &str) -> bool {
    let harmless = ["worker.name", "worker.listen", "worker.memory"];
    TABLES.iter().any(|table| path.split('.').next() == Some(table)) && !harmless.contains(&path)
}

/// Whether what broke the TOML after `before` may be part of a secret: a text that spans lines shows only by the
/// table in which it stands, and one that is not closed takes in what follows.
pub(super) fn may_be_after(before: &str) -> bool {
    let header = before.lines().rev().find_map(|line| {
        let name = line.trim_start().strip_prefix('[')?;
        Some(name.trim_start_matches(['[', ' ', '\t', '"', '\'']))
    });
    match header {
        Some(name) => !["projections", "connectors"].iter().any(|table| name.starts_with(table)),
        None => TABLES.iter().any(|table| before.contains(table)),
    }
}
