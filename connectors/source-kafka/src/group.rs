//! Who is in a consumer group and has what, as its coordinator tells.
#![expect(unsafe_code, reason = "the safe crate cannot describe a group of either protocol")]

use std::ffi::{CStr, CString};
use std::ptr;
use std::time::Duration;

use foldline_api::error::{Error, Result};
use foldline_api::record::TopicPartition;
use rdkafka::bindings as rd;
use rdkafka::bindings::rd_kafka_consumer_group_state_t as State;
use rdkafka::client::NativeClient;
use rdkafka::error::RDKafkaErrorCode as Code;

use crate::error::from_code;

/// A group as its coordinator sees it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Group {
    /// Its partitions are about to move.
    pub(crate) rebalances: bool,
    pub(crate) members: Vec<GroupMember>,
}

/// One member, whoever's it is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct GroupMember {
    pub(crate) id: String,
    /// Its client.id, which says whose it is.
    pub(crate) client: String,
    pub(crate) host: String,
    pub(crate) partitions: Vec<TopicPartition>,
}

/// How a member stands that has no partition.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// The others have all of them, and the group knows this member.
    Spare,
    /// So many have no owner, and the group is about to deal them anew.
    Waiting(usize),
    /// So many have no owner, and nothing is about to change that: the group knows this member no more, or
    /// is stuck.
    Forgotten(usize),
}

impl Group {
    /// How the member `id` stands, which has none of these partitions of its topics.
    pub(crate) fn standing(&self, id: &str, all: &[TopicPartition]) -> Standing {
        let owned = |p: &TopicPartition| self.members.iter().any(|m| m.partitions.contains(p));
        let unowned = all.iter().filter(|partition| !owned(partition)).count();
        match unowned {
            // Whom the group does not know, it gives nothing when the others have gone.
            0 if self.knows(id) => Standing::Spare,
            _ if self.rebalances && self.knows(id) => Standing::Waiting(unowned),
            _ => Standing::Forgotten(unowned),
        }
    }

    /// Whether a member of this id is in the group.
    pub(crate) fn knows(&self, id: &str) -> bool {
        self.members.iter().any(|member| member.id == id)
    }
}

/// Asks for a group. One that does not exist has no members.
pub(crate) fn describe(client: &NativeClient, group: &str, timeout: Duration) -> Result<Group> {
    let what = || format!("describing the group {group}");
    let name = CString::new(group).map_err(|_| from_code(what(), Code::InvalidGroupId))?;
    let millis = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: each object is made here, used while the client is borrowed and destroyed once below,
    // the event before the queue that it came from.
    unsafe {
        let operation = rd::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBECONSUMERGROUPS;
        let options = rd::rd_kafka_AdminOptions_new(client.ptr(), operation);
        rd::rd_kafka_AdminOptions_set_request_timeout(options, millis, ptr::null_mut(), 0);
        let queue = rd::rd_kafka_queue_new(client.ptr());
        let mut names = [name.as_ptr()];
        rd::rd_kafka_DescribeConsumerGroups(client.ptr(), names.as_mut_ptr(), 1, options, queue);
        // The request's own timeout answers first.
        let event = rd::rd_kafka_queue_poll(queue, millis.saturating_add(2_000));
        let group = if event.is_null() {
            Err(Error::retriable(format!("{}: no answer in time", what())))
        } else {
            read(event).map_err(|code| from_code(what(), code))
        };
        if !event.is_null() {
            rd::rd_kafka_event_destroy(event);
        }
        rd::rd_kafka_queue_destroy(queue);
        rd::rd_kafka_AdminOptions_destroy(options);
        group
    }
}

/// Reads the answer.
///
/// # Safety
/// `event` is alive.
unsafe fn read(event: *mut rd::rd_kafka_event_t) -> Result<Group, Code> {
    // SAFETY: the event is alive, what is read of it belongs to it and is copied.
    unsafe {
        match Code::from(rd::rd_kafka_event_error(event)) {
            Code::NoError => {}
            code => return Err(code),
        }
        let result = rd::rd_kafka_event_DescribeConsumerGroups_result(event);
        let mut count = 0;
        let groups = match result.is_null() {
            true => ptr::null_mut(),
            false => rd::rd_kafka_DescribeConsumerGroups_result_groups(result, &mut count),
        };
        if groups.is_null() || count == 0 {
            return Ok(Group::default());
        }
        let group = *groups;
        let error = rd::rd_kafka_ConsumerGroupDescription_error(group);
        if !error.is_null() {
            match Code::from(rd::rd_kafka_error_code(error)) {
                Code::NoError => {}
                Code::GroupIdNotFound => return Ok(Group::default()),
                code => return Err(code),
            }
        }
        let rebalances = !matches!(
            rd::rd_kafka_ConsumerGroupDescription_state(group),
            State::RD_KAFKA_CONSUMER_GROUP_STATE_STABLE
                | State::RD_KAFKA_CONSUMER_GROUP_STATE_EMPTY
                | State::RD_KAFKA_CONSUMER_GROUP_STATE_DEAD
        );
        let members = (0..rd::rd_kafka_ConsumerGroupDescription_member_count(group))
            .map(|at| member(rd::rd_kafka_ConsumerGroupDescription_member(group, at)))
            .collect();
        Ok(Group { rebalances, members })
    }
}

/// Reads one member.
///
/// # Safety
/// `member` is alive.
unsafe fn member(member: *const rd::rd_kafka_MemberDescription_t) -> GroupMember {
    // SAFETY: the member is alive, what is read of it belongs to it and is copied.
    unsafe {
        let text = |raw: *const std::ffi::c_char| match raw.is_null() {
            true => String::new(),
            false => CStr::from_ptr(raw).to_string_lossy().into_owned(),
        };
        let id = text(rd::rd_kafka_MemberDescription_consumer_id(member));
        let client = text(rd::rd_kafka_MemberDescription_client_id(member));
        let host = text(rd::rd_kafka_MemberDescription_host(member));
        let assignment = rd::rd_kafka_MemberDescription_assignment(member);
        let list = match assignment.is_null() {
            true => None,
            false => rd::rd_kafka_MemberAssignment_partitions(assignment).as_ref(),
        };
        let mut partitions = Vec::new();
        if let Some(list) = list {
            for at in 0..usize::try_from(list.cnt).unwrap_or(0) {
                let element = &*list.elems.add(at);
                let topic = CStr::from_ptr(element.topic).to_string_lossy();
                partitions.push(TopicPartition::new(&*topic, element.partition));
            }
        }
        GroupMember { id, client, host, partitions }
    }
}

/// The id that the group knows this member by, and the generation that it joined in; an empty id and no generation
/// before it has joined and after it has left.
pub(crate) fn membership(client: &NativeClient) -> (String, Option<i32>) {
    // SAFETY: the client is alive; the metadata is ours, is read before it is destroyed, and its id is copied.
    unsafe {
        let metadata = rd::rd_kafka_consumer_group_metadata(client.ptr());
        if metadata.is_null() {
            return (String::new(), None);
        }
        let id = rd::rd_kafka_consumer_group_metadata_member_id(metadata);
        let id = match id.is_null() {
            true => String::new(),
            false => CStr::from_ptr(id).to_string_lossy().into_owned(),
        };
        let generation = rd::rd_kafka_consumer_group_metadata_generation_id(metadata);
        rd::rd_kafka_consumer_group_metadata_destroy(metadata);
        (id, Some(generation).filter(|generation| *generation > 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tp(partition: i32) -> TopicPartition {
        TopicPartition::new("t", partition)
    }

    fn group(rebalances: bool, members: &[(&str, &[i32])]) -> Group {
        let member = |(id, partitions): &(&str, &[i32])| GroupMember {
            id: (*id).to_owned(),
            client: String::new(),
            host: String::new(),
            partitions: partitions.iter().map(|partition| tp(*partition)).collect(),
        };
        Group { rebalances, members: members.iter().map(member).collect() }
    }

    #[test]
    fn who_has_nothing_is_spare_waits_or_was_forgotten() {
        let all = [tp(0), tp(1)];
        let standing = |group: Group| group.standing("me", &all);
        assert_eq!(standing(group(false, &[("a", &[0, 1]), ("me", &[])])), Standing::Spare);
        assert_eq!(standing(group(true, &[("a", &[0]), ("me", &[])])), Standing::Waiting(1));
        assert_eq!(standing(group(false, &[("a", &[0]), ("me", &[])])), Standing::Forgotten(1));
        assert_eq!(standing(group(true, &[("a", &[0])])), Standing::Forgotten(1), "unknown to it");
        assert_eq!(
            standing(group(false, &[("a", &[0, 1])])),
            Standing::Forgotten(0),
            "and so here"
        );
        assert_eq!(standing(group(false, &[])), Standing::Forgotten(2), "an empty group");
        // What others have of other topics is not meant.
        let other = Group {
            members: vec![GroupMember {
                id: "a".into(),
                client: String::new(),
                host: String::new(),
                partitions: vec![TopicPartition::new("u", 0)],
            }],
            rebalances: false,
        };
        assert_eq!(standing(other), Standing::Forgotten(2));
    }
}
