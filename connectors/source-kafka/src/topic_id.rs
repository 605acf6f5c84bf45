//! Topic ids: a topic recreated under the same name has another.
#![expect(unsafe_code, reason = "the safe crate cannot describe topics")]

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::ptr;
use std::time::Duration;

use foldline_api::error::{Error, Result};
use rdkafka::bindings as rd;
use rdkafka::client::NativeClient;
use rdkafka::error::RDKafkaErrorCode as Code;

use crate::error::from_code;

/// The ids of `topics`, by name. A topic is left out where the broker cannot tell; a broker that did
/// not answer is an error, since "no id" would look like another topic.
pub(crate) fn topic_ids(
    client: &NativeClient,
    topics: &[impl AsRef<str>],
    timeout: Duration,
) -> Result<HashMap<String, String>> {
    let names: Vec<CString> = topics.iter().filter_map(|t| CString::new(t.as_ref()).ok()).collect();
    if names.is_empty() {
        return Ok(HashMap::new());
    }
    let mut raw: Vec<_> = names.iter().map(|n| n.as_ptr()).collect();
    let millis = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: each object is made here, used while the client is borrowed and destroyed once below,
    // the event before the queue that it came from.
    unsafe {
        let wanted = rd::rd_kafka_TopicCollection_of_topic_names(raw.as_mut_ptr(), raw.len());
        let describe = rd::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS;
        let options = rd::rd_kafka_AdminOptions_new(client.ptr(), describe);
        rd::rd_kafka_AdminOptions_set_request_timeout(options, millis, ptr::null_mut(), 0);
        let queue = rd::rd_kafka_queue_new(client.ptr());
        rd::rd_kafka_DescribeTopics(client.ptr(), wanted, options, queue);
        // The request's own timeout answers first.
        let event = rd::rd_kafka_queue_poll(queue, millis.saturating_add(2_000));
        let ids = if event.is_null() {
            Err(Error::retriable("the broker did not describe the topics in time"))
        } else {
            read(event)
        };
        if !event.is_null() {
            rd::rd_kafka_event_destroy(event);
        }
        rd::rd_kafka_queue_destroy(queue);
        rd::rd_kafka_AdminOptions_destroy(options);
        rd::rd_kafka_TopicCollection_destroy(wanted);
        ids
    }
}

/// Reads the answer.
///
/// # Safety
/// `event` is alive.
unsafe fn read(event: *mut rd::rd_kafka_event_t) -> Result<HashMap<String, String>> {
    // SAFETY: the event is alive, what is read of it belongs to it and is copied.
    unsafe {
        match Code::from(rd::rd_kafka_event_error(event)) {
            Code::NoError => {}
            // An old broker.
            Code::UnsupportedFeature | Code::UnsupportedVersion => return Ok(HashMap::new()),
            code => return Err(from_code("describing the topics", code)),
        }
        let result = rd::rd_kafka_event_DescribeTopics_result(event);
        let mut count = 0;
        let mut ids = HashMap::new();
        if result.is_null() {
            return Ok(ids);
        }
        let topics = rd::rd_kafka_DescribeTopics_result_topics(result, &mut count);
        for at in 0..count {
            let topic = *topics.add(at);
            let name = CStr::from_ptr(rd::rd_kafka_TopicDescription_name(topic));
            let name = name.to_string_lossy().into_owned();
            let error = rd::rd_kafka_TopicDescription_error(topic);
            if !error.is_null() {
                match Code::from(rd::rd_kafka_error_code(error)) {
                    Code::NoError => {}
                    code => return Err(from_code(format!("describing the topic {name}"), code)),
                }
            }
            let id = rd::rd_kafka_TopicDescription_topic_id(topic);
            if !id.is_null()
                && (rd::rd_kafka_Uuid_least_significant_bits(id) != 0
                    || rd::rd_kafka_Uuid_most_significant_bits(id) != 0)
            {
                let text = CStr::from_ptr(rd::rd_kafka_Uuid_base64str(id));
                ids.insert(name, text.to_string_lossy().into_owned());
            }
        }
        Ok(ids)
    }
}
