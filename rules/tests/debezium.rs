//! Captured changes as rules read them: Debezium's envelopes for PostgreSQL and MySQL, with and without schema.
//!
//! The messages are written for these tests after the connectors' documentation; PostgreSQL's and MySQL's differ in `source`,
//! which no rule here reads, and in what `before` holds.

mod common;

use std::sync::Arc;

use bytes::Bytes;
use common::{Table, lines, route};
use gravity_model::event::HeaderBuf;
use gravity_model::{CAPTURE_HEADER, Captured, Event, Recorded, RowChange, Sequence};
use gravity_rules::{Evaluation, RouteProgram};

struct Change<'c> {
    name: &'c str,
    change: RowChange,
    follows: bool,
    key: Option<&'c str>,
    headers: &'c [(&'c str, &'c str)],
    payload: Option<&'c str>,
}

impl<'c> Change<'c> {
    /// Of a source whose setting names the event: the method follows the operation.
    fn of(change: RowChange, payload: &'c str) -> Change<'c> {
        Change { name: "customers", change, follows: true, key: None, headers: &[], payload: Some(payload) }
    }

    /// Named after table and operation.
    fn named(name: &'c str, change: RowChange, payload: &'c str) -> Change<'c> {
        Change { name, follows: false, ..Change::of(change, payload) }
    }

    fn outcome(&self, program: &RouteProgram) -> Vec<String> {
        let mut headers = HeaderBuf::new();
        self.headers.iter().for_each(|(name, value)| headers.push(name, value.as_bytes()));
        let mark = Captured { change: self.change, method_follows: self.follows };
        headers.push(CAPTURE_HEADER, mark.to_string().as_bytes());
        let records = Arc::new(Bytes::copy_from_slice(self.payload.unwrap_or_default().as_bytes()));
        let mut event = Event::data(self.name, "bus", &records);
        event.payload = self.payload.map(|_| &records[..]);
        (event.key, event.headers) = (self.key.map(str::as_bytes), headers.as_headers());
        let mut out = Evaluation::new();
        let verdict = program.evaluate(&Recorded { sequence: Sequence(1), event }, &records, &mut out);
        lines(program, &verdict, &out)
    }
}

fn check(program: &RouteProgram, change: &Change<'_>, expect: &[&str]) {
    assert_eq!(change.outcome(program), expect, "{} {:?}", change.name, change.payload);
}

fn customers() -> Table {
    Table::new("customers").key("id", "i64").column("name", "text").column("email", "text")
}

const MAPPING: &str = r#"[{"source": "id", "target": "id", "primary": true},
    {"source": "name", "target": "name"}, {"source": "email", "target": "email"}]"#;

fn one(method: &str) -> RouteProgram {
    let rules =
        format!(r#"{{"rules":[{{"event":"customers","table":"customers","method":"{method}","mapping":{MAPPING}}}]}}"#);
    route(&rules, &[customers().shape()])
}

/// PostgreSQL with the default replica identity: `before` is null but for a delete, where it holds the key.
fn postgres(op: &str, before: &str, after: &str) -> String {
    format!(
        r#"{{"before":{before},"after":{after},"source":{{"version":"3.0.0.Final","connector":"postgresql","name":"shop",
        "ts_ms":1710505845123,"snapshot":"false","db":"shop","sequence":"[\"24023128\",\"24023128\"]","ts_us":1710505845123456,
        "ts_ns":1710505845123456000,"schema":"public","table":"customers","txId":555,"lsn":24023128,"xmin":null}},
        "transaction":null,"op":"{op}","ts_ms":1710505845200,"ts_us":1710505845200111,"ts_ns":1710505845200111222}}"#
    )
}

const ANNE: &str = r#"{"id":1004,"name":"Anne","email":"anne@example.org"}"#;

#[test]
fn create_read_update_and_delete_follow_the_operation() {
    let program = one("upsert");
    let written = ["upsert customers(id=1004) name='Anne' email='anne@example.org'"];
    for (op, change) in [("c", RowChange::Create), ("r", RowChange::Read), ("u", RowChange::Update)] {
        check(&program, &Change::of(change, &postgres(op, "null", ANNE)), &written);
    }
    let before = r#"{"id":1004,"name":null,"email":null}"#;
    check(&program, &Change::of(RowChange::Delete, &postgres("d", before, "null")), &["delete customers(id=1004)"]);
    check(&program, &Change::of(RowChange::Truncate, &postgres("t", "null", "null")), &["deleteall customers"]);
}

#[test]
fn an_insert_rule_inserts_what_was_created_and_writes_what_may_be_there() {
    let program = one("insert");
    let op = |change, op| Change::of(change, &postgres(op, "null", ANNE)).outcome(&program).remove(0);
    assert!(op(RowChange::Create, "c").starts_with("insert "));
    assert!(op(RowChange::Read, "r").starts_with("upsert "), "a snapshot may be taken again");
    assert!(op(RowChange::Update, "u").starts_with("upsert "));
}

#[test]
fn methods_that_do_not_fit_the_operation_leave_it_alone() {
    let deleted = postgres("d", ANNE, "null");
    check(&one("patch"), &Change::of(RowChange::Delete, &deleted), &["filtered"]);
    check(&one("patch"), &Change::of(RowChange::Truncate, &postgres("t", "null", "null")), &["filtered"]);
    check(&one("delete"), &Change::of(RowChange::Create, &postgres("c", "null", ANNE)), &["filtered"]);
    check(&one("delete"), &Change::of(RowChange::Delete, &deleted), &["delete customers(id=1004)"]);
}

#[test]
fn an_event_named_after_its_operation_takes_the_method_as_written() {
    let rules = format!(
        r#"{{"rules":[{{"event":"customers.delete","table":"customers","method":"patch","mapping":[
            {{"source":"id","target":"id","primary":true}}, {{"value":"gone","target":"name"}}]}},
            {{"event":"customers.truncate","table":"customers","method":"truncate"}},
            {{"event":"customers.create","table":"customers","method":"insert","mapping":{MAPPING}}}]}}"#
    );
    let program = route(&rules, &[customers().shape()]);
    let soft = Change::named("customers.delete", RowChange::Delete, r#"{"before":{"id":7},"after":null,"op":"d"}"#);
    check(&program, &soft, &["patch customers(id=7) name='gone'"]);
    let all = Change::named("customers.truncate", RowChange::Truncate, r#"{"op":"t"}"#);
    check(&program, &all, &["deleteall customers"]);
    let update = Change::named("customers.update", RowChange::Update, r#"{"after":{"id":7},"op":"u"}"#);
    check(&program, &update, &["unmatched"]);
}

#[test]
fn s2_3_before_gives_the_former_key_of_an_update() {
    let rules = r#"{"rules":[{"event":"customers","table":"by_email","method":"upsert","mapping":[
        {"source":"email","target":"email","primary":true},{"source":"name","target":"name"}]}]}"#;
    let table = || Table::new("by_email").key("email", "text").column("name", "text").shape();
    let program = route(rules, &[table()]);
    let update = |before: &str| Change::of(RowChange::Update, &postgres("u", before, ANNE)).outcome(&program);
    assert_eq!(
        update(r#"{"id":1004,"name":"Anne","email":"old@example.org"}"#),
        ["move by_email(email='anne@example.org' from email='old@example.org') name='Anne'"]
    );
    for same in [ANNE, "null", r#"{"id":1004}"#, r#"{"email":null}"#] {
        assert_eq!(update(same), ["upsert by_email(email='anne@example.org') name='Anne'"], "{same}");
    }
    // A `previous` of the rule's own is taken at its word.
    let own = rules.replace(r#""primary":true"#, r#""primary":true,"previous":"before.name""#);
    let before = r#"{"id":1004,"name":"was","email":"old@example.org"}"#;
    let moved = Change::of(RowChange::Update, &postgres("u", before, ANNE)).outcome(&route(&own, &[table()]));
    assert_eq!(moved, ["move by_email(email='anne@example.org' from email='was') name='Anne'"]);
}

#[test]
fn s2_3_a_changed_key_moves_the_row_and_its_delete_is_filtered() {
    let delete_payload = postgres("d", r#"{"id":1004}"#, "null");
    let create_payload = postgres("c", "null", r#"{"id":2004,"name":"Anne","email":null}"#);
    let with_schema = r#"{"schema":{"type":"struct","fields":[{"type":"int32","optional":false,"field":"id"}]},"payload":{"id":1004}}"#;
    for method in ["upsert", "insert"] {
        let program = one(method);
        let headers = [("__debezium.newkey", r#"{"id":2004}"#)];
        check(&program, &Change { headers: &headers, ..Change::of(RowChange::Delete, &delete_payload) }, &["filtered"]);
        for old in [r#"{"id":1004}"#, with_schema] {
            let headers = [("__debezium.oldkey", old)];
            check(
                &program,
                &Change { headers: &headers, ..Change::of(RowChange::Create, &create_payload) },
                &["move customers(id=2004 from id=1004) name='Anne' email=null"],
            );
        }
    }
}

#[test]
fn a_tombstone_deletes_the_row_of_its_key() {
    let program = one("upsert");
    let tombstone = |key| Change { key: Some(key), payload: None, ..Change::of(RowChange::Tombstone, "") };
    let deleted = ["delete customers(id=1004)"];
    check(&program, &tombstone(r#"{"id":1004}"#), &deleted);
    check(&program, &tombstone(r#"{"schema":{"type":"struct","fields":[]},"payload":{"id":1004}}"#), &deleted);
    check(&program, &tombstone("1004"), &deleted);
    check(&program, &tombstone(r#"{"schema":{"type":"int64"},"payload":1004}"#), &deleted);
    check(&program, &Change { key: None, ..tombstone("") }, &["filtered"]);
    assert!(tombstone(r#"{"other":1}"#).outcome(&program)[0].starts_with("refused map/missing-key"));

    let rules = r#"{"rules":[{"event":"customers","table":"t","method":"upsert","primaryKey":"code"}]}"#;
    let program = route(rules, &[Table::new("t").key("code", "text").shape()]);
    for (key, code) in [("42", "42"), ("\"a\\u0062\"", "ab"), ("plain-key", "plain-key")] {
        check(&program, &tombstone(key), &[&format!("delete t(code='{code}')")]);
    }
}

#[test]
fn a_delete_whose_before_is_empty_is_named_by_its_key() {
    let delete = postgres("d", "null", "null");
    let change = Change { key: Some(r#"{"id":5}"#), ..Change::of(RowChange::Delete, &delete) };
    check(&one("upsert"), &change, &["delete customers(id=5)"]);
    // Without it nothing says which row goes, and it must not stay behind without a word.
    let nameless = Change::of(RowChange::Delete, &delete).outcome(&one("upsert"));
    assert!(nameless[0].starts_with("refused map/missing-key"), "{nameless:?}");
}

#[test]
fn values_that_did_not_travel_leave_their_columns_alone() {
    let after = r#"{"id":1,"name":"__debezium_unavailable_value","email":"a"}"#;
    check(
        &one("upsert"),
        &Change::of(RowChange::Update, &postgres("u", "null", after)),
        &["upsert customers(id=1) email='a'"],
    );
    let after =
        r#"{"id":1,"name":"X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ==","email":"say __debezium_unavailable_value"}"#;
    check(
        &one("upsert"),
        &Change::of(RowChange::Update, &postgres("u", "null", after)),
        &["upsert customers(id=1) email='say __debezium_unavailable_value'"],
    );
}

/// MySQL's envelope with schema: `before` is the whole row.
fn mysql(op: &str, before: &str, after: &str, fields: &str) -> String {
    let row = |field: &str| {
        format!(
            r#"{{"type":"struct","fields":[{fields}],"optional":true,"name":"shop.inventory.products.Value","field":"{field}"}}"#
        )
    };
    format!(
        r#"{{"schema":{{"type":"struct","fields":[{},{},{{"type":"struct","fields":[{{"type":"string","optional":false,
        "field":"version"}}],"optional":false,"name":"io.debezium.connector.mysql.Source","field":"source"}},
        {{"type":"string","optional":false,"field":"op"}},{{"type":"int64","optional":true,"field":"ts_ms"}}],"optional":false,
        "name":"shop.inventory.products.Envelope","version":2}},"payload":{{"before":{before},"after":{after},"source":{{
        "version":"2.7.3.Final","connector":"mysql","name":"shop","ts_ms":1710505845000,"snapshot":"false","db":"inventory",
        "sequence":null,"ts_us":1710505845000000,"ts_ns":1710505845000000000,"table":"products","server_id":223344,"gtid":null,
        "file":"mysql-bin.000003","pos":484,"row":0,"thread":7,"query":null}},"transaction":null,"op":"{op}",
        "ts_ms":1710505845001}}}}"#,
        row("before"),
        row("after")
    )
}

#[test]
fn schemas_explain_decimals_times_and_documents() {
    let fields = r#"{"type":"int32","optional":false,"field":"id"},
        {"type":"bytes","optional":true,"name":"org.apache.kafka.connect.data.Decimal","version":1,
         "parameters":{"scale":"2","connect.decimal.precision":"12"},"field":"price"},
        {"type":"struct","fields":[{"type":"int32","optional":false,"field":"scale"},{"type":"bytes","optional":false,"field":"value"}],
         "optional":true,"name":"io.debezium.data.VariableScaleDecimal","version":1,"field":"weight"},
        {"type":"int32","optional":true,"name":"io.debezium.time.Date","version":1,"field":"day"},
        {"type":"int64","optional":true,"name":"io.debezium.time.MicroTime","version":1,"field":"hour"},
        {"type":"int64","optional":true,"name":"io.debezium.time.MicroTimestamp","version":1,"field":"at"},
        {"type":"string","optional":true,"name":"io.debezium.time.ZonedTimestamp","version":1,"field":"zoned"},
        {"type":"string","optional":true,"name":"io.debezium.data.Json","version":1,"field":"tags"}"#;
    let table = Table::new("products")
        .key("id", "i32")
        .column("price", "decimal(12,2)")
        .column("weight", "decimal")
        .column("day", "date")
        .column("hour", "time")
        .column("at", "timestamp")
        .column("zoned", "timestamptz")
        .column("tags", "json")
        .column("tags_text", "text");
    let columns = ["id", "price", "weight", "day", "hour", "at", "zoned", "tags"];
    let mappings: Vec<String> = columns
        .iter()
        .map(|c| format!(r#"{{"source":"{c}","target":"{c}"{}}}"#, if *c == "id" { r#","primary":true"# } else { "" }))
        .collect();
    let rules = format!(
        r#"{{"rules":[{{"event":"customers","table":"products","method":"upsert","mapping":[{},
            {{"source":"tags","target":"tags_text"}}]}}]}}"#,
        mappings.join(",")
    );
    let program = route(&rules, &[table.shape()]);
    let after = r#"{"id":9,"price":"EtaH","weight":{"scale":3,"value":"+8A="},"day":19797,"hour":45296000001,
        "at":1710505845123456,"zoned":"2024-03-15T12:30:45.5Z","tags":"{\"a\": [1.10]}"}"#;
    let got = Change::of(RowChange::Create, &mysql("c", "null", after, fields)).outcome(&program);
    assert_eq!(
        got,
        ["upsert products(id=9) price=12345.67 weight=-1.088 day=Date(19797) hour=Time(45296000001) \
          at=Timestamp(1710505845123456) zoned=TimestampTz(1710505845500000) tags=json{\"a\": [1.10]} \
          tags_text='{\"a\": [1.10]}'"]
    );
    // Nulls stay nulls, and the second message meets the schema in the cache.
    let after = r#"{"id":9,"price":null,"weight":null,"day":null,"hour":null,"at":null,"zoned":null,"tags":null}"#;
    let got = Change::of(RowChange::Create, &mysql("c", "null", after, fields)).outcome(&program);
    assert_eq!(
        got,
        ["upsert products(id=9) price=null weight=null day=null hour=null at=null zoned=null tags=null tags_text=null"]
    );
}

#[test]
fn decimals_that_came_as_text_or_numbers_need_no_schema() {
    let rules = r#"{"rules":[{"event":"customers","table":"t","method":"upsert","mapping":[
        {"source":"id","target":"id","primary":true},{"source":"price","target":"price"}]}]}"#;
    let program = route(rules, &[Table::new("t").key("id", "i64").column("price", "decimal(30,10)").shape()]);
    for (given, stored) in [("\"12.50\"", "12.5"), ("0.1000000001", "0.1000000001")] {
        let after = format!(r#"{{"id":1,"price":{given}}}"#);
        check(
            &program,
            &Change::of(RowChange::Create, &postgres("c", "null", &after)),
            &[&format!("upsert t(id=1) price={stored}")],
        );
    }
    // Bytes without a schema have no scale: refused, never guessed.
    let after = r#"{"id":1,"price":"EtaH"}"#;
    let got = Change::of(RowChange::Create, &postgres("c", "null", after)).outcome(&program);
    assert!(got[0].starts_with("refused map/wrong-type"), "{got:?}");
}

#[test]
fn a_key_with_decimal_schema_names_the_same_row() {
    let fields = r#"{"type":"bytes","optional":false,"name":"org.apache.kafka.connect.data.Decimal","version":1,
        "parameters":{"scale":"0"},"field":"id"}"#;
    let rules = r#"{"rules":[{"event":"customers","table":"t","method":"upsert","primaryKey":"id"}]}"#;
    let program = route(rules, &[Table::new("t").key("id", "i64").shape()]);
    check(
        &program,
        &Change::of(RowChange::Create, &mysql("c", "null", r#"{"id":"A+g="}"#, fields)),
        &["upsert t(id=1000)"],
    );
    let key = format!(r#"{{"schema":{{"type":"struct","fields":[{fields}]}},"payload":{{"id":"A+g="}}}}"#);
    let tombstone = Change { key: Some(&key), payload: None, ..Change::of(RowChange::Tombstone, "") };
    check(&program, &tombstone, &["delete t(id=1000)"]);
}

#[test]
fn parts_of_the_change_can_be_named_and_the_rows_own_fields_come_first() {
    let rules = r#"{"rules":[{"event":"customers","table":"t","method":"upsert","mapping":[
        {"source":"after.id","target":"id","primary":true},{"source":"source.lsn","target":"lsn"},
        {"source":"op","target":"op"},{"source":"/before/name","target":"old"},{"source":"ts_ms","target":"at"}]}]}"#;
    let table = Table::new("t").key("id", "i64").column("lsn", "i64").column("op", "text").column("old", "text");
    let program = route(rules, &[table.column("at", "i64").shape()]);
    let message = postgres("u", r#"{"name":"was"}"#, r#"{"id":3}"#);
    let got = Change::of(RowChange::Update, &message).outcome(&program);
    assert_eq!(got, ["upsert t(id=3) lsn=24023128 op='u' old='was' at=1710505845200"]);
    let message = postgres("u", "null", r#"{"id":3,"op":"the row's"}"#);
    assert!(Change::of(RowChange::Update, &message).outcome(&program)[0].contains("op='the row's'"));
}

#[test]
fn pass_through_takes_the_rows_fields_alone() {
    let rules = r#"{"rules":[{"event":"customers","table":"t","method":"upsert","unknown_fields":"park"}]}"#;
    let program = route(rules, &[Table::new("t").key("id", "i64").column("source", "text").shape()]);
    let message = postgres("c", "null", r#"{"id":3}"#);
    check(&program, &Change::of(RowChange::Create, &message), &["upsert t(id=3)"]);
    let message = postgres("c", "null", r#"{"id":3,"surplus":1}"#);
    assert!(Change::of(RowChange::Create, &message).outcome(&program)[0].starts_with("refused map/unknown-field"));
}

#[test]
fn a_message_without_mark_is_what_it_says() {
    let program = one("upsert");
    let payload = postgres("c", "null", ANNE);
    let got = common::outcome(&program, "customers", &payload);
    assert!(got[0].starts_with("refused map/missing-key"), "{got:?}");
}
