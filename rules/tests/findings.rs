//! Every code of a config file: what provokes it, and that it names the exact place (P8). A `§` stands before the place.

mod common;

use std::collections::BTreeSet;

use common::{Table, context};
use gravity_model::shape::SharedShape;
use gravity_rules::diagnose::{Finding, Findings, Severity, SourceFile};
use gravity_rules::{Context, Ddl, codes, load};

/// One projection with the given keys and mapping.
fn rule(keys: &str) -> String {
    format!(r#"{{"rules": [{{"event": "e", {keys}}}]}}"#)
}

fn mapped(mapping: &str) -> String {
    rule(&format!(
        r#""database": "db1", "table": "t", "method": "update", "mapping": [{{"source": "id", "target": "id", "primary": true}}, {mapping}]"#
    ))
}

/// The column `a` beside the key, with more keys in its mapping.
fn with_method(method: &str, keys: &str) -> String {
    rule(&format!(
        r#""database": "db1", "table": "t", "method": "{method}", "mapping": [{{"source": "id", "target": "id", "primary": true}}, {{"source": "a", "target": "a", {keys}}}]"#
    ))
}

/// (text with §, codes in the order of the marks)
fn cases() -> Vec<(String, Vec<&'static str>)> {
    let case = |text: &str, codes: &[&'static str]| (text.to_owned(), codes.to_vec());
    let deck = r#""source": "id", "target": "id", "primary": true"#;
    vec![
        case(r#"{"rules": [§}"#, &["config/syntax"]),
        case("{\"rules\": []§,}", &["config/syntax"]),
        case("{\"rules\": [\n  {\"event\": 'e'}]}".replace("'e'", "§'e'").as_str(), &["config/syntax"]),
        case(r#"{"rules": [], §"rules": []}"#, &["config/duplicate-key"]),
        case(r#"{"rules": [{"event": "a", §"event": "b", "database": "db1"}]}"#, &["config/duplicate-key"]),
        case(
            &rule(r#""table": "t", §"collection": "t", "method": "truncate", "database": "db1""#),
            &["config/duplicate-key"],
        ),
        case(r#"{"rules": [], §"rule": []}"#, &["config/unknown-key"]),
        case(
            "{\"rules\": [{\"event\": \"e\",\n    §\"databse\": \"db1\",\n  §\"exporters\": []}]}",
            &["config/unknown-key", "config/removed-key"],
        ),
        case(&mapped(r#"{"source": "a", "target": "a", §"typ": "text"}"#), &["config/unknown-key"]),
        case(
            &rule(r#"§"handler": {"type": "script", "script": "return source"}, "database": "db1""#),
            &["config/removed-key"],
        ),
        case(r#"{"rules": [], §"trigger": []}"#, &["config/removed-key"]),
        case(r#"{"rules": [§{"database": "db1"}]}"#, &["config/missing-key"]),
        case("§{}", &["config/missing-key"]),
        case(&mapped(r#"§{"source": "a"}"#), &["config/missing-key"]),
        case(r#"{"rules": §{}}"#, &["config/wrong-type"]),
        case("§[]", &["config/wrong-type"]),
        case(&rule(r#""database": "db1", "exporter": §"exporter1""#), &["config/wrong-type"]),
        case(
            &mapped(r#"{"source": "a", "target": §1, "primary": §"true"}"#),
            &["config/wrong-type", "config/wrong-type"],
        ),
        case(&rule(r#""table": "t", "method": §"creat", "database": "db1""#), &["config/bad-word"]),
        case(&rule(r#""table": "t", "method": §"", "database": "db1""#), &["config/bad-word"]),
        // A rule that cannot be read hides nothing of what stands in it.
        case(
            r#"{"rules": [{"event": §"gravity.cursor", "table": §"1t", "method": §"creat", "database": §"nope",
                "exporter": ["exporter1", §"nobody"], "filter": "§= 1", "mapping": [
                {"source": §"x..y", "target": §"a b", "type": §"i65", "primary": §"yes"},
                {"source": "z", "target": "z", §"typ": "i64"}, {"expression": "§= 1", "target": §"z"}]}]}"#,
            &[
                "rules/bad-event",
                "rules/bad-identifier",
                "config/bad-word",
                "rules/unknown-database",
                "rules/unknown-exporter",
                "rules/expression-syntax",
                "rules/bad-path",
                "rules/bad-identifier",
                "rules/unknown-type",
                "config/wrong-type",
                "config/unknown-key",
                "rules/expression-syntax",
                "rules/duplicate-target",
            ],
        ),
        case(
            &rule(r#""table": "t", "method": "patch", "primaryKey": "id", "on_missing": §"create", "database": "db1""#),
            &["config/bad-word"],
        ),
        case(&rule(r#""database": "db1", "filter": "§= 1""#), &["rules/expression-syntax"]),
        case(
            &rule(r#""database": "db1", "filter": "a == 'x' && n > 1 && s == '\u00e9' && §n > 'a'""#),
            &["rules/expression-type"],
        ),
        case(
            &rule(r#""database": "db1", "filter": "\ta == '\u00e9' && §sizes(a) > 1""#),
            &["rules/expression-function"],
        ),
        case(&rule(r#""database": "db1", "filter": "§a == b""#), &["rules/expression-untyped"]),
        case(&rule(r#""database": "db1", "filter": "§a * b * c * d > 1""#), &["rules/expression-cost"]),
        case(
            &rule(r#""database": "db1", "table": "t", "method": "delete", "primaryKey": "id", §"match": ["a"]"#),
            &["rules/not-built"],
        ),
        case(&mapped(r#"{"target": "a", "expression": "b + §"}"#), &["rules/expression-syntax"]),
        case(&mapped(r#"{"target": "a", "type": "text", "expression": "b + §1"}"#), &["rules/expression-type"]),
        case(&mapped(r#"{"target": "a", "expression": "b + 1", §"default": 1}"#), &["rules/unused-key"]),
        case(&mapped(r#"{"target": "a", "source": "b", §"expression": "b + 1"}"#), &["rules/source-choice"]),
        case(&mapped(r#"{"source": "a", "target": "a", "op": §"adds"}"#), &["config/bad-word"]),
        case(
            &rule(
                r#""database": "db1", "table": "t", "method": "upsert", "mapping": [{"source": "id", "target": "id", "primary": true, "op": §"max"}]"#,
            ),
            &["rules/bad-op"],
        ),
        case(
            &rule(
                r#""database": "db1", "table": "t", "method": "upsert", "primaryKey": "id", "mapping": [{"source": "id", "target": "id", "op": §"max"}]"#,
            ),
            &["rules/bad-op"],
        ),
        case(&with_method("insert", r#""op": §"add""#), &["rules/bad-op"]),
        case(&with_method("delete", r#""op": §"add""#), &["rules/bad-op"]),
        case(&with_method("truncate", r#""op": §"append""#), &["rules/bad-op"]),
        case(&with_method("patch", r#""op": "add", "default": §0"#), &["rules/bad-op"]),
        case(&with_method("update", r#""op": "min", "default": §0"#), &["rules/bad-op"]),
        case(&mapped(r#"{"value": §null, "target": "a", "op": "append"}"#), &["rules/bad-op"]),
        case(&with_method("upsert", r#""op": "add", "type": §"text""#), &["rules/op-type"]),
        case(&with_method("upsert", r#""op": "max", "type": §"json""#), &["rules/op-type"]),
        case(&with_method("upsert", r#""op": "min", "type": §"bool""#), &["rules/op-type"]),
        case(&with_method("upsert", r#""op": "append", "type": §"i64""#), &["rules/op-type"]),
        case(&with_method("upsert", r#""op": "append", "type": §"text[]""#), &["rules/op-type"]),
        case(r#"{"rules": [§{"event": "e"}]}"#, &["rules/empty-rule"]),
        case(r#"{"rules": [{"event": §"", "database": "db1"}]}"#, &["rules/bad-event"]),
        case(r#"{"rules": [{"event": §"a\u0000b", "database": "db1"}]}"#, &["rules/bad-event"]),
        case(r#"{"rules": [{"event": §"gravity.parked", "database": "db1"}]}"#, &["rules/bad-event"]),
        case(&rule(r#""database": "db1", §"method": "update""#), &["rules/table-missing"]),
        case(r#"{"rules": [§{"event": "e", "table": "t", "database": "db1"}]}"#, &["rules/method-missing"]),
        case(
            &rule(r#""database": "db1", "table": §"a;drop table x", "method": "truncate""#),
            &["rules/bad-identifier"],
        ),
        case(&mapped(r#"{"source": "a", "target": §"a\"b"}"#), &["rules/bad-identifier"]),
        case(
            &rule(r#""database": "db1", "table": "t", "method": "delete", "primaryKey": §"i d""#),
            &["rules/bad-identifier"],
        ),
        case(
            &rule(r#""database": "db1", "table": §"gravity_checkpoints", "method": "truncate""#),
            &["rules/reserved-table"],
        ),
        case(
            &rule(r#""database": "db1", "table": §"pg_catalog.pg_class", "method": "truncate""#),
            &["rules/reserved-table"],
        ),
        case(&mapped(r#"{"source": §"a..b", "target": "a"}"#), &["rules/bad-path"]),
        case(&mapped(r#"{"source": §"$meta.sequenc", "target": "a"}"#), &["rules/bad-path"]),
        case(&mapped(r#"{"source": "a", "target": "a", "type": §"string"}"#), &["rules/unknown-type"]),
        case(
            r#"{"rules": [{"event": "e", "database": "db1"}], "events": {"e": {"fields": {"a": §"int"}}}}"#,
            &["rules/unknown-type"],
        ),
        case(&mapped(r#"§{"target": "a"}"#), &["rules/source-choice"]),
        case(&mapped(r#"{"source": "a", "target": "a", §"value": 1}"#), &["rules/source-choice"]),
        case(&mapped(r#"{"source": "a", "target": §"id"}"#), &["rules/duplicate-target"]),
        case(
            &rule(
                r#""database": "db1", "table": "t", "method": §"update", "mapping": [{"source": "id", "target": "id"}]"#,
            ),
            &["rules/key-missing"],
        ),
        case(
            &rule(r#""database": "db1", "table": "t", "method": "delete", "primaryKey": §[]"#),
            &["rules/key-missing"],
        ),
        case(
            &rule(&format!(
                r#""database": "db1", "table": "t", "method": "update", "primaryKey": §["a"], "mapping": [{{{deck}}}, {{"source": "a", "target": "a"}}]"#
            )),
            &["rules/key-conflict"],
        ),
        case(
            &rule(r#""database": "db1", "table": "t", "method": "delete", "primaryKey": §["a", "a"]"#),
            &["rules/key-conflict"],
        ),
        case(
            &format!(
                r#"{{"rules": [{{"event": "a", "database": "db1", "table": "t", "method": "delete", "primaryKey": "id"}},
                               {{"event": "b", "database": "db1", "table": "t", "method": "update", "mapping": §[{}]}}]}}"#,
                r#"{"source": "x", "target": "x", "primary": true}"#
            ),
            &["rules/key-conflict"],
        ),
        case(
            &rule(
                r#""database": "db1", "table": "t", "method": "update", "primaryKey": §"uid", "mapping": [{"source": "uid", "target": "id"}]"#,
            ),
            &["rules/key-not-mapped"],
        ),
        case(&mapped(r#"{"value": §"seven", "target": "a", "type": "i32"}"#), &["rules/bad-constant"]),
        case(&mapped(r#"{"source": "a", "target": "a", "type": "i8", "default": §300}"#), &["rules/bad-constant"]),
        case(&mapped(r#"{"source": "a", "target": "a", §"previous": "b"}"#), &["rules/bad-previous"]),
        case(
            &rule(
                r#""database": "db1", "table": "t", "method": "delete", "mapping": [{"source": "id", "target": "id", "primary": true, §"previous": "old"}]"#,
            ),
            &["rules/bad-previous"],
        ),
        case(
            &rule(
                r#""database": "db1", "table": "t", "method": "update", "primaryKey": "id", §"on_conflict": "ignore""#,
            ),
            &["rules/unused-key"],
        ),
        case(
            &rule(r#""database": "db1", "table": "t", "method": "update", "primaryKey": "id", §"on_missing": "park""#),
            &["rules/unused-key"],
        ),
        case(
            &rule(r#""database": "db1", "table": "t", "method": "truncate", §"primaryKey": "id""#),
            &["rules/unused-key"],
        ),
        case(
            &rule(&format!(
                r#""database": "db1", "table": "t", "method": "update", §"unknown_fields": "park", "mapping": [{{{deck}}}]"#
            )),
            &["rules/unused-key"],
        ),
        case(&mapped(r#"{"value": 1, "target": "a", §"default": 2}"#), &["rules/unused-key"]),
        case(
            &rule(&format!(
                r#""database": "db1", "table": "t", "method": "delete", "mapping": [{{{deck}}}, §{{"source": "a", "target": "a"}}]"#
            )),
            &["rules/unused-mapping"],
        ),
        case(&rule(r#""database": §"bd1""#), &["rules/unknown-database"]),
        case(&rule(r#""database": "db1", "exporter": ["exporter1", §"exporter3"]"#), &["rules/unknown-exporter"]),
        case(r#"{"rules": [§{"event": "e", "table": "t", "method": "truncate"}]}"#, &["rules/database-choice"]),
        case(r#"{"rules": [§{"event": "e", "exporter": ["exporter1"]}]}"#, &["rules/database-choice"]),
        case(
            "{\"rules\": [{\"event\": \"e\", \"database\": \"db1\", \"exporter\": [\"exporter1\"]},\n §{\"event\": \"e\", \"database\": \"db1\", \"exporter\": [\"exporter1\"]}]}",
            &["rules/duplicate-routing"],
        ),
        case(
            "{\"rules\": [{\"id\": \"x\", \"event\": \"e\", \"database\": \"db1\"},\n §{\"id\": \"x\", \"event\": \"f\", \"database\": \"db1\"}]}",
            &["rules/duplicate-id"],
        ),
        case(
            &rule(
                r#""database": "created", "table": "t", "method": "update", "mapping": [{"source": "id", "target": "id", "primary": true, "type": "i64"}, §{"source": "a", "target": "a"}]"#,
            ),
            &["rules/type-missing"],
        ),
        case(
            r#"{"rules": [§{"event": "e", "database": "created", "table": "t", "method": "update", "primaryKey": "id"}]}"#,
            &["rules/type-missing"],
        ),
        case(
            r#"{"rules": [{"event": "e", "database": "db1", "table": "t", "method": "delete", "mapping": [{"source": "id", "target": "id", "primary": true, "type": "i64"}]},
                          {"event": "f", "database": "db1", "table": "t", "method": "delete", "mapping": [§{"source": "id", "target": "id", "primary": true, "type": "text"}]}]}"#,
            &["rules/type-conflict"],
        ),
        case(
            r#"{"rules": [{"event": "e", "database": "db1", "table": "t", "method": "delete", "mapping": [§{"source": "id", "target": "id", "primary": true, "type": "i64"}]}],
                "events": {"e": {"fields": {"id": "text"}}}}"#,
            &["rules/type-conflict"],
        ),
        case(&too_many(), &["rules/too-many-rules"]),
    ]
}

/// 65 rules on one event and database; the last is one too many.
fn too_many() -> String {
    let rules: Vec<String> = (0..65)
        .map(|i| {
            format!(
                r#"{}{{"event": "e", "database": "db1", "table": "t{i}", "method": "truncate"}}"#,
                if i == 64 { "§" } else { "" }
            )
        })
        .collect();
    format!("{{\"rules\": [{}]}}", rules.join(",\n"))
}

fn all() -> Context {
    let mut context = context(&["db1", "db2", "created"], &["exporter1", "exporter2"]);
    context.databases["created"].ddl = Ddl::Create;
    context
}

/// Removes the marks; answers line and column of each.
fn marks(text: &str) -> (String, Vec<(usize, usize)>) {
    let mut places = Vec::new();
    let (mut line, mut column) = (1, 1);
    for c in text.chars() {
        match c {
            '§' => places.push((line, column)),
            '\n' => (line, column) = (line + 1, 1),
            _ => column += 1,
        }
    }
    (text.replace('§', ""), places)
}

fn findings_of(text: &str) -> Vec<Finding> {
    match load(&[SourceFile::new("rules.json", text)], &all()) {
        Ok(rules) => rules.warnings().clone().into_vec(),
        Err(findings) => findings.into_vec(),
    }
}

#[test]
fn each_finding_has_its_code_and_its_exact_place() {
    for (marked, codes) in cases() {
        let (text, places) = marks(&marked);
        let found = findings_of(&text);
        let got: Vec<_> = found.iter().map(|f| (f.code, f.line, f.column)).collect();
        let want: Vec<_> = codes.iter().zip(&places).map(|(code, (line, column))| (*code, *line, *column)).collect();
        assert_eq!(got, want, "{text}\n{found:#?}");
    }
}

#[test]
fn every_code_of_a_file_is_provoked() {
    let provoked: BTreeSet<&str> =
        cases().into_iter().flat_map(|(_, codes)| codes).chain(live_cases().map(|case| case.2)).collect();
    // `config/bad-value` is for conditions that no key of rules.json has (ranges); its test is below. `rules/no-rules` has no
    // place, see below.
    let elsewhere = [codes::BAD_VALUE, codes::NO_RULES];
    for code in codes::ALL.iter().map(|entry| entry.code).filter(|code| !code.starts_with("map/")) {
        assert!(provoked.contains(code) || elsewhere.contains(&code), "{code}");
    }
}

#[test]
fn no_rules_at_all_is_a_warning() {
    let found = findings_of(r#"{"rules": []}"#);
    assert_eq!(found.iter().map(|f| (f.code, f.severity)).collect::<Vec<_>>(), [(codes::NO_RULES, Severity::Warning)]);
}

#[test]
fn all_findings_come_at_once_in_the_order_of_the_files() {
    let one = SourceFile::new(
        "rules/1.json",
        "{\"rules\": [{\"event\": \"e\", \"table\": \"t\", \"metod\": 1},\n{\"event\": \"f\", \"database\": \"nope\"}]}",
    );
    let two = SourceFile::new("rules/2.json", "{\"rules\": [");
    let three = SourceFile::new(
        "rules/3.json",
        "{\"rules\": [{\"event\": \"g\", \"database\": \"db1\", \"exporter\": [\"nobody\"]}]}",
    );
    let findings = load(&[one, two, three], &all()).expect_err("four findings");
    let got: Vec<_> = findings.iter().map(|f| (f.file.as_str(), f.line, f.code)).collect();
    assert_eq!(
        got,
        [
            ("rules/1.json", 1, "config/unknown-key"),
            ("rules/1.json", 2, "rules/unknown-database"),
            ("rules/2.json", 1, "config/syntax"),
            ("rules/3.json", 1, "rules/unknown-exporter"),
        ]
    );
}

#[test]
fn suggestions_name_what_was_meant() {
    // (text, suggestion, allowed contains)
    let cases = [
        (r#"{"rules": [{"event": "e", "tabel": "t"}]}"#.to_owned(), "did you mean `table`?", "table"),
        (rule(r#""table": "t", "method": "creat", "database": "db1""#), "", "insert"),
        (rule(r#""table": "t", "method": "upsrt", "database": "db1""#), "did you mean `upsert`?", "truncate"),
        (rule(r#""database": "bd1""#), "did you mean `db1`?", "db2"),
        (mapped(r#"{"source": "a", "target": "a", "type": "bigint"}"#), "did you mean `i64`?", "i64"),
        (mapped(r#"{"source": "a", "target": "a", "type": "Text"}"#), "did you mean `text`?", "text"),
        (mapped(r#"{"source": "$meta.recieved", "target": "a"}"#), "did you mean `$meta.received`?", "$meta.id"),
        (mapped(r#"{"source": "a", "target": "a", "op": "appends"}"#), "did you mean `append`?", "max"),
        (with_method("insert", r#""op": "add""#), "write \"method\": \"upsert\"", "set"),
        (with_method("upsert", r#""op": "add", "type": "text""#), "", "decimal"),
        (rule(r#""database": "db1", "exporter": "exporter1""#), "write [\"exporter1\"]", "list"),
        (mapped(r#"{"source": "a", "target": "a", "primary": "true"}"#), "write true without quotes", "true/false"),
    ];
    for (text, suggestion, allowed) in cases {
        let found = findings_of(&text);
        assert_eq!(found[0].suggestion.as_deref().unwrap_or(""), suggestion, "{text}");
        assert!(found[0].allowed.iter().any(|word| word == allowed), "{text}: {:?}", found[0].allowed);
    }
}

#[test]
fn removed_keys_of_the_original_say_what_to_write() {
    for key in ["handler", "script", "schema", "stores", "subscriptions", "trigger", "exporters", "enabled"] {
        let found = findings_of(&rule(&format!(r#""database": "db1", "{key}": {{}}"#)));
        assert_eq!(found.iter().map(|f| f.code).collect::<Vec<_>>(), [codes::REMOVED_KEY], "{key}");
        assert!(found[0].suggestion.is_some(), "{key}");
    }
}

#[test]
fn comments_and_a_byte_order_mark_are_no_fault() {
    let text = "\u{feff}// the rules\n{ /* all\n of them */ \"$schema\": \"x\", \"rules\": [ // none yet\n {\"event\": \"e\", \"database\": \"db1\"} ] }";
    assert_eq!(findings_of(text), []);
    let (text, places) = marks("\u{feff}/* ü */ {\"rules\": [{\"event\": \"ü\", /* ß */ §\"databas\": 1}]}");
    let found = findings_of(&text);
    // The mark itself is no character of the first line.
    assert_eq!((found[0].line, found[0].column), (1, places[0].1 - 1));
}

#[test]
fn a_finding_serialises_as_check_json_says() {
    let found = findings_of(&rule(r#""database": "bd1""#));
    let json = serde_json::to_value(&found[0]).expect("plain data");
    let keys: Vec<&str> = json.as_object().expect("an object").keys().map(String::as_str).collect();
    assert_eq!(keys, ["code", "severity", "file", "line", "column", "message", "found", "allowed", "suggestion"]);
    assert_eq!(json["severity"], "error");
    assert_eq!(json["found"], "bd1");
}

/// (mapping or keys of a rule on `t`, live table, code): what only the live catalogue can tell.
fn live_cases() -> impl Iterator<Item = (String, SharedShape, &'static str)> {
    let table = || Table::new("t").key("id", "i64").column("a", "i32").column("b", "text");
    let own = |keys: &str| rule(&format!(r#""database": "db1", {keys}"#));
    [
        (own(r#""table": §"tt", "method": "truncate""#), table().shape(), "rules/unknown-table"),
        (mapped(r#"§{"source": "a", "target": "aa"}"#), table().shape(), "rules/unknown-column"),
        (own(r#""table": "t", "method": "delete", "primaryKey": §"a""#), table().shape(), "rules/not-the-key"),
        (own(r#""table": "t", "method": "delete", "primaryKey": §"a""#), Table::new("t").column("a", "i64").shape(), "rules/not-the-key"),
        (mapped(r#"§{"source": "a", "target": "g"}"#), table().column("g", "i32").generated().shape(), "rules/generated-column"),
        (mapped(r#"§{"source": "a", "target": "a", "type": "i64"}"#), table().shape(), "rules/lossy-type"),
        (mapped(r#"§{"source": "b", "target": "b", "type": "text"}"#), Table::new("t").key("id", "i64").column("b", "varchar(10)").shape(), "rules/lossy-type"),
        (mapped(r#"§{"source": "b", "target": "b", "op": "add"}"#), table().shape(), "rules/op-type"),
        (mapped(r#"§{"source": "a", "target": "a", "op": "append"}"#), table().shape(), "rules/op-type"),
        (mapped(r#"§{"source": "b", "target": "b", "type": "json", "op": "append"}"#), table().shape(), "rules/op-type"),
        (
            mapped(r#"§{"source": "c", "target": "c", "op": "append"}"#),
            table().column("c", "varchar(3)").database_type("character(3)").shape(),
            "rules/op-type",
        ),
        (mapped(r#"§{"source": "j", "target": "j", "op": "max"}"#), table().column("j", "json").shape(), "rules/op-type"),
        (mapped(r#"§{"value": 1.5, "target": "a"}"#), table().shape(), "rules/bad-constant"),
        (mapped(r#"§{"value": null, "target": "b"}"#), table().not_null().shape(), "rules/bad-constant"),
        (mapped(r#"§{"source": "a", "default": "x", "target": "a"}"#), table().shape(), "rules/bad-constant"),
        (
            own(r#""table": "t", "method": "insert", "mapping": §[{"source": "a", "target": "a"}]"#),
            table().shape(),
            "rules/key-not-mapped",
        ),
        (
            r#"{"rules": [§{"event": "e", "database": "db1", "table": "t", "method": "insert", "mapping": [{"source": "id", "target": "id"}]}]}"#.to_owned(),
            table().not_null().shape(),
            "rules/column-not-filled",
        ),
    ]
    .into_iter()
}

#[test]
fn rules_that_the_live_table_contradicts_are_refused_with_their_line() {
    for (marked, shape, code) in live_cases() {
        let (text, places) = marks(&marked);
        let rules = load(&[SourceFile::new("rules.json", text.as_str())], &all()).expect(&text);
        let findings = rules.compile("db1", None, std::slice::from_ref(&shape)).expect_err(&text);
        let got: Vec<_> = findings.iter().map(|f| (f.code, (f.line, f.column))).collect();
        assert_eq!(got, [(code, places[0])], "{text}");
    }
}

#[test]
fn all_contradictions_of_a_table_come_at_once() {
    let text = mapped(r#"{"source": "x", "target": "nope"}, {"source": "a", "target": "a", "type": "text"}"#);
    let rules = load(&[SourceFile::new("rules.json", text)], &all()).expect("valid by itself");
    let shape = Table::new("t").key("id", "i64").column("a", "i32").shape();
    let findings: Findings = rules.compile("db1", None, &[shape]).expect_err("two");
    assert_eq!(findings.len(), 2);
}

#[test]
fn a_hostile_file_never_panics() {
    let deck = include_str!("deck/1.json");
    for cut in 0..deck.len() {
        let _ = load(&[SourceFile::new("rules.json", &deck[..cut])], &all());
        for byte in ["\"", "{", "]", "\u{0}", "ü", "//", "/*", "1e999"] {
            let text = format!("{}{byte}{}", &deck[..cut], &deck[cut..]);
            let _ = load(&[SourceFile::new("rules.json", text)], &all());
        }
    }
    for text in ["[".repeat(100_000), "{\"a\":".repeat(100_000), "\u{feff}".to_owned(), String::new(), "/*".to_owned()]
    {
        let found = findings_of(&text);
        assert_eq!(found.len(), 1, "{}", &text[..text.len().min(20)]);
        assert_eq!(found[0].code, "config/syntax");
    }
}
