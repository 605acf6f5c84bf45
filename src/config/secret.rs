//! Values that must not be shown.

use std::fmt;

/// A value that never shows itself: not in logs, not in errors, not over REST.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

/// What stands where a secret would.
pub const MASK: &str = "***";

impl Secret {
    /// Hides a value.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The value itself, for the one place that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

/// A URL or a `key=value` connection text as it may be shown: without its password.
pub fn mask_url(url: &str) -> String {
    let masked = match url.split_once("://") {
        Some((scheme, rest)) => format!("{scheme}://{}", mask_userinfo(rest)),
        None => url.to_owned(),
    };
    mask_parameter(&masked)
}

/// `user:password@host` without the password. A raw `/`, `?` or `@` in a password is not a valid
/// URL and is masked all the same, so the last `@` counts: rather too much is hidden.
fn mask_userinfo(rest: &str) -> String {
    let Some((login, host)) = rest.rsplit_once('@') else { return rest.to_owned() };
    match login.split_once(':') {
        Some((user, _)) => format!("{user}:{MASK}@{host}"),
        None => rest.to_owned(),
    }
}

/// `password=…`, in a query or in a `key=value` text.
fn mask_parameter(text: &str) -> String {
    const NAMES: [&str; 2] = ["sslpassword=", "password="];
    // ASCII only, so that the byte positions are those of the text itself.
    let lower = text.to_ascii_lowercase();
    let Some((start, name)) = NAMES.iter().find_map(|name| Some((lower.find(name)?, name))) else {
        return text.to_owned();
    };
    let (head, value) = text.split_at(start + name.len());
    let end = if value.starts_with('\'') {
        value.char_indices().skip(1).find(|(_, c)| *c == '\'').map_or(value.len(), |(i, _)| i + 1)
    } else {
        value.find(['&', ' ']).unwrap_or(value.len())
    };
    format!("{head}{MASK}{}", mask_parameter(value.split_at(end).1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_does_not_show_itself() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret:?}"), "***");
        assert_eq!(secret.expose(), "hunter2");
    }

    #[test]
    fn passwords_in_urls_are_masked() {
        let cases = [
            ("postgres://ann:hunter2@db/app", "postgres://ann:***@db/app"),
            ("postgres://ann:a/b@c@db/app", "postgres://ann:***@db/app"),
            (
                "postgres://ann@db/app?password=hunter2&x=1",
                "postgres://ann@db/app?password=***&x=1",
            ),
            ("host=db password='a b' user=ann", "host=db password=*** user=ann"),
            ("http://localhost:9200", "http://localhost:9200"),
        ];
        for (url, shown) in cases {
            assert_eq!(mask_url(url), shown);
        }
    }
}
