//! The events and bytes of `bad_events.rs`, each with what becomes of it in PostgreSQL and in SQLite.

use self::Fate::{Parked, Row};

/// What becomes of an event on one route.
pub enum Fate {
    /// The row without its id, as the database's own tool prints it.
    Row(&'static str),
    /// Its dead letter's code; `waiting` behind another one.
    Parked(&'static str),
}

/// An event that decodes. `ID` in the payload is an id of its own, `KEPT` that of a row which is there before.
pub struct Case {
    pub what: &'static str,
    pub event: &'static str,
    pub payload: String,
    /// Where the payload names its id itself.
    pub id: Option<i64>,
    pub pg: Fate,
    pub lite: Fate,
}

fn case(what: &'static str, payload: impl Into<String>, pg: Fate, lite: Fate) -> Case {
    Case { what, event: "saved", payload: payload.into(), id: None, pg, lite }
}

/// Both databases refuse it alike, before they are asked.
fn refused(what: &'static str, payload: impl Into<String>, code: &'static str) -> Case {
    case(what, payload, Parked(code), Parked(code))
}

/// A row `ID`, `x` with these further fields.
fn x(fields: &str) -> String {
    format!(r#"{{"id": ID, "name": "x", {fields}}}"#)
}

fn with_id(what: &'static str, payload: &str, id: i64) -> Case {
    Case { id: Some(id), ..case(what, payload, Row("x|||||||||"), Row("x|||||||||")) }
}

pub fn by_payload() -> Vec<Case> {
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let mut all = keys();
    all.extend(values());
    all.extend(vec![
        refused("deep in a column", x(&format!(r#""doc": {deep}"#)), "map/too-deep"),
        refused("deep beside the columns", x(&format!(r#""other": {deep}"#)), "map/too-deep"),
        refused("a list as payload", "[1, 2]", "map/missing-key"),
        refused("a text as payload", r#""x""#, "map/missing-key"),
        refused("a number as payload", "5", "map/missing-key"),
        refused("an empty payload", "{}", "map/missing-key"),
        case(
            "a key twice: the last counts",
            r#"{"id": ID, "name": "x", "name": "y"}"#,
            Row("y|||||||||"),
            Row("y|||||||||"),
        ),
        case("not null", r#"{"id": ID, "age": 5}"#, Parked("23502"), Parked("SQLITE_CONSTRAINT_NOTNULL")),
        case("check", x(r#""age": -1"#), Parked("23514"), Parked("SQLITE_CONSTRAINT_CHECK")),
        case("no such boss", x(r#""boss": 424242"#), Parked("23503"), Parked("SQLITE_CONSTRAINT_FOREIGNKEY")),
        case("a second unique key", x(r#""email": "taken@x""#), Parked("23505"), Parked("SQLITE_CONSTRAINT_UNIQUE")),
        Case {
            event: "added",
            ..case(
                "other row under its key",
                r#"{"id": KEPT, "name": "other"}"#,
                Parked("23505"),
                Parked("SQLITE_CONSTRAINT_PRIMARYKEY"),
            )
        },
        refused("behind it", r#"{"id": KEPT, "name": "late"}"#, "waiting"),
    ]);
    all
}

fn keys() -> Vec<Case> {
    vec![
        refused("no key", r#"{"name": "x"}"#, "map/missing-key"),
        refused("null key", r#"{"id": null, "name": "x"}"#, "map/missing-key"),
        refused("key in other case", r#"{"ID": 5, "name": "x"}"#, "map/missing-key"),
        refused("text as key", r#"{"id": "one", "name": "x"}"#, "map/wrong-type"),
        refused("true as key", r#"{"id": true, "name": "x"}"#, "map/wrong-type"),
        refused("object as key", r#"{"id": {}, "name": "x"}"#, "map/wrong-type"),
        refused("list as key", r#"{"id": [1], "name": "x"}"#, "map/wrong-type"),
        refused("fraction as key", r#"{"id": 1.5, "name": "x"}"#, "map/lossy"),
        refused("2^63 as key", r#"{"id": 9223372036854775808, "name": "x"}"#, "map/out-of-range"),
        refused("2^64-1 as key", r#"{"id": 18446744073709551615, "name": "x"}"#, "map/out-of-range"),
        with_id("2^53+1 as key", r#"{"id": 9007199254740993, "name": "x"}"#, 9_007_199_254_740_993),
        with_id("2^63-1 as key", r#"{"id": 9223372036854775807, "name": "x"}"#, i64::MAX),
        with_id("a whole number with exponent", r#"{"id": 8.3e1, "name": "x"}"#, 83),
    ]
}

fn values() -> Vec<Case> {
    let digits = "12345678901234567890123456789012345678";
    vec![
        case(
            "2^53+1",
            x(r#""big": 9007199254740993"#),
            Row("x|||||9007199254740993||||"),
            Row("x|||||9007199254740993||||"),
        ),
        case(
            "2^64-1",
            x(r#""big": 18446744073709551615"#),
            Row("x|||||18446744073709551615||||"),
            Row("x|||||18446744073709551615||||"),
        ),
        case(
            "38 digits",
            x(&format!(r#""big": {digits}"#)),
            Row("x|||||12345678901234567890123456789012345678||||"),
            Row("x|||||12345678901234567890123456789012345678||||"),
        ),
        refused("39 digits", x(&format!(r#""big": {digits}9"#)), "map/out-of-range"),
        refused("a fraction without place", x(r#""big": 1.5"#), "map/lossy"),
        case("cents", x(r#""amount": 12345678.91"#), Row("x||||12345678.91|||||"), Row("x||||12345678.91|||||")),
        refused("numeric overflow", x(r#""amount": 123456789.00"#), "map/out-of-range"),
        refused("half a cent", x(r#""amount": 1.005"#), "map/lossy"),
        refused("decimal comma", x(r#""amount": "12,30""#), "map/wrong-type"),
        refused("1e400 as decimal", x(r#""amount": 1e400"#), "map/out-of-range"),
        refused("1e400 as double", x(r#""ratio": 1e400"#), "map/out-of-range"),
        case("0.1", x(r#""ratio": 0.1"#), Row("x||||||0.1|||"), Row("x||||||0.1|||")),
        refused("small int overflow", x(r#""age": 40000"#), "map/out-of-range"),
        refused("small int fraction", x(r#""age": 1.5"#), "map/lossy"),
        // SQLite's texts take NUL; its tool prints up to it.
        case("NUL in text", r#"{"id": ID, "name": "a\u0000b"}"#, Parked("map/nul-in-text"), Row("a|||||||||")),
        refused("half a surrogate pair", r#"{"id": ID, "name": "\ud800"}"#, "map/invalid-json"),
        refused("too long", r#"{"id": ID, "name": "12345678901"}"#, "map/too-long"),
        case(
            "ten letters in twenty bytes",
            r#"{"id": ID, "name": "äöüäöüäöüä"}"#,
            Row("äöüäöüäöüä|||||||||"),
            Row("äöüäöüäöüä|||||||||"),
        ),
        refused("number for text", r#"{"id": ID, "name": 5}"#, "map/wrong-type"),
        refused("list for text", r#"{"id": ID, "name": ["a"]}"#, "map/wrong-type"),
        refused("null for not null", r#"{"id": ID, "name": null}"#, "map/null"),
        refused("yesterday", x(r#""born": "yesterday""#), "map/unreadable"),
        refused("30 February", x(r#""born": "2024-02-30T00:00:00Z""#), "map/unreadable"),
        refused("time without zone", x(r#""born": "2024-02-03T00:00:00""#), "map/unreadable"),
        refused("seconds for a time", x(r#""born": 1700000000"#), "map/wrong-type"),
        case(
            "time with zone",
            x(r#""born": "2024-02-03T04:05:06.123456+02:00""#),
            Row("x|||||||2024-02-03 02:05:06.123456||"),
            Row("x|||||||2024-02-03T02:05:06.123456Z||"),
        ),
        refused("yes for true", x(r#""active": "yes""#), "map/wrong-type"),
        refused("1 for true", x(r#""active": 1"#), "map/wrong-type"),
        case(
            "digits inside a document",
            x(r#""doc": {"a": [1, 2.50, 9007199254740993]}"#),
            Row(r#"x|||||||||{"a": [1, 2.50, 9007199254740993]}"#),
            Row(r#"x|||||||||{"a": [1, 2.50, 9007199254740993]}"#),
        ),
    ]
}

/// Bytes that are no event, and the code that says why.
pub const RAW: &[(&str, &[u8], &str)] = &[
    ("cut off", br#"{"event": "saved", "payload": {"id": 1"#, "decode/not-json"),
    ("words after it", br#"{"event": "saved", "payload": {"id": 901, "name": "x"}} x"#, "decode/not-json"),
    ("two documents", br#"{"event": "saved", "payload": {}}{"event": "saved", "payload": {}}"#, "decode/not-json"),
    ("single quotes", br#"{'event': 'saved', 'payload': {}}"#, "decode/not-json"),
    ("NaN", br#"{"event": "saved", "payload": {"id": NaN}}"#, "decode/not-json"),
    ("hexadecimal", br#"{"event": "saved", "payload": {"id": 0x10}}"#, "decode/not-json"),
    ("leading zeros", br#"{"event": "saved", "payload": {"id": 007}}"#, "decode/not-json"),
    ("a line break in a text", b"{\"event\": \"saved\", \"payload\": {\"name\": \"a\nb\"}}", "decode/not-json"),
    (
        "byte order mark",
        b"\xef\xbb\xbf{\"event\": \"saved\", \"payload\": {\"id\": 902, \"name\": \"x\"}}",
        "decode/not-json",
    ),
    ("UTF-16", b"\xff\xfe{\0\"\0e\0", "decode/not-utf8"),
    ("Latin-1", b"{\"event\": \"saved\", \"payload\": {\"id\": 903, \"name\": \"\xfc\"}}", "decode/not-utf8"),
    ("overlong NUL", b"{\"event\": \"saved\", \"payload\": {\"id\": 904, \"name\": \"\xc0\x80\"}}", "decode/not-utf8"),
    ("gzip", b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03", "decode/not-utf8"),
    ("blank", b"  ", "decode/not-json"),
    ("a number", b"5", "decode/no-event-name"),
    ("a text", br#""saved""#, "decode/no-event-name"),
    ("no event", br#"{"payload": {"id": 905, "name": "x"}}"#, "decode/no-event-name"),
    ("no payload", br#"{"event": "saved"}"#, "decode/no-payload"),
    ("event is a number", br#"{"event": 5, "payload": {}}"#, "decode/bad-event-name"),
    ("event is empty", br#"{"event": "", "payload": {}}"#, "decode/bad-event-name"),
    ("a name of Gravity's own", br#"{"event": "gravity.config_changed", "payload": {}}"#, "decode/reserved-name"),
    ("a name of Twist's own", br#"{"event": "twist.confirmed", "payload": {}}"#, "decode/reserved-name"),
    ("id is a number", br#"{"event": "saved", "id": 5, "payload": {"id": 906, "name": "x"}}"#, "decode/bad-envelope"),
    (
        "time is a word",
        br#"{"event": "saved", "time": "soon", "payload": {"id": 907, "name": "x"}}"#,
        "decode/bad-envelope",
    ),
    (
        "cloud event without id",
        br#"{"specversion": "1.0", "type": "saved", "source": "s", "data": {}}"#,
        "decode/bad-cloudevent",
    ),
    (
        "cloud event of old",
        br#"{"specversion": "0.3", "id": "1", "type": "saved", "source": "s", "data": {}}"#,
        "decode/bad-cloudevent",
    ),
    (
        "cloud event with two bodies",
        br#"{"specversion": "1.0", "id": "2", "type": "saved", "source": "s", "data": {}, "data_base64": "AA=="}"#,
        "decode/bad-cloudevent",
    ),
];
