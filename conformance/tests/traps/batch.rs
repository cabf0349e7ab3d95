//! Several events of one key in one batch, and events that are little more than a key.

use std::collections::BTreeMap;

use gravity_conformance::blackbox::engine::Engine;
use serde_json::{Value, json};

use crate::target::{MAILED, ROUTE, Target, deleted, event, mailed, parked_codes, post, rule, saved, settled, users};

/// A database that takes one row twice in a statement for an error must not see it twice.
pub fn trap1_two_events_of_one_key_in_one_batch(target: &Target) {
    let folder = target.config(&users());
    let engine = Engine::start(&folder);
    post(&engine, &[saved(1, "a"), saved(2, "x"), saved(1, "b"), saved(2, "y"), saved(1, "c")]);
    let route = settled(&engine, 5, 0);
    assert_eq!(route["applied"], 5, "each counts, though one write does for several: {route}");
    assert_eq!(target.rows("users", &["id", "name"]), ["1 c", "2 y"]);
    engine.stop();
}

/// Deletes between updates, of the same keys and of others.
pub fn trap2_interleaved_deletes_end_as_in_log_order(target: &Target) {
    let folder = target.config(&users());
    let engine = Engine::start(&folder);
    let (mut state, mut want, mut sent) = (7_u64, BTreeMap::new(), 0);
    post(&engine, &[deleted(1), saved(1, "a"), deleted(1), saved(2, "a"), deleted(2), saved(2, "b")]);
    want.insert(2, "b".to_owned());
    sent += 6;
    for _ in 0..3 {
        let mut events = Vec::new();
        for number in 0..300 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let (id, is_delete) = (((state >> 33) % 15) as i64, (state >> 60) % 3 == 0);
            if is_delete {
                events.push(deleted(id));
                want.remove(&id);
            } else {
                let name = format!("n{number}");
                events.push(saved(id, &name));
                want.insert(id, name);
            }
        }
        sent += events.len();
        post(&engine, &events);
    }
    let route = settled(&engine, sent, 0);
    assert_eq!(route["applied"], sent as u64, "{route}");
    let mut rows: Vec<String> = want.iter().map(|(id, name)| format!("{id} {name}")).collect();
    rows.sort();
    let mut found = target.rows("users", &["id", "name"]);
    found.sort();
    assert_eq!(found, rows);
    engine.stop();
}

/// Two rows swap what must be unique, by way of a third value: what the batch amounts to cannot be written in any order of its
/// rows, the events one after the other can. Where they cannot, their event parks, and no other row is touched.
pub fn trap3_values_that_change_hands_in_one_batch(target: &Target) {
    if target.is_ferretdb() {
        println!("skipped: needs a server that says of a unique index that it is sparse; FerretDB does not");
        return;
    }
    target.make(&MAILED);
    let folder = target.config_of_dba(&mailed());
    let engine = Engine::start(&folder);
    let mail = |id: i64, mail: &str| event("userSaved", &json!({"id": id, "email": mail}));
    post(&engine, &[mail(1, "a"), mail(2, "b"), mail(3, "c")]);
    settled(&engine, 3, 0);
    // Beside it a value that is given up and taken, and many rows that have nothing to do with it.
    let mut events = vec![mail(1, "z"), mail(2, "a"), mail(1, "b"), mail(3, "d"), mail(4, "c")];
    events.extend((100..300).map(|id| mail(id, &format!("m{id}"))));
    post(&engine, &events);
    settled(&engine, 3 + events.len(), 0);
    let mails =
        || target.rows("users", &["id", "email"]).into_iter().filter(|row| !row.contains('m')).collect::<Vec<_>>();
    assert_eq!(mails(), ["1 b", "2 a", "3 d", "4 c"]);
    post(&engine, &[mail(5, "a"), mail(6, "e")]);
    settled(&engine, 5 + events.len(), 1);
    assert_eq!(mails(), ["1 b", "2 a", "3 d", "4 c", "6 e"], "who was first keeps it");
    let codes = parked_codes(&engine);
    assert!(["23505", "SQLITE_CONSTRAINT_UNIQUE", "1062", "11000"].contains(&&*codes[0]), "{codes:?}");
    engine.stop();
}

/// The old row vanishes, columns that the event does not carry go along; a key that is null, missing or of another type parks.
pub fn trap4_a_key_change_takes_the_row_along_and_odd_keys_park(target: &Target) {
    let mut rules = users();
    rules.push(json!({"event": "userRenumbered", "table": "users", "method": "update", "mapping": [
        {"source": "id", "target": "id", "type": "i64", "primary": true, "previous": "old"},
        {"source": "name", "target": "name", "type": "text"}]}));
    let folder = target.config(&rules);
    let engine = Engine::start(&folder);
    let renumbered = |payload: Value| event("userRenumbered", &payload);
    let full = |id: i64| event("userSaved", &json!({"id": id, "name": format!("n{id}"), "email": format!("{id}@x")}));
    let odd = [json!(null), json!("seven"), json!(1.5), json!([1]), json!(true)];
    let mut events = vec![full(1), full(2), full(3), renumbered(json!({"id": 11, "old": 1, "name": "moved"}))];
    events
        .extend([renumbered(json!({"id": 2, "old": 2, "name": "stays"})), renumbered(json!({"id": 9, "name": "new"}))]);
    events.extend(odd.iter().map(|key| event("userSaved", &json!({"id": key, "name": "odd"}))));
    events.push(event("userSaved", &json!({"name": "none"})));
    // To a key that is taken: parked, and neither row is touched.
    events.push(renumbered(json!({"id": 3, "old": 2, "name": "taken"})));
    events.push(full(5));
    post(&engine, &events);
    settled(&engine, events.len(), 7);
    let want = ["11 moved 1@x", "2 stays 2@x", "3 n3 3@x", "5 n5 5@x", "9 new -"];
    assert_eq!(target.rows("users", &["id", "name", "email"]), want);
    let codes = parked_codes(&engine);
    let missing = "map/missing-key";
    assert_eq!(codes[..6], [missing, "map/wrong-type", "map/lossy", "map/wrong-type", "map/wrong-type", missing]);
    engine.stop();
}

/// All columns are key; the payload has only the key; the payload is empty.
pub fn trap5_nothing_but_a_key_and_nothing_at_all(target: &Target) {
    let mut rules = users();
    let tag = [("id", "i64"), ("tag", "varchar(40)")];
    rules.extend([rule("tagged", "tags", "update", &tag, 2), rule("untagged", "tags", "delete", &tag, 2)]);
    rules.push(rule("tagAdded", "tags", "insert", &tag, 2));
    let folder = target.config(&rules);
    let engine = Engine::start(&folder);
    let tagged = |name: &str, id: i64, tag: &str| event(name, &json!({"id": id, "tag": tag}));
    let mut events = vec![tagged("tagged", 1, "a"), tagged("tagged", 1, "b"), tagged("tagged", 1, "a")];
    events.extend([tagged("tagAdded", 1, "a"), tagged("tagAdded", 2, ""), tagged("untagged", 1, "b")]);
    // A row of a key alone; a full row that a key alone leaves as it is; a payload without anything.
    events.extend([
        event("userSaved", &json!({"id": 1})),
        event("userSaved", &json!({"id": 2, "name": "n", "email": "e"})),
    ]);
    events.extend([event("userSaved", &json!({"id": 2})), event("userAdded", &json!({"id": 3}))]);
    post(&engine, &events);
    settled(&engine, events.len(), 0);
    post(
        &engine,
        &[event("userSaved", &json!({})), event("tagged", &json!({"id": 1})), event("userSaved", &json!({"id": 2}))],
    );
    settled(&engine, events.len() + 3, 2);
    assert_eq!(target.rows("tags", &["id", "tag"]), ["1 a", "2 "]);
    assert_eq!(target.rows("users", &["id", "name", "email"]), ["1 - -", "2 n e", "3 - -"]);
    assert_eq!(parked_codes(&engine), ["map/missing-key", "map/missing-key"]);
    engine.stop();
}

/// Deletes of unknown keys count, at once and again and again; a payload of null is filtered; nothing is dropped in silence.
pub fn trap10_deletes_of_rows_that_never_were(target: &Target) {
    let folder = target.config(&users());
    let engine = Engine::start(&folder);
    post(&engine, &[deleted(1), deleted(2), event("userSaved", &Value::Null), event("userDeleted", &Value::Null)]);
    let route = settled(&engine, 4, 0);
    assert_eq!((&route["applied"], &route["filtered"]), (&json!(2), &json!(2)), "{route}");
    post(&engine, &[saved(1, "a"), deleted(1), deleted(1), saved(3, "c"), deleted(7), saved(7, "d")]);
    post(&engine, &[deleted(1), deleted(99)]);
    let route = settled(&engine, 12, 0);
    assert_eq!(route["applied"], 10, "{route}");
    assert_eq!(target.rows("users", &["id", "name"]), ["3 c", "7 d"]);
    engine.stop();
}

/// O3: one event, two rows of one table and one of another, all of one key value where they can be: no row takes another's place.
pub fn o3_two_projections_of_one_event_are_two_rows(target: &Target) {
    let side = |source: &str, table: &str| {
        json!({"event": "paired", "table": table, "method": "update", "mapping": [
            {"source": source, "target": "id", "type": "i64", "primary": true},
            {"source": source, "target": "name", "type": "i64"}]})
    };
    let rules = [side("a", "sides"), side("b", "sides"), side("a", "others"), side("b", "others")];
    let mut entry = target.entry("create");
    if !target.is_sqlite() && !target.is_mongodb() {
        entry["lanes"] = json!(4);
    }
    let folder = crate::target::config_of(&entry, &rules);
    let engine = Engine::start(&folder);
    let events: Vec<Value> = (0..50).map(|n| event("paired", &json!({"a": n, "b": 1_000 + n}))).collect();
    post(&engine, &events);
    // Twice the same key: two writes of one row, which is one row.
    post(&engine, &[event("paired", &json!({"a": 7, "b": 7}))]);
    settled(&engine, 51, 0);
    for table in ["sides", "others"] {
        let mut want: Vec<String> = (0..50).chain(1_000..1_050).map(|n| format!("{n} {n}")).collect();
        want.sort();
        assert_eq!(target.rows(table, &["id", "name"]), want, "{table}");
    }
    assert_eq!(engine.route(ROUTE)["applied"], 51);
    engine.stop();
}
