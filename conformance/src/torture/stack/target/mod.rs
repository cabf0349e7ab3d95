//! Where exporters deliver: an HTTP endpoint of ours that now and then misbehaves, and a topic, a stream, a queue that are read at
//! the end.

pub mod hook;
pub mod queue;
pub mod stream;
pub mod topic;

use serde_json::Value;

/// One message that an exporter delivered, in order of arrival within its order (key).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivered {
    pub id: String,
    /// The script's item, from the payload.
    pub item: u64,
}

/// Reads a CloudEvent, binary (attributes in headers `ce_`/`ce-`) or structured.
fn read(header: impl Fn(&str) -> Option<String>, body: &[u8]) -> Result<Delivered, String> {
    let show = || String::from_utf8_lossy(&body[..body.len().min(300)]).into_owned();
    let value: Value = serde_json::from_slice(body).map_err(|error| format!("{error} in {}", show()))?;
    let binary = header("id");
    let data = if binary.is_some() { &value } else { &value["data"] };
    let id = binary.or_else(|| value["id"].as_str().map(str::to_owned));
    match (id, data["i"].as_u64()) {
        (Some(id), Some(item)) => Ok(Delivered { id, item }),
        _ => Err(format!("no id or no item in {}", show())),
    }
}

/// What an exporter's receiver got.
#[derive(Default)]
pub struct Received {
    pub messages: Vec<Delivered>,
    pub problems: Vec<String>,
}

impl Received {
    /// Takes one message in; of what cannot be read, the first few.
    fn take(&mut self, read: Result<Delivered, String>) {
        match read {
            Ok(delivered) => self.messages.push(delivered),
            Err(why) if self.problems.len() < 20 => self.problems.push(why),
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_a_cloud_event_are_read() {
        let expected = Ok(Delivered { id: "x".to_owned(), item: 7 });
        let none = |_: &str| None;
        assert_eq!(read(none, br#"{"specversion":"1.0","id":"x","data":{"i":7}}"#), expected);
        assert_eq!(read(|name| (name == "id").then(|| "x".to_owned()), br#"{"i":7}"#), expected);
        assert!(read(none, br#"{"i":7}"#).is_err());
        assert!(read(none, b"not json").is_err());
    }
}
