//! Connection strings as libpq takes them, a URL or `key=value` pairs, read here rather than by the client: nothing
//! that could be part of a password is looked up as a host or repeated in a message.

use std::collections::BTreeMap;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use tokio_postgres::config::{ChannelBinding, LoadBalanceHosts, SslNegotiation};

/// The parameters by libpq's names, decoded.
pub(crate) type Parameters = BTreeMap<&'static str, String>;

/// What is taken, by libpq's names.
const KNOWN: [&str; 22] = [
    "user",
    "password",
    "dbname",
    "host",
    "hostaddr",
    "port",
    "options",
    "connect_timeout",
    "tcp_user_timeout",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_count",
    "target_session_attrs",
    "channel_binding",
    "load_balance_hosts",
    "sslnegotiation",
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "gssencmode",
];

/// What people write, and is not taken; why, where there is more to say. Only these names are repeated, since
/// any other may be a piece of a password.
const REFUSED: [(&str, &str); 16] = [
    ("application_name", "it is Foldline's own, foldline/<connector>"),
    (
        "sslpassword",
        "keep the key of the client's certificate unencrypted, in a file that only Foldline reads",
    ),
    ("sslcrl", ""),
    ("sslcrldir", ""),
    ("sslcompression", ""),
    ("sslsni", ""),
    ("sslcertmode", ""),
    ("requirepeer", ""),
    ("require_auth", ""),
    ("service", "write out what the service file says"),
    ("passfile", "name a file of the password alone: password = { file = \"…\" } beside the url"),
    ("krbsrvname", ""),
    ("client_encoding", "it is always UTF8"),
    ("pgbouncer", "it is not libpq's, and a pooler needs no setting"),
    ("connection_limit", "it is not libpq's: `connections` of the sink is the limit"),
    ("schema", "it is not libpq's: write table = \"schema.table\" in the connector"),
];

const PORT: u16 = 5432;
const BINDINGS: [(&str, ChannelBinding); 3] = [
    ("disable", ChannelBinding::Disable),
    ("prefer", ChannelBinding::Prefer),
    ("require", ChannelBinding::Require),
];
const BALANCES: [(&str, LoadBalanceHosts); 2] =
    [("disable", LoadBalanceHosts::Disable), ("random", LoadBalanceHosts::Random)];
const NEGOTIATIONS: [(&str, SslNegotiation); 2] =
    [("postgres", SslNegotiation::Postgres), ("direct", SslNegotiation::Direct)];

/// What to do about a character that stands for itself and for something else.
pub(crate) const ENCODE: &str = "write @ as %40, : as %3A, / as %2F, ? as %3F, # as %23 and % as %25 in its user and \
                                 password, or give the password beside the url: password = { file = \"…\" }";

/// Reads a URL or pairs.
///
/// # Errors
/// A sentence that repeats nothing which could be part of a login.
pub(crate) fn parse(text: &str) -> Result<Parameters, String> {
    let rest = ["postgres://", "postgresql://"].iter().find_map(|scheme| text.strip_prefix(scheme));
    match rest {
        Some(rest) => parse_url(rest),
        None if !text.contains("://") && text.contains('=') => parse_pairs(text),
        None if text.starts_with("jdbc:") => Err("it is JDBC's: leave `jdbc:` out, and write user:password@ before the \
                                                  host"
            .to_owned()),
        None => Err("it must begin with postgres:// or postgresql://, or be pairs such as host=… user=… dbname=…"
            .to_owned()),
    }
}

fn parse_url(rest: &str) -> Result<Parameters, String> {
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(end);
    if tail.contains('@') || authority.matches('@').count() > 1 {
        return Err(format!("there is an @ that ends no login: {ENCODE}"));
    }
    let mut out = Parameters::new();
    let hosts = match authority.split_once('@') {
        Some((login, hosts)) => {
            let (user, password) = match login.split_once(':') {
                Some((user, password)) => (user, Some(password)),
                None => (login, None),
            };
            if !user.is_empty() {
                out.insert("user", decode("user", user)?);
            }
            if let Some(password) = password {
                out.insert("password", decode("password", password)?);
            }
            hosts
        }
        None => authority,
    };
    if !hosts.is_empty() {
        let (mut names, mut ports) = (Vec::new(), Vec::new());
        for host in hosts.split(',') {
            let (name, port) = host_and_port(host)?;
            names.push(name);
            ports.push(port);
        }
        out.insert("host", names.join(","));
        if ports.iter().any(|port| !port.is_empty()) {
            out.insert("port", ports.join(","));
        }
    }
    let (path, query) = tail.split_once('?').unwrap_or((tail, ""));
    let database = path.strip_prefix('/').unwrap_or_default();
    if !database.is_empty() {
        out.insert("dbname", decode("database", database)?);
    }
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair
            .split_once('=')
            .ok_or_else(|| format!("its query holds something that is no name=value: {ENCODE}"))?;
        let name = known(&decode("query", name)?)?;
        out.insert(name, decode(name, value)?);
    }
    check_hosts(&out)?;
    Ok(out)
}

fn host_and_port(text: &str) -> Result<(String, &str), String> {
    let wrong = || format!("a host or port is none: {ENCODE}");
    if let Some((address, port)) = text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        let port = if port.is_empty() { "" } else { port.strip_prefix(':').ok_or_else(wrong)? };
        return Ok((address.to_owned(), port));
    }
    let (name, port) = text.split_once(':').unwrap_or((text, ""));
    Ok((decode("host", name)?, port))
}

/// Hosts and ports are what is looked up and shown, so they must be nothing else.
fn check_hosts(found: &Parameters) -> Result<(), String> {
    let of_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let is_host = |name: &str| {
        let address = name.parse::<std::net::IpAddr>().is_ok();
        address || name.starts_with('/') || (!name.is_empty() && name.chars().all(of_name))
    };
    let is_port = |port: &str| port.is_empty() || port.parse::<u16>().is_ok_and(|port| port > 0);
    for (name, fits) in [
        ("host", &is_host as &dyn Fn(&str) -> bool),
        ("hostaddr", &|address| address.parse::<std::net::IpAddr>().is_ok()),
        ("port", &is_port),
    ] {
        let list = found.get(name).map(String::as_str);
        if list.is_some_and(|list| !list.split(',').all(fits)) {
            return Err(format!("a {name} is none: {ENCODE}"));
        }
    }
    Ok(())
}

fn decode(what: &str, text: &str) -> Result<String, String> {
    let encoded = |rest: &str| rest.bytes().take(2).filter(u8::is_ascii_hexdigit).count() == 2;
    let whole = text.split('%').skip(1).all(encoded);
    let decoded = percent_decode_str(text).decode_utf8().ok();
    let decoded = decoded.filter(|text| whole && !text.contains('\0'));
    decoded
        .map(std::borrow::Cow::into_owned)
        .ok_or_else(|| format!("a % in its {what} begins no encoded UTF-8: {ENCODE}"))
}

/// libpq's `name = value`, quoted or not, as it reads them.
fn parse_pairs(text: &str) -> Result<Parameters, String> {
    let broken = || {
        "it is no list of name=value: a value with a space stands in single quotes, where ' and \\ are written \\' and \
         \\\\"
            .to_owned()
    };
    let mut out = Parameters::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (name, value) = rest.split_once('=').ok_or_else(broken)?;
        let name = known(name.trim_end())?;
        let value = value.trim_start();
        let quoted = value.strip_prefix('\'');
        let (mut read, mut end) = (String::new(), None);
        let body = quoted.unwrap_or(value);
        let mut chars = body.char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                '\\' => read.push(chars.next().ok_or_else(broken)?.1),
                '\'' if quoted.is_some() => {
                    end = Some(at + 1);
                    break;
                }
                c if c.is_whitespace() && quoted.is_none() => {
                    end = Some(at);
                    break;
                }
                c => read.push(c),
            }
        }
        if quoted.is_some() && end.is_none() {
            return Err(broken());
        }
        out.insert(name, read);
        rest = body.get(end.unwrap_or(body.len())..).unwrap_or_default().trim_start();
    }
    check_hosts(&out)?;
    Ok(out)
}

fn known(name: &str) -> Result<&'static str, String> {
    if let Some(known) = KNOWN.iter().find(|known| **known == name) {
        return Ok(known);
    }
    match REFUSED.iter().find(|(refused, _)| *refused == name) {
        Some((name, "")) => Err(format!("parameter {name} is not supported: leave it out")),
        Some((name, why)) => Err(format!("parameter {name} is not taken: {why}")),
        None => Err(format!("it has a parameter that is none of {}", KNOWN.join(", "))),
    }
}

/// Gives the client what of `found` is the client's: all but TLS and `target_session_attrs`.
///
/// # Errors
/// As of [`parse`].
pub(crate) fn apply(found: &Parameters, client: &mut tokio_postgres::Config) -> Result<(), String> {
    for (name, value) in found {
        let number = || value.parse::<u32>().map_err(|_| format!("{name} must be a whole number"));
        let seconds = || number().map(|n| Duration::from_secs(n.into()));
        let millis = || number().map(|n| Duration::from_millis(n.into()));
        // Zero is libpq's word for the system's own.
        let given = || number().map(|n| n > 0);
        let _: &mut tokio_postgres::Config = match *name {
            "user" => client.user(value),
            "password" => client.password(value),
            "dbname" => client.dbname(value),
            "options" => client.options(value),
            "host" => value.split(',').fold(&mut *client, |client, host| client.host(host)),
            "hostaddr" => {
                let addresses = value.split(',').filter_map(|address| address.parse().ok());
                addresses.fold(&mut *client, |client, address| client.hostaddr(address))
            }
            "port" => {
                let ports = value.split(',').map(|port| port.parse().unwrap_or(PORT));
                ports.fold(&mut *client, |client, port| client.port(port))
            }
            "connect_timeout" if given()? => client.connect_timeout(seconds()?),
            "tcp_user_timeout" if given()? => client.tcp_user_timeout(millis()?),
            "keepalives" => client.keepalives(given()?),
            "keepalives_idle" if given()? => client.keepalives_idle(seconds()?),
            "keepalives_interval" if given()? => client.keepalives_interval(seconds()?),
            "keepalives_count" if given()? => client.keepalives_retries(number()?),
            "channel_binding" => client.channel_binding(one_of(name, value, &BINDINGS)?),
            "load_balance_hosts" => client.load_balance_hosts(one_of(name, value, &BALANCES)?),
            "sslnegotiation" => client.ssl_negotiation(one_of(name, value, &NEGOTIATIONS)?),
            "gssencmode" => {
                // There is no GSSAPI here, which is what both ask for where there is none.
                one_of(name, value, &[("disable", ()), ("prefer", ())])?;
                client
            }
            _ => client,
        };
    }
    Ok(())
}

/// The choice that `value` names.
///
/// # Errors
/// Where it names none; libpq's words are few and `value` is not repeated.
pub(crate) fn one_of<T: Clone>(
    name: &str,
    value: &str,
    choices: &[(&str, T)],
) -> Result<T, String> {
    let found = choices.iter().find(|(choice, _)| *choice == value);
    found.map(|(_, choice)| choice.clone()).ok_or_else(|| {
        let names: Vec<&str> = choices.iter().map(|(choice, _)| *choice).collect();
        format!("{name} must be one of {}", names.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> String {
        match parse(text) {
            Ok(found) => found.iter().map(|(name, value)| format!("{name}={value};")).collect(),
            Err(reason) => reason,
        }
    }

    #[test]
    fn urls_and_pairs_are_read_as_libpq_reads_them() {
        for (text, expect) in [
            ("postgres://u:p@h:1/d", "dbname=d;host=h;password=p;port=1;user=u;"),
            ("postgresql://u@a:1,b/d", "dbname=d;host=a,b;port=1,;user=u;"),
            ("postgres://u:a%40b%25:c#d@h", "host=h;password=a@b%:c#d;user=u;"),
            ("postgres://[::1]:5/d", "dbname=d;host=::1;port=5;"),
            ("postgres://u@%2Fvar%2Frun/d", "dbname=d;host=/var/run;user=u;"),
            ("postgres:///d?host=/run&user=u", "dbname=d;host=/run;user=u;"),
            (
                "postgres://h/d?sslrootcert=%2fa%2Fb.pem&sslmode=verify-ca",
                "dbname=d;host=h;sslmode=verify-ca;sslrootcert=/a/b.pem;",
            ),
            ("host=h password = 'a b\\'c' user=u\\ v", "host=h;password=a b'c;user=u v;"),
            ("user='' host=h", "host=h;user=;"),
        ] {
            assert_eq!(read(text), expect, "{text}");
        }
    }

    #[test]
    fn what_could_be_a_password_is_neither_a_host_nor_repeated() {
        for (text, part) in [
            ("postgres://u:p@hunter2@h/d", "write @ as %40"),
            ("postgres://u:1/hunter2@h/d", "write @ as %40"),
            ("postgres://u:1?hunter2@h/d", "write @ as %40"),
            ("postgres://u:hunter2/d", "a port is none"),
            ("postgres://u:hunter2%ZZ@h/d", "begins no encoded UTF-8"),
            ("postgres://u:100%CAhunter2@h/d", "begins no encoded UTF-8"),
            ("postgres://h/d?password=a&hunter2=b", "it has a parameter that is none of"),
            ("postgres://h/d?hunter2", "no name=value"),
            ("postgres://h/d?passfile=/x", "password = { file"),
            ("jdbc:postgresql://h/d?password=hunter2", "JDBC"),
            ("mysql://u:hunter2@h/d", "begin with postgres://"),
            ("host=h password=a hunter2=b", "it has a parameter that is none of"),
            ("host=h password='hunter2", "single quotes"),
            ("host=h password=a hunter2", "single quotes"),
        ] {
            let found = read(text);
            assert!(found.contains(part) && !found.contains("hunter2"), "{text}: {found}");
        }
    }
}
