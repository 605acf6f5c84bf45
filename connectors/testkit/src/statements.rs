//! Statements that a sink keeps in files of their own: the compiler does not tell when nobody sends one any more.

use std::fs;
use std::path::{Path, PathBuf};

/// The files of `src/sql` in the crate at `root` that no source names.
///
/// # Panics
/// When there are none at all.
#[must_use]
pub fn unused(root: &str) -> Vec<String> {
    let source = Path::new(root).join("src");
    let sql = source.join("sql");
    let (mut code, mut names) = (String::new(), Vec::new());
    for file in files(&source) {
        let inside = file.strip_prefix(&sql).ok().and_then(|path| path.to_str());
        match inside.and_then(|path| path.strip_suffix(".sql")) {
            Some(name) => names.push(name.to_owned()),
            None => code.push_str(&fs::read_to_string(&file).unwrap_or_default()),
        }
    }
    assert!(!names.is_empty(), "no statements in {}", sql.display());
    let is_named = |name: &String| {
        code.contains(&format!("sql!(\"{name}\"")) || code.contains(&format!("\"sql/{name}.sql\""))
    };
    names.retain(|name| !is_named(name));
    names
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let below = entries.map(|entry| entry.path());
    below.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}
