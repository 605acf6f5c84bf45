//! What a browser may ask of the listener: nothing, on behalf of a page from elsewhere.

use axum::http::{HeaderMap, HeaderName, Uri, header};

/// Fetch metadata: whose page caused the request
/// (<https://www.w3.org/TR/fetch-metadata/#sec-fetch-site-header>). Browsers send it, scripts cannot set it.
pub(super) const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Refuses what a page from elsewhere caused (but for a `link` to the page, which holds no data), and, where no token guards the listener, what is not
/// addressed to this machine: a name that an attacker lets resolve to 127.0.0.1 makes his page one of the
/// same origin (DNS rebinding), but it stays his name.
pub(super) fn check(headers: &HeaderMap, guarded: bool, link: bool) -> Result<(), String> {
    let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let host = text(header::HOST);
    if let (Some(host), false) = (host, guarded)
        && !is_this_machine(host)
    {
        return Err(format!(
            "the Host {host:?} is not this machine: ask localhost, or give the worker a `token` (worker.token) to \
             open it to other names"
        ));
    }
    let elsewhere = match (text(FETCH_SITE), text(header::ORIGIN)) {
        (Some(site), _) => !matches!(site, "same-origin" | "none"),
        // A browser that does not send it sends the origin, with all but plain GETs.
        (None, Some(origin)) => origin.split_once("://").map(|(_, own)| own) != host,
        (None, None) => false,
    };
    if elsewhere && !link {
        return Err("not for a page from elsewhere in a browser".to_owned());
    }
    Ok(())
}

/// Whether a Host header names the loopback interface.
fn is_this_machine(host: &str) -> bool {
    let Ok(uri) = host.parse::<Uri>() else { return false };
    let Some(name) = uri.host() else { return false };
    let address = name.trim_start_matches('[').trim_end_matches(']').parse();
    match address {
        Ok(std::net::IpAddr::V4(address)) => address.is_loopback(),
        Ok(std::net::IpAddr::V6(address)) => address.is_loopback(),
        Err(_) => {
            let name = name.trim_end_matches('.').to_ascii_lowercase();
            name == "localhost" || name.ends_with(".localhost")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), value.parse().unwrap())
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn a_listener_without_a_token_answers_to_this_machine_only() {
        for host in [
            "localhost",
            "localhost:8083",
            "LOCALHOST.:1",
            "127.0.0.1:8083",
            "127.8.1.2",
            "[::1]:8083",
            "a.localhost",
        ] {
            assert_eq!(check(&headers(&[("host", host)]), false, false), Ok(()), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:8083",
            "localhost.evil.example",
            "10.0.0.1",
            "[2001:db8::1]:1",
            "",
            "a b",
        ] {
            assert!(check(&headers(&[("host", host)]), false, false).is_err(), "{host}");
            assert!(check(&headers(&[("host", host)]), false, true).is_err(), "a link: {host}");
            if !host.is_empty() {
                assert_eq!(check(&headers(&[("host", host)]), true, false), Ok(()), "{host}");
            }
        }
    }

    #[test]
    fn what_a_page_from_elsewhere_asks_is_refused() {
        for guarded in [true, false] {
            for (name, value, allowed) in [
                ("sec-fetch-site", "cross-site", false),
                ("sec-fetch-site", "same-site", false),
                ("sec-fetch-site", "same-origin", true),
                ("sec-fetch-site", "none", true),
                ("origin", "http://evil.example", false),
                ("origin", "null", false),
                ("origin", "http://localhost:9", false),
                ("origin", "http://localhost:8083", true),
            ] {
                let asked = headers(&[("host", "localhost:8083"), (name, value)]);
                assert_eq!(check(&asked, guarded, false).is_ok(), allowed, "{name}: {value}");
                assert!(check(&asked, guarded, true).is_ok(), "a link: {name}: {value}");
            }
        }
    }
}
