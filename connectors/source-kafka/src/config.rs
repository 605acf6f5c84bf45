//! What the config says about a Kafka cluster, and the librdkafka settings that follow from it.

use std::fmt;

use foldline_api::error::{Error, Result};
use foldline_api::source::FleetMember;
use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::BaseConsumer;
use rdkafka::producer::BaseProducer;

use crate::declared::DeclaredTopic;
use crate::error::from_kafka;
use crate::group::GroupMember;
use crate::topics::{TopicFilter, Topics};

/// librdkafka properties that Foldline sets itself, each with the reason. A config that passes one
/// is refused.
pub const OWNED_PROPERTIES: &[(&str, &str)] = &[
    ("bootstrap.servers", "write `bootstrap_servers`"),
    ("metadata.broker.list", "write `bootstrap_servers`"),
    ("client.id", "the worker's name and the task are in it"),
    ("group.id", "write the connector's `group`"),
    ("group.protocol", "write `group_protocol`"),
    ("group.instance.id", "write `group_instance_id`; each task needs its own"),
    ("partition.assignment.strategy", "partitions move one at a time (cooperative-sticky)"),
    ("enable.auto.commit", "an offset is committed only when the sink has it"),
    ("auto.commit.enable", "an offset is committed only when the sink has it"),
    ("auto.commit.interval.ms", "an offset is committed only when the sink has it"),
    ("enable.auto.offset.store", "an offset is committed only when the sink has it"),
    ("offset.store.method", "positions are kept in the sink and in the group"),
    ("auto.offset.reset", "a position that the log has lost must be an error; write `start`"),
    ("enable.partition.eof", "the end of a partition tells when a rebuild has caught up"),
    ("isolation.level", "records of aborted transactions must not be folded"),
    ("allow.auto.create.topics", "a mistyped topic must be an error"),
    ("queued.max.messages.kbytes", "the worker's `memory` decides"),
    ("acks", "a dead letter is set aside only when all replicas have it"),
    ("request.required.acks", "a dead letter is set aside only when all replicas have it"),
    ("enable.idempotence", "a retried dead letter must not come twice"),
    ("transactional.id", "dead letters are not part of a transaction"),
    ("log.queue", "logs go to the worker's log"),
];

/// The version of the librdkafka that is built in.
#[must_use]
pub fn library_version() -> String {
    rdkafka::util::get_rdkafka_version().1
}

/// Whether librdkafka has a property of this name.
#[must_use]
pub fn is_property(name: &str) -> bool {
    let mut client = ClientConfig::new();
    client.set(name, "\u{1}");
    match client.create_native_config() {
        Err(rdkafka::error::KafkaError::ClientConfig(result, ..)) => {
            !matches!(result, rdkafka::types::RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN)
        }
        _ => true,
    }
}

/// Between two heartbeats of a member of the classic protocol, in milliseconds.
const HEARTBEAT_MS: &str = "1000";

/// Bytes of librdkafka's own for each message in its queue, roughly.
const MESSAGE: usize = 1_024;
/// librdkafka's `message.max.bytes` where it is not passed.
const MESSAGE_MAX: u64 = 1_000_000;
/// What librdkafka wants `receive.message.max.bytes` to be above `fetch.max.bytes`.
const FRAME: u64 = 512;

/// A Kafka cluster, the topics that one connector reads of it and its consumer group.
#[derive(Clone, PartialEq, Eq)]
pub struct KafkaConfig {
    /// `host:port`, several joined by commas.
    pub bootstrap_servers: String,
    /// Further librdkafka properties, passed through; none of [`OWNED_PROPERTIES`].
    pub properties: Vec<(String, String)>,
    /// The consumer group.
    pub group: String,
    /// What to read.
    pub topics: Topics,
    /// How the group shares partitions.
    pub group_protocol: GroupProtocol,
    /// Static membership: the name that this worker keeps over restarts; tasks append their number.
    pub group_instance_id: Option<String>,
    /// How this client shows in the broker's logs and metrics.
    pub client_id: String,
    /// What tells this worker from the others of its group; no client of another group needs it.
    pub worker: Option<String>,
    /// Topics of these that the config describes.
    pub declared: Vec<DeclaredTopic>,
}

/// How a group shares partitions among its members.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GroupProtocol {
    /// The client-side protocol, cooperative-sticky.
    #[default]
    Classic,
    /// KIP-848: the broker assigns; needs Kafka 4.
    Consumer,
}

/// Property values may hold secrets: only names are shown.
impl fmt::Debug for KafkaConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.properties.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("KafkaConfig")
            .field("bootstrap_servers", &self.bootstrap_servers)
            .field("properties", &names)
            .field("group", &self.group)
            .field("topics", &self.topics)
            .field("group_protocol", &self.group_protocol)
            .field("group_instance_id", &self.group_instance_id)
            .field("client_id", &self.client_id)
            .field("worker", &self.worker)
            .field("declared", &self.declared)
            .finish()
    }
}

impl KafkaConfig {
    /// Refuses what cannot work, without asking the cluster.
    pub(crate) fn check(&self) -> Result<TopicFilter> {
        for (name, _) in &self.properties {
            if let Some((_, reason)) = OWNED_PROPERTIES.iter().find(|(owned, _)| owned == name) {
                return Err(Error::config(format!(
                    "the property `{name}` is Foldline's own: {reason}"
                )));
            }
        }
        if self.bootstrap_servers.trim().is_empty() {
            return Err(Error::config("`bootstrap_servers` is empty; write host:port"));
        }
        TopicFilter::new(&self.topics)
    }

    /// A passed property, as a number.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<u64> {
        let (_, value) = self.properties.iter().rev().find(|(n, _)| n == name)?;
        value.trim().parse().ok()
    }

    /// Foldline's own limit of a fetch, as what is passed leaves room for it: librdkafka refuses a limit of
    /// messages above it, and one of answers below.
    fn fetch_max(&self, own: usize) -> String {
        let message = self.number("message.max.bytes").unwrap_or(MESSAGE_MAX);
        let received = self.number("receive.message.max.bytes");
        let room = received.map_or(u64::MAX, |received| received.saturating_sub(FRAME));
        (own as u64).max(message).min(room).to_string()
    }

    /// Lets librdkafka compare the limits that are passed, and those that follow from them, without a broker.
    ///
    /// # Errors
    /// Class Config, with librdkafka's sentence, which names the properties.
    pub fn check_limits(&self) -> Result<()> {
        let limit = |name| self.number(name);
        if let (Some(message), Some(received)) =
            (limit("message.max.bytes"), limit("receive.message.max.bytes"))
            && received < message + FRAME
        {
            return Err(Error::config(format!(
                "`receive.message.max.bytes` must be at least `message.max.bytes` + {FRAME}: a broker's answer holds at \
                 least one message"
            )));
        }
        let elsewhere = ["ssl.", "sasl.", "security.", "https.", "plugin.", "enable.ssl"];
        let is_limit = |name: &str| !elsewhere.iter().any(|other| name.starts_with(other));
        let properties = self.properties.iter().filter(|(name, _)| is_limit(name));
        let bare = KafkaConfig { properties: properties.cloned().collect(), ..self.clone() };
        let what = "the properties";
        let alone = |mut client: ClientConfig| {
            client.remove("bootstrap.servers");
            client
        };
        for memory in [1 << 20, 64 << 20] {
            let member = alone(bare.member(0, memory)).create::<BaseConsumer>();
            member.map_err(|error| from_kafka(what, &error))?;
        }
        for client in [bare.reading(64 << 10), bare.asking()] {
            alone(client).create::<BaseConsumer>().map_err(|error| from_kafka(what, &error))?;
        }
        let producer = alone(bare.producer()).create::<BaseProducer>();
        producer.map(drop).map_err(|error| from_kafka(what, &error))
    }

    /// What every client has; `defaults` give way to passed properties, `fixed` do not.
    fn client(&self, defaults: &[(&str, &str)], fixed: &[(&str, &str)]) -> ClientConfig {
        let mut client = ClientConfig::new();
        client.set("socket.keepalive.enable", "true");
        for (name, value) in defaults {
            client.set(*name, *value);
        }
        for (name, value) in &self.properties {
            client.set(name, value);
        }
        client.set("bootstrap.servers", &self.bootstrap_servers);
        client.set("client.id", &self.client_id);
        for (name, value) in fixed {
            client.set(*name, *value);
        }
        client.set_log_level(RDKafkaLogLevel::Notice);
        client
    }

    /// A client that asks: it joins no group, but may read and write the group's offsets.
    #[must_use]
    pub fn asking(&self) -> ClientConfig {
        let fixed = [
            ("group.id", self.group.as_str()),
            ("enable.auto.commit", "false"),
            ("enable.auto.offset.store", "false"),
            ("isolation.level", "read_committed"),
        ];
        let fetch = self.fetch_max(1 << 20);
        self.client(&[("fetch.max.bytes", &fetch)], &fixed)
    }

    /// A consumer whose prefetch is bounded by `prefetch` bytes; `own` are defaults of its kind.
    fn consumer(&self, prefetch: usize, own: &[(&str, &str)]) -> ClientConfig {
        let queued = (prefetch / 1024).to_string();
        let mut defaults = vec![
            ("check.crcs", "true"),
            // The default of one second is a brake: a consumer that has filled its queue sleeps.
            ("fetch.queue.backoff.ms", "5"),
            // How long a broker keeps a request when there is nothing: a record is answered at once.
            ("fetch.wait.max.ms", "1000"),
        ];
        defaults.extend_from_slice(own);
        let fixed = [
            ("group.id", self.group.as_str()),
            ("enable.auto.commit", "false"),
            ("enable.auto.offset.store", "false"),
            ("auto.offset.reset", "error"),
            ("enable.partition.eof", "true"),
            ("isolation.level", "read_committed"),
            ("allow.auto.create.topics", "false"),
            ("queued.max.messages.kbytes", &queued),
        ];
        self.client(&defaults, &fixed)
    }

    /// How the group knows a task: who asks the group finds the worker in it.
    fn member_client(&self, task: u32) -> String {
        match &self.worker {
            Some(worker) => format!("{}-{task}@{worker}", self.client_id),
            None => format!("{}-{task}", self.client_id),
        }
    }

    /// The worker and the task of a member of this group. One that tells no worker is known by its host.
    pub(crate) fn fleet_member(&self, member: GroupMember) -> Option<FleetMember> {
        let rest = member.client.strip_prefix(&self.client_id)?.strip_prefix('-')?;
        let (task, worker) = rest.split_once('@').unwrap_or((rest, &member.host));
        let task = task.parse().ok()?;
        Some(FleetMember { worker: worker.to_owned(), task, partitions: member.partitions })
    }

    /// A member of the group, for task `task`, whose prefetch is bounded by `prefetch` bytes.
    pub(crate) fn member(&self, task: u32, prefetch: usize) -> ClientConfig {
        // librdkafka counts values only, while each message takes this much besides: of small ones their
        // number is the bound. Fetching goes on below it, in each partition.
        let messages = (prefetch / MESSAGE / 4).clamp(1_000, 100_000).to_string();
        // A broker sends at least one batch however large, so this bounds the overshoot only.
        let fetch = self.fetch_max((prefetch / 2).clamp(1 << 20, 50 << 20));
        let partition = (prefetch / 32).clamp(128 << 10, 1 << 20).to_string();
        let defaults = [
            ("queued.min.messages", messages.as_str()),
            ("fetch.max.bytes", &fetch),
            ("fetch.message.max.bytes", &partition),
            ("topic.metadata.refresh.interval.ms", "10000"),
        ];
        let mut client = self.consumer(prefetch.max(1 << 20), &defaults);
        client.set("client.id", self.member_client(task));
        match self.group_protocol {
            GroupProtocol::Classic => {
                client.set("group.protocol", "classic");
                client.set("partition.assignment.strategy", "cooperative-sticky");
                if self.number("heartbeat.interval.ms").is_none() {
                    // The others hear of a rebalance with their next heartbeat; until then partitions lie idle.
                    client.set("heartbeat.interval.ms", HEARTBEAT_MS);
                }
            }
            GroupProtocol::Consumer => {
                client.set("group.protocol", "consumer");
                // That the broker does not know the protocol is told nowhere else.
                let debug = self.properties.iter().rev().find(|(name, _)| name == "debug");
                let debug = debug.map_or("cgrp".to_owned(), |(_, value)| format!("{value},cgrp"));
                client.set("debug", debug).set_log_level(RDKafkaLogLevel::Debug);
            }
        }
        if let Some(instance) = &self.group_instance_id {
            client.set("group.instance.id", format!("{instance}-{task}"));
        }
        client
    }

    /// A consumer that is assigned by hand and fetches about `bytes` ahead of each partition.
    pub(crate) fn reading(&self, bytes: usize) -> ClientConfig {
        // Few requests of much each: what came is taken over soon, and is smaller then.
        let messages = (bytes / 512).clamp(500, 100_000).to_string();
        let partition = (bytes / 2).clamp(128 << 10, 1 << 20);
        let fetch = self.fetch_max(partition * 16);
        let partition = partition.to_string();
        let defaults = [
            ("queued.min.messages", messages.as_str()),
            ("fetch.max.bytes", &fetch),
            ("fetch.message.max.bytes", &partition),
            // A request for a partition that is at its end holds up those of the others.
            ("fetch.wait.max.ms", "10"),
        ];
        self.consumer(bytes.max(128 << 10), &defaults)
    }

    /// A producer whose records are acknowledged by all replicas, once each.
    #[must_use]
    pub fn producer(&self) -> ClientConfig {
        let defaults = [
            // The broker's and the topic's limits decide, not the client's default of 1 MB.
            ("message.max.bytes", "104857600"),
            ("message.timeout.ms", "30000"),
            ("linger.ms", "5"),
            ("compression.type", "zstd"),
        ];
        let fixed = [("acks", "all"), ("enable.idempotence", "true")];
        self.client(&defaults, &fixed)
    }
}

#[cfg(test)]
mod tests {
    use foldline_api::record::TopicPartition;

    use super::*;

    fn config() -> KafkaConfig {
        KafkaConfig {
            bootstrap_servers: "localhost:9092".into(),
            properties: vec![("sasl.password".into(), "hunter2".into())],
            group: "g".into(),
            topics: Topics::List(vec!["t".into()]),
            group_protocol: GroupProtocol::Classic,
            group_instance_id: Some("node-a".into()),
            client_id: "foldline".into(),
            worker: None,
            declared: Vec::new(),
        }
    }

    #[test]
    fn debug_shows_no_property_value() {
        let text = format!("{:?}", config());
        assert!(text.contains("sasl.password") && !text.contains("hunter2"), "{text}");
    }

    #[test]
    fn every_owned_property_is_refused_with_its_reason() {
        for (name, reason) in OWNED_PROPERTIES {
            let mut config = config();
            config.properties.push(((*name).into(), "x".into()));
            let error = config.check().unwrap_err();
            assert!(error.message().contains(name) && error.message().contains(reason));
        }
    }

    #[test]
    fn a_passed_property_wins_over_a_default_but_not_over_an_owned_one() {
        let mut config = config();
        config.properties.push(("fetch.queue.backoff.ms".into(), "77".into()));
        let member = config.member(3, 8 << 20);
        assert_eq!(member.get("fetch.queue.backoff.ms"), Some("77"));
        assert_eq!(member.get("auto.offset.reset"), Some("error"));
        assert_eq!(member.get("group.instance.id"), Some("node-a-3"));
        assert_eq!(member.get("queued.max.messages.kbytes"), Some("8192"));
        assert_eq!(config.producer().get("acks"), Some("all"));
    }

    #[test]
    fn limits_that_are_passed_move_those_that_are_not_and_contradict_each_other_by_name() {
        let with = |properties: &[(&str, &str)]| {
            let properties = properties.iter().map(|(n, v)| ((*n).into(), (*v).into())).collect();
            KafkaConfig { properties, ..config() }.check_limits()
        };
        for fine in [
            &[][..],
            &[("message.max.bytes", "10485760")],
            &[("message.max.bytes", "1000000000")],
            &[("receive.message.max.bytes", "2000000")],
            &[("receive.message.max.bytes", "2147483647"), ("message.max.bytes", "200000000")],
            &[("fetch.max.bytes", "200000000")],
            &[("ssl.ca.location", "/not/here.pem"), ("security.protocol", "ssl")],
        ] {
            with(fine).unwrap();
        }
        for (wrong, names) in [
            (
                &[("message.max.bytes", "10485760"), ("fetch.max.bytes", "1000000")][..],
                &["fetch.max.bytes", "message.max.bytes"][..],
            ),
            (
                &[("message.max.bytes", "10485760"), ("receive.message.max.bytes", "5000000")],
                &["message.max.bytes"],
            ),
            (&[("max.poll.interval.ms", "10000")], &["max.poll.interval.ms", "session.timeout.ms"]),
            (&[("message.timeout.ms", "3")], &["message.timeout.ms", "linger.ms"]),
            (&[("message.max.bytes", "10MB")], &["message.max.bytes"]),
        ] {
            let error = with(wrong).unwrap_err();
            assert_eq!(error.class(), foldline_api::ErrorClass::Config);
            for name in names {
                assert!(error.message().contains(name), "{wrong:?}: {error}");
            }
        }
    }

    #[test]
    fn kip_848_members_set_no_assignor() {
        let config = KafkaConfig { group_protocol: GroupProtocol::Consumer, ..config() };
        let member = config.member(0, 8 << 20);
        assert_eq!(member.get("group.protocol"), Some("consumer"));
        assert_eq!(member.get("partition.assignment.strategy"), None);
    }

    #[test]
    fn a_member_tells_its_worker_and_its_task() {
        let config = KafkaConfig { worker: Some("host-1:8083".into()), ..config() };
        let of = |client: &str| {
            let member = GroupMember {
                id: "id".into(),
                client: client.to_owned(),
                host: "/10.0.0.1".into(),
                partitions: vec![TopicPartition::new("t", 1)],
            };
            config.fleet_member(member).map(|member| (member.worker, member.task))
        };
        let client = config.member(3, 1 << 20).get("client.id").unwrap().to_owned();
        assert_eq!(of(&client), Some(("host-1:8083".into(), 3)));
        assert_eq!(of("foldline-2"), Some(("/10.0.0.1".into(), 2)), "of an older version");
        assert_eq!(of("someone-else"), None);
        assert_eq!(of("foldline-x@y"), None);
    }

    #[test]
    fn the_example_parses_and_passes_no_owned_property() {
        let example: toml::Table = include_str!("../example.toml").parse().unwrap();
        let source = &example["sources"]["events"];
        assert_eq!(source["type"].as_str(), Some("kafka"));
        let mut config = config();
        config.bootstrap_servers = source["bootstrap_servers"].as_str().unwrap().into();
        for (name, value) in source["properties"].as_table().unwrap() {
            config.properties.push((name.clone(), value.as_str().unwrap().into()));
        }
        config.check().unwrap();
        config.member(0, 1 << 20).create_native_config().unwrap();
    }
}
