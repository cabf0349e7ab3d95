//! Sums and lists through the whole chain: once per event, whatever is redone, parked or retried (SEMANTICS 2.7).

mod support;

use gravity_connectors::memory::view::{Point, Scripted};
use gravity_engine::Engine;
use gravity_model::{ColumnType, FaultKind, Value};
use support::{Rig, in_step, post, route, table};

const RULES: &str = r#"{"rules": [
  {"event": "paid", "table": "accounts", "method": "upsert", "mapping": [
     {"source": "id", "target": "id", "primary": true}, {"source": "amount", "target": "balance", "op": "add"},
     {"value": 1, "target": "payments", "op": "add"}, {"source": "amount", "target": "largest", "op": "max"},
     {"source": "note", "target": "notes", "op": "append"}]},
  {"event": "closed", "table": "accounts", "method": "delete", "mapping": [{"source": "id", "target": "id", "primary": true}]}]}"#;

/// The type of the balance decides how soon a sum has no place.
fn rig(balance: ColumnType) -> Rig {
    let rig = Rig::new(RULES);
    rig.views.put_table(table(
        "accounts",
        &[
            ("id", ColumnType::I64, true),
            ("balance", balance, false),
            ("payments", ColumnType::I32, false),
            ("largest", ColumnType::I64, false),
            ("notes", ColumnType::Json, false),
        ],
    ));
    rig
}

fn paid(id: i64, amount: i64) -> String {
    format!(r#"{{"event":"paid","key":"{id}","payload":{{"id":{id},"amount":{amount},"note":{amount}}}}}"#)
}

/// `id balance payments largest notes`
fn accounts(rig: &Rig) -> Vec<String> {
    let cell = |value: &Value| match value {
        Value::Null => "-".to_owned(),
        Value::Int(i) => i.to_string(),
        Value::Json(t) | Value::Decimal(t) => t.to_string(),
        other => format!("{other:?}"),
    };
    rig.views.rows("accounts").iter().map(|row| row.iter().map(cell).collect::<Vec<_>>().join(" ")).collect()
}

async fn all(engine: &Engine, events: &[String]) -> (u64, u64) {
    let answer = post(engine, &format!("[{}]", events.join(","))).await;
    let (first, last) = (answer.first.expect("stored"), answer.last.expect("stored"));
    in_step(engine, last).await;
    (first, last)
}

#[tokio::test(flavor = "multi_thread")]
async fn s2_7_a_batch_of_sums_is_their_sum() {
    let rig = rig(ColumnType::I64);
    let engine = rig.start().await;
    let closed = r#"{"event":"closed","key":"2","payload":{"id":2}}"#.to_owned();
    let events =
        [paid(1, 5), paid(2, 7), paid(1, -3), paid(1, 10), closed, paid(2, 1), paid(3, 0), paid(1, -1), paid(2, 1)];
    all(&engine, &events).await;
    assert_eq!(accounts(&rig), ["1 11 4 10 [5,-3,10,-1]", "2 2 2 1 [1,1]", "3 0 1 0 [0]"]);
    assert_eq!(route(&engine.status()).applied, 9);
    engine.shutdown().await;
}

/// A commit of which nobody knows whether it happened, and one that did not: each event adds once.
#[tokio::test(flavor = "multi_thread")]
async fn s2_7_a_redo_adds_nothing_twice() {
    for (done, kind) in
        [(true, FaultKind::Disconnected), (false, FaultKind::Disconnected), (false, FaultKind::Transient)]
    {
        let rig = rig(ColumnType::I64);
        let engine = rig.start().await;
        all(&engine, &[paid(1, 5)]).await;
        rig.views.script(Point::Commit, if done { Scripted::FailAfter(kind) } else { Scripted::Fail(kind) });
        all(&engine, &[paid(1, 6), paid(2, 1)]).await;
        rig.views.script(Point::Apply, Scripted::FailAfter(FaultKind::Transient));
        all(&engine, &[paid(1, 7)]).await;
        assert_eq!(accounts(&rig), ["1 18 3 7 [5,6,7]", "2 1 1 1 [1]"], "commit done: {done}, {kind:?}");
        assert_eq!(route(&engine.status()).applied, 4);
        engine.shutdown().await;
    }
}

/// The event whose sum has no place is parked, what follows on its row waits, all others run; a retry adds when it runs.
#[tokio::test(flavor = "multi_thread")]
async fn s2_7_a_sum_without_place_parks_its_event_alone() {
    let rig = rig(ColumnType::I8);
    let engine = rig.start().await;
    let (first, _) = all(&engine, &[paid(1, 100), paid(2, 5), paid(1, 100), paid(1, -1), paid(2, 6), paid(3, 1)]).await;
    assert_eq!(accounts(&rig), ["1 100 1 100 [100]", "2 11 2 6 [5,6]", "3 1 1 1 [1]"]);
    let letters = engine.dead_letters(Some("db1")).await.expect("listed");
    let shown: Vec<_> = letters.iter().map(|l| (l.sequence, l.waiting)).collect();
    assert_eq!(shown, [(first + 2, false), (first + 3, true)]);
    assert_eq!(letters[0].code, "22003");

    let report = engine.retry("db1", None, "op").await.expect("runs");
    in_step(&engine, report.record).await;
    assert_eq!(accounts(&rig)[0], "1 100 1 100 [100]", "there is still no place");

    let report = engine.skip("db1", vec![first + 2], "op").await.expect("runs");
    in_step(&engine, report.record).await;
    assert_eq!(accounts(&rig)[0], "1 99 2 100 [100,-1]", "what waited was released");
    let status = engine.status();
    assert_eq!((route(&status).parked, route(&status).skipped, route(&status).applied), (0, 1, 5));
    engine.shutdown().await;
}
