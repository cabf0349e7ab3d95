//! The peers' traps that no other part of the suite shows, and three defects of the original on every database (docs/traps.md).

use gravity_connectors::memory::view::MemoryViews;
use gravity_model::change::{RowOp, Step};
use gravity_model::shape::SharedShape;
use gravity_model::{FaultKind, Value};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::{
    Dialect, MongoPlace, Place, Spec, USERS, attach, attached, batch, group, int, kind, made, steps, table, text,
    write, write_event,
};
use crate::blackbox::proxy::Proxy;

/// Trap 2: delete, upsert, delete of one key are three steps of one batch, and each is carried out where it stands.
pub async fn trap2_delete_upsert_delete_of_one_key_in_one_batch(place: &dyn Place) {
    let (store, mut now) = attached(place).await;
    let users = made(place, &*store, &USERS).await;
    let count = i64::from(place.many(600));
    let rows = |name: &str| (0..count).map(|id| vec![int(id), text(name)]).collect::<Vec<_>>();
    let keys = |of: std::ops::Range<i64>| of.map(|id| vec![int(id)]).collect::<Vec<_>>();
    let upsert = |name: &str| group(&users, RowOp::Upsert, &["name"], &[], rows(name));
    let delete = |of| group(&users, RowOp::Delete, &[], &[], keys(of));
    // Once on an empty table, once over rows that are there.
    for _ in 0..2 {
        let gone = steps(&users, vec![delete(0..count), upsert("between"), delete(0..count)]);
        write(&*store, &mut now, &gone).await.expect("delete, upsert, delete");
        assert_eq!(place.rows("users", &["id"]).await, table(&[]), "the last word was delete");
        let there = steps(&users, vec![upsert("first"), delete(0..count), upsert("last"), delete(1..count)]);
        write(&*store, &mut now, &there).await.expect("upsert, delete, upsert");
        assert_eq!(place.rows("users", &["id", "name", "email"]).await, table(&[&["0", "last", "∅"]]));
    }
    // As one event under a savepoint the same.
    let gone = steps(&users, vec![delete(0..1), upsert("between"), delete(0..count)]);
    write_event(&*store, &mut now, &gone).await.expect("an answer");
    assert_eq!(place.rows("users", &["id"]).await, table(&[]));
}

/// One step over a few of the keys.
fn random_step(random: &mut StdRng, shape: &SharedShape, mark: i64) -> Step {
    const OPS: [RowOp; 8] = [
        RowOp::Delete,
        RowOp::Patch,
        RowOp::Upsert,
        RowOp::Upsert,
        RowOp::UpdateElseInsert,
        RowOp::InsertIgnore,
        RowOp::Move,
        RowOp::Delete,
    ];
    let op = OPS[random.random_range(0..OPS.len())];
    let key = |random: &mut StdRng| random.random_range(0..8_i64);
    if op == RowOp::Move {
        // To a key that nobody has, so that it cannot be taken.
        let row = vec![int(key(random)), int(1_000 + mark), text(&format!("moved {mark}"))];
        return group(shape, op, &["name"], &[], vec![row]);
    }
    let mut ids: Vec<i64> = (0..random.random_range(1..5)).map(|_| key(random)).collect();
    ids.sort_unstable();
    ids.dedup();
    let both = random.random_bool(0.5);
    let set: &[&str] = match op {
        RowOp::Delete => &[],
        _ if both => &["name", "email"],
        _ => &["name"],
    };
    let row = |id: &i64| {
        let mut row = vec![int(*id)];
        if !set.is_empty() {
            row.push(text(&format!("{op:?} {mark}")));
        }
        if set.len() > 1 {
            row.push(if mark % 5 == 0 { Value::Null } else { text(&format!("{id}@{mark}")) });
        }
        row
    };
    group(shape, op, set, &[], ids.iter().map(row).collect())
}

/// Traps 2 and 18: steps without plan over the same few rows end as in memory, whatever a store gathers, sorts or sends in bulk.
pub async fn trap2_trap18_steps_over_the_same_rows_keep_their_order(place: &dyn Place) {
    let (store, mut now) = attached(place).await;
    let users = made(place, &*store, &USERS).await;
    let memory = MemoryViews::new();
    memory.put_table((*users).clone());
    let mut there = now.clone();
    attach(&memory, &there).await;
    let seed = 18;
    let mut random = StdRng::seed_from_u64(seed);
    let mut mark = 0;
    for round in 0..place.many(60).min(12) {
        let mut all = Vec::new();
        for _ in 0..40 {
            mark += 1;
            all.push(random_step(&mut random, &users, mark));
        }
        let changes = steps(&users, all);
        let want = write(&memory, &mut there, &changes).await.expect("in memory");
        let found = write(&*store, &mut now, &changes).await.expect("the same steps");
        assert_eq!(found, want, "round {round}: which patches missed their row");
        let cell = |value: &Value| match value {
            Value::Null => None,
            Value::Int(number) => Some(number.to_string()),
            Value::Text(text) => Some(text.to_string()),
            other => panic!("{other:?}"),
        };
        let mut want: Vec<Vec<_>> = memory.rows("users").iter().map(|row| row.iter().map(cell).collect()).collect();
        want.sort();
        assert_eq!(place.rows("users", &["id", "name", "email"]).await, want, "round {round}, seed {seed}");
    }
}

/// Trap 12: more values than one statement has parameters (PostgreSQL and MySQL 65,535, SQLite 32,766), by every way of writing.
pub async fn trap12_more_values_than_one_statement_has_parameters(place: &dyn Place) {
    let (store, mut now) = attached(place).await;
    let names: Vec<String> = (0..60).map(|n| format!("c{n}")).collect();
    let mut columns = vec![("id", "i64", true)];
    columns.extend(names.iter().map(|name| (name.as_str(), "i64", false)));
    let wide = made(place, &*store, &Spec { table: "wide", columns: &columns, key: &["id"], unique: &[] }).await;
    let set: Vec<&str> = names.iter().map(String::as_str).collect();
    let count = i64::from(place.many(1_200));
    let rows = |add: i64| {
        (0..count).map(|id| std::iter::once(int(id)).chain((0..60).map(|n| int(id + n + add))).collect()).collect()
    };
    for (add, op) in
        [(0, RowOp::Insert), (0, RowOp::Insert), (1, RowOp::Upsert), (2, RowOp::Patch), (3, RowOp::UpdateElseInsert)]
    {
        let changes = batch(&wide, op, &set, rows(add));
        let applied = write(&*store, &mut now, &changes).await.unwrap_or_else(|f| panic!("{op:?}: {f}"));
        assert_eq!(applied.missed, [], "{op:?}");
        let found = place.rows("wide", &["id", "c0", "c59"]).await;
        let mut want: Vec<Vec<Option<String>>> =
            (0..count).map(|id| [id, id + add, id + 59 + add].map(|n| Some(n.to_string())).to_vec()).collect();
        want.sort();
        assert!(found == want, "{op:?}: {} rows", found.len());
    }
    let moves: Vec<Vec<Value>> = (0..count)
        .map(|id| [int(id), int(id + 100_000)].into_iter().chain((0..60).map(|_| int(id))).collect())
        .collect();
    write(&*store, &mut now, &batch(&wide, RowOp::Move, &set, moves)).await.expect("move");
    let keys = (0..count).map(|id| vec![int(id + 100_000)]).collect();
    write(&*store, &mut now, &batch(&wide, RowOp::Delete, &[], keys)).await.expect("delete");
    assert!(!store.has_rows("wide").await.expect("ask"), "all moved, all deleted");
}

/// Trap 13: a DBA adds a column, makes one wider, renames one and gives it its name back, under statements that are prepared.
pub async fn trap13_columns_added_widened_and_renamed_while_running(place: &dyn Place) {
    if matches!(place.dialect(), Dialect::Memory | Dialect::Mongodb) {
        return; // Nobody but the test has columns there.
    }
    let (store, mut now) = attached(place).await;
    let spec =
        Spec { columns: &[("id", "i64", true), ("name", "varchar(20)", false), ("email", "text", false)], ..USERS };
    let users = made(place, &*store, &spec).await;
    let ops = [RowOp::Upsert, RowOp::UpdateElseInsert, RowOp::Patch, RowOp::Insert, RowOp::Upsert];
    let changes = |op, id: i64| batch(&users, op, &["name", "email"], vec![vec![int(id), text("a"), text("a@x")]]);
    // Often enough that every statement is a prepared one.
    for _ in 0..8 {
        for op in ops {
            write(&*store, &mut now, &changes(op, 1)).await.expect("write");
        }
    }
    place.dba("ALTER TABLE users ADD COLUMN note VARCHAR(20) DEFAULT 'none'").await;
    for op in ops {
        write(&*store, &mut now, &changes(op, 1)).await.unwrap_or_else(|f| panic!("{op:?} after a column came: {f}"));
    }
    match place.dialect() {
        Dialect::Postgres => place.dba("ALTER TABLE users ALTER COLUMN name TYPE text").await,
        Dialect::Mysql => place.dba("ALTER TABLE users MODIFY name VARCHAR(200)").await,
        _ => {} // SQLite has no such statement.
    }
    for op in ops {
        write(&*store, &mut now, &changes(op, 1)).await.unwrap_or_else(|f| panic!("{op:?} after one was widened: {f}"));
    }
    place.dba("ALTER TABLE users RENAME COLUMN email TO mail").await;
    for op in ops {
        let fault = write(&*store, &mut now, &changes(op, 2)).await.expect_err("no such column");
        assert_eq!(fault.kind, FaultKind::Misconfigured, "{op:?}: the route stops, no event is at fault: {fault}");
        assert!(fault.to_string().contains("email"), "{op:?}: the column is named: {fault}");
    }
    assert_eq!(store.checkpoints("r").await.expect("read"), std::slice::from_ref(&now), "nothing moved meanwhile");
    place.dba("ALTER TABLE users RENAME COLUMN mail TO email").await;
    write(&*store, &mut now, &changes(RowOp::Upsert, 2)).await.expect("the name is back");
    let want = table(&[&["1", "a", "a@x", "none"], &["2", "a", "a@x", "none"]]);
    assert_eq!(place.rows("users", &["id", "name", "email", "note"]).await, want);
}

/// O26: rows that carry a column and rows that do not follow each other; none has a value of its neighbour.
pub async fn o26_no_row_has_a_column_of_its_neighbour(place: &dyn Place) {
    let (store, mut now) = attached(place).await;
    let users = made(place, &*store, &USERS).await;
    let count = i64::from(place.many(1_600));
    for op in [RowOp::Upsert, RowOp::UpdateElseInsert, RowOp::Patch, RowOp::Insert] {
        // A group of each kind in turns, as events that alternate make them.
        let mut all = Vec::new();
        for first in (0..count).step_by(20) {
            let even = (first..first + 20).step_by(2).map(|id| vec![int(id), text("both"), text(&format!("{id}@x"))]);
            let odd = (first + 1..first + 20).step_by(2).map(|id| vec![int(id), text("one")]);
            all.push(group(&users, op, &["name", "email"], &[], even.collect()));
            all.push(group(&users, op, &["name"], &[], odd.collect()));
        }
        write(&*store, &mut now, &steps(&users, all)).await.unwrap_or_else(|f| panic!("{op:?}: {f}"));
        for row in place.rows("users", &["id", "name", "email"]).await {
            let id: i64 = row[0].as_deref().and_then(|id| id.parse().ok()).expect("an id");
            let want = if id % 2 == 0 { ("both", Some(format!("{id}@x"))) } else { ("one", None) };
            assert_eq!((row[1].as_deref(), &row[2]), (Some(want.0), &want.1), "{op:?}, row {id}");
        }
    }
    // The same one event at a time, in one transaction.
    let mut transaction = store.begin(std::slice::from_ref(&now)).await.expect("begin");
    for id in count..count + 40 {
        let event = match id % 2 {
            0 => batch(&users, RowOp::Upsert, &["name", "email"], vec![vec![int(id), text("both"), text("x")]]),
            _ => batch(&users, RowOp::Upsert, &["name"], vec![vec![int(id), text("one")]]),
        };
        transaction.apply_event(&event).await.expect("an answer");
    }
    transaction.commit(&[super::at(&now, now.sequence.0 + 1)]).await.expect("commit");
    let with_email = place.rows("users", &["id", "email"]).await.iter().filter(|row| row[1].is_some()).count();
    assert_eq!(with_email as i64, (count + 40) / 2);
}

/// O37: a row that has the values already counts as written, and as there.
pub async fn o37_equal_values_count_as_written(place: &dyn Place) {
    let (store, mut now) = attached(place).await;
    let users = made(place, &*store, &USERS).await;
    let rows = || vec![vec![int(1), text("a"), Value::Null], vec![int(2), text("b"), text("b@x")]];
    let want = table(&[&["1", "a", "∅"], &["2", "b", "b@x"]]);
    for op in [
        RowOp::Upsert,
        RowOp::Upsert,
        RowOp::Patch,
        RowOp::PatchRequired,
        RowOp::UpdateElseInsert,
        RowOp::Insert,
        RowOp::InsertIgnore,
    ] {
        let changes = batch(&users, op, &["name", "email"], rows());
        let applied = write(&*store, &mut now, &changes).await.unwrap_or_else(|f| panic!("{op:?}: {f}"));
        assert_eq!(applied.missed, [], "{op:?}: a row that stays as it is was found");
        assert_eq!(place.rows("users", &["id", "name", "email"]).await, want, "{op:?}");
    }
    let stays = vec![vec![int(2), int(2), text("b"), text("b@x")]];
    write(&*store, &mut now, &batch(&users, RowOp::Move, &["name", "email"], stays)).await.expect("moves nowhere");
    assert_eq!(place.rows("users", &["id", "name", "email"]).await, want);
}

/// Trap 16: who opens the store a second time, as a view that is built beside its route does, does not stop the one under way.
pub async fn trap16_opening_again_harms_nobody_under_way(place: &dyn Place) {
    let (store, mut now) = attached(place).await;
    let users = made(place, &*store, &USERS).await;
    for id in 0..3 {
        let mut transaction = store.begin(std::slice::from_ref(&now)).await.expect("begin");
        let changes = batch(&users, RowOp::Upsert, &["name"], vec![vec![int(id), text("x")]]);
        let next = super::at(&now, now.sequence.0 + 1);
        // Where only one may write, the other waits for it.
        let go_on = async {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            transaction.apply(&changes).await?;
            transaction.commit(std::slice::from_ref(&next)).await
        };
        let (opened, committed) = tokio::join!(store.open(), go_on);
        opened.expect("open again");
        committed.expect("goes on as if nobody had come");
        now = next;
    }
    assert_eq!(place.rows("users", &["id"]).await, table(&[&["0"], &["1"], &["2"]]));
}

/// Trap 25: a connection that somebody on the way forgot while it was idle is replaced; nobody is told of it.
pub async fn trap25_a_forgotten_idle_connection_is_replaced(place: &MongoPlace) {
    let (direct, mut now) = attached(place).await;
    let users = made(place, &*direct, &USERS).await;
    let (scheme, rest) = place.uri.split_once("://").expect("a mongodb:// URI");
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (login, upstream) = authority.rsplit_once('@').map_or(("", authority), |(login, at)| (login, at));
    let proxy = Proxy::start(upstream);
    let at = if login.is_empty() { proxy.address.to_string() } else { format!("{login}@{}", proxy.address) };
    let uri = format!("{scheme}://{at}/{path}");
    let store = place.store_with(|o| {
        o.place = gravity_connectors::mongodb::MongoPlace::Uri(uri);
        o.connect_timeout = std::time::Duration::from_secs(1);
    });
    store.open().await.expect("open");
    for id in 0..3 {
        let changes = batch(&users, RowOp::Upsert, &["name"], vec![vec![int(id), text("x")]]);
        // As the engine does: after a cut it asks the checkpoint, and begins again.
        let mut attempts = 0;
        while let Err(fault) = write(&*store, &mut now, &changes).await {
            attempts += 1;
            assert!(matches!(fault.kind, FaultKind::Disconnected | FaultKind::Transient), "{fault}");
            assert!(attempts < 5, "{fault}");
        }
        proxy.down();
        proxy.up();
    }
    assert_eq!(place.rows("users", &["id"]).await, table(&[&["0"], &["1"], &["2"]]));
    proxy.down();
    let changes = batch(&users, RowOp::Upsert, &["name"], vec![vec![int(9), text("x")]]);
    assert_eq!(kind(write(&*store, &mut now, &changes).await), FaultKind::Disconnected, "while nobody is there");
}
