//! What each operation does to rows (SEMANTICS 2.2, 2.3, 3.3; original's defects O28–O37).

use gravity_model::change::{ChangeBatch, RowOp};
use gravity_model::port::view::{Applied, EventOutcome};
use gravity_model::{FaultKind, Value};

use super::{
    Place, Spec, USERS, at, attached, batch, group, int, kind, made, refused, steps, table, text, write, write_event,
};

const ALL: [RowOp; 8] = [
    RowOp::Delete,
    RowOp::Patch,
    RowOp::PatchRequired,
    RowOp::Move,
    RowOp::UpdateElseInsert,
    RowOp::Upsert,
    RowOp::Insert,
    RowOp::InsertIgnore,
];

pub async fn upsert_creates_and_changes(place: &dyn Place) {
    let (store, mut now) = attached(place).await;
    let users = made(place, &*store, &USERS).await;
    let both = ["name", "email"];
    let changes = batch(
        &users,
        RowOp::Upsert,
        &both,
        vec![vec![int(1), text("a"), text("a@x")], vec![int(2), text("b"), Value::Null]],
    );
    assert_eq!(write(&*store, &mut now, &changes).await.expect("create"), Applied::default());
    let changes = batch(
        &users,
        RowOp::Upsert,
        &both,
        vec![vec![int(2), text("B"), text("b@x")], vec![int(3), text("c"), text("c@x")]],
    );
    write(&*store, &mut now, &changes).await.expect("change and create");
    let want = table(&[&["1", "a", "a@x"], &["2", "B", "b@x"], &["3", "c", "c@x"]]);
    assert_eq!(place.rows("users", &["id", "name", "email"]).await, want);
}

pub async fn absent_leaves_alone_and_null_writes_null(place: &dyn Place) {
    let (store, mut now) = attached(place).await;
    let users = made(place, &*store, &USERS).await;
    let full = batch(&users, RowOp::Upsert, &["name", "email"], vec![vec![int(1), text("a"), text("a@x")]]);
    write(&*store, &mut now, &full).await.expect("create");
    for op in [RowOp::Upsert, RowOp::Patch, RowOp::UpdateElseInsert] {
        write(&*store, &mut now, &full).await.expect("reset");
        let absent = batch(&users, op, &["name"], vec![vec![int(1), text("b")]]);
        write(&*store, &mut now, &absent).await.expect("absent e-mail");
        assert_eq!(place.rows("users", &["id", "name", "email"]).await, table(&[&["1", "b", "a@x"]]), "{op:?}");
        let null = batch(&users, op, &["email"], vec![vec![int(1), Value::Null]]);
        write(&*store, &mut now, &null).await.expect("null e-mail");
        assert_eq!(place.rows("users", &["id", "name", "email"]).await, table(&[&["1", "b", "∅"]]), "{op:?}");
    }
}

/// A `default` fills the column of a new row only.
pub async fn on_create_fills_new_rows_only(place: &dyn Place) {
    for op in [RowOp::Upsert, RowOp::UpdateElseInsert, RowOp::Insert, RowOp::InsertIgnore] {
        let name = format!("t_{}", op as u8);
        let spec = Spec { table: &name, ..USERS };
        let (store, mut now) = super::bookkept(place, &name).await;
        let shape = made(place, &*store, &spec).await;
        let rows = |name: &str| vec![vec![int(1), text(name), text("default")]];
        let changes = steps(&shape, vec![group(&shape, op, &["name"], &["email"], rows("a"))]);
        write(&*store, &mut now, &changes).await.expect("create");
        assert_eq!(place.rows(&name, &["id", "name", "email"]).await, table(&[&["1", "a", "default"]]), "{op:?}");
        if matches!(op, RowOp::Upsert | RowOp::UpdateElseInsert) {
            let own = batch(&shape, RowOp::Patch, &["email"], vec![vec![int(1), text("own")]]);
            write(&*store, &mut now, &own).await.expect("patch");
            let changes = steps(&shape, vec![group(&shape, op, &["name"], &["email"], rows("b"))]);
            write(&*store, &mut now, &changes).await.expect("change");
            assert_eq!(place.rows(&name, &["id", "name", "email"]).await, table(&[&["1", "b", "own"]]), "{op:?}");
        }
    }
}

/// Peers' trap 5: all columns are key.
pub async fn trap5_rows_of_keys_only(place: &dyn Place) {
    let (store, mut now) = attached(place).await;
    let spec = Spec {
        table: "tags",
        columns: &[("id", "i64", true), ("tag", "text", true)],
        key: &["id", "tag"],
        unique: &[],
    };
    let tags = made(place, &*store, &spec).await;
    let rows = || vec![vec![int(1), text("a")], vec![int(1), text("b")]];
    for op in [RowOp::Upsert, RowOp::UpdateElseInsert, RowOp::Insert, RowOp::InsertIgnore, RowOp::Upsert, RowOp::Insert]
    {
        write(&*store, &mut now, &batch(&tags, op, &[], rows())).await.expect("write");
        assert_eq!(place.rows("tags", &["id", "tag"]).await, table(&[&["1", "a"], &["1", "b"]]), "{op:?}");
    }
    let three = vec![vec![int(1), text("a")], vec![int(1), text("c")], vec![int(2), text("a")]];
    let applied = write(&*store, &mut now, &batch(&tags, RowOp::Patch, &[], three)).await.expect("patch");
    assert_eq!(applied.missed, [(0, 0, 1), (0, 0, 2)]);
    let moved = vec![vec![int(1), text("a"), int(2), text("a")]];
    write(&*store, &mut now, &batch(&tags, RowOp::Move, &[], moved)).await.expect("move");
    let deleted = vec![vec![int(1), text("b")], vec![int(7), text("z")]];
    write(&*store, &mut now, &batch(&tags, RowOp::Delete, &[], deleted)).await.expect("delete");
    assert_eq!(place.rows("tags", &["id", "tag"]).await, table(&[&["2", "a"]]));
}

/// O30: `update` of no row creates it; a patch of no row is reported, not swallowed.
pub async fn o30_missing_rows_are_created_or_reported(place: &dyn Place) {
    let (store, mut now) = attached(place).await;
    let users = made(place, &*store, &USERS).await;
    let rows = |ids: &[i64]| ids.iter().map(|id| vec![int(*id), text(&format!("n{id}"))]).collect::<Vec<_>>();
    for op in [RowOp::Upsert, RowOp::UpdateElseInsert] {
        write(&*store, &mut now, &batch(&users, op, &["name"], rows(&[2, 4]))).await.expect("create");
        assert_eq!(place.rows("users", &["id", "name"]).await, table(&[&["2", "n2"], &["4", "n4"]]), "{op:?}");
    }
    let changes = steps(
        &users,
        vec![
            group(&users, RowOp::Patch, &["name"], &[], rows(&[4])),
            group(&users, RowOp::Patch, &["name"], &[], rows(&[1, 2, 3, 4, 5])),
        ],
    );
    let applied = write(&*store, &mut now, &changes).await.expect("patch");
    assert_eq!(applied.missed, [(0, 1, 0), (0, 1, 2), (0, 1, 4)]);
    assert_eq!(place.rows("users", &["id", "name"]).await, table(&[&["2", "n2"], &["4", "n4"]]));
    let applied = write(&*store, &mut now, &batch(&users, RowOp::Delete, &[], vec![vec![int(2)], vec![int(3)]])).await;
    assert_eq!(applied.expect("a missing row is no failure"), Applied::default());
    assert_eq!(place.rows("users", &["id", "name"]).await, table(&[&["4", "n4"]]));
}

pub async fn a_required_patch_is_refused_where_the_row_is_missing(place: &dyn Place) {
    let (store, mut now) = attached(place).await;
    let users = made(place, &*store, &USERS).await;
    write(&*store, &mut now, &batch(&users, RowOp::Upsert, &["name"], vec![vec![int(1), text("a")]]))
        .await
        .expect("create");
    let present = batch(&users, RowOp::PatchRequired, &["name"], vec![vec![int(1), text("b")]]);
    write(&*store, &mut now, &present).await.expect("there it is");
    let missing =
        batch(&users, RowOp::PatchRequired, &["name"], vec![vec![int(1), text("c")], vec![int(2), text("c")]]);
    assert_eq!(refused(write(&*store, &mut now, &missing).await).code, "row-missing");
    assert_eq!(place.rows("users", &["id", "name"]).await, table(&[&["1", "b"]]));
}

/// SEMANTICS 2.2: producers send twice.
pub async fn trap6_insert_of_the_same_row_counts_as_written(place: &dyn Place) {
    let (store, mut now) = attached(place).await;
    let users = made(place, &*store, &USERS).await;
    let both = ["name", "email"];
    let first = batch(
        &users,
        RowOp::Insert,
        &both,
        vec![vec![int(1), text("a"), Value::Null], vec![int(2), text("b"), text("b@x")]],
    );
    write(&*store, &mut now, &first).await.expect("insert");
    write(&*store, &mut now, &first).await.expect("the same again");
    let more = batch(
        &users,
        RowOp::Insert,
        &both,
        vec![vec![int(2), text("b"), text("b@x")], vec![int(3), text("c"), text("c@x")]],
    );
    write(&*store, &mut now, &more).await.expect("one again, one new");
    for (other, why) in [
        (vec![int(1), text("a"), text("not null")], "null is not a value"),
        (vec![int(2), text("B"), text("b@x")], "case"),
        (vec![int(2), text("b"), Value::Null], "a value is not null"),
    ] {
        let changes = batch(&users, RowOp::Insert, &both, vec![other, vec![int(9), text("new"), Value::Null]]);
        let fault = refused(write(&*store, &mut now, &changes).await);
        assert!(["23505", "SQLITE_CONSTRAINT_PRIMARYKEY", "1062", "11000"].contains(&&*fault.code), "{why}: {fault}");
    }
    let other = batch(
        &users,
        RowOp::InsertIgnore,
        &both,
        vec![vec![int(1), text("z"), text("z")], vec![int(4), text("d"), Value::Null]],
    );
    write(&*store, &mut now, &other).await.expect("ignore");
    let want = table(&[&["1", "a", "∅"], &["2", "b", "b@x"], &["3", "c", "c@x"], &["4", "d", "∅"]]);
    assert_eq!(place.rows("users", &["id", "name", "email"]).await, want);
}

/// O28: redelivery. The same 10,000 events twice: equal table, no error, for every way of writing.
pub async fn o28_ten_thousand_events_twice(place: &dyn Place) {
    let (store, mut now) = attached(place).await;
    let users = made(place, &*store, &USERS).await;
    let count = place.many(10_000);
    let row = |i| vec![int(i), text(&format!("name {i}")), text(&format!("{i}@x"))];
    let rows = || (0..i64::from(count)).map(row).collect::<Vec<_>>();
    let mut seen = Vec::new();
    for op in [RowOp::Insert, RowOp::Insert, RowOp::Upsert, RowOp::UpdateElseInsert, RowOp::Patch, RowOp::InsertIgnore]
    {
        let applied = write(&*store, &mut now, &batch(&users, op, &["name", "email"], rows())).await;
        // O37: rewriting equal values counts as applied.
        assert_eq!(applied.expect("write"), Applied::default(), "{op:?}");
        let found = place.rows("users", &["id", "name", "email"]).await;
        assert_eq!(found.len(), count as usize);
        if seen.is_empty() {
            seen = found;
        } else {
            assert!(seen == found, "{op:?} changed the table");
        }
    }
}

/// O29: one bad row among 10,000 is named by the database and found; the others can be written.
pub async fn o29_one_long_text_among_ten_thousand(place: &dyn Place) {
    let (store, mut now) = attached(place).await;
    let spec = Spec {
        table: "short",
        columns: &[("id", "i64", true), ("code", "varchar(10)", false)],
        key: &["id"],
        unique: &[],
    };
    let short = made(place, &*store, &spec).await;
    let row = |i: i64| vec![int(i), text(if i == 7_777 { "far too long for ten" } else { "fits" })];
    let fault = refused(
        write(&*store, &mut now, &batch(&short, RowOp::Upsert, &["code"], (0..10_000).map(row).collect())).await,
    );
    assert!(["22001", "SQLITE_CONSTRAINT_CHECK", "1406", "map/too-long"].contains(&&*fault.code), "{fault}");
    assert_eq!(place.rows("short", &["id"]).await, table(&[]));
    let mut transaction = store.begin(std::slice::from_ref(&now)).await.expect("begin");
    let good: Vec<_> = (0..10_000).filter(|i| *i != 7_777).map(row).collect();
    transaction.apply(&batch(&short, RowOp::Upsert, &["code"], good)).await.expect("the others");
    let outcome =
        transaction.apply_event(&batch(&short, RowOp::Upsert, &["code"], vec![row(7_777)])).await.expect("an answer");
    assert!(matches!(&outcome, EventOutcome::Refused(f) if f.code == fault.code), "{outcome:?}");
    transaction.commit(&[at(&now, 10_000)]).await.expect("commit");
    assert_eq!(place.rows("short", &["id"]).await.len(), 9_999);
}

pub async fn trap19_an_event_is_refused_alone(place: &dyn Place) {
    let (store, mut now) = attached(place).await;
    let spec = Spec { columns: &[("id", "i64", true), ("name", "text", true), ("email", "text", false)], ..USERS };
    let users = made(place, &*store, &spec).await;
    let event = |id: i64, name: Value| batch(&users, RowOp::Upsert, &["name"], vec![vec![int(id), name]]);
    let mut transaction = store.begin(std::slice::from_ref(&now)).await.expect("begin");
    for (id, good) in [(1, true), (2, false), (3, true), (4, false), (5, true)] {
        let name = if good { text("ok") } else { Value::Null };
        let outcome = transaction.apply_event(&event(id, name)).await.expect("an answer");
        assert_eq!(matches!(outcome, EventOutcome::Applied(_)), good, "{id}");
    }
    // An event of several rows is undone whole.
    let mixed = batch(&users, RowOp::Upsert, &["name"], vec![vec![int(6), text("ok")], vec![int(7), Value::Null]]);
    assert!(matches!(transaction.apply_event(&mixed).await.expect("an answer"), EventOutcome::Refused(_)));
    now = at(&now, 6);
    transaction.commit(std::slice::from_ref(&now)).await.expect("commit");
    assert_eq!(place.rows("users", &["id", "name"]).await, table(&[&["1", "ok"], &["3", "ok"], &["5", "ok"]]));
    let outcome =
        write_event(&*store, &mut now, &batch(&users, RowOp::Patch, &["name"], vec![vec![int(9), text("x")]])).await;
    assert!(matches!(outcome.expect("an answer"), EventOutcome::Applied(a) if a.missed == [(0, 0, 0)]));
}

pub async fn after_a_fault_only_rollback_follows(place: &dyn Place) {
    let (store, now) = attached(place).await;
    let spec = Spec { columns: &[("id", "i64", true), ("name", "text", true), ("email", "text", false)], ..USERS };
    let users = made(place, &*store, &spec).await;
    let good = batch(&users, RowOp::Upsert, &["name"], vec![vec![int(1), text("a")]]);
    let bad = batch(&users, RowOp::Upsert, &["name"], vec![vec![int(2), Value::Null]]);
    let expect = std::slice::from_ref(&now);
    let mut transaction = store.begin(expect).await.expect("begin");
    transaction.apply(&good).await.expect("good");
    refused(transaction.apply(&bad).await);
    assert!(transaction.apply(&good).await.is_err(), "unusable");
    assert!(transaction.commit(&[at(&now, 1)]).await.is_err(), "a failed transaction must not commit");
    assert_eq!(store.checkpoints("r").await.expect("read"), expect);
    assert_eq!(place.rows("users", &["id"]).await, table(&[]));
    let mut transaction = store.begin(expect).await.expect("begin again");
    refused(transaction.apply(&bad).await);
    transaction.rollback().await;
    write(&*store, &mut now.clone(), &good).await.expect("and again");
}

/// SEMANTICS 2.3: the row moves and keeps what the event does not carry.
pub async fn trap4_a_key_change_moves_the_row(place: &dyn Place) {
    let (store, mut now) = attached(place).await;
    let users = made(place, &*store, &USERS).await;
    let both = ["name", "email"];
    let rows = (1..=4).map(|i| vec![int(i), text(&format!("n{i}")), text(&format!("{i}@x"))]).collect();
    write(&*store, &mut now, &batch(&users, RowOp::Upsert, &both, rows)).await.expect("create");
    let moves = vec![
        vec![int(1), int(11), text("moved")],
        vec![int(2), int(2), text("stays")],
        vec![int(9), int(19), text("created")],
    ];
    let applied = write(&*store, &mut now, &batch(&users, RowOp::Move, &["name"], moves)).await.expect("move");
    assert_eq!(applied, Applied::default());
    let want = table(&[
        &["11", "moved", "1@x"],
        &["19", "created", "∅"],
        &["2", "stays", "2@x"],
        &["3", "n3", "3@x"],
        &["4", "n4", "4@x"],
    ]);
    assert_eq!(place.rows("users", &["id", "name", "email"]).await, want);
    let taken = batch(&users, RowOp::Move, &["name"], vec![vec![int(3), int(4), text("taken")]]);
    refused(write(&*store, &mut now, &taken).await);
    let taken = batch(&users, RowOp::Move, &["name"], vec![vec![int(77), int(4), text("taken")]]);
    refused(write(&*store, &mut now, &taken).await);
    assert_eq!(place.rows("users", &["id", "name", "email"]).await, want);
    let created =
        group(&users, RowOp::Move, &["name"], &["email"], vec![vec![int(50), int(51), text("new"), text("default")]]);
    write(&*store, &mut now, &steps(&users, vec![created])).await.expect("create under the new key");
    assert!(place.rows("users", &["id", "name", "email"]).await.contains(&table(&[&["51", "new", "default"]])[0]));
}

/// O32: empties that view only, in order between the rows before and after it.
pub async fn o32_truncate_in_its_order(place: &dyn Place) {
    let (store, mut now) = attached(place).await;
    let users = made(place, &*store, &USERS).await;
    let others = made(place, &*store, &Spec { table: "others", ..USERS }).await;
    let row = |id: i64| vec![vec![int(id), text("x")]];
    write(&*store, &mut now, &batch(&users, RowOp::Upsert, &["name"], row(1))).await.expect("write");
    write(&*store, &mut now, &batch(&others, RowOp::Upsert, &["name"], row(1))).await.expect("write");
    let changes = steps(
        &users,
        vec![
            group(&users, RowOp::Upsert, &["name"], &[], row(2)),
            gravity_model::Step::DeleteAll,
            group(&users, RowOp::Upsert, &["name"], &[], row(3)),
        ],
    );
    write(&*store, &mut now, &changes).await.expect("truncate between");
    assert_eq!(place.rows("users", &["id"]).await, table(&[&["3"]]));
    assert_eq!(place.rows("others", &["id"]).await, table(&[&["1"]]));
    assert!(store.has_rows("users").await.expect("ask"));
    write(&*store, &mut now, &steps(&users, vec![gravity_model::Step::DeleteAll])).await.expect("truncate");
    assert!(!store.has_rows("users").await.expect("ask"));
    // Rolled back like anything else, on every database.
    let mut transaction = store.begin(std::slice::from_ref(&now)).await.expect("begin");
    transaction.apply(&steps(&others, vec![gravity_model::Step::DeleteAll])).await.expect("truncate");
    transaction.rollback().await;
    assert!(store.has_rows("others").await.expect("ask"));
}

/// O36: keys of two and three columns, every operation.
pub async fn o36_composite_keys(place: &dyn Place) {
    let (store, mut now) = attached(place).await;
    let columns = [("a", "i64", true), ("b", "text", true), ("c", "i64", true), ("v", "text", false)];
    for (name, key) in [("two", &["b", "a"][..]), ("three", &["c", "a", "b"])] {
        // Where c is no part of the key it must not be NOT NULL.
        let columns: Vec<_> = columns.iter().map(|c| if key.contains(&c.0) { *c } else { (c.0, c.1, false) }).collect();
        let shape = made(place, &*store, &Spec { table: name, columns: &columns, key, unique: &[] }).await;
        let key_of = |i: i64| {
            let values = [("a", int(i)), ("b", text("same")), ("c", int(-i))];
            shape
                .primary_key
                .iter()
                .map(|c| {
                    let column = shape.columns[usize::from(*c)].name.as_str();
                    values.iter().find(|(n, _)| *n == column).expect("a key column").1.clone()
                })
                .collect::<Vec<Value>>()
        };
        let row = |i: i64, v: &str| [key_of(i), vec![text(v)]].concat();
        let put = |op, i, v| batch(&shape, op, &["v"], vec![row(i, v)]);
        write(&*store, &mut now, &put(RowOp::Insert, 1, "i")).await.expect("insert");
        refused(write(&*store, &mut now, &put(RowOp::Insert, 1, "other")).await);
        write(&*store, &mut now, &put(RowOp::Upsert, 1, "u")).await.expect("upsert");
        write(&*store, &mut now, &put(RowOp::Upsert, 2, "u")).await.expect("upsert");
        write(&*store, &mut now, &put(RowOp::UpdateElseInsert, 3, "e")).await.expect("update or insert");
        write(&*store, &mut now, &put(RowOp::InsertIgnore, 3, "ignored")).await.expect("ignore");
        let patches = batch(&shape, RowOp::Patch, &["v"], vec![row(2, "p"), row(8, "p")]);
        assert_eq!(write(&*store, &mut now, &patches).await.expect("patch").missed, [(0, 0, 1)]);
        let moved = [key_of(3), key_of(4), vec![text("m")]].concat();
        write(&*store, &mut now, &batch(&shape, RowOp::Move, &["v"], vec![moved])).await.expect("move");
        write(&*store, &mut now, &batch(&shape, RowOp::Delete, &[], vec![key_of(1), key_of(9)])).await.expect("delete");
        let want = table(&[&["2", "same", "p"], &["4", "same", "m"]]);
        assert_eq!(place.rows(name, &["a", "b", "v"]).await, want, "{name}");
    }
}

/// Peers' trap 3: a second unique key refuses; it never makes an upsert change another key's row.
pub async fn trap3_another_unique_key_is_a_refusal(place: &dyn Place) {
    let (store, mut now) = attached(place).await;
    let spec = Spec { unique: &[&["email"]], ..USERS };
    let users = made(place, &*store, &spec).await;
    let row = |id: i64, mail: &str| vec![vec![int(id), text(mail)]];
    let rows = vec![vec![int(1), text("a")], vec![int(2), text("b")]];
    write(&*store, &mut now, &batch(&users, RowOp::Upsert, &["email"], rows)).await.expect("create");
    let want = table(&[&["1", "a"], &["2", "b"]]);
    for op in ALL {
        let changes = match op {
            RowOp::Delete => continue,
            RowOp::Move => batch(&users, op, &["email"], vec![vec![int(1), int(3), text("b")]]),
            RowOp::Patch | RowOp::PatchRequired => batch(&users, op, &["email"], row(1, "b")),
            _ => batch(&users, op, &["email"], row(3, "b")),
        };
        let fault = refused(write(&*store, &mut now, &changes).await);
        assert!(["23505", "SQLITE_CONSTRAINT_UNIQUE", "1062", "11000"].contains(&&*fault.code), "{op:?}: {fault}");
        assert_eq!(place.rows("users", &["id", "email"]).await, want, "{op:?}");
    }
    // Two rows swap their unique values: one statement cannot; the caller then goes event by event.
    let swap = batch(&users, RowOp::Upsert, &["email"], vec![vec![int(1), text("b")], vec![int(2), text("a")]]);
    refused(write(&*store, &mut now, &swap).await);
    assert_eq!(place.rows("users", &["id", "email"]).await, want);
    for (id, mail) in [(1, "c"), (2, "a"), (1, "b")] {
        let event = batch(&users, RowOp::Upsert, &["email"], row(id, mail));
        let outcome = write_event(&*store, &mut now, &event).await.expect("an answer");
        assert!(matches!(outcome, EventOutcome::Applied(_)), "{outcome:?}");
    }
    assert_eq!(place.rows("users", &["id", "email"]).await, table(&[&["1", "b"], &["2", "a"]]));
}

/// SEMANTICS 2.2: a partial update of an existing row never parks for a NOT NULL column that it does not carry.
pub async fn partial_updates_do_not_need_every_column(place: &dyn Place) {
    let (store, mut now) = attached(place).await;
    let spec = Spec { columns: &[("id", "i64", true), ("name", "text", true), ("email", "text", false)], ..USERS };
    let users = made(place, &*store, &spec).await;
    write(&*store, &mut now, &batch(&users, RowOp::Upsert, &["name"], vec![vec![int(1), text("a")]]))
        .await
        .expect("create");
    let partial = |id| batch(&users, RowOp::UpdateElseInsert, &["email"], vec![vec![int(id), text("m")]]);
    write(&*store, &mut now, &partial(1)).await.expect("an existing row");
    let fault = refused(write(&*store, &mut now, &partial(2)).await);
    assert!(["23502", "SQLITE_CONSTRAINT_NOTNULL", "1364"].contains(&&*fault.code), "{fault}");
    assert_eq!(place.rows("users", &["id", "name", "email"]).await, table(&[&["1", "a", "m"]]));
}

/// Groups beyond one statement's limits, with answers that count across statements.
pub async fn large_groups_are_split(place: &dyn Place) {
    let (store, mut now) = attached(place).await;
    let users = made(place, &*store, &USERS).await;
    let count = place.many(23_456);
    let rows = |step: usize| (0..i64::from(count)).step_by(step).map(|i| vec![int(i), text("x")]).collect::<Vec<_>>();
    write(&*store, &mut now, &batch(&users, RowOp::Upsert, &["name"], rows(2))).await.expect("every second");
    let applied = write(&*store, &mut now, &batch(&users, RowOp::Patch, &["name"], rows(1))).await.expect("patch");
    let odd: Vec<_> = (0..count).filter(|i| i % 2 == 1).map(|i| (0, 0, i)).collect();
    assert!(applied.missed == odd, "the odd ones are missing");
    write(&*store, &mut now, &batch(&users, RowOp::UpdateElseInsert, &["name"], rows(1))).await.expect("all");
    write(
        &*store,
        &mut now,
        &batch(&users, RowOp::Delete, &[], rows(3).into_iter().map(|r| r[..1].to_vec()).collect()),
    )
    .await
    .expect("delete");
    assert_eq!(place.rows("users", &["id"]).await.len(), (count - count.div_ceil(3)) as usize);
}

/// V8: what a DBA took away stops the route; it is no event's fault.
pub async fn v8_trap13_missing_tables_and_columns_stop_the_route(place: &dyn Place) {
    let (store, mut now) = attached(place).await;
    let users = made(place, &*store, &USERS).await;
    let absent = std::sync::Arc::new(gravity_model::TableShape { table: "absent".to_owned(), ..(*users).clone() });
    let changes = batch(&absent, RowOp::Upsert, &["name"], vec![vec![int(1), text("x")]]);
    assert_eq!(kind(write(&*store, &mut now, &changes).await), FaultKind::Misconfigured);
    assert_eq!(kind(store.has_rows("absent").await), FaultKind::Misconfigured);
    if place.dialect() == super::Dialect::Mongodb {
        return; // Documents have whatever fields they have.
    }
    let mut newer = (*users).clone();
    newer.columns.push(gravity_model::ColumnShape { name: "gone".to_owned(), ..newer.columns[1].clone() });
    let newer = std::sync::Arc::new(newer);
    let changes = batch(&newer, RowOp::Upsert, &["gone"], vec![vec![int(1), text("x")]]);
    assert_eq!(kind(write(&*store, &mut now, &changes).await), FaultKind::Misconfigured);
    let mut transaction = store.begin(std::slice::from_ref(&now)).await.expect("begin");
    assert_eq!(kind(transaction.apply_event(&changes).await), FaultKind::Misconfigured, "not Refused");
    transaction.rollback().await;
}

/// An empty batch still moves the checkpoint.
pub async fn an_empty_batch_moves_the_checkpoint(place: &dyn Place) {
    let (store, mut now) = attached(place).await;
    let users = made(place, &*store, &USERS).await;
    write(&*store, &mut now, &ChangeBatch::default()).await.expect("nothing to write");
    write(&*store, &mut now, &batch(&users, RowOp::Upsert, &["name"], Vec::new())).await.expect("no rows");
    assert_eq!(store.checkpoints("r").await.expect("read"), [now]);
}

/// V8: a column goes away and comes back under prepared statements.
pub async fn v8_trap13_a_column_dropped_while_running(place: &dyn Place) {
    if place.dialect() == super::Dialect::Memory {
        return;
    }
    let (store, mut now) = attached(place).await;
    let users = made(place, &*store, &USERS).await;
    let changes = |id| batch(&users, RowOp::Upsert, &["name", "email"], vec![vec![int(id), text("a"), text("a@x")]]);
    for id in 0..8 {
        write(&*store, &mut now, &changes(id)).await.expect("write");
    }
    place.dba("ALTER TABLE users DROP COLUMN email").await;
    assert_eq!(kind(write(&*store, &mut now, &changes(8)).await), FaultKind::Misconfigured);
    place.dba("ALTER TABLE users ADD COLUMN email text").await;
    write(&*store, &mut now, &changes(9)).await.expect("the column is back");
    place.dba("DROP TABLE users").await;
    assert_eq!(kind(write(&*store, &mut now, &changes(10)).await), FaultKind::Misconfigured);
    place.make(&USERS).await;
    write(&*store, &mut now, &changes(11)).await.expect("the table is back");
    assert_eq!(place.rows("users", &["id", "email"]).await, table(&[&["11", "a@x"]]));
}
