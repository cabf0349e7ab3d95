//! Envelopes: what each shape decodes to, and what is no event.

use super::*;

#[derive(Default)]
struct Case<'a> {
    options: EnvelopeOptions,
    payload: Option<&'a [u8]>,
    key: Option<&'a [u8]>,
    headers: &'a [(&'a str, &'a str)],
}

/// `name|id|key|payload`, or the code.
fn check(case: Case<'_>, expect: &str) {
    let mut headers = HeaderBuf::new();
    case.headers.iter().for_each(|(n, v)| headers.push(n, v.as_bytes()));
    let message = Message {
        payload: case.payload,
        key: case.key,
        headers: headers.as_headers(),
        subject: "orders",
        time: None,
        content_type: None,
        after_delete: None,
    };
    let mut extra = HeaderBuf::new();
    let got = match decode(&case.options, &message, &mut extra) {
        Err(error) => error.code.to_owned(),
        Ok(d) => format!(
            "{}|{}|{}|{}",
            d.name,
            d.id.unwrap_or_default(),
            String::from_utf8_lossy(&d.key.unwrap_or_default()),
            d.payload.map_or("null".into(), |p| String::from_utf8_lossy(&p).into_owned()),
        ),
    };
    assert_eq!(got, expect, "{:?}", case.payload.map(String::from_utf8_lossy));
}

fn auto(payload: &str, expect: &str) {
    check(Case { payload: Some(payload.as_bytes()), ..Case::default() }, expect);
}

fn plain(from: NameFrom, payload: &str, expect: &str) {
    let options = EnvelopeOptions { envelope: Envelope::Plain, event_from: Some(from), ..EnvelopeOptions::default() };
    check(Case { options, payload: Some(payload.as_bytes()), ..Case::default() }, expect);
}

#[test]
fn the_originals_envelope() {
    auto(r#"{"event":"userCreated","payload":{"id":1}}"#, r#"userCreated|||{"id":1}"#);
    auto(r#" { "payload" : { "n": 1.10 } , "event":"e", "id":"x", "key":"k" } "#, r#"e|x|k|{ "n": 1.10 }"#);
    auto(r#"{"event":"e","payload":null}"#, "e|||null");
    auto(r#"{"event":"\u0065","payload":0}"#, "e|||0");
}

#[test]
fn what_is_no_event() {
    auto("", "decode/not-json");
    auto("{", "decode/not-json");
    auto(r#"{"event":"e","payload":{}} x"#, "decode/not-json");
    auto("7", "decode/no-event-name");
    auto("[1]", "decode/no-event-name");
    auto(r#"{"event":7,"payload":{}}"#, "decode/bad-event-name");
    auto(r#"{"event":"","payload":{}}"#, "decode/bad-event-name");
    auto(r#"{"event":"e"}"#, "decode/no-payload");
    auto(r#"{"a":1}"#, "decode/no-event-name");
    auto(r#"{"event":"gravity.opened","payload":{}}"#, "decode/reserved-name");
    auto(r#"{"event":"e","payload":{},"id":7}"#, "decode/bad-envelope");
    auto(r#"{"event":"e","payload":{},"time":"yesterday"}"#, "decode/bad-envelope");
    check(Case { payload: Some(b"{\"event\":\"\xff\"}"), ..Case::default() }, "decode/not-utf8");
}

#[test]
fn plain_json_is_named_by_the_source() {
    plain(NameFrom::Constant("orders".into()), r#"{"event":"x","payload":1}"#, r#"orders|||{"event":"x","payload":1}"#);
    plain(NameFrom::Subject, "[1]", "orders|||[1]");
    plain(NameFrom::Field("/op/0".into()), r#"{"op":["u"]}"#, r#"u|||{"op":["u"]}"#);
    plain(NameFrom::Field("/op".into()), r#"{"op":1}"#, "decode/no-event-name");
    plain(NameFrom::Subject, "{,}", "decode/not-json");
    let options = EnvelopeOptions { event_from: Some(NameFrom::Subject), ..EnvelopeOptions::default() };
    check(
        Case { options: options.clone(), payload: Some(br#"{"event":"x"}"#), ..Case::default() },
        r#"orders|||{"event":"x"}"#,
    );
    check(Case { options, ..Case::default() }, "orders|||null");
}

#[test]
fn keys() {
    let by = |key_from| EnvelopeOptions { key_from: Some(key_from), ..EnvelopeOptions::default() };
    let payload = br#"{"event":"e","key":"own","payload":{"id":{"n":12},"s":"a\"b"}}"#;
    let body = r#"{"id":{"n":12},"s":"a\"b"}"#;
    let case = |options, key| Case { options, payload: Some(payload), key, headers: &[("h", "hk")] };
    check(case(EnvelopeOptions::default(), None), &format!("e||own|{body}"));
    check(case(EnvelopeOptions::default(), Some(b"mk")), &format!("e||mk|{body}"));
    check(case(by(KeyFrom::MessageKey), None), &format!("e|||{body}"));
    check(case(by(KeyFrom::Field("/id/n".into())), Some(b"mk")), &format!("e||12|{body}"));
    check(case(by(KeyFrom::Field("/s".into())), None), &format!("e||a\"b|{body}"));
    check(case(by(KeyFrom::Field("/none".into())), Some(b"mk")), &format!("e|||{body}"));
    check(case(by(KeyFrom::Header("H".into())), None), &format!("e||hk|{body}"));
}

#[test]
fn cloudevents_structured_and_binary() {
    auto(
        r#"{"specversion":"1.0","type":"t","source":"/s","id":"1","data":{"a":1},"partitionkey":"p"}"#,
        r#"t|1|p|{"a":1}"#,
    );
    auto(r#"{"specversion":"1.0","type":"t","source":"/s","id":"1","data_base64":"eyJhIjoxfQ=="}"#, r#"t|1||{"a":1}"#);
    auto(r#"{"specversion":"0.3","type":"t","source":"/s","id":"1"}"#, "decode/bad-cloudevent");
    auto(r#"{"specversion":"1.0","type":"t","source":"/s"}"#, "decode/bad-cloudevent");
    let headers = &[("ce_specversion", "1.0"), ("ce_type", "t"), ("ce_source", "/s"), ("ce_id", "9")];
    check(Case { payload: Some(b"{\"a\":1}"), headers, ..Case::default() }, r#"t|9||{"a":1}"#);
    check(Case { payload: Some(b"{"), headers, ..Case::default() }, "decode/not-json");
}

/// Name, what it does, key and time of a Debezium message; or the code.
fn change(options: &EnvelopeOptions, message: &Message<'_>, expect: &str) {
    let mut extra = HeaderBuf::new();
    let got = match decode(options, message, &mut extra) {
        Err(error) => error.code.to_owned(),
        Ok(d) => {
            let mark = extra.as_headers().get(CAPTURE_HEADER).map(|m| String::from_utf8_lossy(m).into_owned());
            assert_eq!(mark, d.captured.map(|c| c.to_string()), "the mark travels as a header");
            let whole = message.payload.filter(|bytes| !bytes.is_empty());
            assert_eq!(d.payload.as_deref(), whole, "the message is kept as it came");
            let key = d.key.map(|key| String::from_utf8_lossy(&key).into_owned()).unwrap_or_default();
            format!("{}|{}|{key}|{}", d.name, mark.unwrap_or_default(), d.time.unwrap_or_default())
        }
    };
    assert_eq!(got, expect, "{:?}", message.payload.map(String::from_utf8_lossy));
}

fn from_topic(payload: Option<&str>) -> Message<'_> {
    Message {
        payload: payload.map(str::as_bytes),
        key: Some(br#"{"id":1}"#),
        headers: Headers::EMPTY,
        subject: "shop.public.customers",
        time: Some(7),
        content_type: None,
        after_delete: None,
    }
}

fn debezium() -> EnvelopeOptions {
    EnvelopeOptions { envelope: Envelope::Debezium, ..EnvelopeOptions::default() }
}

const SOURCE: &str =
    r#""source":{"connector":"postgresql","db":"shop","schema":"public","table":"customers","ts_ms":1500}"#;

fn bare(op: &str, before: &str, after: &str) -> String {
    format!(r#"{{"before":{before},"after":{after},{SOURCE},"op":"{op}","ts_ms":1600,"transaction":null}}"#)
}

fn wrapped(payload: &str) -> String {
    format!(r#"{{"schema":{{"type":"struct","name":"shop.public.customers.Envelope"}},"payload":{payload}}}"#)
}

#[test]
fn debezium_changes_are_named_after_table_and_operation() {
    let auto = EnvelopeOptions::default();
    let row = r#"{"id":1}"#;
    for (op, before, after, word) in [
        ("c", "null", row, "create"),
        ("r", "null", row, "read"),
        ("u", row, row, "update"),
        ("d", row, "null", "delete"),
        ("t", "null", "null", "truncate"),
    ] {
        let payload = bare(op, before, after);
        let expect = format!("customers.{word}|{word}|{row}|1500000");
        for text in [&payload, &wrapped(&payload)] {
            change(&debezium(), &from_topic(Some(text)), &expect);
            change(&auto, &from_topic(Some(text)), &expect);
        }
    }
    let micros = bare("c", "null", row).replace("\"ts_ms\":1500", "\"ts_ms\":1500,\"ts_us\":1500123");
    change(&auto, &from_topic(Some(&micros)), &format!("customers.create|create|{row}|1500123"));
}

#[test]
fn debezium_names_from_the_source_let_the_method_follow() {
    let payload = bare("d", r#"{"id":1}"#, "null");
    let with = |from| EnvelopeOptions { event_from: Some(from), ..debezium() };
    let check = |from, expect: &str| change(&with(from), &from_topic(Some(&payload)), expect);
    check(NameFrom::Constant("people".into()), "people|delete, method follows|{\"id\":1}|1500000");
    check(NameFrom::Subject, "shop.public.customers|delete, method follows|{\"id\":1}|1500000");
    check(NameFrom::Field("/source/table".into()), "customers|delete, method follows|{\"id\":1}|1500000");
    check(NameFrom::Field("/op".into()), "d|delete|{\"id\":1}|1500000");
    check(NameFrom::Header("none".into()), "decode/no-event-name");
}

#[test]
fn debezium_keys_can_come_from_the_row() {
    let by_row = EnvelopeOptions { key_from: Some(KeyFrom::Field("/mail".into())), ..debezium() };
    let created = wrapped(&bare("c", "null", r#"{"id":1,"mail":"new"}"#));
    change(&by_row, &from_topic(Some(&created)), "customers.create|create|new|1500000");
    let deleted = bare("d", r#"{"id":1,"mail":"old"}"#, "null");
    change(&by_row, &from_topic(Some(&deleted)), "customers.delete|delete|old|1500000");
}

#[test]
fn what_connectors_send_beside_changes_has_names_of_its_own() {
    let cases = [
        (
            r#"{"status":"BEGIN","id":"571:53195829","ts_ms":1486500577125,"event_count":null,"data_collections":null}"#,
            "transaction",
        ),
        (
            r#"{"status":"END","id":"571:53195832","ts_ms":1,"event_count":2,"data_collections":[{"data_collection":"public.a","event_count":2}]}"#,
            "transaction",
        ),
        (r#"{"ts_ms":1565787098802}"#, "heartbeat"),
        (
            r#"{"source":{"server":"shop"},"ts_ms":1588252618953,"databaseName":"inventory","schemaName":null,"ddl":"ALTER TABLE customers ADD middle text","tableChanges":[]}"#,
            "schema",
        ),
    ];
    for (payload, name) in cases {
        let expect = format!("debezium.{name}||{{\"id\":1}}|7");
        change(&debezium(), &from_topic(Some(payload)), &expect);
        let wrapped =
            format!(r#"{{"schema":{{"type":"struct","name":"io.debezium.connector.x"}},"payload":{payload}}}"#);
        change(&EnvelopeOptions::default(), &from_topic(Some(&wrapped)), &expect);
        // Without a mark of Debezium's it may as well be a producer's own.
        change(&EnvelopeOptions::default(), &from_topic(Some(payload)), "decode/no-event-name");
    }
    let message = format!(r#"{{"op":"m","ts_ms":1,{SOURCE},"message":{{"prefix":"p","content":"Yg=="}}}}"#);
    change(&debezium(), &from_topic(Some(&message)), "debezium.message||{\"id\":1}|1500000");
}

#[test]
fn what_is_no_debezium_change() {
    let refused = |payload: &str, code: &str| change(&debezium(), &from_topic(Some(payload)), code);
    refused(r#"{"id":1,"name":"flattened"}"#, "decode/bad-debezium");
    refused(&bare("x", "null", "{}"), "decode/bad-debezium");
    refused(&bare("u", "null", "null"), "decode/bad-debezium");
    refused(&bare("c", "null", r#""{\"_id\":1}""#), "decode/bad-debezium");
    refused(r#"{"op":7,"after":{}}"#, "decode/bad-debezium");
    refused("[1]", "decode/not-an-object");
    refused("{", "decode/not-json");
    // A word in the place of a null value.
    refused("default", "decode/not-json");
    refused(&bare("c", "null", "{}").replace("\"table\":\"customers\",", ""), "decode/no-event-name");
    refused(&bare("c", "null", "{}").replace("\"table\":\"customers\"", "\"table\":\"\""), "decode/no-event-name");
    // Under `auto` a producer's own field `op` makes no change.
    let plain = EnvelopeOptions { event_from: Some(NameFrom::Subject), ..EnvelopeOptions::default() };
    change(&plain, &from_topic(Some(r#"{"op":"c","after":{}}"#)), "shop.public.customers||{\"id\":1}|7");
    // Nor is an empty message a null value there.
    change(&plain, &from_topic(Some("")), "decode/not-json");
}

#[test]
fn s1_3_null_values() {
    let null = |after_delete| Message { after_delete, ..from_topic(None) };
    let deletes = |envelope, event_from| EnvelopeOptions {
        envelope,
        event_from,
        tombstone: Tombstone::Delete,
        ..EnvelopeOptions::default()
    };
    let named = || Some(NameFrom::Constant("people".into()));
    // Behind a delete it is that delete's, and writes nothing, whatever the source says.
    for options in [debezium(), deletes(Envelope::Debezium, None), deletes(Envelope::Plain, named())] {
        change(&options, &null(Some("customers.delete")), "customers.delete||{\"id\":1}|7");
    }
    change(&debezium(), &null(None), "customers.delete||{\"id\":1}|7");
    change(&deletes(Envelope::Debezium, None), &null(None), "customers.delete|tombstone|{\"id\":1}|7");
    change(&deletes(Envelope::Plain, named()), &null(None), "people|tombstone, method follows|{\"id\":1}|7");
    change(&deletes(Envelope::Debezium, Some(NameFrom::Field("/op".into()))), &null(None), "d|tombstone|{\"id\":1}|7");
    // Protocols without nulls, and the converter that wraps them.
    change(&deletes(Envelope::Debezium, None), &from_topic(Some("")), "customers.delete|tombstone|{\"id\":1}|7");
    let wrapped = Message { payload: Some(br#"{"schema":null,"payload":null}"#), ..from_topic(None) };
    let mut extra = HeaderBuf::new();
    let decoded = decode(&deletes(Envelope::Debezium, None), &wrapped, &mut extra).expect("a null value");
    assert!(decoded.payload.is_none() && decoded.captured.is_some());
}
