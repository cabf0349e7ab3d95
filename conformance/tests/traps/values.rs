//! Values that change their type between events, and poison by the hundred.

use std::collections::BTreeSet;

use gravity_conformance::blackbox::engine::Engine;
use gravity_conformance::view_suite::Spec;
use serde_json::{Value, json};

use crate::target::{MAILED, ROUTE, Target, event, mailed, parked_codes, post, rule, settled};

/// What fits (a text of digits is a whole number) is written with its digits, what does not parks its event alone; the rows behind
/// it are not held up.
pub fn trap11_a_field_that_is_whole_then_a_fraction_then_a_text(target: &Target) {
    let columns = [("id", "i64"), ("n", "i64"), ("f", "f64"), ("t", "text")];
    let folder = target.config(&[rule("measured", "measures", "update", &columns, 1)]);
    let engine = Engine::start(&folder);
    let events: Vec<Value> = [
        r#"{"id": 1, "n": 1, "f": 1, "t": "1"}"#,
        r#"{"id": 2, "n": 2.0, "f": 2.5, "t": "two"}"#,
        r#"{"id": 3, "n": 3.5}"#,
        r#"{"id": 4, "n": "4"}"#,
        r#"{"id": 5, "f": "5.5"}"#,
        r#"{"id": 6, "t": 6}"#,
        r#"{"id": 7, "t": {"a": 1}}"#,
        r#"{"id": 8, "n": true}"#,
        r#"{"id": 9, "n": null, "f": null, "t": null}"#,
        r#"{"id": 10}"#,
        r#"{"id": 11, "n": 9007199254740993, "f": 0.1, "t": "0.1"}"#,
    ]
    .map(|payload| event("measured", &serde_json::from_str(payload).expect("JSON")))
    .into();
    for one in &events {
        post(&engine, std::slice::from_ref(one));
    }
    settled(&engine, events.len(), 5);
    let wrong = "map/wrong-type";
    assert_eq!(parked_codes(&engine), ["map/lossy", wrong, wrong, wrong, wrong]);
    let mut found = target.rows("measures", &["id", "n", "t"]);
    found.sort_by_key(|row| row.split(' ').next().and_then(|id| id.parse::<i64>().ok()));
    assert_eq!(found, ["1 1 1", "2 2 two", "4 4 -", "9 - -", "10 - -", "11 9007199254740993 0.1"]);
    engine.stop();
}

/// Good events and bad ones by turns: the bad ones are exactly the dead letters, later events of their keys wait behind them, all
/// others are in the view, and the process rests afterwards.
pub fn trap14_trap19_poison_stops_only_its_keys_and_is_all_accounted_for(target: &Target) {
    const PAIRS: i64 = 400;
    let unique: &[&[&str]] = if target.is_mongodb() { &[] } else { &[&["email"]] };
    target.make(&Spec { unique, ..MAILED });
    let folder = target.config_of_dba(&mailed());
    let engine = Engine::start(&folder);
    let full = |id: i64, name: Value, email: &str| event("userSaved", &json!({"id": id, "name": name, "email": email}));
    post(&engine, &[full(-1, json!("first"), "taken")]);
    let mut events = Vec::new();
    for pair in 0..PAIRS {
        events.push(full(2 * pair, json!("good"), &format!("{pair}@x")));
        let odd = 2 * pair + 1;
        events.push(match pair % 8 {
            // The database is asked only about some: each such refusal costs a round of its own.
            0 if !unique.is_empty() => full(odd, json!("bad"), "taken"),
            _ => full(odd, json!(7), "no text"),
        });
    }
    // Behind the bad ones, and behind the good ones.
    events.extend(
        (0..20).flat_map(|pair| [full(2 * pair + 1, json!("later"), "w"), full(2 * pair, json!("later"), "l")]),
    );
    // Of the good ones only the first can have the e-mail where it is unique; elsewhere all.
    let taken = if unique.is_empty() { 0 } else { 19 };
    post(&engine, &events);
    let parked = PAIRS + 20 + taken;
    let route = settled(&engine, events.len() + 1, parked as u64);
    assert_eq!((&route["failed"], &route["waiting"]), (&json!(PAIRS + taken), &json!(20)), "{route}");
    assert_eq!(route["applied"], json!(events.len() as i64 + 1 - parked), "none is passed over: {route}");
    let codes = parked_codes(&engine);
    let kinds: BTreeSet<&str> = codes.iter().map(String::as_str).collect();
    assert_eq!(codes.len() as i64, parked, "{kinds:?}");
    assert!(kinds.contains("waiting") && kinds.contains("map/wrong-type"), "{kinds:?}");
    let rows = target.rows("users", &["id", "name"]);
    assert_eq!(rows.len() as i64, PAIRS + 1);
    assert!(rows.iter().all(|row| !row.contains("bad")), "no bad one has left anything");
    // Nothing is tried again by itself: ticks of CPU time over a second, a tick being a hundredth.
    let before = cpu_ticks(engine.pid());
    std::thread::sleep(std::time::Duration::from_secs(1));
    let spent = cpu_ticks(engine.pid()) - before;
    assert!(spent < 25, "{spent} of 100 ticks spent at rest");
    assert_eq!(engine.route(ROUTE)["parked"], parked);
    engine.stop();
}

/// User and system time of a process so far.
pub fn cpu_ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process is there");
    // The name in parentheses may hold anything; fields are counted behind it.
    let fields: Vec<&str> = stat.rsplit(')').next().expect("fields").split_whitespace().collect();
    fields[11..13].iter().map(|field| field.parse::<u64>().expect("ticks")).sum()
}
