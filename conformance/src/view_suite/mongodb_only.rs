//! What only MongoDB has: guards, tombstones and the journal of a stand-alone server, `_id`, operators.

use std::sync::Arc;
use std::time::Duration;

use gravity_connectors::Bookkeeping;
use gravity_connectors::mongodb::MongoPlace as Address;
use gravity_model::change::{ColumnOp, RowGroup, RowOp, Step};
use gravity_model::port::view::{BookkeepingRewrite, TableRequest, ViewRow, ViewState};
use gravity_model::shape::SharedShape;
use gravity_model::{Checkpoint, FaultKind, Fence, LogId, OwnerId, Value};
use serde_json::json;

use super::{
    MongoPlace, Place, Spec, USERS, at, attached, batch, bookkept, checkpoint, group, int, kind, made, refused,
    request, steps, table, text, write,
};

fn stand_alone(place: &MongoPlace) -> bool {
    if place.replica_set {
        println!("skipped: a replica set has transactions instead");
    }
    !place.replica_set
}

/// 3.7: whatever writes at a lower sequence finds a newer document and leaves it.
pub async fn an_older_event_never_wins(place: &MongoPlace) {
    if !stand_alone(place) {
        return;
    }
    let (store, mut now) = attached(place).await;
    let users = made(place, &*store, &USERS).await;
    let newer = json!({"insert": "users", "documents": [
        {"_id": 1, "id": 1, "name": "newer", "_g": 1000},
        {"_id": 2, "_g": 1000, "_gravity_deleted": true},
        {"_id": 3, "id": 3, "name": "older", "_g": 0},
        {"_id": 4, "id": 4, "name": "no mark"}
    ]});
    place.command(newer);
    let rows = |ids: &[i64]| ids.iter().map(|id| vec![int(*id), text("event")]).collect();
    write(&*store, &mut now, &batch(&users, RowOp::Upsert, &["name"], rows(&[1, 2, 3, 4]))).await.expect("write");
    let want = table(&[&["newer"], &["event"], &["event"]]);
    let mut found = place.rows("users", &["name"]).await;
    found.sort_by_key(|row| row[0].as_deref() != Some("newer"));
    assert_eq!(found, want);
    let deletes = vec![vec![int(1)], vec![int(3)]];
    write(&*store, &mut now, &batch(&users, RowOp::Delete, &[], deletes)).await.expect("delete");
    assert_eq!(place.rows("users", &["name"]).await.len(), 2, "the newer one and the one without mark");
}

pub async fn deleted_documents_leave_a_mark_for_a_while(place: &MongoPlace) {
    if !stand_alone(place) {
        return;
    }
    let (store, mut now) = attached(place).await;
    let users = made(place, &*store, &USERS).await;
    let upsert = |id, name: &str| batch(&users, RowOp::Upsert, &["name"], vec![vec![int(id), text(name)]]);
    let delete = |id| batch(&users, RowOp::Delete, &[], vec![vec![int(id)]]);
    write(&*store, &mut now, &upsert(1, "a")).await.expect("write");
    write(&*store, &mut now, &delete(1)).await.expect("delete");
    write(&*store, &mut now, &delete(7)).await.expect("delete of nothing");
    assert_eq!(place.rows("users", &["id"]).await, table(&[]));
    let columns = ["_id", "id", "name", "_g", "_gravity_deleted"];
    assert_eq!(place.documents("users", &columns, true), table(&[&["1", "∅", "∅", "2", "true"]]));
    assert!(!store.has_rows("users").await.expect("ask"));
    write(&*store, &mut now, &upsert(1, "b")).await.expect("again");
    assert_eq!(place.documents("users", &columns, true), table(&[&["1", "1", "b", "4", "∅"]]));
    write(&*store, &mut now, &delete(1)).await.expect("delete");
    // A store that keeps none, of a route that holds the view.
    let claim = ViewRow {
        table: "users".to_owned(),
        log_id: now.log_id,
        route: "r".to_owned(),
        state: ViewState::Attached,
        generation: 1,
        history: "[[1,1]]".to_owned(),
    };
    let kept = place.store_with(|o| o.tombstone_keep = Duration::from_secs(3600));
    kept.open().await.expect("open");
    let put = BookkeepingRewrite { put_views: vec![claim], ..BookkeepingRewrite::default() };
    kept.rewrite(put).await.expect("claim");
    write(&*kept, &mut now, &upsert(2, "c")).await.expect("write");
    write(&*kept, &mut now, &delete(2)).await.expect("delete");
    assert_eq!(place.documents("users", &["_id"], true).len(), 1, "an hour is not over");
    let hasty = place.store_with(|o| o.tombstone_keep = Duration::ZERO);
    hasty.open().await.expect("open");
    write(&*hasty, &mut now, &upsert(3, "d")).await.expect("write");
    assert_eq!(place.documents("users", &["_id"], true), table(&[&["3"]]), "no tombstone is kept");
}

/// A unique index speaks only when the rows are written: then nothing of the batch stays, marks included.
pub async fn a_refused_batch_is_taken_back_whole(place: &MongoPlace) {
    let (store, mut now) = attached(place).await;
    let users = made(place, &*store, &Spec { unique: &[&["email"]], ..USERS }).await;
    let row = |id: i64, mail: &str| vec![int(id), text(mail)];
    let first = batch(&users, RowOp::Upsert, &["email"], vec![row(1, "a"), row(2, "b"), row(3, "c")]);
    write(&*store, &mut now, &first).await.expect("create");
    let columns = ["_id", "email", "_g"];
    let before = place.documents("users", &columns, true);
    let changes = steps(
        &users,
        vec![
            group(&users, RowOp::Delete, &[], &[], vec![vec![int(3)]]),
            group(&users, RowOp::Upsert, &["email"], &[], vec![row(1, "z"), row(4, "d"), row(5, "b")]),
        ],
    );
    assert_eq!(&*refused(write(&*store, &mut now, &changes).await).code, "11000");
    assert_eq!(place.documents("users", &columns, true), before);
    assert_eq!(store.checkpoints("r").await.expect("read"), std::slice::from_ref(&now));
    assert_eq!(place.documents("gravity_journal", &["_id"], true), table(&[]), "nothing of the journal stays");
    let good = batch(&users, RowOp::Upsert, &["email"], vec![row(1, "z")]);
    write(&*store, &mut now, &good).await.expect("goes on");
}

/// FerretDB cannot hold one: then its event is at fault, not the route.
pub async fn a_list_in_a_list_is_kept_or_refused(place: &MongoPlace) {
    let (store, mut now) = attached(place).await;
    let spec = Spec { columns: &[("id", "i64", true), ("name", "text", false), ("email", "json", false)], ..USERS };
    let users = made(place, &*store, &spec).await;
    let write_of = |op, id, json: &str| batch(&users, op, &["email"], vec![vec![int(id), Value::Json(json.into())]]);
    write(&*store, &mut now, &write_of(RowOp::Upsert, 1, "[1]")).await.expect("a list");
    for (op, id) in [(RowOp::Insert, 2), (RowOp::Upsert, 3), (RowOp::Upsert, 1), (RowOp::Patch, 1)] {
        let written = write(&*store, &mut now, &write_of(op, id, "[[1],[2]]")).await;
        if place.decimals {
            written.expect("MongoDB holds it");
        } else {
            let fault = refused(written);
            assert!(fault.detail.contains("nested arrays"), "{op:?}: {fault}");
            assert_eq!(place.rows("users", &["id"]).await.len(), 1, "{op:?}");
        }
    }
    write(&*store, &mut now, &write_of(RowOp::Upsert, 4, "[]")).await.expect("goes on");
}

pub async fn a_truncation_is_taken_back_with_its_batch(place: &MongoPlace) {
    let (store, mut now) = attached(place).await;
    let users = made(place, &*store, &Spec { unique: &[&["email"]], ..USERS }).await;
    let rows = |ids: std::ops::Range<i64>| ids.map(|i| vec![int(i), text(&format!("{i}@x"))]).collect::<Vec<_>>();
    write(&*store, &mut now, &batch(&users, RowOp::Upsert, &["email"], rows(0..500))).await.expect("create");
    let before = place.documents("users", &["_id", "email", "_g"], true);
    let same = vec![vec![int(1000), text("same")], vec![int(1001), text("same")]];
    let changes = |rows| steps(&users, vec![Step::DeleteAll, group(&users, RowOp::Upsert, &["email"], &[], rows)]);
    refused(write(&*store, &mut now, &changes(same)).await);
    assert!(place.documents("users", &["_id", "email", "_g"], true) == before);
    write(&*store, &mut now, &changes(rows(499..501))).await.expect("truncate");
    assert_eq!(place.rows("users", &["email"]).await, table(&[&["499@x"], &["500@x"]]));
}

fn adding(shape: &SharedShape, rows: Vec<Vec<Value>>) -> Step {
    let Step::Rows(rows) = group(shape, RowOp::Upsert, &["n"], &[], rows) else { panic!("rows") };
    let mut columns = (*rows.columns).clone();
    columns.ops = [ColumnOp::Add].into();
    Step::Rows(RowGroup { columns: Arc::new(columns), ..rows })
}

const SUMS: Spec<'static> =
    Spec { table: "sums", columns: &[("id", "i64", true), ("n", "i64", false)], key: &["id"], unique: &[] };

/// 2.7: each event counts once, whatever was cut; `tests/view.rs` runs it with failpoints.
pub async fn sums_are_exact_through_a_cut(place: &MongoPlace) {
    let (store, mut now) = attached(place).await;
    let sums = made(place, &*store, &SUMS).await;
    let mut cuts = 0;
    while now.sequence.0 < 6 {
        let amount = 1 << now.sequence.0;
        let changes = steps(&sums, vec![adding(&sums, vec![vec![int(1), int(amount)], vec![int(2), int(1)]])]);
        match write(&*store, &mut now, &changes).await {
            Ok(_) => {}
            Err(fault) => {
                assert_eq!(fault.kind, FaultKind::Disconnected, "{fault}");
                cuts += 1;
                now = store.checkpoints("r").await.expect("read").pop().expect("a row");
            }
        }
    }
    println!("{cuts} cuts");
    assert_eq!(place.rows("sums", &["id", "n"]).await, table(&[&["1", "63"], &["2", "6"]]));
}

/// Whoever reads a checkpoint with a batch under way brings it to its end, also two at a time.
pub async fn two_who_find_a_cut_batch_come_to_one_end(place: &MongoPlace) {
    let (store, mut now) = attached(place).await;
    let sums = made(place, &*store, &SUMS).await;
    let (one, two) = (place.store(), place.store());
    for _ in 0..3 {
        let rows = (0..200).map(|id| vec![int(id), int(1)]).collect();
        let result = write(&*store, &mut now.clone(), &steps(&sums, vec![adding(&sums, rows)])).await;
        let (first, second) = tokio::join!(one.checkpoints("r"), two.checkpoints("r"));
        let first = first.expect("read").pop().expect("a row");
        let second = second.expect("read").pop().expect("a row");
        assert_eq!(first, second);
        assert!(result.is_err() || first == at(&now, now.sequence.0 + 1), "told so");
        now = first;
        let sum = now.sequence.0.to_string();
        let found = place.rows("sums", &["n"]).await;
        let counted = if now.sequence.0 == 0 { 0 } else { 200 };
        assert_eq!(found.len(), counted);
        assert!(found.iter().all(|row| row[0].as_deref() == Some(&sum)), "{sum}: {found:?}");
    }
}

/// V12 without locks: the taking over does not wait, and what was under way comes to nothing.
pub async fn who_was_taken_over_from_writes_nothing(place: &MongoPlace) {
    if !stand_alone(place) {
        return;
    }
    let (owner, old) = attached(place).await;
    let users = made(place, &*owner, &USERS).await;
    let mut transaction = owner.begin(std::slice::from_ref(&old)).await.expect("begin");
    let row = |name: &str| batch(&users, RowOp::Upsert, &["name"], vec![vec![int(1), text(name)]]);
    transaction.apply(&row("stale")).await.expect("apply");
    let heir = place.store();
    heir.open().await.expect("open");
    let mut taken = Checkpoint { owner: OwnerId([8; 16]), fence: Fence(2), ..old.clone() };
    let rewrite =
        BookkeepingRewrite { expect: vec![old.clone()], put: vec![taken.clone()], ..BookkeepingRewrite::default() };
    heir.rewrite(rewrite).await.expect("take over");
    assert_eq!(kind(transaction.commit(&[at(&old, 1)]).await), FaultKind::NotOurs);
    assert_eq!(place.rows("users", &["name"]).await, table(&[]));
    write(&*heir, &mut taken, &row("fresh")).await.expect("the heir writes");
    assert_eq!(place.rows("users", &["name"]).await, table(&[&["fresh"]]));
    assert_eq!(place.documents("gravity_journal", &["_id"], true), table(&[]));
}

pub async fn lanes_need_a_replica_set(place: &MongoPlace) {
    if !stand_alone(place) {
        return;
    }
    let store = place.store();
    store.open().await.expect("open");
    let lanes = [checkpoint("r", 0, 0), checkpoint("r", 1, 0)];
    for lane in &lanes {
        super::attach(&*store, lane).await;
    }
    let fault = store.begin(&lanes).await.map(|_| ()).expect_err("two at once");
    assert_eq!((fault.kind, &*fault.code), (FaultKind::Misconfigured, "live/stand-alone"));
}

/// T4: texts that look like operators are texts; fields of events that look like operators or paths are refused.
pub async fn t4_values_are_never_operators(place: &MongoPlace) {
    let (store, mut now) = attached(place).await;
    let spec = Spec { columns: &[("id", "text", true), ("name", "text", false), ("email", "json", false)], ..USERS };
    let users = made(place, &*store, &spec).await;
    let words = ["$where", "$ne", "{\"$gt\": \"\"}", "a.b", "$", "_id", "$$ROOT", "1; sleep(1)"];
    let rows = |value: &str| words.iter().map(|w| vec![text(w), text(value)]).collect::<Vec<_>>();
    for (op, value) in [(RowOp::Insert, "$inc"), (RowOp::Upsert, "$set"), (RowOp::Patch, "{\"$unset\":1}")] {
        let applied = write(&*store, &mut now, &batch(&users, op, &["name"], rows(value))).await.expect("write");
        assert_eq!(applied.missed, [], "found by their own bytes");
        let found = place.rows("users", &["id", "name"]).await;
        assert_eq!(found.len(), words.len());
        assert!(found.iter().all(|row| row[1].as_deref() == Some(value)), "{found:?}");
    }
    for json in [
        r#"{"$where": "sleep(1)"}"#,
        r#"{"a": {"$ne": null}}"#,
        r#"[{"$expr": {}}]"#,
        r#"{"a.b": 1}"#,
        r#"{"a\u0000b": 1}"#,
        r#"{"\u0024set": {"name": "x"}}"#,
    ] {
        let row = vec![vec![text("$ne"), Value::Json(json.into())]];
        let fault = refused(write(&*store, &mut now, &batch(&users, RowOp::Upsert, &["email"], row)).await);
        assert_eq!(fault.code, "map/wrong-type", "{json}");
    }
    let row = vec![vec![text("$ne"), Value::Json(r#"{"a": {"b": ["$ne", {"c": "$where"}]}}"#.into())]];
    write(&*store, &mut now, &batch(&users, RowOp::Upsert, &["email"], row)).await.expect("values may be any text");
}

/// INTERFACE: one column stands in `_id` and in its own field; several are a document in `_id`, in key order.
pub async fn keys_stand_in_the_id(place: &MongoPlace) {
    let (store, mut now) = attached(place).await;
    let users = made(place, &*store, &USERS).await;
    write(&*store, &mut now, &batch(&users, RowOp::Upsert, &["name"], vec![vec![int(7), text("a")]]))
        .await
        .expect("write");
    assert_eq!(place.rows("users", &["_id", "id", "name"]).await, table(&[&["7", "7", "a"]]));
    let spec = Spec {
        table: "pairs",
        columns: &[("a", "i64", true), ("b", "text", true), ("v", "text", false)],
        key: &["b", "a"],
        unique: &[],
    };
    let pairs = made(place, &*store, &spec).await;
    let row = vec![vec![text("x"), int(1), text("v")]];
    write(&*store, &mut now, &batch(&pairs, RowOp::Upsert, &["v"], row)).await.expect("write");
    let want = table(&[&[r#"{"b":"x","a":1}"#, "1", "x", "v"]]);
    assert_eq!(place.rows("pairs", &["_id", "a", "b", "v"]).await, want);
    let own =
        Spec { table: "own", columns: &[("_id", "text", true), ("v", "text", false)], key: &["_id"], unique: &[] };
    let own = made(place, &*store, &own).await;
    let row = |v: &str| vec![vec![text("k"), text(v)]];
    for v in ["a", "b"] {
        write(&*store, &mut now, &batch(&own, RowOp::Upsert, &["v"], row(v))).await.expect("write");
    }
    assert_eq!(place.rows("own", &["_id", "v"]).await, table(&[&["k", "b"]]));
    // Without a declared type a key has one spelling only.
    let untyped = TableRequest { key: vec!["id".to_owned()], ..request("users", &[], &[]) };
    let described = store.describe(&[untyped]).await.expect("describe").pop();
    let Some(gravity_model::port::view::Described::Present(untyped)) = described else { panic!("{described:?}") };
    let untyped = Arc::new(untyped);
    let key = |json: &str| batch(&untyped, RowOp::Upsert, &[], vec![vec![Value::Json(json.into())]]);
    write(&*store, &mut now, &key("8")).await.expect("a whole number");
    for json in ["8.0", "8e0", "\"\\u0041\"", "{}"] {
        refused(write(&*store, &mut now, &key(json)).await);
    }
}

/// `_g` counts in one log. A log that takes a collection over begins anew, and its first events are not old.
pub async fn marks_of_another_log_are_forgotten(place: &MongoPlace) {
    if !stand_alone(place) {
        return;
    }
    let (store, mut now) = attached(place).await;
    let users = made(place, &*store, &USERS).await;
    place.command(json!({"insert": "users", "documents": [
        {"_id": 1, "id": 1, "name": "of another log", "_g": 1000}, {"_id": 2, "_g": 1000, "_gravity_deleted": true}
    ]}));
    let claim = ViewRow {
        table: "users".to_owned(),
        log_id: LogId([1; 16]),
        route: "r".to_owned(),
        state: ViewState::Attached,
        generation: 1,
        history: "[[1,1]]".to_owned(),
    };
    let put = BookkeepingRewrite { put_views: vec![claim.clone()], ..BookkeepingRewrite::default() };
    store.rewrite(put.clone()).await.expect("claim");
    assert_eq!(place.documents("users", &["_id", "_g"], true), table(&[&["int32:1", "∅"]]), "as the DBA wrote it");
    write(&*store, &mut now, &batch(&users, RowOp::Upsert, &["name"], vec![vec![int(1), text("mine")]]))
        .await
        .expect("write");
    assert_eq!(place.documents("users", &["name", "_g"], true), table(&[&["mine", "1"]]));
    store.rewrite(put).await.expect("its own claim again");
    assert_eq!(place.documents("users", &["name", "_g"], true), table(&[&["mine", "1"]]), "its own marks stay");
}

pub async fn live_findings(place: &MongoPlace) {
    let (store, _) = attached(place).await;
    made(place, &*store, &Spec { table: "sparse", unique: &[&["email"]], ..USERS }).await;
    made(place, &*store, &Spec { table: "whole", ..USERS }).await;
    let index = json!({"key": {"email": 1}, "name": "whole_email", "unique": true});
    place.command(json!({"createIndexes": "whole", "indexes": [index]}));
    let wanted = |table: &str| request(table, &[("id", "i64"), ("email", "text")], &["id"]);
    let named = request("sparse", &[("id", "i64"), ("_g", "i64"), ("_id", "i64")], &["id"]);
    let through = TableRequest { table: "whole".to_owned(), columns: Vec::new(), key: vec!["id".to_owned()] };
    let found = store.inspect(&[wanted("whole"), named, through]).await.expect("inspect");
    let found: Vec<_> = found.iter().map(|f| (f.code, f.fatal, f.table.as_str(), f.column.as_deref())).collect();
    for want in [
        ("live/unique-index", stand_alone(place), "whole", None),
        ("live/name", true, "sparse", Some("_g")),
        ("live/name", true, "sparse", Some("_id")),
        ("live/pass-through", true, "whole", None),
    ] {
        assert!(found.contains(&want), "{want:?}: {found:?}");
    }
    assert_eq!(found.contains(&("live/stand-alone", false, "", None)), !place.replica_set, "{found:?}");
}

pub async fn wrong_places_are_misconfigured_or_away(place: &MongoPlace) {
    let away = |o: &mut gravity_connectors::mongodb::MongoOptions| {
        // Nobody listens on the first port.
        o.place = Address::Host { host: "127.0.0.1".to_owned(), port: 1, user: String::new(), password: String::new() };
        (o.tls, o.connect_timeout) = (false, Duration::from_millis(200));
    };
    assert_eq!(kind(place.store_with(away).open().await), FaultKind::Disconnected);
    let unnamed = place.store_with(|o| o.db_name = None);
    assert_eq!(kind(unnamed.open().await), FaultKind::Misconfigured, "no database");
    let broken = place.store_with(|o| o.place = Address::Uri("mongodb://".to_owned()));
    assert_eq!(kind(broken.open().await), FaultKind::Misconfigured, "no address");
    let plain = place.store_with(|o| o.ca_file = Some("ca.pem".into()));
    assert_eq!(kind(plain.open().await), FaultKind::Misconfigured, "a certificate for an open connection");
}

pub async fn manual_bookkeeping_is_never_made(place: &MongoPlace) {
    let manual = place.store_with(|o| o.bookkeeping = Bookkeeping::Manual);
    let fault = manual.open().await.expect_err("nothing is there");
    assert_eq!((fault.kind, &*fault.code), (FaultKind::Misconfigured, "live/bookkeeping"));
    for name in ["gravity_checkpoints", "gravity_views", "gravity_journal"] {
        assert!(fault.detail.contains(name), "{fault}");
        place.command(json!({"create": name}));
    }
    manual.open().await.expect("a DBA made them");
    let (_, now) = bookkept(place, "r").await;
    assert_eq!(manual.checkpoints("r").await.expect("read"), [now]);
}
