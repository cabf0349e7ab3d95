//! Open loop: orders are published at a fixed rate whatever the system does, and a poller notes when each becomes visible.
//!
//! An event's time runs from the moment at which it was *due* (a late producer does not flatter the system) to the end of the
//! first query that shows it. Upserts and patches carry their number in `quantity`; an event is visible once its row holds
//! that number or a later one. Deletes are part of the load and are not timed; an event that a delete of its order overtakes
//! before it was seen cannot be seen any more and is not timed either. The poller has a connection of its own and
//! asks, with a pause of one millisecond, for the rows of all orders that are still out; so a figure is at most one poll too high.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use sqlx::Row as _;
use sqlx::postgres::PgConnection;
use tokio::sync::mpsc;

use super::table::wrong;
use crate::figures::Samples;
use crate::topic::Feed;
use crate::workload::{Oracle, Workload};

/// Events that wait to be seen at most; a system that falls further behind has failed the phase.
const OUT: usize = 100_000;
const PATIENCE: Duration = Duration::from_secs(60);

pub struct Published {
    id: i64,
    /// `None` for a delete.
    number: Option<i32>,
    due: Instant,
}

/// What the open loop measured, in milliseconds.
pub struct Visible {
    /// Per event, from due to visible.
    pub times: Samples,
    /// Per query of the poller: what a figure can be too high by, beside the pause of one millisecond.
    pub polls: Samples,
}

/// Publishes `rate` orders a second for `seconds`. Blocking. Every order is folded into the oracle.
pub fn publish(
    feed: &mut Feed,
    workload: &mut Workload,
    oracle: &mut Oracle,
    (rate, seconds): (u64, u64),
    out: &mpsc::Sender<Published>,
) -> Result<(), String> {
    let start = Instant::now() + Duration::from_millis(50);
    for index in 0..rate * seconds {
        let due = start + Duration::from_nanos(index * 1_000_000_000 / rate);
        feed.wait_until(due);
        let mut order = workload.next();
        // Above every quantity of the drain phase.
        let number = 1_000 + index as i32;
        let number = order.set_quantity(number).then_some(number);
        feed.send(&order, None)?;
        let published = Published { id: order.id, number, due };
        out.try_send(published).map_err(|_| format!("the system is {OUT} events behind"))?;
        oracle.take(order);
    }
    feed.flush()
}

pub fn channel() -> (mpsc::Sender<Published>, mpsc::Receiver<Published>) {
    mpsc::channel(OUT)
}

/// Polls until everything published was seen.
pub async fn watch(connection: &mut PgConnection, mut out: mpsc::Receiver<Published>) -> Result<Visible, String> {
    let mut waiting: HashMap<i64, Vec<(i32, Instant)>> = HashMap::new();
    let mut times = Vec::new();
    let mut polls = Vec::new();
    let mut moved = Instant::now();
    loop {
        let ended = loop {
            match out.try_recv() {
                Ok(Published { id, number: Some(number), due }) => waiting.entry(id).or_default().push((number, due)),
                Ok(Published { id, number: None, .. }) => drop(waiting.remove(&id)),
                Err(mpsc::error::TryRecvError::Empty) => break false,
                Err(mpsc::error::TryRecvError::Disconnected) => break true,
            }
        };
        if waiting.is_empty() {
            if ended {
                return Ok(Visible { times: Samples::of(times), polls: Samples::of(polls) });
            }
            moved = Instant::now();
        } else {
            let ids: Vec<i64> = waiting.keys().copied().collect();
            let query = sqlx::query("SELECT id, quantity FROM orders WHERE id = ANY($1)").bind(&ids);
            let asked = Instant::now();
            let rows = query.fetch_all(&mut *connection).await.map_err(wrong)?;
            let now = Instant::now();
            polls.push((now - asked).as_secs_f64() * 1e3);
            for row in rows {
                let id: i64 = row.get(0);
                let Some(quantity) = row.get::<Option<i32>, _>(1) else { continue };
                let Some(numbers) = waiting.get_mut(&id) else { continue };
                numbers.retain(|(number, due)| {
                    let seen = quantity >= *number;
                    if seen {
                        times.push(now.saturating_duration_since(*due).as_secs_f64() * 1e3);
                        moved = now;
                    }
                    !seen
                });
                if numbers.is_empty() {
                    waiting.remove(&id);
                }
            }
            if moved.elapsed() > PATIENCE {
                return Err(format!("{} orders were not seen for {} s", waiting.len(), PATIENCE.as_secs()));
            }
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
