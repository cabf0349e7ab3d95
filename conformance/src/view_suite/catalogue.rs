//! What `describe` and `create` say about tables, and what `inspect` finds.

use gravity_model::change::RowOp;
use gravity_model::port::view::{ColumnRequest, Described, TableRequest};
use gravity_model::{ColumnType, Value};

use super::{Dialect, Place, Spec, USERS, attached, batch, int, kind, made, refused, request, strings, text, write};

pub async fn a_missing_table_is_proposed_and_made(place: &dyn Place) {
    let (store, mut now) = attached(place).await;
    let wanted =
        request("orders", &[("region", "varchar(3)"), ("id", "u64"), ("total", "decimal(12,2)")], &["id", "region"]);
    let mut untyped = wanted.clone();
    untyped.columns[2].declared = None;
    untyped.columns.push(ColumnRequest { name: "note".to_owned(), declared: None });
    let described = store.describe(&[wanted.clone(), untyped]).await.expect("describe");
    let [Described::Missing { ddl: Ok(ddl) }, Described::Missing { ddl: Err(lacking) }] = &described[..] else {
        panic!("{described:?}")
    };
    assert_eq!(lacking, &strings(&["total", "note"]));
    store.create(std::slice::from_ref(ddl)).await.expect("create");
    let described = store.describe(&[wanted]).await.expect("describe").pop();
    let Some(Described::Present(shape)) = described else { panic!("{described:?}") };
    assert_eq!(shape.columns.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["region", "id", "total"]);
    let key: Vec<_> = shape.primary_key.iter().map(|c| shape.columns[usize::from(*c)].name.as_str()).collect();
    assert_eq!(key, ["id", "region"], "in the order of the request");
    assert!(shape.columns[0].not_null && shape.columns[1].not_null && !shape.columns[2].not_null);
    assert!(!store.has_rows("orders").await.expect("ask"));
    let shape = shape.into();
    let mut id = Value::Decimal("18446744073709551615".into());
    let mut total = Value::Decimal("1.5".into());
    let row = |id: &Value, total: &Value| {
        batch(&shape, RowOp::Upsert, &["total"], vec![vec![id.clone(), text("EU"), total.clone()]])
    };
    if place.dialect() == Dialect::Mongodb {
        // BSON's integers end at 2^63 - 1.
        let fault = refused(write(&*store, &mut now, &row(&id, &total)).await);
        assert_eq!(fault.code, "map/out-of-range");
        id = int(i64::MAX);
    }
    if place.lacks("decimal(12,2)", &total) {
        println!("skipped: decimal(12,2) {total:?}: needs a server that stores it");
        total = Value::Null;
    }
    write(&*store, &mut now, &row(&id, &total)).await.expect("write");
    assert!(store.has_rows("orders").await.expect("ask"));
    assert!(kind(store.create(&strings(&["nonsense"])).await) == gravity_model::FaultKind::Misconfigured);
}

pub async fn a_live_table_is_described(place: &dyn Place) {
    let (store, _) = attached(place).await;
    let spec = Spec {
        table: "items",
        columns: &[("id", "i64", true), ("shop", "text", true), ("code", "varchar(8)", false)],
        key: &["shop", "id"],
        unique: &[&["code"]],
    };
    let shape = made(place, &*store, &spec).await;
    assert_eq!(shape.table, "items");
    let names: Vec<_> = shape.columns.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(names, ["id", "shop", "code"]);
    assert_eq!(shape.columns[0].column_type, ColumnType::I64);
    // MySQL indexes only texts of a known length.
    let key = if place.dialect() == Dialect::Mysql { ColumnType::Varchar(512) } else { ColumnType::Text };
    assert_eq!(shape.columns[1].column_type, key);
    assert_eq!(shape.columns.iter().map(|c| c.not_null).collect::<Vec<_>>(), [true, true, false]);
    assert_eq!(shape.primary_key, [1, 0], "in key order");
    assert_eq!(shape.unique, [[2]]);
    // Without key columns in the request it is the table's own key; with others that are unique, those.
    let ask = |key: &[&str]| TableRequest { table: "items".to_owned(), columns: Vec::new(), key: strings(key) };
    let described = store.describe(&[ask(&[]), ask(&["id", "shop"])]).await.expect("describe");
    for answer in described {
        let Described::Present(shape) = answer else { panic!("{answer:?}") };
        assert_eq!(shape.primary_key, [1, 0]);
    }
    let absent = TableRequest { table: "absent".to_owned(), ..ask(&[]) };
    let described = store.describe(&[ask(&[]), absent, ask(&[])]).await.expect("describe");
    assert!(matches!(
        &described[..],
        [Described::Present(_), Described::Missing { ddl: Err(_) }, Described::Present(_)]
    ));
}

/// An empty list for what is fine; a finding with the name for what is not.
pub async fn inspect_names_what_is_missing(place: &dyn Place) {
    let (store, _) = attached(place).await;
    made(place, &*store, &USERS).await;
    let fine = request("users", &[("id", "i64"), ("name", "text")], &["id"]);
    let fatal: Vec<_> =
        store.inspect(std::slice::from_ref(&fine)).await.expect("inspect").into_iter().filter(|f| f.fatal).collect();
    assert_eq!(fatal, []);
    let wrong = request("users", &[("id", "i64"), ("nmae", "text")], &["id"]);
    let absent = request("absent", &[("id", "i64")], &["id"]);
    let findings = store.inspect(&[fine, wrong, absent]).await.expect("inspect");
    let fatal: Vec<_> =
        findings.iter().filter(|f| f.fatal).map(|f| (f.code, f.table.as_str(), f.column.as_deref())).collect();
    assert_eq!(fatal, [("live/no-column", "users", Some("nmae")), ("live/no-table", "absent", None)]);
}
