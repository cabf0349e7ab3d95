//! What both exporters share: a message as NATS carries it, its size, and the server's word that it has read all we sent.

use std::time::Duration;

use async_nats::HeaderMap;
use futures::StreamExt;
use gravity_model::port::export::{Delivery, Message};
use gravity_model::{Fault, FaultKind};
use tokio::time::Instant;

use super::batch::MESSAGE_ID;
use super::connect::{ASK_LIMIT, Link};
use super::error::chain;

const REFUSAL_SHOWS: Duration = Duration::from_millis(100);

/// The message's headers, its content type, and the id that is the same on every retry.
pub(super) fn headers(message: &Message) -> HeaderMap {
    let mut map = HeaderMap::new();
    let typed = message.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type"));
    for (name, value) in &message.headers {
        map.append(name.as_str(), one_line(value).as_str());
    }
    if !typed {
        map.insert("content-type", message.content_type);
    }
    map.insert(MESSAGE_ID, one_line(&message.id).as_str());
    map
}

/// A header's value ends at the first line break; one of its own would begin a header that nobody wrote.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c == '\r' || c == '\n' { ' ' } else { c }).collect()
}

/// Refuses a message that this server will never take: payload and headers count together.
pub(super) fn too_large(message: &Message, limit: usize, doing: impl Fn() -> String) -> Option<Fault> {
    const FRAME: usize = "NATS/1.0\r\n\r\n".len();
    const LINE: usize = ": \r\n".len();
    let fixed =
        FRAME + MESSAGE_ID.len() + message.id.len() + "content-type".len() + message.content_type.len() + 2 * LINE;
    let headers: usize = message.headers.iter().map(|(name, value)| name.len() + value.len() + LINE).sum();
    let size = message.body.len() + headers + fixed;
    (size > limit).then(|| {
        let detail = format!("message {} has {size} bytes, the server takes {limit}", message.id);
        Fault::new(FaultKind::RefusedEvent, "nats-too-large", doing(), detail)
    })
}

/// Waits until the server has read everything that this connection sent: it handles a connection's lines in order, so a message
/// of ours to ourselves comes back behind them.
pub(super) async fn round_trip(link: &Link, doing: String) -> Result<(), Fault> {
    let failed = |error: &(dyn std::error::Error + 'static), doing: &str| {
        link.explain(Fault::new(FaultKind::Disconnected, "nats-flush", doing, chain(error)))
    };
    let inbox = link.client.new_inbox();
    let mut echo = link.client.subscribe(inbox.clone()).await.map_err(|error| failed(&error, &doing))?;
    link.client.publish(inbox, "".into()).await.map_err(|error| failed(&error, &doing))?;
    tokio::select! {
        biased;
        echoed = echo.next() => match echoed {
            Some(_) => Ok(()),
            None => Err(link.lost_fault(doing)),
        },
        () = link.events.lost() => Err(link.lost_fault(doing)),
        () = tokio::time::sleep_until(Instant::now() + ASK_LIMIT) => {
            let detail = format!("the server did not answer within {ASK_LIMIT:?}");
            Err(link.explain(Fault::new(FaultKind::Disconnected, "nats-no-answer", doing, detail)))
        }
    }
}

/// After a round trip: has the server refused something of what it read? Its refusal comes before its answer, but through the
/// client on another way, so it is given a moment.
pub(super) async fn refused(link: &Link, doing: String) -> Result<(), Fault> {
    tokio::time::sleep(REFUSAL_SHOWS).await;
    match link.events.refusal() {
        Some(refusal) => Err(Fault::new(FaultKind::Misconfigured, "nats-permission", doing, refusal)),
        None => Ok(()),
    }
}

/// The same fault for every message.
pub(super) fn all_failed(count: usize, fault: &Fault) -> Vec<Delivery> {
    (0..count).map(|_| Delivery::failed(copy(fault))).collect()
}

pub(super) fn copy(fault: &Fault) -> Fault {
    Fault::new(fault.kind, fault.code.clone(), fault.doing.clone(), fault.detail.clone())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use gravity_model::Sequence;

    use super::*;

    fn message(body: usize, header: &str) -> Message {
        Message {
            id: "id-1".to_owned(),
            sequence: Sequence(1),
            event: "e".to_owned(),
            key: None,
            content_type: "application/json",
            headers: vec![("ce-id".to_owned(), header.to_owned())],
            body: Bytes::from(vec![b'x'; body]),
        }
    }

    #[test]
    fn a_line_break_in_a_value_adds_no_header() {
        let map = headers(&message(0, "a\r\nNats-Msg-Id: other"));
        assert_eq!(map.get(MESSAGE_ID).map(|value| value.as_str()), Some("id-1"));
        assert_eq!(map.get("ce-id").map(|value| value.as_str()), Some("a  Nats-Msg-Id: other"));
        assert_eq!(map.len(), 3);
    }

    #[test]
    fn headers_count_towards_the_limit() {
        assert!(too_large(&message(800, ""), 1000, String::new).is_none());
        let fault = too_large(&message(800, &"h".repeat(200)), 1000, String::new).expect("too large");
        assert_eq!(fault.kind, FaultKind::RefusedEvent);
        assert!(too_large(&message(1000, ""), 1000, String::new).is_some());
    }
}
