//! What may be shown of a text that may hold a login: the one masker of diagnostics, status and logs.

/// What stands where a secret would.
pub const MASK: &str = "***";

/// A URL as it may be shown: its scheme, and host, port and path where nothing of them can be part of a login.
/// A login with `@`, `/`, `?` or `#` written raw is not told from what follows it, so then only the scheme is left;
/// of a text that is no URL, nothing. The query may hold a password under any name.
#[must_use]
pub fn url(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else {
        return MASK.to_owned();
    };
    let of_scheme = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
    if scheme.is_empty() || !scheme.chars().all(of_scheme) {
        return MASK.to_owned();
    }
    let hidden = || format!("{scheme}://{MASK}");
    let (place, query) = match rest.find(['?', '#']) {
        Some(at) => (rest.split_at(at).0, format!("?{MASK}")),
        None => (rest, String::new()),
    };
    let (authority, path) = match place.find('/') {
        Some(at) => place.split_at(at),
        None => (place, ""),
    };
    let (login, hosts) = match authority.split_once('@') {
        Some((_, hosts)) => (format!("{MASK}@"), hosts),
        None => (String::new(), authority),
    };
    let later = rest.split_at(authority.len()).1;
    if hosts.contains('@') || later.contains('@') || !hosts.split(',').all(is_host) {
        return hidden();
    }
    let of_path = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '-' | '_' | '.');
    if !path.chars().all(of_path) {
        return hidden();
    }
    format!("{scheme}://{login}{hosts}{path}{query}")
}

/// `host`, `host:port` or `[v6]:port`.
fn is_host(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, port)) => {
            if address.parse::<std::net::Ipv6Addr>().is_err() {
                return false;
            }
            ("", port)
        }
        None => match text.find(':') {
            Some(at) => text.split_at(at),
            None => (text, ""),
        },
    };
    let of_host = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let of_port = |port: &str| port.parse::<u16>().is_ok();
    host.chars().all(of_host) && port.strip_prefix(':').map_or(port.is_empty(), of_port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_cannot_be_part_of_a_login() {
        for (text, shown) in [
            ("postgres://ann:hunter2@db/app", "postgres://***@db/app"),
            ("postgres://hunter2@a:1,b:2/app", "postgres://***@a:1,b:2/app"),
            ("postgres://ann:p@ssword@db/app", "postgres://***"),
            ("postgres://ann:a/b@db/app", "postgres://***"),
            ("postgres://ann:a?b@db/app", "postgres://***"),
            ("postgres://ann:a#b@db/app", "postgres://***"),
            ("postgres://ann:hunter2/app", "postgres://***"),
            ("postgres://ann@db/app?passw%6Frd=hunter2&x=1", "postgres://***@db/app?***"),
            ("postgres://ann@db/app?password=a@hunter2", "postgres://***"),
            ("host=db password='a b' user=ann", "***"),
            ("ann:hunter2@localhost:9200", "***"),
            ("hunter2 ://db", "***"),
            ("http://localhost:9200", "http://localhost:9200"),
            ("http://[::1]:9200/", "http://[::1]:9200/"),
        ] {
            assert_eq!(url(text), shown, "{text}");
        }
    }
}
