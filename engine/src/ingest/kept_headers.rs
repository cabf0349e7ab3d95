//! Which headers of a request stay with its events: a log that is kept for ever has no use for those of the transport.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use gravity_model::HeaderBuf;

/// Beginnings of names that speak of the event, in lower case.
const KEPT: [&str; 3] = ["ce-", "x-", DEBEZIUM];

/// Debezium's own headers, which tell a change of a row's key.
const DEBEZIUM: &str = "__debezium.";

/// What Debezium's server puts before them when it posts to a URL, with their values in base64 unless it is told otherwise
/// (`debezium.sink.http.headers.prefix`, `debezium.sink.http.headers.encode.base64`).
const OF_ITS_SERVER: &str = "x-debezium-";

/// Headers with names in lower case, in their order.
pub fn kept_headers(headers: &[(String, String)]) -> HeaderBuf {
    let mut kept = HeaderBuf::new();
    for (name, value) in headers {
        let own = name.strip_prefix(OF_ITS_SERVER).filter(|own| own.starts_with(DEBEZIUM));
        if let Some(own) = own {
            // A row's key is an object in JSON, which base64 cannot be mistaken for.
            let decoded = STANDARD.decode(value).unwrap_or_else(|_| value.clone().into_bytes());
            kept.push(own, &decoded);
        } else if KEPT.iter().any(|begin| name.starts_with(begin)) || matches!(&**name, "traceparent" | "tracestate") {
            kept.push(name, value.as_bytes());
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_speaks_of_the_event_stays() {
        let given = [
            ("host", "here"),
            ("ce-type", "a"),
            ("x-row-key", "7"),
            ("authorization", "secret"),
            ("traceparent", "00-1"),
            ("__debezium.newkey", r#"{"id":1}"#),
            ("x-debezium-__debezium.oldkey", "eyJpZCI6Mn0="),
            ("x-debezium-__debezium.newkey", r#"{"id":3}"#),
            ("x-debezium-other", "eyJpZCI6Mn0="),
        ];
        let given = given.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let kept = kept_headers(&given);
        let kept: Vec<String> = kept
            .as_headers()
            .iter()
            .map(|(name, value)| format!("{name}={}", std::str::from_utf8(value).expect("text")))
            .collect();
        let expected = [
            "ce-type=a",
            "x-row-key=7",
            "traceparent=00-1",
            r#"__debezium.newkey={"id":1}"#,
            r#"__debezium.oldkey={"id":2}"#,
            r#"__debezium.newkey={"id":3}"#,
            "x-debezium-other=eyJpZCI6Mn0=",
        ];
        assert_eq!(kept, expected);
    }
}
