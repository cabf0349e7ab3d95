//! Messages to a URL are signed as Standard Webhooks says, so that a receiver who never saw our code can check them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use gravity_conformance::export_suite::{is_delivered, kind, numbered};
use gravity_conformance::local_http::{LocalHttp, Reply, Request};
use gravity_conformance::webhook_receiver::{Signed, verify};
use gravity_connectors::http::{HttpExporter, HttpExporterOptions, SigningKey};
use gravity_model::FaultKind;
use gravity_model::port::export::{Exporter, Message};

const NEW: &str = "whsec_bmV3LW5ldy1uZXctbmV3LW5ldy1uZXctbmV3LW5ldy0=";
const OLD: &str = "whsec_b2xkLW9sZC1vbGQtb2xkLW9sZC1vbGQt";
const OTHER: &str = "whsec_b3RoZXItb3RoZXItb3RoZXItb3RoZXIt";

fn exporter(server: &LocalHttp, secrets: &[&str]) -> HttpExporter {
    let signing = secrets.iter().map(|secret| SigningKey::parse(secret).expect("a secret")).collect();
    let options = HttpExporterOptions { url: server.url(), signing, ..HttpExporterOptions::default() };
    HttpExporter::new("hook", &options).expect("options")
}

fn signed(request: &Request) -> Signed {
    let header = |name: &str| request.header(name).unwrap_or_else(|| panic!("no {name}: {request:?}")).to_owned();
    Signed {
        id: header("webhook-id"),
        timestamp: header("webhook-timestamp"),
        signature: header("webhook-signature"),
        body: request.body.clone(),
    }
}

fn all(said: &[String], word: &str) -> bool {
    said.iter().all(|line| line == word)
}

#[tokio::test]
async fn a_receiver_verifies_with_either_of_two_secrets_and_with_no_other() {
    let server = LocalHttp::start(|_| Reply::Status(204)).await;
    let mut messages: Vec<Message> = (0..40).map(|number| numbered(number, Some("a"))).collect();
    messages[1].body = "".into();
    messages[2].body = "{\"t\": \"é\u{1f600}. \\n\"}".into();
    messages[3].body = vec![b'x'; 300_000].into();
    assert!(exporter(&server, &[NEW, OLD]).export(&messages).await.iter().all(is_delivered));
    let deliveries: Vec<Signed> = server.requests().iter().map(signed).collect();
    assert_eq!(deliveries.len(), 40);
    for (message, delivery) in messages.iter().zip(&deliveries) {
        assert_eq!(delivery.id, message.id, "the id that is the same on every retry");
        assert_eq!(delivery.signature.split(' ').count(), 2, "{delivery:?}");
    }
    let Some(with_new) = verify(NEW, &deliveries) else { return };
    assert!(all(&with_new, "valid"), "{with_new:?}");
    assert!(all(&verify(OLD, &deliveries).expect("python3 is there"), "valid"));
    assert!(all(&verify(OTHER, &deliveries).expect("python3 is there"), "no signature fits"));
    let tampered = |change: fn(&mut Signed)| {
        let mut changed = deliveries.clone();
        changed.iter_mut().for_each(change);
        verify(NEW, &changed).expect("python3 is there")
    };
    assert!(all(&tampered(|d| d.body.push(b' ')), "no signature fits"), "the body is signed");
    assert!(all(&tampered(|d| d.id.push('0')), "no signature fits"), "the id is signed");
    let later = |d: &mut Signed| d.timestamp = (d.timestamp.parse::<u64>().expect("seconds") + 1).to_string();
    assert!(all(&tampered(later), "no signature fits"), "the time is signed");
}

#[tokio::test]
async fn a_retry_keeps_the_id_and_is_signed_with_its_own_time() {
    let server = LocalHttp::start(|_| Reply::Status(503)).await;
    let exporter = exporter(&server, &[NEW]);
    let message = [numbered(7, Some("a"))];
    assert_eq!(kind(&exporter.export(&message).await[0]), FaultKind::Transient);
    // The time is in whole seconds.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    server.behave(|_| Reply::Status(200));
    assert!(is_delivered(&exporter.export(&message).await[0]));
    let attempts: Vec<Signed> = server.requests().iter().map(signed).collect();
    let [first, second] = attempts.as_slice() else { panic!("{attempts:?}") };
    assert_eq!((&first.id, &first.body), (&second.id, &second.body));
    let seconds = |signed: &Signed| signed.timestamp.parse::<u64>().expect("seconds");
    assert!(seconds(first) < seconds(second), "{attempts:?}");
    assert_ne!(first.signature, second.signature);
    let Some(said) = verify(NEW, &attempts) else { return };
    assert!(all(&said, "valid"), "{said:?}");
}

#[tokio::test]
async fn without_secrets_and_in_probes_nothing_is_signed() {
    let server = LocalHttp::start(|_| Reply::Status(200)).await;
    assert!(exporter(&server, &[]).export(&[numbered(1, None)]).await.iter().all(is_delivered));
    exporter(&server, &[NEW]).probe().await.expect("reachable");
    let requests = server.requests();
    assert_eq!(requests.len(), 2);
    for request in requests {
        assert!(request.headers.iter().all(|(name, _)| !name.to_ascii_lowercase().starts_with("webhook-")));
    }
}

/// A message cannot bring headers that the receiver would take for the signature's.
#[tokio::test]
async fn a_messages_own_headers_do_not_replace_the_signature() {
    let server = LocalHttp::start(|_| Reply::Status(200)).await;
    let mut message = numbered(1, Some("a"));
    for name in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
        message.headers.push((name.to_owned(), "forged".to_owned()));
    }
    assert!(exporter(&server, &[NEW]).export(&[message]).await.iter().all(is_delivered));
    let request = server.requests().remove(0);
    let named = |name: &str| request.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).count();
    assert_eq!([named("webhook-id"), named("webhook-timestamp"), named("webhook-signature")], [1, 1, 1]);
    let Some(said) = verify(NEW, &[signed(&request)]) else { return };
    assert!(all(&said, "valid"), "{said:?}");
}

/// Every key is held until its own message passes, whatever the parallel ones do: the time of a message is that of its
/// sending, not of the batch.
#[tokio::test]
async fn a_message_that_waited_for_its_key_is_signed_when_it_is_sent() {
    static FIRST: AtomicUsize = AtomicUsize::new(0);
    let server = LocalHttp::start(|_| match FIRST.fetch_add(1, Ordering::SeqCst) {
        0 => Reply::Late(Duration::from_millis(1_200), 200),
        _ => Reply::Status(200),
    })
    .await;
    let messages = [numbered(1, Some("a")), numbered(2, Some("a"))];
    assert!(exporter(&server, &[NEW]).export(&messages).await.iter().all(is_delivered));
    let times: Vec<u64> =
        server.requests().iter().map(|request| signed(request).timestamp.parse().expect("seconds")).collect();
    assert!(times[0] < times[1], "{times:?}");
}
