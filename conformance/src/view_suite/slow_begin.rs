//! V14 over a real network that is slow: a `begin` that is given up after its BEGIN has reached the server must not lose a later write.
//!
//! The driver's own pool fails this: the next statement joins the transaction that nobody commits. Its loss is shown beside, so
//! that the case is known to meet the moment.

use std::sync::Arc;
use std::time::Duration;

use gravity_model::FaultKind;
use gravity_model::change::RowOp;
use gravity_model::port::view::ViewStore;
use sqlx::AssertSqlSafe;

use super::{MySqlPlace, Place, PostgresPlace, USERS, attached, batch, int, kind, made, text, write};
use crate::torture::toxic::{Proxy, Toxic, Way};

/// Every answer of the server, while it is slow.
const SLOW: Toxic = Toxic::Delay { time: Duration::from_millis(200), way: Way::ToClient };
/// What a store waits for an answer: two halves.
const HALF: Duration = Duration::from_millis(60);
const ROUNDS: i64 = 10;

pub async fn v14_a_begin_that_timed_out_loses_no_write_on_postgres(place: &PostgresPlace) {
    let upstream = format!("{}:{}", place.options.host, place.options.port);
    let proxy = Proxy::start(&upstream).await.expect("a proxy");
    let store = place.store_with(|o| {
        (o.host, o.port) = ("127.0.0.1".to_owned(), proxy.address.port());
        (o.statement_timeout, o.answer_grace) = (HALF, HALF);
    });
    let found = loses_nothing(place, store, &proxy).await;
    let url = place.url.replace(&upstream, &proxy.address.to_string());
    let (mut reported, table) = (0, format!("{}.users", place.schema));
    for id in 100..100 + ROUNDS {
        let pool = sqlx::postgres::PgPoolOptions::new().max_connections(1).test_before_acquire(false);
        let pool = pool.connect(&url).await.expect("connect");
        proxy.set(SLOW);
        let begun = tokio::time::timeout(Duration::from_millis(100), pool.begin()).await;
        assert!(begun.is_err(), "slower than that");
        proxy.set(Toxic::Pass);
        let insert = AssertSqlSafe(format!("INSERT INTO {table} (id, name) VALUES ({id}, 'pool')"));
        reported += i64::from(sqlx::query(insert).execute(&pool).await.is_ok());
        pool.close().await;
    }
    let there = place.rows("users", &["id"]).await.len() as i64 - found;
    println!(
        "v14: {ROUNDS} begins timed out, 0 writes lost; the driver's pool lost {} of {reported}",
        reported - there
    );
    assert!(reported > there, "the driver's pool loses writes where ours must not: else nothing was shown");
}

pub async fn v14_a_begin_that_timed_out_loses_no_write_on_mariadb(place: &MySqlPlace) {
    let upstream = format!("{}:{}", place.options.host, place.options.port);
    let proxy = Proxy::start(&upstream).await.expect("a proxy");
    let store = place.store_with(|o| {
        (o.host, o.port) = ("127.0.0.1".to_owned(), proxy.address.port());
        (o.statement_timeout, o.answer_grace) = (HALF, HALF);
    });
    loses_nothing(place, store, &proxy).await;
    println!("v14: {ROUNDS} begins timed out, 0 writes lost");
}

/// The rows that are there in the end.
async fn loses_nothing(place: &dyn Place, store: Arc<dyn ViewStore>, proxy: &Proxy) -> i64 {
    let (direct, mut now) = attached(place).await;
    let users = made(place, &*direct, &USERS).await;
    store.open().await.expect("open");
    for id in 0..ROUNDS {
        let changes = batch(&users, RowOp::Upsert, &["name"], vec![vec![int(id), text("kept")]]);
        proxy.set(SLOW);
        let before = proxy.bites();
        let begun = store.begin(std::slice::from_ref(&now)).await;
        assert_eq!(kind(begun.map(drop)), FaultKind::Disconnected, "no answer in time");
        assert!(proxy.bites() > before, "the server did answer, late");
        proxy.set(Toxic::Pass);
        now = store.checkpoints("r").await.expect("on a new connection").pop().expect("a row");
        write(&*store, &mut now, &changes).await.expect("a later write");
        assert_eq!(place.rows("users", &["id"]).await.len() as i64, id + 1, "reported as done and there");
    }
    ROUNDS
}
