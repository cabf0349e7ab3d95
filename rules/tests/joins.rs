//! SEMANTICS 2.7 as far as the rules decide it: which values join those of the row, and which are not carried at all.

mod common;

use common::{Table, evaluate_one, outcome, route};
use gravity_model::shape::SharedShape;

fn totals() -> SharedShape {
    Table::new("totals")
        .key("id", "i64")
        .column("total", "decimal(12,2)")
        .not_null()
        .column("orders", "i32")
        .column("largest", "decimal")
        .column("first", "timestamptz")
        .column("log", "text")
        .column("numbers", "json")
        .column("name", "text")
        .shape()
}

fn rule(method: &str, more: &str) -> String {
    format!(
        r#"{{"event":"placed","table":"totals","method":"{method}","mapping":[
            {{"source":"id","target":"id","primary":true}},
            {{"source":"amount","target":"total","op":"add"}},
            {{"value":1,"target":"orders","op":"add"}},
            {{"expression":"amount * 2","target":"largest","type":"decimal","op":"max"}},
            {{"source":"at","target":"first","op":"min"}},
            {{"source":"note","target":"log","op":"append"}},
            {{"source":"number","target":"numbers","op":"append"}},
            {{"source":"name","target":"name","op":"set"}}{more}]}}"#
    )
}

#[test]
fn s2_7_values_are_carried_with_their_op() {
    let program = route(&format!(r#"{{"rules":[{}]}}"#, rule("upsert", "")), &[totals()]);
    let payload = r#"{"id":1,"amount":2.50,"at":"1970-01-01T00:00:01Z","note":"a","number":[7, 1.10],"name":"x"}"#;
    assert_eq!(
        outcome(&program, "placed", payload),
        ["upsert totals(id=1) total add=2.5 orders add=1 largest max=5 first min=TimestampTz(1000000) log append='a' \
          numbers append=json[[7, 1.10]] name='x'"]
    );
}

/// A document is carried as the list of what is appended, so that those of several events join.
#[test]
fn s2_7_a_json_value_is_carried_as_a_list_of_itself() {
    let rules = r#"{"rules":[{"event":"e","table":"t","method":"patch","mapping":[
        {"source":"id","target":"id","primary":true},{"source":"v","target":"v","op":"append"}]}]}"#;
    let program = route(rules, &[Table::new("t").key("id", "i64").column("v", "json").shape()]);
    for (given, carried) in [
        ("1.10", "[1.10]"),
        ("9007199254740993", "[9007199254740993]"),
        ("\"a\\u0062\"", "[\"a\\u0062\"]"),
        ("{\"a\": [1]}", "[{\"a\": [1]}]"),
        ("[]", "[[]]"),
        ("false", "[false]"),
    ] {
        let changes = outcome(&program, "e", &format!(r#"{{"id":1,"v":{given}}}"#));
        assert_eq!(changes, [format!("patch t(id=1) v append=json{carried}")]);
    }
}

/// Neither absent nor null changes anything; a column that must not be null is no reason to refuse the event.
#[test]
fn s2_7_absent_and_null_are_not_carried() {
    let program = route(&format!(r#"{{"rules":[{}]}}"#, rule("upsert", "")), &[totals()]);
    for payload in [r#"{"id":1}"#, r#"{"id":1,"amount":null,"at":null,"note":null,"number":null}"#] {
        // The key and the count do not cover the total, which must not be null: an update first.
        assert_eq!(outcome(&program, "placed", payload), ["updateelseinsert totals(id=1) orders add=1"]);
    }
    let null_name = r#"{"id":1,"amount":0,"name":null}"#;
    let changes = outcome(&program, "placed", null_name);
    assert_eq!(changes, ["upsert totals(id=1) total add=0 orders add=1 largest max=0 name=null"]);
}

#[test]
fn s2_7_equal_ops_share_a_column_set_and_others_do_not() {
    let plain = r#"{"event":"set","table":"totals","method":"upsert","mapping":[
        {"source":"id","target":"id","primary":true},{"source":"amount","target":"total"}]}"#;
    let add = plain.replace(r#""target":"total""#, r#""target":"total","op":"add""#).replace("\"set\"", "\"one\"");
    let again = add.replace("\"one\"", "\"two\"");
    let program = route(&format!(r#"{{"rules":[{plain},{add},{again}]}}"#), &[totals()]);
    let columns = |event: &str| evaluate_one(&program, event, r#"{"id":1,"amount":1}"#).1.changes[0].columns;
    assert_eq!(columns("one"), columns("two"));
    assert_ne!(columns("one"), columns("set"));
    assert!(program.column_set(columns("set")).ops.is_empty());
}

/// What the value's own type decides is decided per event.
#[test]
fn s2_7_a_value_that_no_column_holds_is_refused_with_its_event() {
    let program = route(&format!(r#"{{"rules":[{}]}}"#, rule("patch", "")), &[totals()]);
    for amount in ["12345678901", "0.001", "\"x\""] {
        let changes = outcome(&program, "placed", &format!(r#"{{"id":1,"amount":{amount}}}"#));
        assert!(changes[0].starts_with("refused map/"), "{amount}: {changes:?}");
    }
}

#[test]
fn s2_7_a_row_that_moves_takes_its_sum_along() {
    let rules = r#"{"rules":[{"event":"e","table":"totals","method":"update","mapping":[
        {"source":"id","target":"id","primary":true,"previous":"old"},{"source":"amount","target":"total","op":"add"}]}]}"#;
    let program = route(rules, &[totals()]);
    let changes = outcome(&program, "e", r#"{"id":2,"old":1,"amount":5}"#);
    assert_eq!(changes, ["move totals(id=2 from id=1) total add=5"]);
}
