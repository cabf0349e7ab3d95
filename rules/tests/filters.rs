//! Filters and expressions, each sentence of SEMANTICS 2.1, 2.6 and 4.4 about them as a test of its own.

mod common;

use std::sync::Arc;

use bytes::Bytes;
use common::{Table, context, outcome, route};
use gravity_model::event::HeaderBuf;
use gravity_model::shape::SharedShape;
use gravity_model::{Event, Recorded, Sequence};
use gravity_rules::diagnose::SourceFile;
use gravity_rules::{Evaluation, RuleSet, Verdict, load};

fn table() -> SharedShape {
    Table::new("t").key("id", "i64").column("v", "text").column("n", "decimal").column("i", "i32").shape()
}

/// A rule that writes the key, under a filter.
fn filtered(filter: &str) -> String {
    let filter = serde_json::to_string(filter).expect("a text");
    format!(
        r#"{{"rules":[{{"event":"e","table":"t","method":"update","filter":{filter},
            "mapping":[{{"source":"id","target":"id","primary":true}}]}}]}}"#
    )
}

fn declared(fields: &str, filter: &str) -> String {
    filtered(filter).replacen('{', &format!(r#"{{"events":{{"e":{{"fields":{{{fields}}}}}}},"#), 1)
}

/// True when the row is written; anything but `filtered` is a mistake.
fn passes_under(rules: &str, payload: &str) -> bool {
    let lines = outcome(&route(rules, &[table()]), "e", &payload.replacen('{', r#"{"id":1,"#, 1).replace(",}", "}"));
    match &lines[..] {
        [line] if line == "filtered" => false,
        [line] if line.starts_with("up") => true,
        other => panic!("{rules} {payload}: {other:?}"),
    }
}

fn passes(filter: &str, payload: &str) -> bool {
    passes_under(&filtered(filter), payload)
}

/// A rule that writes the value of an expression into a column.
fn computed(column: &str, expression: &str, payload: &str) -> String {
    let expression = serde_json::to_string(expression).expect("a text");
    let rules = format!(
        r#"{{"rules":[{{"event":"e","table":"t","method":"update","mapping":[
            {{"source":"id","target":"id","primary":true}},{{"expression":{expression},"target":"{column}"}}]}}]}}"#
    );
    let payload = payload.replacen('{', r#"{"id":1,"#, 1).replace(",}", "}");
    let lines = outcome(&route(&rules, &[table()]), "e", &payload);
    lines[0].split_once(&format!("{column}=")).map_or_else(|| lines[0].clone(), |(_, value)| value.to_owned())
}

fn refused(rules: &str) -> Vec<&'static str> {
    load(&[SourceFile::new("rules.json", rules)], &context(&["d"], &["x", "y"]))
        .expect_err(rules)
        .iter()
        .map(|f| f.code)
        .collect()
}

#[test]
fn s2_6_what_is_not_true_filters() {
    assert!(passes("n > 5", r#"{"n":6}"#));
    assert!(!passes("n > 5", r#"{"n":5}"#));
    assert!(!passes("active", "{}"), "null is not true");
    assert!(!passes("!active", "{}"), "and neither is what is not null");
    assert!(passes("!active", r#"{"active":false}"#));
}

#[test]
fn s2_6_a_comparison_with_absent_or_null_is_false() {
    for payload in ["{}", r#"{"n":null,"s":null}"#] {
        for filter in ["n == 5", "n != 5", "n < 5", "n >= 5", "s == ''", "s != 'x'", "s in ['x']", "5 == n"] {
            assert!(!passes(filter, payload), "{filter} {payload}");
        }
        for filter in
            ["s.startsWith('')", "s.contains('')", "s.endsWith('')", "l.exists(x, x == 1)", "l.all(x, x == 1)"]
        {
            assert!(!passes(filter, payload), "{filter} {payload}");
        }
        assert!(passes("!(n == 5)", payload), "the comparison is false, not null");
    }
}

#[test]
fn s2_6_equality_with_null_and_has_are_the_exceptions() {
    assert!(passes("a.b == null && !has(a.b) && !(a.b != null)", r#"{"a":{}}"#));
    assert!(passes("a.b == null", "{}"), "also where what is above is absent");
    assert!(passes("a.b == null && has(a.b)", r#"{"a":{"b":null}}"#));
    assert!(passes("a.b != null && has(a.b)", r#"{"a":{"b":[1]}}"#), "presence needs no type");
    assert!(passes("a + 1 == null", "{}"));
}

#[test]
fn s2_6_arithmetic_with_null_gives_null() {
    for expression in ["n + 1", "n * 2", "-n", "k / 2", "k % 2", "round(n, 1)", "int(n)", "1 - n"] {
        assert_eq!(computed("n", expression, "{}"), "null", "{expression}");
    }
    assert_eq!(computed("v", "s + 'x'", "{}"), "null");
    assert_eq!(computed("n", "size(s.trim())", "{}"), "null");
    assert_eq!(computed("v", "string(n + 1)", r#"{"n":null}"#), "null");
    assert_eq!(computed("n", "coalesce(n, m, 7)", r#"{"n":null}"#), "7");
    assert_eq!(computed("n", "n > 1 ? 1 : 2", "{}"), "2", "what is not true takes the second");
}

#[test]
fn s2_6_division_by_zero_has_no_value_and_nothing_overflows() {
    assert_eq!(computed("n", "k / j", r#"{"k":1,"j":0}"#), "null");
    assert_eq!(computed("n", "k % j", r#"{"k":1,"j":0}"#), "null");
    assert_eq!(computed("n", "div(n, m, 2)", r#"{"n":1,"m":0.0}"#), "null");
    assert_eq!(computed("n", "n + 1", r#"{"n":9223372036854775807}"#), "9223372036854775808");
    let huge = "9".repeat(60);
    assert_eq!(computed("n", "n * 10", &format!(r#"{{"n":{huge}}}"#)), format!("{huge}0"));
    assert_eq!(
        computed("i", "n * 10", r#"{"n":2147483647}"#).split(' ').nth(1),
        Some("map/out-of-range"),
        "the column's bound, not the language's"
    );
}

#[test]
fn s2_6_integers_and_decimals_are_exact() {
    assert_eq!(computed("n", "n + 0.2", r#"{"n":0.1}"#), "0.3");
    assert_eq!(computed("n", "p * q", r#"{"p":19.99,"q":3}"#), "59.97");
    assert_eq!(computed("n", "k / 2", r#"{"k":-7}"#), "-3", "cut towards zero, as in CEL");
    assert_eq!(computed("n", "k % 2", r#"{"k":-7}"#), "-1");
    assert_eq!(computed("n", "div(n, 3, 4)", r#"{"n":2}"#), "0.6667");
    assert!(passes("n == 0.30", r#"{"n":0.3}"#));
    assert!(passes("n == 9007199254740993", r#"{"n":9007199254740993}"#));
    assert!(!passes("n == 9007199254740993", r#"{"n":9007199254740992}"#), "one double, two integers");
    assert!(passes("n > 1.0000000000000000000000000000000000001", r#"{"n":1.0000000000000000000000000000000000002}"#));
    assert!(passes("n == 1e3", r#"{"n":1000.0}"#));
}

#[test]
fn s2_6_only_a_present_value_of_another_type_parks_and_before_evaluation() {
    let of = |rules: &str, payload: &str| outcome(&route(rules, &[table()]), "e", payload);
    let parked = |filter: &str, payload: &str| of(&filtered(filter), payload);
    assert_eq!(parked("n > 5", r#"{"id":1,"n":"6"}"#)[0], "refused map/wrong-type rules.json:1");
    assert_eq!(parked("n > 5", r#"{"id":1,"n":"6"}"#).len(), 2, "its key is blocked");
    assert_eq!(parked("k / 2 == 1", r#"{"id":1,"k":1.5}"#)[0], "refused map/wrong-type rules.json:1");
    assert_eq!(parked("s == 'x'", r#"{"id":1,"s":7}"#)[0], "refused map/wrong-type rules.json:1");
    // Never by the way the evaluation takes.
    assert_eq!(parked("n > 5 || s == 'x'", r#"{"id":1,"n":6,"s":7}"#)[0], "refused map/wrong-type rules.json:1");
    assert_eq!(parked("n > 5 && s == 'x'", r#"{"id":1,"n":1,"s":7}"#)[0], "refused map/wrong-type rules.json:1");
    assert_eq!(parked("l.exists(x, x > 1)", r#"{"id":1,"l":[2,"3"]}"#)[0], "refused map/wrong-type rules.json:1");
    assert_eq!(
        of(&declared(r#""d":"date""#, "d > '2026-01-01'"), r#"{"id":1,"d":"soon"}"#)[0],
        "refused map/unreadable rules.json:1"
    );
    assert_eq!(
        of(&declared(r#""k":"i8""#, "k > 5"), r#"{"id":1,"k":300}"#)[0],
        "refused map/out-of-range rules.json:1"
    );
}

#[test]
fn s2_6_a_field_is_declared_or_inferred_from_its_use() {
    assert!(passes_under(&declared(r#""a":"decimal(8,2)""#, "a == b"), r#"{"a":1.5,"b":1.50}"#), "b follows from a");
    assert!(passes_under(&declared(r#""a":"i64""#, "a > 5"), r#"{"a":"6"}"#), "declared: read as a column reads it");
    let fields = r#""at":"timestamptz","on":"date","u":"uuid","l":"text[]""#;
    let cases = [
        ("at < '2026-05-06T07:08:09Z'", r#"{"at":"2026-05-06T09:08:08+02:00"}"#),
        ("date(at) == '2026-05-06'", r#"{"at":"2026-05-07T01:00:00+02:00"}"#),
        ("on >= date('2026-02-28')", r#"{"on":"2026-02-28"}"#),
        ("u == '67E55044-10B1-426F-9247-BB680E5FE0C8'", r#"{"u":"67e55044-10b1-426f-9247-bb680e5fe0c8"}"#),
        ("u in ['67e55044-10b1-426f-9247-bb680e5fe0c8']", r#"{"u":"67e55044-10b1-426f-9247-bb680e5fe0c8"}"#),
        ("'a' in l && size(l) == 2 && l.all(x, x != '')", r#"{"l":["b","a"]}"#),
    ];
    for (filter, payload) in cases {
        assert!(passes_under(&declared(fields, filter), payload), "{filter}");
    }
    // A pointer in the declaration and a path in the expression name one field.
    assert!(passes_under(&declared(r#""/lines/0/qty":"i32""#, "lines[0].qty / 2 == 1"), r#"{"lines":[{"qty":3}]}"#));
    assert!(passes("$payload['first name'] == 'x' && a['b c'].d == 1", r#"{"first name":"x","a":{"b c":{"d":1}}}"#));
}

#[test]
fn s2_6_a_conflict_or_nothing_to_infer_from_is_refused_at_load() {
    assert_eq!(refused(&filtered("a == b")), ["rules/expression-untyped"]);
    assert_eq!(refused(&filtered("size(a) > 1")), ["rules/expression-untyped"]);
    assert_eq!(refused(&filtered("a > 1 && a == 'x'")), ["rules/expression-type"]);
    assert_eq!(refused(&declared(r#""a":"text""#, "a > 1")), ["rules/expression-type"]);
    assert_eq!(refused(&declared(r#""a":"json""#, "a == 'x'")), ["rules/expression-type"]);
    assert_eq!(refused(&declared(r#""d":"date""#, "d > 'soon'")), ["rules/expression-type"]);
    // Across the rules of one event, and not across events.
    let two = |second: &str| {
        format!(
            r#"{{"rules":[{{"event":"e","database":"d","filter":"a > 1"}},
                {{"event":"{second}","database":"d2","filter":"a == 'x'"}}]}}"#
        )
    };
    assert!(load(&[SourceFile::new("rules.json", two("f"))], &context(&["d", "d2"], &[])).is_ok());
    let conflict = load(&[SourceFile::new("rules.json", two("e"))], &context(&["d", "d2"], &[])).expect_err("conflict");
    let finding = conflict.iter().next().expect("one");
    assert_eq!((finding.code, finding.line, finding.found.as_deref()), ("rules/expression-type", 2, Some("a")));
    assert!(finding.suggestion.as_deref().is_some_and(|s| s.contains("rules.json:1")), "{finding:?}");
}

#[test]
fn unknown_functions_and_fields_are_guessed() {
    let suggestion = |rules: &str| {
        let found = load(&[SourceFile::new("rules.json", rules)], &context(&["d"], &[])).expect_err("refused");
        found.iter().next().and_then(|f| f.suggestion.clone()).unwrap_or_default()
    };
    assert_eq!(suggestion(&filtered("a.startWith('x')")), "did you mean `startsWith`?");
    assert_eq!(
        suggestion(&declared(r#""customer.name":"text""#, "customer.nmae == b")),
        "did you mean `customer.name`?"
    );
    assert_eq!(suggestion(&filtered("$meta.sequnce > 1")), "did you mean `$meta.sequence`?");
    assert!(suggestion(&filtered("a > 0.5 && a / 2 > 1 && a == 'x'")).contains("declare"), "names the other use");
}

#[test]
fn metadata_has_its_types() {
    let program = route(
        &filtered(
            "$meta.sequence > 3 && $meta.headers['X-Kind'].startsWith('a') && $meta.received > '1970-01-01T00:00:00Z' && $meta.event == 'e'",
        ),
        &[table()],
    );
    let records = Arc::new(Bytes::from_static(br#"{"id":4}"#));
    let mut headers = HeaderBuf::new();
    headers.push("x-kind", b"abc");
    let event = Event { headers: headers.as_headers(), received: 1, ..Event::data("e", "web", &records) };
    let mut out = Evaluation::new();
    assert_eq!(program.evaluate(&Recorded { sequence: Sequence(4), event }, &records, &mut out), Verdict::Matched);
    assert_eq!(program.evaluate(&Recorded { sequence: Sequence(3), event }, &records, &mut out), Verdict::Filtered);
}

#[test]
fn an_expression_gives_null_not_absence_and_may_be_a_key() {
    assert_eq!(computed("v", "s + ''", "{}"), "null", "null is written; an absent source would leave the column alone");
    let keyed = r#"{"rules":[{"event":"e","table":"t","method":"delete","mapping":[
        {"expression":"a * 100 + b","target":"id","primary":true}]}]}"#;
    let program = route(keyed, &[table()]);
    assert_eq!(outcome(&program, "e", r#"{"a":2,"b":7}"#), ["delete t(id=207)"]);
    assert_eq!(outcome(&program, "e", r#"{"a":2}"#), ["refused map/missing-key rules.json:2"]);
}

#[test]
fn texts_are_compared_by_their_characters() {
    assert!(passes("s == 'é\\u0041'", r#"{"s":"\u00e9A"}"#));
    assert!(passes("s == \"a\\\"b\" && s != r'a\\b'", r#"{"s":"a\"b"}"#));
    assert!(passes("s.lowerAscii() == 'abc' && size(s) == 3 && s.contains('B')", r#"{"s":"aBC"}"#));
    assert_eq!(computed("v", "s.trim() + '-' + string(round(k, 1))", r#"{"s":" a ","k":1.50}"#), "'a-1.5'");
    assert!(passes("kind in ['a', 'b']", r#"{"kind":"b"}"#) && !passes("kind in ['a', 'b']", r#"{"kind":"c"}"#));
}

// SEMANTICS 2.1: routing filters.

fn rules(text: &str, databases: &[&str]) -> RuleSet {
    load(&[SourceFile::new("rules.json", text)], &context(databases, &["x", "y"])).unwrap_or_else(|f| panic!("{f}"))
}

/// What becomes of an event in a database: its verdict, and the exporters that are told.
fn told(set: &RuleSet, database: &str, payload: &str) -> (String, Vec<String>) {
    let program = set.compile(database, None, &[table()]).unwrap_or_else(|f| panic!("{f}"));
    let (verdict, out) = common::evaluate_one(&program, "e", payload);
    let tells = |subscription: &&gravity_rules::Subscription| {
        let number = set.subscription(database, &subscription.exporter);
        number.is_some_and(|number| program.tells("e", number, &out))
    };
    let exporters = set.subscriptions().iter().filter(|s| s.database == database).filter(tells);
    (format!("{verdict:?}").to_lowercase(), exporters.map(|s| s.exporter.clone()).collect())
}

const ROWS: &str =
    r#"{"event":"e","table":"t","method":"update","mapping":[{"source":"id","target":"id","primary":true}]}"#;

#[test]
fn s2_1_a_projections_filter_gates_its_rows() {
    let two = r#"{"rules":[
        {"event":"e","table":"t","method":"update","filter":"n > 5","mapping":[{"source":"id","target":"id","primary":true}]},
        {"event":"e","table":"t","method":"delete","filter":"n < 0","mapping":[{"source":"id","target":"id","primary":true}]}]}"#;
    let program = route(two, &[table()]);
    assert_eq!(outcome(&program, "e", r#"{"id":1,"n":6}"#), ["upsert t(id=1)"]);
    assert_eq!(outcome(&program, "e", r#"{"id":1,"n":-6}"#), ["delete t(id=1)"]);
    assert_eq!(outcome(&program, "e", r#"{"id":1,"n":3}"#), ["filtered"]);
}

#[test]
fn s2_1_a_routings_filter_gates_its_exporters_and_the_rows_without_database() {
    let text = format!(
        r#"{{"rules":[{ROWS},
            {{"event":"e","database":"d","exporter":["x"],"filter":"n > 5"}},
            {{"event":"e","database":"d","exporter":["y"],"filter":"n > 10"}},
            {{"event":"e","database":"d2"}}]}}"#
    );
    let set = rules(&text, &["d", "d2"]);
    let of = |database: &str, n: i32| told(&set, database, &format!(r#"{{"id":1,"n":{n}}}"#));
    assert_eq!(of("d", 11), ("matched".into(), vec!["x".to_owned(), "y".to_owned()]));
    assert_eq!(of("d", 6), ("matched".into(), vec!["x".to_owned()]), "at least one routing holds: the row goes");
    assert_eq!(of("d", 5), ("filtered".into(), vec![]));
    assert_eq!(of("d2", 5), ("matched".into(), vec![]), "the other database is not concerned");
}

#[test]
fn s2_1_a_projection_with_database_goes_there_whatever_routings_say() {
    let text = r#"{"rules":[
        {"event":"e","database":"d","table":"t","method":"update","mapping":[{"source":"id","target":"id","primary":true}]},
        {"event":"e","database":"d","exporter":["x"],"filter":"n > 5"}]}"#;
    let set = rules(text, &["d", "d2"]);
    assert_eq!(told(&set, "d", r#"{"id":1,"n":1}"#), ("matched".into(), vec![]));
    assert_eq!(told(&set, "d", r#"{"id":1,"n":6}"#), ("matched".into(), vec!["x".to_owned()]));
}

#[test]
fn s4_4_an_event_that_is_only_routed_is_applied_if_its_filter_holds() {
    let text = r#"{"rules":[{"event":"e","database":"d","exporter":["x"],"filter":"n > 5"}]}"#;
    let set = rules(text, &["d"]);
    assert_eq!(told(&set, "d", r#"{"n":6}"#), ("matched".into(), vec!["x".to_owned()]));
    assert_eq!(told(&set, "d", r#"{"n":5}"#), ("filtered".into(), vec![]));
    let (verdict, _) = told(&set, "d", r#"{"n":"6"}"#);
    assert!(verdict.starts_with("refused"), "{verdict}");
    let (verdict, _) = told(&set, "d", "no json");
    assert!(verdict.starts_with("refused") && verdict.contains("rules.json:1"), "{verdict}");
}

#[test]
fn a_refusing_routing_filter_blocks_the_rows_that_it_might_have_let_pass() {
    let text = format!(r#"{{"rules":[{ROWS},{{"event":"e","database":"d","filter":"n > 5"}}]}}"#);
    let program = rules(&text, &["d"]).compile("d", None, &[table()]).expect("compiles");
    let lines = outcome(&program, "e", r#"{"id":1,"n":"6"}"#);
    assert_eq!((lines.len(), lines[0].as_str()), (2, "refused map/wrong-type rules.json:1"));
}

#[test]
fn a_null_payload_has_no_fields() {
    let set = rules(r#"{"rules":[{"event":"e","database":"d","exporter":["x"],"filter":"!has(n)"}]}"#, &["d"]);
    let program = set.compile("d", None, &[]).expect("compiles");
    let records = Arc::<Bytes>::default();
    let event = Event { payload: None, ..Event::data("e", "web", b"") };
    let mut out = Evaluation::new();
    assert_eq!(program.evaluate(&Recorded { sequence: Sequence(1), event }, &records, &mut out), Verdict::Matched);
    assert!(program.is_conditional("e") && program.tells("e", 0, &out));
}

#[test]
fn rules_have_another_name_with_another_filter_and_the_same_with_another_layout() {
    let hash = |filter: &str| rules(&filtered(filter), &["d"]).hash();
    assert_ne!(hash("n > 5"), hash("n > 6"));
    assert_eq!(hash("n>5"), hash("n  > 5 // five"));
    assert_ne!(
        rules(&filtered("true"), &["d"]).hash(),
        rules(&filtered("true").replace("\"filter\":\"true\",", ""), &["d"]).hash()
    );
}
