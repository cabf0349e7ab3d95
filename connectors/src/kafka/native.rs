//! The one audited place with `unsafe`: librdkafka's batch queue (a message costs a copy, not an allocation and an event)
//! and the three calls that the safe crate lacks (topic ids, leader epochs, commit metadata as bytes).
//!
//! Rules that make it sound:
//! - every raw pointer lives in a guard that frees it exactly once, and each guard holds the consumer alive through an `Arc`;
//! - slices that a guard lends end with the borrow of the guard, before the message is destroyed;
//! - librdkafka is thread-safe; a guard is used by one thread at a time, so `Send` is enough and none is `Sync`.

#![expect(unsafe_code, reason = "librdkafka's batch queue has no safe binding; audited, see the rules above")]

use std::ffi::{CStr, CString, c_char, c_void};
use std::ptr;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::bindings as rd;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::RDKafkaErrorCode;

fn millis(wait: Duration) -> i32 {
    i32::try_from(wait.as_millis()).unwrap_or(i32::MAX)
}

/// SAFETY (caller): `text` is null or a NUL-terminated string that lives for the call.
unsafe fn owned_text(text: *const c_char) -> String {
    if text.is_null() { String::new() } else { unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned() }
}

/// A queue of our own into which partitions deliver their messages, apart from the consumer's events.
pub struct DataQueue<C: ConsumerContext + 'static> {
    queue: *mut rd::rd_kafka_queue_t,
    // After `queue`: librdkafka wants its queues gone before the client.
    consumer: Arc<BaseConsumer<C>>,
}

// SAFETY: the pointer is owned by this value alone and librdkafka's queues may be used from any thread.
unsafe impl<C: ConsumerContext + 'static> Send for DataQueue<C> {}

impl<C: ConsumerContext + 'static> DataQueue<C> {
    pub fn new(consumer: Arc<BaseConsumer<C>>) -> DataQueue<C> {
        // SAFETY: the client lives as long as `consumer`; the queue is freed in `drop`.
        let queue = unsafe { rd::rd_kafka_queue_new(consumer.client().native_ptr()) };
        DataQueue { queue, consumer }
    }

    /// Sends everything that this partition fetches from now on into this queue. Call before the partition is assigned.
    /// False when the topic's name cannot be a C string.
    pub fn attach(&self, topic: &str, partition: i32) -> bool {
        let Ok(topic) = CString::new(topic) else { return false };
        // SAFETY: both queues are alive; the partition's handle is released again, the forwarding stays.
        unsafe {
            let source =
                rd::rd_kafka_queue_get_partition(self.consumer.client().native_ptr(), topic.as_ptr(), partition);
            if source.is_null() {
                return false;
            }
            rd::rd_kafka_queue_forward(source, self.queue);
            rd::rd_kafka_queue_destroy(source);
        }
        true
    }

    /// Takes at most `messages.capacity` messages: waits for the first at most `wait`, never for a second one.
    pub fn take(&self, messages: &mut Messages, wait: Duration) {
        messages.clear();
        self.take_more(messages, Duration::ZERO, messages.buffer.len());
        if messages.filled == 0 && !wait.is_zero() {
            // With room for one the call returns as soon as it has one; with room for more it would wait for all.
            self.take_more(messages, wait, 1);
            self.take_more(messages, Duration::ZERO, messages.buffer.len());
        }
    }

    fn take_more(&self, messages: &mut Messages, wait: Duration, until: usize) {
        if messages.filled >= until {
            return;
        }
        let room = &mut messages.buffer[messages.filled..until];
        // SAFETY: `room` is a live buffer of that many pointers; the first `taken` of them are ours to destroy.
        let taken =
            unsafe { rd::rd_kafka_consume_batch_queue(self.queue, millis(wait), room.as_mut_ptr(), room.len()) };
        messages.filled += usize::try_from(taken).unwrap_or(0);
    }
}

impl<C: ConsumerContext + 'static> Drop for DataQueue<C> {
    fn drop(&mut self) {
        // SAFETY: created in `new`, freed once.
        unsafe { rd::rd_kafka_queue_destroy(self.queue) }
    }
}

/// Messages of one [`DataQueue::take`], destroyed on the next `take` and on drop.
pub struct Messages {
    buffer: Vec<*mut rd::rd_kafka_message_t>,
    filled: usize,
}

// SAFETY: messages are owned by this value and may be read and destroyed on any thread.
unsafe impl Send for Messages {}

impl Messages {
    pub fn with_capacity(capacity: usize) -> Messages {
        Messages { buffer: vec![ptr::null_mut(); capacity], filled: 0 }
    }

    pub fn iter(&self) -> impl Iterator<Item = MessageRef<'_>> {
        // SAFETY: the first `filled` pointers are live messages until `clear`, which needs `&mut self`.
        self.buffer[..self.filled].iter().map(|message| MessageRef(unsafe { &**message }))
    }

    fn clear(&mut self) {
        for message in &mut self.buffer[..self.filled] {
            // SAFETY: taken from the queue, destroyed once: `filled` goes back to 0 below.
            unsafe { rd::rd_kafka_message_destroy(*message) }
            *message = ptr::null_mut();
        }
        self.filled = 0;
    }
}

impl Drop for Messages {
    fn drop(&mut self) {
        self.clear();
    }
}

/// One message or one partition-level error, lent by [`Messages`].
pub struct MessageRef<'a>(&'a rd::rd_kafka_message_t);

impl<'a> MessageRef<'a> {
    /// `Some` when this is no record but an error or the end-of-partition mark.
    pub fn error(&self) -> Option<RDKafkaErrorCode> {
        (self.0.err != rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR).then(|| self.0.err.into())
    }

    /// librdkafka's sentence for an error.
    pub fn error_text(&self) -> String {
        // SAFETY: the message is alive; the text belongs to it or is static.
        unsafe { owned_text(rd::rd_kafka_message_errstr(self.0)) }
    }

    /// Equal for all messages of one topic that are alive together: a cheap stand-in for the name.
    pub fn topic_handle(&self) -> usize {
        self.0.rkt as usize
    }

    pub fn topic(&self) -> String {
        if self.0.rkt.is_null() {
            return String::new();
        }
        // SAFETY: a message holds a reference to its topic, whose name lives as long.
        unsafe { owned_text(rd::rd_kafka_topic_name(self.0.rkt)) }
    }

    pub fn partition(&self) -> i32 {
        self.0.partition
    }

    pub fn offset(&self) -> i64 {
        self.0.offset
    }

    pub fn payload(&self) -> Option<&'a [u8]> {
        slice(self.0.payload, self.0.len)
    }

    pub fn key(&self) -> Option<&'a [u8]> {
        slice(self.0.key, self.0.key_len)
    }

    /// Milliseconds since 1970, where the broker gave one.
    pub fn timestamp_ms(&self) -> Option<i64> {
        let mut kind = rd::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: the message is alive, `kind` is written before the call returns.
        let time = unsafe { rd::rd_kafka_message_timestamp(self.0, &mut kind) };
        (kind != rd::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE).then_some(time)
    }

    /// -1 where unknown.
    pub fn leader_epoch(&self) -> i32 {
        // SAFETY: the message is alive.
        unsafe { rd::rd_kafka_message_leader_epoch(self.0) }
    }

    /// Calls `each` with every header in order; a null value comes as empty bytes.
    pub fn for_each_header(&self, mut each: impl FnMut(&str, &[u8])) {
        let mut headers = ptr::null_mut();
        let none = rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;
        // SAFETY: the list belongs to the message and lives as long; name and value point into it.
        unsafe {
            if rd::rd_kafka_message_headers(self.0, &mut headers) != none || headers.is_null() {
                return;
            }
            for index in 0.. {
                let (mut name, mut value, mut len) = (ptr::null(), ptr::null(), 0);
                if rd::rd_kafka_header_get_all(headers, index, &mut name, &mut value, &mut len) != none {
                    return;
                }
                each(&CStr::from_ptr(name).to_string_lossy(), slice(value, len).unwrap_or_default());
            }
        }
    }
}

fn slice<'a>(start: *const c_void, len: usize) -> Option<&'a [u8]> {
    // SAFETY: only called with pointer and length of one message field, whose guard outlives `'a`.
    (!start.is_null()).then(|| unsafe { std::slice::from_raw_parts(start.cast::<u8>(), len) })
}

/// What the broker says about one topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicIdentity {
    pub topic: String,
    /// `Err` when the broker does not know the topic or does not show it.
    pub id: Result<Option<String>, RDKafkaErrorCode>,
}

/// Asks for topic ids without blocking: one request at a time, the answer through a queue of its own.
pub struct TopicIdentities<C: ConsumerContext + 'static> {
    queue: *mut rd::rd_kafka_queue_t,
    consumer: Arc<BaseConsumer<C>>,
}

// SAFETY: as for `DataQueue`.
unsafe impl<C: ConsumerContext + 'static> Send for TopicIdentities<C> {}

impl<C: ConsumerContext + 'static> TopicIdentities<C> {
    pub fn new(consumer: Arc<BaseConsumer<C>>) -> TopicIdentities<C> {
        // SAFETY: as in `DataQueue::new`.
        let queue = unsafe { rd::rd_kafka_queue_new(consumer.client().native_ptr()) };
        TopicIdentities { queue, consumer }
    }

    /// Sends one DescribeTopics request.
    pub fn request(&self, topics: &[String], limit: Duration) {
        let names: Vec<CString> = topics.iter().filter_map(|topic| CString::new(topic.as_str()).ok()).collect();
        let mut pointers: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
        let client = self.consumer.client().native_ptr();
        // SAFETY: the collection copies the names; options and collection are freed after the call, which copies them too.
        unsafe {
            let collection = rd::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len());
            let options =
                rd::rd_kafka_AdminOptions_new(client, rd::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS);
            rd::rd_kafka_AdminOptions_set_request_timeout(options, millis(limit), ptr::null_mut(), 0);
            rd::rd_kafka_DescribeTopics(client, collection, options, self.queue);
            rd::rd_kafka_AdminOptions_destroy(options);
            rd::rd_kafka_TopicCollection_destroy(collection);
        }
    }

    /// The answer to the oldest unanswered request; `None` when it has not come within `wait`.
    pub fn poll(&self, wait: Duration) -> Option<Result<Vec<TopicIdentity>, (RDKafkaErrorCode, String)>> {
        // SAFETY: the event is freed below, after everything was copied out of it.
        unsafe {
            let event = rd::rd_kafka_queue_poll(self.queue, millis(wait));
            if event.is_null() {
                return None;
            }
            let answer = read_identities(event);
            rd::rd_kafka_event_destroy(event);
            Some(answer)
        }
    }
}

impl<C: ConsumerContext + 'static> Drop for TopicIdentities<C> {
    fn drop(&mut self) {
        // SAFETY: created in `new`, freed once.
        unsafe { rd::rd_kafka_queue_destroy(self.queue) }
    }
}

/// SAFETY (caller): `event` is a live event of our queue.
unsafe fn read_identities(event: *mut rd::rd_kafka_event_t) -> Result<Vec<TopicIdentity>, (RDKafkaErrorCode, String)> {
    let none = rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;
    // SAFETY: every pointer below belongs to `event`; topics come as an array of `count` live descriptions.
    unsafe {
        let error = rd::rd_kafka_event_error(event);
        if error != none {
            return Err((error.into(), owned_text(rd::rd_kafka_event_error_string(event))));
        }
        let result = rd::rd_kafka_event_DescribeTopics_result(event);
        if result.is_null() {
            return Err((RDKafkaErrorCode::BadMessage, "no topic description in the answer".to_owned()));
        }
        let mut count = 0;
        let topics = rd::rd_kafka_DescribeTopics_result_topics(result, &mut count);
        let read = |index: usize| {
            let topic = *topics.add(index);
            let error = rd::rd_kafka_error_code(rd::rd_kafka_TopicDescription_error(topic));
            let id = if error == none { Ok(read_id(topic)) } else { Err(error.into()) };
            TopicIdentity { topic: owned_text(rd::rd_kafka_TopicDescription_name(topic)), id }
        };
        Ok((0..count).map(read).collect())
    }
}

/// SAFETY (caller): `topic` is a live description.
unsafe fn read_id(topic: *const rd::rd_kafka_TopicDescription_t) -> Option<String> {
    // SAFETY: the id belongs to the description; its text to the id.
    unsafe {
        let id = rd::rd_kafka_TopicDescription_topic_id(topic);
        if id.is_null()
            || (rd::rd_kafka_Uuid_most_significant_bits(id) == 0 && rd::rd_kafka_Uuid_least_significant_bits(id) == 0)
        {
            return None;
        }
        Some(owned_text(rd::rd_kafka_Uuid_base64str(id)))
    }
}

/// Tells the broker under which leader epoch the record before the start offset was read, so that it can find truncation.
pub fn set_leader_epoch(list: &mut TopicPartitionList, topic: &str, partition: i32, epoch: i32) {
    let Ok(topic) = CString::new(topic) else { return };
    // SAFETY: the list is alive and borrowed mutably; the element, where found, belongs to it.
    unsafe {
        let element = rd::rd_kafka_topic_partition_list_find(list.ptr(), topic.as_ptr(), partition);
        if !element.is_null() {
            rd::rd_kafka_topic_partition_set_leader_epoch(element, epoch);
        }
    }
}

/// Topic, partition, offset and commit metadata of every element. (The crate's accessor panics on metadata that is no UTF-8.)
pub fn elements(list: &TopicPartitionList) -> Vec<(String, i32, i64, Vec<u8>)> {
    // SAFETY: the list is alive; `elems` holds `cnt` elements whose text and metadata belong to it.
    unsafe {
        let raw = &*list.ptr();
        (0..usize::try_from(raw.cnt).unwrap_or(0))
            .map(|index| {
                let element = &*raw.elems.add(index);
                let metadata = slice(element.metadata, element.metadata_size).unwrap_or_default().to_vec();
                (owned_text(element.topic), element.partition, element.offset, metadata)
            })
            .collect()
    }
}

/// The partition's (low, high) offsets as the last fetch reported them, without asking the broker.
pub fn cached_watermarks<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    partition: i32,
) -> Option<(i64, i64)> {
    let topic = CString::new(topic).ok()?;
    let (mut low, mut high) = (-1, -1);
    // SAFETY: the client is alive; both numbers are written before the call returns.
    let code = unsafe {
        rd::rd_kafka_get_watermark_offsets(
            consumer.client().native_ptr(),
            topic.as_ptr(),
            partition,
            &mut low,
            &mut high,
        )
    };
    (code == rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR && high >= 0).then_some((low, high))
}
