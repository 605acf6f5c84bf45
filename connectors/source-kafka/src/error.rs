//! librdkafka's codes, and whose problem each is.

use foldline_api::error::{Error, ErrorClass};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

/// The class of `code`. Whatever is not in the table is a machine problem: wait and try again.
pub(crate) fn class(code: Code) -> ErrorClass {
    TABLE.iter().find(|(row, _)| *row == code).map_or(ErrorClass::Retriable, |(_, class)| *class)
}

const TABLE: &[(Code, ErrorClass)] = &[
    // The partition, or the membership, is someone else's now.
    (Code::RebalanceInProgress, ErrorClass::Fenced),
    (Code::IllegalGeneration, ErrorClass::Fenced),
    (Code::UnknownMemberId, ErrorClass::Fenced),
    (Code::StaleMemberEpoch, ErrorClass::Fenced),
    (Code::FencedMemberEpoch, ErrorClass::Fenced),
    (Code::AssignmentLost, ErrorClass::Fenced),
    (Code::NonEmptyGroup, ErrorClass::Fenced),
    // Two members with one `group_instance_id`: going on would fence the other in turn, for ever.
    (Code::FencedInstanceId, ErrorClass::Config),
    (Code::UnreleasedInstanceId, ErrorClass::Config),
    // The log no longer has what the position names.
    (Code::OffsetOutOfRange, ErrorClass::Config),
    (Code::AutoOffsetReset, ErrorClass::Config),
    (Code::LogTruncation, ErrorClass::Config),
    // librdkafka skips a batch that it cannot read; going on would be a gap.
    (Code::BadMessage, ErrorClass::Config),
    (Code::InvalidMessage, ErrorClass::Config),
    (Code::BadCompression, ErrorClass::Config),
    (Code::UnsupportedCompressionType, ErrorClass::Config),
    // What was asked for cannot be had.
    (Code::UnknownTopicOrPartition, ErrorClass::Config),
    (Code::UnknownTopic, ErrorClass::Config),
    (Code::InvalidTopic, ErrorClass::Config),
    (Code::InvalidPartitions, ErrorClass::Config),
    (Code::InvalidReplicationFactor, ErrorClass::Config),
    (Code::InvalidConfig, ErrorClass::Config),
    (Code::PolicyViolation, ErrorClass::Config),
    (Code::InconsistentGroupProtocol, ErrorClass::Config),
    (Code::UnsupportedAssignor, ErrorClass::Config),
    (Code::InvalidGroupId, ErrorClass::Config),
    (Code::InvalidSessionTimeout, ErrorClass::Config),
    (Code::OffsetMetadataTooLarge, ErrorClass::Config),
    (Code::UnsupportedSASLMechanism, ErrorClass::Config),
    (Code::UnsupportedVersion, ErrorClass::Config),
    (Code::UnsupportedFeature, ErrorClass::Config),
    (Code::InvalidArgument, ErrorClass::Config),
    // One record is the problem.
    (Code::MessageSizeTooLarge, ErrorClass::Record),
    (Code::InvalidMessageSize, ErrorClass::Record),
    (Code::InvalidRecord, ErrorClass::Record),
    (Code::InvalidTimestamp, ErrorClass::Record),
    // A machine problem, as whatever else there is.
    (Code::AllBrokersDown, ErrorClass::Retriable),
    (Code::BrokerTransportFailure, ErrorClass::Retriable),
    (Code::OperationTimedOut, ErrorClass::Retriable),
    (Code::RequestTimedOut, ErrorClass::Retriable),
    (Code::MessageTimedOut, ErrorClass::Retriable),
    (Code::Resolve, ErrorClass::Retriable),
    (Code::SSL, ErrorClass::Retriable),
    (Code::Authentication, ErrorClass::Retriable),
    (Code::SaslAuthenticationFailed, ErrorClass::Retriable),
    (Code::TopicAuthorizationFailed, ErrorClass::Retriable),
    (Code::GroupAuthorizationFailed, ErrorClass::Retriable),
    (Code::CoordinatorNotAvailable, ErrorClass::Retriable),
    (Code::CoordinatorLoadInProgress, ErrorClass::Retriable),
    (Code::NotCoordinator, ErrorClass::Retriable),
    (Code::NotLeaderForPartition, ErrorClass::Retriable),
    (Code::LeaderNotAvailable, ErrorClass::Retriable),
    (Code::NotEnoughReplicas, ErrorClass::Retriable),
    (Code::NotEnoughReplicasAfterAppend, ErrorClass::Retriable),
    (Code::KafkaStorageError, ErrorClass::Retriable),
    (Code::ThrottlingQuotaExceeded, ErrorClass::Retriable),
    (Code::UnstableOffsetCommit, ErrorClass::Retriable),
    (Code::QueueFull, ErrorClass::Retriable),
    (Code::GroupMaxSizeReached, ErrorClass::Retriable),
];

/// An error of the class of `code`; `what` says in a few words what was tried.
pub(crate) fn from_code(what: impl AsRef<str>, code: Code) -> Error {
    let way_out = way_out(code).map(|way_out| format!(": {way_out}")).unwrap_or_default();
    let sentence = format!("{}: {code}{way_out}", what.as_ref());
    Error::new(class(code), sentence).with_code(format!("{code:?}"))
}

/// What to do about a broker's refusal.
fn way_out(code: Code) -> Option<&'static str> {
    Some(match code {
        Code::TopicAuthorizationFailed => {
            "give the user the right: kafka-acls.sh --bootstrap-server … --add --allow-principal User:NAME --operation \
             Read --operation Describe --topic TOPIC (Write for its dead letters)"
        }
        Code::GroupAuthorizationFailed => {
            "give the user the right: kafka-acls.sh --bootstrap-server … --add --allow-principal User:NAME --operation \
             Read --operation Describe --group GROUP, and GROUP.rebuild"
        }
        Code::ClusterAuthorizationFailed => {
            "give the user the right: kafka-acls.sh --bootstrap-server … --add --allow-principal User:NAME --operation \
             IdempotentWrite --cluster"
        }
        Code::InvalidTopic => {
            "a topic's name has letters, digits, `.`, `_` and `-` only; a regex starts with ^"
        }
        _ => return None,
    })
}

/// The same from the crate's error. Config errors name the property, never its value.
pub fn from_kafka(what: impl AsRef<str>, error: &KafkaError) -> Error {
    let what = what.as_ref();
    match error {
        KafkaError::ClientConfig(_, _, name, _) => Error::config(format!(
            "{what}: librdkafka does not take the property `{name}` with the value given"
        )),
        KafkaError::ClientCreation(reason) => Error::config(format!("{what}: {reason}")),
        KafkaError::AdminOp(code) => from_code(what, *code),
        other => match other.rdkafka_error_code() {
            Some(code) => from_code(what, code),
            None => Error::retriable(format!("{what}: {other}")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_of_the_table_holds_and_none_comes_twice() {
        for (at, (code, expected)) in TABLE.iter().enumerate() {
            assert_eq!(class(*code), *expected, "{code:?}");
            assert!(TABLE[..at].iter().all(|(earlier, _)| earlier != code), "{code:?} twice");
        }
    }

    /// `docs/errors.md`: codes, what they are, class.
    #[test]
    fn the_page_of_errors_tells_every_codes_class() {
        let rows = foldline_testkit::page::table("docs/errors.md", "## Kafka");
        let mut told = Vec::new();
        for row in &rows {
            let [codes, _, label] = row.as_slice() else { panic!("{row:?}") };
            if codes[0] == "anything else" {
                assert_eq!(class(Code::Unknown).label(), label[0], "{row:?}");
                continue;
            }
            for name in codes {
                let found = TABLE.iter().find(|(code, _)| format!("{code:?}") == *name);
                let (code, _) = found.unwrap_or_else(|| panic!("{name} is on the page only"));
                assert_eq!(class(*code).label(), label[0], "{name}");
                told.push(name.clone());
            }
        }
        for (code, _) in TABLE {
            let count = told.iter().filter(|name| **name == format!("{code:?}")).count();
            assert_eq!(count, 1, "{code:?} on the page");
        }
    }

    #[test]
    fn a_config_error_does_not_show_the_value() {
        let error = rdkafka::ClientConfig::new()
            .set("security.protocol", "s3cret")
            .create::<rdkafka::consumer::BaseConsumer>()
            .err()
            .unwrap();
        let error = from_kafka("the source", &error);
        assert_eq!(error.class(), ErrorClass::Config);
        assert!(error.message().contains("security.protocol"), "{error}");
        assert!(!error.message().contains("s3cret"), "{error}");
    }
}
