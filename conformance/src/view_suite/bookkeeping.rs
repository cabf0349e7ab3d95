//! Checkpoints, owners, claims: the compare-and-set and what follows from it (P3, SEMANTICS 3.5).

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use gravity_model::change::{ChangeBatch, RowOp};
use gravity_model::port::view::{BookkeepingRewrite, ViewRow, ViewState, ViewStore};
use gravity_model::{Checkpoint, Counters, Epoch, FaultKind, Fence, LogId, OwnerId, Sequence};

use super::{Place, USERS, at, attach, attached, batch, checkpoint, int, kind, made, table, text, write};

pub async fn open_is_idempotent(place: &dyn Place) {
    let (first, second) = (place.store(), place.store());
    // At the same time: one may find the other in its way, which is transient.
    let (a, b) = tokio::join!(first.open(), second.open());
    for (result, store) in [(a, &first), (b, &second)] {
        if let Err(fault) = result {
            assert_eq!(fault.kind, FaultKind::Transient, "{fault}");
            store.open().await.expect("open once more");
        }
    }
    first.open().await.expect("open again");
    assert_eq!(first.checkpoints("r").await.expect("read"), []);
    assert_eq!(first.views().await.expect("read"), []);
}

pub async fn checkpoints_come_back_whole(place: &dyn Place) {
    let store = place.store();
    store.open().await.expect("open");
    let counters = Counters { read: 28, applied: 1, filtered: 2, unmatched: 3, failed: 4, waiting: 5, skipped: 13 };
    let one = Checkpoint { counters, ..checkpoint("db1", 0, 28) };
    let two = Checkpoint { lane: 1, owner: OwnerId([0xff; 16]), sequence: Sequence(i64::MAX as u64), ..one.clone() };
    let other = checkpoint("db1/users", 0, 3);
    for c in [&two, &one, &other] {
        attach(&*store, c).await;
    }
    assert_eq!(store.checkpoints("db1").await.expect("read"), [one, two]);
    assert_eq!(place.store().checkpoints("db1/users").await.expect("read"), [other]);
}

/// Every way in which a row can differ from what was expected.
fn strangers(c: &Checkpoint) -> Vec<(&'static str, Checkpoint)> {
    vec![
        ("log id", Checkpoint { log_id: LogId([9; 16]), ..c.clone() }),
        ("epoch", Checkpoint { epoch: Epoch(c.epoch.0 + 1), ..c.clone() }),
        ("sequence", Checkpoint { sequence: Sequence(c.sequence.0 + 1), ..c.clone() }),
        ("fence", Checkpoint { fence: Fence(c.fence.0 + 1), ..c.clone() }),
        ("owner", Checkpoint { owner: OwnerId([9; 16]), ..c.clone() }),
        ("route", Checkpoint { route: "elsewhere".to_owned(), ..c.clone() }),
        ("lane", Checkpoint { lane: 7, ..c.clone() }),
    ]
}

pub async fn begin_compares_each_part(place: &dyn Place) {
    let (store, mut now) = attached(place).await;
    let users = made(place, &*store, &USERS).await;
    for (part, stranger) in strangers(&now) {
        let refused = store.begin(&[stranger]).await.map(|_| ());
        assert_eq!(kind(refused), FaultKind::NotOurs, "{part}");
    }
    // Nothing stayed open or locked.
    let changes = batch(&users, RowOp::Upsert, &["name"], vec![vec![int(1), text("a")]]);
    write(&*store, &mut now, &changes).await.expect("a good begin still works");
    assert_eq!(store.checkpoints("r").await.expect("read"), [now]);
}

pub async fn rewrite_compares_each_part(place: &dyn Place) {
    let (store, now) = attached(place).await;
    for (part, stranger) in strangers(&now) {
        let put = vec![Checkpoint { fence: Fence(9), ..stranger.clone() }];
        let rewrite = BookkeepingRewrite { expect: vec![stranger], put, ..BookkeepingRewrite::default() };
        assert_eq!(kind(store.rewrite(rewrite).await), FaultKind::NotOurs, "{part}");
    }
    let again = BookkeepingRewrite { put: vec![now.clone()], ..BookkeepingRewrite::default() };
    assert_eq!(kind(store.rewrite(again).await), FaultKind::NotOurs, "a first checkpoint where there is one");
    assert_eq!(store.checkpoints("r").await.expect("read"), std::slice::from_ref(&now));
    let taken = Checkpoint { owner: OwnerId([9; 16]), fence: Fence(2), epoch: Epoch(2), ..now.clone() };
    let lane = checkpoint("r", 1, 0);
    let rewrite = BookkeepingRewrite {
        expect: vec![now],
        put: vec![taken.clone(), lane.clone()],
        ..BookkeepingRewrite::default()
    };
    store.rewrite(rewrite).await.expect("the right expectation");
    assert_eq!(store.checkpoints("r").await.expect("read"), [taken.clone(), lane.clone()]);
    let rewrite = BookkeepingRewrite {
        expect: vec![taken, lane.clone()],
        delete: vec![("r".to_owned(), 0)],
        ..BookkeepingRewrite::default()
    };
    store.rewrite(rewrite).await.expect("delete one");
    assert_eq!(store.checkpoints("r").await.expect("read"), [lane]);
}

pub async fn rows_and_checkpoint_move_together(place: &dyn Place) {
    let (store, now) = attached(place).await;
    let users = made(place, &*store, &USERS).await;
    let changes = |id, name: &str| batch(&users, RowOp::Upsert, &["name"], vec![vec![int(id), text(name)]]);
    let expect = std::slice::from_ref(&now);

    let mut rolled_back = store.begin(expect).await.expect("begin");
    rolled_back.apply(&changes(1, "rolled back")).await.expect("apply");
    rolled_back.rollback().await;

    let mut dropped = store.begin(expect).await.expect("begin");
    dropped.apply(&changes(2, "dropped")).await.expect("apply");
    drop(dropped);

    assert_eq!(place.rows("users", &["id", "name"]).await, table(&[]));
    assert_eq!(store.checkpoints("r").await.expect("read"), std::slice::from_ref(&now));

    let mut kept = store.begin(expect).await.expect("begin");
    kept.apply(&changes(3, "first")).await.expect("apply");
    kept.apply(&changes(3, "second")).await.expect("apply");
    assert_eq!(place.rows("users", &["id", "name"]).await, table(&[]), "nothing is visible before the commit");
    kept.commit(&[at(&now, 5)]).await.expect("commit");
    assert_eq!(place.rows("users", &["id", "name"]).await, table(&[&["3", "second"]]));
    assert_eq!(store.checkpoints("r").await.expect("read"), [at(&now, 5)]);
}

pub async fn commit_moves_exactly_the_lanes_begun(place: &dyn Place) {
    let store = place.store();
    store.open().await.expect("open");
    let lanes = [checkpoint("r", 0, 0), checkpoint("r", 1, 0), checkpoint("r", 2, 0)];
    for lane in &lanes {
        attach(&*store, lane).await;
    }
    let one = store.begin(&lanes[..1]).await.expect("begin");
    assert!(one.commit(&[at(&lanes[1], 1)]).await.is_err(), "another lane");
    let two = store.begin(&lanes[..2]).await.expect("begin");
    assert!(two.commit(&[at(&lanes[0], 1)]).await.is_err(), "a lane too few");
    let two = store.begin(&[lanes[1].clone(), lanes[0].clone()]).await.expect("begin in any order");
    two.commit(&[at(&lanes[0], 4), at(&lanes[1], 4)]).await.expect("both lanes");
    let want = [at(&lanes[0], 4), at(&lanes[1], 4), lanes[2].clone()];
    assert_eq!(store.checkpoints("r").await.expect("read"), want);
}

/// V12: another engine took the route over; the old one neither writes nor wins it back.
pub async fn v12_trap7_a_zombie_writes_nothing(place: &dyn Place) {
    let (zombie, old) = attached(place).await;
    let users = made(place, &*zombie, &USERS).await;
    let heir = place.store();
    heir.open().await.expect("open");
    let mut taken = Checkpoint { owner: OwnerId([8; 16]), fence: Fence(2), ..old.clone() };
    let rewrite =
        BookkeepingRewrite { expect: vec![old.clone()], put: vec![taken.clone()], ..BookkeepingRewrite::default() };
    heir.rewrite(rewrite).await.expect("take over");
    let stale = batch(&users, RowOp::Upsert, &["name"], vec![vec![int(1), text("stale")]]);
    assert_eq!(kind(write(&*zombie, &mut old.clone(), &stale).await), FaultKind::NotOurs);
    let fresh = batch(&users, RowOp::Upsert, &["name"], vec![vec![int(1), text("fresh")]]);
    write(&*heir, &mut taken, &fresh).await.expect("the heir writes");
    assert_eq!(kind(write(&*zombie, &mut old.clone(), &stale).await), FaultKind::NotOurs);
    assert_eq!(place.rows("users", &["id", "name"]).await, table(&[&["1", "fresh"]]));
}

/// The taking over waits for a transaction under way, then sees that the checkpoint has moved.
pub async fn v12_taking_over_waits_for_what_is_under_way(place: &dyn Place) {
    let (owner, old) = attached(place).await;
    let users = made(place, &*owner, &USERS).await;
    let heir = place.store();
    heir.open().await.expect("open");
    let mut transaction = owner.begin(std::slice::from_ref(&old)).await.expect("begin");
    let changes = batch(&users, RowOp::Upsert, &["name"], vec![vec![int(1), text("kept")]]);
    transaction.apply(&changes).await.expect("apply");
    let taken = Checkpoint { owner: OwnerId([8; 16]), ..old.clone() };
    let rewrite = BookkeepingRewrite { expect: vec![old.clone()], put: vec![taken], ..BookkeepingRewrite::default() };
    let taking = tokio::spawn(async move { heir.rewrite(rewrite).await });
    tokio::time::sleep(std::time::Duration::from_millis(150)).await;
    assert!(!taking.is_finished(), "it must wait");
    transaction.commit(&[at(&old, 1)]).await.expect("commit");
    assert_eq!(kind(taking.await.expect("joins")), FaultKind::NotOurs);
    assert_eq!(owner.checkpoints("r").await.expect("read"), [at(&old, 1)]);
    assert_eq!(place.rows("users", &["id", "name"]).await, table(&[&["1", "kept"]]));
}

fn view(table: &str, log: u8, route: &str) -> ViewRow {
    ViewRow {
        table: table.to_owned(),
        log_id: LogId([log; 16]),
        route: route.to_owned(),
        state: ViewState::Attached,
        generation: 1,
        history: "[[1,1]]".to_owned(),
    }
}

pub async fn a_table_belongs_to_one_route(place: &dyn Place) {
    let store = place.store();
    store.open().await.expect("open");
    made(place, &*store, &USERS).await;
    let put = |row: &ViewRow| BookkeepingRewrite { put_views: vec![row.clone()], ..BookkeepingRewrite::default() };
    let mine = view("users", 1, "db1");
    store.rewrite(put(&mine)).await.expect("claim");
    for stranger in [view("users", 2, "db1"), view("users", 1, "db2")] {
        let fault = store.rewrite(put(&stranger)).await.expect_err("a second claim");
        assert_eq!((fault.kind, &*fault.code), (FaultKind::NotOurs, "view-claimed"));
        assert!(fault.detail.contains("db1") && fault.detail.contains("users"), "{fault}");
    }
    let held = ViewRow { state: ViewState::Held, generation: 2, history: "[[1,1],[7,2]]".to_owned(), ..mine };
    let building = ViewRow { state: ViewState::Building, ..view("orders", 1, "db1") };
    store.rewrite(put(&held)).await.expect("its own holder changes it");
    store.rewrite(put(&building)).await.expect("another table");
    assert_eq!(store.views().await.expect("read"), [building.clone(), held]);
    // Giving up and claiming in one rewrite hands a table over.
    let heir = view("users", 2, "db9");
    let rewrite = BookkeepingRewrite {
        delete_views: vec!["users".to_owned()],
        put_views: vec![heir.clone()],
        ..BookkeepingRewrite::default()
    };
    store.rewrite(rewrite).await.expect("hand over");
    assert_eq!(store.views().await.expect("read"), [building, heir]);
}

/// A refused rewrite changes nothing, not even its parts that were fine.
pub async fn a_rewrite_is_whole_or_nothing(place: &dyn Place) {
    let (store, now) = attached(place).await;
    made(place, &*store, &USERS).await;
    let claim = BookkeepingRewrite { put_views: vec![view("users", 1, "db1")], ..BookkeepingRewrite::default() };
    store.rewrite(claim).await.expect("claim");
    let rewrite = BookkeepingRewrite {
        expect: vec![now.clone()],
        put: vec![Checkpoint { epoch: Epoch(2), ..now.clone() }, checkpoint("db1/users", 0, 0)],
        put_views: vec![view("users", 1, "db2")],
        ..BookkeepingRewrite::default()
    };
    assert_eq!(kind(store.rewrite(rewrite).await), FaultKind::NotOurs);
    assert_eq!(store.checkpoints("r").await.expect("read"), [now]);
    assert_eq!(store.checkpoints("db1/users").await.expect("read"), []);
    assert_eq!(store.views().await.expect("read"), [view("users", 1, "db1")]);
}

/// V1: whatever stands in the way of a COMMIT, rows and checkpoint are both there or both not. Run as it is nothing stands in
/// the way; `tests/view.rs` runs it again with failpoints before and after the COMMIT, and with the sabotage it must notice.
pub async fn v1_rows_and_checkpoint_survive_a_cut_together(place: &dyn Place) {
    let (store, mut now) = attached(place).await;
    let users = made(place, &*store, &USERS).await;
    for id in 1..=3 {
        let changes = batch(&users, RowOp::Upsert, &["name"], vec![vec![int(id), text("x")]]);
        let result = write(&*store, &mut now.clone(), &changes).await;
        let found = place.store();
        found.open().await.expect("open");
        let found = found.checkpoints("r").await.expect("read").pop().expect("a row");
        let moved = found == at(&now, now.sequence.0 + 1);
        assert!(moved || found == now, "{found:?}");
        match result {
            Ok(_) => assert!(moved, "told so"),
            Err(fault) => assert_eq!(fault.kind, FaultKind::Disconnected, "{fault}"),
        }
        let present = place.rows("users", &["id"]).await.contains(&table(&[&[&id.to_string()]])[0]);
        assert_eq!(present, moved, "row {id} and its checkpoint came apart");
        now = found;
    }
}

/// Lets a future run for so many polls, then drops it.
pub struct DroppedAfter<F> {
    future: Pin<Box<F>>,
    polls: usize,
}

impl<F: Future> Future for DroppedAfter<F> {
    /// `None`: dropped half way.
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if self.polls == 0 {
            return Poll::Ready(None);
        }
        self.polls -= 1;
        match self.future.as_mut().poll(context) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending => Poll::Pending,
        }
    }
}

pub fn dropped_after<F: Future>(polls: usize, future: F) -> DroppedAfter<F> {
    DroppedAfter { future: Box::pin(future), polls }
}

/// V14: `begin`, `apply` and `commit` dropped at every await must not lose a *later* write that was reported as done.
pub async fn v14_dropped_futures_lose_no_later_write(place: &dyn Place) {
    let (store, mut now) = attached(place).await;
    let users = made(place, &*store, &USERS).await;
    let row = |id: i64, name: &str| batch(&users, RowOp::Upsert, &["name"], vec![vec![int(id), text(name)]]);
    let mut want = Vec::new();
    let mut completed = 0;
    for polls in 0..24 {
        let expect = [now.clone()];
        let dropped = row(-1, "dropped");
        let attempt = attempt(&store, &expect, &dropped);
        if dropped_after(polls, attempt).await.is_some() {
            completed += 1;
        }
        // Whatever happened, the database's own checkpoint decides; then a write that says Ok must be there.
        now = store.checkpoints("r").await.expect("read").pop().expect("a row");
        let id = polls as i64;
        write(&*store, &mut now, &row(id, "kept")).await.expect("a later write");
        want.push(vec![Some(id.to_string()), Some("kept".to_owned())]);
        let mut found = place.rows("users", &["id", "name"]).await;
        found.retain(|r| r[0].as_deref() != Some("-1"));
        let mut sorted = want.clone();
        sorted.sort();
        assert_eq!(found, sorted, "after a drop at poll {polls}");
    }
    println!("v14: 24 drops, {completed} ran through");
}

async fn attempt(store: &Arc<dyn ViewStore>, expect: &[Checkpoint], changes: &ChangeBatch) {
    if let Ok(mut transaction) = store.begin(expect).await
        && transaction.apply(changes).await.is_ok()
    {
        let _ = transaction.commit(&[at(&expect[0], expect[0].sequence.0 + 1)]).await;
    }
}

/// O38: no local file decides; a new engine with nothing but the database goes on where the rows are.
pub async fn o38_the_views_own_checkpoint_rules(place: &dyn Place) {
    let (store, mut now) = attached(place).await;
    let users = made(place, &*store, &USERS).await;
    for id in 1..=3 {
        let changes = batch(&users, RowOp::Upsert, &["name"], vec![vec![int(id), text("x")]]);
        write(&*store, &mut now, &changes).await.expect("write");
    }
    store.close().await;
    drop(store);
    let fresh = place.store();
    fresh.open().await.expect("open");
    assert_eq!(fresh.checkpoints("r").await.expect("read"), [now]);
    assert_eq!(place.rows("users", &["id"]).await, table(&[&["1"], &["2"], &["3"]]));
}
