//! Why a broker cannot be reached. librdkafka tells it in its log only, and calls each of these failures the same.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use foldline_api::error::Error;
use rdkafka::consumer::{BaseConsumer, Consumer};

use crate::context::Context;

/// A line counts for so long: librdkafka repeats one that holds every half minute.
const FRESH: Duration = Duration::from_secs(60);
/// No more lines than this wait in a client that nobody polled.
const LINES: usize = 1_000;
/// So much of librdkafka's own words is shown.
const WORDS: usize = 300;

/// Codes that stand for any of these reasons.
const VAGUE: [&str; 9] = [
    "BrokerTransportFailure",
    "AllBrokersDown",
    "OperationTimedOut",
    "RequestTimedOut",
    "MessageTimedOut",
    "Resolve",
    "SSL",
    "Authentication",
    "SaslAuthenticationFailed",
];

/// What a client's log said last of a connection that failed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Heard(Arc<Mutex<Option<(Instant, String)>>>);

impl Heard {
    /// Takes a line of librdkafka's log in.
    pub(crate) fn line(&self, facility: &str, line: &str) {
        if !matches!(facility, "FAIL" | "ERROR" | "SASLREFRESH" | "SSL") {
            return;
        }
        let reason = match line.strip_prefix("[thrd:") {
            Some(rest) => rest.split_once("]: ").map_or(line, |(_, rest)| rest),
            None => line,
        };
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // "2/2 brokers are down" comes behind the reasons.
        if heard.is_none() || way_out(reason).is_some() {
            *heard = Some((Instant::now(), reason.to_owned()));
        }
    }

    /// The error with the reason that the log gave, where it says of itself only that something failed.
    pub(crate) fn explain(&self, error: Error) -> Error {
        let vague = error.code().is_some_and(|code| VAGUE.contains(&code));
        let heard = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some((_, reason)) = heard.filter(|(at, _)| vague && at.elapsed() < FRESH) else {
            return error;
        };
        let what = error.message().split(": ").next().unwrap_or_default().to_owned();
        let code = error.code().unwrap_or_default().to_owned();
        let words = words(&reason);
        let sentence = match way_out(&reason) {
            Some(way_out) => format!("{what}: {way_out} [{words}]"),
            None => format!("{what}: {words}"),
        };
        Error::new(error.class(), sentence).with_code(code)
    }

    /// The same, for a client that nobody polls: what it has to say is read first.
    pub(crate) fn explain_unpolled(client: &BaseConsumer<Context>, error: Error) -> Error {
        for _ in 0..LINES {
            if client.poll(Duration::ZERO).is_none() {
                break;
            }
        }
        client.context().heard.explain(error)
    }
}

/// librdkafka's words, without how often and in what state.
fn words(reason: &str) -> String {
    let words = reason.split(" (after ").next().unwrap_or(reason);
    words.chars().take(WORDS).collect()
}

/// The address in a line: `sasl_ssl://host:9093/bootstrap: …`, `host:9092/2: …`.
fn broker(reason: &str) -> &str {
    let name = reason.split(": ").next().unwrap_or_default();
    let name = name.split_once("://").map_or(name, |(_, rest)| rest);
    name.split('/').next().unwrap_or(name)
}

/// What librdkafka says, the cause of it, and what to do. The first that fits stands.
const CAUSES: &[(&[&str], &str, &str)] = &[
    (
        &["Connection refused"],
        "nothing listens at {}",
        "correct host and port in `bootstrap_servers`, or start the broker",
    ),
    (
        &["Failed to resolve"],
        "the host of {} is not known here",
        "correct `bootstrap_servers`, or, where a broker told this name, its `advertised.listeners`",
    ),
    (
        &["PLAINTEXT broker listener", "wrong version number", "packet length too long"],
        "the listener at {} speaks no TLS",
        "use the port of one that does, or set `security.protocol` to `plaintext` (`sasl_plaintext` with a login)",
    ),
    (
        &["connecting to a SSL listener"],
        "{} hangs up on a plain connection",
        "where it wants TLS, set `security.protocol` to `ssl` (`sasl_ssl` with a login); else it is no Kafka broker",
    ),
    (
        &["certificate has expired", "certificate is not yet valid"],
        "the certificate of {} is not valid now",
        "renew it, or set this machine's clock",
    ),
    (
        &["hostname mismatch", "IP address mismatch"],
        "the certificate of {} is for another host",
        "write the name in it into `bootstrap_servers` and the broker's `advertised.listeners`, or have it signed for this one",
    ),
    (
        &[
            "certificate could not be verified",
            "certificate verify failed",
            "Failed to verify broker certificate",
        ],
        "the certificate of {} is not trusted",
        "`ssl.ca.location` must name the CA that signed it; it must be valid now, and for the host as it is written here",
    ),
    (
        &["certificate required", "bad certificate", "alert handshake failure"],
        "{} wants a certificate of ours, or refuses it",
        "`ssl.certificate.location` and `ssl.key.location`, signed by a CA that the broker trusts",
    ),
    (
        &["not valid in current SASL state", "SASL Handshake not supported"],
        "the listener at {} takes no login",
        "use the port of a SASL listener, or set `security.protocol` to `plaintext` (`ssl` with TLS)",
    ),
    (
        &["nsupported SASL mechanism", "mechanism handshake failed"],
        "{} does not take this `sasl.mechanism`",
        "use one of those that it names",
    ),
    (
        &[
            "SASL authentication error",
            "SASL authentication failure",
            "Authentication failed",
            "SASL SCRAM",
        ],
        "{} refused the login",
        "correct `sasl.username` and `sasl.password` (`sasl.mechanism` must be that of the user's entry), or make the user by \
         kafka-configs.sh",
    ),
    (
        &["timed out", "Connection setup timed out", "No route to host", "Network is unreachable"],
        "{} does not answer",
        "look for a firewall, and at `advertised.listeners`, which the brokers tell after the first connection",
    ),
];

fn way_out(reason: &str) -> Option<String> {
    let fits = |needles: &&[&str]| needles.iter().any(|needle| reason.contains(*needle));
    let (_, cause, way_out) = CAUSES.iter().find(|(needles, ..)| fits(needles))?;
    Some(format!("{}: {way_out}", cause.replace("{}", broker(reason))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_of_the_log_stands_for_a_code_that_says_nothing() {
        let heard = Heard::default();
        let vague = || {
            Error::retriable(
                "asking for the cluster's id: Meta data fetch error: Broker transport failure",
            )
            .with_code("BrokerTransportFailure")
        };
        assert_eq!(heard.explain(vague()).to_string(), vague().to_string(), "nothing was heard");
        heard.line("CONFWARN", "[thrd:app]: Configuration property x is a producer property");
        heard.line(
            "FAIL",
            "[thrd:127.0.0.1:1/bootstrap]: 127.0.0.1:1/bootstrap: Connect to ipv4#127.0.0.1:1 failed: Connection refused \
             (after 0ms in state CONNECT, 1 identical error(s) suppressed)",
        );
        heard.line("ERROR", "[thrd:app]: client#consumer-1: 1/1 brokers are down");
        assert_eq!(
            heard.explain(vague()).to_string(),
            "asking for the cluster's id: nothing listens at 127.0.0.1:1: correct host and port in `bootstrap_servers`, or start \
             the broker [127.0.0.1:1/bootstrap: Connect to ipv4#127.0.0.1:1 failed: Connection refused] \
             (BrokerTransportFailure)"
        );
        let clear = Error::config("topic `t` does not exist").with_code("UnknownTopic");
        assert_eq!(heard.explain(clear).message(), "topic `t` does not exist");
    }

    #[test]
    fn an_address_is_without_scheme_and_number() {
        for (line, address) in [
            ("sasl_ssl://kafka.example:9093/bootstrap: SSL handshake failed", "kafka.example:9093"),
            ("10.0.0.1:9092/2: Disconnected", "10.0.0.1:9092"),
            ("ssl://[::1]:9093/bootstrap: SSL handshake failed", "[::1]:9093"),
        ] {
            assert_eq!(broker(line), address);
        }
    }

    #[test]
    fn each_cause_names_the_broker() {
        for (needles, cause, way_out) in CAUSES {
            assert!(cause.contains("{}") && !way_out.is_empty());
            for needle in *needles {
                let line = format!("ssl://h:1/2: {needle}");
                let said = super::way_out(&line).unwrap();
                assert!(said.contains("h:1"), "{said}");
            }
        }
    }
}
