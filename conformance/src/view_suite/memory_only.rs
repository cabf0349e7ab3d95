//! The faults that a test of the engine scripts: the double does what it is told, once.

use std::time::Duration;

use gravity_connectors::memory::view::{Point, Scripted};
use gravity_model::FaultKind;
use gravity_model::change::RowOp;
use gravity_model::port::view::EventOutcome;

use super::{MemoryPlace, Place, USERS, at, attached, batch, int, kind, made, table, text, write};

pub async fn a_scripted_failure_does_nothing(place: &MemoryPlace) {
    let (store, mut now) = attached(place).await;
    let users = made(place, &*store, &USERS).await;
    let changes = batch(&users, RowOp::Upsert, &["name"], vec![vec![int(1), text("x")]]);
    for point in [Point::Begin, Point::Apply, Point::Commit] {
        place.views.script(point, Scripted::Fail(FaultKind::Transient));
        assert_eq!(kind(write(&*store, &mut now, &changes).await), FaultKind::Transient, "{point:?}");
        assert_eq!(place.rows("users", &["id"]).await, table(&[]), "{point:?}");
    }
    for point in [Point::Open, Point::Read, Point::Describe] {
        place.views.script(point, Scripted::Fail(FaultKind::Misconfigured));
    }
    assert_eq!(kind(store.open().await), FaultKind::Misconfigured);
    assert_eq!(kind(store.checkpoints("r").await), FaultKind::Misconfigured);
    assert_eq!(kind(store.describe(&[]).await), FaultKind::Misconfigured);
    write(&*store, &mut now, &changes).await.expect("the script is over");
    assert_eq!(store.checkpoints("r").await.expect("read"), [now]);
}

pub async fn an_unknown_commit_is_done_or_not(place: &MemoryPlace) {
    let (store, mut now) = attached(place).await;
    let users = made(place, &*store, &USERS).await;
    let row = |id| batch(&users, RowOp::Upsert, &["name"], vec![vec![int(id), text("x")]]);
    place.views.script(Point::Commit, Scripted::Fail(FaultKind::Disconnected));
    assert_eq!(kind(write(&*store, &mut now, &row(1)).await), FaultKind::Disconnected);
    assert_eq!(store.checkpoints("r").await.expect("read"), std::slice::from_ref(&now), "not done");
    place.views.script(Point::Commit, Scripted::FailAfter(FaultKind::Disconnected));
    assert_eq!(kind(write(&*store, &mut now, &row(2)).await), FaultKind::Disconnected);
    assert_eq!(store.checkpoints("r").await.expect("read"), [at(&now, 1)], "done");
    assert_eq!(place.rows("users", &["id"]).await, table(&[&["2"]]));
}

pub async fn a_hanging_call_goes_on_when_told(place: &MemoryPlace) {
    let (store, mut now) = attached(place).await;
    let users = made(place, &*store, &USERS).await;
    place.views.script(Point::Commit, Scripted::Hang);
    let changes = batch(&users, RowOp::Upsert, &["name"], vec![vec![int(1), text("x")]]);
    let writing = tokio::spawn(async move { write(&*store, &mut now, &changes).await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!writing.is_finished());
    place.views.release();
    writing.await.expect("joins").expect("goes on");
    assert_eq!(place.rows("users", &["id"]).await, table(&[&["1"]]));
}

pub async fn a_refused_value_is_a_refusal_of_its_event(place: &MemoryPlace) {
    let (store, now) = attached(place).await;
    let users = made(place, &*store, &USERS).await;
    place.views.refuse("users", "name", text("poison"));
    let row = |id, name: &str| batch(&users, RowOp::Upsert, &["name"], vec![vec![int(id), text(name)]]);
    let mut transaction = store.begin(std::slice::from_ref(&now)).await.expect("begin");
    let outcome = transaction.apply_event(&row(1, "poison")).await.expect("an answer");
    assert!(matches!(outcome, EventOutcome::Refused(f) if f.code == "23514"));
    transaction.apply_event(&row(2, "fine")).await.expect("an answer");
    transaction.commit(&[at(&now, 2)]).await.expect("commit");
    assert_eq!(place.rows("users", &["id", "name"]).await, table(&[&["2", "fine"]]));
}
