//! The contract of the exporter port, run over every exporter: the memory double, a real Kafka, an HTTP endpoint.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use gravity_model::port::export::{Delivery, Exporter, Message};
use gravity_model::{FaultKind, Sequence};

/// A target as the suite needs it, made fresh for one case.
#[async_trait]
pub trait ExportRig: Send + Sync {
    fn exporter(&self) -> Box<dyn Exporter>;

    /// A message that this target refuses for its content, for ever.
    fn refusable(&self, number: u64, key: &str) -> Message;

    /// An exporter that leads to a place that refuses everything: unknown topic, 404.
    fn misplaced(&self) -> Box<dyn Exporter>;

    /// An exporter that leads nowhere.
    fn unreachable(&self) -> Box<dyn Exporter>;

    /// True where the target itself knows a repeat by its id and keeps the first.
    fn knows_repeats(&self) -> bool {
        false
    }

    /// Everything that arrived, duplicates included, in order per key.
    async fn arrived(&self) -> Vec<Arrived>;
}

/// A message as the target has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrived {
    pub id: String,
    /// `None` where the protocol carries no key.
    pub key: Option<Vec<u8>>,
    pub body: Vec<u8>,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
}

/// Message `number` of this key: its body and id tell both.
pub fn numbered(number: u64, key: Option<&str>) -> Message {
    Message {
        id: format!("id-{number:06}"),
        sequence: Sequence(number),
        event: "userCreated".to_owned(),
        key: key.map(|key| Bytes::copy_from_slice(key.as_bytes())),
        content_type: "application/json",
        headers: vec![
            ("ce_id".to_owned(), format!("id-{number:06}")),
            ("ce_type".to_owned(), "userCreated".to_owned()),
            ("traceparent".to_owned(), "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
        ],
        body: Bytes::from(format!("{{\"number\":{number},\"key\":\"{}\"}}", key.unwrap_or_default())),
    }
}

/// The fault of a failed delivery; panics on success.
pub fn kind(delivery: &Delivery) -> FaultKind {
    match delivery {
        Delivery::Delivered => panic!("delivered, but should not be"),
        Delivery::Failed { fault, .. } => fault.kind,
    }
}

pub fn is_delivered(delivery: &Delivery) -> bool {
    matches!(delivery, Delivery::Delivered)
}

fn ids(messages: &[Message]) -> BTreeSet<String> {
    messages.iter().map(|message| message.id.clone()).collect()
}

/// Asserts that the messages of each key arrived in ascending number, when the first arrival of each id counts.
pub fn assert_order_per_key(arrived: &[Arrived], key_of: impl Fn(&Arrived) -> Vec<u8>) {
    let mut seen = BTreeSet::new();
    let mut last: BTreeMap<Vec<u8>, String> = BTreeMap::new();
    for message in arrived.iter().filter(|message| seen.insert(message.id.clone())) {
        let key = key_of(message);
        if let Some(before) = last.insert(key.clone(), message.id.clone()) {
            assert!(before < message.id, "key {:?}: {before} before {}", String::from_utf8_lossy(&key), message.id);
        }
    }
}

/// The key that `numbered` wrote into the body, for targets that carry none.
pub fn key_in_body(message: &Arrived) -> Vec<u8> {
    let value: serde_json::Value = serde_json::from_slice(&message.body).expect("body of a numbered message");
    value["key"].as_str().expect("key").as_bytes().to_vec()
}

pub async fn a_message_arrives_whole(rig: &dyn ExportRig) {
    let exporter = rig.exporter();
    exporter.probe().await.expect("reachable");
    let messages = vec![numbered(1, Some("a")), numbered(2, None)];
    let outcomes = exporter.export(&messages).await;
    assert!(outcomes.iter().all(is_delivered), "{outcomes:?}");
    exporter.close().await;
    let arrived = rig.arrived().await;
    assert_eq!(arrived.len(), 2);
    for message in &messages {
        let found = arrived.iter().find(|arrived| arrived.id == message.id).expect("arrived under its id");
        assert_eq!(found.body, message.body);
        assert_eq!(found.headers.get("content-type").map(String::as_str), Some("application/json"));
        for (name, value) in &message.headers {
            assert_eq!(found.headers.get(name), Some(value), "header {name}");
        }
    }
}

pub async fn nothing_to_send_is_no_message(rig: &dyn ExportRig) {
    let exporter = rig.exporter();
    assert!(exporter.export(&[]).await.is_empty());
    exporter.close().await;
    assert!(rig.arrived().await.is_empty());
}

/// O45: order per key, no double, no loss.
pub async fn o45_order_holds_per_key(rig: &dyn ExportRig) {
    let exporter = rig.exporter();
    let mut sent = BTreeSet::new();
    for round in 0..4_u64 {
        let messages: Vec<Message> = (0..250)
            .map(|index| {
                let number = round * 250 + index;
                numbered(number, Some(&format!("k{}", (number * 7919) % 40)))
            })
            .collect();
        let outcomes = exporter.export(&messages).await;
        assert_eq!(outcomes.len(), messages.len());
        assert!(outcomes.iter().all(is_delivered), "{:?}", outcomes.iter().find(|outcome| !is_delivered(outcome)));
        sent.extend(ids(&messages));
    }
    exporter.close().await;
    let arrived = rig.arrived().await;
    assert_order_per_key(&arrived, key_in_body);
    assert_eq!(arrived.len(), 1000, "each once");
    assert_eq!(arrived.into_iter().map(|message| message.id).collect::<BTreeSet<_>>(), sent);
}

/// E1: a crash between confirmation and cursor.
pub async fn e1_a_resent_message_has_the_same_id(rig: &dyn ExportRig) {
    for _ in 0..2 {
        let exporter = rig.exporter();
        assert!(exporter.export(&[numbered(7, Some("a"))]).await.iter().all(is_delivered));
        exporter.close().await;
    }
    let arrived = rig.arrived().await;
    let times = if rig.knows_repeats() { 1 } else { 2 };
    assert_eq!(arrived.iter().map(|message| message.id.as_str()).collect::<Vec<_>>(), vec!["id-000007"; times]);
    assert_eq!(arrived.first(), arrived.last());
}

/// E5: one refused message holds back its key and nothing else.
pub async fn e5_a_refused_message_holds_back_its_key_only(rig: &dyn ExportRig) {
    let exporter = rig.exporter();
    let messages = vec![
        numbered(1, Some("bad")),
        numbered(2, Some("good")),
        rig.refusable(3, "bad"),
        numbered(4, Some("good")),
        numbered(5, Some("bad")),
        numbered(6, None),
    ];
    let outcomes = exporter.export(&messages).await;
    assert_eq!(kind(&outcomes[2]), FaultKind::RefusedEvent, "{:?}", outcomes[2]);
    assert_ne!(kind(&outcomes[4]), FaultKind::RefusedEvent, "held back, not refused: {:?}", outcomes[4]);
    for index in [0, 1, 3, 5] {
        assert!(is_delivered(&outcomes[index]), "message {index}: {:?}", outcomes[index]);
    }
    let arrived: BTreeSet<String> = rig.arrived().await.into_iter().map(|message| message.id).collect();
    assert!(!arrived.contains("id-000005"), "nothing of the key may pass the refused one");
    assert!(arrived.is_superset(&["id-000001", "id-000002", "id-000004", "id-000006"].map(str::to_owned).into()));
    // Parked by the engine, its key goes on.
    assert!(exporter.export(&[numbered(5, Some("bad"))]).await.iter().all(is_delivered));
    exporter.close().await;
}

pub async fn e3_a_place_that_refuses_is_misconfigured(rig: &dyn ExportRig) {
    let exporter = rig.misplaced();
    let outcomes = exporter.export(&[numbered(1, Some("a")), numbered(2, Some("a"))]).await;
    assert_eq!(outcomes.len(), 2);
    assert_eq!(kind(&outcomes[0]), FaultKind::Misconfigured, "{:?}", outcomes[0]);
    assert!(!is_delivered(&outcomes[1]));
    exporter.close().await;
    assert!(rig.arrived().await.is_empty());
}

pub async fn e4_nobody_there_is_told_in_bounded_time(rig: &dyn ExportRig) {
    let exporter = rig.unreachable();
    let begun = Instant::now();
    let outcomes = exporter.export(&[numbered(1, Some("a")), numbered(2, Some("b"))]).await;
    assert_eq!(kind(&outcomes[0]), FaultKind::Disconnected, "{:?}", outcomes[0]);
    assert!(!is_delivered(&outcomes[1]));
    assert!(exporter.probe().await.is_err(), "a probe does not pass either");
    exporter.close().await;
    assert!(begun.elapsed() < Duration::from_secs(45), "{:?}", begun.elapsed());
}

/// Expands to one test per case. `$rig` is an async function that gives `Some` of a fresh rig, or `None` after it has printed
/// why it cannot.
#[macro_export]
macro_rules! export_suite {
    ($rig:path) => {
        $crate::export_suite!(@cases $rig;
            a_message_arrives_whole,
            nothing_to_send_is_no_message,
            o45_order_holds_per_key,
            e1_a_resent_message_has_the_same_id,
            e5_a_refused_message_holds_back_its_key_only,
            e3_a_place_that_refuses_is_misconfigured,
            e4_nobody_there_is_told_in_bounded_time,
        );
    };
    (@cases $rig:path; $($case:ident),* $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                if let Some(rig) = $rig().await {
                    $crate::export_suite::$case(&rig).await;
                }
            }
        )*
    };
}
