//! The original's defects in rules and values (reference numbers O18 to O36), each turned into what must hold here.
//! O22 and O23 stand with the other values in `values.rs`.

mod common;

use std::collections::BTreeSet;

use std::sync::Arc;

use bytes::Bytes;
use common::{Table, context, evaluate_bytes, hex, lines, outcome, route, show};
use gravity_model::{Event, Recorded, Sequence};
use gravity_rules::diagnose::SourceFile;
use gravity_rules::file::UnknownFields;
use gravity_rules::{Ddl, Evaluation, Verdict, codes, load};
use proptest::prelude::*;

fn findings(text: &str) -> Vec<(&'static str, usize)> {
    match load(&[SourceFile::new("rules.json", text)], &context(&["d"], &["x"])) {
        Ok(_) => Vec::new(),
        Err(findings) => findings.iter().map(|f| (f.code, f.line)).collect(),
    }
}

#[test]
fn o18_an_unknown_method_is_refused() {
    let rule = |method: &str| {
        format!("{{\"rules\": [\n{{\"event\": \"e\", \"table\": \"t\",\n{method}\n\"primaryKey\": \"id\"}}]}}")
    };
    assert_eq!(findings(&rule("\"method\": \"creat\",")), [(codes::BAD_WORD, 3)]);
    assert_eq!(findings(&rule("\"method\": \"\",")), [(codes::BAD_WORD, 3)]);
    assert_eq!(findings(&rule("\"method\": \"INSERT\",")), [(codes::BAD_WORD, 3)]);
    assert_eq!(findings(&rule("")), [(codes::METHOD_MISSING, 2)]);
    assert_eq!(findings(&rule("\"method\": \"insert\",")), []);
}

#[test]
fn o19_all_rules_of_an_event_apply_in_file_order_every_time() {
    let rules = |table: &str, method: &str| {
        format!(
            r#"{{"event":"e","table":"{table}","method":"{method}","mapping":[{{"source":"id","target":"id","primary":true}}]}}"#
        )
    };
    let text = format!(r#"{{"rules":[{},{},{}]}}"#, rules("c", "update"), rules("a", "delete"), rules("b", "patch"));
    let tables: Vec<_> = ["a", "b", "c"].iter().map(|name| Table::new(name).key("id", "i64").shape()).collect();
    for _ in 0..1_000 {
        let program = route(&text, &tables);
        assert_eq!(outcome(&program, "e", r#"{"id":1}"#), ["upsert c(id=1)", "delete a(id=1)", "patch b(id=1)"]);
    }
}

/// What a rules file amounts to: its findings, or how it treats a set of events, and what it asks of the databases.
fn meaning(text: &str) -> String {
    let mut context = context(&["d", "d2"], &["x", "y"]);
    context.databases["d2"].ddl = Ddl::Create;
    context.databases["d2"].unknown_fields = Some(UnknownFields::Ignore);
    let set = match load(&[SourceFile::new("rules.json", text)], &context) {
        Ok(set) => set,
        Err(findings) => return findings.to_string(),
    };
    let table = |name: &str| Table::new(name).key("id", "i64").column("a", "i64").column("b", "i64").shape();
    let mut meaning = format!("{:?} {:?} {}", set.warnings(), set.subscriptions(), hex(&set.hash()));
    for database in set.databases() {
        meaning.push_str(&format!("\n{database} {:?}", set.requests(database)));
        let program = match set.compile(database, None, &[table("t"), table("u")]) {
            Ok(program) => program,
            Err(findings) => return findings.to_string(),
        };
        for event in ["e", "f"] {
            meaning.push_str(&format!(" fires {:?}", program.fires(event)));
            for payload in [r#"{"id":1,"old":9,"a":2,"b":3}"#, r#"{"id":1,"extra":4}"#] {
                meaning.push_str(&format!("\n{:?}", outcome(&program, event, payload)));
            }
        }
    }
    meaning
}

#[test]
fn o20_every_key_of_the_schema_changes_something() {
    let rule = |keys: &str| format!(r#"{{"rules":[{{{keys}}}]}}"#);
    let e = |keys: &str| rule(&format!(r#""event":"e","database":"d",{keys}"#));
    let t = |keys: &str| e(&format!(r#""table":"t",{keys}"#));
    let id = r#"{"source":"id","target":"id","primary":true}"#;
    let mapped = |mapping: &str| t(&format!(r#""method":"update","mapping":[{id},{mapping}]"#));
    let key = |mapping: &str| t(&format!(r#""method":"update","mapping":[{mapping},{{"source":"a","target":"a"}}]"#));
    // (key of the schema, a file, the file with only that key changed)
    let cases = [
        ("rules", t(r#""method":"truncate""#), r#"{"rules":[]}"#.to_owned()),
        (
            "events",
            mapped(r#"{"source":"a","target":"a","type":"i64"}"#),
            mapped(r#"{"source":"a","target":"a","type":"i64"}"#)
                .replace("{\"rules\"", r#"{"events":{"e":{"fields":{"a":"text"}}},"rules""#),
        ),
        (
            "events.fields",
            r#"{"events":{"e":{"fields":{"a":"i64"}}},"rules":[]}"#.to_owned(),
            r#"{"events":{"e":{"fields":{"a":"i32"}}},"rules":[]}"#.to_owned(),
        ),
        ("rules.id", t(r#""method":"truncate""#), t(r#""id":"mine","method":"truncate""#)),
        (
            "rules.event",
            rule(r#""event":"e","table":"t","database":"d","method":"truncate""#),
            rule(r#""event":"f","table":"t","database":"d","method":"truncate""#),
        ),
        ("rules.table", t(r#""method":"truncate""#), e(r#""table":"u","method":"truncate""#)),
        (
            "rules.collection",
            e(r#""collection":"t","method":"truncate""#),
            e(r#""collection":"u","method":"truncate""#),
        ),
        ("rules.method", t(r#""primaryKey":"id","method":"update""#), t(r#""primaryKey":"id","method":"delete""#)),
        ("rules.mapping", t(r#""primaryKey":"id","method":"update""#), mapped(r#"{"source":"a","target":"a"}"#)),
        (
            "rules.primaryKey",
            t(r#""primaryKey":"id","method":"update""#),
            t(r#""primaryKey":["id","a"],"method":"update""#),
        ),
        (
            "rules.database",
            rule(r#""event":"e","table":"t","method":"truncate","database":"d""#),
            rule(r#""event":"e","table":"t","method":"truncate","database":"d2""#),
        ),
        ("rules.exporter", e(r#""exporter":["x"]"#), e(r#""exporter":["y"]"#)),
        (
            "rules.on_conflict",
            t(r#""primaryKey":"id","method":"insert""#),
            t(r#""primaryKey":"id","method":"insert","on_conflict":"ignore""#),
        ),
        (
            "rules.on_missing",
            t(r#""primaryKey":"id","method":"patch""#),
            t(r#""primaryKey":"id","method":"patch","on_missing":"park""#),
        ),
        (
            "rules.unknown_fields",
            t(r#""primaryKey":"id","method":"update""#),
            t(r#""primaryKey":"id","method":"update","unknown_fields":"park""#),
        ),
        ("rules.filter", e(r#""exporter":["x"]"#), e(r#""exporter":["x"],"filter":"true""#)),
        (
            "rules.match",
            t(r#""primaryKey":"id","method":"delete""#),
            t(r#""primaryKey":"id","method":"delete","match":["a"]"#),
        ),
        ("rules.mapping.source", mapped(r#"{"source":"a","target":"a"}"#), mapped(r#"{"source":"b","target":"a"}"#)),
        ("rules.mapping.target", mapped(r#"{"source":"a","target":"a"}"#), mapped(r#"{"source":"a","target":"b"}"#)),
        (
            "rules.mapping.primary",
            key(r#"{"source":"id","target":"id","primary":true}"#),
            key(r#"{"source":"id","target":"id","primary":false}"#),
        ),
        (
            "rules.mapping.type",
            mapped(r#"{"source":"a","target":"a","type":"i8"}"#),
            mapped(r#"{"source":"a","target":"a","type":"i16"}"#),
        ),
        (
            "rules.mapping.default",
            mapped(r#"{"source":"a","target":"a"}"#),
            mapped(r#"{"source":"a","target":"a","default":7}"#),
        ),
        ("rules.mapping.value", mapped(r#"{"value":1,"target":"a"}"#), mapped(r#"{"value":2,"target":"a"}"#)),
        (
            "rules.mapping.expression",
            mapped(r#"{"value":1,"target":"a"}"#),
            mapped(r#"{"value":1,"target":"a","expression":"a"}"#),
        ),
        (
            "rules.mapping.op",
            mapped(r#"{"source":"a","target":"a","op":"set"}"#),
            mapped(r#"{"source":"a","target":"a","op":"add"}"#),
        ),
        ("rules.mapping.previous", key(id), key(r#"{"source":"id","target":"id","primary":true,"previous":"old"}"#)),
    ];
    for (path, before, after) in &cases {
        assert_ne!(meaning(before), meaning(after), "{path}");
    }
    let covered: BTreeSet<String> = cases.iter().map(|(path, ..)| (*path).to_owned()).collect();
    let mut keys = BTreeSet::new();
    schema_keys(&gravity_rules::schema::rules(), &mut keys);
    keys.remove("$schema");
    assert_eq!(covered, keys, "each key of the schema has its case");
}

/// Dotted paths of all keys that rules.json may have.
fn schema_keys(schema: &serde_json::Value, keys: &mut BTreeSet<String>) {
    fn walk(root: &serde_json::Value, schema: &serde_json::Value, path: &str, keys: &mut BTreeSet<String>) {
        if let Some(target) = schema["$ref"].as_str() {
            walk(root, root.pointer(&target[1..]).expect("a definition"), path, keys);
        }
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            let below = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            walk(root, property, &below, keys);
            keys.insert(below);
        }
        for part in [&schema["items"], &schema["additionalProperties"]] {
            if part.is_object() {
                walk(root, part, path, keys);
            }
        }
        for part in schema["anyOf"].as_array().into_iter().chain(schema["oneOf"].as_array()).flatten() {
            walk(root, part, path, keys);
        }
    }
    walk(schema, schema, "", keys);
}

const TYPES: [&str; 24] = [
    "bool",
    "i8",
    "i16",
    "i32",
    "i64",
    "u8",
    "u16",
    "u32",
    "u64",
    "f32",
    "f64",
    "decimal",
    "decimal(6,2)",
    "text",
    "varchar(3)",
    "uuid",
    "date",
    "time",
    "timestamp",
    "timestamptz",
    "json",
    "binary",
    "i64[]",
    "text[]",
];

/// Values that trip converters.
fn odd_value() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec![
            "null",
            "true",
            "0",
            "-0",
            "1.5",
            "1e400",
            "-1e-400",
            "9007199254740993",
            "18446744073709551616",
            "\"\"",
            "\"\\u0000\"",
            "\"2024-02-30\"",
            "\"2024-05-06T07:08:09Z\"",
            "\"0001-01-01T00:00:00+23:59\"",
            "\"9999-12-31T23:59:59-23:59\"",
            "\"123e4567-e89b-12d3-a456-426614174000\"",
            "[]",
            "[null,[1]]",
            "{}",
            "{\"a\":[]}",
            "\"\\ud83d\\ude00\"",
            "\"日本語日本語\"",
            "\"-\"",
            "\"1e5\"",
            "[1,\"x\",1.0]",
        ])
        .prop_map(str::to_owned),
        any::<i64>().prop_map(|i| i.to_string()),
        any::<f64>().prop_filter("finite", |x| x.is_finite()).prop_map(|x| format!("{x:e}")),
        ".{0,12}".prop_map(|text| serde_json::Value::from(text).to_string()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// Rules × payloads: no panic, every result defined, the same every time.
    #[test]
    fn o21_every_rule_and_payload_has_a_defined_result(
        key_type in prop::sample::select(TYPES.to_vec()),
        value_type in prop::sample::select(TYPES.to_vec()),
        method in prop::sample::select(vec!["insert", "update", "patch", "delete"]),
        payloads in prop::collection::vec((odd_value(), odd_value(), odd_value(), any::<bool>()), 1..20),
        junk in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let table = Table::new("t").key("k", key_type).column("v", value_type).shape();
        let previous = if method == "update" { r#","previous":"old""# } else { "" };
        let text = format!(r#"{{"rules":[{{"event":"e","table":"t","method":"{method}","mapping":[
            {{"source":"k","target":"k","primary":true{previous}}},{{"source":"v","target":"v"}}]}}]}}"#);
        let program = route(&text, &[table]);
        let (verdict, out) = evaluate_bytes(&program, "e", &junk);
        lines(&program, &verdict, &out);
        for (k, v, old, whole) in payloads {
            let payload = if whole { format!(r#"{{"k":{k},"v":{v},"old":{old}}}"#) } else { format!(r#"{{"k":{k}}}"#) };
            let first = outcome(&program, "e", &payload);
            prop_assert!(!first.is_empty());
            prop_assert_eq!(&first, &outcome(&program, "e", &payload));
            if first[0].starts_with("refused") {
                let code = first[0].split(' ').nth(1).expect("a code");
                prop_assert!(codes::page(code).is_some(), "{}", code);
            }
        }
    }
}

#[test]
fn o24_composite_keys_never_collide() {
    let table = Table::new("t").key("a", "text").key("b", "text").shape();
    let program = route(r#"{"rules":[{"event":"e","table":"t","method":"delete","primaryKey":["a","b"]}]}"#, &[table]);
    let key = |a: &str, b: &str| {
        let payload = serde_json::json!({ "a": a, "b": b }).to_string();
        let (verdict, out) = common::evaluate_one(&program, "e", &payload);
        // PostgreSQL has no NUL: such keys are parked, not bent.
        if a.contains('\0') || b.contains('\0') {
            assert!(matches!(verdict, Verdict::Refused(refusal) if refusal.code == codes::NUL_IN_TEXT));
            return payload.into_bytes();
        }
        assert_eq!(verdict, Verdict::Matched);
        out.keys
    };
    let parts = ["", "a", "a_b", "b_c", "c", "a.b", "b.c", "a/b", "b/c", "a\0b", "_", ".", "/"];
    let pairs: Vec<(&str, &str)> = parts.iter().flat_map(|a| parts.iter().map(move |b| (*a, *b))).collect();
    let keys: BTreeSet<Vec<u8>> = pairs.iter().map(|(a, b)| key(a, b)).collect();
    assert_eq!(keys.len(), pairs.len());
}

#[test]
fn o25_a_missing_key_parks_the_event_and_no_other() {
    let table = Table::new("t").key("a", "text").key("b", "i64").shape();
    let program = route(r#"{"rules":[{"event":"e","table":"t","method":"update","primaryKey":["a","b"]}]}"#, &[table]);
    for payload in [r#"{"a":"x"}"#, r#"{"b":1}"#, r#"{"a":null,"b":1}"#, "{}", "null", "5", "[]", "\"text\""] {
        assert_eq!(outcome(&program, "e", payload), ["refused map/missing-key rules.json:1"], "{payload}");
        assert_eq!(outcome(&program, "e", r#"{"a":"","b":1}"#), ["upsert t(a='',b=1)"]);
    }
}

#[test]
fn o26_nothing_of_an_earlier_event_leaks_into_a_row() {
    let table = Table::new("t").key("id", "i64").column("a", "text").column("b", "text").column("m", "text").shape();
    let program = route(
        r#"{"rules":[{"event":"e","table":"t","method":"update","mapping":[{"source":"id","target":"id","primary":true},
            {"source":"a","target":"a"},{"source":"b","target":"b"},{"source":"$meta.id","target":"m"}]}]}"#,
        &[table],
    );
    let mut block = Vec::new();
    let mut spans = Vec::new();
    for id in 0..10_000 {
        let start = block.len();
        let b = if id % 2 == 0 { format!(r#","b":"b{id}""#) } else { String::new() };
        block.extend_from_slice(format!(r#"{{"id":{id},"a":"a{id}"{b}}}"#).as_bytes());
        spans.push(start..block.len());
    }
    let block = Arc::new(Bytes::from(block));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut out = Evaluation::new();
                for round in 0..13 {
                    out.clear();
                    for (id, span) in spans.iter().enumerate() {
                        let meta = format!("m{id}");
                        let event = Event {
                            id: (id % 3 == round % 3).then_some(meta.as_str()),
                            ..Event::data("e", "s", &block[span.clone()])
                        };
                        let recorded = Recorded { sequence: Sequence(id as u64), event };
                        assert_eq!(program.evaluate(&recorded, &block, &mut out), Verdict::Matched);
                    }
                    for (id, change) in out.changes.iter().enumerate() {
                        let mut want = vec![id.to_string(), format!("'a{id}'")];
                        want.extend((id % 2 == 0).then(|| format!("'b{id}'")));
                        want.extend((id % 3 == round % 3).then(|| format!("'m{id}'")));
                        assert_eq!(out.row(change).iter().map(show).collect::<Vec<_>>(), want);
                        assert_eq!(program.column_set(change.columns).set.len(), want.len() - 1);
                    }
                }
            });
        }
    });
}

#[test]
fn o27_null_and_values_follow_each_other_with_their_types() {
    let table = Table::new("t").key("id", "i64").column("v", "timestamptz").shape();
    let program = route(r#"{"rules":[{"event":"e","table":"t","method":"update","primaryKey":"id"}]}"#, &[table]);
    let time = |zone: &str| format!(r#"{{"id":1,"v":"1970-01-01T00:00:01{zone}"}}"#);
    let sequence = [time("Z"), r#"{"id":1,"v":null}"#.to_owned(), time("Z"), r#"{"id":1}"#.to_owned(), time("-01:00")];
    let got: Vec<Vec<String>> = sequence.iter().map(|payload| outcome(&program, "e", payload)).collect();
    let want = ["v=TimestampTz(1000000)", "v=null", "v=TimestampTz(1000000)", "", "v=TimestampTz(3601000000)"];
    let want: Vec<Vec<String>> =
        want.iter().map(|v| vec![format!("upsert t(id=1) {v}").trim_end().to_owned()]).collect();
    assert_eq!(got, want);
}

#[test]
fn o31_update_and_delete_without_a_key_are_refused_at_load() {
    for method in ["update", "upsert", "patch", "delete"] {
        let rule = format!(
            "{{\"rules\": [{{\"event\": \"e\", \"table\": \"t\",\n\"method\": \"{method}\", \"mapping\": [{{\"source\": \"id\", \"target\": \"id\"}}]}}]}}"
        );
        assert_eq!(findings(&rule), [(codes::KEY_MISSING, 2)], "{method}");
    }
}

#[test]
fn o35_names_that_are_no_identifiers_are_refused_before_any_database() {
    let long = "n".repeat(64);
    let bad = [
        "a\"b",
        "a;drop table x",
        "a b",
        "",
        "1a",
        "a-b",
        "a.b.c",
        ".a",
        "a.",
        "ä",
        "a\u{0}",
        "a'b",
        "a`b",
        "$a",
        "a--",
        "a/*",
        long.as_str(),
    ];
    let quoted = |name: &str| serde_json::Value::from(name).to_string();
    for name in bad {
        let table = format!(r#"{{"rules":[{{"event":"e","method":"truncate","table":{}}}]}}"#, quoted(name));
        assert_eq!(findings(&table), [(codes::BAD_IDENTIFIER, 1)], "{name}");
        let target = format!(
            r#"{{"rules":[{{"event":"e","table":"t","method":"delete","mapping":[{{"source":"id","target":{},"primary":true}}]}}]}}"#,
            quoted(name)
        );
        assert_eq!(findings(&target), [(codes::BAD_IDENTIFIER, 1)], "{name}");
    }
    for name in [
        "gravity_checkpoints",
        "GRAVITY_views",
        "sqlite_master",
        "pg_class",
        "pg_catalog.x",
        "information_schema.tables",
        "mysql.user",
    ] {
        let table = format!(r#"{{"rules":[{{"event":"e","method":"truncate","table":"{name}"}}]}}"#);
        assert_eq!(findings(&table), [(codes::RESERVED_TABLE, 1)], "{name}");
    }
    for name in ["Users", "_t", "select", "public.users", &long[..63]] {
        let table = format!(r#"{{"rules":[{{"event":"e","method":"truncate","table":"{name}"}}]}}"#);
        assert_eq!(findings(&table), [], "{name}");
    }
    // Pass-through names come from the catalogue, never from the payload.
    let table = Table::new("t").key("id", "i64").column("select", "text").shape();
    let program = route(r#"{"rules":[{"event":"e","table":"t","method":"update"}]}"#, &[table]);
    let payload = r#"{"id":1,"a\"b":1,"a;drop table x":2,"SELECT":"no","select":"yes"}"#;
    assert_eq!(outcome(&program, "e", payload), ["upsert t(id=1) select='yes'"]);
}

#[test]
fn o36_composite_keys_of_two_and_three_columns_with_every_key_type() {
    let samples = [
        ("bool", "true"),
        ("i8", "-1"),
        ("i16", "2"),
        ("i32", "3"),
        ("i64", "9007199254740993"),
        ("u8", "5"),
        ("u16", "6"),
        ("u32", "7"),
        ("u64", "18446744073709551615"),
        ("decimal", "1.10"),
        ("decimal(6,2)", "-2.5"),
        ("text", "\"a_b\""),
        ("varchar(3)", "\"abc\""),
        ("uuid", "\"123e4567-e89b-12d3-a456-426614174000\""),
        ("date", "\"2024-05-06\""),
        ("time", "\"07:08:09\""),
        ("timestamp", "\"2024-05-06T07:08:09\""),
        ("timestamptz", "\"2024-05-06T07:08:09Z\""),
        ("binary", "\"aGk=\""),
    ];
    for (first, a) in samples {
        for (second, b) in samples {
            for three in [false, true] {
                let mut table = Table::new("t").key("a", first).key("b", second);
                // The mapping's order is not the key's.
                let mut mapping = vec![
                    r#"{"source":"b","target":"b","primary":true}"#,
                    r#"{"source":"a","target":"a","primary":true}"#,
                ];
                if three {
                    table = table.key("c", "text");
                    mapping.insert(0, r#"{"source":"c","target":"c","primary":true}"#);
                }
                let text = format!(
                    r#"{{"rules":[{{"event":"e","table":"t","method":"update","mapping":[{}]}}]}}"#,
                    mapping.join(",")
                );
                let program = route(&text, &[table.shape()]);
                let (verdict, out) = common::evaluate_one(&program, "e", &format!(r#"{{"c":"z","b":{b},"a":{a}}}"#));
                assert_eq!(verdict, Verdict::Matched, "{first} {second}");
                assert_eq!(out.row(&out.changes[0]).len(), 2 + usize::from(three));
                lines(&program, &verdict, &out);
            }
        }
    }
}
