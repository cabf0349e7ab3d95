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
    let options = EnvelopeOptions { envelope: Envelope::Plain, event_from: Some(from), key_from: None };
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
