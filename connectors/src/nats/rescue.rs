//! A message that the client cannot read: headers that are not text make it drop the connection, before anybody sees the
//! message, again at every try (S12). It is fetched by its number instead, as bytes, and stored like any other.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use gravity_model::{Fault, FaultKind, Micros};
use serde_json::{Value, json};

use super::connect::Link;
use super::error::of_request;
use super::stream::Found;

/// A message as the stream holds it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RawMessage {
    pub sequence: u64,
    pub subject: String,
    pub payload: Vec<u8>,
    /// Names as far as they are text.
    pub headers: Vec<(String, Vec<u8>)>,
    pub time: Option<Micros>,
}

/// Counts connections that were lost at the same place without a single message.
#[derive(Default)]
pub(super) struct Stuck {
    at: u64,
    times: u32,
}

impl Stuck {
    pub(super) fn lost_at(&mut self, next: u64) {
        self.times = if self.at == next { self.times + 1 } else { 1 };
        self.at = next;
    }

    pub(super) fn moved(&mut self) {
        self.times = 0;
    }

    /// Worth fetching the message at `next` by its number. Where only the network was at fault that does no harm.
    pub(super) fn is_at(&self, next: u64) -> bool {
        self.at == next && self.times >= 2
    }
}

/// The first message at or behind `next` that the source wants; `None` where there is none.
pub(super) async fn fetch(link: &Link, source: &str, found: &Found) -> Result<Option<RawMessage>, Fault> {
    let stream = &found.stream.cached_info().config.name;
    let doing = || format!("fetch sequence {} of stream {stream} for source {source}", found.begin.next);
    let context = async_nats::jetstream::new(link.client.clone());
    let everything = [">".to_owned()];
    let filters = if found.filters.is_empty() { &everything[..] } else { &found.filters[..] };
    let mut first: Option<RawMessage> = None;
    for filter in filters {
        let question = json!({"seq": found.begin.next, "next_by_subj": filter});
        let answer: Result<Value, _> = context.request(format!("STREAM.MSG.GET.{stream}"), &question).await;
        let answer = answer.map_err(|error| link.explain(of_request(error, doing())))?;
        if answer["error"]["code"] == 404 {
            continue;
        }
        let Some(message) = understand(&answer["message"]) else {
            let detail = "the server's answer is no message";
            return Err(Fault::new(FaultKind::Disconnected, "nats-fetch", doing(), detail));
        };
        if first.as_ref().is_none_or(|first| message.sequence < first.sequence) {
            first = Some(message);
        }
    }
    if let Some(message) = &first {
        tracing::warn!(
            source,
            stream,
            sequence = message.sequence,
            "a message was fetched alone: the client cannot read it"
        );
    }
    Ok(first)
}

fn understand(message: &Value) -> Option<RawMessage> {
    let bytes = |key: &str| message[key].as_str().map_or(Some(Vec::new()), |text| STANDARD.decode(text).ok());
    let time = message["time"].as_str().and_then(|text| chrono::DateTime::parse_from_rfc3339(text).ok());
    Some(RawMessage {
        sequence: message["seq"].as_u64()?,
        subject: message["subject"].as_str()?.to_owned(),
        payload: bytes("data")?,
        headers: headers(&bytes("hdrs")?),
        time: time.map(|time| time.timestamp_micros()),
    })
}

/// Lines `NAME: VALUE` behind the version; what is no such line is left out.
fn headers(block: &[u8]) -> Vec<(String, Vec<u8>)> {
    let lines = block.split(|byte| *byte == b'\n').skip(1);
    let pair = |line: &[u8]| {
        let at = line.iter().position(|byte| *byte == b':')?;
        let (name, value) = (line[..at].trim_ascii(), line[at + 1..].trim_ascii());
        (!name.is_empty()).then(|| (String::from_utf8_lossy(name).into_owned(), value.to_vec()))
    };
    lines.filter_map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_raw_message_is_understood() {
        let hdrs = STANDARD.encode(b"NATS/1.0\r\na: 1\r\nbad: \xff\xfe\r\nno line\r\n: x\r\n\r\n");
        let message = json!({"seq": 7, "subject": "s", "data": STANDARD.encode("p"), "hdrs": hdrs, "time": "1970-01-01T00:00:01.5Z"});
        let expected = RawMessage {
            sequence: 7,
            subject: "s".to_owned(),
            payload: b"p".to_vec(),
            headers: vec![("a".to_owned(), b"1".to_vec()), ("bad".to_owned(), vec![0xff, 0xfe])],
            time: Some(1_500_000),
        };
        assert_eq!(understand(&message), Some(expected));
        assert_eq!(understand(&json!({"seq": 7})), None);
        assert_eq!(understand(&json!({"seq": 7, "subject": "s", "data": "*"})), None);
    }

    #[test]
    fn only_losses_at_one_place_in_a_row_count() {
        let mut stuck = Stuck::default();
        stuck.lost_at(5);
        assert!(!stuck.is_at(5));
        stuck.lost_at(5);
        assert!(stuck.is_at(5) && !stuck.is_at(6));
        stuck.lost_at(6);
        assert!(!stuck.is_at(5) && !stuck.is_at(6));
        stuck.lost_at(6);
        stuck.moved();
        assert!(!stuck.is_at(6));
    }
}
